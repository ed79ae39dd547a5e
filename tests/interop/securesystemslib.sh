#!/usr/bin/env bash
# A bundle's signed documents checked as DSSE envelopes by the Python package securesystemslib, and altered ones, which must be refused.
#
# securesystemslib comes from PyPI (Debian 12 has one from before its DSSE envelopes). COUNTERSIGN, INSTALL and KEEP are as in lib.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

need_python 'import cryptography, securesystemslib; from securesystemslib.dsse import Envelope; assert securesystemslib.__version__ == "1.6.0"' \
    "" securesystemslib==1.6.0 cryptography
make_evidence
$python "$here/securesystemslib_dsse.py" whole "$acme"
