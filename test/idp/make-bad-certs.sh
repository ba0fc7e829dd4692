#!/usr/bin/env bash
# make-bad-certs.sh CA_DIR DIR: certificates for localhost with one thing wrong
# each, NAME.pem and NAME-key.pem in DIR; by the authority of make-ca.sh where that
# is not what is wrong.  constrained-ca.pem may only certify names of .example.
set -euo pipefail

ca=${1:?usage: make-bad-certs.sh CA_DIR DIR}
dir=${2:?usage: make-bad-certs.sh CA_DIR DIR}
cd "$dir"
umask 077

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1-key.pem" 2>/dev/null; }
serial() { echo "0x0$(openssl rand -hex 15)"; }
# authority NAME EXTENSION...: NAME.pem
authority() {
	local name=$1
	key "$name"
	printf '[req]\nprompt=no\ndistinguished_name=n\n[n]\nCN=%s\n[x]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n%s\n' "$name" "${2:-}" >"$name.conf"
	openssl req -new -x509 -config "$name.conf" -extensions x -days 30 -key "$name-key.pem" -out "$name.pem"
}
# leaf NAME ALT_NAME CA OPTION...: NAME.pem, signed by CA.pem
leaf() {
	local name=$1 alt=$2 by=$3
	shift 3
	[ -e "$name-key.pem" ] || key "$name"
	printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n%s\n' "${alt:+subjectAltName=$alt}" >"$name.ext"
	openssl req -new -key "$name-key.pem" -subj /CN=localhost -out "$name.csr"
	openssl x509 -req -in "$name.csr" -CA "$by.pem" -CAkey "$by-key.pem" -set_serial "$(serial)" -extfile "$name.ext" -out "$name.pem" "$@" 2>/dev/null
}

leaf other-name DNS:elsewhere.example "$ca/ca" -days 30
leaf no-name '' "$ca/ca" -days 30
leaf wildcard 'DNS:*' "$ca/ca" -days 30
leaf sha1 DNS:localhost "$ca/ca" -days 30 -sha1
openssl genrsa -out rsa1024-key.pem 1024 2>/dev/null
leaf rsa1024 DNS:localhost "$ca/ca" -days 30
authority strange-ca
leaf stranger DNS:localhost strange-ca -days 30
authority constrained-ca 'nameConstraints=critical,permitted;DNS:.example'
leaf constrained DNS:localhost constrained-ca -days 30
key self-signed
openssl req -new -x509 -key self-signed-key.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost -days 30 -out self-signed.pem

# Days that are past or to come: "openssl ca" sets both ends.
: >index.txt
cat >dated.conf <<CONF
[ca]
default_ca = d
[d]
database = index.txt
unique_subject = no
rand_serial = yes
new_certs_dir = .
default_md = sha256
policy = p
x509_extensions = x
email_in_dn = no
[p]
commonName = supplied
[x]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost
CONF
# dated NAME START END
dated() {
	key "$1"
	openssl req -new -key "$1-key.pem" -subj /CN=localhost -out "$1.csr"
	openssl ca -batch -notext -config dated.conf -in "$1.csr" -cert "$ca/ca.pem" -keyfile "$ca/ca-key.pem" \
		-startdate "$2" -enddate "$3" -out "$1.pem" 2>/dev/null
}
dated early 20980101000000Z 20990101000000Z
dated expired 20200101000000Z 20210101000000Z
