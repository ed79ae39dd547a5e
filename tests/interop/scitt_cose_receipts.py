#!/usr/bin/env python3
"""Verifies COSE receipts with the package scitt-cose, each against the entry beside it.

    scitt_cose_receipts.py VKEY RECEIPT...      VKEY is the log's; the entry of a.cose is a.entry
"""
import base64, os, sys
import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from scitt_cose import verify_receipt

def need(holds, what):
    if not holds:
        sys.exit(f"scitt_cose: {what}")

def pem(key):
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

def judge(receipt, entry, key):
    return verify_receipt(receipt, leaf_entry_hex=entry.hex(), log_public_key_pem=pem(key))

def sequence_of(entry):
    return int.from_bytes(entry[6:14], "big")

origin, _, raw = sys.argv[1].split("+", 2)
log = Ed25519PublicKey.from_public_bytes(base64.b64decode(raw)[1:])
stranger = Ed25519PrivateKey.generate().public_key()
pairs = []
for name in sys.argv[2:]:
    with open(name, "rb") as receipt, open(os.path.splitext(name)[0] + ".entry", "rb") as entry:
        pairs.append((receipt.read(), entry.read()))
need(len(pairs) > 1, "at least two receipts are wanted")

refused = 0
for at, (receipt, entry) in enumerate(pairs):
    result = judge(receipt, entry, log)
    need(result.ok, f"a receipt is refused: {result.errors}")
    need(result.subject == origin and result.issuer == origin.split("/")[0], "it names another log")
    need(result.leaf_index == sequence_of(entry), "it is of another index than its entry")
    for other, (_, leaf) in enumerate(pairs):
        if other != at:
            need(not judge(receipt, leaf, log).ok, "another entry is accepted under it")
            refused += 1
    for byte in range(len(entry)):
        need(not judge(receipt, entry[:byte] + bytes([entry[byte] ^ 1]) + entry[byte + 1:], log).ok, f"byte {byte} of the entry altered, and accepted")
        refused += 1
    need(not judge(receipt, entry, stranger).ok, "another key is accepted")
    refused += 1
    # The size is what RFC 9942 does not sign; everything else that is altered has to be refused.
    for byte in range(len(receipt)):
        bad = receipt[:byte] + bytes([receipt[byte] ^ 1]) + receipt[byte + 1:]
        found = judge(bad, entry, log)
        if found.ok:
            need(found.tree_size != result.tree_size and found.leaf_index == result.leaf_index, f"byte {byte} of the receipt altered, and accepted")
        else:
            refused += 1

# One of them decoded by a CBOR library that is not ours: just the header parameters of schemas/cose-receipt.md, and no payload.
item = cbor2.loads(pairs[0][0])
protected, unprotected, payload, signature = item.value
need(item.tag == 18 and payload is None and len(signature) == 64, "it is not a COSE_Sign1 with a detached payload")
need(sorted(cbor2.loads(protected)) == [1, 4, 15, 395] and list(unprotected) == [396], "it has other header parameters")
print(f"scitt-cose: {len(pairs)} receipts of {origin} verified; {refused} wrong or altered ones refused")
