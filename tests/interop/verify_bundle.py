#!/usr/bin/env python3
"""A second verifier of evidence bundles, written from schemas/*.md and not from the Rust code.

    verify_bundle.py BUNDLE [--trust FINGERPRINT|FILE]...

BUNDLE is a folder or a .tar. Ends with 0 (whole), 6 (failed) or 9 (inconclusive), as `countersign evidence verify` does.
Needs Python 3.9 and the package `cryptography`. What entries, documents, notes and hashes are is in formats.py; decisions are
made again where cedar_subset.py lies beside it; erasures.py, successors.py and timestamps.py judge what their names say. Top down: the bundle, its documents, decisions and ledgers; one log.
"""
import argparse, base64, erasures, os, re, struct, successors, sys, timestamps
from formats import (follows, of_one_line, DECISION, FACTS, FILE, FOREVER, KEYS, LIMITS, LISTED, MANIFEST, MIB, RECORDED, Bad, Document, Entry, Lacking, authority, check_data, check_form, check_stated, digest, fingerprint, fold, groups, grow, merge, need, number, origin, parse, parse_attributes,
                     parse_note, parse_vkey, raw_member, read_allowance, read_folder, read_record, read_revocation, read_statement, read_tar, read_trust, sha256, text, text_of, unaccounted, unbase64, verify_ed25519, vkey_id)
try:
    import cedar_subset
except ImportError:
    cedar_subset = None

WHOLE, FAILED, INCONCLUSIVE, SMALL = 0, 6, 9, 1000000

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
    def check(self, files, fingerprints, vkeys, statements, revocations):
        self.files, self.missing = files, []
        self.check_files()
        self.check_keys(statements)
        self.check_revocations(revocations)
        for log in self.logs:
            log.check()
            self.tolerate(self.check_log_key, log, fingerprints, vkeys)
        for check in (self.check_documents, lambda: erasures.check(self), lambda: timestamps.check(self), self.check_decisions, lambda: successors.check(self), self.check_ledgers):
            check()

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
        need(manifest["version"] in (1, 2), where, "it is of a version that is not known here", Lacking)
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
            ours = all(follows(*sorted((other, payload), key=lambda one: one["number"])) for other in known)
            need(ours and same in ([], [payload]) or document in brought, document.path, "another statement contradicts it")
            if ours and not same:
                known.append(payload)
                known.sort(key=lambda statement: statement["number"])

    def check_revocations(self, brought):
        """Those here are of organizations that are known here; those brought along only must not be of another key."""
        self.revocations = []
        for document in [document for document in self.documents if document.kind == "key-revocation"]:
            payload = read_revocation(document)
            known = self.statements.get(payload["authority"])
            if not known:
                self.missing.append(f"{document.path}: no key statement of {payload['authority']} is here")
                continue
            need(of_one_line(known[-1], payload), document.path, "another organization key claims its authority")
            self.revocations.append(payload)
        for payload in brought:
            if of_one_line(self.statements.get(payload["authority"], [payload])[-1], payload):
                self.revocations.append(payload)

    def revocations_of(self, authority, role, key):
        return [one for one in self.revocations if (one["authority"], one["role"], one["key"]) == (authority, role, key)]

    def is_revoked(self, log, where):
        """Whether the key that signed the checkpoint was taken back, and no head vouches for the entries here. A head that denies them is false."""
        revoked = False
        for revocation in self.revocations_of(log.owner, "log", log.key):
            size, root = next(((head["size"], head["root"]) for head in revocation["heads"] if head["origin"] == log.origin), (0, None))
            known = log.stated_root if size == log.size else log.root(size) if size and log.first <= size <= log.end else None
            need(known in (None, root), where, f"a revocation of its key names another root of {size} entries")
            revoked |= known is None or size < log.to
        return revoked

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
            begins = parse(data, where, whole=False) if control and kind == b"dev.countersign.control.genesis.v1" else {}
            ours = known is None or begins.get("organization") in [base64.b64encode(key).decode() for key in known[-1]["line"]]
            need(begins.get("origin") == log.origin and "organization" in begins and ours, f"{log.origin}, entry 0", "no genesis of this log")
        revoked = self.is_revoked(log, where)
        if known is None:
            return need(pinned and not revoked, where, f"no key statement of {log.owner} is here, or its key was revoked", Lacking)
        own = lambda statements: [key for one in statements for key in one["keys"] if (key["role"], key["key"]) == ("log", log.key)]
        since = known[max([at for at, one in enumerate(known) if one["made"] <= log.last_time], default=0):]
        whole, each = log.to == log.size, any if log.to == log.size else all    # of a range it was signed then or later
        stated = own(since[:1] if whole else since)
        need(stated and each(log.last_time < key["until"] and (not whole or key["from"] <= log.last_time) for key in stated), where, "no key statement in force delegates its key")
        kept = whole or any(known[-1]["made"] < key["until"] for key in own(known[-1:])) or self.revocations_of(log.owner, "log", log.key)
        need(kept and not revoked, where, "its key was retired or revoked since, and nothing vouches for the entries here", Lacking)
        need(pinned or fingerprints & {fingerprint(key) for key in known[-1]["line"]}, where, "its organization is not among those that are trusted", Lacking)

    # ------------------------------------------------------------------------------------------------------- documents

    def check_documents(self):
        self.agreements, of = {}, lambda kind: [document for document in self.documents if document.kind == kind]
        for document in of(None) + of("key-succession"):
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
            need(party["organization"] in known[-1]["line"], where, "it names another organization key than the key statement")
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
        end = lambda key: min([key["until"]] + [one["made"] for one in self.revocations_of(authority, role, key["key"])])
        need(any((key["from"] <= made or not begun) and max(made, covers) < end(key) for key in keys), document.path,
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
        size = {"receipt": payload.get("size"), "rejection": payload.get("sequence", 0) + 1, "erasure-answer": payload.get("sequence", 0) + 1, "erasure-request": payload.get("tombstone", 0) + 1, "termination": payload.get("position")}
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
        about = {subject if (subject := log.origin.split("/")[2]) != "node" else log.owner for log in exported.values()}
        for document in self.documents:
            agreement = erasures.agreement_of(self, document)
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
        self.stated_root = root = unbase64(lines[2], where, 32)
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
        self.facts, self.genesis, self.allowances, self.withheld = {}, None, {}, (withheld := [])
        for n in [n for kind, n in self.tiles if kind == "entries"]:
            where, begin, end = self.content_path(n), max(self.start, 256 * n), min(self.to, 256 * n + 256)
            raw, at = self.bundle.read(where), 6 + 7 * (end - begin)
            need(raw[:6] == b"csc1" + struct.pack(">H", end - begin) and len(raw) >= at, where, f"it does not hold {end - begin} contents")
            for sequence in range(begin, end):
                here, place = f"{where}, entry {sequence}", 6 + 7 * (sequence - begin)
                state, attributes, data_part = struct.unpack(">BHI", raw[place:place + 7])
                need(state == 0 or (state, attributes, data_part) == (1, 0, 0), here, "its descriptor is unknown")
                if state:
                    check_stated(self.entries[sequence], here)
                    withheld.append(sequence)
                    continue
                need(data_part <= 16 * MIB + 65540, here, "it is larger than any content")
                content, at = raw[at:at + 64 + attributes + data_part], at + 64 + attributes + data_part
                need(at <= len(raw), here, "it is cut")
                self.check_one(sequence, content, attributes, here)
            need(at == len(raw), where, "it goes on after the last content")
        told = [sequence for run in self.bundle.manifest["undisclosed"] if run["log"] == self.place for sequence in range(run["from"], run["to"])]
        need(told == withheld, "manifest.json", f"the undisclosed entries of {self.origin} are not those that its files mark")
        left = unaccounted(self.entries, withheld, self.allowances)
        self.bundle.missing += [f"{self.origin}: {len(left)} contents are not disclosed, from entry {left[0]}"] if left else []

    def check_one(self, sequence, content, attributes, where):
        entry, names, part = self.entries[sequence], content[64:64 + attributes], content[64 + attributes:]
        need(sha256(b"countersign.at.1" + content[:32] + names) == entry.attributes, where, "its attributes are not those committed to")
        data = check_data(entry, content[32:64], part, where)
        if entry.encrypted:
            return
        event = parse_attributes(names, where)
        if sequence == 0:
            self.genesis = entry.control, event[b"type"], data
        self.allowances.update({sequence: said for said in [entry.control and read_allowance(event, data)] if said})
        if self.place and event[b"type"].startswith(b"dev.countersign.ledger."):
            self.facts[sequence] = data

def main():
    parser = argparse.ArgumentParser(description="Verify an evidence bundle offline")
    parser.add_argument("bundle")
    parser.add_argument("--trust", action="append", default=[], metavar="FINGERPRINT|FILE")
    options = parser.parse_args()
    code, reasons = verify(options.bundle, options.trust)
    print({WHOLE: "whole", FAILED: "FAILED", INCONCLUSIVE: "inconclusive"}[code], *reasons, sep="\n  ")
    sys.exit(code)

if __name__ == "__main__":
    main()
