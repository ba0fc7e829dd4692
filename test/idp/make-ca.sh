#!/usr/bin/env bash
# make-ca.sh DIR [NAME...]: a certificate authority and a server certificate for
# localhost, 127.0.0.1 and the names, as ca.pem, ca-key.pem, server.pem,
# server-key.pem.  A directory that already holds a valid set is left alone.
set -euo pipefail

dir=${1:?usage: make-ca.sh DIR [NAME...]}
shift
mkdir -p "$dir"
cd "$dir"

if [ -s ca-key.pem ] && [ -s server-key.pem ] &&
	openssl verify -purpose sslserver -verify_hostname localhost -CAfile ca.pem server.pem >/dev/null 2>&1 &&
	openssl x509 -in server.pem -noout -checkend 86400 >/dev/null; then
	exit 0
fi

umask 077
work=$(mktemp -d "$PWD/new.XXXXXX")
trap 'rm -rf "$work"' EXIT

# A configuration of our own: the system's may add extensions.
cat >"$work/conf" <<'CONF'
[req]
prompt = no
distinguished_name = authority
[authority]
CN = oauth_vault test authority
[server_name]
CN = localhost
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, IP:127.0.0.1
CONF
for name; do sed -i "s/^subjectAltName = .*/&, DNS:$name/" "$work/conf"; done
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
serial() { echo "0x0$(openssl rand -hex 15)"; }

key "$work/ca-key.pem"
openssl req -new -x509 -config "$work/conf" -extensions ca -sha256 -days 365 -set_serial "$(serial)" \
	-key "$work/ca-key.pem" -out "$work/ca.pem"
key "$work/server-key.pem"
sed -i 's/^distinguished_name = .*/distinguished_name = server_name/' "$work/conf"
openssl req -new -config "$work/conf" -key "$work/server-key.pem" -out "$work/server.csr"
openssl x509 -req -in "$work/server.csr" -CA "$work/ca.pem" -CAkey "$work/ca-key.pem" \
	-extfile "$work/conf" -extensions server -sha256 -days 365 -set_serial "$(serial)" \
	-out "$work/server.pem" 2>/dev/null
openssl verify -purpose sslserver -verify_hostname localhost -CAfile "$work/ca.pem" "$work/server.pem" >/dev/null
chmod 644 "$work/ca.pem" "$work/server.pem"
mv -f "$work"/{ca,ca-key,server,server-key}.pem .
