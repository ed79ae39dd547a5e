//! Power is lost, processes are killed, syncs and writes fail: nothing acknowledged is lost, changed, reordered or
//! doubled, and what was not acknowledged is there whole or not at all.
//!
//! `COUNTERSIGN_POWER_LOSS_SEEDS` sets the number of seeds (default 5,000).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use countersign_crypto::SeededEntropy;
use countersign_store::disk::{Disk, SyncSite};
use countersign_store::journal::{
    CommitError, CreateError, EraseError, Erasure, Journal, LogNumber, OpenError,
};
use countersign_store::sim::{OpKind, SimDisk};

use support::{Dice, Model, ModelLog, PartOptions, SMALL, birth, check_all, check_gone, dir, open};

/// What is known to be stable, and what may be: the commit under way when everything stopped.
#[derive(Clone, Default)]
struct Truth {
    acknowledged: Model,
    in_flight: Option<Model>,
    snapshot: Option<(u64, Vec<u8>)>,
    /// Snapshots that were under way since: each may show, and may be gone again until one is acknowledged.
    snapshots_in_flight: Vec<Option<(u64, Vec<u8>)>>,
    created: bool,
    /// The last commit that the durable head file covers.
    heads_synced: bool,
}

impl Truth {
    /// Checks a reopened journal and takes over what it decided about the commit under way.
    fn settle(&mut self, journal: &Journal) -> Result<(), String> {
        let reader = journal.reader();
        let held = check_all(&reader, &self.acknowledged).and_then(|()| {
            let extra = reader.logs().len() > self.acknowledged.len();
            if extra {
                return Err("a log that nobody opened".to_owned());
            }
            Ok(())
        });
        if let Err(lost) = held {
            let Some(in_flight) = &self.in_flight else {
                return Err(lost);
            };
            check_all(&reader, in_flight).map_err(|other| format!("{lost}; {other}"))?;
            self.acknowledged = in_flight.clone();
        }
        self.in_flight = None;
        let snapshot = reader.read_snapshot("state").map_err(|e| e.to_string())?;
        if snapshot != self.snapshot && !self.snapshots_in_flight.contains(&snapshot) {
            return Err("the snapshot is gone".to_owned());
        }
        Ok(())
    }
}

/// Runs a workload until it is done or the disk stops.
fn work(disk: &SimDisk, truth: &mut Truth, dice: &mut Dice, rounds: u64) -> Result<(), String> {
    let mut journal = match start(disk, truth, dice)? {
        Some(journal) => journal,
        None => return Ok(()),
    };
    for _ in 0..rounds {
        match dice.below(20) {
            0 => {
                let commit = journal.last_commit();
                let state = vec![u8::try_from(commit % 251).unwrap(); 600];
                truth
                    .snapshots_in_flight
                    .push(Some((commit, state.clone())));
                if journal.write_snapshot("state", commit, &state).is_err() {
                    return Ok(());
                }
                truth.snapshot = truth.snapshots_in_flight.pop().flatten();
                truth.snapshots_in_flight.clear();
            }
            1 => {
                if journal.sync_heads().is_err() {
                    return Ok(());
                }
                truth.heads_synced = true;
            }
            2 => drop(journal.preparer().prepare_next()),
            3 => match journal.erase_some(1 + dice.below(2000)) {
                Ok(true) => {}
                Ok(false) => check_gone(disk, &truth.acknowledged)?,
                Err(_) => return Ok(()),
            },
            _ => {
                let (model, parts) = next_parts(&mut journal, &truth.acknowledged, dice);
                truth.in_flight = Some(model);
                truth.heads_synced = false;
                if journal.commit(parts).is_err() {
                    return Ok(());
                }
                truth.acknowledged = truth.in_flight.take().unwrap();
            }
        }
    }
    let checked = check_all(&journal.reader(), &truth.acknowledged);
    if !disk.is_stopped() {
        checked?;
    }
    if dice.below(2) == 0 && journal.close().is_ok() {
        truth.heads_synced = true;
    }
    Ok(())
}

fn start(disk: &SimDisk, truth: &mut Truth, dice: &mut Dice) -> Result<Option<Journal>, String> {
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let entropy = || Box::new(SeededEntropy::new(dice.0));
    if !truth.created {
        match Journal::create(Arc::clone(&arc), &dir(), SMALL, entropy()) {
            Ok(journal) => {
                truth.created = true;
                return Ok(Some(journal));
            }
            // The creation that was interrupted had come to its end.
            Err(CreateError::Exists(_)) => truth.created = true,
            Err(CreateError::Io { .. }) => return Ok(None),
            Err(other) => return Err(other.to_string()),
        }
    }
    match Journal::open(arc, &dir(), SMALL, entropy()) {
        Ok((journal, _)) => match truth.settle(&journal) {
            Err(_) if disk.is_stopped() => Ok(None),
            Err(lost) => Err(lost),
            Ok(()) if dice.below(3) == 0 => Ok(Some(journal)),
            Ok(()) => finish_erasing(disk, journal, truth),
        },
        Err(OpenError::Io { .. }) if disk.is_stopped() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What was erased before the stop is overwritten by what was left to do, and stays away when power fails right after.
fn finish_erasing(
    disk: &SimDisk,
    mut journal: Journal,
    truth: &Truth,
) -> Result<Option<Journal>, String> {
    loop {
        match journal.erase_some(3000) {
            Ok(true) => {}
            Ok(false) => break,
            Err(EraseError::Read(error)) if !disk.is_stopped() => return Err(error.to_string()),
            Err(_) => return Ok(None),
        }
    }
    check_gone(disk, &truth.acknowledged)?;
    check_gone(&disk.after_worst_power_loss(), &truth.acknowledged)
        .map_err(|error| format!("after power was lost: {error}"))?;
    Ok(Some(journal))
}

/// A commit for some of up to four logs.
fn next_parts(
    journal: &mut Journal,
    model: &Model,
    dice: &mut Dice,
) -> (Model, Vec<countersign_store::journal::PartInput>) {
    let mut model = model.clone();
    let mut parts = Vec::new();
    let logs = journal.logs();
    if logs.len() < 4 && (logs.is_empty() || dice.below(8) == 0) {
        let number = u32::try_from(logs.len()).unwrap() + 1;
        assert_eq!(journal.open_log(birth(number)).unwrap().value(), number);
    }
    let mut logs: Vec<LogNumber> = journal.logs().iter().map(|log| log.number).collect();
    // A log that was opened has its first commit at once, so that logs of the model and of the journal are the same.
    logs.retain(|log| !model.contains_key(&log.value()) || dice.below(2) == 0);
    if logs.is_empty() {
        logs.push(journal.logs()[0].number);
    }
    for log in logs {
        let large = dice.below(12) == 0;
        let options = PartOptions {
            events: usize::try_from(dice.below(if large { 60 } else { 6 })).unwrap(),
            content_bytes_max: 1 + dice.below(600),
            annotation: vec![3; usize::try_from(dice.below(40)).unwrap()],
            cover: vec![4; usize::try_from(dice.below(3) * 50).unwrap()],
            sign: dice.below(2) == 0,
            absent: false,
            erasures: Vec::new(),
        };
        let model = model.entry(log.value()).or_default();
        let options = with_erasures(options, model, dice);
        parts.push(model.part(log, options, dice));
    }
    (model, parts)
}

/// Now and then entries are erased, and now and then those of the part itself come without content.
fn with_erasures(mut options: PartOptions, model: &ModelLog, dice: &mut Dice) -> PartOptions {
    let size = model.entries.len() as u64;
    let by = size + 7;
    if dice.below(4) == 0 && size > 0 {
        let first = dice.below(size);
        let end = first + 1 + dice.below(size - first);
        options.erasures.push(Erasure { first, end, by });
    }
    if dice.below(8) == 0 && options.events > 0 {
        options.absent = true;
        let end = size + options.events as u64;
        let first = size;
        options.erasures.push(Erasure { first, end, by });
    }
    options
}

/// Seeds in which the disk is stopped at a random operation, up to three times in a row, then power is lost (or only the
/// process killed), and at last the journal goes on for a while.
fn run_seed(seed: u64, dropped: Option<SyncSite>) -> Result<(), String> {
    let mut dice = Dice(seed);
    let mut disk = SimDisk::new();
    let mut truth = Truth::default();
    let drop_site = |disk: &SimDisk| {
        if let Some(site) = dropped {
            disk.drop_syncs_of(site);
        }
    };
    for life in 0..3 + dice.below(2) {
        drop_site(&disk);
        // Some lives end early, in creation or recovery; some end with a clean close.
        let reach = if dice.below(3) == 0 { 12 } else { 150 };
        if dice.below(6) != 0 {
            disk.stop_at(1 + dice.below(reach));
        }
        let rounds = 3 + dice.below(25);
        work(&disk, &mut truth, &mut dice, rounds).map_err(|e| format!("life {life}: {e}"))?;
        disk = match dice.below(4) {
            0 => disk.after_kill(),
            1 => disk.after_worst_power_loss(),
            _ => disk.after_power_loss(dice.next()),
        };
        check_recorded_heads(&disk, &truth).map_err(|e| format!("life {life}: {e}"))?;
    }
    work(&disk, &mut truth, &mut dice, 10).map_err(|e| format!("last life: {e}"))?;
    let disk = disk.after_worst_power_loss();
    work(&disk, &mut truth, &mut dice, 0).map_err(|e| format!("in the end: {e}"))
}

/// Where heads were synced after the last commit, losing that commit now is damage and must not pass for a torn tail.
fn check_recorded_heads(disk: &SimDisk, truth: &Truth) -> Result<(), String> {
    if !truth.heads_synced || truth.acknowledged.is_empty() {
        return Ok(());
    }
    let disk = disk.fork();
    let Some((path, offset)) = last_commit_header(&disk) else {
        return Err("the last commit is not to be found".to_owned());
    };
    let mut bytes = disk.contents(&path).unwrap();
    bytes[offset + 40] ^= 1;
    disk.tamper(&path, bytes);
    let before = disk.fork();
    match open(&disk, SMALL, 1) {
        Err(OpenError::Damage(_)) if same_files(&before, &disk) => Ok(()),
        Err(OpenError::Damage(_)) => Err("something was written on damage".to_owned()),
        Ok(_) => Err("damage below a recorded head passed for a torn tail".to_owned()),
        Err(other) => Err(other.to_string()),
    }
}

/// Where the commit header with the highest number is.
fn last_commit_header(disk: &SimDisk) -> Option<(PathBuf, usize)> {
    let mut last = None;
    for path in disk.files() {
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let bytes = disk.contents(&path).unwrap();
        for offset in (512..bytes.len().saturating_sub(128)).step_by(512) {
            if bytes[offset..].starts_with(b"CSCOMT\r\n") {
                let number =
                    u64::from_be_bytes(bytes[offset + 24..offset + 32].try_into().unwrap());
                last = last.max(Some((number, path.clone(), offset)));
            }
        }
    }
    last.map(|(_, path, offset)| (path, offset))
}

fn same_files(a: &SimDisk, b: &SimDisk) -> bool {
    let files = a.files();
    files == b.files()
        && files
            .iter()
            .all(|path| path.ends_with("lock") || a.contents(path) == b.contents(path))
}

fn seeds() -> u64 {
    std::env::var("COUNTERSIGN_POWER_LOSS_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(5000)
}

#[test]
fn nothing_acknowledged_is_lost_when_power_fails() {
    let seeds = seeds();
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                for seed in (half..seeds).step_by(2) {
                    if let Err(error) = run_seed(seed, None) {
                        panic!("seed {seed}: {error}");
                    }
                }
            });
        }
    });
}

#[test]
fn each_sync_that_is_removed_is_missed() {
    for &site in SyncSite::ALL {
        let missed = (0..3000).find(|&seed| run_seed(seed, Some(site)).is_err());
        assert!(
            missed.is_some(),
            "nobody misses the sync of {}",
            site.name()
        );
    }
}

#[test]
fn a_seed_gives_the_same_disk_twice() {
    let run = || {
        let disk = SimDisk::new();
        let mut truth = Truth::default();
        work(&disk, &mut truth, &mut Dice(42), 40).unwrap();
        disk.after_power_loss(7)
    };
    let (a, b) = (run(), run());
    assert!(!a.files().is_empty() && same_files(&a, &b));
}

/// A fixed workload is killed at each of its operations in turn.
#[test]
fn a_process_killed_at_any_operation_loses_nothing() {
    for n in 1.. {
        let disk = SimDisk::new();
        disk.stop_at(n);
        let mut truth = Truth::default();
        let mut dice = Dice(9);
        work(&disk, &mut truth, &mut dice, 30).unwrap();
        let done = disk.operations() < n;
        let disk = disk.after_kill();
        // Killed again within recovery, then left to it.
        disk.stop_at(1 + n % 4);
        work(&disk, &mut truth, &mut dice, 0).unwrap_or_else(|e| panic!("operation {n}: {e}"));
        let disk = disk.after_kill();
        work(&disk, &mut truth, &mut dice, 5).unwrap_or_else(|e| panic!("operation {n}: {e}"));
        if done {
            assert!(n > 100, "the workload is too short: {n} operations");
            return;
        }
    }
}

/// Each operation of each kind fails once: what was acknowledged before and after is there, after a kill and after the
/// worst power loss.
#[test]
fn a_failed_operation_leads_to_no_false_acknowledgement() {
    for kind in [
        OpKind::Sync,
        OpKind::Write,
        OpKind::Create,
        OpKind::Rename,
        OpKind::CreateDir,
        OpKind::Remove,
        OpKind::Read,
    ] {
        for n in 1.. {
            let disk = SimDisk::new();
            disk.fail(kind, n);
            let mut truth = Truth::default();
            let mut dice = Dice(11);
            match work(&disk, &mut truth, &mut dice, 40) {
                // Whoever reads is told.
                Err(error) if kind == OpKind::Read && error.contains("Input/output") => {}
                worked => worked.unwrap_or_else(|error| panic!("{kind:?} {n}: {error}")),
            }
            let done = disk.count(kind) < n;
            for disk in [disk.after_kill(), disk.after_worst_power_loss()] {
                let (mut truth, mut dice) = (truth.clone(), Dice(12));
                work(&disk, &mut truth, &mut dice, 5)
                    .unwrap_or_else(|error| panic!("{kind:?} {n}: {error}"));
                // What recovery kept it also made durable, whatever a failed sync had left behind.
                let disk = disk.after_worst_power_loss();
                work(&disk, &mut truth, &mut dice, 5)
                    .unwrap_or_else(|error| panic!("{kind:?} {n}, again: {error}"));
            }
            if done {
                break;
            }
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_more_is_acknowledged() {
    let disk = SimDisk::new();
    let mut truth = Truth::default();
    let mut dice = Dice(13);
    let mut journal = start(&disk, &mut truth, &mut dice).unwrap().unwrap();
    let (model, parts) = next_parts(&mut journal, &truth.acknowledged, &mut dice);
    journal.commit(parts).unwrap();
    disk.fail(OpKind::Sync, disk.count(OpKind::Sync) + 1);
    let (_, parts) = next_parts(&mut journal, &model, &mut dice);
    let failed = journal.commit(parts.clone());
    assert!(matches!(failed, Err(CommitError::Io { .. })));
    assert!(matches!(journal.commit(parts), Err(CommitError::Poisoned)));
    assert!(matches!(journal.sync_heads(), Err(CommitError::Poisoned)));
    check_all(&journal.reader(), &model).unwrap();
    assert!(journal.is_poisoned());
}

#[test]
fn a_full_disk_refuses_keeps_serving_and_takes_up_again() {
    let disk = SimDisk::new();
    let mut truth = Truth::default();
    let mut dice = Dice(14);
    let mut journal = start(&disk, &mut truth, &mut dice).unwrap().unwrap();
    let mut model = Model::new();
    let mut refused = 0;
    for round in 0..200 {
        disk.set_full(round % 20 >= 5);
        let (after, parts) = next_parts(&mut journal, &model, &mut dice);
        match journal.commit(parts.clone()) {
            Ok(_) => model = after,
            Err(CommitError::Full) => {
                refused += 1;
                check_all(&journal.reader(), &model).unwrap();
                // Refused again as long as it lasts, taken as soon as there is room.
                assert!(matches!(
                    journal.commit(parts.clone()),
                    Err(CommitError::Full)
                ));
                disk.set_full(false);
                journal.commit(parts).unwrap();
                model = after;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 5);
    drop(journal);
    let (journal, _) = open(&disk.after_worst_power_loss(), SMALL, 1).unwrap();
    check_all(&journal.reader(), &model).unwrap();
}

#[test]
fn every_sync_names_its_site() {
    // The list of sites comes from the code, and the harness removes each. A raw sync elsewhere would escape it.
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut waiting = vec![source.clone()];
    let mut seen = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let place = format!("{}:{}", path.display(), number + 1);
            for raw in ["sync_data()", "sync_all()", "fsync", "fdatasync("] {
                let allowed = path.ends_with("disk.rs") || line.trim_start().starts_with("//");
                assert!(allowed || !line.contains(raw), "raw sync at {place}");
            }
            if let Some((_, site)) = line.split_once("SyncSite::")
                && !path.ends_with("disk.rs")
                && !path.ends_with("sim.rs")
            {
                let name: String = site.chars().take_while(|c| c.is_alphanumeric()).collect();
                seen.push(name);
            }
        }
    }
    seen.sort();
    let mut listed: Vec<&str> = SyncSite::ALL.iter().map(|site| site.name()).collect();
    listed.sort_unstable();
    assert_eq!(seen, listed, "each site is used at exactly one place");
}
