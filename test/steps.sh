#!/usr/bin/env bash
# steps.sh demo|try|check|unit|versions|compile|lint|valgrind|fuzz|blast|torture: the run
# itself, as an ordinary user in $WORK/tree.
set -euo pipefail

what=$1
cd "$WORK/tree"
tree=$PWD
pgbin=/usr/lib/postgresql/$PGVERSION/bin
started=$SECONDS
failed=()

say() { printf '== %s\n' "$*"; }

# suite NAME COMMAND...: run, print its time, remember a failure and go on
suite() {
	local name="$1 (PostgreSQL $PGVERSION)" t=$SECONDS
	shift
	say "$name"
	if "$@"; then
		say "$name: ok, $((SECONDS - t)) s"
	else
		say "$name: FAILED, $((SECONDS - t)) s"
		failed+=("$name")
	fi
}

# Is this suite of check among SUITES?  Without SUITES all are.
chosen() { [ -z "${SUITES:-}" ] || [[ " $SUITES " == *" $1 "* ]]; }

#
# A private PostgreSQL: a server finds lib and share relative to its binary, so
# a copy under $WORK can have the extension installed without touching /usr.
#
private_postgres() {
	mkdir -p "$WORK/pg/usr/lib/postgresql" "$WORK/pg/usr/share/postgresql"
	cp -a "/usr/lib/postgresql/$PGVERSION" "$WORK/pg/usr/lib/postgresql/"
	cp -aL "/usr/share/postgresql/$PGVERSION" "$WORK/pg/usr/share/postgresql/"
	rm -rf "$WORK/pg/usr/lib/postgresql/$PGVERSION/lib/bitcode"
}

build() {
	make -f Makefile -s -j2 PG_CONFIG="$pgbin/pg_config" with_llvm=no >"$WORK/tmp/build.log" 2>&1 &&
		make -f Makefile -s install PG_CONFIG="$pgbin/pg_config" with_llvm=no DESTDIR="$WORK/pg" \
			>>"$WORK/tmp/build.log" 2>&1 || { cat "$WORK/tmp/build.log"; return 1; }
}

# Node 20 is what the authorization server needs; Debian 12 ships 18.
node_modules() {
	[ ! -d test/idp/node_modules ] || return 0
	if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
		(cd "$WORK/tmp" && npm install --no-audit --no-fund --silent --prefix "$WORK/node" node@20)
		export PATH="$WORK/node/node_modules/.bin:$WORK/node/node_modules/node/bin:$PATH"
	fi
	(cd test/idp && npm ci --no-audit --no-fund --silent --ignore-scripts)
}

unit() {
	make -s -C test/unit check
}

# What does not depend on the server runs once, not for every major (MAIN).
unit_clang() {
	make -s -j2 -C test/unit clang
}
valgrind_unit() {
	make -s -j2 -C test/unit valgrind
}
fuzz() {
	make -s -k "$@" -C test/fuzz
}
lint() {
	perl test/lint.pl --self-test . && perl test/lint.pl . && node test/sim/table.mjs --check
}

# make installcheck against a throwaway cluster with identity source "role"
regress() {
	local data=$WORK/regress rc=0
	"$pgprivate/initdb" -D "$data" -A trust -U postgres --no-sync >/dev/null
	"$pgprivate/oauth-vault-keyring" init --file "$WORK/regress.vault" --vault regress --source role
	cat >>"$data/postgresql.conf" <<-CONF
		shared_preload_libraries = 'oauth_vault'
		oauth_vault.vault_file = '$WORK/regress.vault'
		listen_addresses = ''
		unix_socket_directories = '$WORK/tmp'
		port = 5499
		max_worker_processes = 24
		fsync = off
	CONF
	"$pgprivate/pg_ctl" -D "$data" -l "$WORK/regress.log" -w start >/dev/null
	PGHOST=$WORK/tmp PGPORT=5499 PGUSER=postgres \
		make -s -f Makefile installcheck PG_CONFIG="$pgbin/pg_config" with_llvm=no || rc=1
	[ $rc = 0 ] || { cat regression.diffs || true; tail -n 50 "$WORK/regress.log"; }
	"$pgprivate/pg_ctl" -D "$data" -m immediate -w stop >/dev/null
	return $rc
}

# build_other NAME SETTING: a second build and installation, in $WORK/pgNAME.
build_other() {
	local name=$1 setting=$2 log=$WORK/tmp/build_$1.log
	: >"$log"
	mkdir "$WORK/$name" && tar -cf - --exclude=node_modules --exclude='*.o' --exclude='*.so' . | tar -C "$WORK/$name" -xf - &&
		cp -al "$WORK/pg" "$WORK/pg$name" &&
		make -C "$WORK/$name" -f Makefile -s -j2 PG_CONFIG="$pgbin/pg_config" with_llvm=no "$setting" install \
			DESTDIR="$WORK/pg$name" >"$log" 2>&1 || { tail -n 40 "$log"; return 1; }
}
# With points at which processes can be ended
build_debug() { build_other debug DEBUG_POINTS=1; }

# torture NAME PROGRAM: see doc/reliability.md
torture() {
	local rc=0 bin=$WORK/pgdebug/usr/lib/postgresql/$PGVERSION/bin
	test/idp/make-ca.sh "$WORK/tmp/ca" && test/idp/make-ca.sh "$WORK/tmp/ca.impostor" || return 1
	PATH="$bin:$PATH" DIR="$WORK/tmp/$1" CA_DIR="$WORK/tmp/ca" \
		IMPOSTOR_DIR="$WORK/tmp/ca.impostor" node "test/torture/$2" || rc=1
	[ $rc = 0 ] || tail -n 60 "$WORK/tmp/$1/server.log" || true
	return $rc
}

# The logs of a failed test say more than its TAP, and go away with $WORK.
tap() {
	local name log
	mkdir -p "$WORK/tmp/tap"
	PG_REGRESS="$pgxs/../../src/test/regress/pg_regress" \
		PERL5LIB="$pgxs/../../src/test/perl:$tree/test/lib" \
		TESTDATADIR="$WORK/tmp/tap" TESTLOGDIR="$WORK/tmp/log" TESTDIR="$WORK/tmp/tap" \
		enable_injection_points=no PG_TEST_TIMEOUT_DEFAULT=60 \
		prove --timer --state=save --statefile="$WORK/tmp/prove" "$@" && return
	prove --dry --state=failed --statefile="$WORK/tmp/prove" | sort -u | while read -r name; do
		name=$(basename "$name" .pl)
		# PostgreSQL 15 has them below TESTDIR
		for log in "$WORK"/tmp/{,tap/tmp_check/}log/{regress_log_"$name","$name"_*.log}; do
			[ ! -e "$log" ] || tail -v -n 40 "$log"
		done
	done
	return 1
}

# bench NAME: test/bench/NAME.pl, which says what it measures
bench() {
	local rc=0 log
	mkdir -p "$WORK/bench" "$WORK/tmp/tap"
	for log in endpoint client; do
		gcc -O2 -Wall -Wextra -D_GNU_SOURCE -o "$WORK/bench/$log" "test/bench/$log.c" -lcurl -lssl -lcrypto || return 1
	done
	if [ "$1" = read ]; then
		gcc -O2 -Wall -Wextra -D_GNU_SOURCE -I"$("$pgbin/pg_config" --includedir)" -o "$WORK/bench/read" test/bench/read.c -lpq &&
			gcc -O2 -Wall -Wextra -D_GNU_SOURCE -Isrc -o "$WORK/bench/fill" test/bench/fill.c \
				src/core/{arena,codec,json,jwt,keysource,record,vaultfile}.o -lssl -lcrypto &&
			build_other noaudit BENCH_NO_AUDIT=1 || return 1
	fi
	if [ -d "$WORK/pg_net" ]; then
		cp "$WORK/pg_net/pg_net.so" "$WORK/pg/usr/lib/postgresql/$PGVERSION/lib/"
		cp "$WORK/pg_net"/pg_net.control "$WORK/pg_net"/pg_net--*.sql "$WORK/pg/usr/share/postgresql/$PGVERSION/extension/"
	fi
	PG_REGRESS="$pgxs/../../src/test/regress/pg_regress" PGLIBDIR="$WORK/pg/usr/lib/postgresql/$PGVERSION/lib" \
		PERL5LIB="$pgxs/../../src/test/perl:$tree/test/lib" \
		TESTDATADIR="$WORK/tmp/tap" TESTLOGDIR="$WORK/tmp/log" TESTDIR="$WORK/tmp/tap" PG_TEST_TIMEOUT_DEFAULT=60 \
		perl "test/bench/$1.pl" || rc=1
	for log in "$WORK"/tmp/{,tap/tmp_check/}log/*; do
		[ $rc = 0 ] || [ ! -e "$log" ] || tail -v -n 30 "$log"
	done
	return $rc
}

pgprivate=$WORK/pg/usr/lib/postgresql/$PGVERSION/bin
pgxs=/usr/lib/postgresql/$PGVERSION/lib/pgxs/src/makefiles
export PATH="$pgprivate:$PATH" OV_TREE="$tree"

if [ "$what" = unit ]; then
	suite unit unit
elif [ "$what" = lint ]; then
	suite lint lint
elif [ "$what" = valgrind ]; then
	suite valgrind valgrind_unit
elif [ "$what" = fuzz ]; then
	suite fuzz fuzz fuzz
elif [ "$what" = compile ]; then
	suite compile make -f Makefile -s -k -j2 PG_CONFIG="$pgbin/pg_config" with_llvm=no
elif [ "$what" = versions ]; then
	# what the other majors need from here
	suite "private installation" private_postgres
	suite build build
	suite "node modules" node_modules
else
	suite "private installation" private_postgres
	suite build build
	suite "node modules" node_modules
	[ ${#failed[@]} = 0 ] || exit 1
	case $what in
		bench-*)
			suite "$what" bench "${what#bench-}"
			;;
		demo | try)
			exec bash "examples/$what.sh"
			;;
		blast)
			export BLAST_USERS=${BLAST_USERS:-1000}
			suite blast tap --verbose test/t/029_blast.pl
			;;
		campaign-revoke)
			export REVOCATIONS=${REVOCATIONS:-10000}
			suite "late tokens" tap --verbose test/t/057_late_tokens.pl
			;;
		torture)
			suite "build with debug points" build_debug
			suite races torture races races.mjs
			TORTURE_SECONDS=${TORTURE_SECONDS:-600} suite torture torture campaign torture.mjs
			;;
		check)
			chosen unit && suite unit unit
			if [ -n "${MAIN:-}" ]; then
				chosen lint && suite lint lint
				chosen clang && suite "unit, clang" unit_clang
				chosen valgrind && suite valgrind valgrind_unit
				chosen fuzz && suite fuzz fuzz -j2 check
			fi
			chosen regress && suite regress regress
			chosen tap && suite tap tap ${TESTS:-test/t/*.pl}
			if [ -n "${MAIN:-}" ] && chosen torture; then
				suite "build with debug points" build_debug
				suite races torture races races.mjs
				TORTURE_SECONDS=${TORTURE_SECONDS:-15} SEED=${SEED:-1} suite torture torture campaign torture.mjs
			fi
			;;
	esac
fi

say "total: $((SECONDS - started)) s"
if [ ${#failed[@]} -gt 0 ]; then
	say "failed: ${failed[*]}"
	exit 1
fi
say "all passed"
