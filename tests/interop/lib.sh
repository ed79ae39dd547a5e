# What the scripts here share: the program, a folder to work in, nodes that end with the script, and commands that make evidence.
# Sourced after `set -euo pipefail`. Each script takes:
#
#   COUNTERSIGN=path   the program [default: built here by `cargo build --release --bin countersign`]
#   INSTALL=no         end with 77 where a tool is missing, instead of installing it
#   KEEP=dir           where nodes and bundles are made, and left [default: a temporary folder, removed]

name=$(basename "$0" .sh)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

# Where a script has its own words also while the output of a command goes nowhere.
exec 3>&2
fail() { echo "$name: $*" >&3; exit 1; }

# Ends the script where what is missing ($1) may not be fetched: with a code of its own, since nothing was found to be wrong.
want() {
    [ "${INSTALL:-yes}" = yes ] && return
    echo "$name: NOT RUN: $1 is missing; run tests/interop/$name.sh, which installs it${2:+ (on Debian: apt-get install $2)}" >&3
    exit 77
}

from_debian() {     # packages
    local sudo
    command -v apt-get >/dev/null || return 1
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    [ -z "$sudo" ] || command -v sudo >/dev/null || { echo "$name: \`$*\` from Debian: this is not root, and there is no sudo" >&3; return 1; }
    # A new machine has no package lists, or old ones.
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 && return
    $sudo apt-get update -qq >&2
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# A folder of its own for what comes from PyPI, among the build results.
venv=${CARGO_TARGET_DIR:-$root/target}/interop/${name//_/-}
from_pypi() {       # requirements
    need_program python3 python3
    # Debian parts from Python what makes such a folder; what a failed attempt has left is cleared away.
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
        from_debian python3-venv || { echo "$name: Python's module venv is missing (on Debian: apt-get install python3-venv)" >&3; return 1; }
    fi
    python3 -m venv --clear "$venv" >&2 && "$venv/bin/pip" install -q --disable-pip-version-check "$@" >&2
}

need_program() {    # program, Debian's package
    command -v "$1" >/dev/null && return
    want "the program $1" "$2"
    from_debian "$2" && command -v "$1" >/dev/null || fail "the program $1 does not come from Debian (apt-get install $2)"
}

# Sets `python` to one that can do the imports ($1): as it is, from Debian ($2, where it has such a package), or from PyPI (the rest).
find_python() {
    for python in python3 /usr/bin/python3 "$venv/bin/python"; do
        "$python" -c "$1" 2>/dev/null && return
    done
    return 1
}
need_python() {     # imports, Debian's package or nothing, requirements of PyPI
    local imports=$1 package=$2
    shift 2
    need_program python3 python3
    find_python "$imports" && return
    want "the Python package $1" "$package"
    [ -n "$package" ] && from_debian "$package" && find_python "$imports" && return
    from_pypi "$@" && find_python "$imports" || fail "the Python package $1 comes neither from Debian (apt-get) nor from PyPI (pip)"
}

countersign() { "$COUNTERSIGN" "$@"; }

# Finds the program, or builds it, and goes into the folder where everything is made: KEEP, which is left, or a temporary one, which is removed.
nodes=
enter_work() {
    if [ -z "${COUNTERSIGN:-}" ]; then
        (cd "$root" && cargo build --release --bin countersign)
        COUNTERSIGN=${CARGO_TARGET_DIR:-$root/target}/release/countersign
    fi
    [ -x "$COUNTERSIGN" ] || fail "there is no program at $COUNTERSIGN"
    COUNTERSIGN=$(realpath "$COUNTERSIGN")
    work=${KEEP:-$(mktemp -d)}
    mkdir -p "$work"
    [ -z "$(ls -A "$work")" ] || fail "$work is not empty"
    trap cleanup EXIT
    cd "$work"
}
cleanup() {
    local status=$? command=$BASH_COMMAND pid
    [ $status = 0 ] || echo "$name: ended with $status at: $command" >&3
    for pid in $nodes; do kill "$pid" 2>/dev/null || true; done
    wait
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}

# Makes a node at ports that the system chooses, and prints its fingerprint.
node() { countersign init --org "$1" --data "$2" --listen 127.0.0.1:0 --http 127.0.0.1:0 2>/dev/null; }
serve() {           # data directories
    local node
    for node in "$@"; do
        "$COUNTERSIGN" serve --data "$node" >"$node.log" 2>&1 &
        nodes="$nodes $!"
    done
    for node in "$@"; do
        for _ in $(seq 300); do grep -q ' serves on ' "$node.log" && continue 2; sleep 0.1; done
        cat "$node.log" >&2
        fail "the node $node did not begin to serve"
    done
}

publish() {         # how many
    seq 1 "$1" | sed 's/.*/{"order":&,"item":"pallet jack","quantity":2}/' \
        | countersign publish orders - --create --again --type com.example.order --data acme >/dev/null
}
link() { countersign partner invite --stream orders --data acme --json | sed 's/.*"link":"\([^"]*\)".*/\1/'; }
join_reader() { countersign partner join "$(link)" --yes --profile reader.json --org Reader >/dev/null 2>&1; }
read_by_reader() { countersign subscribe "$acme/streams/orders" --profile reader.json --from start --count "$1" --follow >/dev/null; }
receipts() {        # how many of how many events are to come: at most 2 s after these
    for _ in $(seq 100); do
        [ "$(countersign receipt ls --data acme --json | grep -o "\"events\":$2," | wc -l)" = "$1" ] && return
        sleep 0.1
    done
    fail "$1 receipts of $2 events did not come"
}
export_() { countersign evidence export "$@" >/dev/null 2>&1 || fail "evidence export $* failed"; }
of_stream() { countersign stream info orders --data acme --json | sed "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/"; }

# What the scripts for single tools look at: a node that serves `orders` with 340 events and a reader's receipts of 300 and of 340; the bundle
# `whole`; the proof of one event, and of growth from `older` entries to `newer`. Sets `acme`, the fingerprint to trust, and `vkey`, the log's.
make_evidence() {
    enter_work
    echo "making evidence in $work"
    acme=$(node "Acme Freight" acme)
    serve acme
    publish 300
    older=$(of_stream signed_size)
    join_reader
    read_by_reader 300
    receipts 1 300
    publish 40
    newer=$(of_stream signed_size)
    read_by_reader 340
    receipts 1 340
    vkey=$(of_stream log_vkey)
    export_ orders --out whole --data acme
    countersign stream proof orders 41 --out one.tlog-proof --data acme >/dev/null
    countersign stream consistency orders "$older" "$newer" --out growth.tlog-consistency --data acme >/dev/null
}
