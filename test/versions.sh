#!/usr/bin/env bash
# versions.sh check|compile VERSION TREE WORK: TREE against another PostgreSQL.
#
# As root: unpacks the Debian suite that has this major under WORK, copies the
# tree into it and runs test/steps.sh there as user postgres.  The run has
# mounts, processes and a network (loopback alone) of its own, which end with
# it however it ends; WORK is the caller's to remove.  What is unpacked already
# is used again.  With 17 pg_upgrade runs too, from the 15 that steps.sh has
# built under WORK.
#
# Exit status: 0 passed, 1 failed, 77 cannot run here, with a line saying why.
set -euo pipefail

what=${1:?usage: versions.sh check|compile VERSION TREE WORK} version=$2 tree=$3 work=$4
root=$work/pg$version
started=$SECONDS

say() { printf '== PostgreSQL %s: %s\n' "$version" "$*"; }
skip() {
	printf 'SKIP PostgreSQL %s: %s\n' "$version" "$*"
	exit 77
}

# The story, and what depends on how this server treats transactions, workers, roles and
# logs, and on the libcurl and OpenSSL beside it
tests=${TESTS:-test/t/001_story.pl test/t/003_rollback.pl test/t/004_hanging_provider.pl test/t/005_isolation.pl test/t/018_identity_sources.pl test/t/027_redteam.pl test/t/032_sentinels.pl test/t/039_redteam_more.pl}

case $version in
	17) suite=trixie ;;
	18) suite=sid ;;
	*) skip "no Debian suite is known to have it" ;;
esac

# The place this machine gets its own Debian packages from
mirror() {
	apt-get indextargets --format '$(RELEASE) $(SITE)' 'Created-By: Packages' 2>/dev/null |
		awk '$1 !~ /-/ { print $2; exit }'
}

#
# Only what building and testing take.  server-dev is unpacked, not installed:
# it depends on clang and LLVM, for bitcode that with_llvm=no does not make.
#
unpack() {
	local site=$1 log=$work/pg$version.log
	(umask 077 && apt-config dump 2>/dev/null | grep -E '^Acquire::https?::Proxy' >"$work/apt.conf" || true)
	setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc -- \
		mmdebstrap --mode=root --variant=essential \
		--include="postgresql-$version,libpq-dev,libcurl4-openssl-dev,libssl-dev,gcc,libc6-dev,make,libipc-run-perl,libio-socket-ssl-perl,python3,nodejs,openssl,ca-certificates" \
		--aptopt="$work/apt.conf" \
		--aptopt='APT::Install-Recommends "false"' \
		--aptopt='Acquire::Check-Valid-Until "false"' \
		--dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/lib/postgresql/*/lib/bitcode/*' \
		--essential-hook='mkdir -p "$1/etc/postgresql-common"; echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"' \
		--customize-hook="mkdir '$root.deb' && cd '$root.deb' &&
			APT_CONFIG=\$MMDEBSTRAP_APT_CONFIG apt-get download -qq postgresql-server-dev-$version &&
			dpkg-deb -x *.deb \"\$1\" && rm -r '$root.deb'" \
		"$suite" "$root.new" "$site" >"$log" 2>&1 </dev/null || {
		tail -n 20 "$log"
		rm -rf --one-file-system "$root.new" "$root.deb"
		return 1
	}
	mv "$root.new" "$root"
}

if [ ! -d "$root" ]; then
	[ "$(id -u)" = 0 ] || skip "only root can unpack a system to run it in"
	for tool in mmdebstrap unshare setpriv chroot ip; do
		command -v $tool >/dev/null || skip "there is no $tool"
	done
	unshare --mount --pid --net --fork true 2>/dev/null || skip "namespaces cannot be made here"
	site=$(mirror)
	[ -n "$site" ] || skip "this machine names no Debian mirror"
	unpack "$site" || skip "Debian $suite with postgresql-$version could not be unpacked"
	say "Debian $suite unpacked, $((SECONDS - started)) s"
fi

#
# A copy of the tree without what was built for another server; node_modules
# comes along, there is no network inside.
#
inside=/srv/oauth_vault
rm -rf --one-file-system "$root$inside"
mkdir -p "$root$inside/tree" "$root$inside/tmp"
tar -C "$tree" --exclude=.git --exclude='*.o' --exclude='*.so' --exclude=./test/unit/build --exclude=./test/fuzz/build \
	--exclude='./oauth_vault--*.sql' --exclude=./oauth-vault-keyring -cf - . |
	tar -C "$root$inside/tree" --no-same-owner -xf -
chroot "$root" chown -R postgres: "$inside"

#
# The server that the main run was made with, with the extension in it, for
# pg_upgrade: its files where they were built for, and of the libraries that
# its programs need those that this system does not have.  The others are
# newer here, and serve as well.
#
older() {
	local from=$work/pg/usr name=$1 lib
	[ -x "$from/lib/postgresql/$name/bin/postgres" ] || return 1
	rm -rf --one-file-system "$root/usr/lib/postgresql/$name" "$root/usr/share/postgresql/$name"
	cp -a "$from/lib/postgresql/$name" "$root/usr/lib/postgresql/"
	cp -a "$from/share/postgresql/$name" "$root/usr/share/postgresql/"
	find "$from/lib/postgresql/$name" -type f \( -path '*/bin/*' -o -name '*.so' \) -exec ldd {} + 2>/dev/null |
		awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u | while read -r lib; do
		[ -e "$root/lib/$(uname -m)-linux-gnu/${lib##*/}" ] || [ -e "$root/usr/lib/$(uname -m)-linux-gnu/${lib##*/}" ] ||
			cp -L "$lib" "$root/usr/local/lib/"
	done
	chroot "$root" ldconfig
	chroot "$root" "/usr/lib/postgresql/$name/bin/postgres" --version
}
old=()
if [ "$what" = check ] && [ "$version" = 17 ]; then
	if older 15; then
		old=(OV_OLD_BIN=/usr/lib/postgresql/15/bin)
		[ -n "${TESTS:-}" ] || tests="$tests test/t/034_upgrade.pl"
	else
		say "NOT TESTED: pg_upgrade from 15, which is not built under $work"
	fi
fi

status=0
setpriv --pdeathsig KILL unshare --mount --pid --net --fork --kill-child -- bash -c '
	set -e
	ip link set lo up
	mount -t proc proc "$1/proc"
	mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
	mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
	shift
	exec "$@"' bash "$root" \
	chroot --userspec=postgres:postgres "$root" \
	env -i HOME="$inside/tmp" TMPDIR="$inside/tmp" LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin \
	PGVERSION="$version" WORK="$inside" TESTS="$tests" "${old[@]}" \
	bash "$inside/tree/test/steps.sh" "$what" </dev/null || status=1
[ "${KEEP:-0}" = 1 ] || rm -rf --one-file-system "$root$inside"
say "$([ $status = 0 ] && echo ok || echo FAILED), $((SECONDS - started)) s"
exit $status
