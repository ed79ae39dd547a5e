#!/usr/bin/env bash
# Events as JWE to somebody outside, opened by the Python package jwcrypto: the golden texts, then events of a clear, an encrypted and a partly shown stream, by
# the producer and by a partner, to an X25519 and to a P-256 key that jwcrypto made. Another key, and every altered part, must not open.
#
# jwcrypto comes from PyPI. COUNTERSIGN, INSTALL and KEEP are as in lib.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

need_python 'import jwcrypto.jwe' "" jwcrypto==1.6.1
enter_work
echo "making evidence in $work"
$python "$here/jose_open.py" vectors "$here/../vectors/jwe/v1/jwe.json"
acme=$(node "Acme Freight" acme)
node "Globex" globex >/dev/null
serve acme globex
publish 20
countersign stream create secret --encryption partners --data acme >/dev/null
countersign stream create parts --commit fields --data acme >/dev/null
for stream in secret parts; do
    fields=$([ $stream = secret ] || echo "--fields item")
    # shellcheck disable=SC2086
    link=$(countersign partner invite --stream $stream $fields --data acme --json | sed 's/.*"link":"\([^"]*\)".*/\1/')
    countersign partner join "$link" --yes --data globex >/dev/null 2>&1
    seq 1 20 | sed 's/.*/{"order":&,"item":"pallet jack","quantity":2}/' | countersign publish $stream - --type com.example.order --data acme >/dev/null
    countersign subscribe "$acme/streams/$stream" --data globex --from start --count 20 --follow >/dev/null
done
for curve in X25519 P-256; do
    $python "$here/jose_open.py" make $curve key-$curve
    jwe() {     # stream, data directory, file
        countersign stream jwe "$1" --from 0 --recipient key-$curve.public --data "$2" >"$3" 2>/dev/null
    }
    jwe orders acme clear
    jwe secret acme secret
    jwe "$acme/streams/secret" globex copy
    jwe "$acme/streams/parts" globex parts
    for file in clear secret copy; do $python "$here/jose_open.py" open key-$curve $file "$acme" 20; done
    $python "$here/jose_open.py" open key-$curve parts "$acme" 20 item
    countersign stream jwe orders 5 --recipient key-$curve.private --data acme >/dev/null 2>&1 && fail "a private key was taken for a recipient's"
done
echo "jose: what a node seals to an outsider opens with jwcrypto for that outsider alone"
