#!/usr/bin/env bash
# Time-stamp tokens with an authority of `openssl ts`, and nothing of ours: what the node asks is a query to it, what it answers is taken in, handed out and verified, and
# `openssl ts -verify` says the same of the same files. Answers that prove nothing are refused.
#
# OpenSSL 3 comes from Debian. COUNTERSIGN, INSTALL and KEEP are as in lib.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$here/authority.sh"

need_program openssl openssl
case $(openssl version) in "OpenSSL "[3-9]*) ;; *) fail "OpenSSL 3 is wanted, and this is $(openssl version)" ;; esac

make_evidence
make_authority authority 2>/dev/null
openssl version

expect() {          # exit code, command
    local wanted=$1 got=0
    shift
    "$@" >said 2>&1 || got=$?
    [ $got = "$wanted" ] || { cat said >&2; fail "$* ended with $got, not $wanted"; }
}
judge() { expect "$1" countersign evidence verify "$2" --trust "$acme" "${@:3}"; }

for size in "$older" "$newer"; do
    countersign evidence timestamp orders --size "$size" --out at-$size.tsq --data acme >/dev/null
done
stamp authority p256 at-$older.tsq at-$older.tsr
stamp authority rsa at-$newer.tsq at-$newer.tsr
for size in "$older" "$newer"; do
    expect 0 openssl ts -verify -data at-$size.checkpoint -in at-$size.tsr -CAfile authority/root.pem -untrusted authority/middle.pem
    expect 0 countersign evidence timestamp orders --attach at-$size.tsr --data acme
done
echo "openssl ts verifies both tokens over the checkpoints as written"

cp at-$newer.tsr wrong.tsr && cp at-$older.checkpoint wrong.checkpoint
expect 6 countersign evidence timestamp orders --attach wrong.tsr --data acme
openssl ts -query -data at-$newer.checkpoint -sha1 -cert -no_nonce -out weak.tsq 2>/dev/null
stamp authority rsa weak.tsq weak.tsr
cp at-$newer.checkpoint weak.checkpoint
expect 6 countersign evidence timestamp orders --attach weak.tsr --data acme
echo "a token over something else and one with SHA-1 are refused"

export_ orders --out stamped --data acme
export_ orders --out stamped.tar --data acme
for bundle in stamped stamped.tar; do
    judge 0 $bundle --tsa-roots authority/root.pem
    [ "$(grep -c 'existed not later than' said)" = 1 ] || fail "the report does not say by when"
    judge 0 $bundle
    grep -q 'present, not trusted: nothing proven' said || fail "the report does not say that nothing is proven"
    judge 0 $bundle --tsa-roots authority/other-root.pem
    grep -q 'present, not trusted: nothing proven' said || fail "another root was taken"
done
countersign stream proof orders 41 --timestamped --out stamped-41.tlog-proof --data acme >/dev/null
judge 0 stamped-41.tlog-proof --tsa-roots authority/root.pem
grep -q "$older entries of .* existed not later than" said || fail "the proof is not under the first stamped checkpoint"
expect 0 openssl ts -verify -token_in -in stamped-41.tst -data at-$older.checkpoint -CAfile authority/root.pem -untrusted authority/middle.pem
echo "bundle and proof hand the tokens out; the verifier bounds the time by them"
