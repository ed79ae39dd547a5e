#!/usr/bin/env bash
# Two organizations and a reader make real evidence; both verifiers judge it, and thousands of altered copies of it.
#
#   COUNTERSIGN=path   the program [default: built here by `cargo build --release --bin countersign`]
#   MUTATIONS=3000     how many altered copies
#   SEED=n             which ones [default: drawn, and printed]
#   INSTALL=no         end with 77 where the package is missing, instead of installing it
#   KEEP=dir           where nodes and bundles are made, and left [default: a temporary folder, removed]
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# The one package that is not of the standard library.
need_python 'import cryptography' python3-cryptography cryptography
need_program openssl openssl
enter_work

acme=$(node "Acme Freight" acme)
beta=$(node "Beta Logistics" beta)
serve acme beta

read_to() {     # how many events both consumers are to have
    countersign subscribe acme-freight/orders --from start --count "$1" --follow --data beta >/dev/null
    read_by_reader "$1"
    receipts 2 "$1"
}

echo "making evidence in $work"
publish 100
countersign partner join "$(link)" --yes --data beta >/dev/null 2>&1
join_reader
read_to 100
publish 160
read_to 260
# From here on under other keys; who trusts the first organization key trusts what follows it.
for role in log receipt organization; do
    for data in acme beta; do
        countersign key rotate $role --data $data >/dev/null 2>&1 || fail "the $role key of $data could not be rotated"
    done
done
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
. "$here/authority.sh"
make_authority authority 2>/dev/null
for signer in p256 rsa; do
    countersign evidence timestamp orders --out $signer.tsq --data acme >/dev/null
    stamp authority $signer $signer.tsq $signer.tsr
    countersign evidence timestamp orders --attach $signer.tsr --data acme >/dev/null
done
export_ orders --out stamped --data acme
countersign stream erase orders 290 --reason "asked for" --yes --data acme >/dev/null
export_ orders --out erased --data acme
export_ orders --out erased-range --from 270 --to 300 --data acme
countersign stream retention orders --count 200 --data acme >/dev/null
export_ orders --out expired --data acme
# Signed events of which the partner is shown some members.
countersign app key author.pem >/dev/null
countersign stream create parts --commit fields --data acme >/dev/null
countersign partner join "$(countersign partner invite --stream parts --fields item,amount --data acme --json | sed 's/.*"link":"\([^"]*\)".*/\1/')" --yes --data beta >/dev/null 2>&1
seq 1 40 | sed 's/.*/{"item":"i&", "pin":&,"amount":{"n":&}, "note":null }/' | countersign publish parts - --type com.example.part --sign-as author.pem --data acme >/dev/null
seq 1 5 | countersign publish parts - --type com.example.part --data acme >/dev/null 2>&1 && fail "numbers were taken for objects"
countersign subscribe acme-freight/parts --from start --count 40 --follow --data beta >/dev/null
receipts 1 40
export_ parts --out parts --data acme
export_ acme-freight/parts --out parts-copy --data beta
grep -rq '"pin"' parts-copy && fail "the partner has what it is not shown"
# A plan with a filter: the partner's copy holds every entry, and the content of what passes.
countersign stream create sieved --data acme >/dev/null
cat >plans.toml <<'END'
[[plans]]
name = "odd"
exposure_events = 1000
erasure = "obey"
filter = '[{"exact":{"type":"com.example.odd"}}]'
END
countersign plan set sieved plans.toml --data acme >/dev/null
countersign partner join "$(countersign partner invite --stream sieved --plan odd --data acme --json | sed 's/.*"link":"\([^"]*\)".*/\1/')" --yes --data beta >/dev/null 2>&1
for n in 1 2 3; do
    for kind in even odd; do
        seq 1 20 | sed "s/.*/{\"$kind\":&}/" | countersign publish sieved - --again --type com.example.$kind --data acme >/dev/null
    done
done
countersign subscribe acme-freight/sieved --from start --count 60 --follow --data beta >/dev/null
receipts 1 60
export_ sieved --out sieved --data acme
export_ acme-freight/sieved --out sieved-copy --data beta
grep -rq '"even"' sieved-copy && fail "the partner has what the filter leaves out"
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
for bundle in whole whole.tar aligned middle beginning ended stamped erased expired parts large large-range; do
    judge $bundle 0 "$acme"
    judge $bundle 9
done
# What allows the gap lies behind the range.
judge erased-range 9 "$acme"
judge copy 0 "$acme" "$beta"
judge parts-copy 0 "$acme" "$beta"
# What a filter left out is accounted for by position and reason; that it does not pass is the producer's word.
for bundle in sieved sieved-copy; do
    judge $bundle 9 "$acme" "$beta"
done
grep -q '"reason": *"filtered"' sieved-copy/manifest.json || fail "the manifest does not say what a filter left out"
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
    whole="$acme" aligned="$acme" middle="$acme" beginning="$acme" copy="$acme,$beta" ended="$acme" stamped="$acme" erased="$acme" expired="$acme" parts="$acme" parts-copy="$acme,$beta" whole= copy="$acme"
echo "second_verifier: the vectors fit, $same judgements and all verdicts on altered bundles agree"
