"""Ledger logs of later generations go on where the one before them ends, as schemas/bundle.md says, for verify_bundle.py."""
import re
from formats import Lacking, need, number, parse, unbase64

def check(bundle):
    ledgers = {log.origin: log for log in bundle.logs[1:]}
    for log in ledgers.values():
        if log.origin.count("/") == 3:
            bundle.tolerate(check_one, log, ledgers)

def check_one(log, ledgers):
    where = f"{log.origin}, entry 0"
    need(log.genesis, where, "it is not disclosed what the log goes on from", Lacking)
    cites = parse(log.genesis[2], where, whole=False).get("cites")
    need(type(cites) is dict and {"origin", "size", "root"} <= cites.keys(), where, "it does not say what the log goes on from")
    origin, size, root = cites["origin"], number(cites["size"], where), unbase64(cites["root"], where, 32)
    first, generation = log.origin.rsplit("/", 1)
    last = int(generation[:4]) - 1
    before = re.escape(first) + (f"/{last:04}-[0-9a-f]{{8}}" if last > 1 else "")
    need(type(origin) is str and re.fullmatch(before, origin) and size > 0, where, "it goes on from what is not the generation before")
    need(origin in ledgers, where, f"{origin}, which it goes on from, is not here", Lacking)
    held = ledgers[origin]
    need(size > held.size or held.root(size) == root, where, f"{origin} has another tree of {size} entries")
    need(size == held.size, where, f"it goes on from {size} entries of {origin}, {held.size} are here", Lacking)
