#!/usr/bin/env bash
# COSE receipts verified with the Python package scitt-cose, and wrong leaves, keys and altered receipts, which must be refused.
#
# scitt-cose comes from PyPI. COUNTERSIGN, INSTALL and KEEP are as in lib.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

need_python 'import scitt_cose; assert scitt_cose.__version__ == "0.5.0"' "" scitt-cose==0.5.0
make_evidence
for sequence in 0 1 41 255 256 340; do
    countersign stream proof orders $sequence --out $sequence.cose --data acme >/dev/null
    countersign evidence verify $sequence.cose --trust "$acme" >/dev/null 2>&1 || fail "countersign refuses its own receipt of entry $sequence"
done
$python "$here/scitt_cose_receipts.py" "$vkey" *.cose
