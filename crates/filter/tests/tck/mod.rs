//! Reads the conformance cases: as much of YAML as their files use, and an end where one uses more.

/// One case.
#[derive(Debug, Default)]
pub struct Case {
    pub name: String,
    pub expression: String,
    pub result: Option<Scalar>,
    pub error: Option<String>,
    pub event: Vec<(String, Scalar)>,
}

#[derive(Clone, Debug)]
pub enum Scalar {
    Boolean(bool),
    Integer(i32),
    Text(String),
}

impl Scalar {
    /// A plain or quoted scalar of YAML.
    fn read(text: &str) -> Self {
        let quoted = |quote| {
            let inner = text.strip_prefix(quote)?;
            inner.strip_suffix(quote)
        };
        if let Some(inner) = quoted('"') {
            return Self::Text(inner.replace("\\\"", "\"").replace("\\\\", "\\"));
        }
        if let Some(inner) = quoted('\'') {
            return Self::Text(inner.replace("''", "'"));
        }
        match text {
            "true" | "TRUE" => Self::Boolean(true),
            "false" | "FALSE" => Self::Boolean(false),
            _ => text
                .parse()
                .map_or_else(|_| Self::Text(text.to_owned()), Self::Integer),
        }
    }

    /// The text as it stands, whatever YAML would make of it: expressions and names.
    fn text(written: &str) -> String {
        match Self::read(written) {
            Self::Text(text) => text,
            _ => written.to_owned(),
        }
    }
}

/// The cases of one file.
pub fn read(file: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut in_event = false;
    for line in file.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if line.is_empty() || indent == 0 {
            continue;
        }
        if let Some(name) = line.strip_prefix("- name: ") {
            cases.push(Case {
                name: name.to_owned(),
                ..Case::default()
            });
            in_event = false;
            continue;
        }
        let case = cases.last_mut().unwrap();
        let (key, value) = line.split_once(':').unwrap();
        let value = value.trim();
        if in_event && indent > 4 {
            case.event.push((key.to_owned(), Scalar::read(value)));
            continue;
        }
        in_event = false;
        match key {
            "expression" => case.expression = Scalar::text(value),
            "result" => case.result = Some(Scalar::read(value)),
            "error" => case.error = Some(value.to_owned()),
            "event" | "eventOverrides" if value.is_empty() => in_event = true,
            _ => panic!("{line}"),
        }
    }
    cases
}
