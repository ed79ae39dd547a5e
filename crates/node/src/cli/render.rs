//! Answers for people: aligned tables and fields, sizes and times in words. Scripts use `--json` and get the answer as it is.

use std::fmt::Write as _;

use serde_json::Value;

/// How an answer is laid out.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// List or one thing.
    pub shape: Shape,
    /// What is shown, in this order.
    pub columns: &'static [Column],
}

/// The outline of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// One thing: a line for each member, unlisted members last.
    Fields,
    /// A list: a line for each item, the columns that are listed; where none are, all members.
    Table,
}

/// A member of the answer and its heading.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The member. Its ending says how it is shown: `_bytes`, `_ms`, `_us`, `_s`.
    pub key: &'static str,
    /// The heading.
    pub title: &'static str,
}

impl View {
    /// One thing, all its members.
    pub const FIELDS: Self = Self {
        shape: Shape::Fields,
        columns: &[],
    };
    /// A list, all members of its items.
    pub const TABLE: Self = Self {
        shape: Shape::Table,
        columns: &[],
    };

    /// The text for a whole answer.
    #[must_use]
    pub fn render(&self, value: &Value) -> String {
        match (self.shape, value) {
            (Shape::Table, Value::Array(items)) => self.table(items),
            (_, Value::Object(_)) => self.fields(value),
            (_, Value::Null) => String::new(),
            _ => format!("{}\n", shown("", value)),
        }
    }

    /// One line for an item of a stream.
    #[must_use]
    pub fn line(&self, item: &Value) -> String {
        let cells: Vec<String> = self
            .keys(item)
            .iter()
            .map(|(key, _)| shown(key, &item[key.as_str()]))
            .collect();
        if cells.is_empty() {
            return format!("{}\n", shown("", item));
        }
        format!("{}\n", cells.join("  "))
    }

    fn keys(&self, item: &Value) -> Vec<(String, String)> {
        let listed = self
            .columns
            .iter()
            .map(|column| (column.key.to_owned(), column.title.to_owned()));
        let unlisted = item
            .as_object()
            .into_iter()
            .flat_map(|members| members.keys())
            .filter(|key| !self.columns.iter().any(|column| column.key == **key))
            .map(|key| (key.clone(), key.replace('_', " ")));
        match self.shape {
            Shape::Fields => listed.chain(unlisted).collect(),
            Shape::Table if self.columns.is_empty() => unlisted.collect(),
            Shape::Table => listed.collect(),
        }
    }

    fn fields(&self, value: &Value) -> String {
        let lines: Vec<(String, String)> = self
            .keys(value)
            .into_iter()
            .filter_map(|(key, title)| {
                let member = value.get(&key).filter(|member| !member.is_null())?;
                let text = match member {
                    Value::Array(items) if items.iter().any(Value::is_object) => {
                        indented(&View::TABLE.table(items))
                    }
                    Value::Object(_) => indented(&View::FIELDS.fields(member)),
                    _ => shown(&key, member),
                };
                Some((title, text))
            })
            .collect();
        let width = lines
            .iter()
            .map(|(title, _)| width(title))
            .max()
            .unwrap_or(0);
        lines
            .iter()
            .fold(String::new(), |mut text, (title, value)| {
                let gap = if value.starts_with('\n') {
                    0
                } else {
                    width + 2 - self::width(title)
                };
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{title}{:gap$}{value}", "");
                text
            })
    }

    fn table(&self, items: &[Value]) -> String {
        let Some(first) = items.first() else {
            return String::new();
        };
        let keys = self.keys(first);
        if keys.is_empty() {
            return items.iter().map(|item| self.line(item)).collect();
        }
        let mut rows: Vec<Vec<String>> =
            vec![keys.iter().map(|(_, title)| title.to_uppercase()).collect()];
        rows.extend(items.iter().map(|item| {
            keys.iter()
                .map(|(key, _)| shown(key, &item[key.as_str()]))
                .collect()
        }));
        let widths: Vec<usize> = (0..keys.len())
            .map(|column| {
                rows.iter()
                    .map(|row| width(&row[column]))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let numeric: Vec<bool> = keys
            .iter()
            .map(|(key, _)| items.iter().all(|item| item[key.as_str()].is_number()))
            .collect();
        rows.iter().fold(String::new(), |mut text, row| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = widths[column] - width(cell);
                let (before, after) = if numeric[column] { (gap, 0) } else { (0, gap) };
                let _ = write!(line, "{:before$}{cell}{:after$}  ", "", "");
            }
            let _ = writeln!(text, "{}", line.trim_end());
            text
        })
    }
}

/// A value in words. What came from others must not move the cursor or ring bells: control characters are shown as `?`.
fn shown(key: &str, value: &Value) -> String {
    let number = value.as_u64();
    let text = match (value, number) {
        (Value::Null, _) => "-".to_owned(),
        (Value::String(text), _) if text.is_empty() => "-".to_owned(),
        (Value::String(text), _) => text.clone(),
        (Value::Bool(yes), _) => if *yes { "yes" } else { "no" }.to_owned(),
        (Value::Array(items), _) => match items.is_empty() {
            true => "-".to_owned(),
            false => items
                .iter()
                .map(|item| shown(key, item))
                .collect::<Vec<_>>()
                .join(", "),
        },
        (Value::Object(members), _) if !members.is_empty() => members
            .iter()
            .map(|(name, value)| format!("{name} = {}", shown(name, value)))
            .collect::<Vec<_>>()
            .join(", "),
        (_, Some(number)) if key.ends_with("_bytes") => bytes(number),
        (_, Some(number)) if key.ends_with("_us") => duration_us(number),
        (_, Some(number)) if key.ends_with("_ms") => duration_us(number.saturating_mul(1_000)),
        (_, Some(number)) if key.ends_with("_s") => duration_us(number.saturating_mul(1_000_000)),
        _ => value.to_string(),
    };
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Bytes in binary units, three digits at most.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // Below 2^64 this is at most 6, the place of EiB.
    let power = (count.ilog2() / 10) as usize;
    let scaled = count as f64 / 1024_f64.powi(power as i32);
    let digits = usize::from(scaled < 10.0);
    format!("{scaled:.digits$} {}", UNITS[power - 1])
}

/// A span of time in its two largest units.
fn duration_us(us: u64) -> String {
    let seconds = us / 1_000_000;
    match seconds {
        0 if us < 1_000 => format!("{us} us"),
        0 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        1..60 => format!("{seconds}.{} s", us % 1_000_000 / 100_000),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        let _ = write!(all, "\n  {line}");
        all
    })
}

/// Characters, which for the names and numbers here are columns.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_align_and_say_sizes_in_words() {
        let items = json!([
            {"name": "quakes", "size": 12, "content_bytes": 1_572_864, "idle_ms": 1_500},
            {"name": "a", "size": 1_234, "content_bytes": 3, "idle_ms": 90_000_000},
        ]);
        let view = View {
            shape: Shape::Table,
            columns: &[
                Column {
                    key: "name",
                    title: "stream",
                },
                Column {
                    key: "size",
                    title: "size",
                },
                Column {
                    key: "content_bytes",
                    title: "content",
                },
                Column {
                    key: "idle_ms",
                    title: "idle",
                },
            ],
        };
        assert_eq!(
            view.render(&items),
            "STREAM  SIZE  CONTENT     IDLE\n\
             quakes    12  1.5 MiB    1.5 s\n\
             a       1234      3 B  1 d 1 h\n"
        );
        assert_eq!(view.render(&json!([])), "");
    }

    #[test]
    fn fields_show_unlisted_members_and_nested_lists() {
        let value = json!({"stream": "quakes", "head": 3, "readers": [{"app": "b", "next": 2}]});
        let view = View {
            shape: Shape::Fields,
            columns: &[Column {
                key: "stream",
                title: "stream",
            }],
        };
        assert_eq!(
            view.render(&value),
            "stream   quakes\nhead     3\nreaders\n  APP  NEXT\n  b       2\n"
        );
    }

    #[test]
    fn control_characters_of_others_do_not_reach_the_terminal() {
        let item = json!({"reason": "\u{1b}[2Jgone\n"});
        assert_eq!(View::TABLE.line(&item), "?[2Jgone?\n");
    }

    #[test]
    fn every_size_has_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(u64::MAX), "16 EiB");
        assert_eq!(duration_us(999), "999 us");
        assert_eq!(duration_us(u64::MAX), "213503982 d 8 h");
    }
}
