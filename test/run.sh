#!/usr/bin/env bash
# run.sh demo|try|check|unit|versions|compile|lint|valgrind|fuzz|blast|torture: set up what is
# missing, then run as an ordinary user.  versions: what check does with
# PostgreSQL 17 and 18, alone; try: what the README's first connection needs, until
# Enter, Ctrl-C or the end of standard input; compile: only builds, against every major;
# fuzz: FUZZ_SECONDS (60) for each harness, corpora and findings in test/fuzz/build;
# torture: TORTURE_SECONDS (600), SEED, CONNECTIONS, EXITS, KILLS, POSTMASTERS, see
# doc/reliability.md; bench-refresh, bench-due, bench-read, bench-storage, bench-storm: see doc/performance.md.
#
# campaign-revoke: REVOCATIONS (10000) with SEED, see doc/reliability.md.
#
# blast: whose tokens one stolen thing opens, of BLAST_USERS (1000) people.
#
# VERSIONS="17 18" chooses the other majors ("" for none), SUITES among unit,
# lint, clang, valgrind, fuzz, regress, tap and torture, TESTS the TAP files.
#
# Works on a copy of the tree in a directory of its own, against a private copy
# of the PostgreSQL installation, so that neither the checkout nor /usr changes;
# everything is removed at the end.  KEEP=1 keeps the directory.
set -euo pipefail

what=${1:?usage: run.sh demo|try|check|unit|versions|compile|lint|valgrind|fuzz|blast|torture}
top=$(cd "$(dirname "$0")/.." && pwd)
pgversion=${PGVERSION:-15}
case $what in
	check | versions | compile) versions=${VERSIONS-17 18} ;;
	*) versions= ;;
esac

say() { printf '== %s\n' "$*"; }

#
# Packages.  A list of Debian packages beside the file each one is known by.
#
missing=()
need() { [ -e "$2" ] || missing+=("$1"); }
need procps /usr/bin/ps
need gcc /usr/bin/gcc
need make /usr/bin/make
need openssl /usr/bin/openssl
need ca-certificates /etc/ssl/certs/ca-certificates.crt
need libssl-dev /usr/include/openssl/evp.h
need libkrb5-dev /usr/include/gssapi/gssapi.h
need libcurl4-openssl-dev "/usr/include/$(uname -m)-linux-gnu/curl/curl.h"
need "postgresql-$pgversion" "/usr/lib/postgresql/$pgversion/bin/postgres"
need "postgresql-server-dev-$pgversion" "/usr/lib/postgresql/$pgversion/lib/pgxs/src/makefiles/pgxs.mk"
need libipc-run-perl /usr/share/perl5/IPC/Run.pm
need python3 /usr/bin/python3
need libio-socket-ssl-perl /usr/share/perl5/IO/Socket/SSL.pm
command -v npm >/dev/null || missing+=(npm)
command -v node >/dev/null || missing+=(nodejs)
if [ "$what" = check ]; then
	need python3-psycopg /usr/lib/python3/dist-packages/psycopg
	need pgbouncer /usr/sbin/pgbouncer
	need python3-prometheus-client /usr/lib/python3/dist-packages/prometheus_client
	need python3-jwt /usr/lib/python3/dist-packages/jwt
	need python3-cryptography /usr/lib/python3/dist-packages/cryptography
	need chromium /usr/bin/chromium
	need gdb /usr/bin/gcore
	need golang-go /usr/bin/go
	need golang-github-jackc-pgx-v4-dev /usr/share/gocode/src/github.com/jackc/pgx/v4
fi
case $what in
	check | fuzz)
		need clang-14 /usr/bin/clang-14
		need libclang-rt-14-dev "/usr/lib/llvm-14/lib/clang/14.0.6/lib/linux/libclang_rt.fuzzer-$(uname -m).a"
		;;
esac
case $what in
	check | valgrind)
		need valgrind /usr/bin/valgrind
		need libc6-dbg /usr/lib/debug/.build-id
		;;
esac
# Other majors run in a Debian of their own, which only root can unpack.
if [ -n "$versions" ] && [ "$(id -u)" = 0 ]; then
	need mmdebstrap /usr/bin/mmdebstrap
	need iproute2 /usr/bin/ip
fi

# What Debian 12 has and others may not
in_apt() { [ -n "$(apt-cache show "$1" 2>/dev/null)" ]; }
debian12() {
	[[ " ${missing[*]} " != *" postgresql-$pgversion "* ]] || in_apt "postgresql-$pgversion" || {
		echo "apt has no postgresql-$pgversion here: this needs Debian 12 (bookworm), whose packages PostgreSQL 15 and clang-14 are" >&2
		exit 1
	}
}
if [ ${#missing[@]} -gt 0 ]; then
	if [ "$(id -u)" != 0 ]; then
		debian12
		echo "these Debian packages are missing; install them or run as root: ${missing[*]}" >&2
		exit 1
	fi
	say "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	# No cluster or service may start by itself on this machine.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod +x $policy
		trap 'rm -f $policy' EXIT
	fi
	apt-get -o DPkg::Lock::Timeout=900 update -qq
	debian12
	apt-get -o DPkg::Lock::Timeout=900 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
	if [ -e $policy ] && grep -q 'exit 101' $policy; then rm -f $policy; fi
	trap - EXIT
fi

#
# A working directory that an ordinary user owns: PostgreSQL refuses root.
#
work=$(mktemp -d "${TMPDIR:-/var/tmp}/oauth_vault.XXXXXX")
chmod 755 "$work"
tee=
finish() {
	status=$?
	# all of what was printed has to be out before the end
	[ -z "$tee" ] || { exec 1>&3 2>&4; wait "$tee" || true; }
	if [ "${KEEP:-0}" = 1 ]; then
		echo "kept: $work"
	else
		rm -rf "$work"
	fi
	exit $status
}
trap finish EXIT
mkdir "$work/tree" "$work/tmp"
tar -C "$top" --exclude=.git --exclude=node_modules --exclude='*.o' --exclude='*.so' --exclude=test/unit/build --exclude=test/fuzz/build -cf - . |
	tar -C "$work/tree" -xf -

if [ "$what" = fuzz ] && [ -d "$top/test/fuzz/build/corpus" ]; then
	mkdir "$work/tree/test/fuzz/build"
	cp -r "$top/test/fuzz/build/corpus" "$work/tree/test/fuzz/build/"
fi

# bench-refresh: a directory with pg_net.so, pg_net.control and pg_net--*.sql
if [ -n "${PG_NET:-}" ]; then
	mkdir "$work/pg_net"
	cp "$PG_NET"/pg_net.so "$PG_NET"/pg_net.control "$PG_NET"/pg_net--*.sql "$work/pg_net/"
fi

as_user=()
if [ "$(id -u)" = 0 ]; then
	user=postgres
	chown -R "$user:" "$work"
	as_user=(runuser -u "$user" --)
fi

# Only one of them listens to the person who started it.  What check prints is
# kept, so that it can end with what failed: the middle of a long log gets lost.
[ "$what" = try ] || exec </dev/null
printed=$work/printed
case $what in check | versions) exec 3>&1 4>&2 > >(tee "$printed") 2>&1; tee=$! ;; esac
what_failed() {
	case $what in check | versions) ;; *) return 0 ;; esac
	exec 1>&3 2>&4
	wait "$tee" || true
	tee=
	say "what failed"
	grep -aE '(: FAILED, [0-9]+ s$|^(test|#) .* FAILED|^not ok|^#   Failed test|^#   at |^#  +(got|expected): |^Dubious|^  Failed test)' "$printed" | tail -n 80 || true
}
status=0
"${as_user[@]}" env -i HOME="$work/tmp" TMPDIR="$work/tmp" LANG=C.UTF-8 \
	PATH="/usr/local/bin:/usr/bin:/bin" PGVERSION="$pgversion" WORK="$work" KEEP="${KEEP:-0}" \
	${BENCH_CYCLES:+BENCH_CYCLES="$BENCH_CYCLES"} ${BENCH_LIFE:+BENCH_LIFE="$BENCH_LIFE"} \
	${BENCH_CLIENTS:+BENCH_CLIENTS="$BENCH_CLIENTS"} ${BENCH_SLICE:+BENCH_SLICE="$BENCH_SLICE"} ${BENCH_SERVERS:+BENCH_SERVERS="$BENCH_SERVERS"} \
	${BENCH_CONNECTIONS:+BENCH_CONNECTIONS="$BENCH_CONNECTIONS"} ${BENCH_ROUNDS:+BENCH_ROUNDS="$BENCH_ROUNDS"} ${BENCH_SIZES:+BENCH_SIZES="$BENCH_SIZES"} \
	${BENCH_BUDGET:+BENCH_BUDGET="$BENCH_BUDGET"} ${BENCH_DELAY_MS:+BENCH_DELAY_MS="$BENCH_DELAY_MS"} ${BENCH_IN_FLIGHT:+BENCH_IN_FLIGHT="$BENCH_IN_FLIGHT"} \
	${BENCH_CALLS:+BENCH_CALLS="$BENCH_CALLS"} ${BENCH_AUDIT:+BENCH_AUDIT="$BENCH_AUDIT"} ${BENCH_PROFILE:+BENCH_PROFILE="$BENCH_PROFILE"} \
	MAIN=1 ${FUZZ_SECONDS:+FUZZ_SECONDS="$FUZZ_SECONDS"} ${BLAST_USERS:+BLAST_USERS="$BLAST_USERS"} \
	${TORTURE_SECONDS:+TORTURE_SECONDS="$TORTURE_SECONDS"} ${SEED:+SEED="$SEED"} ${REVOCATIONS:+REVOCATIONS="$REVOCATIONS"} ${CONNECTIONS:+CONNECTIONS="$CONNECTIONS"} \
	${EXITS:+EXITS="$EXITS"} ${KILLS:+KILLS="$KILLS"} ${POSTMASTERS:+POSTMASTERS="$POSTMASTERS"} \
	${NODE_EXTRA_CA_CERTS:+NODE_EXTRA_CA_CERTS="$NODE_EXTRA_CA_CERTS"} ${TESTS:+TESTS="$TESTS"} ${SUITES:+SUITES="$SUITES"} \
	bash "$work/tree/test/steps.sh" "$what" || status=1
if [ "$what" = fuzz ]; then
	mkdir -p "$top/test/fuzz/build"
	cp -r "$work/tree/test/fuzz/build/corpus" "$work/tree/test/fuzz/build/found" "$top/test/fuzz/build/"
fi
if [ $status = 0 ] && [ -e "$work/tree/doc/$what.svg" ]; then
	cp "$work/tree/doc/$what.svg" "$top/doc/"
fi
[ -n "$versions" ] || { [ $status = 0 ] || what_failed; exit $status; }

skipped=()
failed=()
[ $status = 0 ] || failed+=("$pgversion")
for version in $versions; do
	status=0
	setpriv --pdeathsig KILL bash "$top/test/versions.sh" "${what/versions/check}" "$version" "$work/tree" "$work" || status=$?
	case $status in
		0) ;;
		77) skipped+=("$version") ;;
		*) failed+=("$version") ;;
	esac
done
[ ${#skipped[@]} = 0 ] || say "SKIPPED, see above: PostgreSQL ${skipped[*]}"
say "every version, total: $SECONDS s"
if [ ${#failed[@]} -gt 0 ]; then
	what_failed
	say "failed with PostgreSQL ${failed[*]}"
	exit 1
fi
