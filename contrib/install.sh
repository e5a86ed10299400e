#!/bin/bash
# Puts what `make build` made in place, or takes it away again.
#
#   DESTDIR= PREFIX=/usr/local contrib/install.sh install|uninstall
#
# /etc/berth/berth.toml is the administrator's: it is neither overwritten nor
# removed, and nothing under /var/lib/berth is touched.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${PREFIX:-/usr/local}
dest=${DESTDIR:-}
bin=$dest$prefix/bin
plugins=$dest/opt/cni/bin
units=$dest/etc/systemd/system
config=$dest/etc/berth/berth.toml
programs=(berthd berth-runtime berth berth-bench)

install_all() {
	install -d "$bin" "$plugins" "$units" "$(dirname "$config")"
	for p in "${programs[@]}"; do
		install -m 0755 "bin/$p" "$bin/$p"
	done
	# A plugin that is there already may be a network add-on's.
	for p in bin/cni/*; do
		[ -e "$plugins/$(basename "$p")" ] || install -m 0755 "$p" "$plugins/"
	done
	for u in contrib/systemd/*.service; do
		sed "s|/usr/local/bin/|$prefix/bin/|" "$u" >"$units/$(basename "$u")"
	done
	[ -e "$config" ] || install -m 0644 config/berth.toml "$config"
	reload
	echo "installed under $prefix; next: systemctl enable --now berth-runtime berthd"
}

uninstall_all() {
	for p in "${programs[@]}"; do
		rm -f "$bin/$p"
	done
	for u in contrib/systemd/*.service; do
		rm -f "$units/$(basename "$u")"
	done
	# Only what is still as it was built.
	for p in bin/cni/*; do
		if cmp -s "$p" "$plugins/$(basename "$p")"; then
			rm -f "$plugins/$(basename "$p")"
		fi
	done
	reload
	echo "uninstalled; $config, /var/lib/berth and running containers stay"
}

# reload tells systemd, where it is the one that runs here.
reload() {
	if [ -z "$dest" ] && [ -d /run/systemd/system ]; then
		systemctl daemon-reload
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
