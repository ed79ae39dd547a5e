#!/usr/bin/env python3
"""Verifies a bundle's key statements, agreements and receipts with the package securesystemslib.

    securesystemslib_dsse.py BUNDLE FINGERPRINT     FINGERPRINT is that of the organization whose log it is

Keys come from key statements, and the first key statement is believed because its organization key has the fingerprint.
"""
import base64, copy, glob, hashlib, json, os, sys
import securesystemslib
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

REFUSED = 0

def need(holds, what):
    if not holds:
        sys.exit(f"securesystemslib: {what}")

def key_of(text):
    raw = base64.b64decode(text)
    keyid = "key-" + base64.b32encode(hashlib.sha256(b"countersign.key1" + raw).digest()[:20]).decode().lower()
    return SSlibKey(keyid, "ed25519", "ed25519", {"public": raw.hex()})

def accepts(envelope, keys):
    try:
        # from_dict writes into what it is given.
        return len(Envelope.from_dict(copy.deepcopy(envelope)).verify(keys, len(keys))) == len(keys)
    except VerificationError:
        return False

def flip(text, at):
    raw = bytearray(base64.b64decode(text))
    raw[at % len(raw)] ^= 1
    return base64.b64encode(raw).decode()

def altered(envelope, keys):
    """Copies of which none may be accepted, each with the keys that are asked for."""
    for at in range(0, len(base64.b64decode(envelope["payload"])), 7):
        yield f"byte {at} of the payload altered", {**envelope, "payload": flip(envelope["payload"], at)}, keys
    yield "another payload type", {**envelope, "payloadType": envelope["payloadType"].replace(".v1", ".v2")}, keys
    for number, one in enumerate(envelope["signatures"]):
        def having(*instead):
            return {**envelope, "signatures": envelope["signatures"][:number] + list(instead) + envelope["signatures"][number + 1:]}
        for at in range(64):
            yield f"byte {at} of signature {number} altered", having({**one, "sig": flip(one["sig"], at)}), keys
        yield f"signature {number} left out", having(), keys
        stranger = key_of(base64.b64encode(os.urandom(32)).decode())
        strangers = [SSlibKey(key.keyid, key.keytype, key.scheme, stranger.keyval) if key.keyid == one["keyid"] else key for key in keys]
        yield f"another key in place of that of signature {number}", envelope, strangers

def verify(what, envelope, *keys):
    global REFUSED
    need(accepts(envelope, list(keys)), f"{what}: refused")
    refused = 0
    for how, other, others in altered(envelope, list(keys)):
        need(not accepts(other, others), f"{what}, {how}: accepted")
        refused += 1
    REFUSED += refused
    print(f"{what}: verified, {len(keys)} of {len(keys)} signatures; {refused} altered copies refused")

def documents(bundle, kind):
    found = []
    for path in sorted(glob.glob(os.path.join(bundle, "documents", kind + "-*.json"))):
        with open(path, encoding="utf-8") as file:
            envelope = json.load(file)
        need(envelope["payloadType"] == f"application/vnd.countersign.{kind}.v1+json", f"{path}: its type is {envelope['payloadType']}")
        found.append((envelope, json.loads(base64.b64decode(envelope["payload"]))))
    need(found, f"no {kind} is in the bundle")
    return found

def main(bundle, trusted):
    organizations, keys = {}, {}
    for envelope, statement in documents(bundle, "key-statement"):
        authority, organization = statement["authority"], key_of(statement["organization"])
        need(authority == organization.keyid, f"{authority} is not the fingerprint of its organization key")
        verify(f"key statement of {statement['name']}", envelope, organization)
        organizations[authority] = statement["organization"]
        for one in statement["keys"]:
            keys[authority, one["role"]] = key_of(one["key"])
    need(trusted in organizations, f"no key statement is of {trusted}")
    agreements = {}
    for envelope, agreement in documents(bundle, "agreement"):
        producer, consumer = agreement["producer"], agreement["consumer"]
        need(producer["authority"] == trusted, "the agreement's producer is not who is trusted")
        for side in producer, consumer:
            need(side["organization"] == organizations[side["authority"]], f"the agreement names another organization key for {side['name']}")
        verify("agreement", envelope, keys[producer["authority"], "agreement"], keys[consumer["authority"], "agreement"])
        agreements[agreement["id"]] = consumer["authority"]
    for envelope, receipt in documents(bundle, "receipt"):
        need(agreements.get(receipt["agreement"]) == receipt["consumer"], "a receipt is of another agreement's consumer")
        verify(f"receipt of {receipt['events']} events", envelope, keys[receipt["consumer"], "receipt"])
    print(f"securesystemslib {securesystemslib.__version__}: every document is a good DSSE envelope of who should have signed it; {REFUSED} altered copies refused")

main(*sys.argv[1:])
