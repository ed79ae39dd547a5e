"""What evidence bundles are made of: entries, documents, notes, trees, files. Written from schemas/*.md.

A value that is not as its page says raises `Bad`; every message begins with where in the bundle it is.
"""
import base64, datetime, hashlib, hmac, json, os, re, stat, struct
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MIB, FOREVER = 1 << 20, 1 << 64
ENVELOPE_BYTES = MIB // 4

class Bad(Exception):
    """Something in the bundle is false."""

class Lacking(Exception):
    """Nothing is false, but without something that is not here this cannot be judged."""

def need(holds, where, what, fault=Bad):
    if not holds:
        raise fault(f"{where}: {what}")

# ------------------------------------------------------------------------------------------------- entries and contents

class Entry:
    def __init__(self, raw, where):
        version, flags, self.data_length, self.sequence, self.previous, self.time, self.attributes, self.data = \
            struct.unpack(">BBIQ32sQ32s32s", raw)
        need(version == 1 and flags & 0xCE == 0, where, "its version, kind or flags are unknown")
        need(self.sequence or not any(self.previous), where, "it is the first and names one before it")
        self.control, self.encrypted, self.author_signed = flags & 1 == 1, flags & 16 > 0, flags & 32 > 0
        self.leaf = sha256(b"\0" + raw)

# Controls and noncharacters.
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef" + "".join(chr(p << 16 | 0xFFFE) + chr(p << 16 | 0xFFFF) for p in range(17)) + "]")
CORE = {b"specversion": 3, b"id": 3, b"source": 6, b"type": 3, b"datacontenttype": 3, b"dataschema": 5, b"subject": 3, b"time": 7}

def parse_attributes(raw, where):
    at, found, last = 0, {}, b""
    need(len(raw) <= 65535, where, "its attributes are too long")
    while at < len(raw):
        record = re.compile(rb"(?s)[\x01-\xff]([a-z0-9]+)[\x01-\x07](..)").match(raw[:at + 1 + raw[at] + 3], at)
        need(record and len(record[1]) == raw[at], where, f"the attribute at byte {at} is malformed")
        name, kind, begin = record[1], raw[record.end(1)], record.end()
        at = begin + struct.unpack(">H", record[2])[0]
        need(at <= len(raw) and name > last, where, f"attribute {name.decode()} is cut, or not after the one before it")
        need(CORE.get(name, kind) == kind and name not in (b"data", b"dssematerial"), where, f"attribute {name.decode()} has another type")
        need(attribute_value(kind, raw[begin:at]), where, f"attribute {name.decode()} has no value of its type")
        need(name not in CORE or begin < at, where, f"attribute {name.decode()} is empty")
        found[name] = raw[begin:at]
        last = name
    need(all(found.get(name) for name in (b"specversion", b"id", b"source", b"type")), where, "a required attribute is missing")
    need(found[b"specversion"] == b"1.0", where, "its specversion is not 1.0")
    return found

def attribute_value(kind, value):
    if kind in (1, 2, 4):
        return {1: value in (b"\0", b"\1"), 2: len(value) == 4, 4: True}[kind]
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return False
    if kind == 7:
        return read_time(text) is not None
    return not FORBIDDEN.search(text) and (kind != 5 or text != "")

def parse_data_part(raw, where):
    need(raw and (raw[0] & 0x7F in (0, 1, 2, 3, 5) or raw[0] == 6), where, "the state of its data is unknown")
    if raw[0] == 6:
        head, *members = parse_view(raw, where)
        return b"" if head[0] else b"withheld", b"".join(text for salt, text in members if salt)
    author, data = b"", raw[1:]
    if raw[0] & 0x80:
        length = int.from_bytes(data[:4], "big")
        author, data = data[4:4 + length], data[4 + length:]
        need(len(raw) >= 5 and 1 <= length == len(author) <= 65535, where, "its author material is cut or too long")
    need(raw[0] & 15 > 1 or not data, where, "it has data where it says that there is none")
    if raw[0] & 15 == 2:
        text_of(data, where)
    if raw[0] & 15 == 5:
        split_members(data, where)
    return author, data

def check_data(entry, salt, part, where):
    """Compares a data part with what an entry commits to and says of it; gives the data, of a view what is disclosed."""
    need(data_commitment(salt, part, where, entry.encrypted) == entry.data, where, "its data is not what was committed to")
    check_stated(entry, where)
    if entry.encrypted:
        return b""
    author, data = parse_data_part(part, where)
    view = part[0] == 6
    need(not view or not entry.control and not any(salt), where, "a control entry with members withheld, or a salt that no holder has")
    shorter = view and len(data) < entry.data_length and any(not one[0] for one in parse_view(part, where)[1:])
    need(len(data) == entry.data_length or shorter, where, "its data has another length than its entry says")
    need(bool(author) == entry.author_signed, where, "its author material is not as its entry says")
    return data

def check_stated(entry, where):
    """The length that an entry states of its data: of what is withheld or gone nothing else bounds it. Sealed data has a state, a length, author material, and 24 bytes more."""
    need(entry.data_length <= (16 << 20) + (5 + 65535 + 24 if entry.encrypted else 0), where, "it states more data than an event can have")

def data_commitment(salt, part, where, encrypted=False):
    state = part[0] & 15 if part and not encrypted else 0
    if state == 6 and part[0] == 6:
        hashes = [sha256(b"countersign.dm.1" + one[0] + one[1]) if one[0] else one[1] for one in parse_view(part, where)]
    elif state == 5 and part[0] & 0x70 == 0:
        head = 5 + int.from_bytes(part[1:5], "big") if part[0] & 0x80 else 1
        slices = [part[:head]] + split_members(part[head:], where)
        hashes = [sha256(b"countersign.dm.1" + hmac.digest(salt, b"countersign.ms.1" + struct.pack(">I", at), "sha256") + one) for at, one in enumerate(slices)]
    else:
        return sha256(b"countersign.dw.1" + salt + part)
    return sha256(b"countersign.df.1" + struct.pack(">I", len(hashes) - 1) + b"".join(hashes))

def parse_view(raw, where):
    """Head and members of a view: (salt, slice) of what is disclosed, (None, commitment) of what is not."""
    count, at, found = int.from_bytes(raw[1:5], "big"), 5, []
    need(len(raw) >= 5 and 1 <= count <= 1024, where, "its view has not 1 to 1,024 members")
    for _ in range(count + 1):
        state, hashed, at = raw[at:at + 1], raw[at + 1:at + 33], at + 33
        need(state in (b"\0", b"\1") and len(hashed) == 32, where, "its view breaks off")
        if state == b"\0":
            found.append((None, hashed))
            continue
        length = int.from_bytes(raw[at:at + 4], "big")
        found.append((hashed, raw[at + 4:at + 4 + length]))
        need(len(raw) >= at + 4 and len(found[-1][1]) == length, where, "its view breaks off")
        at += 4 + length
    need(at == len(raw) and (not found[0][0] or found[0][1] == b"\5"), where, "its view goes on, or has another head")
    names = []
    for place, (salt, one) in enumerate(found[1:]):
        if salt:
            source = text_of(one, where)
            source = source if place else source.lstrip(" \t\r\n")
            source = source if place < count - 1 else source.rstrip(" \t\r\n")
            begin, end = "" if place else "{", "," if place < count - 1 else "}"
            need(source.startswith(begin) and source.endswith(end) and len(source) >= len(begin + end), where, "a slice does not fit its place")
            member = "{" + source[len(begin):len(source) - 1] + "}"
            here = [name for name, _ in named_members(member, where)]
            need(len(here) == 1 or count == 1 and not here, where, "a slice is not one member")
            names += here
    need(len(set(names)) == len(names), where, "two of its members have one name")
    return found

def split_members(data, where):
    """The slices of an object: each member with what precedes it and the comma behind; the first and the last with the braces."""
    source = text_of(data, where)
    members = named_members(source, where)
    ends = [end for _, end in members]
    need(len({name for name, _ in members}) == len(members), where, "two of its members have one name")
    need(len(ends) <= 1024, where, "its data has more than 1,024 members")
    places = [0] + [source.index(",", end) + 1 for end in ends[:-1]] + [len(source)]
    return [source[begin:end].encode() for begin, end in zip(places, places[1:])]

def named_members(source, where):
    """The name of each member of a JSON object, as JSON reads it, and where the member ends in the text."""
    def none(name):
        raise ValueError(f"{name} is no JSON")
    decoder, space, found = json.JSONDecoder(parse_constant=none, parse_int=str, parse_float=str), re.compile(r"[ \t\r\n]*"), []
    try:
        depth = 0
        for bracket in re.findall(r'[\[{\]}]', re.sub(r'"([^"\\]|\\.)*"', "", source, flags=re.S)):
            depth += 1 if bracket in "[{" else -1
            need(depth <= 64, where, "its data is nested too deep")
        at = space.match(source).end()
        need(type(decoder.decode(source)) is dict, where, "its data is no JSON object")
        at = space.match(source, at + 1).end()
        while source[at] != "}":
            name, at = decoder.raw_decode(source, at)
            name.encode()
            at = space.match(source, space.match(source, at).end() + 1).end()
            at = decoder.raw_decode(source, at)[1]
            found.append((name, at))
            at = space.match(source, at).end()
            at = space.match(source, at + 1).end() if source[at] == "," else at
        return found
    except (ValueError, RecursionError) as error:
        raise Bad(f"{where}: its data is no JSON object: {error}")

# --------------------------------------------------------------------------------------------------- signed documents

ALLOWANCES = {b"dev.countersign.control.tombstone.v1": "sequence", b"dev.countersign.control.expiry.v1": "below"}

def read_allowance(event, data):
    """What a control entry allows to be gone: ("sequence" or "below", number); None where it is no well-formed tombstone or expiry."""
    member = ALLOWANCES.get(event[b"type"])
    if not member:
        return None
    try:
        said = parse(data, "a control entry")
        check_form(said, {"sequence": number, "reason": text()} if member == "sequence" else {"below": number, "policy": binary(32)}, "a control entry")
        return member, said[member]
    except Bad:
        return None

def unaccounted(entries, withheld, allowances):
    """Entries without content that no control entry behind them allows to be gone; `allowances` has what each says by its sequence."""
    single = {what for at, (member, what) in allowances.items() if member == "sequence" and what < at}
    below = max([min(what, at) for at, (member, what) in allowances.items() if member == "below"], default=0)
    return [sequence for sequence in withheld if entries[sequence].control or sequence >= below and sequence not in single]

class Document:
    """A DSSE envelope. Its payload is looked into at once, to learn who must have signed it; nothing of it counts before."""
    def __init__(self, raw, path):
        need(type(raw) is dict or len(raw) <= MIB // 4, path, "it is longer than 256 KiB")
        envelope = raw if type(raw) is dict else parse(raw, path)    # one within a document is parsed already
        check_form(envelope, ENVELOPE, path)
        need(1 <= len(envelope["signatures"]) <= 4, path, "it has not 1 to 4 signatures")
        self.path, self.raw, self.type = path, envelope["payload"], envelope["payloadType"].encode()
        self.signatures, self.digest = [one["sig"] for one in envelope["signatures"]], sha256(self.raw)
        kind = re.fullmatch(rb"application/vnd\.countersign\.([a-z-]+)\.v1\+json", self.type)
        self.kind = kind[1].decode() if kind and kind[1].decode() in PAYLOADS else None
        self.payload = parse(self.raw, path) if self.kind else {}
        check_form(self.payload, PAYLOADS.get(self.kind, {}), path)

    def signed_by(self, key):
        signed = b"DSSEv1 %d %s %d %s" % (len(self.type), self.type, len(self.raw), self.raw)
        return any(verify_ed25519(key, signature, signed) for signature in self.signatures)

def read_statement(document):
    payload, key = document.payload, document.payload["organization"]
    need(document.signed_by(key), document.path, "the organization key that it names did not sign it")
    line = []    # the organization keys, from the first one to this
    for item in payload["succession"]:
        link = Document(item, document.path)
        need(link.kind == "key-succession", document.path, "it has something else in the place of a succession")
        one = link.payload
        line = line or [one["from"]]
        good = one["authority"] == payload["authority"] and one["from"] == line[-1] and one["to"] not in line
        need(good and link.signed_by(one["from"]) and link.signed_by(one["to"]), document.path, "a succession of its organization key does not hold")
        line.append(one["to"])
    payload["line"] = line = line or [key]
    own = payload["authority"] == fingerprint(line[0]) or not payload["authority"].startswith("key-")
    need(own and line[-1] == key, document.path, "its authority is the fingerprint of another key")
    return payload

def of_one_line(statement, other):
    """Whether the organization key of one is, was or became that of the other."""
    return other["organization"] in statement["line"] or statement["organization"] in other["line"]

def follows(older, newer):
    return newer["line"][:len(older["line"])] == older["line"]

def read_revocation(document):
    payload, where = read_statement(document), document.path
    named = [head["origin"] for head in payload["heads"]]
    need(payload["role"] == "log" or not named, where, "it names heads, and the key is no log key")
    need(len(set(named)) == len(named) and all(one.split("/")[0] == payload["authority"] for one in named), where, "it names a log twice, or another's")
    need(all(head["size"] or head["root"] == sha256(b"") for head in payload["heads"]), where, "it names a root of nothing")
    return payload

def fingerprint(key):
    return "key-" + base64.b32encode(sha256(b"countersign.key1" + key)[:20]).decode().lower()

def read_trust(items):
    """Fingerprints, (origin, key) pairs and key statements that somebody trusts; key revocations that somebody brings along."""
    fingerprints, vkeys, statements, revocations = set(), set(), [], []
    for item in items:
        if re.fullmatch("key-[a-z2-7]{32}", item):
            fingerprints.add(item)
            continue
        with open(item, "rb") as file:
            raw = file.read()
        if raw.lstrip().startswith(b"{"):
            document = Document(raw, item)
            if document.kind == "key-revocation":
                revocations.append(read_revocation(document))
            else:
                statements.append(document)
                fingerprints.add(fingerprint(read_statement(document)["organization"]))
            continue
        for words in [line.split() for line in raw.decode().splitlines()]:
            if not words or words[0].startswith("#") or words[:2] == ["quorum", "none"]:
                continue
            word = words[1] if words[0] == "log" and len(words) > 1 else words[0] if len(words) == 1 else ""
            if re.fullmatch("key-[a-z2-7]{32}", word):
                fingerprints.add(word)
            else:
                vkeys.add(parse_vkey(word, item))
    return fingerprints, vkeys, statements, revocations

# ------------------------------------------------------------------------------------------- forms of JSON (schemas/)

def text(pattern="(?s).*", high=1 << 60):
    def read(value, where):
        need(type(value) is str and len(value) <= high and re.fullmatch(pattern, value, re.ASCII), where, f"{value!r:.60} is not such a text")
        return value
    return read

def number(value, where):
    need(type(value) is int and value < 1 << 64, where, f"{value!r:.60} is no whole number below 2^64")
    return value

def limit(value, where):
    need(type(value) is int and 0 < value < 1 << 32, where, f"{value!r:.60} is no whole number from 1 on, below 2^32")
    return value

def boolean(value, where):
    need(type(value) is bool, where, f"{value!r:.60} is neither true nor false")
    return value

def binary(length=None):
    return lambda value, where: unbase64(value, where, length)

def public_key(value, where):
    key = unbase64(value, where, 32)
    need(good_key(key), where, "a key is no point of the prime order group")
    return key

def time(value, where):
    micros = read_time(value) if type(value) is str else None
    need(micros is not None and micros >= 0, where, f"{value!r:.60} is no time from 1970 on")
    return micros

def many(form, high=1 << 60):
    def read(value, where):
        need(type(value) is list and len(value) <= high, where, "it is no list, or too long")
        return [convert(item, form, where) for item in value]
    return read

def convert(value, form, where):
    if not isinstance(form, dict):
        return form(value, where)
    check_form(value, form, where)
    return value

def check_form(value, form, where):
    """Checks an object's members and puts what they mean in their place. One with a default may be absent (or null, where
    absence means that there is none); with the member `*` others may be there."""
    need(type(value) is dict, where, "it is no object")
    need("*" in form or not value.keys() - form.keys(), where, f"it has unknown members: {sorted(value.keys() - form.keys())!r:.60}")
    for name, part in form.items():
        part, *default = part if type(part) is tuple else (part,)
        if default and (name not in value or value[name] is None and default[0] in (None, FOREVER)):
            value[name] = default[0]
        elif name != "*":
            need(name in value, where, f"it has no member `{name}`")
            value[name] = convert(value[name], part, f"{where}, {name}")

LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
AUTHORITY = rf"(?=[^/]{{1,253}}(/|$))(key-[a-z2-7]{{32}}|{LABEL}(\.{LABEL})+)"
authority, origin = text(AUTHORITY), text(f"{AUTHORITY}/(streams/[a-z0-9][a-z0-9._-]{{0,63}}|ledger/(node|{AUTHORITY})(/(?!000[01])[0-9]{{4}}-[0-9a-f]{{8}})?)")
anything, ident, digest, name = text(), text("[0-9a-f]{32}"), binary(32), text(r"[^\x00-\x1f\x7f-\x9f]+", 100)
one_of = lambda *words: text("|".join(words))
PARTY = {"authority": authority, "name": anything, "organization": public_key}
ENVELOPE = {"payloadType": anything, "payload": binary(), "signatures": many({"keyid": (anything, ""), "sig": binary(64)})}
NO_REJECTIONS = {"count": 0, "digest": bytes(32)}
PLAN = {
        "name": anything, "exposure_events": number, "erasure": one_of("ask", "obey"), "rate": ({"events_per_second": limit,
        "burst_events": (limit, None)}, None), "quota": ({"period": text("day|month|[1-9][0-9]{0,8}s"), "events": (number, None),
        "bytes": (number, None)}, None), "history": ({"events": (number, None), "seconds": (number, None)}, None), "fields": (many(anything), None), "filter": (anything, None)}
PAYLOADS = {
    "key-statement": {"authority": authority, "name": name, "organization": public_key, "number": number, "made": time, "keys": many(
        {"role": one_of("agreement", "encryption", "log", "node", "receipt", "witness"), "key": public_key, "from": time,
         "until": (time, FOREVER)}, 64), "succession": (many(lambda item, where: item, 16), [])},
    "key-succession": {"authority": authority, "from": public_key, "to": public_key, "made": time},
    "key-revocation": {"authority": authority, "organization": public_key, "key": public_key, "role": one_of(
        "agreement", "encryption", "log", "node", "receipt", "witness"), "reason": anything, "made": time, "heads": many(
        {"origin": origin, "size": number, "root": digest}, 1024), "succession": (many(lambda item, where: item, 16), [])},
    "agreement": {"id": ident, "producer": PARTY, "consumer": PARTY, "stream": origin, "plan": PLAN, "from": time, "until": (time, None), "made": time,
                  "accepts": (digest, None), "supersedes": (digest, None)},
    "proposal": {"agreement": ident, "round": number, "answers": (digest, None), "by": authority, "producer": PARTY, "consumer": PARTY, "stream": origin, "plan": PLAN,
                 "from": (time, None), "until": (time, None), "supersedes": (digest, None), "purpose": (anything, None), "valid_until": time, "made": time},
    "step": {"agreement": ident, "stream": origin, "step": one_of("complete", "refuse", "resume", "suspend", "withdraw"), "on": digest, "by": authority,
             "cause": (one_of("arrears", "dispute", "key-revoked", "quota"), None), "reason": anything, "position": (number, None), "made": time},
    "receipt": {"agreement": ident, "stream": origin, "consumer": authority, "series": ident, "number": number, "previous": (digest, None),
                "start": number, "filter": (digest, None), "size": number, "root": digest, "events": number, "bytes": number,
                "level": one_of("received", "verified", "applied"), "applied": number,
                "rejected": ({"count": number, "digest": digest}, NO_REJECTIONS), "made": time},
    "rejection": {"agreement": ident, "stream": origin, "sequence": number, "leaf": digest, "reason": anything, "made": time},
    "refusal": {"asked": anything, "principal": (authority, None), "about": anything, "code": one_of(
        "author-signature", "busy", "cursor-mismatch", "invitation-expired", "invitation-used", "malformed", "no-agreement", "not-found", "not-permitted",
        "pending", "suspended", "wrong-identity"), "reason": anything, "policies": (many(anything), []), "advice": (many(anything), []),
        "position": (number, None), "made": time},
    "erasure-request": {"id": ident, "agreement": ident, "stream": origin, "sequence": number, "tombstone": number, "by": authority, "reason": anything, "made": time},
    "erasure-answer": {"request": ident, "digest": digest, "stream": origin, "sequence": number, "by": authority, "outcome": one_of("done", "held", "refused"), "reason": anything, "made": time},
    "termination": {"agreement": ident, "stream": origin, "by": authority, "reason": anything, "position": (number, None), "made": time},
}

def parse(raw, where, whole=True):
    """Strict JSON: UTF-8, no member twice, no half surrogate pairs, and if `whole` numbers without sign, fraction or exponent."""
    def pairs(members):
        need(len(dict(members)) == len(members), where, "a member comes twice")
        return dict(members)

    def integer(digits):
        need(digits.isdigit(), where, f"{digits:.40} is no whole number")
        return int(digits)
    def none(name):
        raise ValueError(f"{name} is no JSON")
    numbers = {"parse_int": integer, "parse_float": integer} if whole else {}
    try:
        value = json.loads(text_of(raw, where), object_pairs_hook=pairs, parse_constant=none, **numbers)
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise Bad(f"{where}: it is no JSON of this kind: {error}")

def raw_member(source, wanted):
    """The value of an object's member as it is written."""
    source, decoder, space = source.decode(), json.JSONDecoder(), re.compile(r"[ \t\r\n]*[{,:]?[ \t\r\n]*")
    at = space.match(source).end()
    while True:
        key, at = decoder.raw_decode(source, at)
        begin = space.match(source, at).end()
        at = decoder.raw_decode(source, begin)[1]
        if key == wanted:
            return source[begin:at].encode()
        at = space.match(source, at).end()

def text_of(raw, where):
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Bad(f"{where}: it is not UTF-8")

def read_time(value):
    """Microseconds since 1970 of an RFC 3339 time, None where it is none. A leap second counts as the second before it."""
    match = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", value, re.ASCII)
    if not match:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    zone = match[8] if match[8] not in "Zz" else "+00:00"
    # A year of 400 has the same calendar, and lies where the library can count; year 0 does not.
    try:
        at = datetime.datetime(year + 400, month, day, hour, minute, min(second, 59)) - datetime.datetime(2370, 1, 1)
    except ValueError:
        return None
    seconds = at // datetime.timedelta(seconds=1) - int(zone[0] + "60") * (int(zone[1:3]) * 60 + int(zone[4:]))
    if second > 60 or second == 60 and seconds % 86400 != 86399:
        return None
    return seconds * 1000000 + int(((match[7] or ".") + "000000")[1:7])

# ------------------------------------------------------------------------------------------- notes, hashes, signatures

def parse_note(raw, where):
    source = text_of(raw, where)
    body, empty, lines = source.rpartition("\n\n")
    need(empty and lines.endswith("\n") and not re.search("[\x00-\x09\x0b-\x1f]", source), where, "it is no signed note")
    signatures = []
    for line in lines[:-1].split("\n"):
        match = re.fullmatch("\u2014 ([^\\s+]+) ([A-Za-z0-9+/=]+)", line)
        need(match, where, "a signature line is malformed")
        signatures.append((match[1], unbase64(match[2], where)))
        need(len(signatures[-1][1]) > 4 and len(signatures) <= 100, where, "a signature is cut, or there are more than 100")
    return body + "\n", signatures

def vkey_id(name, key):
    return sha256(name.encode() + b"\n\x01" + key)[:4]

def parse_vkey(vkey, where):
    name, key_id, key = (vkey.split("+", 2) + ["", ""])[:3]
    raw = unbase64(key, where, 33)
    need(raw[0] == 1 and good_key(raw[1:]) and key_id == vkey_id(name, raw[1:]).hex(), where, f"{vkey!r:.60} is no vkey of a log")
    return name, raw[1:]

def sha256(raw):
    return hashlib.sha256(raw).digest()

def groups(n):
    """1234067 as x001/x234/067."""
    path = f"{n % 1000:03}"
    while n := n // 1000:
        path = f"x{n % 1000:03}/{path}"
    return path

def merge(hashes):
    """The root of a full binary tree."""
    while len(hashes) > 1:
        hashes = [sha256(b"\1" + left + right) for left, right in zip(hashes[::2], hashes[1::2])]
    return hashes[0]

def grow(peaks, subtrees):
    """Adds complete subtrees (size, hash) to the right of a compact range."""
    for size, right in subtrees:
        while peaks and peaks[-1][0] == size:
            size, right = 2 * size, sha256(b"\1" + peaks.pop()[1] + right)
        peaks.append((size, right))
    return peaks

def fold(peaks):
    """The root of a compact range (RFC 6962)."""
    root = peaks[-1][1] if peaks else sha256(b"")
    for _, left in reversed(peaks[:-1]):
        root = sha256(b"\1" + left + root)
    return root

def unbase64(value, where, length=None):
    try:
        raw = base64.b64decode(value, validate=True) if type(value) is str else None
    except ValueError:
        raw = None
    need(raw is not None and base64.b64encode(raw).decode() == value, where, f"{value!r:.60} is no standard padded base64")
    need(length in (None, len(raw)), where, f"{value!r:.60} has not {length} bytes")
    return raw

def verify_ed25519(key, signature, message):
    """Strict verification. What the library does not ask is that R is not of small order; under a key of the prime-order group
    that can only be the neutral element."""
    if signature[:32] == b"\1" + bytes(31):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False

P, ORDER = 2 ** 255 - 19, 2 ** 252 + 27742317777372353535851937790883648493
D, ROOT, GOOD = -121665 * pow(121666, P - 2, P) % P, pow(2, (P - 1) // 4, P), {}

def good_key(key):
    """Whether a key is the canonical form of a point of the prime order group. The library does not ask, and under other
    points one signature can hold for several messages."""
    if key not in GOOD:
        y = int.from_bytes(key, "little") & (1 << 255) - 1
        u, v = (y * y - 1) % P, (D * y * y + 1) % P
        x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
        x = x if v * x * x % P == u else x * ROOT % P
        x = x if x & 1 == key[31] >> 7 else P - x
        GOOD[key] = y < P and y != 1 and v * x * x % P == u and (times(ORDER, (x, y, 1, x * y % P)))
    return GOOD[key]

def times(factor, point):
    """Whether factor * point is the neutral element, in extended coordinates (RFC 8032, 5.1.4)."""
    def add(one, other):
        a, b = (one[1] - one[0]) * (other[1] - other[0]), (one[1] + one[0]) * (other[1] + other[0])
        c, d = 2 * one[3] * other[3] * D, 2 * one[2] * other[2]
        return (b - a) * (d - c) % P, (d + c) * (b + a) % P, (d - c) * (d + c) % P, (b - a) * (b + a) % P
    total = (0, 1, 1, 0)
    for bit in f"{factor:b}":
        total = add(total, total)
        total = add(total, point) if bit == "1" else total
    return total[0] == 0 and total[1] == total[2]

# -------------------------------------------------------------------------------------------------------------- files

def is_path(path):
    return len(path) <= 200 and all(re.fullmatch("[A-Za-z0-9._-]+", part) and part not in (".", "..") for part in path.split("/"))

def read_folder(root):
    """path -> (length, reader) of every file."""
    files = {}
    for folder, folders, names in os.walk(root):
        for entry in folders + names:
            full = os.path.join(folder, entry)
            path, state = os.path.relpath(full, root), os.lstat(full)
            need(stat.S_ISDIR(state.st_mode) or stat.S_ISREG(state.st_mode), path, "it is a link or a special file")
            need(is_path(path), path, "no file of a bundle has such a name")
            if stat.S_ISREG(state.st_mode):
                files[path] = state.st_size, lambda full=full: open(full, "rb").read()
    return files

def read_tar(path):
    """POSIX ustar, of plain files and folders only; every byte is accounted for."""
    files, at = {}, 0
    with open(path, "rb") as file:
        raw = file.read()
    while any(raw[at:at + 512]):
        head, where = raw[at:at + 512], f"tar, byte {at}"
        fields = head[:100], head[124:136], head[148:156], head[345:500]
        name, size, total, before = (field.split(b"\0")[0].decode("latin-1") for field in fields)
        before = before if head[257:265] == b"ustar\x0000" else ""          # other programs keep times there
        need(re.fullmatch(" *[0-7]+ *", size) and re.fullmatch(" *[0-7]+ *", total), where, "a header is malformed")
        need(int(total, 8) == sum(head) - sum(head[148:156]) + 8 * 32, where, "a header does not have its checksum")
        need(head[156] in b"\x0005", where, "it is a link, a special file or an extension")
        name, size = (before + "/" + name if before else name).removeprefix("./"), int(size, 8)
        at, end = at + 512, at + 512 + (size + 511 & ~511)
        need(end <= len(raw) and not any(raw[at + size:end]), where, "a member is cut, or followed by other bytes")
        if head[156] == 53:
            need(size == 0 and (name in ("", ".") or is_path(name.removesuffix("/"))), where, "no folder of a bundle is like that")
        else:
            need(is_path(name) and name not in files, where, f"{name} is no path of a bundle, or is there twice")
            files[name] = size, lambda at=at, size=size: raw[at:at + size]
        at = end
    need(1024 <= len(raw) - at <= MIB and not any(raw[at:]), f"tar, byte {at}", "the end mark is cut, or followed by other bytes")
    return files

# --------------------------------------------------------------------------------- ----------------------- forms of the bundle

FILE = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}"
LISTED = rf"keys\.json|decisions\.ndjson|documents/(?=.{{1,100}}$){FILE}\.json|policies/[0-9a-f]{{64}}/{FILE}|timestamps/[0-9]{{8}}\.(checkpoint|tst)"
LIMITS = [("documents/", MIB // 4), ("policies/", MIB), ("decisions.ndjson", FOREVER)]
RECORDED = ("agreement", "receipt", "rejection", "termination", "erasure-request", "erasure-answer")
MANIFEST = {"format": anything, "version": number, "made": anything, "made_by": anything, "authority": authority,
            "logs": many({"path": anything, "origin": origin, "from": number, "to": number, "size": number}),
            "undisclosed": many({"log": number, "from": number, "to": number, "reason": anything}),
            "files": many({"path": anything, "bytes": number, "sha256": text("[0-9a-f]{64}")}, 262144)}
KEYS = {"format": anything, "version": number, "vkeys": many(anything), "statements": many(anything)}
DECISION = {"ledger": origin, "sequence": number, "record": lambda value, where: value}
RECORDS = {"decision": {"principal": anything, "action": anything, "stream": origin, "allowed": boolean, "policies": many(anything),
                        "policy_digest": digest, "errors": (many(anything), []), "agreement": (ident, None), "facts": anything},
           "agreement": {"envelope": anything, "addresses": (many(anything), []), "invitation": (anything, None)}, "rejection": {"envelope": anything}, "termination": {"envelope": anything},
           "erasure-request": {"envelope": anything}, "erasure-answer": {"envelope": anything},
           "receipt": {"envelope": anything, "from": number, "events": number, "bytes": number}}
ORGANIZATION = {"authority": anything, "fingerprint": (anything, ""), "name": (anything, ""), "own": (boolean, False), "partner": (boolean, False), "region": (anything, None)}
MEMBER = {"fingerprint": anything, "name": (anything, ""), "organization": ORGANIZATION}
FACTS = {"principal": {"application": (MEMBER, None), "node": (MEMBER, None), "organization": (ORGANIZATION, None)},
         "action": one_of("discover", "publish", "read", "request"),
         "resource": {"labels": (many(anything), []), "name": anything, "origin": anything, "owner": anything, "title": (anything, None)},
         "context": {"agreement": ({"active": boolean, "id": anything, "plan": (anything, ""), "plan_digest": (anything, ""), "streams": (many(anything), [])}, None),
                     "credential": (one_of("application-key", "local", "node-key", "token"), None), "now_us": number, "plan": (anything, None), "purpose": (anything, None)}}

def read_record(record, where):
    """A ledger record of the kinds that matter here, None for any other. Further members may be there."""
    form = RECORDS.get(record.get("kind") if type(record) is dict else None)
    if form:
        check_form(record, {**form, "*": None}, where)
        return record
