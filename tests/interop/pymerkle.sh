#!/usr/bin/env bash
# The root of a bundle's log computed from its entries with the Python package pymerkle, and altered entries, which give another root.
#
# pymerkle comes from PyPI. COUNTERSIGN, INSTALL and KEEP are as in lib.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

need_python 'import pymerkle; assert pymerkle.__version__ == "7.0.0"' "" pymerkle==7.0.0
make_evidence
$python "$here/pymerkle_root.py" whole growth.checkpoint one.tlog-proof
