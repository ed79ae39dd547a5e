//! The dialects of CloudEvents Subscriptions, their canonical text and its digest.

use countersign_crypto::{Hash, sha256};
use countersign_event::attributes::check_name;

use crate::TEXT_BYTES_MAX;
use crate::error::{FilterError, FilterErrorKind};
use crate::expression::{NODES_MAX, Parsed, WORK_MAX, parse, read_steps};
use crate::json::Json;
use crate::slots::{Found, Names};

/// How deep `all`, `any` and `not` may be nested.
pub const DIALECT_DEPTH_MAX: usize = 16;

/// A filter: a list of rules, all of which an event has to meet. One without rules is met by every event.
#[derive(Clone, Debug)]
pub struct Filter {
    canonical: String,
    digest: Hash,
    names: Names,
    rules: Vec<Rule>,
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for Filter {}

#[derive(Clone, Debug)]
enum Rule {
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Compare {
        how: Compare,
        slot: u8,
        text: Box<str>,
    },
    Not(Box<Rule>),
    Sql(Box<Parsed>),
}

#[derive(Clone, Copy, Debug)]
enum Compare {
    Exact,
    Prefix,
    Suffix,
}

impl Filter {
    /// Reads a filter as people and programs write it: a JSON list of rules, or one rule.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn from_json(text: &str) -> Result<Self, FilterError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(FilterError::new(FilterErrorKind::Length, TEXT_BYTES_MAX));
        }
        let json: Json = serde_json::from_str(text).map_err(|error| {
            let what = FilterErrorKind::Json("this is not valid JSON");
            FilterError::new(what, offset(text, error.line(), error.column()))
        })?;
        let rules = match json {
            Json::List(rules) => rules,
            rule => vec![rule],
        };
        Self::read(&rules)
    }

    /// The filter that is this CESQL expression.
    ///
    /// # Errors
    /// [`FilterError`]; one within the expression has its place there, and no path.
    pub fn from_expression(text: &str) -> Result<Self, FilterError> {
        let rule = Json::Object(vec![("sql".to_owned(), Json::Text(text.to_owned()))]);
        Self::read(&[rule]).map_err(|error| FilterError {
            path: String::new(),
            ..error
        })
    }

    /// Reads the canonical text, and nothing else.
    ///
    /// # Errors
    /// [`FilterError`]; [`FilterErrorKind::NotCanonical`] where the text means a filter that is written otherwise.
    pub fn from_canonical(text: &str) -> Result<Self, FilterError> {
        let filter = Self::from_json(text)?;
        if filter.canonical != text {
            return Err(FilterError::new(FilterErrorKind::NotCanonical, 0));
        }
        Ok(filter)
    }

    /// The filter that lets through what passes this one and the other: the rules of both, in this order.
    ///
    /// # Errors
    /// [`FilterError`] where both together pass a limit.
    pub fn and(&self, other: &Self) -> Result<Self, FilterError> {
        let rules = |filter: &Self| {
            let inner = filter.canonical.strip_prefix('[');
            inner
                .and_then(|inner| inner.strip_suffix(']'))
                .unwrap_or_default()
                .to_owned()
        };
        let both: Vec<String> = [rules(self), rules(other)]
            .into_iter()
            .filter(|rules| !rules.is_empty())
            .collect();
        Self::from_canonical(&format!("[{}]", both.join(",")))
    }

    fn read(rules: &[Json]) -> Result<Self, FilterError> {
        let mut reader = Reader {
            names: Names::default(),
            nodes: 0,
            path: String::new(),
            out: String::new(),
        };
        let rules = reader.list(rules, 0).map_err(|mut error| {
            error.path.clone_from(&reader.path);
            error
        })?;
        if reader.out.len() > TEXT_BYTES_MAX {
            return Err(FilterError::new(FilterErrorKind::Length, 0));
        }
        Ok(Self {
            digest: sha256(reader.out.as_bytes()),
            canonical: reader.out,
            names: reader.names,
            rules,
        })
    }

    /// The one text of this filter: JSON without spaces, a list at the top, names in ascending order.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// SHA-256 of the canonical text: what subscriptions, receipts and the ledger name the filter by.
    #[must_use]
    pub fn digest(&self) -> Hash {
        self.digest
    }

    /// The attributes that it asks for, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter()
    }

    /// Whether an event with these attributes passes. They are canonical, as they are stored; what is not canonical may give either answer.
    #[must_use]
    #[inline]
    pub fn matches(&self, attributes: &[u8]) -> bool {
        self.judge(attributes).0
    }

    /// As [`Filter::matches`], and how many steps it took: at most [`WORK_MAX`], and all of that where it was not enough, so that the event does not pass.
    #[must_use]
    #[inline]
    pub fn judge(&self, attributes: &[u8]) -> (bool, u32) {
        let found = self.names.find(attributes);
        let mut left = WORK_MAX;
        match all(&self.rules, &found, &mut left) {
            Some(passes) => (passes, WORK_MAX - left),
            None => (false, WORK_MAX),
        }
    }
}

impl Rule {
    /// `None` where the work that is left does not suffice: then the event does not pass, also where this rule stands in a `not`.
    fn holds(&self, found: &Found<'_>, left: &mut u32) -> Option<bool> {
        *left = left.checked_sub(1)?;
        match self {
            Self::All(rules) => all(rules, found, left),
            Self::Any(rules) => {
                for rule in rules {
                    if rule.holds(found, left)? {
                        return Some(true);
                    }
                }
                Some(false)
            }
            Self::Compare { how, slot, text } => {
                let Some(value) = found.get(*slot) else {
                    return Some(false);
                };
                let (value, text) = (value.text_bytes(), text.as_bytes());
                *left = left.checked_sub(read_steps(value.len()))?;
                Some(match how {
                    Compare::Exact => *value == *text,
                    Compare::Prefix => value.starts_with(text),
                    Compare::Suffix => value.ends_with(text),
                })
            }
            Self::Not(rule) => rule.holds(found, left).map(|holds| !holds),
            Self::Sql(expression) => expression.is_true(found, left),
        }
    }
}

/// Whether all rules hold, in their order and up to the first that does not.
fn all(rules: &[Rule], found: &Found<'_>, left: &mut u32) -> Option<bool> {
    for rule in rules {
        if !rule.holds(found, left)? {
            return Some(false);
        }
    }
    Some(true)
}

/// Reads rules, and writes their canonical text along the way.
struct Reader {
    names: Names,
    nodes: usize,
    /// Where it is, for errors: left as it was where one came up.
    path: String,
    out: String,
}

impl Reader {
    fn list(&mut self, rules: &[Json], depth: usize) -> Result<Vec<Rule>, FilterError> {
        self.out.push('[');
        let mut out = Vec::with_capacity(rules.len());
        for (at, rule) in rules.iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            let before = self.path.len();
            self.path.push_str(&format!("[{at}]"));
            out.push(self.rule(rule, depth)?);
            self.path.truncate(before);
        }
        self.out.push(']');
        Ok(out)
    }

    fn rule(&mut self, rule: &Json, depth: usize) -> Result<Rule, FilterError> {
        if depth > DIALECT_DEPTH_MAX {
            return Err(error(FilterErrorKind::Depth));
        }
        self.count()?;
        let Json::Object(members) = rule else {
            return Err(error(FilterErrorKind::Dialect));
        };
        let [(dialect, body)] = &members[..] else {
            return Err(error(FilterErrorKind::Dialect));
        };
        let dialect = match &**dialect {
            dialect @ ("exact" | "prefix" | "suffix" | "all" | "any" | "not" | "sql") => dialect,
            _ => return Err(error(FilterErrorKind::Dialect)),
        };
        let before = self.path.len();
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(dialect);
        self.out.push_str("{\"");
        self.out.push_str(dialect);
        self.out.push_str("\":");
        let rule = match (dialect, body) {
            ("exact", Json::Object(members)) => self.compare(Compare::Exact, members)?,
            ("prefix", Json::Object(members)) => self.compare(Compare::Prefix, members)?,
            ("suffix", Json::Object(members)) => self.compare(Compare::Suffix, members)?,
            ("all" | "any", Json::List(rules)) => {
                if rules.is_empty() {
                    return Err(error(FilterErrorKind::Empty));
                }
                let rules = self.list(rules, depth + 1)?;
                if dialect == "all" {
                    Rule::All(rules)
                } else {
                    Rule::Any(rules)
                }
            }
            ("not", rule @ Json::Object(_)) => Rule::Not(Box::new(self.rule(rule, depth + 1)?)),
            ("sql", Json::Text(text)) => self.sql(text)?,
            ("all" | "any", _) => return Err(error(FilterErrorKind::Json("a list is wanted"))),
            ("sql", _) => return Err(error(FilterErrorKind::Json("a text is wanted"))),
            _ => return Err(error(FilterErrorKind::Json("an object is wanted"))),
        };
        self.out.push('}');
        self.path.truncate(before);
        Ok(rule)
    }

    fn compare(&mut self, how: Compare, members: &[(String, Json)]) -> Result<Rule, FilterError> {
        if members.is_empty() {
            return Err(error(FilterErrorKind::Empty));
        }
        let mut sorted: Vec<&(String, Json)> = members.iter().collect();
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        if sorted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(error(FilterErrorKind::Json("a name is given twice")));
        }
        self.out.push('{');
        let mut rules = Vec::with_capacity(sorted.len());
        for (at, (name, value)) in sorted.into_iter().enumerate() {
            self.count()?;
            check_attribute(name).map_err(error)?;
            let Json::Text(text) = value else {
                return Err(error(FilterErrorKind::Json("values of a filter are texts")));
            };
            if text.is_empty() {
                return Err(error(FilterErrorKind::Empty));
            }
            if at > 0 {
                self.out.push(',');
            }
            self.quote(name);
            self.out.push(':');
            self.quote(text);
            rules.push(Rule::Compare {
                how,
                slot: self.names.slot(name, 0)?,
                text: text.as_str().into(),
            });
        }
        self.out.push('}');
        Ok(match rules.pop() {
            Some(only) if rules.is_empty() => only,
            last => Rule::All(rules.into_iter().chain(last).collect()),
        })
    }

    fn sql(&mut self, text: &str) -> Result<Rule, FilterError> {
        self.quote(text);
        let parsed = parse(text, &mut self.names, &mut self.nodes)?;
        parsed.check_predicate()?;
        Ok(Rule::Sql(Box::new(parsed)))
    }

    fn quote(&mut self, text: &str) {
        // A text has no way to fail.
        self.out
            .push_str(&serde_json::to_string(text).unwrap_or_default());
    }

    fn count(&mut self) -> Result<(), FilterError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(error(FilterErrorKind::Nodes));
        }
        Ok(())
    }
}

/// Whether a filter can ask for an attribute of this name.
pub(crate) fn check_attribute(name: &str) -> Result<(), FilterErrorKind> {
    match name {
        "data" | "dssematerial" => Err(FilterErrorKind::Data),
        "" => Err(FilterErrorKind::Empty),
        _ => check_name(name.as_bytes()).map_err(|_| FilterErrorKind::Name),
    }
}

fn error(kind: FilterErrorKind) -> FilterError {
    FilterError::new(kind, 0)
}

/// The byte at a line and column, both from 1.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    (before + column.saturating_sub(1)).min(text.len())
}
