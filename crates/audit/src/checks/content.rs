//! Each content is what its entry commits to.

use countersign_event::content::{ContentError, EventRef, check_content, check_stated_bytes};
use countersign_event::control::Allows;
use countersign_event::entry::{Entry, Kind};

use crate::content_file::{DIRECTORY_BYTES_MAX, content_bytes, decode_directory, directory_bytes};
use crate::files::BundleFile;
use crate::layout::content_path;
use crate::manifest::{Manifest, Undisclosed};
use crate::report::{Check, Collector, Finding, Severity};
use crate::walk::{Desk, Fact, Run, Walk, Walked};
use crate::write::ContentLengths;

/// Contents are read in pieces of about this size; a larger one is read alone.
const PIECE_BYTES: u64 = 1 << 20;

/// What the contents of one run are.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) count: u64,
    pub(crate) encrypted: u64,
    pub(crate) bytes: u64,
    /// Events of which members are withheld, and how many members that are.
    pub(crate) views: u64,
    pub(crate) withheld: u64,
    /// Entries without content, and whether they are events.
    pub(crate) undisclosed: Vec<(u64, bool)>,
    /// Tombstones and expiries, by their sequence.
    pub(crate) allows: Vec<(u64, Allows)>,
    pub(crate) facts: Vec<Fact>,
    pub(crate) genesis: Option<Genesis>,
}

/// What the first entry of a log is.
#[derive(Clone, Debug)]
pub(crate) struct Genesis {
    pub(crate) control: bool,
    pub(crate) event_type: String,
    pub(crate) data: Vec<u8>,
}

/// Checks the content file of one run.
pub(crate) fn check_run(walk: &Walk<'_>, index: u64, desk: &mut Desk, run: &mut Run) {
    let Some(contents) = walk.contents else {
        return;
    };
    let path = format!("{contents}{}", content_path(index));
    if let Err(what) = check_file(walk, index, &path, desk, run) {
        let first = walk.span.content_of(index).start;
        run.findings
            .push(walk.finding(Check::Content, Some(first), Some(path), what));
    }
}

fn check_file(
    walk: &Walk<'_>,
    index: u64,
    path: &str,
    desk: &mut Desk,
    run: &mut Run,
) -> Result<(), String> {
    let unreadable =
        |fault: &dyn std::fmt::Display| format!("the contents cannot be read: {fault}");
    let here = walk.span.content_of(index);
    let first = walk.span.leaves_of(index).start;
    let file = walk.files.file(path).map_err(|fault| unreadable(&fault))?;
    let contents = read_directory(&file, here.end - here.start)?;
    let mut offset = directory_bytes(here.end - here.start) as u64;
    let mut rest = contents.as_slice();
    let mut sequence = here.start;
    while !rest.is_empty() {
        let (mut take, mut bytes) = (0, 0u64);
        while take < rest.len() && (take == 0 || bytes + content_bytes(rest[take]) <= PIECE_BYTES) {
            bytes += content_bytes(rest[take]);
            take += 1;
        }
        // At most one piece, or one content: the directory has been checked against both limit and file.
        let length = usize::try_from(bytes).unwrap_or(0);
        let mut left = file
            .read_into(offset, length, &mut desk.bytes)
            .map_err(|fault| unreadable(&fault))?;
        for lengths in &rest[..take] {
            let length = usize::try_from(content_bytes(*lengths)).unwrap_or(0);
            let (content, others) = left.split_at(length.min(left.len()));
            left = others;
            let at = usize::try_from(sequence - first).unwrap_or(usize::MAX);
            let entry = desk.entries.get(at).and_then(Option::as_ref);
            match *lengths {
                ContentLengths::Undisclosed => {
                    let event = entry.is_some_and(|entry| entry.kind == Kind::Event);
                    run.contents.undisclosed.push((sequence, event));
                    // Receipts count what it states, and nothing here shows another length.
                    let stated =
                        entry.map(|entry| check_stated_bytes(entry.flags, entry.data_bytes));
                    if let Some(Err(fault)) = stated {
                        let (file, what) = (Some(path.to_owned()), fault.to_string());
                        run.findings
                            .push(walk.finding(Check::Content, Some(sequence), file, what));
                    }
                }
                ContentLengths::Disclosed { attributes, .. } => {
                    if let Some(what) = check_one(
                        walk,
                        sequence,
                        entry,
                        content,
                        attributes,
                        &mut run.contents,
                    ) {
                        let file = Some(path.to_owned());
                        run.findings
                            .push(walk.finding(Check::Content, Some(sequence), file, what));
                    }
                }
            }
            sequence += 1;
        }
        offset += bytes;
        rest = &rest[take..];
    }
    Ok(())
}

fn read_directory(file: &BundleFile<'_>, count: u64) -> Result<Vec<ContentLengths>, String> {
    let mut directory = [0; DIRECTORY_BYTES_MAX];
    let directory = &mut directory[..directory_bytes(count)];
    file.read_exact_at(0, directory)
        .map_err(|fault| format!("the contents cannot be read: {fault}"))?;
    decode_directory(directory, count, file.bytes()).map_err(|fault| fault.to_string())
}

/// Checks one content; says what is wrong with it.
fn check_one(
    walk: &Walk<'_>,
    sequence: u64,
    entry: Option<&Entry>,
    content: &[u8],
    attributes: u16,
    contents: &mut Contents,
) -> Option<String> {
    // An entry that could not be read has been reported.
    let entry = entry?;
    contents.count += 1;
    contents.bytes += content.len() as u64;
    let event = match check_content(entry, content, usize::from(attributes)) {
        Ok(event) => event,
        Err(ContentError::Encrypted) => {
            // Its commitments hold; only recipients can look further.
            contents.encrypted += 1;
            return None;
        }
        Err(fault) => return Some(fault.to_string()),
    };
    if let Some(view) = event.data().view() {
        contents.views += 1;
        contents.withheld += view.withheld() as u64;
    }
    if sequence == 0 {
        contents.genesis = Some(genesis(entry, &event));
    }
    if entry.kind == Kind::Control {
        note_control(sequence, &event, contents);
    }
    if let Some(fact) = walk.look.and_then(|look| look(sequence, &event)) {
        contents.facts.push(fact);
    }
    None
}

/// Apart from what is done for each event: control entries are few.
#[cold]
#[inline(never)]
fn note_control(sequence: u64, event: &EventRef<'_>, contents: &mut Contents) {
    let allows = Allows::read(event);
    contents
        .allows
        .extend(allows.map(|allows| (sequence, allows)));
}

fn genesis(entry: &Entry, event: &EventRef<'_>) -> Genesis {
    Genesis {
        control: entry.kind == Kind::Control,
        event_type: event.attributes().kind().to_owned(),
        data: event.data().data.to_vec(),
    }
}

/// The runs without content are those that the manifest owns up to; and what no tombstone or expiry allows is evidence that is not here.
pub(crate) fn judge_undisclosed(
    manifest: &Manifest,
    number: usize,
    walked: &Walked,
    found: &mut Collector<'_>,
) {
    let mut stated: Vec<(u64, u64)> = Vec::new();
    for run in manifest.undisclosed.iter().filter(|run| run.log == number) {
        match stated.last_mut() {
            Some((_, to)) if *to == run.from => *to = run.to,
            _ => stated.push((run.from, run.to)),
        }
    }
    let mut push = |severity, sequence, what: String| {
        found.push(Finding {
            check: Check::Content,
            severity,
            log: manifest.logs.get(number).map(|log| log.origin.to_string()),
            sequence: Some(sequence),
            file: None,
            what,
        });
    };
    let here = &walked.undisclosed;
    let differs = (0..here.len().max(stated.len())).find(|at| here.get(*at) != stated.get(*at));
    if let Some(at) = differs
        && walked.complete
    {
        let first = |runs: &[(u64, u64)]| runs.get(at).map_or(u64::MAX, |run| run.0);
        let what = "what is not disclosed is not what the manifest says".to_owned();
        push(Severity::False, first(here).min(first(&stated)), what);
    }
    let unaccounted = walked.unaccounted();
    let runs = |runs: &[(u64, u64)]| runs.iter().map(|(from, to)| to - from).sum::<u64>();
    if let Some((from, _)) = unaccounted.first() {
        let entries = runs(&unaccounted);
        let stated = |run: &&Undisclosed| run.log == number && run.from <= *from && *from < run.to;
        let reason = manifest.undisclosed.iter().find(stated);
        let reason = reason.map_or("", |run| run.reason.as_str());
        let reason: String = reason
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        let what = format!(
            "the contents of {entries} entries are not disclosed, and nothing here allows it; the exporter says: {reason}"
        );
        push(Severity::Missing, *from, what);
    }
    let allowed = runs(here).saturating_sub(runs(&unaccounted));
    if allowed > 0 {
        let what =
            format!("{allowed} contents erased or expired, each as a control entry here says");
        found.done(Check::Content, what);
    }
}
