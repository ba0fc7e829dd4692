#!/usr/bin/env bash
# try.sh: a throwaway cluster with the extension and a real authorization server
# that stay up until Enter, Ctrl-C or the end of standard input, for the README's
# "First connection in two minutes".  Run through `make try`, which installs and
# builds what this needs.
set -euo pipefail

data=$WORK/try vault=$WORK/try.vault.json ca=$WORK/try.ca
export PGPORT=5497
. "${OV_TREE:?run through make try}/examples/server.sh"
trap 'exit 0' INT TERM HUP

start_servers try 600
psql -X -q -v ON_ERROR_STOP=1 -c "CREATE EXTENSION oauth_vault" -c "CREATE ROLE app LOGIN" -c "GRANT oauth_vault_user TO app"

cat >"$WORK/env" <<ENV
# the cluster (PGHOST, PGPORT), its vault file, the authorization server and its CA
export PGHOST='$PGHOST' PGPORT=$PGPORT PGDATABASE=postgres PGUSER=postgres
export VAULT='$vault' ISSUER='https://localhost:$idp_port' CA='$ca/ca.pem'
export PATH='$PATH':"\$PATH"	# psql, oauth-vault-keyring, node
ENV

cat <<TEXT

Ready.  In another terminal, as $(id -un) or root, in the clone of the repository:

    . $WORK/env

sets PGHOST=$PGHOST PGPORT=$PGPORT, and
    VAULT   the vault file: $vault
    ISSUER  the authorization server: https://localhost:$idp_port
    CA      the certificate authority of its certificate: $ca/ca.pem
    PATH    psql, oauth-vault-keyring and node that belong to it
Then follow README.md, "First connection in two minutes".

With a browser: let it accept that certificate, log in as ada, allow.  Then it is
sent to https://app.example/callback?..., a page that does not load, because nobody
runs a backend there: copy that URL from the address bar.

Enter or Ctrl-C ends everything and removes it.
TEXT
read -r _ || true
echo "Done; nothing is left running."
