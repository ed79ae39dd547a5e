//! Decision records: their form, and the index made from them.
//!
//! ```text
//! # 0001. Crate map                      number and title, as in the file name
//!
//! Status: accepted                       proposed | accepted | rejected | superseded by NNNN
//! Date: 2026-11-21
//!
//! ## Context  ## Choice  ## Refused alternatives  ## Consequences
//! ```

use std::fs;
use std::io;
use std::path::Path;

/// Where the records are.
pub(crate) const FOLDER: &str = "docs/decisions";
/// The generated index.
pub(crate) const INDEX: &str = "docs/decisions/README.md";
/// What a new record is copied from; it has the number zero, so that it is no record itself.
const TEMPLATE: &str = "0000-template.md";

const SECTIONS: [&str; 4] = [
    "## Context",
    "## Choice",
    "## Refused alternatives",
    "## Consequences",
];

/// One record.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) file: String,
    pub(crate) text: String,
}

/// All records in the order of their numbers, without the template and the index.
pub(crate) fn read(root: &Path) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(root.join(FOLDER))? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if is_record(&file) {
            let text = fs::read_to_string(entry.path())?;
            records.push(Record { file, text });
        }
    }
    records.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(records)
}

/// Whether a file in the folder is a record, by its name.
pub(crate) fn is_record(file: &str) -> bool {
    file.ends_with(".md") && file != "README.md" && file != TEMPLATE
}

/// The text of the index.
pub(crate) fn index(records: &[Record]) -> String {
    let mut text = format!(
        "# Decisions\n\nWhat was decided, why, and what was refused. A new record starts as a copy of [the template]({TEMPLATE}) under the next free number; \
         a record is not rewritten when the mind changes, but superseded.\n\nThis list is made by `cargo xtask generate --write`.\n\n\
         | number | decision | status |\n|---|---|---|\n"
    );
    for record in records {
        let number = record.file.get(..4).unwrap_or_default();
        let title = title(record).unwrap_or("(no title)");
        let status = status(record).map_or("(no status)", |(_, status)| status);
        text.push_str(&format!(
            "| {number} | [{title}]({}) | {status} |\n",
            record.file
        ));
    }
    text
}

/// What is wrong with the records: file, line (from 1), what.
pub(crate) fn faults(records: &[Record]) -> Vec<(String, usize, String)> {
    let mut faults = Vec::new();
    let mut number_before = 0;
    for record in records {
        let mut fault = |line: usize, what: String| {
            faults.push((format!("{FOLDER}/{}", record.file), line, what));
        };
        match number(&record.file) {
            None => {
                fault(1, String::from("the file name is not `NNNN-title.md`"));
                continue;
            }
            Some(number) if number == number_before => {
                fault(
                    1,
                    format!("the number {number:04} is taken twice: take the next free one"),
                );
            }
            Some(number) if number != number_before + 1 => {
                fault(
                    1,
                    format!(
                        "the number {:04} is missing before this one",
                        number_before + 1
                    ),
                );
                number_before = number;
            }
            Some(number) => number_before = number,
        }
        let heading = format!("# {}. ", &record.file[..4]);
        if title(record).is_none() || !record.text.starts_with(&heading) {
            fault(1, format!("the first line is not `{heading}` and a title"));
        }
        match status(record) {
            None => fault(1, String::from("there is no line `Status: ...`")),
            Some((line, status)) if !is_status(status, records) => fault(
                line,
                format!(
                    "`{status}` is no status: `proposed`, `accepted`, `rejected`, or `superseded by NNNN` with an existing number"
                ),
            ),
            Some(_) => {}
        }
        if !record.text.lines().any(is_date_line) {
            fault(1, String::from("there is no line `Date: YYYY-MM-DD`"));
        }
        for section in SECTIONS {
            if !record.text.lines().any(|line| line == section) {
                fault(1, format!("the section `{section}` is missing"));
            }
        }
    }
    faults
}

fn number(file: &str) -> Option<u32> {
    let (digits, rest) = file.split_at_checked(4)?;
    let well_formed = digits.bytes().all(|byte| byte.is_ascii_digit())
        && rest.starts_with('-')
        && rest.len() > "-.md".len();
    if well_formed {
        digits.parse().ok()
    } else {
        None
    }
}

fn title(record: &Record) -> Option<&str> {
    let (_, title) = record.text.lines().next()?.split_once(". ")?;
    Some(title).filter(|title| !title.trim().is_empty())
}

fn status(record: &Record) -> Option<(usize, &str)> {
    record
        .text
        .lines()
        .zip(1..)
        .find_map(|(line, number)| Some((number, line.strip_prefix("Status: ")?)))
}

fn is_status(status: &str, records: &[Record]) -> bool {
    if let Some(successor) = status.strip_prefix("superseded by ") {
        return successor.len() == 4
            && records
                .iter()
                .any(|record| record.file.get(..4) == Some(successor));
    }
    matches!(status, "accepted" | "proposed" | "rejected")
}

fn is_date_line(line: &str) -> bool {
    let Some(date) = line.strip_prefix("Date: ") else {
        return false;
    };
    date.len() == 10
        && date.bytes().enumerate().all(|(place, byte)| match place {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "Date: 2026-11-21\n\n## Context\n\n## Choice\n\n## Refused alternatives\n\n## Consequences\n";

    fn record(file: &str, status: &str) -> Record {
        Record {
            file: file.to_owned(),
            text: format!("# {}. A title\n\nStatus: {status}\n{BODY}", &file[..4]),
        }
    }

    #[track_caller]
    fn check(records: &[Record], expected: &str) {
        let faults = faults(records);
        if expected.is_empty() {
            assert!(faults.is_empty(), "{faults:?}");
        } else {
            assert!(
                faults.iter().any(|(_, _, what)| what.contains(expected)),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn well_formed_records_pass() {
        check(
            &[
                record("0001-a.md", "superseded by 0002"),
                record("0002-b.md", "accepted"),
            ],
            "",
        );
    }

    #[test]
    fn a_status_is_one_of_four() {
        check(&[record("0001-a.md", "maybe")], "`maybe` is no status");
        check(&[record("0001-a.md", "superseded by 0009")], "is no status");
    }

    #[test]
    fn a_wrong_status_is_reported_at_its_line() {
        let faults = faults(&[record("0001-a.md", "maybe")]);
        assert_eq!(faults[0].1, 3);
    }

    #[test]
    fn numbers_are_neither_missing_nor_taken_twice() {
        check(&[record("0002-a.md", "accepted")], "0001 is missing");
        check(
            &[
                record("0001-a.md", "accepted"),
                record("0001-b.md", "accepted"),
            ],
            "taken twice",
        );
    }

    #[test]
    fn a_file_name_without_number_is_reported() {
        check(&[record("notes.md", "accepted")], "is not `NNNN-title.md`");
    }

    #[test]
    fn title_date_and_sections_are_required() {
        for (removed, expected) in [
            ("# 0001. A title", "first line"),
            ("Date: 2026-11-21", "no line `Date"),
            (
                "## Refused alternatives",
                "`## Refused alternatives` is missing",
            ),
            ("Status: accepted", "no line `Status"),
        ] {
            let mut broken = record("0001-a.md", "accepted");
            broken.text = broken.text.replace(removed, "gone");
            check(&[broken], expected);
        }
    }

    #[test]
    fn the_index_has_a_row_for_each_record() {
        let index = index(&[
            record("0001-a.md", "accepted"),
            record("0002-b.md", "proposed"),
        ]);
        assert!(index.contains("| 0001 | [A title](0001-a.md) | accepted |\n"));
        assert!(index.contains("| 0002 | [A title](0002-b.md) | proposed |\n"));
    }
}
