#!/usr/bin/env bash
# Two organizations and a reader make real evidence; both verifiers judge it, and thousands of altered copies of it.
#
#   COUNTERSIGN=path   the program [default: built here by `cargo build --release --bin countersign`]
#   MUTATIONS=3000     how many altered copies
#   SEED=n             which ones [default: drawn, and printed]
#   INSTALL=no         fail where the package is missing, instead of installing it
#   KEEP=dir           where nodes and bundles are made, and left [default: a temporary folder, removed]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

fail() { echo "second_verifier: $*" >&2; exit 1; }

# The one package that is not of the standard library: as it is, from Debian, or from PyPI into a folder of its own.
venv=${XDG_CACHE_HOME:-$HOME/.cache}/countersign-second-verifier
find_python() {
    for python in python3 /usr/bin/python3 "$venv/bin/python"; do
        "$python" -c 'import cryptography' 2>/dev/null && return
    done
    return 1
}
if ! find_python; then
    [ "${INSTALL:-yes}" = yes ] \
        || fail "the package cryptography is missing; run tests/interop/second_verifier.sh, which installs it (on Debian: apt-get install python3-cryptography)"
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo apt-get install -y python3-cryptography >&2 && find_python \
        || { python3 -m venv "$venv" >&2 && "$venv/bin/pip" install -q cryptography >&2 && find_python; } \
        || fail "the package cryptography comes neither from Debian (apt-get) nor from PyPI (pip)"
fi

if [ -z "${COUNTERSIGN:-}" ]; then
    (cd "$root" && cargo build --release --bin countersign)
    COUNTERSIGN=${CARGO_TARGET_DIR:-$root/target}/release/countersign
fi
[ -x "$COUNTERSIGN" ] || fail "there is no program at $COUNTERSIGN"
COUNTERSIGN=$(realpath "$COUNTERSIGN")
countersign() { "$COUNTERSIGN" "$@"; }

work=${KEEP:-$(mktemp -d)}
mkdir -p "$work"
[ -z "$(ls -A "$work")" ] || fail "$work is not empty"
nodes=
cleanup() {
    for pid in $nodes; do kill "$pid" 2>/dev/null || true; done
    wait
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap cleanup EXIT
cd "$work"

ports=($($python - <<'PY'
import socket
kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM) * 2
sockets = [socket.socket(socket.AF_INET, kind) for kind in kinds]
for one in sockets:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))
PY
))
acme=$(countersign init --org "Acme Freight" --data acme --listen "127.0.0.1:${ports[0]}" --http "127.0.0.1:${ports[1]}" 2>/dev/null)
beta=$(countersign init --org "Beta Logistics" --data beta --listen "127.0.0.1:${ports[2]}" --http "127.0.0.1:${ports[3]}" 2>/dev/null)
for node in acme beta; do
    "$COUNTERSIGN" serve --data $node >"$node.log" 2>&1 &
    nodes="$nodes $!"
done
for node in acme beta; do
    for _ in $(seq 100); do countersign status --data $node >/dev/null 2>&1 && break; sleep 0.1; done
done

publish() {     # how many
    seq 1 "$1" | sed 's/.*/{"order":&,"item":"pallet jack","quantity":2}/' \
        | countersign publish orders - --create --again --type com.example.order --data acme >/dev/null
}
link() { countersign partner invite --stream orders --data acme --json | sed 's/.*"link":"\([^"]*\)".*/\1/'; }
export_() { countersign evidence export "$@" >/dev/null 2>&1 || fail "evidence export $* failed"; }
read_to() {     # how many events both consumers are to have
    countersign subscribe acme-freight/orders --from start --count "$1" --follow --data beta >/dev/null
    countersign subscribe "$acme/streams/orders" --profile reader.json --from start --count "$1" --follow >/dev/null
    receipts 2 "$1"
}
receipts() {    # how many of how many events are to come: at most 2 s after these
    for _ in $(seq 100); do
        [ "$(countersign receipt ls --data acme --json | grep -o "\"events\":$2," | wc -l)" = "$1" ] && return
        sleep 0.1
    done
    fail "$1 receipts of $2 events did not come"
}

echo "making evidence in $work"
publish 100
countersign partner join "$(link)" --yes --data beta >/dev/null 2>&1
countersign partner join "$(link)" --yes --profile reader.json --org Reader >/dev/null 2>&1
read_to 100
publish 160
read_to 260
publish 80
read_to 340
export_ orders --out whole --data acme
export_ orders --out whole.tar --data acme
export_ orders --out aligned --from 256 --data acme
export_ orders --out middle --from 270 --to 300 --data acme
export_ orders --out beginning --to 200 --data acme
export_ acme-freight/orders --out copy --data beta
agreement=$(countersign agreement ls --data acme --json | sed -n 's/.*"agreement":"\([0-9a-f]*\)".*/\1/p;s/.*"id":"\([0-9a-f]\{32\}\)".*/\1/p' | head -1)
countersign agreement terminate "$agreement" --reason "the season is over" --yes --data acme >/dev/null 2>&1 || fail "the agreement could not be ended"
publish 20
countersign subscribe "$acme/streams/orders" --profile reader.json --from start --count 400 >/dev/null 2>&1 || true
receipts 1 360
export_ orders --out ended --data acme
seq 1 66000 | sed 's,.*,{"n":&},' | countersign publish many - --create --type com.example.count --data acme >/dev/null
export_ many --out large --data acme
export_ many --out large-range --from 65700 --to 65800 --data acme

$python "$here/check_vectors.py"

same=0
judge() {       # bundle, expected exit code, trusted fingerprints
    local bundle=$1 expected=$2 trust=() ours theirs
    shift 2
    for one in "$@"; do trust+=(--trust "$one"); done
    ours=$(countersign evidence verify "$bundle" "${trust[@]}" >ours.txt 2>&1; echo $?)
    theirs=$($python "$here/verify_bundle.py" "$bundle" "${trust[@]}" >theirs.txt 2>&1; echo $?)
    echo "$bundle ($# trusted): countersign $ours, verify_bundle $theirs"
    if [ "$ours" != "$expected" ] || [ "$theirs" != "$expected" ]; then
        cat ours.txt theirs.txt
        fail "$bundle should give $expected"
    fi
    same=$((same + 1))
}
for bundle in whole whole.tar aligned middle beginning ended large large-range; do
    judge $bundle 0 "$acme"
    judge $bundle 9
done
judge copy 0 "$acme" "$beta"
judge copy 9 "$acme"
judge copy 9 "$beta"
# The other forms in which trust is brought along: key statement, vkeys, a tlog-policy.
$python -c 'import json; keys = json.load(open("copy/keys.json"))["vkeys"]
open("vkeys", "w").write("# ours\n\n" + "\n".join(keys) + "\n"); open("policy", "w").write(f"log {keys[0]} https://log.example\nquorum none\n")'
judge copy 0 vkeys
judge copy 9 policy
judge copy 0 policy "$beta"
judge whole 0 whole/documents/key-statement-00000000.json
judge whole 9 "$beta"

keys=()
for file in acme/keys/*.pem beta/keys/*.pem reader.json; do keys+=(--keys "$file"); done
$python "$here/mutate.py" --countersign "$COUNTERSIGN" --number "${MUTATIONS:-3000}" ${SEED:+--seed "$SEED"} "${keys[@]}" \
    whole="$acme" aligned="$acme" middle="$acme" beginning="$acme" copy="$acme,$beta" ended="$acme" whole= copy="$acme"
echo "second_verifier: the vectors fit, $same judgements and all verdicts on altered bundles agree"
