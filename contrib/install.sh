#!/bin/bash
# Puts what `make build` made in place, or takes it away again.
#
#   DESTDIR= PREFIX=/usr/local contrib/install.sh install|uninstall
#
# /etc/berth/berth.toml is the administrator's: it is neither overwritten nor
# removed, and nothing under /var/lib/berth is touched. A CNI plugin that is there
# already may be a network add-on's: only those that PREFIX/share/berth/plugins.sha256
# says to be ours, and that are still as we put them there, are replaced or removed.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${PREFIX:-/usr/local}
dest=${DESTDIR:-}
bin=$dest$prefix/bin
plugins=$dest/opt/cni/bin
units=$dest/etc/systemd/system
config=$dest/etc/berth/berth.toml
ours=$dest$prefix/share/berth/plugins.sha256
profile=$dest/etc/apparmor.d/berth-default
programs=(berthd berth-runtime berth berth-bench)
services=(berthd berth-runtime)

# put MODE FILE TARGET: in one step, as somebody may be executing TARGET.
put() {
	install -m "$1" "$2" "$3.new"
	mv -f "$3.new" "$3"
}

# line PLUGIN is what the list has for one that is in place.
line() {
	(cd "$plugins" && sha256sum "$1")
}

# is_ours PLUGIN: we put it there, and nobody has replaced it.
is_ours() {
	[ -f "$plugins/$1" ] && [ -f "$ours" ] && line "$1" | grep -qxFf - "$ours"
}

install_plugins() {
	local list p
	list=$(mktemp)
	for p in bin/cni/*; do
		p=${p##*/}
		if [ ! -e "$plugins/$p" ] || is_ours "$p"; then
			put 0755 "bin/cni/$p" "$plugins/$p"
		elif ! cmp -s "bin/cni/$p" "$plugins/$p"; then
			echo "left as it is, as somebody else's: $plugins/$p"
			continue
		fi
		line "$p" >>"$list"
	done
	put 0644 "$list" "$ours"
	rm -f "$list"
}

install_all() {
	local p u
	install -d "$bin" "$plugins" "$units" "$(dirname "$config")" "$(dirname "$ours")" "$(dirname "$profile")"
	for p in "${programs[@]}"; do
		put 0755 "bin/$p" "$bin/$p"
	done
	install_plugins
	for u in "${services[@]}"; do
		sed "s|/usr/local/bin/|$prefix/bin/|" "contrib/systemd/$u.service" >"$units/$u.service"
	done
	[ -e "$config" ] || install -m 0644 config/berth.toml "$config"
	put 0644 contrib/apparmor/berth-default "$profile"
	load_profile
	tell daemon-reload
	echo "installed under $prefix; next, the first time: systemctl enable --now berth-runtime berthd"
	echo "after an upgrade: systemctl reload berth-runtime && systemctl restart berthd"
}

uninstall_all() {
	local p u
	tell disable --now "${services[@]}" || true # they may never have been there
	for p in "${programs[@]}"; do
		rm -f "$bin/$p"
	done
	for u in "${services[@]}"; do
		rm -f "$units/$u.service"
	done
	if [ -f "$ours" ]; then
		while read -r _ p; do
			if is_ours "$p"; then
				rm -f "$plugins/$p"
			fi
		done <"$ours"
		rm -f "$ours"
		rmdir --ignore-fail-on-non-empty "$(dirname "$ours")"
	fi
	rm -f "$profile" # it stays loaded, for the containers that run
	tell daemon-reload
	echo "uninstalled; $config, /var/lib/berth and running containers stay"
}

# load_profile has the kernel know the AppArmor profile, where it has AppArmor and
# what is installed is for here.
load_profile() {
	if [ -z "$dest" ] && grep -qs Y /sys/module/apparmor/parameters/enabled && command -v apparmor_parser >/dev/null; then
		apparmor_parser --replace --write-cache "$profile" || echo "berth-default is not loaded: RuntimeDefault will confine nothing" >&2
	fi
}

# tell calls systemctl, where systemd runs here and what is installed is for here.
tell() {
	if [ -z "$dest" ] && [ -d /run/systemd/system ]; then
		systemctl "$@"
	fi
}

case "${1-}" in
install) install_all ;;
uninstall) uninstall_all ;;
*)
	echo "usage: $0 install|uninstall" >&2
	exit 2
	;;
esac
