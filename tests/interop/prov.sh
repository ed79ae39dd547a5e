#!/usr/bin/env bash
# The provenance of a stream, read as PROV-JSON with the Python package prov, and held against the log's entries and receipts.
#
# prov comes from PyPI. COUNTERSIGN, INSTALL and KEEP are as in lib.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

need_python 'import prov; from importlib.metadata import version; assert version("prov") == "3.2.3"' "" prov==3.2.3
make_evidence
countersign stream provenance orders --data acme >/dev/null
countersign stream provenance orders --from 40 --to 320 --out part.prov.json --data acme >/dev/null
countersign stream tail orders --count 1000 --data acme --json >entries.ndjson
countersign receipt ls --data acme --json >receipts.json
$python "$here/prov_document.py" "$acme" entries.ndjson receipts.json orders.prov.json part.prov.json
