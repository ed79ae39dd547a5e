"""Time-stamp tokens as schemas/timestamp.md says, for verify_bundle.py and check_vectors.py: all that can be said of one without trust. Whom to trust about time
changes no verdict, so that it is not asked here.
"""
import calendar, hashlib, re
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from formats import Bad, Lacking, need, parse_note, sha256, unbase64

TOKEN_MAX = 65536
SEQUENCE, SET, INTEGER, BOOLEAN, OCTETS, NULL, OID, TIME = 0x30, 0x31, 2, 1, 4, 5, 6, 0x18
DIGESTS = {"2.16.840.1.101.3.4.2.1": hashlib.sha256, "2.16.840.1.101.3.4.2.2": hashlib.sha384, "2.16.840.1.101.3.4.2.3": hashlib.sha512}
SIGNED_BY = {"1.2.840.113549.1.1.11": "sha256", "1.2.840.113549.1.1.12": "sha384", "1.2.840.113549.1.1.13": "sha512",
             "1.2.840.10045.4.3.2": "sha256", "1.2.840.10045.4.3.3": "sha384", "1.2.840.113549.1.1.1": None, "1.3.101.112": None}
PREHASH = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
INFO, CONTENT_TYPE, MESSAGE_DIGEST, CERTIFICATE_V2 = "1.2.840.113549.1.9.16.1.4", "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4", "1.2.840.113549.1.9.16.2.47"

class Der:
    """Elements one after the other; whatever is not DER, or not what is asked for, is Bad."""
    def __init__(self, raw, where):
        self.raw, self.at, self.where = raw, 0, where

    def peek(self):
        return self.raw[self.at] if self.at < len(self.raw) else None

    def whole(self):
        raw, at = self.raw[self.at:], 2
        need(len(raw) >= 2 and raw[0] & 31 != 31, self.where, "it is no DER")
        length = raw[1]
        if length & 128:
            at, digits = 2 + (length & 127), raw[2:2 + (length & 127)]
            need(1 <= length & 127 <= 4 and len(digits) == length & 127 and digits[0] != 0, self.where, "it is no DER")
            length = int.from_bytes(digits, "big")
            need(length >= 128, self.where, "it is no DER")
        need(len(raw) >= at + length, self.where, "it is no DER")
        self.at += at + length
        return raw[:at + length], raw[at:at + length]

    def next(self, tag):
        need(self.peek() == tag, self.where, "it is no time-stamp token")
        return self.whole()[1]

    def inner(self, tag):
        return Der(self.next(tag), self.where)

    def optional(self, tag):
        return self.next(tag) if self.peek() == tag else None

    def end(self):
        need(self.at == len(self.raw), self.where, "it is no time-stamp token")

    def number(self):
        raw = self.next(INTEGER)
        need(raw and raw[0] < 128 and (len(raw) == 1 or raw[0] or raw[1] > 127) and len(raw) <= 5 and int.from_bytes(raw, "big") < 2 ** 32, self.where, "it is no number")
        return int.from_bytes(raw, "big")

    def oid(self):
        raw, arcs, value = self.next(OID), [], 0
        need(raw and raw[-1] < 128 and len(raw) <= 39, self.where, "it is no object identifier")
        for byte in raw:
            need(value or byte != 128, self.where, "it is no object identifier in its shortest form")
            value = value << 7 | byte & 127
            if byte < 128:
                arcs, value = arcs + [value], 0
        return ".".join(map(str, [min(arcs[0] // 40, 2), arcs[0] - 40 * min(arcs[0] // 40, 2), *arcs[1:]]))

    def algorithm(self):
        inner = self.inner(SEQUENCE)
        name = inner.oid()
        inner.optional(NULL)
        inner.end()
        return name

def digest_of(name, where):
    need(name in DIGESTS, where, "its digest is too weak, or not taken")
    return DIGESTS[name]

def only(raw, tag, where):
    outer = Der(raw, where)
    inner = outer.inner(tag)
    outer.end()
    return inner

def read_token(raw, where):
    """(imprint, stated time, latest time) in µs of a token that says what its signer said."""
    need(len(raw) <= TOKEN_MAX, where, "it is larger than any token")
    outer = only(raw, SEQUENCE, where)
    need(outer.oid() == "1.2.840.113549.1.7.2", where, "it is no signed data")
    explicit = outer.inner(0xA0)
    outer.end()
    data = explicit.inner(SEQUENCE)
    explicit.end()
    need(data.number() == 3, where, "it is of another version")
    data.next(SET)
    content = data.inner(SEQUENCE)
    need(content.oid() == INFO, where, "it is about something else than time")
    octets = content.inner(0xA0)
    content.end()
    info = octets.next(OCTETS)
    octets.end()
    held, certificates = data.inner(0xA0), []
    while held.peek() is not None:
        whole = held.whole()[0]
        certificates += [whole] if whole[0] == SEQUENCE else []
        need(len(certificates) <= 16, where, "it has too many certificates")
    data.optional(0xA1)
    signers = data.inner(SET)
    data.end()
    signer = signers.inner(SEQUENCE)
    signers.end()
    need(signer.number() == 1, where, "its signer is named otherwise")
    name = signer.inner(SEQUENCE)
    issuer, serial = name.whole()[0], name.next(INTEGER)
    name.end()
    kind = digest_of(signer.algorithm(), where)
    signed, algorithm, signature = signer.whole()[0], signer.algorithm(), signer.next(OCTETS)
    signer.optional(0xA1)
    signer.end()
    attributes = read_attributes(signed, where)
    told, stated = Der(attributes.get(CONTENT_TYPE, b""), where), Der(attributes.get(MESSAGE_DIGEST, b""), where)
    need(told.oid() == INFO and stated.next(OCTETS) == kind(info).digest(), where, "its attributes are about something else")
    told.end()
    stated.end()
    said = read_info(info, where)
    check_signer(certificates, attributes, (issuer, serial), (kind, signed, algorithm, signature), said[1] // 1000000, where)
    return said

def read_attributes(signed, where):
    attributes, found = only(signed, 0xA0, where), {}
    while attributes.peek() is not None:
        attribute = attributes.inner(SEQUENCE)
        name, values = attribute.oid(), attribute.inner(SET)
        attribute.end()
        if name in (CONTENT_TYPE, MESSAGE_DIGEST, CERTIFICATE_V2):
            need(name not in found, where, "an attribute is there twice")
            found[name] = values.whole()[0]
            values.end()
    return found

def read_info(raw, where):
    info = only(raw, SEQUENCE, where)
    need(info.number() == 1, where, "it is of another version")
    info.next(OID)
    imprint = info.inner(SEQUENCE)
    need(imprint.algorithm() == "2.16.840.1.101.3.4.2.1", where, "its imprint is no SHA-256")
    digest = imprint.next(OCTETS)
    imprint.end()
    need(len(digest) == 32, where, "its imprint is no SHA-256")
    info.next(INTEGER)
    text = re.fullmatch(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.(\d{0,29}[1-9]))?Z", info.next(TIME))
    need(text, where, "its time is none")
    fields = [int(part) for part in text.groups()[:6]]
    need(fields[0] >= 1970 and 1 <= fields[1] <= 12 and 1 <= fields[2] <= calendar.monthrange(*fields[:2])[1] and fields[3] < 24 and fields[4] < 60 and fields[5] < 60, where, "its time is none")
    fraction = text.group(7) or b""
    time = calendar.timegm((*fields, 0, 0, 0)) * 1000000 + int(fraction[:6].ljust(6, b"0")) + (len(fraction) > 6)
    accuracy, late = info.optional(SEQUENCE), 0
    if accuracy is not None:
        accuracy = Der(accuracy, where)
        late = accuracy.number() * 1000000 if accuracy.peek() == INTEGER else 0
        for tag, unit in ((0x80, 1000), (0x81, 1)):
            part = accuracy.optional(tag)
            if part is not None:
                value = Der(bytes([INTEGER, len(part)]) + part, where).number()
                need(1 <= value <= 999, where, "its accuracy is none")
                late += value * unit
        accuracy.end()
    for tag in (BOOLEAN, INTEGER, 0xA0):
        info.optional(tag)
    extensions = info.optional(0xA1)
    if extensions is not None:
        extensions = Der(extensions, where)
        while extensions.peek() is not None:
            extension = extensions.inner(SEQUENCE)
            extension.oid()
            need(extension.peek() != BOOLEAN, where, "it has a critical extension")
    info.end()
    return digest, time, time + late

def check_signer(certificates, attributes, named, signed_by, seconds, where):
    need(CERTIFICATE_V2 in attributes, where, "its attributes do not name the certificate of its signer, or by SHA-1")
    ids = only(attributes[CERTIFICATE_V2], SEQUENCE, where).inner(SEQUENCE)
    first = ids.inner(SEQUENCE)
    kind = hashlib.sha256
    if first.peek() == SEQUENCE:
        kind = digest_of(first.inner(SEQUENCE).oid(), where)
    digest = first.next(OCTETS)
    here = [raw for raw in certificates if kind(raw).digest() == digest]
    need(here, where, "the certificate of its signer is not in it")
    try:
        certificate = x509.load_der_x509_certificate(here[0])
        key, issuer = certificate.public_key(), certificate.issuer.public_bytes()
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (ValueError, x509.ExtensionNotFound):
        raise Bad(f"{where}: the certificate of its signer is none for time stamps")
    serial = certificate.serial_number
    need(issuer == named[0] and serial == int.from_bytes(named[1], "big"), where, "it names another certificate than its signer's")
    need(usage.critical and [one.dotted_string for one in usage.value] == ["1.3.6.1.5.5.7.3.8"], where, "the certificate of its signer is not for time stamps alone")
    # Older versions of the package have the one pair of names, newer ones the other.
    suffix = "_utc" if hasattr(certificate, "not_valid_after_utc") else ""
    begin, end = (calendar.timegm(getattr(certificate, name + suffix).utctimetuple()) for name in ("not_valid_before", "not_valid_after"))
    need(begin <= seconds <= end, where, "the certificate of its signer was not valid at the stated time")
    check_signature(key, *signed_by, where)

def check_signature(key, kind, signed, algorithm, signature, where):
    need(algorithm in SIGNED_BY and SIGNED_BY[algorithm] in (None, kind().name), where, "it is signed in another way than is taken")
    message, prehash = b"\x31" + signed[1:], PREHASH[kind().name]
    rsa_signed, ecdsa = algorithm.startswith("1.2.840.113549."), algorithm.startswith("1.2.840.10045.")
    try:
        if isinstance(key, rsa.RSAPublicKey) and rsa_signed and 2048 <= key.key_size <= 8192:
            return key.verify(signature, message, padding.PKCS1v15(), prehash)
        if isinstance(key, ec.EllipticCurvePublicKey) and ecdsa and key.curve.name in ("secp256r1", "secp384r1"):
            return key.verify(signature, message, ec.ECDSA(prehash))
        if isinstance(key, ed25519.Ed25519PublicKey) and algorithm == "1.3.101.112":
            return key.verify(signature, message)
    except InvalidSignature:
        raise Bad(f"{where}: its signature does not verify")
    raise Bad(f"{where}: its key is too weak, or not taken")

def stamped(note, name):
    """The bytes that are stamped: text, empty line, the signature lines in one name."""
    text, lines = note.decode().rsplit("\n\n", 1)
    return (text + "\n\n" + "".join(line + "\n" for line in lines.splitlines() if line.split(" ")[1] == name)).encode()

def read_checkpoint(note, where):
    """Origin, size and root of a note."""
    lines = parse_note(note, where)[0].split("\n")
    need(len(lines) == 4 and re.fullmatch("0|[1-9][0-9]{0,18}", lines[1]), where, "it is no checkpoint")
    return lines[0], int(lines[1]), unbase64(lines[2], where, 32)

def check(bundle):
    """The tokens of a bundle."""
    paths = sorted(path for path in bundle.files if path.startswith("timestamps/"))
    need(not paths or bundle.manifest["version"] == 2, "timestamps", "they have no place in a bundle of this version")
    stems = sorted({path.split(".")[0] for path in paths})
    need(paths == sorted(stem + end for stem in stems for end in (".checkpoint", ".tst")) and len(stems) <= 64, "timestamps", "not each token has its checkpoint, or too many")
    for stem in stems:
        bundle.tolerate(check_one, bundle, stem)

def check_one(bundle, stem):
    log, where, note = bundle.log, stem + ".tst", bundle.read(stem + ".checkpoint")
    name, size, root = read_checkpoint(note, stem + ".checkpoint")
    need(name == log.origin, where, "it is over a checkpoint of another log")
    known = log.stated_root if size == log.size else log.root(size) if log.first <= size <= log.end else None
    need(known is not None, where, "it is over a checkpoint of a size whose root cannot be computed from the entries here", Lacking)
    need(known == root, where, "it is over a checkpoint with another root")
    need(read_token(bundle.read(where, TOKEN_MAX), where)[0] == sha256(stamped(note, log.origin)), where, "it is over something else")
