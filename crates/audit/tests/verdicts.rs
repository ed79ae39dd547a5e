//! What honest and hostile bundles come to.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs;

use countersign_audit::{
    Check, EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_WHOLE, Outcome, Trust, Verdict,
};
use countersign_event::documents::{AgreementId, Digest, Document, Rejection};
use countersign_event::entry::leaf_hash;
use countersign_event::time::Timestamp;
use support::*;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new(world: &World) -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        world.write(&place.path());
        place
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("bundle")
    }
}

#[test]
fn an_honest_bundle_is_whole_with_trust_and_inconclusive_without() {
    for size in [2, 10, 256, 257, 700] {
        let world = World::new(size);
        let place = Place::new(&world);
        let report = verify(&place.path(), &world.producer.trust());
        assert_eq!(report.verdict, Verdict::Whole, "{size}: {report}");
        assert!(
            report.checks.iter().all(|line| match line.check {
                Check::Timestamps | Check::Witnesses =>
                    matches!(line.outcome, Outcome::Skipped { .. }),
                _ => matches!(line.outcome, Outcome::Done { .. }),
            }),
            "{report}"
        );
        let by_vkey = Trust::of_vkeys([world.stream.vkey(), world.ledger.as_ref().unwrap().vkey()]);
        assert_eq!(code(&place.path(), &by_vkey), EXIT_WHOLE);
        let unknown = verify(&place.path(), &Trust::none());
        assert_eq!(unknown.verdict.exit_code(), EXIT_INCONCLUSIVE);
        assert!(
            unknown
                .to_string()
                .contains("nobody said that this key is right"),
            "{unknown}"
        );
        assert_eq!(code(&place.path(), &Org::new(9).trust()), EXIT_INCONCLUSIVE);
    }
}

#[test]
fn a_tar_file_says_the_same_as_the_directory() {
    let world = World::new(300);
    let directory = tempfile::tempdir().unwrap();
    let tar = directory.path().join("bundle.tar");
    world.write(&tar);
    let report = verify(&tar, &world.producer.trust());
    assert_eq!(report.verdict, Verdict::Whole, "{report}");
    assert_eq!(
        report,
        verify(&Place::new(&world).path(), &world.producer.trust())
    );
}

#[test]
fn a_range_is_whole_as_a_range_and_says_so() {
    let mut world = World::new(1500);
    world.ledger = None;
    world.documents.truncate(3);
    for (from, to) in [
        (0, 10),
        (1, 2),
        (255, 257),
        (256, 512),
        (300, 1400),
        (1400, 1500),
        (1300, 1301),
    ] {
        (world.from, world.to) = (from, to);
        let report = verify(&Place::new(&world).path(), &world.producer.trust());
        assert_eq!(report.verdict, Verdict::Whole, "{from}..{to}: {report}");
        assert!(report.sentence().contains("a part of its 1500"), "{report}");
    }
}

#[test]
fn a_rejection_is_compared_with_its_entry_only_where_that_is_here() {
    let mut world = World::new(600);
    world.ledger = None;
    let own = leaf_hash(&world.stream.entries[255]);
    let mut verdict = |from, leaf| {
        world.documents.truncate(3);
        let rejection = Rejection {
            agreement: AgreementId([5; 16]),
            stream: world.stream.origin.clone(),
            sequence: 255,
            leaf: Digest(leaf),
            reason: "not of our schema".to_owned(),
            made: Timestamp(T0 + 600),
        };
        world
            .documents
            .push(rejection.sign(&world.consumer.receipt));
        world.from = from;
        code(&Place::new(&world).path(), &world.producer.trust())
    };
    for from in [0, 255, 256, 300, 512] {
        assert_eq!(verdict(from, own), EXIT_WHOLE, "{from}");
    }
    assert_eq!(verdict(0, [1; 32]), EXIT_FAILED);
    assert_eq!(verdict(255, [1; 32]), EXIT_FAILED);
}

#[test]
fn every_flipped_byte_of_every_file_is_found() {
    flip_everything(&World::undecided(3), |_| true);
    // What the first bundle does not have.
    flip_everything(&World::new(3), |path| {
        path.starts_with("policies/") || path == "decisions.ndjson"
    });
}

fn flip_everything(world: &World, wanted: fn(&str) -> bool) {
    let trust = world.producer.trust();
    let whole = Place::new(world);
    let names: Vec<String> = files(&whole.path())
        .iter()
        .map(|file| {
            file.strip_prefix(whole.path())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .filter(|name| wanted(name))
        .collect();
    assert!(!names.is_empty());
    // Each thread has a copy of its own and takes every n-th file.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (names, trust) = (&names, &trust);
            scope.spawn(move || {
                let place = Place::new(world);
                for name in names.iter().skip(worker).step_by(workers) {
                    flip_each_byte(&place, &place.path().join(name), trust);
                }
                assert_eq!(code(&place.path(), trust), EXIT_WHOLE);
            });
        }
    });
}

fn flip_each_byte(place: &Place, file: &std::path::Path, trust: &Trust) {
    let honest = fs::read(file).unwrap();
    for at in 0..honest.len() {
        let mut altered = honest.clone();
        altered[at] ^= 1 << (at % 8);
        fs::write(file, &altered).unwrap();
        assert_ne!(
            code(&place.path(), trust),
            EXIT_WHOLE,
            "{} byte {at}",
            file.display()
        );
    }
    fs::write(file, &honest).unwrap();
}

#[test]
fn every_missing_and_every_cut_file_is_found() {
    let world = World::new(300);
    let place = Place::new(&world);
    for file in files(&place.path()) {
        let honest = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(
            code(&place.path(), &world.producer.trust()),
            EXIT_FAILED,
            "{}",
            file.display()
        );
        fs::write(&file, &honest[..honest.len() - 1]).unwrap();
        assert_eq!(
            code(&place.path(), &world.producer.trust()),
            EXIT_FAILED,
            "{}",
            file.display()
        );
        fs::write(&file, &honest).unwrap();
    }
}

#[test]
fn the_first_bad_entry_is_named() {
    let world = World::new(600);
    for sequence in [0usize, 1, 255, 256, 400, 599] {
        let place = Place::new(&world);
        let bundle = sequence / 256;
        let width = (600 - 256 * bundle).min(256);
        let suffix = if width < 256 {
            format!(".p/{width}")
        } else {
            String::new()
        };
        let file = place
            .path()
            .join(format!("log/tile/entries/{bundle:03}{suffix}"));
        let mut bytes = fs::read(&file).unwrap();
        // A byte of `prev`, of the time and of a commitment in turn.
        bytes[(sequence % 256) * 120 + 2 + [20, 50, 60][sequence % 3]] ^= 1;
        fs::write(&file, bytes).unwrap();
        let report = verify(&place.path(), &world.producer.trust());
        let Verdict::Failed { first } = &report.verdict else {
            panic!("{report}")
        };
        assert_eq!(first.sequence, Some(sequence as u64), "{report}");
        assert_eq!(first.log.as_deref(), Some(world.stream.origin.as_str()));
    }
    let place = Place::new(&world);
    let file = place.path().join("content/001");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(&file, bytes).unwrap();
    let report = verify(&place.path(), &world.producer.trust());
    let Verdict::Failed { first } = &report.verdict else {
        panic!("{report}")
    };
    assert_eq!(
        (first.check, first.sequence, first.file.as_deref()),
        (Check::Content, Some(511), Some("content/001"))
    );
}

#[test]
fn a_bundle_signed_anew_by_other_keys_is_never_whole() {
    // The whole history, made again under the keys of somebody else.
    let forged = World::of(Org::new(3), Org::new(2), 10);
    assert_eq!(
        code(&Place::new(&forged).path(), &Org::new(1).trust()),
        EXIT_INCONCLUSIVE
    );
    // The true statements, but the checkpoint by another key.
    let mut world = World::new(10);
    world.stream.key = Org::new(3).log;
    assert_eq!(
        code(&Place::new(&world).path(), &world.producer.trust()),
        EXIT_FAILED
    );
}

#[test]
fn a_true_beginning_of_a_longer_log_is_not_the_whole() {
    let mut world = World::new(100);
    (world.size, world.to) = (60, 60);
    let report = verify(&Place::new(&world).path(), &world.producer.trust());
    assert_eq!(report.verdict.exit_code(), EXIT_INCONCLUSIVE, "{report}");
    assert!(
        matches!(
            report.checks[Check::Coverage as usize].outcome,
            Outcome::Missing { .. }
        ),
        "{report}"
    );
    // Nor without the receipt itself: the ledger still tells of it.
    world.documents.pop();
    assert_ne!(
        code(&Place::new(&world).path(), &world.producer.trust()),
        EXIT_WHOLE
    );
}

#[test]
fn false_swapped_and_one_sided_documents_are_found() {
    let check = |change: &dyn Fn(&mut World), expected: u8| {
        let mut world = World::new(10);
        world.ledger = None;
        world.decisions.clear();
        change(&mut world);
        let report = verify(&Place::new(&world).path(), &world.producer.trust());
        assert_eq!(report.verdict.exit_code(), expected, "{report}");
    };
    check(&|_| (), EXIT_WHOLE);
    // The agreement with one signature.
    check(
        &|world| {
            let agreement = agreement(&world.producer, &world.consumer, &world.stream.origin);
            world.documents[2] = agreement.sign(&world.producer.agreement);
        },
        EXIT_FAILED,
    );
    // An agreement about another stream.
    check(
        &|world| {
            let other = format!("{}/streams/other", world.producer.authority)
                .parse()
                .unwrap();
            let mut envelope =
                agreement(&world.producer, &world.consumer, &other).sign(&world.producer.agreement);
            envelope.add_signature(&world.consumer.agreement);
            world.documents[2] = envelope;
        },
        EXIT_FAILED,
    );
    // Receipts with another sum, another root, signed by the producer, in another order of the series.
    type Edit = fn(&mut countersign_event::documents::Receipt);
    let edits: [Edit; 6] = [
        |receipt| receipt.events += 1,
        |receipt| receipt.bytes -= 1,
        |receipt| receipt.root = Digest([1; 32]),
        |receipt| receipt.previous = Some(Digest([1; 32])),
        |receipt| receipt.applied = receipt.size + 1,
        |receipt| receipt.rejected.digest = Digest([1; 32]),
    ];
    for edit in edits {
        check(
            &move |world| {
                let mut receipt = receipt_of(
                    &world.stream,
                    &world.consumer,
                    2,
                    Some(&world.documents[3]),
                    10,
                );
                edit(&mut receipt);
                world.documents[4] = receipt.sign(&world.consumer.receipt);
            },
            EXIT_FAILED,
        );
    }
    check(
        &|world| {
            let receipt = receipt_of(
                &world.stream,
                &world.consumer,
                2,
                Some(&world.documents[3]),
                10,
            );
            world.documents[4] = receipt.sign(&world.producer.receipt);
        },
        EXIT_FAILED,
    );
    // Two receipts of one number that contradict each other.
    check(
        &|world| {
            let other = receipt(
                &world.stream,
                &world.consumer,
                2,
                Some(&world.documents[3]),
                9,
            );
            world.documents.push(other);
        },
        EXIT_FAILED,
    );
    // Evidence that is not here: the first receipt, the agreement, the consumer's keys.
    for missing in [3, 2, 1] {
        check(
            &move |world| drop(world.documents.remove(missing)),
            EXIT_INCONCLUSIVE,
        );
    }
    // Without the producer's statement the trusted key is nowhere.
    check(&|world| drop(world.documents.remove(0)), EXIT_INCONCLUSIVE);
}

#[test]
fn a_receipt_that_the_ledger_does_not_record_and_one_that_only_it_records_are_found() {
    let mut world = World::new(10);
    let extra = receipt(
        &world.stream,
        &world.consumer,
        3,
        Some(&world.documents[4]),
        10,
    );
    world.documents.push(extra);
    assert_eq!(
        code(&Place::new(&world).path(), &world.producer.trust()),
        EXIT_FAILED
    );
    world.documents.truncate(4);
    assert_eq!(
        code(&Place::new(&world).path(), &world.producer.trust()),
        EXIT_INCONCLUSIVE
    );
}

#[test]
fn a_decision_that_does_not_follow_from_its_policies_is_found() {
    let check = |from: &str, to: &str, expected: u8| {
        let mut world = World::new(10);
        world.ledger = None;
        let changed = world.decisions[0].record.replace(from, to);
        assert_ne!(changed, world.decisions[0].record);
        world.decisions[0].record = changed;
        let report = verify(&Place::new(&world).path(), &world.producer.trust());
        assert_eq!(report.verdict.exit_code(), expected, "{report}");
    };
    check("\"allowed\":false", "\"allowed\":true", EXIT_FAILED);
    check("\"action\":\"read\"", "\"action\":\"publish\"", EXIT_FAILED);
    check("\"facts\":\"{", "\"facts\":\"x{", EXIT_INCONCLUSIVE);
    // The policy text changed, under the digest of the true one.
    let mut world = World::new(10);
    world.policies[0].text.push_str("\n// changed\n");
    assert_eq!(
        code(&Place::new(&world).path(), &world.producer.trust()),
        EXIT_FAILED
    );
    // The ledger has another record there.
    let mut world = World::new(10);
    world.decisions[0].sequence = 3;
    assert_eq!(
        code(&Place::new(&world).path(), &world.producer.trust()),
        EXIT_FAILED
    );
}

#[test]
fn an_edited_manifest_is_never_whole() {
    let world = World::new(300);
    type Edit = fn(&mut serde_json::Value);
    let edits: [(Edit, u8); 10] = [
        (|m| m["logs"][0]["size"] = 299.into(), EXIT_FAILED),
        (|m| m["logs"][0]["to"] = 256.into(), EXIT_FAILED),
        (|m| m["logs"][0]["from"] = 256.into(), EXIT_FAILED),
        (|m| m["logs"][0]["from"] = 1.into(), EXIT_FAILED),
        (|m| m["authority"] = "a.example".into(), EXIT_FAILED),
        (
            |m| m["logs"].as_array_mut().unwrap().truncate(1),
            EXIT_FAILED,
        ),
        (
            |m| drop(m["files"].as_array_mut().unwrap().pop()),
            EXIT_FAILED,
        ),
        (
            |m| {
                m["undisclosed"] =
                    serde_json::json!([{"log": 0, "from": 1, "to": 2, "reason": "x"}])
            },
            EXIT_FAILED,
        ),
        (|m| m["more"] = 1.into(), EXIT_FAILED),
        (|m| m["version"] = 3.into(), EXIT_INCONCLUSIVE),
    ];
    for (number, (edit, expected)) in edits.into_iter().enumerate() {
        let place = Place::new(&world);
        edit_manifest(&place.path(), edit);
        let report = verify(&place.path(), &world.producer.trust());
        assert_eq!(
            report.verdict.exit_code(),
            expected,
            "edit {number}: {report}"
        );
    }
    let place = Place::new(&world);
    edit_manifest(&place.path(), |manifest| manifest["version"] = 3.into());
    let report = verify(&place.path(), &world.producer.trust());
    assert!(
        report
            .to_string()
            .contains("the bundle is of version 3; this program reads versions 1 to 2"),
        "{report}"
    );
}

#[test]
fn withheld_content_is_owned_up_to_and_keeps_the_verdict_open() {
    let mut world = World::new(300);
    world.stream.withheld = vec![7, 8, 299];
    let report = verify(&Place::new(&world).path(), &world.producer.trust());
    assert_eq!(report.verdict.exit_code(), EXIT_INCONCLUSIVE, "{report}");
    assert!(
        report.to_string().contains("3 entries are not disclosed"),
        "{report}"
    );
}

#[test]
fn files_that_have_no_place_are_reported() {
    let world = World::new(10);
    for file in [
        "notes.txt",
        "log/tile/0/001",
        "content/001",
        "documents/x.json",
        "ledgers/1/log/checkpoint",
        "policies/x",
    ] {
        let place = Place::new(&world);
        let path = place.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        let report = verify(&place.path(), &world.producer.trust());
        assert_eq!(report.verdict.exit_code(), EXIT_FAILED, "{file}: {report}");
        assert!(report.to_string().contains(file), "{report}");
    }
    let place = Place::new(&world);
    std::os::unix::fs::symlink("/etc/hostname", place.path().join("link")).unwrap();
    assert_eq!(code(&place.path(), &world.producer.trust()), EXIT_FAILED);
}

#[test]
fn changed_documents_listed_anew_are_still_found() {
    let world = World::new(10);
    for file in [
        "documents/agreement-00000002.json",
        "documents/receipt-00000004.json",
        "log/checkpoint",
        "keys.json",
    ] {
        let place = Place::new(&world);
        let path = place.path().join(file);
        let honest = fs::read(&path).unwrap();
        // Every 20th byte: what is changed so must be caught by its meaning, not by the list.
        for at in (0..honest.len()).step_by(20) {
            let mut altered = honest.clone();
            altered[at] ^= 1;
            fs::write(&path, &altered).unwrap();
            relist(&place.path(), file);
            let hint = String::from_utf8_lossy(&honest)
                .find("keyid")
                .is_some_and(|_| altered_only_hint(&honest, &altered));
            if !hint {
                assert_ne!(
                    code(&place.path(), &world.producer.trust()),
                    EXIT_WHOLE,
                    "{file} byte {at}"
                );
            }
        }
    }
}

/// Whether two envelopes differ in nothing but the hint which key signed.
fn altered_only_hint(honest: &[u8], altered: &[u8]) -> bool {
    use countersign_event::dsse::Envelope;
    let (Ok(a), Ok(b)) = (Envelope::from_json(honest), Envelope::from_json(altered)) else {
        return false;
    };
    let signatures = |envelope: &Envelope| -> Vec<_> {
        envelope
            .signatures()
            .iter()
            .map(|signature| signature.signature.to_bytes())
            .collect()
    };
    a.payload_digest() == b.payload_digest()
        && a.payload_type() == b.payload_type()
        && signatures(&a) == signatures(&b)
}

#[test]
fn the_report_is_plain_text_and_json() {
    let world = World::new(10);
    let report = verify(&Place::new(&world).path(), &world.producer.trust());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["verdict"], "whole");
    assert_eq!(json["checks"].as_array().unwrap().len(), Check::ALL.len());
    assert_eq!(report.to_string().lines().count(), Check::ALL.len() + 2);
}
