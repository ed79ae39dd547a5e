
/// The runs without content are those that the manifest owns up to; and they are evidence that is not here.
pub(crate) fn judge_undisclosed(manifest: &Manifest, number: usize, walked: &Walked, found: &mut Collector<'_>) {
    let mut stated: Vec<(u64, u64)> = Vec::new();
    let mut reason = "";
    for run in manifest.undisclosed.iter().filter(|run| run.log == number) {
        reason = &run.reason;
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
    if let Some((from, _)) = here.first() {
        let entries: u64 = here.iter().map(|(from, to)| to - from).sum();
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
        let what = format!("the contents of {entries} entries are not disclosed; the exporter says: {reason}");
        push(Severity::Missing, *from, what);
    }
}
