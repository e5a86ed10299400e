#!/bin/bash
# The main job in under a minute: a daemon that needs nothing else, an image
# made here, a model server in a pod behind a host port. Every command is shown
# before it runs; everything is taken away at the end. `make demo` calls it.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ "$(id -u)" -ne 0 ]; then
	echo "the demonstration makes containers and needs root: sudo make demo" >&2
	exit 1
fi

export PATH=$PWD/bin:$PATH:/usr/sbin
dir=$(mktemp -d /tmp/berth-demo.XXXXXX)
export BERTH_HOST=unix://$dir/run/berth.sock
port=18080
began=$SECONDS
daemon=

# show prints a command as a person would type it, and runs it.
show() {
	printf '\n\e[1m$ %s\e[0m\n' "$*"
	"$@"
}

# finish takes away what the demonstration made, however it ended.
finish() {
	status=$?
	set +e
	if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
		berth rm -f iris >/dev/null 2>&1
		kill -TERM "$daemon"
		wait "$daemon" 2>/dev/null
	fi
	end_runtime
	remove_cgroups
	ip link delete berthdemo0 2>/dev/null
	if [ "$status" -ne 0 ]; then
		echo "== the daemon's last lines"
		tail -n 20 "$dir/berthd.log"
	fi
	if grep -q " $dir/" /proc/self/mounts; then
		echo "mounts are left below $dir:" >&2
		grep " $dir/" /proc/self/mounts >&2
		exit 1
	fi
	rm -rf "$dir"
	exit "$status"
}

# end_runtime ends berth-runtime, which outlives its daemon on purpose. Only
# the one of this demonstration has its state directory.
end_runtime() {
	local cmdline
	for cmdline in /proc/[0-9]*/cmdline; do
		if tr '\0' ' ' 2>/dev/null <"$cmdline" | grep -q -e "berth-runtime .*$dir/run"; then
			kill -TERM "$(cut -d/ -f3 <<<"$cmdline")"
		fi
	done
}

# remove_cgroups removes the parent of the pods' cgroups, in each hierarchy, where
# no other daemon has pods in it.
remove_cgroups() {
	rmdir /sys/fs/cgroup/berth /sys/fs/cgroup/*/berth 2>/dev/null
}

# await waits until a command succeeds, for ten seconds.
await() {
	for _ in $(seq 100); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	echo "waited in vain for: $*" >&2
	return 1
}

trap finish EXIT
trap 'exit 1' INT TERM

echo "== an image, made here: busybox and a model server"
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$dir/model" ./test/demo/model
show go run ./test/demo/mkimage "$dir/model" demo.local/iris:1 "$dir/iris.tar"

echo
echo "== a daemon with its own network, on a private root"
mkdir "$dir/data"
cat >"$dir/berth.toml" <<CONFIG
[network]
bin_dirs = ["$PWD/bin/cni"]
[network.builtin]
bridge = "berthdemo0"
CONFIG
printf '\n\e[1m$ %s\e[0m\n' "berthd --standalone --config $dir/berth.toml --root $dir/root --state $dir/run &"
berthd --standalone --config "$dir/berth.toml" --root "$dir/root" --state "$dir/run" >"$dir/berthd.log" 2>&1 &
daemon=$!
await berth info
show berth version

echo
echo "== a pod with a host port, a memory limit and a volume"
show berth load -i "$dir/iris.tar"
show berth images
show berth run -d --name iris -p "$port:8080" --memory 128m -e PORT=8080 -v "$dir/data:/data" demo.local/iris:1
await curl -fsS "http://127.0.0.1:$port/healthz"
show curl -sS "http://127.0.0.1:$port/predict?x=5.1,3.5,1.4,0.2"
show curl -sS "http://127.0.0.1:$port/predict?x=6.5,3.0,5.8,2.2"

echo
echo "== look at it"
show berth ps
show berth pods
show berth logs iris
show berth exec iris sh -c 'hostname; cat /proc/1/comm; echo written in the container > /data/note'
show cat "$dir/data/note"

echo
echo "== the daemon dies and comes back; the pod does not notice"
show kill -KILL "$daemon"
wait "$daemon" 2>/dev/null || true
show curl -sS "http://127.0.0.1:$port/predict?x=5.9,2.8,4.3,1.3"
berthd --standalone --config "$dir/berth.toml" --root "$dir/root" --state "$dir/run" >>"$dir/berthd.log" 2>&1 &
daemon=$!
await berth info
show berth ps

echo
echo "== and away"
show berth stop -t 2 iris
show berth logs --tail 1 iris
show berth rm iris
show berth rmi demo.local/iris:1
show berth check
printf '\n== done in %d seconds\n' $((SECONDS - began))
