//! Witness policies: the text of C2SP's tlog-policy, what it asks for, and who has cosigned when.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::Path;

use countersign_crypto::SigningKey;
use countersign_tlog::checkpoint::sign_checkpoint;
use countersign_tlog::policy::{
    Cosigned, POLICY_BYTES_MAX, POLICY_MEMBERS_MAX, POLICY_NAME_BYTES_MAX, Policy, PolicyError,
};
use countersign_tlog::{Algorithm, Checkpoint, Note, NoteSignature, Vkey, cosignature_v1, note};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors");
const ORIGIN: &str = "node-a.example/streams/orders";

fn key(n: u16) -> SigningKey {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    SigningKey::from_seed(&seed)
}

fn log_vkey(n: u16) -> Vkey {
    Vkey::new(ORIGIN, Algorithm::Ed25519, key(n).public()).unwrap()
}

fn witness_name(n: u16) -> String {
    format!("witness-{n}.example")
}

fn witness_vkey(n: u16) -> Vkey {
    Vkey::new(&witness_name(n), Algorithm::CosignatureV1, key(n).public()).unwrap()
}

/// A policy with as many witnesses `W0`, `W1`, … and further lines.
fn with_witnesses(count: u16, more: &str) -> String {
    let witnesses = (0..count).map(|n| format!("witness W{n} {}\n", witness_vkey(n)));
    witnesses.collect::<String>() + more
}

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text.as_bytes())
}

fn unsigned() -> Note {
    let checkpoint = Checkpoint::new(ORIGIN.to_owned(), 7, [3; 32]).unwrap();
    Note::parse(
        sign_checkpoint(&checkpoint, &key(1000))
            .note_text
            .as_bytes(),
    )
    .unwrap()
}

fn cosignature(note: &Note, n: u16, time: u64) -> NoteSignature {
    cosignature_v1::sign(note.text(), &witness_name(n), &key(n), time).unwrap()
}

fn cosigned(lines: &[(u16, u64)]) -> Note {
    let mut note = unsigned();
    for (n, time) in lines {
        note.push(cosignature(&note, *n, *time)).unwrap();
    }
    note
}

/// The example of the specification, its keys filled in.
fn example() -> String {
    with_witnesses(
        6,
        "group X-witnesses 2 W0 W1 W2\n\
         group Y-witnesses any W3 W4 W5\n\
         group X-and-Y all X-witnesses Y-witnesses\n\
         quorum X-and-Y\n",
    )
}

#[test]
fn the_example_of_the_specification_is_met_by_two_of_one_group_and_one_of_the_other() {
    let policy = parse(&format!("log {}\n\n{}", log_vkey(9), example())).unwrap();
    assert_eq!(policy.logs(), [log_vkey(9)]);
    assert_eq!(policy.witnesses().len(), 6);
    for subset in 0..64_u32 {
        let has = |at: usize| subset >> at & 1 == 1;
        let expected = (subset & 7).count_ones() >= 2 && subset >> 3 != 0;
        assert_eq!(policy.is_met_by(has), expected, "{subset:b}");
    }
}

#[test]
fn names_and_quorums_mean_what_the_specification_says() {
    let met = |text: &str, subset: u32| {
        let policy = parse(text).unwrap();
        policy.is_met_by(|at| subset >> at & 1 == 1)
    };
    let none = "quorum none\n";
    assert!(met(none, 0) && !parse(none).unwrap().asks_for_witnesses());
    let one = with_witnesses(2, "quorum W1\n");
    assert!(!met(&one, 0b01) && met(&one, 0b10));
    // Witness lines after the quorum count for nothing in it, and are allowed.
    let late = format!("quorum none\n{}", with_witnesses(1, ""));
    assert!(met(&late, 0));
    // Spaces and tabs anywhere, comments, empty lines; names that look like keywords.
    let odd = format!(
        "\t \n  # log x\n \twitness\tall  {} \t https://w.example \nwitness 2 {}\n group any all all 2\nquorum any\n",
        witness_vkey(0),
        witness_vkey(1)
    );
    assert!(met(&odd, 0b11) && !met(&odd, 0b01) && !met(&odd, 0b10));
    // Names are bytes: a Kelvin sign is no K, and what is no UTF-8 is a name.
    let mut bytes = format!(
        "witness K {}\nwitness \u{212a} {}\n",
        witness_vkey(0),
        witness_vkey(1)
    )
    .into_bytes();
    bytes.extend(b"group \xff\xfe any K\nquorum \xff\xfe\n");
    let policy = Policy::parse(&bytes).unwrap();
    assert!(policy.is_met_by(|at| at == 0) && !policy.is_met_by(|at| at == 1));
    // A log's and a witness's key are different things to name, whatever is in them.
    let both = format!(
        "log {}\nwitness w {}\nquorum w\n",
        log_vkey(3),
        witness_vkey(3)
    );
    assert!(parse(&both).is_ok());
}

#[test]
fn what_is_no_policy_is_refused_by_line_and_reason() {
    let refused = |text: &str| parse(text).unwrap_err();
    let two = |more: &str| refused(&with_witnesses(2, more));
    assert_eq!(refused(""), PolicyError::NoQuorum);
    assert_eq!(refused("\n# quorum none\n"), PolicyError::NoQuorum);
    assert_eq!(refused("quorum none"), PolicyError::Cut);
    assert_eq!(
        refused("quorum none\nquorum none\n"),
        PolicyError::SecondQuorum { line: 2 }
    );
    for line in [
        "quorum",
        "quorum a b",
        "log",
        "witness",
        "witness a",
        "group",
        "group a",
        "group a any",
        "hello",
        "Quorum none",
        "log a b c",
        "witness a b c d",
        "quorum none # not a comment",
        "\u{a0}quorum none",
    ] {
        assert_eq!(
            refused(&format!("{line}\n")),
            PolicyError::Form { line: 1 },
            "{line}"
        );
    }
    for byte in [0, 0x08, 0x0b, 0x0c, b'\r', 0x1f, 0x7f] {
        let text = [b'#', byte, b'\n'];
        let error = PolicyError::Byte { offset: 1 };
        assert_eq!(Policy::parse(&text), Err(error), "{byte:#x}");
    }
    let unknown = |line, name: &str| PolicyError::UnknownName {
        line,
        name: name.to_owned(),
    };
    assert_eq!(two("quorum W2\n"), unknown(3, "W2"));
    assert_eq!(two("group g any W2\nquorum g\n"), unknown(3, "W2"));
    assert_eq!(two("group g any g\nquorum g\n"), unknown(3, "g"));
    assert_eq!(two("group g any none\nquorum g\n"), unknown(3, "none"));
    assert_eq!(two("quorum g\ngroup g any W0\n"), unknown(3, "g"));
    let taken = |line, name: &str| PolicyError::DuplicateName {
        line,
        name: name.to_owned(),
    };
    assert_eq!(two("group W0 any W1\nquorum W0\n"), taken(3, "W0"));
    assert_eq!(two("group none any W1\nquorum none\n"), taken(3, "none"));
    let again = format!("witness W0 {}\nquorum W0\n", witness_vkey(9));
    assert_eq!(two(&again), taken(3, "W0"));
    let member = |line, name: &str| PolicyError::MemberTwice {
        line,
        name: name.to_owned(),
    };
    assert_eq!(two("group g any W0 W0\nquorum g\n"), member(3, "W0"));
    assert_eq!(
        two("group g any W0\ngroup h any W1 W0\nquorum h\n"),
        member(4, "W0")
    );
    for number in [
        "0",
        "3",
        "01",
        "+1",
        "1.0",
        "ALL",
        "18446744073709551616",
        "-1",
    ] {
        let group = format!("group g {number} W0 W1\nquorum g\n");
        let wrong = PolicyError::Threshold {
            line: 3,
            members: 2,
        };
        assert_eq!(two(&group), wrong, "{number}");
    }
    let same = |first| PolicyError::DuplicateKey { line: 3, first };
    let other_name = Vkey::new("other.example", Algorithm::CosignatureV1, key(1).public());
    let renamed = format!("witness V {}\nquorum V\n", other_name.unwrap());
    assert_eq!(two(&renamed), same(2));
    let other_origin = Vkey::new("a.example/b", Algorithm::Ed25519, key(9).public()).unwrap();
    let logs = format!("log {}\n\nlog {other_origin}\nquorum none\n", log_vkey(9));
    assert_eq!(refused(&logs), same(1));
    let kind = |algorithm| PolicyError::VkeyKind { line: 1, algorithm };
    assert_eq!(
        refused(&format!("log {}\nquorum none\n", witness_vkey(1))),
        kind(4)
    );
    assert_eq!(
        refused(&format!("witness w {}\nquorum none\n", log_vkey(1))),
        kind(1)
    );
    for vkey in ["x", "a+b+c", "é"] {
        let error = refused(&format!("log {vkey}\nquorum none\n"));
        assert!(matches!(error, PolicyError::Vkey { line: 1, .. }), "{vkey}");
    }
}

#[test]
fn sizes_are_bounded() {
    let large = vec![b'\n'; POLICY_BYTES_MAX + 1];
    assert!(matches!(
        Policy::parse(&large),
        Err(PolicyError::TooLarge { .. })
    ));
    let count = POLICY_MEMBERS_MAX as u16;
    assert!(parse(&with_witnesses(count, "quorum W7\n")).is_ok());
    assert_eq!(
        parse(&with_witnesses(count + 1, "quorum W7\n")),
        Err(PolicyError::Members {
            line: POLICY_MEMBERS_MAX + 1
        })
    );
    let long = "n".repeat(POLICY_NAME_BYTES_MAX + 1);
    let text = with_witnesses(1, &format!("group {long} any W0\nquorum W0\n"));
    assert_eq!(parse(&text), Err(PolicyError::Name { line: 2 }));
}

#[test]
fn who_cosigned_and_since_when_the_quorum_stands_is_told() {
    let policy = parse(&example()).unwrap();
    let judge = |lines: &[(u16, u64)]| policy.judge(&cosigned(lines)).unwrap();
    let nobody = judge(&[]);
    assert!(!nobody.met && nobody.by.is_empty() && nobody.met_by_seconds.is_none());
    let short = judge(&[(0, 10), (3, 20)]);
    assert!(!short.met && short.met_by_seconds.is_none());
    assert_eq!(short.by.len(), 2);
    // Two of X at 10 and 30, one of Y at 20; who comes later changes nothing.
    let met = judge(&[(3, 20), (1, 30), (0, 10), (2, 99), (5, 98)]);
    assert_eq!((met.met, met.met_by_seconds), (true, Some(30)));
    // Of two lines of one witness the earlier counts.
    let twice = judge(&[(3, 20), (1, 30), (0, 10), (1, 15)]);
    assert_eq!(twice.met_by_seconds, Some(20));
    let second = Cosigned {
        witness: 1,
        time_seconds: 15,
    };
    assert_eq!(twice.by[1], second);
    let none = parse(&with_witnesses(2, "quorum none\n")).unwrap();
    let told = none.judge(&cosigned(&[(1, 5)])).unwrap();
    assert_eq!((told.met, told.met_by_seconds), (true, None));
    assert_eq!(told.by.len(), 1);
}

#[test]
fn a_false_line_of_a_witness_spoils_the_note_and_one_of_a_stranger_does_not() {
    let policy = parse(&example()).unwrap();
    let good = [(0, 10), (1, 10), (3, 10)];
    let mut strange = cosigned(&good);
    let text = strange.text().to_owned();
    let stranger = cosignature_v1::sign("other\n", "stranger.example", &key(77), 5).unwrap();
    strange.push(stranger).unwrap();
    // The witness's key under type 0x01 is another key; so is its name with another key.
    strange
        .push(note::sign("other\n", &witness_name(4), &key(4)).unwrap())
        .unwrap();
    strange
        .push(cosignature_v1::sign(&text, &witness_name(4), &key(78), 5).unwrap())
        .unwrap();
    assert!(policy.judge(&strange).unwrap().met);

    let of = |line: NoteSignature| {
        let mut note = cosigned(&good);
        note.push(line).unwrap();
        policy.judge(&note).unwrap_err()
    };
    let other = cosignature_v1::sign("other\n", &witness_name(4), &key(4), 5).unwrap();
    let found = of(other.clone());
    assert_eq!((found.line, found.witness), (4, witness_name(4)));
    let short = other.signature()[..71].to_vec();
    of(NoteSignature::new(witness_name(4), other.id(), short).unwrap());
    // A good line and a false one of the same witness.
    let again = cosignature_v1::sign("other\n", &witness_name(0), &key(0), 5).unwrap();
    of(again);
    // A time that was not signed.
    let mut bytes = cosignature(&unsigned(), 4, 5).signature().to_vec();
    bytes[7] = 4;
    of(NoteSignature::new(witness_name(4), other.id(), bytes).unwrap());
}

#[test]
fn the_cosigned_vector_that_other_implementations_accepted_meets_its_policy() {
    let folder = Path::new(VECTORS).join("tlog/v1");
    let keys: Value =
        serde_json::from_slice(&std::fs::read(folder.join("keys.json")).unwrap()).unwrap();
    let text = format!(
        "log {}\nwitness b {}\nquorum b\n",
        keys["log"]["vkey"].as_str().unwrap(),
        keys["witness"]["vkey"].as_str().unwrap()
    );
    let policy = parse(&text).unwrap();
    let note = std::fs::read(folder.join("cosigned-checkpoint.txt")).unwrap();
    let witnessed = policy.judge(&Note::parse(&note).unwrap()).unwrap();
    assert_eq!(
        (witnessed.met, witnessed.met_by_seconds),
        (true, Some(1_790_000_000))
    );
    let note = std::fs::read(folder.join("checkpoint.txt")).unwrap();
    assert!(!policy.judge(&Note::parse(&note).unwrap()).unwrap().met);
}

#[test]
fn vectors_are_the_recorded_ones_and_are_judged_as_recorded() {
    let asked = [
        ("nobody", "quorum none\n".to_owned()),
        ("one witness", with_witnesses(2, "quorum W1\n")),
        (
            "two of three",
            with_witnesses(3, "group g 2 W0 W1 W2\nquorum g\n"),
        ),
        ("the example of the specification", example()),
        (
            "spaces, tabs, comments, addresses",
            format!("\t# x\n\n log \t{} https://log.example/a b\n", log_vkey(9))
                .replace(" b\n", "\n")
                + &with_witnesses(2, " group\tg any\tW0 W1 \nquorum g\t\n"),
        ),
    ];
    let met = asked.map(|(what, text)| {
        let policy = parse(&text).unwrap();
        let count = policy.witnesses().len();
        let met: Vec<u32> = (0..1 << count)
            .filter(|subset| policy.is_met_by(|at| subset >> at & 1 == 1))
            .collect();
        json!({"what": what, "policy": text, "met_by": met})
    });
    let refused = [
        ("no quorum", "# nothing\n".to_owned()),
        ("two quorums", "quorum none\nquorum none\n".to_owned()),
        ("no line feed at the end", "quorum none".to_owned()),
        ("a carriage return", "quorum none\r\n".to_owned()),
        (
            "a group of nobody",
            with_witnesses(1, "group g any\nquorum W0\n"),
        ),
        (
            "more than there are",
            with_witnesses(2, "group g 3 W0 W1\nquorum g\n"),
        ),
        (
            "none of two",
            with_witnesses(2, "group g 0 W0 W1\nquorum g\n"),
        ),
        (
            "a member of two groups",
            with_witnesses(1, "group g any W0\ngroup h any W0\nquorum g\n"),
        ),
        (
            "a member that is none",
            with_witnesses(1, "group g any W0 none\nquorum g\n"),
        ),
        (
            "a group within itself",
            with_witnesses(1, "group g any W0 g\nquorum g\n"),
        ),
        (
            "a quorum defined below",
            format!("quorum W0\n{}", with_witnesses(1, "")),
        ),
        (
            "one key under two names",
            format!(
                "{}witness V {}\nquorum V\n",
                with_witnesses(1, ""),
                witness_vkey(0)
            ),
        ),
        (
            "one name for two keys",
            format!(
                "{}witness W0 {}\nquorum W0\n",
                with_witnesses(1, ""),
                witness_vkey(1)
            ),
        ),
        (
            "a log's key for a witness",
            format!("witness w {}\nquorum w\n", log_vkey(1)),
        ),
        (
            "a witness's key for a log",
            format!("log {}\nquorum none\n", witness_vkey(1)),
        ),
        ("another word", "logs x\nquorum none\n".to_owned()),
    ];
    for (what, text) in &refused {
        assert!(parse(text).is_err(), "{what}");
    }
    let refused = refused.map(|(what, text)| json!({"what": what, "policy": text}));
    let note = cosigned(&[(0, 1_790_000_010), (2, 1_790_000_005), (1, 1_790_000_020)]);
    let expected = json!({
        "met_by": "each number is a set of witnesses, the first in the policy being bit 0",
        "policies": met,
        "refused": refused,
        "cosigned": note.encode(),
        "cosigned_under": "two of three",
        "met_by_seconds": 1_790_000_010,
    });
    let path = Path::new(VECTORS).join("policy/v1/cases.json");
    if !path.exists() && std::env::var("COUNTERSIGN_WRITE_VECTORS").is_ok_and(|v| v == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("{expected:#}\n")).unwrap();
    }
    let found: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(found, expected);
    let policy = parse(found["policies"][2]["policy"].as_str().unwrap()).unwrap();
    let note = Note::parse(found["cosigned"].as_str().unwrap().as_bytes()).unwrap();
    let witnessed = policy.judge(&note).unwrap();
    assert_eq!(witnessed.met_by_seconds, found["met_by_seconds"].as_u64());
}

/// A tree of groups over witnesses, as text and as a plain definition.
#[derive(Clone, Debug)]
enum Tree {
    Witness(usize),
    Group(usize, Vec<Tree>),
}

impl Tree {
    fn met(&self, subset: u32) -> bool {
        match self {
            Self::Witness(at) => subset >> at & 1 == 1,
            Self::Group(needed, members) => {
                members.iter().filter(|member| member.met(subset)).count() >= *needed
            }
        }
    }

    /// Writes the lines below, and returns the name.
    fn write(&self, groups: &mut usize, out: &mut String) -> String {
        match self {
            Self::Witness(at) => format!("W{at}"),
            Self::Group(needed, members) => {
                let names: Vec<String> = members
                    .iter()
                    .map(|member| member.write(groups, out))
                    .collect();
                *groups += 1;
                let name = format!("G{groups}");
                out.push_str(&format!("group {name} {needed} {}\n", names.join(" ")));
                name
            }
        }
    }
}

/// Deals out the witnesses to a random tree of groups.
fn tree(splits: &[u8], witnesses: std::ops::Range<usize>) -> Tree {
    let Some((&split, rest)) = splits.split_first() else {
        return Tree::Witness(witnesses.start);
    };
    if witnesses.len() == 1 {
        return Tree::Witness(witnesses.start);
    }
    let at = witnesses.start + 1 + usize::from(split) % (witnesses.len() - 1);
    let half = rest.len() / 2;
    let members = vec![
        tree(&rest[..half], witnesses.start..at),
        tree(&rest[half..], at..witnesses.end),
    ];
    Tree::Group(1 + usize::from(split >> 7), members)
}

proptest! {
    #[test]
    fn random_groups_are_met_as_their_definition_says(splits in vec(any::<u8>(), 1..16)) {
        let tree = tree(&splits, 0..6);
        let mut lines = String::new();
        let name = tree.write(&mut 0, &mut lines);
        let policy = parse(&with_witnesses(6, &format!("{lines}quorum {name}\n"))).unwrap();
        for subset in 0..64 {
            prop_assert_eq!(policy.is_met_by(|at| subset >> at & 1 == 1), tree.met(subset));
        }
    }

    #[test]
    fn foreign_bytes_never_panic(
        bytes in vec(any::<u8>(), 0..200),
        words in vec(prop_oneof!["log", "witness", "group", "quorum", "none", "any", "all", "1", "W0", "g", "\n", "\n", " ", "#"], 0..30),
        at in any::<prop::sample::Index>(),
    ) {
        let _ = Policy::parse(&bytes);
        let _ = Policy::is_meant(&bytes);
        let text = with_witnesses(1, &(words.join(" ") + "\nquorum W0\n"));
        let _ = parse(&text);
        let mut spliced = example().into_bytes();
        let at = at.index(spliced.len());
        spliced.splice(at..(at + bytes.len()).min(spliced.len()), bytes);
        let _ = Policy::parse(&spliced);
    }
}
