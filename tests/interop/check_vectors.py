#!/usr/bin/env python3
"""Computes the golden vectors of entries, contents, documents, trees, notes and delivery batches again, and time-stamp tokens, with formats.py and timestamps.py alone.

    check_vectors.py [FOLDER]       FOLDER is tests/vectors
"""
import base64, json, os, re, struct, sys
import formats, timestamps
from formats import Bad, Document, Entry, fold, grow, merge, need, sha256, verify_ed25519

COUNTS = {}

def same(kind, name, found, expected):
    COUNTS[kind] = COUNTS.get(kind, 0) + 1
    need(found == expected, f"{kind}, `{name}`", f"{found!r:.200} where {expected!r:.200} is expected")

def refused(kind, name, read):
    COUNTS[kind + ", refused"] = COUNTS.get(kind + ", refused", 0) + 1
    try:
        read()
    except Bad:
        return
    raise Bad(f"{kind}, `{name}`: it is accepted, and should be refused")

def entry_of(raw):
    need(len(raw) == 118, "entry", "it has not 118 bytes")
    return Entry(raw, "entry")

def event(folder):
    entries = load(folder, "event/v1/entry.json")
    for one in entries["valid"]:
        entry, fields = entry_of(bytes.fromhex(one["bytes"])), one["fields"]
        found = {"attributes": entry.attributes.hex(), "author_signed": entry.author_signed, "data": entry.data.hex(), "data_bytes": entry.data_length,
                 "encrypted": entry.encrypted, "kind": "control" if entry.control else "event", "prev": entry.previous.hex(),
                 "sequence": str(entry.sequence), "time": str(entry.time)}
        same("entry", one["name"], (found, entry.leaf.hex()), (fields, one["leaf_hash"]))
    for one in entries["invalid"]:
        refused("entry", one["name"], lambda: entry_of(bytes.fromhex(one["bytes"])))
    attributes = load(folder, "event/v1/attributes.json")
    for one in attributes["valid"]:
        found = formats.parse_attributes(bytes.fromhex(one["bytes"]), "attributes")
        same("attributes", one["name"], [name.decode() for name in found], [name for name, *_ in one["attributes"]])
    for one in attributes["invalid"]:
        refused("attributes", one["name"], lambda: formats.parse_attributes(bytes.fromhex(one["bytes"]), "attributes"))
    for one in load(folder, "event/v1/data-part.json")["invalid"]:
        refused("data part", one["name"], lambda: formats.parse_data_part(bytes.fromhex(one["bytes"]), "data part"))
    events = load(folder, "event/v1/events.json")
    salts = [bytes.fromhex(events[name]) for name in ("attribute_salt", "data_salt")]
    for one in events["events"]:
        parts, entry = [bytes.fromhex(one[name]) for name in ("attributes", "data_part")], entry_of(bytes.fromhex(one["entry"]))
        hashes = [sha256(tag + salt + part) for tag, salt, part in zip((b"countersign.at.1", b"countersign.dw.1"), salts, parts)]
        same("content", one["name"], b"".join(salts + parts).hex(), one["content"])
        same("commitment", one["name"], [h.hex() for h in hashes], [one["attribute_commitment"], one["data_commitment"]])
        same("commitment", one["name"], hashes, [entry.attributes, entry.data])
        same("leaf hash", one["name"], entry.leaf.hex(), one["leaf_hash"])
        formats.parse_attributes(parts[0], one["name"])
        author, data = formats.parse_data_part(parts[1], one["name"])
        same("data part", one["name"], (len(data), bool(author)), (entry.data_length, entry.author_signed))
    for one in load(folder, "event/v1/fields.json")["cases"]:
        entry, at = entry_of(bytes.fromhex(one["entry"])), 64 + one["attribute_bytes"]
        whole, view = (bytes.fromhex(one[name]) for name in ("content", "view"))
        for content in (whole, view):
            formats.check_data(entry, content[32:64], content[at:], one["name"])
        same("withheld", one["name"], sum(not salt for salt, _ in formats.parse_view(view[at:], one["name"])[1:]), one["withheld"])
        for place in range(at, len(view)):
            altered = view[:place] + bytes([view[place] ^ 1]) + view[place + 1:]
            refused("view", f"{one['name']}, byte {place}", lambda: formats.check_data(entry, altered[32:64], altered[at:], one["name"]))

    for one in load(folder, "event/v1/fields.json")["refused"]:
        entry, at, content = entry_of(bytes.fromhex(one["entry"])), 64 + one["attribute_bytes"], bytes.fromhex(one["content"])
        refused("fields", one["name"], lambda: formats.check_data(entry, content[32:64], content[at:], one["name"]))

def documents(folder):
    for name in sorted(os.listdir(os.path.join(folder, "documents/v1"))):
        vectors = load(folder, "documents/v1/" + name)
        for number, one in enumerate(vectors if isinstance(vectors, list) else []):
            document, where = Document(one["envelope"].encode(), name), f"{name} {number}"
            same("document", where, (document.raw.decode(), document.digest.hex(), document.type.decode()),
                 (one["payload"], one["payload_digest"], one["payload_type"]))
            for signer in one["signers"]:
                key = base64.b64decode(signer["key"])
                same("signature", where, (document.signed_by(key), formats.good_key(key), formats.fingerprint(key)), (True, True, signer["keyid"]))
    invalid, offer = load(folder, "documents/v1/invalid.json"), load(folder, "documents/v1/offer.json")
    key = base64.b64decode(invalid["key"])
    for one in invalid["invalid"]:
        def read(one=one):
            raw = one["envelope"].encode()
            document = Document(raw + b" " * (one.get("padded_with_spaces_to_bytes", 0) - len(raw)), one["name"])
            need(document.type.decode() == invalid["payload_type"] and document.signed_by(key), one["name"], "it is not signed by the wanted key")
        refused("document", one["name"], read)
    same("offer", "digest", sha256(offer["text"].encode()).hex(), offer["digest"])

def tree(leaves):
    return grow([], ((1, leaf) for leaf in leaves))

def path_of(leaves, index):
    """RFC 6962 2.1.1."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = leaves[:split], leaves[split:]
    return path_of(left, index) + [fold(tree(right))] if index < split else path_of(right, index - split) + [fold(tree(left))]

def consistency(leaves, old, whole=True):
    """RFC 6962 2.1.2."""
    if old == len(leaves):
        return [] if whole else [fold(tree(leaves))]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = leaves[:split], leaves[split:]
    if old <= split:
        return consistency(left, old, whole) + [fold(tree(right))]
    return consistency(right, old - split, False) + [fold(tree(left))]

def tlog(folder):
    bundle, leaves, at = load(folder, "tlog/v1/entries-000.p-70.bin"), [], 0
    while at < len(bundle):
        length = struct.unpack(">H", bundle[at:at + 2])[0]
        leaves.append(sha256(b"\0" + bundle[at + 2:at + 2 + length]))
        at += 2 + length
    text = lambda hashes: [base64.b64encode(one).decode() for one in hashes]
    for one in load(folder, "tlog/v1/roots.json"):
        peaks = tree(leaves[:one["size"]])
        same("root", one["size"], (text(peak for _, peak in peaks), *text([fold(peaks)])), (one["hashes"], one["root"]))
    for one in load(folder, "tlog/v1/inclusion.json"):
        same("inclusion proof", one, text(path_of(leaves[:one["size"]], one["index"])), one["proof"])
    for one in load(folder, "tlog/v1/consistency.json"):
        same("consistency proof", one, text(consistency(leaves[:one["new"]], one["old"]) if one["old"] else []), one["proof"])
    keys, notes = load(folder, "tlog/v1/keys.json"), [load(folder, "tlog/v1/" + name) for name in ("checkpoint.txt", "cosigned-checkpoint.txt")]
    name, key = formats.parse_vkey(keys["log"]["vkey"], "keys.json")
    for note in notes:
        body, signatures = formats.parse_note(note, "checkpoint")
        mine = [signature[4:] for owner, signature in signatures if (owner, signature[:4]) == (name, formats.vkey_id(name, key))]
        same("checkpoint", name, [verify_ed25519(key, one, body.encode()) for one in mine], [True])
        same("checkpoint", name, body, f"{name}\n70\n{text([fold(tree(leaves))])[0]}\n")
    witness = base64.b64decode(keys["witness"]["vkey"].split("+", 2)[2])[1:]
    payload, line = load(folder, "tlog/v1/cosignature-payload.txt"), signatures[-1][1]
    same("cosignature", "signature", verify_ed25519(witness, line[12:], payload), True)
    same("cosignature", "time", struct.unpack(">Q", line[4:12])[0], keys["time_seconds"])

def varint(raw, at):
    """LEB128 in its shortest form."""
    value, shift = 0, 0
    while True:
        need(at < len(raw) and shift < 64, "varint", "it is cut or too long")
        byte, at = raw[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            need(byte or not shift, "varint", "it is not in its shortest form")
            return value, at
        shift += 7

def read_batch(raw, origin, key):
    """The entries of a delivery frame that begins a log (protocol.md), once they are proven under its checkpoint."""
    (first, at), where = varint(raw, 0), "batch"
    count, at = varint(raw, at)
    length, at = varint(raw, at)
    need(first == 0 and raw[at] == 0, where, "it begins elsewhere, or has an unknown cover")
    size, at = varint(raw, at + 1)
    root, at = raw[at:at + 32], at + 32
    (signature, at), proof = string(raw, at), []
    hashes, at = varint(raw, at)
    for _ in range(hashes):
        proof.append(raw[at:at + 32])
        at += 32
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    need(verify_ed25519(key, signature, text.encode()), where, "the log's key did not sign its checkpoint")
    place, end, at = at, at + length, at + length
    entries, previous, now, claims, skipped, said = [], bytes(32), 0, [], [], {}
    for sequence in range(count):
        need(place + 2 <= end and raw[place] in (0, 1, 2, 3), where, "a descriptor is cut or unknown")
        tag, flags, place = raw[place], raw[place + 1], place + 2
        if tag in (1, 3):
            (step, place), (data_length, place) = varint(raw, place), varint(raw, varint(raw, place)[1])
            distance, place = varint(raw, place) if tag == 1 else (1, place)
            now, commitments, place = now + step, raw[place:place + 64], place + 64
            need(place <= end and distance and flags & 15 == 0, where, "an entry without content is cut, a control entry, or names nothing behind it")
            if tag == 1:
                claims.append((sequence, sequence + distance))
            else:
                skipped.append(sequence)
            entries.append(struct.pack(">BBIQ32sQ64s", 1, flags, data_length, sequence, previous, now, commitments))
            previous = Entry(entries[-1], where).leaf
            continue
        (step, place), (attributes, place), (part, place) = take(raw, place)
        data_length, place = varint(raw, place) if tag or flags & 48 else (part - 1, place)
        now += step
        need(at + 64 + attributes + part <= len(raw), where, "its content breaks off")
        salts, names, data = raw[at:at + 64], raw[at + 64:at + 64 + attributes], raw[at + 64 + attributes:at + 64 + attributes + part]
        at += 64 + attributes + part
        entry = struct.pack(">BBIQ32sQ32s32s", 1, flags, data_length, sequence, previous, now,
                            sha256(b"countersign.at.1" + salts[:32] + names), formats.data_commitment(salts[32:], data, where))
        need((data[:1] == b"\6") == (tag == 2), where, "members are withheld, and its descriptor says otherwise")
        entries.append(entry)
        previous = Entry(entry, where).leaf
        if flags & 15 == 1:
            said[sequence] = formats.read_allowance(formats.parse_attributes(names, where), formats.parse_data_part(data, where)[1])
    for sequence, by in claims:
        member, what = said.get(by) or (None, 0)
        need(by >= count or member == "sequence" and what == sequence or member == "below" and sequence < what, where, "a false claim")
    need(place == end and at == len(raw), where, "bytes lie after its last entry")
    leaves = [sha256(b"\0" + entry) for entry in entries]
    need(proven(tree(leaves), count, size, proof, root), where, "its entries do not make the tree that the log's key signed")
    return entries, leaves, fold(tree(leaves)), skipped

def string(raw, at):
    length, at = varint(raw, at)
    return raw[at:at + length], at + length

def take(raw, at):
    for _ in range(3):
        value, at = varint(raw, at)
        yield value, at

def proven(peaks, old, new, proof, root):
    """RFC 9162 2.1.4.2, with the old root computed from the peaks."""
    if old == new:
        return not proof and fold(peaks) == root
    if old & old - 1 == 0:
        proof = [fold(peaks)] + proof
    if not proof:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = proof[0]
    for one in proof[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = sha256(b"\1" + one + fr), sha256(b"\1" + one + sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = sha256(b"\1" + sr + one)
        fn, sn = fn >> 1, sn >> 1
    return fr == fold(peaks) and sr == root and sn == 0

def batches(folder):
    for name in ("batch.json", "batch-erased.json", "batch-views.json", "batch-skipped.json"):
        vectors = load(folder, "protocol/v1/" + name)
        key = base64.b64decode(vectors["log_key"])
        entries, leaves, root, skipped = read_batch(bytes.fromhex(vectors["body"]), vectors["origin"], key)
        result = vectors["result"]
        same("skipped", name, skipped, [at for first, end in result.get("skipped", []) for at in range(first, end)])
        same("batch", name, ([e.hex() for e in entries], root.hex()), (result["entries"], result["root"]))
        same("leaf hash", name, [l.hex() for l in leaves], result.get("leaf_hashes", [l.hex() for l in leaves]))
        # What a filter lets through is not looked at here.
        for one in (one for one in vectors["invalid"] if "does not pass" not in one["name"]):
            refused("batch", one["name"], lambda: read_batch(bytes.fromhex(one["body"]), vectors["origin"], key))

def timestamp_tokens(folder):
    """Tokens of `openssl`: which are taken, and what they are over."""
    folder = os.path.join(folder, "timestamp/v1")
    read = lambda name: open(os.path.join(folder, name), "rb").read()
    def token(name):
        if name.endswith(".tst"):
            return read(name)
        answer = timestamps.only(read(name), timestamps.SEQUENCE, name)
        need(answer.inner(timestamps.SEQUENCE).number() <= 1, name, "it was not granted")
        return answer.whole()[0]
    for name in ("rsa.tsr", "p256.tsr", "p384.tsr"):
        said = timestamps.read_token(token(name), name)
        same("token", name, (said[0], said[2] - said[1]), (sha256(read("note")), 1500100))
    for name in os.listdir(folder):
        if name.endswith((".tsr", ".tst")) and name not in ("rsa.tsr", "p256.tsr", "p384.tsr", "log-300.tsr", "log-600.tsr"):
            refused("token", name, lambda: timestamps.read_token(token(name), name))

def load(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        raw = file.read()
    return json.loads(raw) if name.endswith(".json") else raw

def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "../vectors")
    for check in (event, documents, tlog, batches, timestamp_tokens):
        check(folder)
    print("vectors: " + ", ".join(f"{count} {kind}" for kind, count in sorted(COUNTS.items())))

if __name__ == "__main__":
    try:
        main()
    except Bad as bad:
        sys.exit(f"vectors differ: {bad}")
