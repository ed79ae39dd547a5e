"""The part of Cedar (https://docs.cedarpolicy.com) that the starter policy and most of its examples use.

Whatever is beyond it raises ValueError: the caller then has no answer, rather than a wrong one.
"""
import re

TOKEN = re.compile(r'\s*(?://[^\n]*\s*)*("[^"\\\n]*"|&&|\|\||==|!=|::|[A-Za-z_]\w*|[0-9]+|[@(){}\[\],;.!])')
END = re.compile(r"\s*(?://[^\n]*\s*)*")

def decide(texts, facts):
    """(allowed, ids of the policies that determined it) for policy files (name, text) and the facts of a request."""
    env = environment(facts)
    held = {"permit": [], "forbid": []}
    for name, text in texts:
        for place, (effect, own_id, condition) in enumerate(Parser(text).policies(), 1):
            if condition(env) is True:
                held[effect].append(f"{name.removesuffix('.cedar')}/{own_id or place}")
    return not held["forbid"] and bool(held["permit"]), sorted(held["forbid"] or held["permit"])

def environment(facts):
    """Variables, and the attributes and parents of each entity. Entities are (type, id)."""
    (kind, who), = ((kind, who) for kind, who in facts["principal"].items() if who)
    organization = who.get("organization", who)
    home, resource = ("Organization", organization["authority"]), facts["resource"]
    principal = home if kind == "organization" else (kind.capitalize(), who["fingerprint"])
    stream = "Stream", resource["origin"]
    owner = "Organization", resource["owner"]
    attributes = {name: organization[name] for name in ("authority", "own", "partner", "region") if organization.get(name) is not None} | {name: who[name] for name in ("name", "fingerprint")}
    members = {name: resource[name] for name in ("name", "origin", "owner", "title", "labels") if resource[name] is not None}
    # What policies may ask of the time is beyond this subset: `now` is left out.
    context = {name: value for name, value in facts["context"].items() if value is not None and name != "now_us"}
    return {"principal": principal, "action": ("Action", facts["action"]), "resource": stream, "context": context,
            "attributes": {principal: attributes, stream: members}, "parents": {principal: {home}, stream: {owner}}}

class Parser:
    """Recursive descent; every method gives a function from the environment to a value."""

    def __init__(self, text):
        self.tokens, at = [], 0
        while END.match(text, at).end() < len(text):
            match = TOKEN.match(text, at)
            if not match:
                raise ValueError(f"{text[at:at + 20]!r} is beyond the part of Cedar that is known here")
            self.tokens.append(match[1])
            at = match.end()
        self.tokens.append(None)

    def next(self, *expected):
        token = self.tokens.pop(0)
        if token is None or expected and token not in expected:
            raise ValueError(f"{token!r} where {expected} is expected")
        return token

    def takes(self, *tokens):
        return self.next() if self.tokens[0] in tokens else None

    def policies(self):
        while self.tokens[0] is not None:
            own_id = None
            while self.takes("@"):
                key, _, value, _ = self.next(), self.next("("), self.next(), self.next(")")
                own_id = value[1:-1] if key == "id" else own_id
            effect, parts = self.next("permit", "forbid"), []
            for last in (("(", ","), (",",), (",",)):
                self.next(last[0])
                parts.append(self.scope())
            self.takes(",")
            self.next(")")
            while word := self.takes("when", "unless"):
                self.next("{")
                parts.append(self.condition(self.disjunction(), word == "when"))
                self.next("}")
            self.next(";")
            yield effect, own_id, lambda env, parts=parts: all(part(env) for part in parts)

    def scope(self):
        """`principal`, `principal == E`, `principal in E`, `action in [E, ...]`."""
        if self.tokens[1] in (",", ")"):
            self.next("principal", "action", "resource")
            return lambda env: True
        return self.relation()

    @staticmethod
    def condition(value, wanted):
        return lambda env: boolean(value(env)) is wanted

    def disjunction(self):
        parts = [self.conjunction()]
        while self.takes("||"):
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else lambda env: any(boolean(part(env)) for part in parts)

    def conjunction(self):
        parts = [self.relation()]
        while self.takes("&&"):
            parts.append(self.relation())
        return parts[0] if len(parts) == 1 else lambda env: all(boolean(part(env)) for part in parts)

    def relation(self):
        left = self.unary()
        word = self.takes("==", "!=", "in", "has")
        if word == "has":
            name = self.next()
            return lambda env: name.strip('"') in record(env, left(env))
        if word in ("==", "!="):
            right = self.unary()
            return lambda env: (left(env) == right(env)) == (word == "==")
        if word == "in":
            right = self.unary()
            return lambda env: is_in(env, left(env), right(env))
        return left

    def unary(self):
        if self.takes("!"):
            value = self.unary()
            return lambda env: not boolean(value(env))
        value = self.primary()
        while self.takes("."):
            value = self.member(value, self.next())
        return value

    def member(self, value, name):
        if not self.takes("("):
            return lambda env: record(env, value(env))[name]
        if name != "contains":
            raise ValueError(f"{name}() is beyond the part of Cedar that is known here")
        item = self.disjunction()
        self.next(")")
        return lambda env: item(env) in value(env)

    def primary(self):
        token = self.next()
        if token == "(":
            value = self.disjunction()
            self.next(")")
            return value
        if token == "[":
            items = []
            while not self.takes("]"):
                items.append(self.disjunction())
                self.takes(",")
            return lambda env: [item(env) for item in items]
        if token in ("true", "false"):
            return lambda env: token == "true"
        if token in ("principal", "action", "resource", "context"):
            return lambda env: env[token]
        if token.startswith('"'):
            return lambda env: token[1:-1]
        if token.isdigit():
            return lambda env: int(token)
        self.next("::")
        own_id = self.next()[1:-1]
        return lambda env: (token, own_id)

def boolean(value):
    if type(value) is not bool:
        raise ValueError("a condition is neither true nor false")
    return value

def record(env, value):
    return env["attributes"][value] if isinstance(value, tuple) else value

def is_in(env, entity, target):
    targets = target if isinstance(target, list) else [target]
    return entity in targets or bool(env["parents"].get(entity, set()) & set(targets))
