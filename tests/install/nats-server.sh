#!/usr/bin/env bash
# Puts `nats-server` where `cargo xtask bench --against nats` finds it: `bash tests/install/nats-server.sh`.
# Wants at least 2.10, which can sync each message (`sync_interval: always`). Debian 12 has an older one; there the package of Debian 13 is
# taken, from Debian's own archive under Debian's own key, and installed by apt-get like any other.
set -euo pipefail

wanted=2.10
fail() { printf 'nats-server.sh: %s\n' "$*" >&2; exit 1; }
say() { printf 'nats-server.sh: %s\n' "$*"; }
is_enough() { [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$wanted" "$1" | sort -V | head -n 1)" = "$wanted" ]; }
installed() { nats-server --version 2> /dev/null | sed -n 's/^nats-server: v//p'; }

if is_enough "$(installed)"; then say "nats-server $(installed) is here already"; exit 0; fi
command -v apt-get > /dev/null || fail "there is no apt-get here; install nats-server $wanted or newer by hand (https://nats.io/download/)"
[ "$(id -u)" -eq 0 ] || fail "installing needs root; run this with sudo, or install nats-server $wanted or newer by hand"
export DEBIAN_FRONTEND=noninteractive

apt-get update -qq || say "the package lists could not be renewed; trying with those at hand"
candidate="$(apt-cache policy nats-server | sed -n 's/^ *Candidate: *\([0-9.]*\).*/\1/p')"
if is_enough "$candidate"; then
    apt-get install -y -qq --no-install-recommends nats-server > /dev/null
else
    say "this system's nats-server is ${candidate:-absent}; taking the package of Debian 13"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keys" ] || fail "Debian's keys are not here ($keys); install nats-server $wanted or newer by hand (https://nats.io/download/)"
    # Lists and packages of their own: the system's sources stay as they are.
    folder="$(mktemp -d)"
    trap 'rm -rf "$folder"' EXIT
    chmod 755 "$folder"
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    echo "deb [signed-by=$keys] http://deb.debian.org/debian trixie main" > "$folder/sources.list"
    beside=(-o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=root)
    apt-get "${beside[@]}" update -qq || fail "the package list of Debian 13 cannot be read; is there a network?"
    (cd "$folder" && apt-get "${beside[@]}" download -qq nats-server) || fail "the package cannot be downloaded"
    apt-get install -y -qq --no-install-recommends "$folder"/nats-server_*.deb > /dev/null
fi
is_enough "$(installed)" || fail "after installing, nats-server says \`$(installed)\`, and $wanted or newer is wanted"
# A service of its own would take a core's share from what is measured.
if command -v systemctl > /dev/null && systemctl is-active --quiet nats-server; then systemctl disable --now --quiet nats-server; fi
say "installed nats-server $(installed)"
