#!/usr/bin/env bash
# demo.sh: a throwaway cluster and a real authorization server; one person
# connects an account, uses it, watches it being refreshed, revokes it.
# Run through `make demo`, which installs and builds what this needs.
set -euo pipefail

data=$WORK/demo vault=$WORK/demo.vault.json ca=$WORK/ca
export PGPORT=5498
. "${OV_TREE:?run through make demo}/examples/server.sh"

bold() { printf '\n\033[1m%s\033[0m\n' "$*"; }
shorten() { sed -E 's/([A-Za-z0-9_~.][A-Za-z0-9_~.-]{11})[A-Za-z0-9_~.-]{28,}/\1.../g; s/^/    /'; }
# Print the SQL, then what came back; long values (codes, tokens) are shortened.
sql() {
	printf '\n%s\n' "$1" | sed "s/'eyJ[^']*'/<assertion>/g" | shorten
	psql -X -q -v ON_ERROR_STOP=1 -c "$1" | shorten
}
value() { psql -XAtq -v ON_ERROR_STOP=1 -c "$1"; }
assertion() { oauth-vault-keyring sign --file "$vault" --user ada --actor demo-agent; }

bold "1. A vault file (outside the data directory), a cluster, a real authorization server over TLS"
start_servers demo 8 "oauth_vault.refresh_lead = 4"

bold "2. The administrator installs the extension and registers a connector"
sql "CREATE EXTENSION oauth_vault"
sql "CREATE ROLE app LOGIN IN ROLE oauth_vault_user"
sql "SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
       'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
       issuer => 'https://localhost:$idp_port')"

bold "3. Ada connects her account: begin, consent in the browser, callback"
export PGUSER=app
url=$(value "SELECT authorization_url FROM oauth_vault.oauth_begin('demo', assertion => '$(assertion)')")
printf '\n    SELECT authorization_url FROM oauth_vault.oauth_begin('\''demo'\'', assertion => <assertion>)\n    %.90s...\n' "$url"
callback=$(CA=$ca/ca.pem node "$OV_TREE/test/drivers/consent.mjs" "$url" --user ada)
printf '    Ada consents; the browser returns to %.60s...\n' "$callback"
sql "SELECT connection_id, connector, provider_subject, status, scopes, expires_at
       FROM oauth_vault.oauth_callback('$callback', assertion => '$(assertion)')"

bold "4. The backend asks for a live token, and uses it"
use() {
	token=$(value "SELECT oauth_vault.oauth_fresh_token('demo', purpose => 'demo', assertion => '$(assertion)')")
	printf '\n    SELECT oauth_vault.oauth_fresh_token('\''demo'\'', assertion => <assertion>)\n    %.12s...\n' "$token"
	printf '    GET userinfo with it: %s\n' "$(node "$OV_TREE/test/drivers/userinfo.mjs" "https://localhost:$idp_port/me" "$token" "$ca/ca.pem")"
}
use
first=$token

bold "5. The token lives 8 seconds; the worker renews it before that, rotating the refresh token"
export PGUSER=postgres
generation() { value "SELECT token_generation FROM oauth_vault.connection"; }
start=$(generation)
for _ in $(seq 300); do
	[ "$(generation)" -ge $((start + 2)) ] && break
	sleep 0.1
done
[ "$(generation)" -ge $((start + 2)) ]
printf '\n    refreshed in the background: generation %s -> %s\n' "$start" "$(generation)"
export PGUSER=app
use
[ "$token" != "$first" ]

bold "6. Ada revokes: gone here at once, and at the provider"
sql "SELECT * FROM oauth_vault.oauth_revoke('demo', assertion => '$(assertion)')"
for _ in $(seq 100); do
	status=$(node "$OV_TREE/test/drivers/userinfo.mjs" "https://localhost:$idp_port/me" "$token" "$ca/ca.pem")
	[ "${status%% *}" = 401 ] && break
	sleep 0.1
done
printf '\n    GET userinfo with the old token: %s\n' "$status"
[ "${status%% *}" = 401 ]
printf '    SELECT oauth_vault.oauth_fresh_token(...)\n'
value "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$(assertion)')" 2>&1 | sed 's/^/    /' || true

bold "7. The audit trail: which person, which agent, what, when"
export PGUSER=postgres
sql "SELECT to_char(at, 'HH24:MI:SS.MS') AS at, event, outcome, user_id, actor->>'sub' AS agent, purpose, connector, reason
       FROM oauth_vault.oauth_audit WHERE user_id = 'ada' ORDER BY audit_id"
bold "Done; nothing is left running."
