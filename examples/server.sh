# server.sh: what demo.sh and try.sh share, sourced by both: a throwaway cluster
# and a real authorization server over TLS, which end with the script.
# The caller names $data, $vault, $ca and PGPORT first.

: "${WORK:?run through make demo or make try}" "${OV_TREE:?}"
export PGHOST=$WORK/tmp PGDATABASE=postgres PGUSER=postgres

# A port that nobody listens on, nor on the next one (the server's control port)
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
idp_port=9443
while taken "$idp_port" || taken $((idp_port + 1)); do idp_port=$((idp_port + 2)); done

idp_pid=
finish() {
	[ -z "$idp_pid" ] || kill "$idp_pid" 2>/dev/null || true
	[ ! -e "$data/postmaster.pid" ] || pg_ctl -D "$data" -m immediate -w stop >/dev/null || true
}
trap finish EXIT

# start_servers NAME TTL [SETTING...]: the name of the vault, how long an access
# token lives, more lines for postgresql.conf
start_servers() {
	local name=$1 ttl=$2
	shift 2
	"$OV_TREE/test/idp/make-ca.sh" "$ca" >/dev/null 2>&1
	oauth-vault-keyring init --file "$vault" --vault "$name" \
		--allow-host "localhost:$idp_port" --allow-network 127.0.0.0/8
	initdb -D "$data" -A trust -U postgres --no-sync >/dev/null
	# Who may connect is who may open the socket: there is no password.
	cat >>"$data/postgresql.conf" <<-CONF
		shared_preload_libraries = 'oauth_vault'
		oauth_vault.vault_file = '$vault'
		oauth_vault.ca_file = '$ca/ca.pem'
		max_worker_processes = 16
		listen_addresses = ''
		unix_socket_directories = '$PGHOST'
		unix_socket_permissions = 0700
		port = $PGPORT
	CONF
	printf '%s\n' "$@" >>"$data/postgresql.conf"
	pg_ctl -D "$data" -l "$WORK/$name.log" -w start >/dev/null
	ACCESS_TOKEN_TTL=$ttl PORT=$idp_port CONTROL_PORT=$((idp_port + 1)) CA_DIR=$ca \
		node "$OV_TREE/test/idp/idp.mjs" >"$WORK/$name.idp.log" 2>&1 </dev/null &
	idp_pid=$!
	for _ in $(seq 100); do
		grep -q ^ready "$WORK/$name.idp.log" && break
		sleep 0.1
	done
	grep ^ready "$WORK/$name.idp.log" || { cat "$WORK/$name.idp.log"; exit 1; }
}
