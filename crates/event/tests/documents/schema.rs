//! A strict reader of the part of JSON Schema 2020-12 that `schemas/` uses. A keyword it does not know is an error: nothing in a schema passes
//! unread. (The published validators bring a quarter of a hundred crates.)

use std::collections::BTreeMap;
use std::sync::Mutex;

use regex::Regex;
use serde_json::{Map, Value};

pub(crate) struct Schema {
    root: Value,
    patterns: BTreeMap<String, Regex>,
}

impl Schema {
    /// The schema of a kind of document, version 1; read once.
    pub(crate) fn load(kind: &str) -> &'static Self {
        static LOADED: Mutex<BTreeMap<String, &'static Schema>> = Mutex::new(BTreeMap::new());
        let mut loaded = LOADED.lock().unwrap();
        let read = || Box::leak(Box::new(Self::read(kind)));
        loaded.entry(kind.to_owned()).or_insert_with(|| read())
    }

    fn read(kind: &str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas");
        let text = std::fs::read(format!("{folder}/{kind}.v1.json")).unwrap();
        let root: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(root["$id"], format!("urn:countersign:schema:{kind}:v1"));
        let dialect = "https://json-schema.org/draft/2020-12/schema";
        assert_eq!(root["$schema"], dialect);
        let mut patterns = BTreeMap::new();
        collect(&root, &mut patterns);
        Self { root, patterns }
    }

    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        self.node(&self.root, value, "")
    }

    /// Checks against one of its definitions.
    pub(crate) fn check_part(&self, part: &str, value: &Value) -> Result<(), String> {
        self.node(&self.root["$defs"][part], value, part)
    }

    fn node(&self, node: &Value, value: &Value, at: &str) -> Result<(), String> {
        let no = |why: &str| Err(format!("`{at}`: {why}"));
        for (keyword, rule) in node.as_object().unwrap() {
            let good = match keyword.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "description" | "format" => true,
                "$ref" => {
                    let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                    self.node(self.root["$defs"].get(name).unwrap(), value, at)?;
                    true
                }
                "type" => is_of_type(value, rule.as_str().unwrap()),
                "enum" => rule.as_array().unwrap().contains(value),
                "pattern" => {
                    text(value).is_none_or(|t| self.patterns[rule.as_str().unwrap()].is_match(t))
                }
                "allOf" => {
                    for part in rule.as_array().unwrap() {
                        self.node(part, value, at)?;
                    }
                    true
                }
                "minLength" => text(value).is_none_or(|t| t.chars().count() as u64 >= number(rule)),
                "maxLength" => text(value).is_none_or(|t| t.chars().count() as u64 <= number(rule)),
                // Only whole numbers from 0 on have bounds here, so that these two are exact.
                "minimum" => !value.is_number() || value.as_u64() >= Some(number(rule)),
                "maximum" => {
                    !value.is_number() || value.as_u64().is_some_and(|n| n <= number(rule))
                }
                "maxItems" => value
                    .as_array()
                    .is_none_or(|items| items.len() as u64 <= number(rule)),
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.node(rule, item, &format!("{at}/{index}"))?;
                    }
                    true
                }
                "required" => value.as_object().is_none_or(|members| {
                    let names = rule.as_array().unwrap();
                    names
                        .iter()
                        .all(|name| members.contains_key(name.as_str().unwrap()))
                }),
                "additionalProperties" => {
                    assert_eq!(rule, &Value::Bool(false));
                    let known = node["properties"].as_object().unwrap();
                    value
                        .as_object()
                        .is_none_or(|members| members.keys().all(|name| known.contains_key(name)))
                }
                "properties" => {
                    self.members(rule.as_object().unwrap(), value, at)?;
                    true
                }
                unknown => panic!("the keyword `{unknown}` is not known here"),
            };
            if !good {
                return no(keyword);
            }
        }
        Ok(())
    }

    fn members(&self, rules: &Map<String, Value>, value: &Value, at: &str) -> Result<(), String> {
        for (name, rule) in rules {
            assert!(rule["description"].is_string(), "`{name}` is not described");
            if let Some(member) = value.get(name) {
                self.node(rule, member, &format!("{at}/{name}"))?;
            }
        }
        Ok(())
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        unknown => panic!("the type `{unknown}` is not known here"),
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

fn number(rule: &Value) -> u64 {
    rule.as_u64().unwrap()
}

fn collect(node: &Value, patterns: &mut BTreeMap<String, Regex>) {
    if let Some(Value::String(text)) = node.get("pattern") {
        patterns.insert(text.clone(), Regex::new(text).unwrap());
    }
    match node {
        Value::Object(members) => members.values().for_each(|value| collect(value, patterns)),
        Value::Array(items) => items.iter().for_each(|item| collect(item, patterns)),
        _ => {}
    }
}
