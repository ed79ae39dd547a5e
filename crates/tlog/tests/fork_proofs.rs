//! Fork proofs: every fork of small trees is proven, no honest log ever is, and what is altered proves nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use countersign_crypto::SigningKey;
use countersign_tlog::checkpoint::sign_checkpoint;
use countersign_tlog::fork_proof::{
    Bridge, FORK_PROOF_BYTES_MAX, ForkProof, ForkProofError, STATEMENT_BYTES_MAX, STATEMENTS_MAX,
    Side,
};
use countersign_tlog::{
    Algorithm, Checkpoint, Hash, MemoryTree, Note, Vkey, compact_range_at, consistency_proof,
    empty_root, implied_old_root, leaf_hash, note,
};
use proptest::collection::vec;
use proptest::prelude::*;

const ORIGIN: &str = "node-a.example/streams/orders";
const SIZES: u64 = 34;

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

fn vkey_of(origin: &str, n: u8) -> Vkey {
    Vkey::new(origin, Algorithm::Ed25519, key(n).public()).unwrap()
}

fn vkey() -> Vkey {
    vkey_of(ORIGIN, 1)
}

/// A tree whose leaves from `parts_at` on are those of another history.
struct History {
    tree: MemoryTree,
}

impl History {
    fn new(size: u64, parts_at: u64, which: u8) -> Self {
        let mut tree = MemoryTree::new();
        for n in 0..size {
            let which = if n < parts_at { 0 } else { which };
            tree.append(leaf_hash(format!("{n} {which}").as_bytes()));
        }
        Self { tree }
    }

    fn root(&self, size: u64) -> Hash {
        compact_range_at(&self.tree, size).unwrap().root()
    }

    fn proof(&self, old: u64, new: u64) -> Vec<Hash> {
        consistency_proof(&self.tree, old, new).unwrap()
    }

    fn note(&self, size: u64) -> String {
        self.note_by(size, ORIGIN, 1)
    }

    fn note_by(&self, size: u64, origin: &str, by: u8) -> String {
        let checkpoint = Checkpoint::new(origin.to_owned(), size, self.root(size)).unwrap();
        sign_checkpoint(&checkpoint, &key(by)).note_text
    }

    /// Against a log that signed `other` at `n` entries and this at `m`.
    fn fork(&self, other: &Self, n: u64, m: u64) -> Result<ForkProof, ForkProofError> {
        let (smaller, larger) = (other.note(n), self.note(m));
        if n == m {
            ForkProof::same_size(&smaller, &larger)
        } else {
            ForkProof::between(&smaller, &larger, self.root(n), self.proof(n, m))
        }
    }
}

fn proves(proof: &ForkProof) -> bool {
    proof.check(&[vkey()]).is_ok()
}

fn example(n: u64, m: u64) -> ForkProof {
    let (honest, other) = (History::new(m, m, 0), History::new(m, n - 1, 1));
    other.fork(&honest, n, m).unwrap()
}

#[test]
fn every_fork_of_small_trees_is_proven_from_either_side_and_survives_its_file() {
    for parts_at in [0, 1, 2, 7, 8, 15, 30] {
        let one = History::new(SIZES, SIZES, 0);
        let two = History::new(SIZES, parts_at, 1);
        for m in parts_at + 1..=SIZES {
            for n in parts_at + 1..=m {
                for (holder, other) in [(&one, &two), (&two, &one)] {
                    let proof = holder.fork(other, n, m).unwrap();
                    let (smaller, larger) = proof.check(&[vkey()]).unwrap();
                    assert_eq!((smaller.size, larger.size), (n, m));
                    let read = ForkProof::parse(proof.encode().as_bytes()).unwrap();
                    assert_eq!(read, proof, "{n} {m}");
                }
            }
        }
    }
}

#[test]
fn a_log_that_parts_after_the_smaller_size_has_not_forked_up_to_there() {
    let one = History::new(SIZES, SIZES, 0);
    for n in 1..=SIZES {
        let two = History::new(SIZES, n, 1);
        for m in n..=SIZES {
            let fork = two.fork(&one, n, m);
            assert_eq!(fork, Err(ForkProofError::NoFork { size: n }), "{n} {m}");
        }
    }
}

#[test]
fn honest_growth_never_gives_a_proof_whatever_is_claimed_beside_it() {
    let one = History::new(SIZES, SIZES, 0);
    let other = History::new(SIZES, 0, 1);
    for m in 0..=SIZES {
        for n in 0..=m {
            let (a, b) = (one.note(n), one.note(m));
            let honest = one.proof(n, m);
            for stated in [None, Some(one.root(n)), Some(other.root(n)), Some([7; 32])] {
                for proof in [honest.clone(), other.proof(n, m)] {
                    let found = ForkProof::from_failed_consistency(&a, &b, &proof, stated);
                    assert_eq!(found, None, "{n} {m}");
                }
            }
            for root in [one.root(n), other.root(n), empty_root()] {
                assert!(ForkProof::between(&a, &b, root, honest.clone()).is_err());
                assert!(ForkProof::between(&b, &a, root, honest.clone()).is_err());
            }
            assert!(ForkProof::same_size(&a, &b).is_err(), "{n} {m}");
        }
    }
}

#[test]
fn a_consistency_proof_of_the_forked_history_accuses_its_own_log() {
    let one = History::new(SIZES, SIZES, 0);
    for parts_at in [0, 1, 3, 9, 20] {
        let two = History::new(SIZES, parts_at, 1);
        for m in parts_at + 2..=SIZES {
            for n in parts_at + 1..m {
                let (a, b) = (one.note(n), two.note(m));
                let proof = two.proof(n, m);
                let implied = implied_old_root(n, m, &two.root(m), &proof);
                let expected = (!n.is_power_of_two()).then(|| two.root(n));
                assert_eq!(implied, expected, "{n} {m}");
                // A proof that leads elsewhere implies nothing.
                assert_eq!(implied_old_root(n, m, &one.root(m), &proof), None);
                let found =
                    |stated| ForkProof::from_failed_consistency(&a, &b, &proof, stated).is_some();
                // Of a power of two such a proof leaves out the very hash that would accuse the log.
                assert_eq!(found(None), !n.is_power_of_two(), "{n} {m}");
                assert!(found(Some(two.root(n))), "{n} {m}");
                assert_eq!(
                    found(Some(one.root(n))),
                    !n.is_power_of_two(),
                    "what a proof says counts more than what is said beside it"
                );
            }
        }
    }
    let found = ForkProof::from_failed_consistency(
        &one.note(9),
        &History::new(SIZES, 0, 1).note(9),
        &[],
        None,
    );
    assert!(found.is_some_and(|proof| proves(&proof)), "of one size");
}

#[test]
fn an_altered_bridge_proves_nothing() {
    for (n, m) in [(1, 2), (5, 9), (8, 9), (8, 33), (13, 34), (16, 32)] {
        let proof = example(n, m);
        assert!(proves(&proof));
        let Bridge { root, proof: path } = proof.bridge.clone().unwrap();
        let with = |bridge: Option<Bridge>| ForkProof {
            bridge,
            ..proof.clone()
        };
        let mut altered = vec![None];
        let mut other_root = root;
        other_root[31] ^= 1;
        altered.push(Some((other_root, path.clone())));
        for at in 0..path.len() {
            let mut other = path.clone();
            other[at][at % 32] ^= 1;
            altered.push(Some((root, other)));
            let mut less = path.clone();
            less.remove(at);
            altered.push(Some((root, less)));
            let mut more = path.clone();
            more.insert(at, root);
            altered.push(Some((root, more)));
        }
        for bridge in altered {
            let bridge = bridge.map(|(root, proof)| Bridge { root, proof });
            assert!(!proves(&with(bridge)), "{n} {m}");
        }
        let turned = ForkProof {
            smaller: proof.larger.clone(),
            larger: proof.smaller.clone(),
            ..proof.clone()
        };
        let order = ForkProofError::Order {
            first: m,
            second: n,
        };
        assert_eq!(turned.check(&[vkey()]), Err(order));
    }
    // A bridge from a tree to itself says nothing that the two roots do not.
    let same = example(9, 9);
    let bridged = ForkProof {
        bridge: Some(Bridge {
            root: [1; 32],
            proof: Vec::new(),
        }),
        ..same
    };
    assert!(matches!(
        bridged.check(&[vkey()]),
        Err(ForkProofError::Bridge { .. })
    ));
}

#[test]
fn no_single_byte_of_a_proof_can_be_another() {
    for proof in [example(5, 5), example(5, 9), example(8, 33)] {
        let bytes = proof.encode().into_bytes();
        for at in 0..bytes.len() {
            for flip in [1, 0x20, 0x80] {
                let mut altered = bytes.clone();
                altered[at] ^= flip;
                let proven = ForkProof::parse(&altered).is_ok_and(|proof| proves(&proof));
                assert!(!proven, "byte {at} with {flip:#x}");
            }
            let cut = ForkProof::parse(&bytes[..at]);
            assert!(!cut.is_ok_and(|proof| proves(&proof)), "cut at {at}");
            let mut longer = bytes.clone();
            longer.insert(at, b'\n');
            let proven = ForkProof::parse(&longer).is_ok_and(|proof| proves(&proof));
            assert!(!proven, "an empty line at {at}");
        }
    }
}

#[test]
fn both_checkpoints_are_signed_by_keys_of_their_own_log() {
    let (one, two) = (History::new(9, 9, 0), History::new(9, 2, 1));
    let of = |smaller: String, larger: String| ForkProof {
        smaller,
        larger,
        bridge: Some(Bridge {
            root: two.root(5),
            proof: two.proof(5, 9),
        }),
        statements: Vec::new(),
    };
    let by = |a, b| of(one.note_by(5, ORIGIN, a), two.note_by(9, ORIGIN, b));
    let not = |side| Err(ForkProofError::NotSigned { side });
    assert!(by(1, 1).check(&[vkey()]).is_ok());
    assert!(by(1, 2).check(&[vkey(), vkey_of(ORIGIN, 2)]).is_ok());
    assert_eq!(by(1, 2).check(&[vkey()]), not(Side::Larger));
    assert_eq!(by(2, 1).check(&[vkey()]), not(Side::Smaller));
    assert_eq!(by(1, 1).check(&[]), not(Side::Smaller));
    // A witness's key signs no checkpoint, and a key of another log none of this one.
    let witness = Vkey::new(ORIGIN, Algorithm::CosignatureV1, key(1).public()).unwrap();
    assert_eq!(by(1, 1).check(&[witness]), not(Side::Smaller));
    let other = "node-a.example/streams/other";
    assert_eq!(by(1, 1).check(&[vkey_of(other, 1)]), not(Side::Smaller));
    let mixed = of(one.note_by(5, other, 1), two.note(9));
    assert!(matches!(
        mixed.check(&[vkey(), vkey_of(other, 1)]),
        Err(ForkProofError::Origins { .. })
    ));
    // A line in the name of another known key, which is false, takes nothing back.
    let mut spoiled = Note::parse(two.note(9).as_bytes()).unwrap();
    spoiled
        .push(note::sign("other\n", ORIGIN, &key(2)).unwrap())
        .unwrap();
    let spoiled = of(one.note(5), spoiled.encode());
    assert!(spoiled.check(&[vkey(), vkey_of(ORIGIN, 2)]).is_ok());
}

#[test]
fn notes_with_many_lines_and_statements_are_told_apart() {
    let mut proof = example(5, 9);
    for note in [&mut proof.smaller, &mut proof.larger] {
        let mut signed = Note::parse(note.as_bytes()).unwrap();
        for n in 2..90 {
            let line = note::sign(signed.text(), "checkpoint.5.example", &key(n)).unwrap();
            signed.push(line).unwrap();
        }
        *note = signed.encode();
    }
    let statements = vec!["{\"a\":\"root\"}".to_owned(), "{}".to_owned()];
    let proof = proof.with_statements(statements);
    let text = proof.encode();
    assert!(text.contains("\ncheckpoint 93\n"), "{text}");
    let read = ForkProof::parse(text.as_bytes()).unwrap();
    assert_eq!(read, proof);
    assert!(proves(&read));
    // One line fewer or more, and the note ends in the middle of something else.
    for lines in [
        "4",
        "5",
        "92",
        "94",
        "104",
        "105",
        "093",
        "18446744073709551616",
    ] {
        let other = text.replacen("checkpoint 93", &format!("checkpoint {lines}"), 1);
        assert!(ForkProof::parse(other.as_bytes()).is_err(), "{lines}");
    }
}

#[test]
fn what_is_too_much_or_in_another_form_is_refused_by_name() {
    let good = example(5, 9).encode();
    let parse = |text: &str| ForkProof::parse(text.as_bytes()).unwrap_err();
    let with = |more: &str| parse(&format!("{good}{more}"));
    assert_eq!(parse(""), ForkProofError::FirstLine);
    assert_eq!(
        parse(&good.replace("@v1", "@v2")),
        ForkProofError::FirstLine
    );
    assert_eq!(
        with("x\n"),
        ForkProofError::Hash {
            position: example(5, 9).bridge.unwrap().proof.len()
        }
    );
    assert_eq!(
        with("statement x\n"),
        ForkProofError::Statement { position: 0 }
    );
    assert_eq!(
        with("statement {\t}\n"),
        ForkProofError::Statement { position: 0 }
    );
    assert!(matches!(
        with("statement {}\nhello\n"),
        ForkProofError::Line { .. }
    ));
    assert!(matches!(with("statement {}"), ForkProofError::Line { .. }));
    let long = format!("statement {{{}}}\n", "x".repeat(STATEMENT_BYTES_MAX));
    assert_eq!(with(&long), ForkProofError::Statement { position: 0 });
    let many = "statement {}\n".repeat(STATEMENTS_MAX);
    assert!(ForkProof::parse(format!("{good}{many}").as_bytes()).is_ok());
    assert_eq!(
        with(&format!("{many}statement {{}}\n")),
        ForkProofError::TooManyStatements
    );
    let hashes = format!("{}=\n", "A".repeat(43)).repeat(66);
    assert_eq!(with(&hashes), ForkProofError::TooManyHashes);
    let large = vec![b'x'; FORK_PROOF_BYTES_MAX + 1];
    assert!(matches!(
        ForkProof::parse(&large),
        Err(ForkProofError::TooLarge { .. })
    ));
    assert_eq!(
        ForkProof::parse(&[0xff]),
        Err(ForkProofError::Utf8 { offset: 0 })
    );
    let extended = good.replacen("\n\n\u{2014}", "\nmore\n\n\u{2014}", 1);
    let extended = extended.replacen("checkpoint 5", "checkpoint 6", 1);
    assert!(matches!(
        parse(&extended),
        ForkProofError::Checkpoint {
            side: Side::Smaller,
            ..
        }
    ));
}

proptest! {
    #[test]
    fn random_forks_are_proven_and_random_hashes_are_not(
        size in 1u64..300,
        at in any::<prop::sample::Index>(),
        old in any::<prop::sample::Index>(),
        random in vec(any::<[u8; 32]>(), 0..12),
        root in any::<[u8; 32]>(),
    ) {
        let parts_at = at.index(size as usize) as u64;
        let n = parts_at + 1 + old.index((size - parts_at) as usize) as u64;
        let (one, two) = (History::new(size, size, 0), History::new(size, parts_at, 1));
        prop_assert!(proves(&two.fork(&one, n, size).unwrap()));
        prop_assert!(proves(&one.fork(&two, n, size).unwrap()));
        let (a, b) = (one.note(n), one.note(size));
        prop_assert!(ForkProof::between(&a, &b, root, random.clone()).is_err());
        prop_assert!(ForkProof::from_failed_consistency(&a, &b, &random, Some(root)).is_none());
    }

    #[test]
    fn foreign_bytes_are_refused_or_read_as_they_are_written(
        bytes in vec(any::<u8>(), 0..300),
        cut in any::<prop::sample::Index>(),
        n in 1u64..20,
    ) {
        let _ = ForkProof::parse(&bytes);
        let text = example(n, 20).encode().into_bytes();
        let mut spliced = text.clone();
        let at = cut.index(text.len());
        spliced.splice(at..(at + bytes.len()).min(text.len()), bytes);
        if let Ok(read) = ForkProof::parse(&spliced) {
            prop_assert_eq!(read.encode().into_bytes(), spliced);
        }
    }
}
