#!/bin/sh
# Sees to it that the machine has the Postgres server programs, initdb and postgres: nothing to do where it has them,
# else it installs them with the system's package manager where it may. No server is left running: purser runs its own.
#
# `make run` and `make test` call it; the purser binary itself installs nothing.
set -eu

# The places that internal/localpostgres looks in.
installed() {
	initdb=$(command -v initdb || :)
	target=
	[ -z "$initdb" ] || target=$(readlink -f "$initdb" || :)
	for dir in \
		"${target%/*}" \
		"${initdb%/*}" \
		/usr/lib/postgresql/*/bin \
		/usr/pgsql-*/bin \
		/usr/lib/postgresql*/bin \
		/usr/libexec/postgresql* \
		/opt/homebrew/opt/postgresql*/bin \
		/usr/local/opt/postgresql*/bin \
		/usr/local/pgsql/bin \
		/Applications/Postgres.app/Contents/Versions/*/bin; do
		if [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
			return 0
		fi
	done
	return 1
}

fail() {
	echo "PostgreSQL's server programs are missing: install them with \`$1\` and try again." >&2
	exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# Debian makes and starts a cluster with the package unless told otherwise. What is told here holds for this once.
install_on_debian() {
	dropins=/etc/postgresql-common/createcluster.d
	dropin=$dropins/purser-install.conf
	trap '$root rm -f "$dropin"; $root rmdir "$dropins" 2>/dev/null || :; rm -f "$log"' EXIT
	$root mkdir -p "$dropins"
	echo 'create_main_cluster = false' | $root tee "$dropin" >/dev/null
	apt="$root env DEBIAN_FRONTEND=noninteractive apt-get -q -y"
	# The lists of packages may be missing or old.
	$apt install --no-install-recommends postgresql ||
		{ $apt update && $apt install --no-install-recommends postgresql; }
}

if installed; then
	exit 0
fi

root=
may=yes
if [ "$(id -u)" -ne 0 ]; then
	root='sudo -n'
	sudo -n true 2>/dev/null || may=
fi
if has apt-get; then
	by_hand='sudo apt-get install postgresql'
	install=install_on_debian
elif has dnf; then
	by_hand='sudo dnf install postgresql-server'
	install="$root dnf install -q -y postgresql-server"
elif has apk; then
	by_hand='sudo apk add postgresql'
	install="$root apk add -q postgresql"
elif has pacman; then
	by_hand='sudo pacman -S postgresql'
	install="$root pacman -Sy --needed --noconfirm postgresql"
elif has zypper; then
	by_hand='sudo zypper install postgresql-server'
	install="$root zypper -q -n install postgresql-server"
elif has brew; then
	by_hand='brew install postgresql@17'
	install='brew install -q postgresql@17'
	may=yes
	[ "$(id -u)" -ne 0 ] || may= # Homebrew refuses to run as root
else
	echo "PostgreSQL's server programs, initdb and postgres, are missing: install them, see https://www.postgresql.org/download/." >&2
	exit 1
fi
[ "$may" ] || fail "$by_hand"

echo "No PostgreSQL server programs found: installing them (${by_hand#sudo }); no server is left running." >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 1' HUP INT TERM
if ! $install >"$log" 2>&1 </dev/null; then
	tail -n 20 "$log" >&2
	fail "$by_hand"
fi
installed || fail "$by_hand"
