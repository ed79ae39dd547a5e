#!/usr/bin/env bash
# The keys of an encrypted stream opened by the Python package pyhpke, and its events with them: the golden vectors, the producer's own wrap in the log, and the wrap
# that a partner was given, against the copy on the partner's disk. Altered ones must not open.
#
# pyhpke comes from PyPI. COUNTERSIGN, INSTALL and KEEP are as in lib.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

need_python 'import cryptography, pyhpke' "" pyhpke==0.6.5 cryptography
enter_work
echo "making evidence in $work"
acme=$(node "Acme Freight" acme)
node "Globex" globex >/dev/null
serve acme globex
countersign stream create orders --encryption partners --data acme >/dev/null
countersign partner join "$(link)" --yes --data globex >/dev/null 2>&1
publish 20
countersign stream rotate orders --data acme >/dev/null
publish 20
# Read by the partner, to its end.
countersign subscribe "$acme/streams/orders" --data globex --from start --count 40 --follow >read.ndjson
export_ "$acme/streams/orders" --out copy --data globex
$python "$here/pyhpke_open.py" "$here/../vectors/encryption/v1/sealing.json" acme globex copy
