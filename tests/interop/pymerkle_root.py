#!/usr/bin/env python3
"""Computes the roots of a log with the package pymerkle, from the entries of a bundle of all of it.

    pymerkle_root.py BUNDLE OLDER.checkpoint ONE.tlog-proof

The settings are pymerkle's own: SHA-256, and `security`, which puts 0x00 before a leaf and 0x01 before a node, as RFC 6962 2.1 does. Signatures are not looked at.
"""
import base64, os, struct, sys
import pymerkle

def need(holds, what):
    if not holds:
        sys.exit(f"pymerkle: {what}")

def checkpoint(text):
    origin, size, root = text.split("\n")[:3]
    return int(size), base64.b64decode(root)

def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()

def entries_of(bundle, size):
    entries = []
    for bundle_number in range((size + 255) // 256):
        width = min(256, size - 256 * bundle_number)
        path = f"{bundle_number:03}" + ("" if width == 256 else f".p/{width}")
        raw, at = read(bundle, "log/tile/entries", path), 0
        for _ in range(width):
            length, = struct.unpack_from(">H", raw, at)
            entries.append(raw[at + 2:at + 2 + length])
            at += 2 + length
        need(at == len(raw), f"entry bundle {path} has {len(raw)} bytes where its entries have {at}")
    return entries

def tree_of(entries, **options):
    tree = pymerkle.InmemoryTree(algorithm="sha256", **options)
    for entry in entries:
        tree.append_entry(entry)
    return tree

def main(bundle, older, proof):
    size, root = checkpoint(read(bundle, "log/checkpoint").decode())
    need(size < 256_000, "so large a log has longer paths than this script writes")
    entries = entries_of(bundle, size)
    tree = tree_of(entries)
    need(tree.get_root() == root, f"the root of {size} entries is {tree.get_root().hex()}, the checkpoint's {root.hex()}")
    print(f"root of {size} entries: that of the bundle's checkpoint")

    old_size, old_root = checkpoint(read(older).decode())
    need(0 < old_size < size, "the older checkpoint is not of fewer entries")
    need(tree.get_root(old_size) == old_root, f"the root of the first {old_size} entries is {tree.get_root(old_size).hex()}, the older checkpoint's {old_root.hex()}")
    print(f"root of the first {old_size}: that of the older checkpoint")

    # pymerkle counts leaves from 1 and begins its path with the leaf's own hash; after that both have the siblings from below.
    head, _, note = read(proof).decode().partition("\n\n")
    index, hashes = int(head.split("\n")[1].split(" ")[1]), [base64.b64decode(line) for line in head.split("\n")[2:]]
    need(checkpoint(note) == (size, root), "the proof of one entry is to another tree")
    path = tree.prove_inclusion(index + 1).path
    need(path[1:] == hashes, f"pymerkle's path of entry {index} is another one than that of {proof}")
    print(f"path of entry {index}: that of the .tlog-proof")

    refused = 0
    for number in range(size):
        entry = bytearray(entries[number])
        entry[number % len(entry)] ^= 1
        others = entries[:number] + [bytes(entry)] + entries[number + 1:]
        need(tree_of(others).get_root() != root, f"entry {number} altered gives the same root")
        refused += 1
    for what, others in (("entries 40 and 41 exchanged", entries[:40] + [entries[41], entries[40]] + entries[42:]), ("the last entry left out", entries[:-1]),
                         ("the last entry twice", entries + entries[-1:])):
        need(tree_of(others).get_root() != root, f"{what}: the same root")
        refused += 1
    need(tree_of(entries, disable_security=True).get_root() != root, "the root is the same without RFC 6962's prefixes")
    print(f"pymerkle {pymerkle.__version__}, sha256, security on: roots and path are the same; {refused + 1} altered logs have another root")

main(*sys.argv[1:])
