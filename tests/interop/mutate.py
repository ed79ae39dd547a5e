#!/usr/bin/env python3
"""Changes evidence bundles in thousands of ways and compares the verdicts of `countersign evidence verify` and verify_bundle.py.

    mutate.py --countersign PATH [--number 3000] [--from 0] [--seed S] [--keys FILE]... BUNDLE=FINGERPRINT[,FINGERPRINT] ...

Mutation number k of a seed is always the same one for the same bundles. A change alone is mostly caught by the first digest in
its way, so most are carried through: the manifest is made to fit, and with `--keys` (PEM files, or JSON that holds some)
documents and logs are signed again, as an organization could that lies about its own log. Ends with 1 where verdicts differ.
"""
import argparse, collections, json, os, random, re, shutil, struct, subprocess, sys, tempfile, time
from cryptography.hazmat.primitives.serialization import load_pem_private_key
import formats, verify_bundle
from mutations import MUTATIONS, Mutant, Skip, raw_public

class Base:
    def __init__(self, folder, trust, signers):
        self.folder, self.trust, self.signers, self.files = folder, trust, signers, {}
        for path, (_, read) in formats.read_folder(folder).items():
            self.files[path] = read()
        self.leaves = []        # of the stream, from its beginning, where some bundle beside this one has them

class Workplace:
    """A copy of each base that mutants are laid down in, and taken out again."""

    def __init__(self, root):
        self.root, self.copies = root, {}

    def judge(self, base, mutant, judge):
        """What `judge` makes of the mutant, from its folder (or .tar) and whom to trust."""
        folder = self.copies.get(base.folder)
        if folder is None:
            folder = self.copies[base.folder] = os.path.join(self.root, str(len(os.listdir(self.root))))
            shutil.copytree(base.folder, folder)
        try:
            if mutant.tar:
                folder += ".tar"
                write(folder, mutant.tar)
            for path in set(base.files) | set(mutant.files):
                if not mutant.tar and base.files.get(path) != mutant.files.get(path):
                    write(os.path.join(folder, path), mutant.files.get(path))
            for path, kind in mutant.links.items():
                self.link(os.path.join(folder, path), kind)
            return judge(folder, base.trust)
        finally:
            self.restore(base, mutant)

    def link(self, full, kind):
        if kind in ("folder", "fifo"):
            return os.mkdir(full) if kind == "folder" else os.mkfifo(full)
        if kind == "linked folder":
            full = os.path.dirname(full)
        os.rename(full, os.path.join(self.root, "moved"))
        os.symlink(os.path.join(self.root, "moved"), full)

    def restore(self, base, mutant):
        folder, added = self.copies[base.folder], mutant.files.keys() - base.files.keys()
        if mutant.tar:
            os.remove(folder + ".tar")
        elif mutant.links or any("/" in path for path in added):     # folders may be in the way: begin anew
            del self.copies[base.folder]
            shutil.rmtree(self.root)
            os.mkdir(self.root)
            self.copies.clear()
        else:
            for path in added | {path for path in base.files if base.files[path] != mutant.files.get(path)}:
                write(os.path.join(folder, path), base.files.get(path))

def run(binary, folder, trust):
    """Exit code and last words of `countersign evidence verify`."""
    words = [word for one in trust for word in ("--trust", one)]
    answer = subprocess.run([binary, "evidence", "verify", folder, *words], capture_output=True, timeout=60)
    told = (answer.stdout + answer.stderr).decode(errors="replace")
    return answer.returncode, told.strip().split("\n")[-1]

def write(full, raw):
    if raw is None:
        if os.path.lexists(full):
            os.remove(full)
        return
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as file:
        file.write(raw)

def share_leaves(bases):
    """Also a range is told the leaf hashes of what lies before it, as its parties know them."""
    for base in bases:
        tiles = sorted(path for path in base.files if path.startswith("log/tile/0/"))
        origin = json.loads(base.files["manifest.json"])["logs"][0]
        if tiles[0].startswith("log/tile/0/000"):
            base.leaves = [base.files[path][at:at + 32] for path in tiles for at in range(0, len(base.files[path]), 32)]
            for other in bases:
                if not other.leaves and json.loads(other.files["manifest.json"])["logs"][0]["origin"] == origin["origin"]:
                    other.leaves = base.leaves

def read_keys(paths):
    """fingerprint -> private key, of every PEM in these files."""
    signers = {}
    for path in paths:
        with open(path) as file:
            text = file.read().replace("\\n", "\n")
        for pem in re.findall(r"-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n", text):
            key = load_pem_private_key(pem.encode(), None)
            signers[formats.fingerprint(raw_public(key))] = key
    return signers

def mutate(bases, seed, number):
    """(base, mutant, what was done) of a number of a seed."""
    rng = random.Random(f"{seed}/{number}")
    weights, functions = zip(*MUTATIONS)
    while True:
        base, function = rng.choice(bases), rng.choices(functions, weights)[0]
        mutant = Mutant(base)
        try:
            what = f"{function.__name__}: {function(rng, mutant)}"
            if rng.random() < .2 and not mutant.tar and not mutant.links:       # what is false counts more than what is missing
                other = rng.choices(functions, weights)[0]
                what += f"; {other.__name__}: {other(rng, mutant)}"
            if mutant.tar or mutant.links or mutant.files != base.files:
                return base, mutant, what
        except (Skip, KeyError, IndexError, ValueError, TypeError, AttributeError, StopIteration, struct.error):
            continue        # it does not fit this bundle, or what an earlier step made of it

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--countersign", required=True)
    parser.add_argument("--number", type=int, default=3000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--seed", default=None)
    parser.add_argument("--keys", action="append", default=[])
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE=FINGERPRINT,...")
    options = parser.parse_args()
    seed = options.seed or str(random.SystemRandom().randrange(10 ** 9))
    signers = read_keys(options.keys)
    bases = [Base(folder, trust.split(",") if trust else [], signers) for folder, _, trust in (one.partition("=") for one in options.bundles)]
    share_leaves(bases)
    print(f"seed {seed}, mutations {options.first} to {options.first + options.number - 1} of {len(bases)} bundles, {len(signers)} keys to sign with")
    verdicts, kinds, different, began = collections.Counter(), collections.Counter(), 0, time.time()
    root = tempfile.mkdtemp(prefix="countersign-mutants-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    work = Workplace(os.path.join(root, "work"))
    os.mkdir(work.root)
    try:
        for number in range(options.first, options.first + options.number):
            base, mutant, what = mutate(bases, seed, number)
            try:
                ours, told, theirs, reasons = work.judge(base, mutant, lambda folder, trust: (
                    *run(options.countersign, folder, trust), *verify_bundle.verify(folder, trust)))
            except OSError:
                verdicts["could not be laid down"] += 1
                continue
            except Exception:
                print(f"stopped at {number}: {what}")
                raise
            verdicts[{0: "whole", 6: "failed", 9: "inconclusive"}.get(ours, f"exit {ours}")] += 1
            kinds[what.split(":")[0], ours] += 1
            if options.verbose or ours != theirs:
                print(f"{number}: {os.path.basename(base.folder)}: {what}\n  countersign {ours}: {told}\n  verify_bundle {theirs}: {(reasons or ['whole'])[0]}")
            different += ours != theirs
    finally:
        shutil.rmtree(root)
    for (kind, code), count in sorted(kinds.items()):
        print(f"  {kind:24} {code} {count:6}")
    print(f"{dict(verdicts)}; {different} different; {time.time() - began:.0f} s; repeat one with --seed {seed} --from NUMBER --number 1")
    return 1 if different else 0

if __name__ == "__main__":
    sys.exit(main())
