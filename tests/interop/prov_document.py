#!/usr/bin/env python3
"""Reads a stream's provenance with the package prov, and compares it with the stream's entries and receipts.

    prov_document.py AUTHORITY ENTRIES RECEIPTS WHOLE PART    ENTRIES, RECEIPTS: `stream tail --json`, `receipt ls --json`; WHOLE, PART: documents
"""
import json, sys
from prov.model import (ProvActivity, ProvAgent, ProvAssociation, ProvCommunication, ProvDocument, ProvEntity, ProvGeneration, ProvUsage,
                        PROV_ATTR_ACTIVITY, PROV_ATTR_AGENT, PROV_ATTR_ENTITY, PROV_ATTR_INFORMANT, PROV_ATTR_INFORMED, PROV_TYPE)

TERM = "urn:countersign:prov:v1:"

def need(holds, what):
    if not holds:
        sys.exit(f"prov: {what}")

def read(path):
    with open(path) as file:
        text = file.read()
    document = ProvDocument.deserialize(content=text, format="json")
    again = ProvDocument.deserialize(content=document.serialize(format="json"), format="json")
    need(again == document, f"{path} is another document once written and read again")
    members = json.loads(text)
    records = sum(len(value) for kind, value in members.items() if kind != "prefix")
    need(records == len(list(document.get_records())), f"{path} has records that prov does not read")
    return document

def only(values):
    values = list(values)
    need(len(values) == 1, f"one value is wanted, not {values}")
    return values[0]

def uri(name):
    return name.uri

def types(record):
    return [uri(name) for name in record.get_attribute(PROV_TYPE)]

def of(record, attribute):
    return uri(only(record.get_attribute(attribute)))

class Story:
    def __init__(self, document):
        entities = list(document.get_records(ProvEntity))
        self.entries = {}
        for entity in entities:
            if TERM + "Checkpoint" not in types(entity):
                # A literal of a type that prov has no Python type for, or a number.
                sequence = only(entity.get_attribute(uri_of("sequence", document)))
                self.entries[uri(entity.identifier)] = int(getattr(sequence, "value", sequence))
        self.checkpoints = {uri(entity.identifier) for entity in entities if TERM + "Checkpoint" in types(entity)}
        activities = list(document.get_records(ProvActivity))
        self.appends = {uri(one.identifier) for one in activities if TERM + "Append" in types(one)}
        self.receipts = {uri(one.identifier): one for one in activities if TERM + "Receipt" in types(one)}
        self.agents = {uri(one.identifier) for one in document.get_records(ProvAgent)}
        self.generated = {of(one, PROV_ATTR_ENTITY): of(one, PROV_ATTR_ACTIVITY) for one in document.get_records(ProvGeneration)}
        self.by = {of(one, PROV_ATTR_ACTIVITY): of(one, PROV_ATTR_AGENT) for one in document.get_records(ProvAssociation)}
        self.after = {of(one, PROV_ATTR_INFORMED): of(one, PROV_ATTR_INFORMANT) for one in document.get_records(ProvCommunication)}
        self.used = [(of(one, PROV_ATTR_ACTIVITY), of(one, PROV_ATTR_ENTITY)) for one in document.get_records(ProvUsage)]

def uri_of(term, document):
    return document.valid_qualified_name("cs:" + term)

def check(story, first, end, authority, receipts):
    need(sorted(story.entries.values()) == list(range(first, end)), f"it has not just the entries {first} to {end}")
    need(len(story.appends) == end - first, "it has not one append for each entry")
    need(set(story.generated) == set(story.entries) and set(story.generated.values()) == story.appends, "not every entry is made by an append")
    need(len(story.after) == end - first - 1, "not every append follows the one before it")
    for one, before in story.after.items():
        need(int(one.rsplit("-", 1)[1]) == int(before.rsplit("-", 1)[1]) + 1, f"{one} follows {before}")
    producer = "urn:countersign:organization:" + authority
    need(producer in story.agents and len(story.agents) == 2, "it has not producer and consumer as its organizations")
    need(all(story.by[one] == producer for one in story.appends), "an append is not the producer's")
    need(all(story.by[one] in story.agents - {producer} for one in story.receipts), "a receipt is not the consumer's")
    need(len(story.receipts) == len(receipts), f"{len(story.receipts)} receipts, not {len(receipts)}")
    covered = [story.entries[entity] for _, entity in story.used if entity in story.entries]
    last = max(one["size"] for one in receipts)
    # A reader that begins again has a further series, which covers what it reads again.
    need(sorted(set(covered)) == list(range(first, min(end, last))), "what was received is not just what the receipts cover")
    need(len(set(story.used)) == len(story.used), "a receipt covers an entry twice")
    accepted = [entity for _, entity in story.used if entity not in story.entries]
    need(len(accepted) == len(receipts) and set(accepted) <= story.checkpoints, "not every receipt accepts a checkpoint")

authority, entries, receipts, whole, part = sys.argv[1:]
with open(entries) as file:
    entries = [json.loads(line) for line in file]
with open(receipts) as file:
    receipts = json.load(file)
with open(whole) as file:
    text = file.read()
need(not any(word in text for word in ("pallet jack", "com.example.order", "quantity")), "something of an event is in it")

all_, some = read(whole), read(part)
story = Story(all_)
check(story, 0, len(entries), authority, receipts)
few = Story(some)
check(few, 40, 320, authority, receipts)
need(set(few.entries.items()) <= set(story.entries.items()), "an entry has another name in a part than in the whole")
need(set(few.receipts) <= set(story.receipts), "a receipt has another name in a part than in the whole")

# What is put together is what the larger one said already, but for the blank names of relations.
together = ProvDocument.deserialize(content=all_.serialize(format="json"), format="json")
together.update(some)
need(len(set(together.unified().get_records(ProvEntity))) == len(set(all_.get_records(ProvEntity))), "put together they name more things than the larger one")
print(f"prov: {len(story.entries)} entries, {len(story.receipts)} receipts, {len(story.used)} uses read, written and read again; a part of them agrees")
