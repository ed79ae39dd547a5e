#!/usr/bin/env python3
"""Opens wrapped epoch keys with pyhpke, and sealed data with them, as schemas/encryption.md says.

    pyhpke_open.py VECTORS PRODUCER CONSUMER BUNDLE     data directories, and a bundle of the consumer's copy
"""
import base64, glob, hashlib, json, os, re, struct, sys
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey
from pyhpke.exceptions import OpenError
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from formats import Entry, parse_attributes

SUITE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
P = 2**255 - 19

def x25519(seed):
    """The private key that goes with the X25519 form of the Ed25519 key of a seed."""
    return X25519PrivateKey.from_private_bytes(hashlib.sha512(seed).digest()[:32])

def montgomery(edwards):
    y = int.from_bytes(edwards, "little") & (1 << 255) - 1
    return ((1 + y) * pow(1 - y, -1, P) % P).to_bytes(32, "little")

def named(tag, origin, epoch):
    return tag + struct.pack(">H", len(origin)) + origin + struct.pack(">Q", epoch)

def unwrap(wrapped, secret, origin, epoch, commitment):
    public = secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert montgomery(base64.b64decode(wrapped["key"])) == public, "the wrap is for another key"
    key = KEMKey.from_pyca_cryptography_key(secret)
    context = SUITE.create_recipient_context(base64.b64decode(wrapped["encapsulated"]), key, info=named(b"countersign.wr.1", origin, epoch) + commitment)
    opened = context.open(base64.b64decode(wrapped["sealed"]))
    found = hashlib.sha256(named(b"countersign.ep.1", origin, epoch) + opened).digest()
    assert found == commitment, "the key is not the one that was committed to"
    return opened

def data_key(epoch_key, draw, origin):
    return AESGCM(HKDF(SHA256(), 32, draw, b"countersign.dk.1" + origin).derive(epoch_key))

def open_part(key, origin, epoch, sequence, attributes, sealed):
    associated = named(b"countersign.ad.1", origin, epoch) + struct.pack(">Q", sequence) + attributes
    return key.decrypt(bytes(4) + struct.pack(">Q", sequence), sealed[8:], associated)

def refused(what, attempt):
    try:
        attempt()
    except (AssertionError, InvalidTag, OpenError):
        return
    raise SystemExit(f"{what} opens")

def vectors(path):
    case = json.load(open(path))
    control, origin, secret = json.loads(case["key_epoch"]), case["origin"].encode(), x25519(bytes.fromhex(case["recipient"]["seed"]))
    commitment, draw = base64.b64decode(control["commitment"]), base64.b64decode(control["draw"])
    key = data_key(unwrap(control["own"], secret, origin, case["epoch"], commitment), draw, origin)
    for part in case["parts"]:
        sealed = bytes.fromhex(part["sealed"])
        assert struct.unpack(">Q", sealed[:8])[0] == case["key_entry"]
        opened = open_part(key, origin, case["epoch"], case["sequence"], bytes.fromhex(case["attribute_commitment"]), sealed)
        assert opened.hex() == part["data_part"]
    return len(case["parts"])

def entries(bundle):
    """The entries of a bundle's stream with their contents, and its origin."""
    folder = os.path.join(bundle, "log")
    origin = open(os.path.join(folder, "checkpoint"), "rb").read().split(b"\n")[0]
    skeleton = b"".join(open(path, "rb").read() for path in sorted(glob.glob(os.path.join(folder, "tile/entries/**/*"), recursive=True)) if os.path.isfile(path))
    skeleton = [Entry(skeleton[at + 2:at + 120], "entry") for at in range(0, len(skeleton), 120)]
    found = []
    for path in sorted(path for path in glob.glob(os.path.join(bundle, "content/**/*"), recursive=True) if os.path.isfile(path)):
        raw = open(path, "rb").read()
        count = struct.unpack(">H", raw[4:6])[0]
        at = 6 + 7 * count
        for place in range(6, at, 7):
            _, attributes, data_part = struct.unpack(">BHI", raw[place:place + 7])
            content, at = raw[at:at + 64 + attributes + data_part], at + 64 + attributes + data_part
            found.append((content[64:64 + attributes], content[64 + attributes:]))
    assert len(found) == len(skeleton), "every entry of so short a stream has its content"
    return origin, list(zip(skeleton, found))

def encryption_key(data):
    pem = open(os.path.join(data, "keys/encryption.pem"), "rb").read()
    return x25519(load_pem_private_key(pem, None).private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))

def given(data):
    """The key wraps in a node's ledger, as they lie on its disk."""
    found = {}
    for path in glob.glob(os.path.join(data, "**/*.seg"), recursive=True):
        for record in re.findall(rb'\{"kind":"key-wrap","envelope":"(?:\\.|[^"\\])*"\}', open(path, "rb").read()):
            wrap = json.loads(base64.b64decode(json.loads(json.loads(record)["envelope"])["payload"]))
            found[wrap["epoch"]] = wrap
    return found

def open_all(origin, log, keys):
    """Every event's data, with what gives an epoch's key."""
    controls, opened = {}, []
    for entry, (attributes, data_part) in log:
        kind = parse_attributes(attributes, "attributes")[b"type"]
        if entry.control:
            if kind.endswith(b".control.key-epoch.v1"):
                control = json.loads(data_part[1:])
                commitment = base64.b64decode(control["commitment"])
                controls[entry.sequence] = control["epoch"], data_key(keys(control, commitment), base64.b64decode(control["draw"]), origin)
            continue
        assert entry.encrypted, "an event is in the clear"
        epoch, key = controls[struct.unpack(">Q", data_part[:8])[0]]
        opened.append(open_part(key, origin, epoch, entry.sequence, entry.attributes, data_part))
        refused("an altered event", lambda: open_part(key, origin, epoch, entry.sequence, entry.attributes, data_part[:-1] + bytes([data_part[-1] ^ 1])))
        refused("a moved event", lambda: open_part(key, origin, epoch, entry.sequence + 1, entry.attributes, data_part))
    return opened

def main():
    path, producer, consumer, bundle = sys.argv[1:]
    parts = vectors(path)
    origin, log = entries(bundle)
    own, theirs, wraps = encryption_key(producer), encryption_key(consumer), given(consumer)
    by_producer = open_all(origin, log, lambda control, commitment: unwrap(control["own"], own, origin, control["epoch"], commitment))
    by_consumer = open_all(origin, log, lambda control, commitment: unwrap(wraps[control["epoch"]]["wrapped"], theirs, origin, control["epoch"], commitment))
    assert by_producer == by_consumer and by_producer, "they read something else"
    for part in by_producer:
        assert json.loads(part[1:])["item"] == "pallet jack"
    for wrap in wraps.values():
        commitment = base64.b64decode(wrap["commitment"])
        refused("a wrap of another epoch", lambda: unwrap(wrap["wrapped"], theirs, origin, wrap["epoch"] + 1, commitment))
        refused("a wrap with another's key", lambda: unwrap(wrap["wrapped"], own, origin, wrap["epoch"], commitment))
        refused("a wrap that the log has not committed to", lambda: unwrap(wrap["wrapped"], theirs, origin, wrap["epoch"], bytes(32)))
    print(f"opened with pyhpke: {parts} golden parts; {len(by_producer)} events under {len(wraps)} epochs, by producer and partner; what was altered or moved does not open")

if __name__ == "__main__":
    main()
