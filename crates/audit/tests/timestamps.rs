//! Time-stamp tokens in bundles and beside proofs of one event (`schemas/timestamp.md`).
//!
//! The tokens are vectors that `openssl ts` made once over notes of the logs built here. With COUNTERSIGN_WRITE_VECTORS=1 missing ones are made, by a new authority.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_audit::{Check, EventProof, Outcome, Report, Stamped, Trust, Verdict};
use countersign_crypto::{TimestampToken, TsaRoots};
use countersign_tlog::inclusion_proof;
use countersign_tlog::proof_file::ProofFile;
use support::{World, code, edit_manifest, relist, verify};

const SIZE: u64 = 600;
const STAMPED: [u64; 2] = [300, 600];

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/timestamp/v1")
}

fn make_missing(world: &World) {
    if vectors().join("log-root.pem").exists() {
        return;
    }
    assert!(
        std::env::var_os("COUNTERSIGN_WRITE_VECTORS").is_some(),
        "a vector is missing"
    );
    let work = tempfile::tempdir().unwrap();
    for size in STAMPED {
        let name = format!("log-{size}");
        std::fs::write(work.path().join(&name), world.stream.note(size)).unwrap();
    }
    let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/interop");
    let script = format!(
        "set -eu; . {}/authority.sh; make_authority authority; cp authority/root.pem {out}/log-root.pem; for size in 300 600; do \
         openssl ts -query -data log-$size -sha256 -cert -no_nonce -out log-$size.tsq; stamp authority p256 log-$size.tsq {out}/log-$size.tsr; done",
        interop.display(),
        out = vectors().display()
    );
    let made = Command::new("bash")
        .args(["-c", &script])
        .current_dir(work.path())
        .status();
    assert!(made.unwrap().success());
}

fn token(world: &World, size: u64) -> Stamped {
    make_missing(world);
    let answer = std::fs::read(vectors().join(format!("log-{size}.tsr"))).unwrap();
    let token = TimestampToken::from_response(&answer).unwrap();
    Stamped {
        checkpoint: world.stream.note(size),
        token: token.der().to_vec(),
    }
}

fn stamped() -> World {
    let mut world = World::undecided(SIZE);
    world.timestamps = STAMPED.map(|size| token(&world, size)).to_vec();
    world
}

/// The producer's key, and the authority's root.
fn trust(world: &World) -> Trust {
    let pem = std::fs::read(vectors().join("log-root.pem")).unwrap();
    let roots = TsaRoots::from_pem(&pem).unwrap();
    world.producer.trust().and(Trust::of_tsa_roots(roots))
}

fn line(report: &Report) -> &Outcome {
    let mut lines = report.checks.iter();
    let line = lines.find(|line| line.check == Check::Timestamps);
    &line.unwrap().outcome
}

#[test]
fn tokens_in_a_bundle_bound_when_its_entries_were_there() {
    let world = stamped();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bundle");
    world.write(&out);
    let report = verify(&out, &trust(&world));
    assert_eq!(report.verdict, Verdict::Whole, "{report}");
    let bounds: Vec<(u64, bool)> = report
        .timestamped
        .iter()
        .map(|one| (one.size, one.not_later_than.is_some()))
        .collect();
    assert_eq!(bounds, [(300, true), (600, true)]);
    let Outcome::Done { what } = line(&report) else {
        panic!("{report}")
    };
    assert!(
        what.contains("existed not later than 2026-11-22T"),
        "{what}"
    );

    // Without roots, or with another's: present, not trusted, and as whole as before.
    let other = std::fs::read(vectors().join("other-root.pem")).unwrap();
    let other = Trust::of_tsa_roots(TsaRoots::from_pem(&other).unwrap());
    for trust in [world.producer.trust(), world.producer.trust().and(other)] {
        let report = verify(&out, &trust);
        assert_eq!(report.verdict, Verdict::Whole, "{report}");
        assert!(
            report
                .timestamped
                .iter()
                .all(|one| one.not_later_than.is_none())
        );
        assert!(
            report
                .to_string()
                .contains("present, not trusted: nothing proven")
        );
    }
    // Who is trusted about time is not trusted about anything else.
    let pem = std::fs::read(vectors().join("log-root.pem")).unwrap();
    let only = Trust::of_tsa_roots(TsaRoots::from_pem(&pem).unwrap());
    assert_eq!(code(&out, &only), 9);
}

#[test]
fn a_token_over_something_else_fails_the_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let case = |name: &str, world: &World, edit: &dyn Fn(&Path), expected: u8| {
        let out = dir.path().join(name);
        world.write(&out);
        edit(&out);
        let report = verify(&out, &trust(world));
        assert_eq!(report.verdict.exit_code(), expected, "{name}: {report}");
    };
    let good = stamped();
    case("good", &good, &|_| (), 0);

    let mut swapped = stamped();
    swapped.timestamps[0].token = swapped.timestamps[1].token.clone();
    case("of another size", &swapped, &|_| (), 6);

    let mut cosigned = stamped();
    // A line of somebody else changes nothing, one more in the log's own name does.
    let note = cosigned.timestamps[0].checkpoint.clone();
    let last = note.lines().last().unwrap();
    let (_, signature) = last.rsplit_once(' ').unwrap();
    cosigned.timestamps[0].checkpoint = format!("{note}\u{2014} witness.example {signature}\n");
    case("cosigned", &cosigned, &|_| (), 0);
    cosigned.timestamps[0].checkpoint = format!("{note}{last}\n");
    case("signed twice", &cosigned, &|_| (), 6);

    let mut forged = stamped();
    let mut other = World::undecided(SIZE);
    other.stream.append(
        countersign_event::entry::Kind::Event,
        "org.example.quake",
        "{}",
    );
    forged.timestamps[0].checkpoint = other.stream.note(SIZE + 1);
    case("beyond", &forged, &|_| (), 9);
    forged.timestamps[0].checkpoint = note.replace("\n300\n", "\n299\n");
    case("another root", &forged, &|_| (), 6);
    forged.timestamps[0].checkpoint = "no note".to_owned();
    case("no note", &forged, &|_| (), 6);

    // The statement, and the signature at the end; the certificates that lead to the root are not signed by it.
    let end = good.timestamps[0].token.len() - 5;
    for at in [20, 100, end] {
        let flip = |out: &Path| {
            let path = out.join("timestamps/00000000.tst");
            let mut token = std::fs::read(&path).unwrap();
            token[at] ^= 1;
            std::fs::write(&path, token).unwrap();
            relist(out, "timestamps/00000000.tst");
        };
        case(&format!("byte {at}"), &good, &flip, 6);
    }
    let version = |out: &Path| edit_manifest(out, |manifest| manifest["version"] = 1.into());
    case("in version 1", &good, &version, 6);
    let alone = |out: &Path| {
        std::fs::remove_file(out.join("timestamps/00000001.checkpoint")).unwrap();
        edit_manifest(out, |manifest| {
            let files = manifest["files"].as_array_mut().unwrap();
            files.retain(|file| file["path"] != "timestamps/00000001.checkpoint");
        });
    };
    case("alone", &good, &alone, 6);
    let none = |out: &Path| {
        edit_manifest(out, |manifest| manifest["version"] = 2.into());
    };
    case(
        "version 2 without tokens",
        &World::undecided(SIZE),
        &none,
        0,
    );
}

#[test]
fn of_a_range_only_roots_that_it_holds_are_judged() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = stamped();
    world.ledger = None;
    world.documents.truncate(2);
    (world.from, world.to) = (256, 400);
    world.write(&dir.path().join("within"));
    let report = verify(&dir.path().join("within"), &trust(&world));
    // The second is over the bundle's own checkpoint.
    assert_eq!(report.timestamped.len(), 2, "{report}");
    assert_eq!(report.verdict, Verdict::Whole, "{report}");
    world.from = 512;
    world.to = 600;
    world.write(&dir.path().join("after"));
    assert_eq!(code(&dir.path().join("after"), &trust(&world)), 9);
}

#[test]
fn a_token_beside_the_proof_of_an_event_is_over_its_checkpoint() {
    let world = stamped();
    let proof = |checkpoint: u64, token: u64| {
        let log = &world.stream;
        let (content, attribute_bytes) = &log.contents[41];
        let checkpoint_note = log.note(checkpoint);
        let proof = EventProof {
            proof: ProofFile {
                extra: Vec::new(),
                index: 41,
                proof: inclusion_proof(&log.tree, 41, checkpoint).unwrap(),
                checkpoint: checkpoint_note,
            },
            entry: log.entries[41],
            attribute_bytes: *attribute_bytes,
            content: Some(content.clone()),
            statements: vec![world.producer.statement()],
            timestamp: Some(self::token(&world, token).token),
        };
        let dir = tempfile::tempdir().unwrap();
        for (extension, bytes) in proof.files() {
            std::fs::write(dir.path().join(format!("e.{extension}")), bytes).unwrap();
        }
        verify(&dir.path().join("e.tlog-proof"), &trust(&world))
    };
    let report = proof(300, 300);
    assert_eq!(report.verdict, Verdict::Whole, "{report}");
    assert!(report.timestamped[0].not_later_than.is_some());
    assert_eq!(proof(600, 300).verdict.exit_code(), 6);
}
