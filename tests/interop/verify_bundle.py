#!/usr/bin/env python3
"""A second verifier of evidence bundles, written from schemas/*.md and not from the Rust code.

    verify_bundle.py BUNDLE [--trust FINGERPRINT|FILE]...

BUNDLE is a folder or a .tar. Ends with 0 (whole), 6 (failed) or 9 (inconclusive), as `countersign evidence verify` does.
Needs Python 3.9 and the package `cryptography`; decisions are made again where cedar_subset.py lies beside it.
Top down: the bundle, its documents, decisions and ledgers; one log; below, what they are made of.
"""
import argparse, base64, datetime, hashlib, json, os, re, stat, struct, sys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
try:
    import cedar_subset
except ImportError:
    cedar_subset = None

WHOLE, FAILED, INCONCLUSIVE = 0, 6, 9
MIB, SMALL, FOREVER = 1 << 20, 1000000, 1 << 64

class Bad(Exception):
    """Something in the bundle is false."""

class Lacking(Exception):
    """Nothing is false, but without something that is not here this cannot be judged."""

def need(holds, where, what, fault=Bad):
    if not holds:
        raise fault(f"{where}: {what}")

def verify(path, trust=()):
    """(exit code, what is false or missing). The first false thing ends it; what is missing is collected."""
    bundle = Bundle()
    try:
        bundle.check(read_tar(path) if os.path.isfile(path) else read_folder(path), *read_trust(trust))
    except Bad as bad:
        return FAILED, [str(bad)]
    except Lacking as lacking:
        bundle.missing.append(str(lacking))
    return (INCONCLUSIVE if bundle.missing else WHOLE), bundle.missing

class Bundle:
    def check(self, files, fingerprints, vkeys, statements):
        self.files, self.missing = files, []
        self.check_files()
        self.check_keys(statements)
        for log in self.logs:
            log.check()
            self.tolerate(self.check_log_key, log, fingerprints, vkeys)
        self.check_documents()
        self.check_decisions()
        self.check_ledgers()

    def tolerate(self, check, *arguments):
        """Notes what is missing and goes on."""
        try:
            return check(*arguments)
        except Lacking as lacking:
            self.missing.append(str(lacking))

    def read(self, path, limit=FOREVER):
        need(path in self.files, path, "it is missing")
        size, content = self.files[path]
        need(size <= limit, path, f"it has more than {limit} bytes")
        return content()

    def check_files(self):
        where, raw = "manifest.json", self.read("manifest.json", 64 * MIB)
        digest = f"{sha256(raw).hex()}  manifest.json\n".encode()
        need(self.read("manifest.sha256", 1000) == digest, "manifest.sha256", "it is not the digest of manifest.json")
        self.manifest = manifest = parse(raw, where)
        need(type(manifest) is dict and manifest.get("format") == "countersign-bundle", where, "it is no manifest of a bundle")
        number(manifest.get("version"), where)
        need(manifest["version"] == 1, where, "it is of a version that is not known here", Lacking)
        check_form(manifest, MANIFEST, where)
        self.authority = manifest["authority"]
        need(1 <= len(manifest["logs"]) <= 4096, where, "there are not 1 to 4,096 logs")
        self.logs = [Log(self, place, member) for place, member in enumerate(manifest["logs"])]
        need(len({log.origin for log in self.logs}) == len(self.logs), where, "a log is there twice")
        need(self.logs[0].owner == self.authority, where, "the first log is not of its authority")
        self.log, before = self.logs[0], (0, 0)
        for run in manifest["undisclosed"]:
            inside = run["log"] < len(self.logs) and self.logs[run["log"]].start <= run["from"] < run["to"] <= self.logs[run["log"]].to
            need(inside and before <= (run["log"], run["from"]), where, "a run of undisclosed entries is empty, out of order or place")
            before = run["log"], run["to"]
        names = [entry["path"] for entry in manifest["files"]]
        need(all(a < b for a, b in zip(names, names[1:])), where, "the files are not in ascending order")
        notes = {log.prefix + "log/checkpoint" for log in self.logs}
        for entry in manifest["files"]:
            path = entry["path"]
            need(path in notes or re.fullmatch(LISTED, path), path, "it has no place in a bundle")
            limit = next((most for begin, most in LIMITS if path.startswith(begin)), SMALL)
            raw = self.read(path, limit)
            need(len(raw) == entry["bytes"] and sha256(raw).hex() == entry["sha256"], path, "it is not what the manifest lists")
        for begin, most in (("documents/", 256 * MIB), ("policies/", 16 * MIB)):
            need(sum(self.files[name][0] for name in names if name.startswith(begin)) <= most, begin, "together too long")
        bound = {path for log in self.logs for path in log.paths()}
        for path in {"keys.json"} | notes:
            need(path in names, path, "the manifest does not list it")
        for path in bound - set(self.files):
            raise Bad(f"{path}: it is missing")
        for path in set(self.files) - bound - set(names) - {"manifest.json", "manifest.sha256"}:
            raise Bad(f"{path}: it has no place in this bundle")

    def check_keys(self, brought):
        keys = parse(self.read("keys.json", SMALL), "keys.json")
        check_form(keys, KEYS, "keys.json")
        need((keys["format"], keys["version"]) == ("countersign-keys", 1), "keys.json", "it is of another format or version")
        need(len(keys["vkeys"]) == len(self.logs), "keys.json", "there is not one vkey for each log")
        for log, vkey in zip(self.logs, keys["vkeys"]):
            name, log.key = parse_vkey(vkey, "keys.json")
            need(name == log.origin, "keys.json", f"the vkey of {log.origin} has another name")
        paths = sorted(path for path in self.files if path.startswith("documents/"))
        self.documents = [Document(self.read(path), path) for path in paths]
        stated = [document for document in self.documents if document.kind == "key-statement"]
        need(keys["statements"] == [document.path for document in stated], "keys.json", "it names other key statements than are here")
        self.statements = {}    # authority -> payloads, ascending by number
        for document in stated + brought:
            payload, known = read_statement(document), self.statements.setdefault(document.payload["authority"], [])
            same = [other for other in known if other["number"] == payload["number"]]
            ours = not known or known[0]["organization"] == payload["organization"]
            need(ours and same in ([], [payload]) or document in brought, document.path, "another statement contradicts it")
            if ours and not same:
                known.append(payload)
                known.sort(key=lambda statement: statement["number"])

    def keys_at(self, authority, role, time):
        """The keys for a role in the statement in force at a time: the newest made by then, else the first."""
        known = self.statements[authority]
        force = next((statement for statement in reversed(known) if statement["made"] <= time), known[0])
        return [key for key in force["keys"] if key["role"] == role]

    def check_log_key(self, log, fingerprints, vkeys):
        where, pinned = log.prefix + "log/checkpoint", (log.origin, log.key) in vkeys
        known = self.statements.get(log.owner)
        if log.genesis:
            control, kind, data = log.genesis
            begins = parse(data, where) if control and kind == b"dev.countersign.control.genesis.v1" else {}
            ours = known is None or begins.get("organization") == base64.b64encode(known[0]["organization"]).decode()
            need(begins.get("origin") == log.origin and "organization" in begins and ours, f"{log.origin}, entry 0", "no genesis of this log")
        if known is None:
            return need(pinned, where, f"no key statement of {log.owner} is here", Lacking)
        delegated = self.keys_at(log.owner, "log", log.last_time)
        need(any(key["key"] == log.key and key["from"] <= log.last_time < key["until"] for key in delegated), where,
             "the key statement in force does not delegate the key that signed it")
        need(pinned or fingerprint(known[0]["organization"]) in fingerprints, where,
             f"{fingerprint(known[0]['organization'])} is not among the keys that are trusted", Lacking)

    # ------------------------------------------------------------------------------------------------------- documents

    def check_documents(self):
        self.agreements, of = {}, lambda kind: [document for document in self.documents if document.kind == kind]
        for document in of(None):
            self.missing.append(f"{document.path}: it is of a kind that is not known here")
        for document in of("agreement"):
            self.tolerate(self.check_agreement, document)
        self.rejected = {}      # agreement -> payload digests, in the order of the files
        for document in of("rejection"):
            self.rejected.setdefault(document.payload["agreement"], []).append(document.digest)
        rules = {"termination": self.check_termination, "refusal": self.check_refusal, "rejection": self.check_rejection,
                 "receipt": self.check_receipt}
        series = {}
        for document in self.documents:
            if document.kind in rules:
                self.tolerate(rules[document.kind], document)
                self.reach(document, document.path)
            if document.kind == "receipt":
                series.setdefault((document.payload["consumer"], document.payload["series"]), []).append(document)
        for receipts in series.values():
            receipts.sort(key=lambda document: document.payload["number"])
            self.tolerate(self.check_first, receipts[0])
            for before, after in zip(receipts, receipts[1:]):
                self.tolerate(self.check_pair, before, after)

    def check_agreement(self, document):
        payload, where = document.payload, document.path
        need(payload["stream"] == self.log.origin, where, "it is about another log")
        need(payload["producer"]["authority"] == self.log.owner, where, "its producer is not whose log this is")
        for party in (payload["producer"], payload["consumer"]):
            known = self.statements.get(party["authority"])
            need(known, where, f"no key statement of {party['authority']} is here", Lacking)
            need(known[0]["organization"] == party["organization"], where, "it names another organization key than the key statement")
            self.check_signed(document, party["authority"], "agreement", begun=False)
        need(self.agreements.setdefault(payload["id"], payload) == payload, where, "another agreement has its id")

    def agreement_of(self, document):
        need(document.payload["stream"] == self.log.origin, document.path, "it is about another log")
        need(document.payload["agreement"] in self.agreements, document.path, "the agreement that it names is not here", Lacking)
        return self.agreements[document.payload["agreement"]]

    def check_signed(self, document, authority, role, begun=True, covers=0):
        """A key of this role signed it, in force when the document was made, not ended before the last entry it covers.
        Whoever joins may make its keys after the agreement was proposed: there a key need not have begun."""
        need(authority in self.statements, document.path, f"no key statement of {authority} is here", Lacking)
        made = document.payload["made"]
        keys = [key for key in self.keys_at(authority, role, made) if document.signed_by(key["key"])]
        need(any((key["from"] <= made or not begun) and max(made, covers) < key["until"] for key in keys), document.path,
             f"no {role} key of {authority} that was in force signed it")

    def check_termination(self, document):
        agreement, by = self.agreement_of(document), document.payload["by"]
        need(by in (agreement["producer"]["authority"], agreement["consumer"]["authority"]), document.path, "it is by no side")
        self.check_signed(document, by, "agreement")

    def check_refusal(self, document):
        """It does not say who refuses: any organization here may have signed it."""
        for authority in self.statements:
            try:
                return self.check_signed(document, authority, "agreement")
            except Bad:
                pass
        raise Bad(f"{document.path}: no agreement key of an organization here signed it")

    def check_rejection(self, document):
        consumer, sequence = self.agreement_of(document)["consumer"]["authority"], document.payload["sequence"]
        entry = self.log.entries.get(sequence)
        self.check_signed(document, consumer, "receipt", covers=entry.time if entry else 0)
        need(entry is None or entry.leaf == document.payload["leaf"], document.path, f"entry {sequence} is another one here")

    def check_receipt(self, document):
        """In this order; the first thing that is false or missing ends it."""
        receipt, where, log = document.payload, document.path, self.log
        consumer, size = self.agreement_of(document)["consumer"]["authority"], receipt["size"]
        need(receipt["consumer"] == consumer, where, "its agreement is with another consumer")
        need(receipt["start"] <= size and receipt["applied"] <= size, where, "it starts, or was applied, beyond its size")
        last = log.entries.get(size - 1) if size <= log.end else None
        self.check_signed(document, consumer, "receipt", covers=last.time if last else 0)
        count, known = receipt["rejected"]["count"], self.rejected.get(receipt["agreement"], [])
        need(count <= len(known), where, f"it counts {count} rejections, {len(known)} are here", Lacking)
        digest = sha256(b"".join(known[:count])) if count else bytes(32)
        need(receipt["rejected"]["digest"] == digest, where, "it counts other rejections than are here")
        if size > log.end:
            return
        need(size >= log.first, where, f"it ends at {size}, before the entries here", Lacking)
        need(receipt["root"] == log.root(size), where, "its root is not that of the entries here")
        need(receipt["filter"] is None, where, "its sums are under a filter", Lacking)
        if receipt["start"] >= log.first:
            need((receipt["events"], receipt["bytes"]) == log.sums(receipt["start"], size), where, "its sums are not those of the entries")

    def check_first(self, document):
        receipt, where = document.payload, document.path
        need((receipt["number"] == 1) == (receipt["previous"] is None), where, "the first of a series names none before it, others do")
        need(receipt["number"] == 1 or self.log.start > 0, where, "the receipts before it are not here", Lacking)

    def check_pair(self, before, after):
        old, new, where = before.payload, after.payload, after.path
        if old["number"] == new["number"]:
            return need(before.digest == after.digest, where, "it contradicts another receipt of its number")
        grows = all(old[name] <= new[name] for name in ("size", "events", "bytes", "applied"))
        same = all(old[name] == new[name] for name in ("agreement", "start", "filter"))
        need(grows and same and old["rejected"]["count"] <= new["rejected"]["count"], where, "it takes back what the one before says")
        need(new["number"] == old["number"] + 1, where, "the receipt before it is not here", Lacking)
        need(new["previous"] == before.digest, where, "it follows another receipt than the one here")

    def reach(self, document, where):
        """A true beginning of a longer log must not pass for the whole."""
        payload = document.payload
        size = {"receipt": payload.get("size"), "rejection": payload.get("sequence", 0) + 1, "termination": payload.get("position")}
        if payload.get("stream") == self.log.origin and (size.get(document.kind) or 0) > self.log.to:
            self.missing.append(f"{where}: it speaks of entries beyond {self.log.to}, which are not here")

    # ------------------------------------------------------------------------------------------- decisions and ledgers

    def check_decisions(self):
        folders, self.decisions, sets = {}, {}, {}
        for path in sorted(path for path in self.files if path.startswith("policies/")):
            _, folder, name = path.split("/")
            folders.setdefault(folder, []).append((name, text_of(self.read(path), path)))
        for folder, texts in folders.items():
            framed = b"".join(struct.pack(">Q", len(part)) + part for file in texts for part in (file[0].encode(), file[1].encode()))
            need(sha256(b"countersign.pol1" + framed).hex() == folder, f"policies/{folder}", "the texts have another digest")
            sets[folder] = texts
        lines = self.read("decisions.ndjson").split(b"\n") if "decisions.ndjson" in self.files else [b""]
        need(lines.pop() == b"", "decisions.ndjson", "its last line does not end in a line feed")
        for place, line in enumerate(lines, 1):
            where = f"decisions.ndjson, line {place}"
            need(len(line) <= MIB, where, "it has more than 1 MiB")
            members = parse(line, where)
            check_form(members, DECISION, where)
            record = read_record(members["record"], where)
            need(record and record["kind"] == "decision", where, "it is no decision")
            self.decisions.setdefault((members["ledger"], members["sequence"]), []).append(raw_member(line, "record"))
            need(record["stream"] == self.log.origin, where, "it is about another log")
            self.tolerate(self.decide_again, record, sets, where)

    def decide_again(self, record, sets, where):
        need(record["policy_digest"].hex() in sets, where, "the policies that decided are not here", Lacking)
        try:
            facts = parse(record["facts"].encode(), where)
            check_form(facts, FACTS, where)
            principal, = filter(None, facts["principal"].values())
        except (Bad, ValueError):
            raise Lacking(f"{where}: its facts are not those of a request")
        organization = principal.get("organization", principal)
        ours = record["principal"].startswith("app:") or record["principal"] == organization["authority"]
        need(ours and (facts["action"], facts["resource"]["origin"]) == (record["action"], record["stream"]), where, "its facts are of another question")
        try:
            need(cedar_subset, where, "cedar_subset.py is not here to make it again", Lacking)
            allowed, policies = cedar_subset.decide(sets[record["policy_digest"].hex()], facts)
        except (ValueError, KeyError) as error:
            raise Lacking(f"{where}: its policies cannot be evaluated here: {error}")
        revoked = not record["allowed"] and not organization["own"] and not organization["partner"]
        need(allowed == record["allowed"] or revoked, where, "the policies give another answer to these facts")
        need((policies, []) == (record["policies"], record["errors"]), where, "the policies give another reason than it says")

    def check_ledgers(self):
        payloads, recorded = {document.digest for document in self.documents}, set()
        whole = (self.log.start, self.log.to) == (0, self.log.size)
        exported = {log.origin: log for log in self.logs[1:]}
        for log in exported.values():
            for sequence, data in log.facts.items():
                where = f"{log.origin}, entry {sequence}"
                try:
                    record = read_record(parse(data, where), where)
                    document = Document(record["envelope"].encode(), where) if record["kind"] in RECORDED else None
                except (Bad, TypeError):
                    continue        # not a record that this version knows
                if record["kind"] == "decision" and record["stream"] == self.log.origin:
                    here = self.decisions.pop((log.origin, sequence), None)
                    need(here in (None, [data]), where, "decisions.ndjson has another decision in its place")
                    if here is None:
                        self.missing.append(f"{where}: this decision is not in decisions.ndjson")
                elif document and document.kind == record["kind"] and document.payload["stream"] == self.log.origin:
                    recorded.add(document.digest)
                    self.reach(document, where)
                    if whole and document.digest not in payloads:
                        self.missing.append(f"{where}: the {document.kind} that it records is not here")
        for origin, sequence in self.decisions:
            need(origin not in exported, f"{origin}, entry {sequence}", "it is not the decision that decisions.ndjson says")
        consumers = {}
        for document in self.documents:
            if document.kind == "agreement":
                consumers.setdefault(document.payload["id"], document.payload["consumer"]["authority"])
        about = {log.origin.split("/ledger/")[1].replace("node", log.owner, log.origin.endswith("/ledger/node")) for log in exported.values()}
        for document in self.documents:
            agreement = document.payload.get("id" if document.kind == "agreement" else "agreement")
            if document.kind in RECORDED and document.digest not in recorded:
                need(consumers.get(agreement) not in about, document.path, "the ledger about its consumer does not record it")

# ------------------------------------------------------------------------------------------------------------ one log

class Log:
    def __init__(self, bundle, place, member):
        self.bundle, self.place, self.prefix, self.origin = bundle, place, member["path"], member["origin"]
        self.start, self.to, self.size, self.owner = member["from"], member["to"], member["size"], member["origin"].split("/")[0]
        where = f"manifest.json, log {place}"
        need(self.start < self.to <= self.size <= 1 << 63, where, "it holds no entries, or more than its checkpoint covers")
        need(self.prefix == (f"ledgers/{place - 1}/" if place else ""), where, "it does not lie where its place in the list puts it")
        need(not place or (self.start, self.to) == (0, self.size) and "/ledger/" in self.origin, where, "it is no whole ledger")
        self.first, self.end = self.start & ~255, min(self.size, (self.to + 255) & ~255)
        need(self.end - self.first <= 256 * len(bundle.files), where, "most of its entries are missing")

    def paths(self):
        """The files that the tree binds. Also lays down which tiles and entry bundles there are: (kind, index) -> width."""
        self.tiles = {("entries", n): min(256, self.size - 256 * n) for n in range(self.first // 256, -(-self.end // 256))}
        for level in range(8):
            count = self.size >> 8 * level
            wanted = {n for n in range(self.first >> 8 * level + 8, (self.end - 1 >> 8 * level + 8) + 1) if 256 * n < count}
            for n in wanted | ({count // 256} if count % 256 else set()):
                self.tiles[level, n] = min(256, count - 256 * n)
        return [self.tile_path(tile) for tile in self.tiles] + [self.content_path(n) for kind, n in self.tiles if kind == "entries"]

    def tile_path(self, tile):
        return f"{self.prefix}log/tile/{tile[0]}/{groups(tile[1])}" + f".p/{self.tiles[tile]}" * (self.tiles[tile] < 256)

    def content_path(self, n):
        return f"{self.prefix}content/{groups(n)}"

    def check(self):
        where = self.prefix + "log/checkpoint"
        text, signatures = parse_note(self.bundle.read(where, SMALL), where)
        mine = [signature[4:] for name, signature in signatures if (name, signature[:4]) == (self.origin, vkey_id(self.origin, self.key))]
        need(mine and all(verify_ed25519(self.key, one, text.encode()) for one in mine), where, "the key of the log did not sign it")
        lines = text.split("\n")
        need(len(lines) == 4 and lines[:2] == [self.origin, str(self.size)], where, "it is not of this log and size, in three lines")
        root = unbase64(lines[2], where, 32)
        self.check_entries()
        need(self.check_tree() == root, where, "its root is not that of the entries and tiles here")
        self.check_content()

    def check_entries(self):
        self.entries, before = {}, None
        for tile in [tile for tile in self.tiles if tile[0] == "entries"]:
            where, width = self.tile_path(tile), self.tiles[tile]
            raw = self.bundle.read(where)
            need(len(raw) == 120 * width, where, f"it has not {width} entries of 118 bytes")
            for at in range(width):
                sequence, one = 256 * tile[1] + at, raw[120 * at:120 * at + 120]
                here = f"{self.origin}, entry {sequence}"
                need(one[:2] == b"\0\x76", here, "its length is not 118")
                entry = Entry(one[2:], here)
                need(entry.sequence == sequence, here, f"it says that its sequence is {entry.sequence}")
                need(before is None or entry.previous == before.leaf, here, "it does not name the entry before it")
                need(before is None or entry.time >= before.time, here, "it is earlier than the entry before it")
                self.entries[sequence] = before = entry
        self.last_time = before.time

    def check_tree(self):
        tiles = {}
        for tile in [tile for tile in self.tiles if tile[0] != "entries"]:
            raw = self.bundle.read(self.tile_path(tile))
            need(len(raw) == 32 * self.tiles[tile], self.tile_path(tile), f"it has not {self.tiles[tile]} hashes")
            tiles[tile] = [raw[at:at + 32] for at in range(0, len(raw), 32)]
        for sequence, entry in self.entries.items():
            need(tiles[0, sequence // 256][sequence % 256] == entry.leaf, f"{self.origin}, entry {sequence}", "its tile has another hash")
        for (level, n), hashes in tiles.items():
            above = tiles.get((level + 1, n // 256)) if len(hashes) == 256 else None
            need(above is None or above[n % 256] == merge(hashes), self.tile_path((level, n)), "the tile above has another hash")

        def cover(begin, end):
            """The complete subtrees of [begin, end) from left to right, each the largest that is aligned and fits."""
            while begin < end:
                bits = min((end - begin).bit_length(), (begin & -begin).bit_length() or 99) - 1
                at = begin >> bits // 8 * 8
                yield 1 << bits, merge(tiles[bits // 8, at // 256][at % 256:at % 256 + (1 << bits % 8)])
                begin += 1 << bits
        self.left = list(cover(0, self.first))
        return fold(grow(self.peaks(self.end), cover(self.end, self.size)))

    def peaks(self, size):
        return grow(list(self.left), ((1, self.entries[sequence].leaf) for sequence in range(self.first, size)))

    def root(self, size):
        return fold(self.peaks(size))

    def sums(self, begin, end):
        events = [self.entries[sequence] for sequence in range(begin, end) if not self.entries[sequence].control]
        return len(events), sum(entry.data_length for entry in events)

    def check_content(self):
        self.facts, self.genesis, withheld = {}, None, []
        for n in [n for kind, n in self.tiles if kind == "entries"]:
            where, begin, end = self.content_path(n), max(self.start, 256 * n), min(self.to, 256 * n + 256)
            raw, at = self.bundle.read(where), 6 + 7 * (end - begin)
            need(raw[:6] == b"csc1" + struct.pack(">H", end - begin) and len(raw) >= at, where, f"it does not hold {end - begin} contents")
            for sequence in range(begin, end):
                here, place = f"{where}, entry {sequence}", 6 + 7 * (sequence - begin)
                state, attributes, data_part = struct.unpack(">BHI", raw[place:place + 7])
                need(state == 0 or (state, attributes, data_part) == (1, 0, 0), here, "its descriptor is unknown")
                if state:
                    withheld.append(sequence)
                    continue
                need(data_part <= 16 * MIB + 65540, here, "it is larger than any content")
                content, at = raw[at:at + 64 + attributes + data_part], at + 64 + attributes + data_part
                need(at <= len(raw), here, "it is cut")
                self.check_one(sequence, content, attributes, here)
            need(at == len(raw), where, "it goes on after the last content")
        runs = [run for run in self.bundle.manifest["undisclosed"] if run["log"] == self.place]
        told = [sequence for run in runs for sequence in range(run["from"], run["to"])]
        need(told == withheld, "manifest.json", f"the undisclosed entries of {self.origin} are not those that its files mark")
        if withheld:
            self.bundle.missing.append(f"{self.origin}: {len(withheld)} contents are not disclosed, from entry {withheld[0]}")

    def check_one(self, sequence, content, attributes, where):
        entry, names, part = self.entries[sequence], content[64:64 + attributes], content[64 + attributes:]
        need(sha256(b"countersign.at.1" + content[:32] + names) == entry.attributes, where, "its attributes are not those committed to")
        need(sha256(b"countersign.dw.1" + content[32:64] + part) == entry.data, where, "its data is not what was committed to")
        if entry.encrypted:
            return
        event, (author, data) = parse_attributes(names, where), parse_data_part(part, where)
        need(len(data) == entry.data_length, where, "its data has another length than its entry says")
        need(bool(author) == entry.author_signed, where, "its author material is not as its entry says")
        if sequence == 0:
            self.genesis = entry.control, event[b"type"], data
        if self.place and event[b"type"].startswith(b"dev.countersign.ledger."):
            self.facts[sequence] = data

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
    need(raw and raw[0] & 0x7F <= 3, where, "the state of its data is unknown")
    author, data = b"", raw[1:]
    if raw[0] & 0x80:
        length = int.from_bytes(data[:4], "big")
        author, data = data[4:4 + length], data[4 + length:]
        need(len(raw) >= 5 and 1 <= length == len(author) <= 65535, where, "its author material is cut or too long")
    need(raw[0] & 15 > 1 or not data, where, "it has data where it says that there is none")
    if raw[0] & 15 == 2:
        text_of(data, where)
    return author, data

# --------------------------------------------------------------------------------------------------- signed documents

class Document:
    """A DSSE envelope. Its payload is looked into at once, to learn who must have signed it; nothing of it counts before."""
    def __init__(self, raw, path):
        need(len(raw) <= MIB // 4, path, "it is longer than 256 KiB")
        envelope = parse(raw, path)
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
    own = payload["authority"] == fingerprint(key) or not payload["authority"].startswith("key-")
    need(own, document.path, "its authority is the fingerprint of another key")
    return payload

def fingerprint(key):
    return "key-" + base64.b32encode(sha256(b"countersign.key1" + key)[:20]).decode().lower()

def read_trust(items):
    """Fingerprints, (origin, key) pairs and key statements that somebody trusts."""
    fingerprints, vkeys, statements = set(), set(), []
    for item in items:
        if re.fullmatch("key-[a-z2-7]{32}", item):
            fingerprints.add(item)
            continue
        with open(item, "rb") as file:
            raw = file.read()
        if raw.lstrip().startswith(b"{"):
            statements.append(Document(raw, item))
            fingerprints.add(fingerprint(read_statement(statements[-1])["organization"]))
            continue
        for words in [line.split() for line in raw.decode().splitlines()]:
            if not words or words[0].startswith("#") or words[:2] == ["quorum", "none"]:
                continue
            word = words[1] if words[0] == "log" and len(words) > 1 else words[0] if len(words) == 1 else ""
            if re.fullmatch("key-[a-z2-7]{32}", word):
                fingerprints.add(word)
            else:
                vkeys.add(parse_vkey(word, item))
    return fingerprints, vkeys, statements

# ------------------------------------------------------------------------------------------- forms of JSON (schemas/)

def text(pattern="(?s).*", high=1 << 60):
    def read(value, where):
        need(type(value) is str and len(value) <= high and re.fullmatch(pattern, value, re.ASCII), where, f"{value!r:.60} is not such a text")
        return value
    return read

def number(value, where):
    need(type(value) is int and value < 1 << 64, where, f"{value!r:.60} is no whole number below 2^64")
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
authority, origin = text(AUTHORITY), text(f"{AUTHORITY}/(streams/[a-z0-9][a-z0-9._-]{{0,63}}|ledger/(node|{AUTHORITY}))")
anything, ident, digest, name = text(), text("[0-9a-f]{32}"), binary(32), text(r"[^\x00-\x1f\x7f-\x9f]+", 100)
one_of = lambda *words: text("|".join(words))
FILE = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}"
LISTED = rf"keys\.json|decisions\.ndjson|documents/(?=.{{1,100}}$){FILE}\.json|policies/[0-9a-f]{{64}}/{FILE}"
LIMITS = [("documents/", MIB // 4), ("policies/", MIB), ("decisions.ndjson", FOREVER)]
RECORDED = ("agreement", "receipt", "rejection", "termination")
PARTY = {"authority": authority, "name": anything, "organization": public_key}
MANIFEST = {"format": anything, "version": number, "made": anything, "made_by": anything, "authority": authority,
            "logs": many({"path": anything, "origin": origin, "from": number, "to": number, "size": number}),
            "undisclosed": many({"log": number, "from": number, "to": number, "reason": anything}),
            "files": many({"path": anything, "bytes": number, "sha256": text("[0-9a-f]{64}")}, 262144)}
KEYS = {"format": anything, "version": number, "vkeys": many(anything), "statements": many(anything)}
ENVELOPE = {"payloadType": anything, "payload": binary(), "signatures": many({"keyid": (anything, ""), "sig": binary(64)})}
DECISION = {"ledger": origin, "sequence": number, "record": lambda value, where: value}
RECORDS = {"decision": {"principal": anything, "action": anything, "stream": origin, "allowed": boolean, "policies": many(anything),
                        "policy_digest": digest, "errors": (many(anything), []), "agreement": (ident, None), "facts": anything},
           "agreement": {"envelope": anything}, "rejection": {"envelope": anything}, "termination": {"envelope": anything},
           "receipt": {"envelope": anything, "from": number, "events": number, "bytes": number}}
ORGANIZATION = {"authority": anything, "fingerprint": (anything, ""), "name": (anything, ""), "own": (boolean, False), "partner": (boolean, False)}
MEMBER = {"fingerprint": anything, "name": (anything, ""), "organization": ORGANIZATION}
FACTS = {"principal": {"application": (MEMBER, None), "node": (MEMBER, None), "organization": (ORGANIZATION, None)},
         "action": one_of("discover", "publish", "read", "request"),
         "resource": {"labels": (many(anything), []), "name": anything, "origin": anything, "owner": anything, "title": (anything, None)},
         "context": {"agreement": ({"active": boolean, "id": anything, "plan": (anything, ""), "streams": (many(anything), [])}, None),
                     "now_us": number, "plan": (anything, None), "purpose": (anything, None)}}
NO_REJECTIONS = {"count": 0, "digest": bytes(32)}
PAYLOADS = {
    "key-statement": {"authority": authority, "name": name, "organization": public_key, "number": number, "made": time, "keys": many(
        {"role": one_of("agreement", "encryption", "log", "node", "receipt", "witness"), "key": public_key, "from": time,
         "until": (time, FOREVER)}, 64)},
    "agreement": {"id": ident, "producer": PARTY, "consumer": PARTY, "stream": origin, "plan": {
        "name": anything, "exposure_events": number, "erasure": one_of("ask", "obey")}, "from": time, "until": (time, None), "made": time},
    "receipt": {"agreement": ident, "stream": origin, "consumer": authority, "series": ident, "number": number, "previous": (digest, None),
                "start": number, "filter": (digest, None), "size": number, "root": digest, "events": number, "bytes": number,
                "level": one_of("received", "verified", "applied"), "applied": number,
                "rejected": ({"count": number, "digest": digest}, NO_REJECTIONS), "made": time},
    "rejection": {"agreement": ident, "stream": origin, "sequence": number, "leaf": digest, "reason": anything, "made": time},
    "refusal": {"asked": anything, "principal": (authority, None), "about": anything, "code": one_of(
        "busy", "cursor-mismatch", "invitation-expired", "invitation-used", "malformed", "no-agreement", "not-found", "not-permitted",
        "pending", "wrong-identity"), "reason": anything, "policies": (many(anything), []), "advice": (many(anything), []),
        "position": (number, None), "made": time},
    "termination": {"agreement": ident, "stream": origin, "by": authority, "reason": anything, "position": (number, None), "made": time},
}

def read_record(record, where):
    """A ledger record of the kinds that matter here, None for any other. Further members may be there."""
    form = RECORDS.get(record.get("kind") if type(record) is dict else None)
    if form:
        check_form(record, {**form, "*": None}, where)
        return record

def parse(raw, where):
    """Strict JSON: UTF-8, no member twice, whole numbers without sign, fraction or exponent, no half surrogate pairs."""
    def pairs(members):
        need(len(dict(members)) == len(members), where, "a member comes twice")
        return dict(members)

    def integer(digits):
        need(digits.isdigit(), where, f"{digits:.40} is no whole number")
        return int(digits)
    try:
        value = json.loads(text_of(raw, where), object_pairs_hook=pairs, parse_int=integer, parse_float=integer, parse_constant=integer)
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

def main():
    parser = argparse.ArgumentParser(description="Verify an evidence bundle offline")
    parser.add_argument("bundle")
    parser.add_argument("--trust", action="append", default=[], metavar="FINGERPRINT|FILE")
    options = parser.parse_args()
    code, reasons = verify(options.bundle, options.trust)
    print({WHOLE: "whole", FAILED: "FAILED", INCONCLUSIVE: "inconclusive"}[code], *reasons, sep="\n  ")
    return code

if __name__ == "__main__":
    sys.exit(main())
