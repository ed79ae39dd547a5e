#!/usr/bin/env python3
"""Opens events that a node has sealed to an outsider's key, with jwcrypto, as schemas/jwe.md says.

    jose_open.py make CURVE NAME                          writes NAME.private and NAME.public
    jose_open.py open NAME FILE AUTHORITY COUNT [MEMBER]  one JWE a line: COUNT orders of AUTHORITY's, all of each, or that member alone
    jose_open.py vectors FILE                             the golden texts
"""
import base64, json, sys
from jwcrypto.common import JWException
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

def opened(text, key):
    jwe = JWE(algs=["ECDH-ES", "A256GCM"])
    jwe.deserialize(text, key)
    return jwe.jose_header, jwe.payload

def refused(what, text, key):
    try:
        opened(text, key)
    except (JWException, ValueError):
        return
    raise SystemExit(f"{what} opens")

def unbase64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

def alter(part, at):
    raw = bytearray(unbase64(part))
    raw[at] ^= 1
    return base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()

def check(text, key):
    """What it holds; that another key does not open it, nor this one when a part is another."""
    header, payload = opened(text, key)
    assert (header["alg"], header["enc"], header["cty"]) == ("ECDH-ES", "A256GCM", "cloudevents+json"), header
    assert header.get("kid") == key.get("kid"), header
    refused("it for another key", text, JWK.generate(kty=key["kty"], crv=key["crv"]))
    parts = text.split(".")
    for place in (2, 3, 4):
        for at in (0, -1):
            altered = parts[:place] + [alter(parts[place], at)] + parts[place + 1:]
            refused(f"part {place}, altered", ".".join(altered), key)
    said = unbase64(parts[0]).decode()
    for one, other in (('"sequence":', '"sequence":1'), (header["dev.countersign.event"]["origin"], "other.example/streams/orders")):
        assert one in said
        name = base64.urlsafe_b64encode(said.replace(one, other).encode()).rstrip(b"=").decode()
        refused("a header that says something else", ".".join([name] + parts[1:]), key)
    return header["dev.countersign.event"], json.loads(payload)

def make(curve, name):
    key = JWK.generate(kty="EC" if curve == "P-256" else "OKP", crv=curve, kid=name)
    open(name + ".private", "w").write(key.export_private())
    open(name + ".public", "w").write(key.export_public())

def open_all(name, path, authority, count, member=None):
    key = JWK.from_json(open(name + ".private").read())
    lines = open(path).read().splitlines()
    assert len(lines) == int(count), f"{path} has {len(lines)} lines"
    sequences = []
    for order, line in enumerate(lines, 1):
        about, event = check(line, key)
        assert about["origin"].startswith(authority + "/streams/"), about
        assert event["specversion"] == "1.0" and event["type"] == "com.example.order", event
        whole = {"order": order, "item": "pallet jack", "quantity": 2}
        assert event["data"] == ({member: whole[member]} if member else whole), event
        assert about.get("withheld") == (2 if member else None), about
        assert len(about["leaf"]) == 64
        sequences.append(about["sequence"])
    assert sequences == sorted(set(sequences)), sequences
    epks = {unbase64(line.split(".")[0]).decode().split('"epk":')[1].split("}")[0] for line in lines}
    assert len(epks) == len(lines), "an ephemeral key was used twice"
    print(f"opened with jwcrypto: {len(lines)} of {path}, to {key['crv']}")

def vectors(path):
    cases = json.load(open(path))["cases"]
    for case in cases:
        about, event = check(case["jwe"], JWK.from_json(json.dumps(case["recipient"])))
        assert about == {name: case[name] for name in ("origin", "sequence", "leaf")}, about
        assert event == json.loads(case["event"])
    print(f"opened with jwcrypto: {len(cases)} golden texts")

{"make": make, "open": open_all, "vectors": vectors}[sys.argv[1]](*sys.argv[2:])
