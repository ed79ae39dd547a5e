"""The ways in which mutate.py alters a bundle. Each takes randomness and a Mutant, changes its files, and says what it did."""
import base64, hashlib, io, json, os, re, struct, tarfile
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
import formats

MUTATIONS = []      # (weight, function of (random, bundle), which says what it did)

def mutation(weight=1):
    def add(function):
        MUTATIONS.append((weight, function))
        return function
    return add

class Skip(Exception):
    """This mutation does not fit this bundle."""

class Mutant:
    """The files of a bundle in memory, and what it takes to make them fit again."""

    def __init__(self, base):
        self.files, self.signers, self.links, self.tar, self.leaves = dict(base.files), base.signers, {}, None, base.leaves

    def pick(self, rng, pattern=r".*"):
        names = [name for name in sorted(self.files) if re.fullmatch(pattern, name)]
        if not names:
            raise Skip
        return rng.choice(names)

    def json(self, path):
        return json.loads(self.files[path])

    def put(self, path, value):
        self.files[path] = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def payload(self, path):
        return json.loads(base64.b64decode(self.json(path)["payload"]))

    def sign(self, path, payload, key_ids=None, sign=lambda key, signed: key.sign(signed)):
        """A document with another payload, under the same keys or others."""
        envelope = self.json(path)
        raw = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        kind = envelope["payloadType"].encode()
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(raw), raw)
        key_ids = key_ids or [one["keyid"] for one in envelope["signatures"]]
        if not all(key_id in self.signers for key_id in key_ids):
            raise Skip
        signatures = [{"keyid": one, "sig": base64.b64encode(sign(self.signers[one], signed)).decode()} for one in key_ids]
        self.put(path, {"payloadType": envelope["payloadType"], "payload": base64.b64encode(raw).decode(), "signatures": signatures})

    def relink(self):
        """Makes each receipt name the one before it in its series."""
        receipts = sorted((path for path in self.files if path.startswith("documents/receipt")), key=lambda path: self.payload(path)["number"])
        last = {}
        for path in receipts:
            payload = self.payload(path)
            before = last.get(payload["series"])
            if before and payload.get("previous") != before:
                self.sign(path, dict(payload, previous=before))
            last[payload["series"]] = base64.b64encode(hashlib.sha256(base64.b64decode(self.json(path)["payload"])).digest()).decode()

    def fit(self):
        """Makes manifest and digest fit the files that are here."""
        manifest = self.json("manifest.json")
        logs = tuple(log["path"] for log in manifest["logs"])
        listed = []
        for path in sorted(self.files):
            tree = re.fullmatch(r"(ledgers/\d+/)?(log/tile/.*|content/.*)", path)
            if path not in ("manifest.json", "manifest.sha256") and not tree and not (path.startswith("ledgers/") and not path.startswith(logs[1:])):
                raw = self.files[path]
                listed.append({"path": path, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()})
        manifest["files"] = listed
        self.files["manifest.json"] = json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n"
        self.fit_digest()

    def fit_digest(self):
        digest = hashlib.sha256(self.files["manifest.json"]).hexdigest()
        self.files["manifest.sha256"] = f"{digest}  manifest.json\n".encode()

    def fit_keys(self):
        keys = self.json("keys.json")
        keys["statements"] = [name for name in sorted(self.files) if name.startswith("documents/") and b"key-statement.v1" in self.files[name]]
        self.put("keys.json", keys)

# ------------------------------------------------------------------------------------------------------- bytes of files

def change_bytes(rng, raw):
    at, kind = rng.randrange(len(raw) + 1), rng.randrange(9)
    if kind == 0 and raw:
        at = rng.randrange(len(raw))
        return raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1:], f"bit of byte {at} flipped"
    if kind == 1:
        return raw[:at] + rng.randbytes(1) + raw[at + 1:], f"byte {at} set"
    if kind == 2:
        return raw[:at], f"cut at {at}"
    if kind == 3:
        return raw[:at] + rng.randbytes(rng.choice([1, 2, 32, 120])) + raw[at:], f"bytes inserted at {at}"
    if kind == 4:
        n = rng.choice([1, 2, 32, 118, 120])
        return raw[:at] + raw[at + n:], f"{n} bytes removed at {at}"
    if kind == 5:
        return raw + rng.choice([b"\n", b"\0", b" ", b"x", raw[-32:]]), "something appended"
    if kind == 6:
        n = rng.choice([1, 32, 120])
        return raw[:at] + raw[at + n:at + 2 * n] + raw[at:at + n] + raw[at + 2 * n:], f"{n} bytes at {at} swapped with those after"
    if kind == 7:
        n = rng.choice([32, 120])
        at = at // n * n
        return raw[:at] + raw[at + n:at + 2 * n] + raw[at:at + n] + raw[at + 2 * n:], f"{n} bytes at {at} swapped with those after"
    return raw.replace(b"\n", b"\r\n") if rng.random() < .5 else raw[:at] + raw[at:at + 1].swapcase() + raw[at + 1:], "line ends or case changed"

@mutation(14)
def bytes_of_a_file(rng, b):
    path = b.pick(rng, rng.choice([r".*", r"(.*/)?content/.*", r"(.*/)?tile/\d/.*", r".*tile/entries/.*"]))
    b.files[path], what = change_bytes(rng, b.files[path])
    return f"{path}: {what}"

@mutation(14)
def bytes_of_a_listed_file(rng, b):
    path = b.pick(rng, r"keys\.json|decisions\.ndjson|documents/.*|policies/.*|.*checkpoint|manifest\.json")
    b.files[path], what = change_bytes(rng, b.files[path])
    if path == "manifest.json":
        b.fit_digest()
    else:
        b.fit()
    return f"{path}: {what}, manifest fits"

@mutation(6)
def time_stamp(rng, b):
    path = b.pick(rng, r"timestamps/.*")
    if path.endswith(".tst") and rng.random() < .3:
        # Mostly a certificate that does not bear on the verdict, or the digest that does.
        other = b.pick(rng, r"timestamps/.*\.tst")
        b.files[path], what = b.files[other], f"as {other}"
    else:
        b.files[path], what = change_bytes(rng, b.files[path])
    b.fit()
    return f"{path}: {what}, manifest fits"

@mutation(3)
def removed(rng, b):
    path = b.pick(rng)
    del b.files[path]
    if rng.random() < .6 and not path.startswith("manifest"):
        b.fit()
        if path.startswith("documents/"):
            b.fit_keys()
            b.fit()
        return f"{path} removed, manifest fits"
    return f"{path} removed"

@mutation(3)
def added(rng, b):
    path = b.pick(rng)
    name = rng.choice(["README", "documents/x.json", "documents/zz/x.json", "content/999", "log/tile/5/000", ".hidden", "a b", "ledgers/9/log/checkpoint",
                       "documents/.x.json", "policies/x", "log/tile/0/000.p/7", path + ".bak", "ledgers/00/content/000", "x" * 201, "log/tile/entries/x000/000",
                       "documents/" + "n" * 100 + ".json", "documents/receipt-99999999.json", "documents/agreement-0.json"])
    if name in b.files or any(other.startswith(name + "/") or name.startswith(other + "/") for other in b.files):
        raise Skip
    b.files[name] = b.files[path]
    if rng.random() < .6:
        b.fit()
        b.fit_keys()
        b.fit()
        return f"{name} added, as {path}, manifest fits"
    return f"{name} added, as {path}"

@mutation(2)
def swapped_files(rng, b):
    one = b.pick(rng)
    other = b.pick(rng, re.escape(os.path.dirname(one)) + "/[^/]*")
    b.files[one], b.files[other] = b.files[other], b.files[one]
    if rng.random() < .5:
        b.fit()
    return f"{one} and {other} swapped"

@mutation(1)
def link(rng, b):
    path = b.pick(rng)
    kind = rng.choice(["link", "folder", "fifo", "linked folder"])
    b.links["extra" if kind in ("folder", "fifo") else path] = kind
    return f"{path}: a {kind} in its place"

@mutation(4)
def tar(rng, b):
    """The bundle as a tar file, of another kind or with odd members and bytes."""
    out, kind = io.BytesIO(), rng.choice([tarfile.USTAR_FORMAT] * 6 + [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    names, before = sorted(b.files), rng.choice([""] * 8 + ["./"] * 4 + ["/", "../", "x/", ".//", "././"])
    if rng.random() < .3:
        rng.shuffle(names)
    odd = rng.choice(["nothing"] * 12 + ["twice", "folder", "link", "hard link", "fifo", "folder with dots", "left out", "long name", "device"])
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name in names[odd == "left out":] + names[:odd == "twice"]:
            member = tarfile.TarInfo(before + name)
            member.size, member.mtime = len(b.files[name]), rng.choice([0, 1700000000])
            archive.addfile(member, io.BytesIO(b.files[name]))
        types = {"folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE, "folder with dots": tarfile.DIRTYPE,
                 "device": tarfile.CHRTYPE, "long name": tarfile.REGTYPE}
        if odd in types:
            member = tarfile.TarInfo({"folder with dots": "documents/..", "long name": "documents/" + "n" * 95}.get(odd, "documents/x"))
            member.type, member.linkname = types[odd], "manifest.json"
            archive.addfile(member)
    raw, what = bytearray(out.getvalue()), f"format {kind}, names begin with {before!r}, odd: {odd}"
    change = rng.randrange(8)
    if change == 0 and rng.random() < .5:
        raw, more = change_bytes(rng, bytes(raw))
        what += f", {more}"
    elif change == 1:       # one byte of a header, its checksum made to fit
        at = rng.choice([at for at in range(0, len(raw), 512) if raw[at + 257:at + 262] == b"ustar"])
        byte = at + rng.choice([rng.randrange(512), 0, 99, 100, 124, 134, 135, 156, 257, 263, 345])
        raw[byte] = rng.choice([0, 32, 48, 49, 55, 56, 128, 255])
        raw[at + 148:at + 156] = b" " * 8
        raw[at + 148:at + 156] = b"%06o\0 " % sum(raw[at:at + 512])
        what += f", byte {byte - at} of the header at {at} is {raw[byte]}"
    elif change == 2:
        at = rng.choice([at for at in range(0, len(raw), 512) if raw[at + 257:at + 262] == b"ustar"]) + rng.randrange(512)
        raw[at] ^= 1 << rng.randrange(8)
        what += f", bit of byte {at} flipped, in a header"
    elif change == 3:
        raw = raw.rstrip(b"\0") + bytes(rng.choice([0, 511, 512, 1024, 1536, 10240, 1 << 20, (1 << 20) + 4096]))
        what += ", other zeros at the end"
    b.tar = bytes(raw)
    return what

# ------------------------------------------------------------------------------------------------------------- JSON text

def places(value, at=()):
    yield at, value
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(child, at + (key,))

def change_value(rng, value):
    """Another value in one place of a JSON text, and what was done; works on the text's structure."""
    found = [(at, one) for at, one in places(value) if at]
    at, old = rng.choice(found)
    holder = value
    for key in at[:-1]:
        holder = holder[key]
    new = other_value(rng, old)
    if new is None and rng.random() < .7 or rng.random() < .1:
        del holder[at[-1]]
        return f"{at} removed"
    holder[at[-1]] = new
    return f"{at} was {str(old)[:40]!r}, is {str(new)[:40]!r}"

def other_value(rng, old):
    if isinstance(old, bool):
        return rng.choice([not old, 0, 1, "true", None])
    if isinstance(old, int):
        return rng.choice([old + 1, old - 1, 0, 1, 256, 2 ** 63, 2 ** 64, 2 ** 64 - 1, -1, float(old), str(old), None, old * 2, 1e3])
    if isinstance(old, list):
        return rng.choice([[], old + old[:1], old[::-1], old[1:], old[:-1], {}, None, "x"])
    if isinstance(old, dict):
        return rng.choice([{}, {**old, "unknown": 1}, dict(reversed(old.items())), [old], None, "x"])
    if isinstance(old, str):
        return rng.choice([other_text(rng, old) for _ in range(4)] + [None, 7, {old: None}])
    return rng.choice([0, "x", False])

def other_text(rng, old):
    if re.fullmatch(r"\d{4}-\d\d-\d\dT.*", old):
        return rng.choice(["1969-12-31T23:59:59Z", old[:-1] + "+00:00", old.lower(), old[:19] + "Z", old[:-1] + "123Z", old.replace("T", " "), "2016-12-31T23:59:60Z",
                           "2026-02-30T00:00:00Z", "9999-12-31T23:59:59Z", old[:17] + "61Z", "2030-01-01T00:00:00Z", old[:-1], "0000-01-01T00:00:00Z",
                           "2020-01-01T00:00:00Z", "1970-01-01T00:00:00+00:01", "9999-12-31T23:59:59-23:59"])
    if old.endswith("=") or re.fullmatch("[A-Za-z0-9+/]{40,}", old):
        return rng.choice([old.rstrip("="), old.replace("+", "-").replace("/", "_"), old + "=", old + "\n", " " + old, old[:-2] + "B=", old[4:], "",
                           base64.b64encode(rng.randbytes(32)).decode(), base64.b64encode(b"\1" + bytes(31)).decode(), base64.b64encode(bytes(32)).decode()])
    at = rng.randrange(len(old) + 1)
    return rng.choice(["", old + "x", old.upper(), old[:at] + old[at + 1:], old[:at] + rng.choice("aZ0/.-_ \u00e9\n\0+") + old[at:], old * 2, "x" * 300,
                       rng.choice(["key-" + "a" * 32, "example.org", "a.b", "EXAMPLE.org", "key-b", "-a.b"]), old[::-1]])

def other_text_form(rng, raw):
    """The same JSON value, or nearly, in another text."""
    text, kind = raw.decode(), rng.randrange(12)
    value = json.loads(text)
    member = re.search(r'"(\w+)":\s*("[^"]*"|\d+)', text)
    forms = [
        lambda: json.dumps(value, indent=rng.choice([None, 1, 7])), lambda: json.dumps(value), lambda: json.dumps(value, sort_keys=True),
        lambda: "\ufeff" + text, lambda: text + rng.choice([" ", "\n\n", ",", "{}", "\0", "\x0b"]), lambda: " \t\r\n" + text,
        lambda: re.sub(r"[a-z]", lambda m: f"\\u{ord(m[0]):04x}", text, count=1), lambda: re.sub(r'"([a-z])', lambda m: f'"\\u{ord(m[1]):04X}', text),
        lambda: text[:member.end()] + "," + text[member.start():] if member else text,      # a member comes twice
        lambda: re.sub(r":(\s*)(\d+)([,}\s])", rng.choice([r":\g<1>\g<2>.0\g<3>", r":\g<1>0\g<2>\g<3>", r":\g<1>\g<2>e0\g<3>", r":\g<1>-\g<2>\g<3>", r":\g<1>+\g<2>\g<3>"]), text, count=1),
        lambda: text.replace("{", '{"a":"\\ud800",', 1) if rng.random() < .5 else text.replace(":\"", ":\"\\ud83d\\ude00", 1),
        lambda: text.replace("{", "{" + rng.choice(['"x":1,', '/**/', '"":{},', '"__proto__":[],']), 1),
    ]
    return forms[kind]().encode("utf-8", "surrogatepass"), f"text form {kind}"

@mutation(10)
def json_value(rng, b):
    path = b.pick(rng, r"manifest\.json|keys\.json|documents/.*")
    value = b.json(path)
    what = change_value(rng, value)
    b.put(path, value)
    if path != "manifest.json":
        b.fit()
    elif rng.random() < .95:
        b.fit_digest()
    return f"{path}: {what}"

@mutation(8)
def json_form(rng, b):
    path = b.pick(rng, r"manifest\.json|keys\.json|documents/.*")
    b.files[path], what = other_text_form(rng, b.files[path])
    if path == "manifest.json":
        b.fit_digest()
    else:
        b.fit()
    return f"{path}: {what}"

def listed(value):
    """An object as the list of its members' values, in their order."""
    return [listed(one) for one in (value.values() if isinstance(value, dict) else value)] if isinstance(value, (dict, list)) else value

@mutation(1)
def object_as_list(rng, b):
    """Derived readers take it; no page allows it."""
    path = b.pick(rng, r"manifest\.json|keys\.json|documents/.*")
    value = b.json(path)
    name = rng.choice(["logs", "files"]) if path == "manifest.json" else rng.choice([None, "signatures"]) if path != "keys.json" else None
    if name:
        value[name] = [listed(one) for one in value[name]]
    b.put(path, value if name else listed(value))
    if path != "manifest.json":
        b.fit()
    b.fit_digest()
    return f"{path}: {name or 'all'} as a list"

@mutation(6)
def payload_value(rng, b):
    path = b.pick(rng, r"documents/.*")
    payload = b.payload(path)
    what = change_value(rng, payload)
    b.sign(path, payload)
    b.fit()
    return f"{path}, payload: {what}, signed again"

@mutation(14)
def receipt_value(rng, b):
    """Members of what documents of a stream say, by values that are not far from true."""
    path = b.pick(rng, r"documents/(receipt|rejection|termination|refusal|agreement).*")
    payload = b.payload(path)
    name = rng.choice(sorted(payload))
    old = payload[name]
    if isinstance(old, int):
        payload[name] = rng.choice([old + 1, max(0, old - 1), 0, 1, 256, 300, 512, old + 1000])
    elif isinstance(old, str):
        texts = [other_text(rng, old)] + [t for other in b.files if other.startswith("documents/") for t in b.payload(other).values() if isinstance(t, str)]
        payload[name] = rng.choice(texts)
    elif isinstance(old, dict):
        change_value(rng, old)
    if rng.random() < .15:
        payload[rng.choice(["filter", "previous"])] = base64.b64encode(rng.randbytes(32)).decode()
    if rng.random() < .15:
        payload["rejected"] = {"count": rng.choice([0, 1]), "digest": base64.b64encode(rng.choice([bytes(32), rng.randbytes(32)])).decode()}
    b.sign(path, payload)
    if rng.random() < .6:
        b.relink()
        drop_ledgers(rng, b, all_of_them=True)
    b.fit()
    return f"{path}, payload: {name} is {str(payload.get(name))[:60]!r}, signed again"

@mutation(5)
def payload_form(rng, b):
    path = b.pick(rng, r"documents/.*")
    raw, what = other_text_form(rng, base64.b64decode(b.json(path)["payload"]))
    b.sign(path, raw)
    b.fit()
    return f"{path}, payload: {what}, signed again"

@mutation(5)
def signers(rng, b):
    path = b.pick(rng, r"documents/.*")
    envelope, names = b.json(path), sorted(b.signers)
    key_ids = rng.sample(names, min(len(names), rng.choice([1, 1, 2, 3, 4, 5])))
    if rng.random() < .5:
        key_ids = [one["keyid"] for one in envelope["signatures"]] + key_ids[:3]
        rng.shuffle(key_ids)
    b.sign(path, base64.b64decode(envelope["payload"]), key_ids)
    if rng.random() < .3:
        changed = b.json(path)
        rng.choice(changed["signatures"])["keyid"] = rng.choice(["", "key-x", key_ids[0]])
        b.put(path, changed)
    b.fit()
    return f"{path}: signed by {len(key_ids)} others"

def sign_with_nothing(key, signed):
    """A signature whose random part is zero: it fulfils the equation, with the neutral element as R, and gives the key away."""
    secret = int.from_bytes(hashlib.sha512(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())).digest()[:32], "little") & (1 << 254) - 8 | 1 << 254
    head = b"\1" + bytes(31)
    factor = int.from_bytes(hashlib.sha512(head + raw_public(key) + signed).digest(), "little")
    return head + (factor * secret % formats.ORDER).to_bytes(32, "little")

def sign_beyond(key, signed):
    """A signature whose S is not below the order."""
    raw = key.sign(signed)
    return raw[:32] + (int.from_bytes(raw[32:], "little") + formats.ORDER).to_bytes(32, "little")

@mutation(2)
def odd_signature(rng, b):
    path, sign = b.pick(rng, r"documents/.*"), rng.choice([sign_with_nothing, sign_beyond])
    b.sign(path, base64.b64decode(b.json(path)["payload"]), sign=sign)
    b.fit()
    return f"{path}: {sign.__name__}"

@mutation(8)
def key_statement(rng, b):
    """A statement that says something else of a key, or a second one beside it."""
    path = b.pick(rng, r"documents/key-statement.*")
    payload = b.payload(path)
    key, kind = rng.choice(payload["keys"]), rng.randrange(8)
    near = [b.payload(other).get("made") for other in b.files if other.startswith("documents/")] + ["2020-01-01T00:00:00Z", "2090-01-01T00:00:00Z"]
    if kind == 0:
        key["from"] = rng.choice(near)
    elif kind == 1:
        key["until"] = rng.choice(near)
    elif kind == 2:
        key["role"] = rng.choice(["log", "receipt", "agreement", "node", "witness", "organization"])
    elif kind == 3:
        payload["keys"].remove(key)
    elif kind == 4:
        payload["keys"].append(dict(key, role=rng.choice(["log", "receipt", "agreement"])))
    elif kind == 5:
        payload["made"] = rng.choice(near)
    elif kind == 6:
        payload["number"] += rng.choice([1, 2, -1])
    else:
        raw = bytes.fromhex(rng.choice(["01" + "00" * 31, "00" * 32, "ec" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f", "00" * 31 + "80", "ff" * 32, "02" + "00" * 31,
                                        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"]))
        if rng.random() < .5:       # its own key and the point of order 2: (-x, -y)
            own = base64.b64decode(key["key"])
            y = formats.P - (int.from_bytes(own, "little") & (1 << 255) - 1)
            raw = (y | (own[31] >> 7 ^ 1) << 255).to_bytes(32, "little")
        payload["keys"].append(dict(key, key=base64.b64encode(raw).decode()))
    beside = rng.random() < .5
    target = path.replace(".json", "b.json") if beside else path
    b.files[target] = b.files[path]
    if beside and rng.random() < .8:
        payload["number"] += 1
        payload["made"] = rng.choice(near + [payload["made"]] * 3 + ["2090-01-01T00:00:00Z"] * 5)
        if rng.random() < .5:       # a key that is dropped, or ended, from then on
            key.update(until=rng.choice(near))
    b.sign(target, payload)
    b.fit_keys()
    b.fit()
    return f"{path}: change {kind}, {'as a second one' if beside else 'in its place'}"

@mutation(10)
def key_revocation(rng, b):
    """An organization takes a key back: with heads that are its logs' own, or others."""
    stated = b.pick(rng, r"documents/key-statement.*")
    payload, manifest = b.payload(stated), b.json("manifest.json")
    key = rng.choice([key for key in payload["keys"] if rng.random() < .3 or key["role"] == "log"])
    near = [b.payload(other).get("made") for other in b.files if other.startswith("documents/")] + ["2020-01-01T00:00:00Z", "2090-01-01T00:00:00Z"]
    heads, own = [], [log for log in manifest["logs"] if log["origin"].startswith(payload["authority"] + "/")]
    for log in own if key["role"] == "log" or rng.random() < .1 else []:
        size, root = b.files[log["path"] + "log/checkpoint"].decode().split("\n")[1:3]
        size = int(size)
        if log["path"] == "" and b.leaves and rng.random() < .6:
            size = min(len(b.leaves), max(0, rng.choice([0, 1, 255, 256, 257, log["from"], log["to"], log["to"] - 1, log["to"] + 1, size - 1, len(b.leaves)])))
            root = base64.b64encode(formats.fold(formats.grow([], ((1, leaf) for leaf in b.leaves[:size])))).decode()
        if rng.random() < .1:
            size = max(0, size + rng.choice([-1, 1]))
        if rng.random() < .1:
            root = base64.b64encode(rng.randbytes(32)).decode()
        if rng.random() < .9:
            heads.append({"origin": log["origin"], "size": size, "root": root})
    if rng.random() < .05:
        heads += heads[:1] or [{"origin": "other.example/streams/x", "size": 1, "root": base64.b64encode(bytes(32)).decode()}]
    rng.shuffle(heads)
    revocation = {"authority": payload["authority"], "organization": payload["organization"], "key": key["key"], "role": key["role"], "reason": "", "made": rng.choice(near), "heads": heads}
    if rng.random() < .05:
        revocation["authority"] = rng.choice(["other.example", manifest["authority"]])
    path = "documents/key-revocation-00000009.json"
    b.put(path, {"payloadType": "application/vnd.countersign.key-revocation.v1+json", "payload": "", "signatures": []})
    signer = [one["keyid"] for one in b.json(stated)["signatures"]]
    b.sign(path, revocation, signer if rng.random() < .95 else [rng.choice(sorted(b.signers))])
    b.fit()
    return f"{key['role']} key of {payload['authority']}, {len(heads)} heads of {len(own)} logs"

@mutation(4)
def ended_key(rng, b):
    """A receipt that says it was made before its key ended, about entries that came before or after that end."""
    path = b.pick(rng, r"documents/receipt.*")
    payload, key_id = b.payload(path), b.json(path)["signatures"][0]["keyid"]
    agreement = next(b.payload(p) for p in b.files if p.startswith("documents/agreement") and b.payload(p)["id"] == payload["agreement"])
    for statement in [p for p in b.files if p.startswith("documents/key-statement")]:
        stated = b.payload(statement)
        for key in stated["keys"]:
            if formats.fingerprint(base64.b64decode(key["key"])) == key_id:
                key["until"] = rng.choice([agreement["made"][:-2] + "9Z", payload["made"], "2090-01-01T00:00:00Z"])
                b.sign(statement, stated)
    made = rng.choice([agreement["made"], agreement["made"], payload["made"]])
    for other in [p for p in b.files if p.startswith("documents/receipt") and b.json(p)["signatures"][0]["keyid"] == key_id]:
        b.sign(other, dict(b.payload(other), made=made))
    b.relink()
    drop_ledgers(rng, b, all_of_them=True)
    b.fit()
    return f"{path}: its key has ended"

@mutation(10)
def another_document(rng, b):
    """A rejection, termination, receipt or refusal more, signed by a key that may be the right one."""
    receipts = [b.payload(p) for p in b.files if p.startswith("documents/receipt")]
    agreements = [b.payload(p) for p in b.files if p.startswith("documents/agreement")]
    if not agreements:
        raise Skip
    agreement, log = rng.choice(agreements), b.json("manifest.json")["logs"][0]
    at = rng.choice([0, 1, 255, 256, log["from"], max(0, log["from"] - 1), log["to"] - 1, log["to"], log["to"] + 5])
    made = rng.choice([agreement["made"], "2090-01-01T00:00:00Z", (receipts or agreements)[-1]["made"]])
    leaf = b.leaves[at] if at < len(b.leaves) and rng.random() < .8 else bytes(32)
    kinds = {
        "rejection": {"agreement": agreement["id"], "stream": agreement["stream"], "sequence": at, "leaf": base64.b64encode(leaf).decode(), "reason": "r", "made": made},
        "termination": {"agreement": agreement["id"], "stream": agreement["stream"], "by": rng.choice([agreement["consumer"]["authority"], agreement["producer"]["authority"], "other.example"]),
                        "reason": "", "position": at, "made": made},
        "refusal": {"asked": "subscribe", "about": "x", "code": "busy", "reason": "", "made": made}}
    if receipts:
        last = rng.choice(receipts)
        kinds["receipt"] = dict(last, number=last["number"] + rng.choice([0, 1, 2]), made=made, size=rng.choice([last["size"], at, log["size"]]))
    kind = rng.choice(sorted(kinds))
    path, keys = f"documents/{kind}-00000009.json", sorted(b.signers)
    if rng.random() < .6 and receipts:      # the consumer's own key
        keys = [b.json(p)["signatures"][0]["keyid"] for p in b.files if p.startswith("documents/receipt") and b.payload(p)["agreement"] == agreement["id"]] or keys
    b.put(path, {"payloadType": f"application/vnd.countersign.{kind}.v1+json", "payload": "", "signatures": []})
    b.sign(path, kinds[kind], [rng.choice(keys)])
    if kind == "rejection" and receipts and rng.random() < .5:      # the last receipt counts it
        counted = [p for p in sorted(b.files) if p.startswith("documents/receipt") and b.payload(p)["agreement"] == agreement["id"]][-1:]
        for last in counted:
            digest = hashlib.sha256(hashlib.sha256(base64.b64decode(b.json(path)["payload"])).digest()).digest()
            b.sign(last, dict(b.payload(last), rejected={"count": rng.choice([1, 1, 2]), "digest": base64.b64encode(rng.choice([digest, digest, bytes(32)])).decode()}))
    if rng.random() < .85:      # where the ledgers are here, they do not know of it
        drop_ledgers(rng, b, all_of_them=True)
    b.fit()
    return f"{path} added at {at}"

# ------------------------------------------------------------------------------------------------- what belongs together

def drop_ledgers(rng, b, all_of_them=False):
    manifest, keys = b.json("manifest.json"), b.json("keys.json")
    while len(manifest["logs"]) > 1:
        place = len(manifest["logs"]) - 1
        b.files = {path: raw for path, raw in b.files.items() if not path.startswith(f"ledgers/{place - 1}/")}
        manifest["logs"].pop()
        keys["vkeys"].pop()
        if not all_of_them and rng.random() < .5:
            break
    manifest["undisclosed"] = [run for run in manifest["undisclosed"] if run["log"] < len(manifest["logs"])]
    b.put("manifest.json", manifest)
    b.put("keys.json", keys)

@mutation(3)
def without_ledgers(rng, b):
    drop_ledgers(rng, b)
    b.fit()
    return "ledgers left out"

@mutation(6)
def decisions(rng, b):
    if "decisions.ndjson" not in b.files:
        raise Skip
    lines, kind = b.files["decisions.ndjson"].decode().splitlines(), rng.randrange(9)
    at = rng.randrange(len(lines))
    line = json.loads(lines[at])
    if kind == 0:
        lines.pop(at)
    elif kind == 1:
        lines.append(lines[at])
    elif kind == 2:
        lines.reverse()
    elif kind == 3:
        lines[at] = json.dumps(line)
    elif kind == 4:
        facts = json.loads(line["record"]["facts"])
        change_value(rng, facts)
        line["record"]["facts"] = json.dumps(facts)
        lines[at] = json.dumps(line, separators=(",", ":"))
    elif kind == 5:
        change_value(rng, line)
        lines[at] = json.dumps(line, separators=(",", ":"))
    elif kind == 6:
        line["record"]["allowed"] = not line["record"]["allowed"]
        lines[at] = json.dumps(line, separators=(",", ":"))
    elif kind == 7:
        lines[at] = other_text_form(rng, lines[at].encode())[0].decode("utf-8", "surrogatepass")
    else:
        lines.insert(at, rng.choice(["", "{}", "[]", "x"]))
    b.files["decisions.ndjson"] = "\n".join(lines).encode("utf-8", "surrogatepass") + (b"\n" if rng.random() < .9 else b"")
    if rng.random() < .6:
        drop_ledgers(rng, b, all_of_them=True)
    b.fit()
    return f"decisions: change {kind} in line {at}"

@mutation(3)
def policies(rng, b):
    """Another policy text under its own digest, and decisions that name it. Only texts that fit Cedar's schema: whether one
    does is a question to Cedar, and cedar_subset.py does not ask it."""
    path = b.pick(rng, r"policies/.*")
    text, old = b.files[path].decode(), path.split("/")[1]
    edits = [("permit", "forbid"), ("principal.own &&", ""), ("@id(\"read\")", ""), ("@id(\"read\")", "@id(\"lesen\")"), ("context.agreement.active &&", "!context.agreement.active &&"),
             ("principal.partner", "true"), ("contains(resource.origin)", "contains(resource.name)"), ("resource.owner", "resource.origin"),
             ("principal,\n  action == Action::\"publish\"", "principal in Organization::\"x\",\n  action == Action::\"publish\"")]
    edit = rng.choice(edits)
    text = text.replace(*edit, 1) if rng.random() < .7 else text.replace(*edit)
    new = hashlib.sha256(b"countersign.pol1" + b"".join(struct.pack(">Q", len(part)) + part for part in (b"starter.cedar", text.encode()))).digest()
    del b.files[path]
    b.files[f"policies/{new.hex()}/starter.cedar"] = text.encode()
    if rng.random() < .9:
        b.files["decisions.ndjson"] = b.files["decisions.ndjson"].replace(base64.b64encode(bytes.fromhex(old)), base64.b64encode(new))
        drop_ledgers(rng, b, all_of_them=True)
    b.fit()
    return f"policies: {edit}"

@mutation(4)
def withheld(rng, b):
    """Contents left out as the format says, or nearly."""
    manifest = b.json("manifest.json")
    place = rng.randrange(len(manifest["logs"]))
    log = manifest["logs"][place]
    n = rng.randrange(log["from"] // 256, -(-log["to"] // 256))
    path = f"{log['path']}content/{n:03}"
    begin, end = max(log["from"], 256 * n), min(log["to"], 256 * n + 256)
    raw, out, contents, at = b.files[path], [], b"", 6 + 7 * (end - begin)
    low = rng.randrange(begin, end)
    high = rng.randrange(low, end) + 1
    for sequence in range(begin, end):
        state, attributes, part = struct.unpack(">BHI", raw[6 + 7 * (sequence - begin):][:7])
        one, at = raw[at:at + 64 + attributes + part], at + 64 + attributes + part
        hidden = low <= sequence < high
        out.append(struct.pack(">BHI", 1, 0, 0) if hidden else struct.pack(">BHI", state, attributes, part))
        contents += b"" if hidden else one
    b.files[path] = raw[:6] + b"".join(out) + contents
    run = {"log": place, "from": low, "to": high, "reason": "withheld"}
    kind = rng.randrange(6)
    if kind == 1:
        run["to"] += 1
    elif kind == 2:
        run["log"] = rng.randrange(3)
    told = {(run["log"], sequence): run["reason"] for run in manifest["undisclosed"] for sequence in range(run["from"], run["to"])}
    told.update({(run["log"], sequence): "withheld" for sequence in range(run["from"], run["to"])})
    manifest["undisclosed"] = []
    for (log, sequence), reason in sorted(told.items()) if kind != 3 else []:
        last = manifest["undisclosed"][-1:]
        if last and (last[0]["log"], last[0]["to"], last[0]["reason"]) == (log, sequence, reason):
            last[0]["to"] += 1
        else:
            manifest["undisclosed"].append({"log": log, "from": sequence, "to": sequence + 1, "reason": reason})
    if kind == 4 and high - low > 1:
        manifest["undisclosed"] = [dict(run, to=low + 1), dict(run, **{"from": low + 1}, reason=rng.choice(["withheld", "other"]))]
    b.put("manifest.json", manifest)
    b.fit()
    return f"{path}: entries {low} to {high} withheld, variant {kind}"

@mutation(3)
def other_range(rng, b):
    """The manifest claims another range or size."""
    manifest = b.json("manifest.json")
    log = rng.choice(manifest["logs"])
    name = rng.choice(["from", "to", "size"])
    log[name] = rng.choice([0, 1, log[name] + 1, max(0, log[name] - 1), 256, 2 ** 40, 2 ** 63, 2 ** 64 - 1, log["size"]])
    b.put("manifest.json", manifest)
    b.fit()
    return f"{log['path']}: {name} is {log[name]}"

@mutation(2)
def note_lines(rng, b):
    path = b.pick(rng, r".*checkpoint")
    lines = b.files[path].decode().split("\n")
    kind = rng.randrange(7)
    if kind == 0:
        lines.insert(-1, lines[-2])
    elif kind == 1:
        lines.insert(-1, "\u2014 other.example " + base64.b64encode(rng.randbytes(68)).decode())
    elif kind == 2:
        lines.insert(3, "extension")
    elif kind == 3:
        name, signature = lines[-2].rsplit(" ", 1)
        raw = base64.b64decode(signature)
        lines.insert(-1, f"{name} " + base64.b64encode(raw[:4] + rng.randbytes(64)).decode())
    elif kind == 4:
        lines.insert(-1, lines[-2].rsplit(" ", 1)[0] + " " + base64.b64encode(rng.randbytes(rng.choice([3, 4, 5, 68]))).decode())
    elif kind == 5:
        lines[1] = rng.choice(["0" + lines[1], "+" + lines[1], lines[1] + " ", "\u0661"])
    else:
        lines += rng.choice([[""], ["\u2014 x y"], ["junk", ""]])
    b.files[path] = "\n".join(lines).encode()
    b.fit()
    return f"{path}: note change {kind}"

# --------------------------------------------------------------------------------------------------------- whole new logs

def read_log(b, log):
    """The entries of a whole log with their contents."""
    found = []
    for n in range(-(-log["size"] // 256)):
        count = min(256, log["size"] - 256 * n)
        entries = b.files[f"{log['path']}log/tile/entries/{n:03}" + (f".p/{count}" if count < 256 else "")]
        raw, at = b.files[f"{log['path']}content/{n:03}"], 6 + 7 * count
        for i in range(count):
            _, attributes, part = struct.unpack(">BHI", raw[6 + 7 * i:][:7])
            content, at = raw[at:at + 64 + attributes + part], at + 64 + attributes + part
            entry = entries[120 * i + 2:120 * i + 120]
            found.append({"flags": entry[1], "length": struct.unpack(">I", entry[2:6])[0], "time": struct.unpack(">Q", entry[46:54])[0],
                          "salts": content[:64], "attributes": content[64:64 + attributes], "part": content[64 + attributes:]})
    return found

def commit_data(one):
    """As the state of the data says; what cannot be committed to so, as a whole."""
    try:
        return formats.data_commitment(one["salts"][32:], one["part"], "", one["flags"] & 16 > 0)
    except formats.Bad:
        return hashlib.sha256(b"countersign.dw.1" + one["salts"][32:] + one["part"]).digest()

def write_log(b, place, found, root=None):
    """Lays down a whole log as its organization could: committed, chained, hashed, signed."""
    manifest, keys = b.json("manifest.json"), b.json("keys.json")
    log = manifest["logs"][place]
    if not found or len(found) > 60000:
        raise Skip
    prefix, leaves, bundles, previous = log["path"], [], [], bytes(32)
    b.files = {path: raw for path, raw in b.files.items() if not re.match(re.escape(prefix) + "(log|content)/", path)}
    for n in range(0, len(found), 256):
        directory, contents, entries = b"", b"", b""
        for at, one in enumerate(found[n:n + 256], n):
            commitments = hashlib.sha256(b"countersign.at.1" + one["salts"][:32] + one["attributes"]).digest(), commit_data(one)
            entry = struct.pack(">BBIQ32sQ32s32s", one.get("version", 1), one["flags"], one["length"], one.get("sequence", at), one.get("previous", previous), one["time"], *commitments)
            previous = hashlib.sha256(b"\0" + entry).digest()
            leaves.append(previous)
            entries += b"\0\x76" + entry
            directory += struct.pack(">BHI", 0, len(one["attributes"]), len(one["part"]))
            contents += one["salts"] + one["attributes"] + one["part"]
        count = len(found[n:n + 256])
        b.files[f"{prefix}log/tile/entries/{n // 256:03}" + (f".p/{count}" if count < 256 else "")] = entries
        b.files[f"{prefix}content/{n // 256:03}"] = b"csc1" + struct.pack(">H", count) + directory + contents
    level, hashes = 0, leaves
    while hashes:
        for n in range(0, len(hashes), 256):
            part = hashes[n:n + 256]
            b.files[f"{prefix}log/tile/{level}/{n // 256:03}" + (f".p/{len(part)}" if len(part) < 256 else "")] = b"".join(part)
        hashes, level = [formats.merge(hashes[n:n + 256]) for n in range(0, len(hashes) // 256 * 256, 256)], level + 1
    root = root or formats.fold(formats.grow([], ((1, leaf) for leaf in leaves)))
    name, key = formats.parse_vkey(keys["vkeys"][place], "keys.json")
    signer = b.signers.get(formats.fingerprint(key))
    if signer is None:
        raise Skip
    text = f"{log['origin']}\n{len(found)}\n{base64.b64encode(root).decode()}\n"
    signature = base64.b64encode(formats.vkey_id(name, key) + signer.sign(text.encode())).decode()
    b.files[f"{prefix}log/checkpoint"] = f"{text}\n\u2014 {name} {signature}\n".encode()
    log["to"] = log["size"] = len(found)
    manifest["undisclosed"] = [run for run in manifest["undisclosed"] if run["log"] != place]
    b.put("manifest.json", manifest)

def whole_log(rng, b, first_only=False):
    manifest = b.json("manifest.json")
    whole = [place for place, log in enumerate(manifest["logs"]) if (log["from"], log["to"]) == (0, log["size"]) and not (first_only and place)]
    if not whole or manifest["undisclosed"]:
        raise Skip
    place = rng.choice(whole)
    return place, read_log(b, manifest["logs"][place])

@mutation(6)
def signed_log(rng, b):
    """A log that its organization wrote otherwise: longer, shorter, in another order."""
    place, found = whole_log(rng, b)
    at, kind = rng.randrange(len(found)), rng.randrange(11)
    if kind == 0:
        found = found[:at + 1]
    elif kind == 1:
        found.pop(at)
    elif kind == 2:
        found.insert(at, dict(found[at], time=found[at]["time"] - rng.randrange(2)))
    elif kind == 3:
        found[at]["time"] = rng.choice([0, 2 ** 64 - 1, found[at]["time"] + 1, found[at]["time"] - 1])
    elif kind == 4:
        found[at]["flags"] = rng.choice([0, 1, 2, 15, 16, 17, 32, 33, 48, 64, 128])
    elif kind == 5:
        found[at]["length"] = rng.choice([0, found[at]["length"] + 1, 2 ** 32 - 1])
    elif kind == 6:
        found[at][rng.choice(["version", "sequence"])] = rng.choice([0, 1, 2])
    elif kind == 7:
        found[at]["previous"] = rng.randbytes(32)
    elif kind == 8:
        found[0]["previous"] = rng.randbytes(32)
    elif kind == 9:
        found += [dict(one, time=found[-1]["time"]) for one in found[1:][:rng.randrange(1, 300)]]
    write_log(b, place, found, rng.randbytes(32) if kind == 10 else None)
    if rng.random() < .5:
        b.files = {path: raw for path, raw in b.files.items() if not path.startswith(("documents/receipt", "documents/rejection"))}
    if rng.random() < .4:
        drop_ledgers(rng, b, all_of_them=True)
    b.fit_keys()
    b.fit()
    return f"log {place} signed again: change {kind} at entry {at}"

@mutation(12)
def signed_content(rng, b):
    """One entry with odd attributes or data, committed to and signed; the receipts stand beside."""
    place, found = whole_log(rng, b)
    one = found[rng.choice([0, 0, rng.randrange(len(found)), rng.randrange(len(found))])]
    kind = rng.randrange(5)
    if kind == 0:
        one["attributes"], what = other_attributes(rng, one["attributes"])
    elif kind == 1:
        part = one["part"]
        one["part"] = rng.choice([b"", b"\0", b"\1", b"\2", b"\3", b"\4", b"\2" + rng.randbytes(3), b"\3" + rng.randbytes(3), b"\1x", b"\x12x", b"\x42x",
                                  b"\x82\0\0\0\1ax", b"\x82\0\0\0\0x", b"\x82\0\0", b"\x83\0\1\0\0" + bytes(65536), b"\x80\0\0\0\2ab", part + b"x", b"\3" + part[1:], b"\x82\0\0\0\3a",
                                  b'\5{"a":1,"b":[2]}', b'\5 { } ', b"\5[1]", b'\5{"a":NaN}', b'\5{"a":1,}', b'\5{"\\ud83d":1}', b'\5{"a":"\\ud83d"}', b'\x85\0\0\0\1a{"a":1}', b'\5{"a":' + b"[" * 63 + b"]" * 63 + b"}", b'\5{"a":' + b"[" * 64 + b"]" * 64 + b"}",
                                  b"\6\0\0\0\1\1" + bytes(32) + b"\0\0\0\1\5\0" + bytes(32), b'\6\0\0\0\1\1' + bytes(32) + b'\0\0\0\1\5\1' + bytes(32) + b'\0\0\0\7{"a":1}', b"\6\0\0\0\1\0" + bytes(64), b"\6\0\0\0\0\0" + bytes(32),
                                  b"\2" + "\ud83d".encode("utf-8", "surrogatepass"), b"\2\xc0\x80", b"\2" + "\u00e9\0".encode()])
        author = struct.unpack(">I", one["part"][1:5])[0] + 4 if one["part"][:1] >= b"\x80" and len(one["part"]) >= 5 else 0
        one["length"] = max(0, len(one["part"]) - 1 - author) if rng.random() < .9 else 0
        one["flags"] = one["flags"] & 0xDF | (32 if author and rng.random() < .9 else 0)
        what = "data part"
    elif kind == 2:
        one["part"] = rng.choice([b"\2{}", b"\2x", b'\2{"origin":"a.b/streams/x","organization":"x"}', one["part"].replace(b'"organization"', b'"organisation"', 1),
                                  one["part"].replace(b'"origin"', b'"x":1,"origin"', 1), one["part"].replace(b"{", b'{"origin":"x",', 1), one["part"].replace(b"kind", b"kinds", 1)])
        one["length"], what = len(one["part"]) - 1, "JSON"
    elif kind == 3:
        one["flags"], what = one["flags"] ^ 16, "encrypted"
    else:
        part, what = one["part"], "a record"
        try:
            value = json.loads(part[1:])
            what = change_value(rng, value)
            one["part"] = part[:1] + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        except (ValueError, AttributeError, IndexError, UnicodeEncodeError):
            raise Skip
        one["length"] = len(one["part"]) - 1
    write_log(b, place, found)
    if place == 0 and rng.random() < .6:
        b.files = {path: raw for path, raw in b.files.items() if not path.startswith("documents/receipt")}
        drop_ledgers(rng, b, all_of_them=True)
    b.fit()
    return f"log {place}, one entry: {what}"

def other_attributes(rng, raw):
    records, at = [], 0
    while at < len(raw):
        name = raw[at + 1:at + 1 + raw[at]]
        kind, size = struct.unpack(">BH", raw[at + 1 + raw[at]:][:3])
        begin = at + 4 + raw[at]
        records.append([name, kind, raw[begin:begin + size]])
        at = begin + size
    sort, change = True, rng.randrange(8)
    place = rng.randrange(len(records))
    if change == 0:
        records.pop(place)
    elif change == 1:
        records[place][1] = rng.randrange(9)
    elif change == 2:
        records[place][2] = rng.choice([b"", b"\0", b"x\0", b"\xff", "\u0085".encode(), "\ufffe".encode(), "\U0001ffff".encode(), "\ufdd0".encode(), "\ufffd".encode(), b"2.0", b"1.0"])
    elif change == 3:
        kind = rng.randrange(0, 9)
        value = rng.choice([b"", b"\0", b"\1", b"\2", b"\0\0\0\1", b"abc", b"2026-01-01T00:00:00Z", b"2026-13-01T00:00:00Z", b"2026-02-29T00:00:00Z", b"2024-02-29t00:00:00.123456789z",
                            b"2016-12-31T23:59:60Z", b"2016-12-30T23:59:60Z", b"2016-12-31T22:59:60-01:00", b"2026-06-30T12:00:60Z", b"0000-01-01T00:00:00Z", b"0000-02-29T00:00:00+23:59", b"2026-01-01T24:00:00Z",
                            b"2026-01-01T00:00:00+24:00", b"2026-01-01T00:00:00.Z", b"2026-01-01 00:00:00Z", b"2026-01-01T00:00:00-00:00", b"9999-12-31T23:59:60Z", "2026-01-01T00:00:0\u0661Z".encode()])
        records.append([rng.choice([b"extension", b"a", b"z" * 255, b"time", b"subject", b"data", b"dssematerial", b"A", b"", b"a_b", b"dataschema"]), kind, value])
    elif change == 4:
        records.append(list(records[place]))
    elif change == 5:
        rng.shuffle(records)
        sort = False
    elif change == 6:
        records.append([b"big", 4, bytes(rng.choice([65000, 65300, 65400]))])
    if sort:
        records.sort(key=lambda record: record[0])
    out = b"".join(bytes([len(name)]) + name + struct.pack(">BH", kind, len(value)) + value for name, kind, value in records)
    if change == 7:
        out, _ = change_bytes(rng, out)
    return out[:65535], f"attributes, change {change}"

def raw_public(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
