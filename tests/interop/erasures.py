"""Erasure requests and answers of a bundle, as schemas/bundle.md says, for verify_bundle.py."""
from formats import Lacking, need

def check(bundle):
    bundle.requests = {}        # id -> (payload, digest, consumer)
    for document in bundle.documents:
        if document.kind == "erasure-request":
            bundle.tolerate(check_request, bundle, document)
            bundle.reach(document, document.path)
    for document in bundle.documents:
        if document.kind == "erasure-answer":
            bundle.tolerate(check_answer, bundle, document)
            bundle.reach(document, document.path)

def is_shown(log, sequence):
    return log.start <= sequence < log.to and sequence not in log.withheld

def check_request(bundle, document):
    payload, where, log = document.payload, document.path, bundle.log
    agreement = bundle.agreement_of(document)
    need(payload["by"] == agreement["producer"]["authority"], where, "it is not the producer that asks")
    bundle.check_signed(document, payload["by"], "agreement")
    tombstone = log.allowances.get(payload["tombstone"])
    named = tombstone == ("sequence", payload["sequence"]) and payload["sequence"] < payload["tombstone"]
    need(named or not is_shown(log, payload["tombstone"]), where, "what it names is no tombstone of it")
    known = bundle.requests.setdefault(payload["id"], (payload, document.digest, agreement["consumer"]["authority"]))
    need(known[1] == document.digest, where, "another request has its id")

def check_answer(bundle, document):
    payload, where = document.payload, document.path
    need(payload["stream"] == bundle.log.origin, where, "it is about another log")
    need(payload["request"] in bundle.requests, where, "the request that it answers is not here", Lacking)
    request, digest, consumer = bundle.requests[payload["request"]]
    need((payload["digest"], payload["sequence"]) == (digest, request["sequence"]), where, "it answers another request")
    need(payload["by"] == consumer, where, "who answers was not asked")
    bundle.check_signed(document, consumer, "agreement")
    need(payload["outcome"] != "done" or not is_shown(bundle.log, payload["sequence"]), where, "it says done, and the content is here")

def agreement_of(bundle, document):
    """Which agreement a document concerns."""
    if document.kind == "erasure-answer":
        asked = (one.payload["agreement"] for one in bundle.documents if one.kind == "erasure-request" and one.payload["id"] == document.payload["request"])
        return next(asked, None)
    return document.payload.get("id" if document.kind == "agreement" else "agreement")
