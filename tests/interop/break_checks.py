#!/usr/bin/env python3
"""Shows that the mutations reach the checks: leaves out one check of the Python verifier at a time and waits for another verdict.

    break_checks.py [--number 3000] [--seed S] [--only PATTERN] [--keys FILE]... BUNDLE=FINGERPRINT[,FINGERPRINT] ...

No countersign is needed: the whole verifier stands for it, since mutate.py has found them to agree. Ends with 1 where a check was
left out and nobody noticed.
"""
import argparse, os, re, shutil, sys, tempfile, traceback, types
import formats, mutate, verify_bundle
from mutate import Base, Workplace

# name: file, what stands there, what stands there instead
CHECKS = {
    "manifest digest": ("verify_bundle", 'need(self.read("manifest.sha256", 1000) == digest', 'need(True'),
    "listed SHA-256": ("verify_bundle", 'and sha256(raw).hex() == entry["sha256"]', ''),
    "unknown files": ("verify_bundle", 'for path in set(self.files) - bound - set(names)', 'for path in set() & bound & set(names)'),
    "checkpoint signature": ("verify_bundle", 'need(mine and all(', 'need(True or all('),
    "root": ("verify_bundle", 'need(self.check_tree() == root', 'need(self.check_tree()'),
    "hashes of the entries in the tiles": ("verify_bundle", 'need(tiles[0, sequence // 256][sequence % 256] == entry.leaf', 'need(True'),
    "tiles under tiles": ("verify_bundle", 'need(above is None or above[n % 256] == merge(hashes)', 'need(True'),
    "chain": ("verify_bundle", 'need(before is None or entry.previous == before.leaf', 'need(True'),
    "sequence": ("verify_bundle", 'need(entry.sequence == sequence', 'need(True'),
    "time": ("verify_bundle", 'need(before is None or entry.time >= before.time', 'need(True'),
    "attribute commitment": ("verify_bundle", 'need(sha256(b"countersign.at.1" + content[:32] + names) == entry.attributes', 'need(True'),
    "data commitment": ("verify_bundle", 'need(sha256(b"countersign.dw.1" + content[32:64] + part) == entry.data', 'need(True'),
    "canonical attributes": ("formats", 'need(at <= len(raw) and name > last', 'need(at <= len(raw)'),
    "data length": ("verify_bundle", 'need(len(data) == entry.data_length', 'need(True'),
    "author material": ("verify_bundle", 'need(bool(author) == entry.author_signed', 'need(True'),
    "genesis": ("verify_bundle", 'need(begins.get("origin") == log.origin and', 'need(True or'),
    "withheld contents": ("verify_bundle", 'need(told == withheld', 'need(True'),
    "withheld contents are missing": ("verify_bundle", 'if left else []', 'if False else []'),
    "control entries are not erased": ("formats", 'entries[sequence].control or ', ''),
    "expired below": ("formats", 'sequence >= below and ', ''),
    "tombstones": ("formats", 'and sequence not in single', ''),
    "log key delegated": ("verify_bundle", 'need(any(key["key"] == log.key and', 'need(True or any('),
    "log key trusted": ("verify_bundle", 'need(pinned or fingerprint', 'need(True or fingerprint'),
    "key statement signature": ("formats", 'need(document.signed_by(key), document.path, "the organization', 'need(True, document.path, "the organization'),
    "contradicting statements": ("verify_bundle", 'need(ours and same in ([], [payload])', 'need(True'),
    "statement in force": ("verify_bundle", 'if statement["made"] <= time), known[0])', 'if True), known[0])'),
    "agreement and receipt signatures": ("verify_bundle", 'if document.signed_by(key["key"])]', ']'),
    "period of the key": ("verify_bundle", 'need(any((key["from"] <= made or not begun) and max(made, covers) < end(key) for key in keys)', 'need(keys'),
    "key not ended before what it covers": ("verify_bundle", 'max(made, covers) < end(key)', 'made < end(key)'),
    "other keys that were revoked": ("verify_bundle", ' + [one["made"] for one in self.revocations_of(authority, role, key["key"])]', ''),
    "log keys that were revoked": ("verify_bundle", 'revoked |= known is None or size < log.to', 'revoked |= False'),
    "entries beyond the head of a revoked key": ("verify_bundle", 'revoked |= known is None or size < log.to', 'revoked |= known is None'),
    "root of the head of a revoked key": ("verify_bundle", 'need(known in (None, root), where', 'need(True, where'),
    "heads of a revocation": ("formats", 'need(len(set(named)) == len(named) and', 'need(True or'),
    "refusal": ("verify_bundle", '        raise Bad(f"{document.path}: no agreement key of an', '        Bad(f"{document.path}: no agreement key of an'),
    "rejected leaf": ("verify_bundle", 'need(entry is None or entry.leaf == document.payload["leaf"]', 'need(True'),
    "termination by a side": ("verify_bundle", 'need(by in (', 'need(True or by in ('),
    "receipt root": ("verify_bundle", 'need(receipt["root"] == log.root(size)', 'need(True'),
    "receipt sums": ("verify_bundle", 'if receipt["start"] >= log.first:', 'if False:'),
    "rejections counted": ("verify_bundle", 'need(receipt["rejected"]["digest"] == digest', 'need(True'),
    "receipts before": ("verify_bundle", 'need(new["previous"] == before.digest', 'need(True'),
    "receipts take nothing back": ("verify_bundle", 'need(grows and same and', 'need(True or'),
    "reach": ("verify_bundle", '(size.get(document.kind) or 0) > self.log.to', 'False'),
    "policy digest": ("verify_bundle", 'need(sha256(b"countersign.pol1" + framed).hex() == folder', 'need(True'),
    "decision made again": ("verify_bundle", 'need(allowed == record["allowed"] or revoked', 'need(True'),
    "reason of a decision": ("verify_bundle", 'need((policies, []) == (record["policies"], record["errors"])', 'need(True'),
    "facts of another question": ("verify_bundle", 'need(ours and (facts', 'need(True or (facts'),
    "ledger logs go on from those before": ("verify_bundle", 'lambda: successors.check(self), ', ''),
    "decision is the ledger's": ("verify_bundle", 'need(here in (None, [data])', 'need(True'),
    "ledger's decision is here": ("verify_bundle", 'if here is None:', 'if False:'),
    "ledger's document is here": ("verify_bundle", 'if whole and document.digest not in payloads:', 'if False:'),
    "document is the ledger's": ("verify_bundle", 'need(consumers.get(agreement) not in about', 'need(True'),
    "members come once": ("formats", 'need(len(dict(members)) == len(members)', 'need(True'),
    "unknown members": ("formats", 'need("*" in form or not value.keys() - form.keys()', 'need(True'),
    "canonical base64": ("formats", 'and base64.b64encode(raw).decode() == value', ''),
    "good keys": ("formats", 'need(good_key(key), where', 'need(True, where'),
    "tar checksum": ("formats", 'need(int(total, 8) == sum(head)', 'need(True or sum(head)'),
}

LINES = {}      # check -> its line

def without(check):
    """The verifier's modules, without one check."""
    file, old, new = CHECKS[check]
    modules, here = {}, os.path.dirname(os.path.abspath(__file__))
    for name in ("formats", "verify_bundle"):
        with open(os.path.join(here, name + ".py")) as source:
            text = source.read()
        if name == file:
            if text.count(old) != 1:
                sys.exit(f"check `{check}` is not found just once in {name}.py: {old}")
            LINES[check] = text[:text.index(old)].count("\n") + 1
            text = text.replace(old, new)
        modules[name] = types.ModuleType(name)
        kept = sys.modules.get("formats")
        sys.modules["formats"] = modules["formats"] if name == "verify_bundle" else kept
        try:
            exec(compile(text, f"{name}.py without {check}", "exec"), modules[name].__dict__)
        finally:
            sys.modules["formats"] = kept
    return modules["verify_bundle"]

def verdict(verifier, folder, trust):
    try:
        return verifier.verify(folder, trust)[0]
    except Exception as error:      # what the check kept away
        return type(error).__name__

def concerned(folder, trust, checks):
    """Which of these checks can have made the verdict: those on the lines where it came to its end, all where it came through."""
    try:
        verify_bundle.Bundle().check(formats.read_tar(folder) if os.path.isfile(folder) else formats.read_folder(folder), *formats.read_trust(trust))
    except formats.Bad as bad:
        ends = [(os.path.basename(frame.filename)[:-3], frame.lineno) for frame in traceback.extract_tb(bad.__traceback__)]
        return [check for check in checks if any(file == CHECKS[check][0] and abs(line - LINES[check]) < 4 for file, line in ends)]
    except formats.Lacking:
        pass
    return checks if verify_bundle.verify(folder, trust)[0] else []     # a check less does not make whole what is whole

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--number", type=int, default=3000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", default="")
    parser.add_argument("--keys", action="append", default=[])
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE=FINGERPRINT,...")
    options = parser.parse_args()
    signers = mutate.read_keys(options.keys)
    bases = [Base(folder, trust.split(",") if trust else [], signers) for folder, _, trust in (one.partition("=") for one in options.bundles)]
    mutate.share_leaves(bases)
    broken = {check: without(check) for check in CHECKS if re.search(options.only, check)}
    root = tempfile.mkdtemp(prefix="countersign-broken-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    work = Workplace(os.path.join(root, "work"))
    os.mkdir(work.root)
    try:
        for number in range(options.first, options.first + options.number):
            if not broken:
                break
            base, mutant, what = mutate.mutate(bases, options.seed, number)
            judge = lambda folder, trust: (verdict(verify_bundle, folder, trust), {
                check: verdict(broken[check], folder, trust) for check in concerned(folder, trust, list(broken))})
            try:
                right, wrong = work.judge(base, mutant, judge)
            except OSError:
                continue
            for check in [check for check, code in wrong.items() if code != right]:
                print(f"noticed without `{check}`: mutation {number} is {right}, and would be {wrong[check]} ({what[:100]})", flush=True)
                del broken[check]
    finally:
        shutil.rmtree(root)
    for check in broken:
        print(f"NOT noticed without `{check}`")
    return 1 if broken else 0

if __name__ == "__main__":
    sys.exit(main())
