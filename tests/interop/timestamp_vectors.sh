#!/usr/bin/env bash
# Writes time-stamp tokens as `openssl` makes them, good ones and ones to be refused, for tests/vectors/timestamp/v1 (where they are added once and never
# edited: their times and signatures are of the day they were made).
#
#   timestamp_vectors.sh DIRECTORY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/authority.sh"
out=$(realpath -m "$1")
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
make_authority authority

cp "$here/../vectors/tlog/v1/checkpoint.txt" note
openssl ts -query -data note -sha256 -cert -no_nonce -out sha256.tsq 2>/dev/null
openssl ts -query -data note -sha1 -cert -no_nonce -out sha1.tsq 2>/dev/null
openssl ts -query -data note -sha512 -cert -no_nonce -out sha512.tsq 2>/dev/null
openssl ts -query -data note -sha256 -no_nonce -out bare.tsq 2>/dev/null

stamp authority rsa sha256.tsq rsa.tsr
stamp authority p256 sha256.tsq p256.tsr
stamp authority p384 sha256.tsq p384.tsr -sha384
stamp authority rsa sha1.tsq imprint-sha1.tsr
stamp authority rsa sha512.tsq imprint-sha512.tsr
stamp authority rsa sha256.tsq certificate-by-sha1.tsr -section sha1
stamp authority rsa sha256.tsq signed-over-sha1.tsr -sha1
stamp authority rsa bare.tsq without-certificate.tsr
head -c 40 sha256.tsq >broken.tsq
stamp authority rsa broken.tsq not-granted.tsr

# `openssl ts` does not sign with these, `openssl cms` does: the same statement, with the certificate named as in a token (-cades).
openssl ts -reply -in rsa.tsr -token_out -out rsa.tst
openssl cms -verify -noverify -inform DER -in rsa.tst -out statement 2>/dev/null
for signer in late server both; do
    openssl cms -sign -binary -nodetach -cades -nosmimecap -md sha256 -econtent_type 1.2.840.113549.1.9.16.1.4 -in statement \
        -signer authority/$signer.pem -inkey authority/$signer.key -outform DER -out $signer.tst
done
# Signed by the right key, and not as a statement of time.
openssl cms -sign -binary -nodetach -cades -nosmimecap -md sha256 -in statement -signer authority/rsa.pem -inkey authority/rsa.key -outform DER -out no-statement.tst

for name in authority/root.pem authority/other-root.pem note sha256.tsq *.tsr late.tst server.tst both.tst no-statement.tst; do
    [ ! -e "$out/$(basename $name)" ] && cp "$name" "$out/"
done
ls "$out"
