#!/usr/bin/env bash
# Signatures checked with the program `openssl` and nothing of ours: those of a bundle's checkpoint, key statements, agreement and receipts. What is
# signed is put together here from the files, following schemas/documents.md and the signed-note format. And altered copies, which must be refused.
#
# OpenSSL 3 and jq come from Debian. COUNTERSIGN, INSTALL and KEEP are as in lib.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

need_program openssl openssl
need_program jq jq
case $(openssl version) in "OpenSSL "[3-9]*) ;; *) fail "OpenSSL 3 is wanted, and this is $(openssl version)" ;; esac

make_evidence
openssl version

# What `openssl` says of KEY (32 bytes), MESSAGE and SIGNATURE: `good` or `bad`; anything else, such as a file it cannot read, ends the script.
judge() {
    local said
    { printf '\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00'; cat "$1"; } >key.der
    said=$(openssl pkeyutl -verify -rawin -pubin -keyform DER -inkey key.der -in "$2" -sigfile "$3" 2>&1) || true
    case $said in
        *"Signature Verified Successfully"*) echo good ;;
        *"Signature Verification Failure"*) echo bad ;;
        *) fail "openssl says of $2: $said" ;;
    esac
}
altered() {         # file, offset: the file with that byte changed
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    head -c "$2" "$1"
    printf "\\x$(printf %02x $((byte ^ 1)))"
    tail -c +"$(($2 + 2))" "$1"
}
verify() {          # what, key, message, signature: good as it is, bad with another byte, another signature, another key
    local what=$1 key=$2 message=$3 signature=$4 size at refused=0
    [ "$(stat -c %s "$key") $(stat -c %s "$signature")" = "32 64" ] || fail "$what: key and signature have not 32 and 64 bytes"
    [ "$(judge "$key" "$message" "$signature")" = good ] || fail "$what: openssl refuses the signature"
    size=$(stat -c %s "$message")
    for at in 0 $((size / 3)) $((size / 2)) $((size - 1)); do
        altered "$message" "$at" >altered
        [ "$(judge "$key" altered "$signature")" = bad ] || fail "$what: openssl takes it with byte $at altered"
        refused=$((refused + 1))
    done
    for at in 0 31 32 62; do
        altered "$signature" "$at" >altered
        [ "$(judge "$key" "$message" altered)" = bad ] || fail "$what: openssl takes it with byte $at of the signature altered"
        refused=$((refused + 1))
    done
    [ "$(judge stranger.key "$message" "$signature")" = bad ] || fail "$what: openssl takes it under another key"
    echo "$what: verified; $((refused + 1)) altered copies refused"
}
openssl genpkey -algorithm ed25519 -outform DER 2>/dev/null | openssl pkey -inform DER -pubout -outform DER | tail -c 32 >stranger.key

fingerprint() { printf key-; { printf countersign.key1; cat "$1"; } | openssl dgst -sha256 -binary | head -c 20 | base32 | tr A-Z a-z; }

# DSSE: `payload` and `pae` of an envelope, and the signature whose hint is the key's fingerprint.
open_envelope() {   # envelope
    local type
    jq -j .payload "$1" | base64 -d >payload
    type=$(jq -r .payloadType "$1")
    { printf 'DSSEv1 %d %s %d ' "${#type}" "$type" "$(stat -c %s payload)"; cat payload; } >pae
}
verify_envelope() { # what, envelope, key
    open_envelope "$2"
    jq -j --arg keyid "$(fingerprint "$3")" '.signatures[] | select(.keyid == $keyid) | .sig' "$2" | base64 -d >signature
    verify "$1" "$3" pae signature
}
role_key() { jq -j --arg role "$2" '.keys[] | select(.role == $role) | .key' "$1.statement" | base64 -d >"$1-$2.key"; }

# From the fingerprint that the auditor was given to the keys of both sides. The reader's is the one that the agreement names.
for file in whole/documents/key-statement-*.json; do
    open_envelope "$file"
    who=$([ "$(jq -r .authority payload)" = "$acme" ] && echo acme || echo reader)
    cp payload "$who.statement"
    jq -j .organization payload | base64 -d >"$who-organization.key"
    verify_envelope "key statement of $who" "$file" "$who-organization.key"
    for role in log agreement receipt; do role_key $who $role; done
done
[ "$(fingerprint acme-organization.key)" = "$acme" ] || fail "the organization key is not the trusted one"

# The checkpoint: text and signature parted at the last empty line; the key id by which the line is found is computed from name and key.
sed '/^$/,$d' whole/log/checkpoint >text
origin=$(head -n 1 text)
id=$({ printf '%s\n\x01' "$origin"; cat acme-log.key; } | openssl dgst -sha256 -binary | head -c 4 | od -An -tx1 | tr -d ' ')
sed -n "s|^— $origin ||p" whole/log/checkpoint | base64 -d >line
[ "$(head -c 4 line | od -An -tx1 | tr -d ' ')" = "$id" ] || fail "the signature line has not the key id $id"
[ "$vkey" = "$origin+$id+$({ printf '\x01'; cat acme-log.key; } | base64 -w 0)" ] || fail "the vkey is another one"
tail -c 64 line >signature
verify "checkpoint of $(sed -n 2p text) entries" acme-log.key text signature

for file in whole/documents/agreement-*.json; do
    verify_envelope "agreement, the producer's signature" "$file" acme-agreement.key
    verify_envelope "agreement, the consumer's signature" "$file" reader-agreement.key
    [ "$(jq -r '.producer.organization, .consumer.organization' payload)" = "$(base64 -w 0 acme-organization.key; echo; base64 -w 0 reader-organization.key)" ] \
        || fail "the agreement names other organization keys"
done
count=0
for file in whole/documents/receipt-*.json; do
    open_envelope "$file"
    verify_envelope "receipt of $(jq -r .events payload) events" "$file" reader-receipt.key
    count=$((count + 1))
done
[ $count = 2 ] || fail "$count receipts are in the bundle, and 2 should be"
# Key files under a passphrase are OpenSSL's too, and hold the keys that they held before.
for pid in $nodes; do kill "$pid"; wait "$pid" || true; done
nodes=
echo "one line, with spaces" >passphrase
echo "another line" >other
chmod 600 passphrase
public() { openssl pkey -in "$1" -passin "file:$2" -pubout 2>/dev/null; }
public acme/keys/log.pem other >before
COUNTERSIGN_KEYS_PASSPHRASE_FILE=$work/passphrase countersign key protect --data acme >/dev/null
public acme/keys/log.pem passphrase >after
cmp -s before after || fail "a key under a passphrase is another one"
public acme/keys/log.pem other && fail "a key opens under another passphrase"
echo "openssl: the chain of signatures holds from the trusted fingerprint to the receipts"
