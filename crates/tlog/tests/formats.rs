//! The text and byte formats: what is written is read again, one text stands for one value, and foreign bytes never panic.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use countersign_crypto::{Signature, SigningKey};
use countersign_tlog::add_checkpoint::{
    ADD_CHECKPOINT_BYTES_MAX, AddCheckpoint, AddCheckpointError,
};
use countersign_tlog::checkpoint::{
    note_from_signature, open_checkpoint, sign_checkpoint, signature_of, verify_signature,
};
use countersign_tlog::cosignature_v1::{self, CosignatureError};
use countersign_tlog::note::{self, SIGNATURES_MAX};
use countersign_tlog::proof_file::{ProofFile, ProofFileError};
use countersign_tlog::tile::{
    BundleError, ENTRY_BYTES_MAX, Tile, TileKind, decode_entry_bundle, encode_entry_bundle,
};
use countersign_tlog::{
    Algorithm, Checkpoint, CheckpointError, MemoryTree, Note, NoteError, NoteSignature, ProofError,
    Vkey, VkeyError, empty_root, inclusion_proof, leaf_hash,
};
use proptest::collection::vec;
use proptest::prelude::*;

const ORIGIN: &str = "node-a.example/streams/orders";
const WITNESS: &str = "witness.example";

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

fn log_vkey() -> Vkey {
    Vkey::new(ORIGIN, Algorithm::Ed25519, key(1).public()).unwrap()
}

fn witness_vkey() -> Vkey {
    Vkey::new(WITNESS, Algorithm::CosignatureV1, key(2).public()).unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint::new(ORIGIN.to_owned(), 7, [3; 32]).unwrap()
}

fn cosigned(time_seconds: u64) -> Note {
    let signed = sign_checkpoint(&checkpoint(), &key(1));
    let mut note = Note::parse(signed.note_text.as_bytes()).unwrap();
    let line = cosignature_v1::sign(note.text(), WITNESS, &key(2), time_seconds).unwrap();
    note.push(line).unwrap();
    note
}

#[test]
fn a_note_signed_by_the_go_implementation_verifies_and_is_written_again_byte_for_byte() {
    // The example in the documentation of golang.org/x/mod/sumdb/note: made by code that is not ours.
    let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let text = "If you think cryptography is the answer to your problem,\n\
                then you don't know what your problem is.\n";
    let base64 = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
    let bytes = format!("{text}\n\u{2014} PeterNeumann {base64}\n");
    let key = Vkey::parse(vkey).unwrap();
    let note = Note::parse(bytes.as_bytes()).unwrap();
    assert_eq!(note.text(), text);
    assert_eq!(note.verify(std::slice::from_ref(&key)), Ok(vec![&key]));
    assert_eq!(note.encode(), bytes);
    assert_eq!(key.to_string(), vkey);
    for start in 0..vkey.len() {
        for end in start..=vkey.len() {
            let part = &vkey[start..end];
            assert!(part == vkey || Vkey::parse(part).is_err(), "{part}");
        }
    }
}

#[test]
fn a_checkpoint_opens_only_under_its_own_key_and_name() {
    let signed = sign_checkpoint(&checkpoint(), &key(1));
    let note = signed.note_text.as_bytes();
    assert_eq!(open_checkpoint(note, &log_vkey()), Ok(checkpoint()));

    let other_key = Vkey::new(ORIGIN, Algorithm::Ed25519, key(9).public()).unwrap();
    let no_known_key = Err(CheckpointError::Note(NoteError::NoKnownKey));
    assert_eq!(open_checkpoint(note, &other_key), no_known_key);
    let other_name = Vkey::new("other", Algorithm::Ed25519, key(1).public()).unwrap();
    assert_eq!(open_checkpoint(note, &other_name), no_known_key);
    let wrong_type = Vkey::new(ORIGIN, Algorithm::CosignatureV1, key(1).public()).unwrap();
    assert_eq!(
        open_checkpoint(note, &wrong_type),
        Err(CheckpointError::KeyType { algorithm: 4 })
    );

    // The same key may sign for another log, but not in this one's name.
    let mut foreign = Note::new(checkpoint().to_text()).unwrap();
    foreign
        .push(note::sign(foreign.text(), "other", &key(1)).unwrap())
        .unwrap();
    assert!(matches!(
        open_checkpoint(foreign.encode().as_bytes(), &other_name),
        Err(CheckpointError::OtherOrigin { .. })
    ));
}

#[test]
fn every_altered_byte_of_a_signed_checkpoint_is_refused() {
    let note = sign_checkpoint(&checkpoint(), &key(1))
        .note_text
        .into_bytes();
    for at in 0..note.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut bad = note.clone();
            bad[at] ^= flip;
            assert!(open_checkpoint(&bad, &log_vkey()).is_err(), "byte {at}");
        }
        assert!(
            open_checkpoint(&note[..at], &log_vkey()).is_err(),
            "cut {at}"
        );
    }
}

#[test]
fn the_compact_form_makes_the_same_note_again() {
    let signed = sign_checkpoint(&checkpoint(), &key(1));
    let signature = signature_of(&checkpoint(), &key(1));
    assert_eq!(signature, signed.signature);
    let again = note_from_signature(&checkpoint(), &key(1).public(), signature);
    assert_eq!(again, signed.note_text);
    assert!(verify_signature(&checkpoint(), &key(1).public(), &signature).is_ok());
    let mut other = checkpoint();
    other.size += 1;
    assert!(verify_signature(&other, &key(1).public(), &signature).is_err());
    let zeros = Signature::from_bytes([0; 64]);
    assert!(verify_signature(&checkpoint(), &key(1).public(), &zeros).is_err());
}

#[test]
fn checkpoint_texts_of_another_form_are_refused_by_what_is_wrong() {
    let root = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
    let refused = |text: String, error| assert_eq!(Checkpoint::parse_text(&text), Err(error));
    assert!(Checkpoint::parse_text(&format!("o\n7\n{root}\n")).is_ok());
    let extension = CheckpointError::ExtensionLines { lines: 1 };
    refused(format!("o\n7\n{root}\nmore\n"), extension.clone());
    refused(format!("o\n7\n{root}\n\n"), extension);
    refused(format!("o\n7\n{root}"), CheckpointError::Lines);
    refused("o\n7\n".to_owned(), CheckpointError::Lines);
    refused(String::new(), CheckpointError::Lines);
    refused(format!("\n7\n{root}\n"), CheckpointError::Origin);
    for size in [
        "",
        "07",
        "+7",
        "-1",
        " 7",
        "7 ",
        "0x7",
        "18446744073709551616",
    ] {
        refused(format!("o\n{size}\n{root}\n"), CheckpointError::Size);
    }
    assert!(Checkpoint::parse_text(&format!("o\n{}\n{root}\n", u64::MAX)).is_ok());
    for bad in [
        "",
        "AwM=",
        &root[..43],
        &root.replace("M=", "N="),
        &format!("{root} "),
    ] {
        refused(format!("o\n7\n{bad}\n"), CheckpointError::Root);
    }
    refused(format!("o\n0\n{root}\n"), CheckpointError::EmptyRoot);
    let empty = Checkpoint::new("o".to_owned(), 0, empty_root()).unwrap();
    assert_eq!(Checkpoint::parse_text(&empty.to_text()), Ok(empty));
    for origin in ["", "a b", "a+b", "a\nb", "a\u{a0}b", "a\u{7f}"] {
        let new = Checkpoint::new(origin.to_owned(), 7, [3; 32]);
        assert_eq!(new, Err(CheckpointError::Origin), "{origin:?}");
    }
}

#[test]
fn unknown_lines_are_skipped_and_a_bad_line_of_a_known_key_spoils_the_note() {
    let note = cosigned(1_790_000_000);
    let (log, witness) = (log_vkey(), witness_vkey());
    assert_eq!(note.verify(std::slice::from_ref(&log)), Ok(vec![&log]));
    let both = [witness.clone(), log.clone()];
    assert_eq!(note.verify(&both), Ok(vec![&log, &witness]));
    assert_eq!(note.verify(&[]), Err(NoteError::NoKnownKey));

    let mut spoiled = note.clone();
    let genuine = &note.signatures()[1];
    let mut bytes = genuine.signature().to_vec();
    bytes[20] ^= 1;
    let bad = NoteSignature::new(WITNESS.to_owned(), genuine.id(), bytes).unwrap();
    spoiled.push(bad).unwrap();
    assert_eq!(
        spoiled.verify(&both),
        Err(NoteError::BadSignature { line: 2 })
    );
    assert_eq!(spoiled.verify(std::slice::from_ref(&log)), Ok(vec![&log]));

    let short = NoteSignature::new(ORIGIN.to_owned(), log.id(), vec![1]).unwrap();
    spoiled.push(short).unwrap();
    assert_eq!(
        spoiled.verify(&[log]),
        Err(NoteError::BadSignature { line: 3 })
    );
}

#[test]
fn a_cosignature_binds_text_time_and_key() {
    let note = cosigned(1_790_000_000);
    let line = &note.signatures()[1];
    let verify = cosignature_v1::verify;
    assert_eq!(
        verify(note.text(), line, &witness_vkey()),
        Ok(1_790_000_000)
    );
    let time_seconds = 1_790_000_000;
    let other_text = note.text().replace("\n7\n", "\n8\n");
    assert_eq!(
        verify(&other_text, line, &witness_vkey()),
        Err(CosignatureError::Signature { time_seconds })
    );
    let mut later = line.signature().to_vec();
    later[7] += 1;
    let later = NoteSignature::new(WITNESS.to_owned(), line.id(), later).unwrap();
    assert!(verify(note.text(), &later, &witness_vkey()).is_err());
    let long = [line.signature(), &[0]].concat();
    let long = NoteSignature::new(WITNESS.to_owned(), line.id(), long).unwrap();
    assert_eq!(
        verify(note.text(), &long, &witness_vkey()),
        Err(CosignatureError::Length { actual: 73 })
    );
    let log_line = &note.signatures()[0];
    assert!(matches!(
        verify(note.text(), log_line, &witness_vkey()),
        Err(CosignatureError::OtherKey { .. })
    ));
    assert_eq!(
        verify(note.text(), log_line, &log_vkey()),
        Err(CosignatureError::Algorithm { algorithm: 1 })
    );
    let beyond = cosigned(1 << 63);
    assert_eq!(
        verify(beyond.text(), &beyond.signatures()[1], &witness_vkey()),
        Err(CosignatureError::Time {
            time_seconds: 1 << 63
        })
    );
    // The id differs by type, so that the plain signature of a witness key is no cosignature.
    let plain = Vkey::new(WITNESS, Algorithm::Ed25519, key(2).public()).unwrap();
    assert_ne!(plain.id(), witness_vkey().id());
}

#[test]
fn notes_of_another_form_are_refused_by_what_is_wrong() {
    let line = "\u{2014} a AQIDBAU=\n";
    let refused = |note: &str, error| assert_eq!(Note::parse(note.as_bytes()), Err(error));
    assert!(Note::parse(format!("text\n\n{line}").as_bytes()).is_ok());
    // The text may have empty lines of its own: the last one parts.
    let note = Note::parse(format!("a\n\nb\n\n\n{line}").as_bytes()).unwrap();
    assert_eq!(note.text(), "a\n\nb\n\n");
    refused("", NoteError::NoSignatures);
    refused("text\n", NoteError::NoSignatures);
    refused("text\n\n", NoteError::NoSignatures);
    refused(&format!("text\n{line}"), NoteError::NoSignatures);
    refused(
        &format!("text\n\n{}", line.trim_end()),
        NoteError::NoSignatures,
    );
    refused(&format!("te\rxt\n\n{line}"), NoteError::Bytes { offset: 2 });
    refused(&format!("te\0xt\n\n{line}"), NoteError::Bytes { offset: 2 });
    assert_eq!(
        Note::parse(b"te\xffxt\n\n"),
        Err(NoteError::Bytes { offset: 2 })
    );
    for bad in [
        "- a AQIDBAU=",
        "\u{2014}a AQIDBAU=",
        "\u{2014}  AQIDBAU=",
        "\u{2014} a+b AQIDBAU=",
        "\u{2014} a\u{a0}b AQIDBAU=",
        "\u{2014} a AQIDBAU",
        "\u{2014} a AQIDBAV=",
        "\u{2014} a AQIDBA==",
        "\u{2014} a  AQIDBAU=",
        "\u{2014} a AQIDBAU= ",
        "\u{2014} a",
    ] {
        refused(
            &format!("text\n\n{line}{bad}\n"),
            NoteError::Line { line: 1 },
        );
    }
    assert!(Note::parse(format!("t\n\n{}", line.repeat(SIGNATURES_MAX)).as_bytes()).is_ok());
    refused(
        &format!("t\n\n{}", line.repeat(SIGNATURES_MAX + 1)),
        NoteError::TooManySignatures {
            lines: SIGNATURES_MAX + 1,
        },
    );
    let bytes = note::NOTE_BYTES_MAX + 1;
    refused(&"a".repeat(bytes), NoteError::TooLarge { bytes });
    assert_eq!(Note::new("a".to_owned()), Err(NoteError::TextEnd));
    assert_eq!(note::sign("a\n", "b c", &key(1)), Err(NoteError::KeyName));
}

#[test]
fn verifier_keys_of_another_form_are_refused_by_what_is_wrong() {
    let text = log_vkey().to_string();
    assert_eq!(Vkey::parse(&text), Ok(log_vkey()));
    assert_eq!(Vkey::parse(&witness_vkey().to_string()), Ok(witness_vkey()));
    let renamed = text.replace("orders", "other");
    assert!(matches!(Vkey::parse(&renamed), Err(VkeyError::Id { .. })));
    let id = log_vkey().id().to_string();
    let upper = text.replace(&id, &id.to_uppercase());
    for bad in [
        "",
        "a",
        "a+b",
        "a+00000000+",
        &text[1..].replacen(ORIGIN, "", 1),
        &upper,
    ] {
        assert!(Vkey::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(
        Vkey::parse("a+00000000+AgAA"),
        Err(VkeyError::Algorithm { algorithm: 2 })
    );
    assert_eq!(Vkey::parse("a+00000000+AQAA"), Err(VkeyError::Form));
    assert_eq!(Vkey::parse("+00000000+AQAA"), Err(VkeyError::Form));
    // A key of small order: 32 zero bytes.
    let weak = format!("a+00000000+AQ{}", "A".repeat(42));
    assert!(matches!(Vkey::parse(&weak), Err(VkeyError::Key(_))));
    let bytes = 2000;
    assert_eq!(
        Vkey::parse(&"a".repeat(bytes)),
        Err(VkeyError::TooLarge { bytes })
    );
}

#[test]
fn a_proof_file_proves_its_leaf_and_no_other() {
    let mut tree = MemoryTree::new();
    let leaves = (0..7u8).map(|n| leaf_hash(&[n])).collect::<Vec<_>>();
    leaves.iter().for_each(|leaf| tree.append(*leaf));
    let root = tree.compact_range().root();
    let checkpoint = Checkpoint::new(ORIGIN.to_owned(), 7, root).unwrap();
    let file = ProofFile {
        extra: Vec::new(),
        index: 5,
        proof: inclusion_proof(&tree, 5, 7).unwrap(),
        checkpoint: sign_checkpoint(&checkpoint, &key(1)).note_text,
    };
    let file = ProofFile::parse(file.encode().as_bytes()).unwrap();
    assert_eq!(file.verify(&leaves[5], &log_vkey()), Ok(checkpoint));
    assert_eq!(
        file.verify(&leaves[4], &log_vkey()),
        Err(ProofFileError::Proof(ProofError::NewRoot { size: 7 }))
    );
    assert!(file.verify(&leaves[5], &witness_vkey()).is_err());
    let elsewhere = ProofFile { index: 4, ..file };
    assert!(elsewhere.verify(&leaves[5], &log_vkey()).is_err());
}

#[test]
fn requests_to_witnesses_of_another_form_are_refused_by_what_is_wrong() {
    let hash = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
    let note = "t\n\n\u{2014} a AQIDBAU=\n";
    let refused =
        |text: String, error| assert_eq!(AddCheckpoint::parse(text.as_bytes()), Err(error));
    assert!(AddCheckpoint::parse(format!("old 0\n\n{note}").as_bytes()).is_ok());
    refused(format!("old 1\n{hash}\n"), AddCheckpointError::NoCheckpoint);
    for old in [
        "old 01",
        "old -1",
        "old ",
        "old",
        "Old 1",
        "old 18446744073709551616",
    ] {
        refused(format!("{old}\n\n{note}"), AddCheckpointError::Old);
    }
    refused(
        format!("old 1\n{hash}\nAAAA\n\n{note}"),
        AddCheckpointError::Hash { position: 1 },
    );
    refused(
        format!("old 1\n{}\n{note}", format!("{hash}\n").repeat(64)),
        AddCheckpointError::TooManyHashes,
    );
    refused(
        format!("old 1\n\n{note}{}", "x".repeat(ADD_CHECKPOINT_BYTES_MAX)),
        AddCheckpointError::TooLarge {
            bytes: 7 + note.len() + ADD_CHECKPOINT_BYTES_MAX,
        },
    );
    assert!(matches!(
        AddCheckpoint::parse(b"old 1\n\nno note"),
        Err(AddCheckpointError::Note(_))
    ));
}

#[test]
fn proof_files_of_another_form_are_refused_by_what_is_wrong() {
    let hash = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
    let note = "t\n\n\u{2014} a AQIDBAU=\n";
    let first = "c2sp.org/tlog-proof@v1";
    let refused = |text: String, error| assert_eq!(ProofFile::parse(text.as_bytes()), Err(error));
    assert!(ProofFile::parse(format!("{first}\nindex 0\n\n{note}").as_bytes()).is_ok());
    refused(
        format!("{first}\nindex 0\n{hash}\n"),
        ProofFileError::NoCheckpoint,
    );
    refused(
        format!("{first}2\nindex 0\n\n{note}"),
        ProofFileError::FirstLine,
    );
    refused(
        format!("{first}\nextra \nindex 0\n\n{note}"),
        ProofFileError::Extra,
    );
    refused(
        format!("{first}\nextra ?\nindex 0\n\n{note}"),
        ProofFileError::Extra,
    );
    refused(
        format!("{first}\nextra {}\n\n{note}", "A".repeat(99_996)),
        ProofFileError::Extra,
    );
    for index in ["00", "-1", "", "18446744073709551616"] {
        refused(
            format!("{first}\nindex {index}\n\n{note}"),
            ProofFileError::Index,
        );
    }
    refused(format!("{first}\n{hash}\n\n{note}"), ProofFileError::Index);
    refused(
        format!("{first}\nindex 0\n{hash}\nAAAA\n\n{note}"),
        ProofFileError::Hash { position: 1 },
    );
    let lines = format!("{hash}\n").repeat(66);
    refused(
        format!("{first}\nindex 0\n{lines}\n{note}"),
        ProofFileError::TooManyHashes,
    );
    refused(
        format!("{first}\nindex 0\n\nt\n\n"),
        ProofFileError::Note(NoteError::NoSignatures),
    );
    let bytes = 2_000_000;
    refused("a".repeat(bytes), ProofFileError::TooLarge { bytes });
}

#[test]
fn tile_paths_are_the_specifications_and_have_one_text_each() {
    let path = |kind, index, width| Tile::new(kind, index, width).unwrap().to_string();
    let hashes = TileKind::Hashes;
    assert_eq!(path(hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
    assert_eq!(path(hashes(1), 0, 1), "tile/1/000.p/1");
    assert_eq!(path(TileKind::Entries, 999, 255), "tile/entries/999.p/255");
    assert_eq!(path(TileKind::Entries, 1000, 256), "tile/entries/x001/000");
    let last = path(hashes(63), u64::MAX, 255);
    assert_eq!(last, "tile/63/x018/x446/x744/x073/x709/x551/615.p/255");
    assert!(Tile::parse(&last).is_ok());
    for bad in [
        "",
        "tile/0/",
        "tile/0/1",
        "tile/0/0001",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/0/x001",
        "tile/00/001",
        "tile/64/001",
        "tile/256/001",
        "tile/-1/001",
        "tile/data/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/01",
        "tile/0/001.p/",
        "tile/0/001.p/1.p/1",
        "tile/0/001/",
        "/tile/0/001",
        "tile/0/+01",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert!(Tile::parse(bad).is_err(), "{bad}");
    }
    assert!(Tile::new(hashes(64), 0, 1).is_err());
    assert!(Tile::new(hashes(0), 0, 0).is_err());
    assert!(Tile::new(hashes(0), 0, 257).is_err());
}

#[test]
fn entry_bundles_have_1_to_256_entries_of_at_most_65535_bytes() {
    assert_eq!(
        encode_entry_bundle(["ab", "", "c"]).unwrap(),
        b"\0\x02ab\0\0\0\x01c"
    );
    let none: [&[u8]; 0] = [];
    assert_eq!(encode_entry_bundle(none), Err(BundleError::Empty));
    assert_eq!(decode_entry_bundle(&[]), Err(BundleError::Empty));
    let full = encode_entry_bundle([b""; 256]).unwrap();
    assert_eq!(decode_entry_bundle(&full).unwrap().len(), 256);
    assert_eq!(
        encode_entry_bundle([b""; 257]),
        Err(BundleError::TooManyEntries)
    );
    let over = [full, vec![0, 0]].concat();
    assert_eq!(decode_entry_bundle(&over), Err(BundleError::TooManyEntries));
    let largest = vec![7; ENTRY_BYTES_MAX];
    let bundle = encode_entry_bundle([&largest]).unwrap();
    assert_eq!(decode_entry_bundle(&bundle), Ok(vec![largest.as_slice()]));
    let bytes = ENTRY_BYTES_MAX + 1;
    assert_eq!(
        encode_entry_bundle([vec![7; bytes]]),
        Err(BundleError::EntryTooLarge { position: 0, bytes })
    );
    for bad in [&b"\0"[..], b"\0\x01", b"\0\x02a"] {
        let error = BundleError::Truncated { position: 0 };
        assert_eq!(decode_entry_bundle(bad), Err(error));
    }
}

fn name() -> impl Strategy<Value = String> {
    vec(proptest::char::any(), 1..20)
        .prop_map(|chars| chars.into_iter().collect())
        .prop_filter("a key name", |name: &String| note::check_name(name).is_ok())
}

fn line() -> impl Strategy<Value = NoteSignature> {
    (name(), any::<[u8; 4]>(), vec(any::<u8>(), 1..100)).prop_map(|(name, id, signature)| {
        NoteSignature::new(name, countersign_tlog::KeyId(id), signature).unwrap()
    })
}

fn any_note() -> impl Strategy<Value = Note> {
    let lines = vec(proptest::char::range(' ', '\u{2fff}'), 0..20);
    let text = vec(lines, 1..6).prop_map(|lines| {
        let lines = lines.into_iter().map(String::from_iter);
        lines.map(|line| line + "\n").collect::<String>()
    });
    (text, vec(line(), 1..5)).prop_map(|(text, lines)| {
        let mut note = Note::new(text).unwrap();
        for line in lines {
            note.push(line).unwrap();
        }
        note
    })
}

/// Bytes near to what the parsers expect: their own words in any order.
fn near_bytes() -> impl Strategy<Value = Vec<u8>> {
    let words = proptest::sample::select(vec![
        "\n",
        "\n\n",
        "\u{2014} ",
        " ",
        "a",
        "+",
        "AQIDBAU=",
        "0",
        "7",
        "tile/",
        "entries",
        "/",
        "x001",
        "234",
        ".p/",
        "index ",
        "extra ",
        "c2sp.org/tlog-proof@v1\n",
        "00000000",
        "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
        "\0",
        "\u{a0}",
    ]);
    prop_oneof![
        vec(words, 0..20).prop_map(|words| words.concat().into_bytes()),
        vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #[test]
    fn notes_are_read_as_they_were_written(note in any_note()) {
        prop_assert_eq!(Note::parse(note.encode().as_bytes()), Ok(note));
    }

    #[test]
    fn checkpoints_are_read_as_they_were_written(origin in name(), size in 1u64.., root: [u8; 32]) {
        let checkpoint = Checkpoint::new(origin.clone(), size, root).unwrap();
        prop_assert_eq!(Checkpoint::parse_text(&checkpoint.to_text()), Ok(checkpoint.clone()));
        let vkey = Vkey::new(&origin, Algorithm::Ed25519, key(1).public()).unwrap();
        prop_assert_eq!(Vkey::parse(&vkey.to_string()), Ok(vkey.clone()));
        let note = sign_checkpoint(&checkpoint, &key(1)).note_text;
        prop_assert_eq!(open_checkpoint(note.as_bytes(), &vkey), Ok(checkpoint));
    }

    #[test]
    fn tile_paths_are_read_as_they_were_written(level in 0u8..=64, index: u64, width in 1u16..=256) {
        let kind = if level == 64 { TileKind::Entries } else { TileKind::Hashes(level) };
        let tile = Tile::new(kind, index, width).unwrap();
        prop_assert_eq!(Tile::parse(&tile.to_string()), Ok(tile));
    }

    #[test]
    fn bundles_are_read_as_they_were_written(entries in vec(vec(any::<u8>(), 0..40), 1..=256)) {
        let bundle = encode_entry_bundle(&entries).unwrap();
        prop_assert_eq!(decode_entry_bundle(&bundle).unwrap(), entries);
    }

    #[test]
    fn proof_files_are_read_as_they_were_written(
        extra in vec(any::<u8>(), 0..50),
        index: u64,
        proof in vec(any::<[u8; 32]>(), 0..65),
        note in any_note(),
    ) {
        let file = ProofFile { extra, index, proof, checkpoint: note.encode() };
        prop_assert_eq!(ProofFile::parse(file.encode().as_bytes()), Ok(file));
    }

    #[test]
    fn requests_to_witnesses_come_back(
        old: u64,
        proof in vec(any::<[u8; 32]>(), 0..64),
        note in any_note(),
    ) {
        let request = AddCheckpoint { old, proof, checkpoint: note.encode() };
        prop_assert_eq!(AddCheckpoint::parse(request.encode().as_bytes()), Ok(request));
    }

    #[test]
    fn foreign_bytes_never_panic_and_what_is_taken_is_written_again_alike(bytes in near_bytes()) {
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert_eq!(note.encode().into_bytes(), bytes.clone());
        }
        if let Ok(file) = ProofFile::parse(&bytes) {
            prop_assert_eq!(file.encode().into_bytes(), bytes.clone());
        }
        if let Ok(request) = AddCheckpoint::parse(&bytes) {
            prop_assert_eq!(request.encode().into_bytes(), bytes.clone());
        }
        if let Ok(entries) = decode_entry_bundle(&bytes) {
            prop_assert_eq!(encode_entry_bundle(entries).unwrap(), bytes.clone());
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            if let Ok(checkpoint) = Checkpoint::parse_text(text) {
                prop_assert_eq!(checkpoint.to_text(), text);
            }
            if let Ok(tile) = Tile::parse(text) {
                prop_assert_eq!(tile.to_string(), text);
            }
            if let Ok(vkey) = Vkey::parse(text) {
                prop_assert_eq!(vkey.to_string(), text);
            }
        }
    }
}
