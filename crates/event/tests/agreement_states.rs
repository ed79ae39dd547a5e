//! The state of an agreement as a function of documents and time: its table against `schemas/agreement-states.md`, and what holds whatever the documents.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::sync::LazyLock;

use countersign_crypto::{SigningKey, sha256};
use countersign_event::agreement_state::{
    AgreementDocument, Disobeyed, End, HeldDocument, May, Name, State, state,
};
use countersign_event::documents::{
    Agreement, AgreementId, Digest, Document, Party, Plan, Proposal, ROUNDS_MAX, Step, StepKind,
    SuspensionCause, Termination,
};
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use proptest::prelude::*;

const ID: AgreementId = AgreementId([1; 16]);
const OTHER_ID: AgreementId = AgreementId([2; 16]);

/// Derived once: that is the slowest thing here.
static PARTIES: LazyLock<[Party; 3]> = LazyLock::new(|| {
    [1, 2, 3].map(|seed| {
        let organization = SigningKey::from_seed(&[seed; 32]).public();
        Party {
            authority: Authority::of_key(&organization),
            name: format!("Party {seed}"),
            organization,
        }
    })
});

fn party(number: usize) -> Party {
    PARTIES[number - 1].clone()
}

fn producer() -> Authority {
    party(1).authority
}

fn consumer() -> Authority {
    party(2).authority
}

fn stranger() -> Authority {
    party(3).authority
}

fn stream() -> Origin {
    Origin::of_stream(&producer(), &"orders".parse().unwrap())
}

fn held<D: Document + Clone>(
    document: &D,
    signed_by: &[Authority],
    wrap: fn(D) -> AgreementDocument,
) -> HeldDocument {
    HeldDocument {
        digest: sha256(&document.to_payload()),
        signed_by: signed_by.to_vec(),
        document: wrap(document.clone()),
    }
}

fn hold_proposal(proposal: &Proposal) -> HeldDocument {
    held(proposal, std::slice::from_ref(&proposal.by), |p| {
        AgreementDocument::Proposal(Box::new(p))
    })
}

fn hold_agreement(agreement: &Agreement, signed_by: &[Authority]) -> HeldDocument {
    held(agreement, signed_by, |a| {
        AgreementDocument::Agreement(Box::new(a))
    })
}

fn hold_step(step: &Step) -> HeldDocument {
    held(
        step,
        std::slice::from_ref(&step.by),
        AgreementDocument::Step,
    )
}

fn hold_termination(end: &Termination) -> HeldDocument {
    held(
        end,
        std::slice::from_ref(&end.by),
        AgreementDocument::Termination,
    )
}

/// By the consumer, at 10, until 100.
fn proposal() -> Proposal {
    Proposal {
        agreement: ID,
        round: 1,
        answers: None,
        by: consumer(),
        producer: party(1),
        consumer: party(2),
        stream: stream(),
        plan: Plan::default(),
        from: None,
        until: Some(Timestamp(1000)),
        supersedes: None,
        purpose: None,
        valid_until: Timestamp(100),
        made: Timestamp(10),
    }
}

fn counter(to: &Proposal, made: u64) -> Proposal {
    Proposal {
        round: to.round + 1,
        answers: Some(to.digest()),
        by: to.other().clone(),
        made: Timestamp(made),
        ..to.clone()
    }
}

fn step(kind: StepKind, by: &Authority, on: Digest, made: u64) -> Step {
    Step {
        agreement: ID,
        stream: stream(),
        step: kind,
        on,
        by: by.clone(),
        cause: (kind == StepKind::Suspend).then_some(SuspensionCause::Dispute),
        reason: String::new(),
        position: None,
        made: Timestamp(made),
    }
}

fn digest<D: Document>(document: &D) -> Digest {
    Digest(sha256(&document.to_payload()))
}

/// From an invitation, from 30 until 1000.
fn invited() -> Agreement {
    Agreement {
        accepts: None,
        ..proposal().agreement(proposal().digest(), Timestamp(30))
    }
}

fn both() -> [Authority; 2] {
    [producer(), consumer()]
}

/// Documents that lead to each state, at 50.
fn ways() -> Vec<(&'static str, Vec<HeldDocument>)> {
    let first = hold_proposal(&proposal());
    let later = Proposal {
        from: Some(Timestamp(500)),
        ..proposal()
    };
    let accepted = proposal().agreement(proposal().digest(), Timestamp(30));
    let begins_later = later.agreement(later.digest(), Timestamp(30));
    let agreed = hold_agreement(&accepted, &both());
    let suspended = step(StepKind::Suspend, &consumer(), digest(&accepted), 40);
    let ended = step(StepKind::Complete, &consumer(), digest(&accepted), 40);
    vec![
        ("nothing", vec![]),
        ("proposed", vec![first.clone()]),
        (
            "countered",
            vec![
                hold_proposal(&Proposal {
                    by: producer(),
                    ..proposal()
                }),
                hold_proposal(&counter(
                    &Proposal {
                        by: producer(),
                        ..proposal()
                    },
                    20,
                )),
            ],
        ),
        (
            "accepted",
            vec![first.clone(), hold_agreement(&accepted, &[producer()])],
        ),
        (
            "agreed",
            vec![
                hold_proposal(&later),
                hold_agreement(&begins_later, &both()),
            ],
        ),
        ("active", vec![first.clone(), agreed.clone()]),
        (
            "suspended",
            vec![first.clone(), agreed.clone(), hold_step(&suspended)],
        ),
        ("ended", vec![first, agreed, hold_step(&ended)]),
    ]
}

/// A document of each kind by one side, dated `made`, that acts on what is there.
fn kinds(
    documents: &[HeldDocument],
    by: &Authority,
    made: u64,
) -> Vec<(&'static str, HeldDocument)> {
    let now = state(ID, documents, Timestamp(made));
    let open = documents.iter().rev().find_map(|one| match &one.document {
        AgreementDocument::Proposal(proposal) => Some((**proposal).clone()),
        _ => None,
    });
    let first = Proposal {
        by: by.clone(),
        made: Timestamp(made),
        ..proposal()
    };
    let answer = open
        .as_ref()
        .map_or_else(|| counter(&proposal(), made), |open| counter(open, made));
    let answer = Proposal {
        by: by.clone(),
        ..answer
    };
    let basis = open.unwrap_or_else(proposal);
    let acceptance = basis.agreement(basis.digest(), Timestamp(made));
    let on = now.acts_on.map_or(Digest([9; 32]), Digest);
    let suspension = now
        .suspended_by
        .first()
        .map_or(on, |(_, digest)| Digest(*digest));
    let one = |kind, on| hold_step(&step(kind, by, on, made));
    let end = Termination {
        agreement: ID,
        stream: stream(),
        by: by.clone(),
        reason: String::new(),
        position: None,
        made: Timestamp(made),
    };
    vec![
        ("proposal", hold_proposal(&first)),
        ("counter", hold_proposal(&answer)),
        (
            "agreement, one signature",
            hold_agreement(&acceptance, std::slice::from_ref(by)),
        ),
        (
            "agreement, both signatures",
            hold_agreement(&acceptance, &both()),
        ),
        ("step: refuse", one(StepKind::Refuse, on)),
        ("step: withdraw", one(StepKind::Withdraw, on)),
        ("step: suspend", one(StepKind::Suspend, on)),
        ("step: resume", one(StepKind::Resume, suspension)),
        ("step: complete", one(StepKind::Complete, on)),
        ("termination", hold_termination(&end)),
        (
            "agreement that supersedes it",
            hold_agreement(
                &Agreement {
                    id: OTHER_ID,
                    supersedes: now.acts_on.map(Digest),
                    ..acceptance
                },
                &both(),
            ),
        ),
    ]
}

fn table() -> String {
    let mut text = String::from(
        "| state | document | by the side that was last to act | by the other side |\n|---|---|---|---|\n",
    );
    for (name, documents) in ways() {
        // The consumer was the last to act in every way above, but where the producer has accepted.
        let (last, other) = match name {
            "accepted" => (producer(), consumer()),
            _ => (consumer(), producer()),
        };
        let before = state(ID, &documents, Timestamp(50));
        let outcome = |by: &Authority| -> Vec<(&'static str, String)> {
            let kinds = kinds(&documents, by, 50).into_iter();
            let told = kinds.map(|(kind, document)| {
                let mut more = documents.clone();
                more.push(document.clone());
                let after = state(ID, &more, Timestamp(50));
                let told = match after.disobeys(&document.digest) {
                    Some(why) => {
                        assert_eq!(after.name, before.name, "{name}, {kind}");
                        format!("`{}`", why.word())
                    }
                    None if after == before => "-".to_owned(),
                    None => format!("**{}**", after.name.word()),
                };
                (kind, told)
            });
            told.collect()
        };
        for ((kind, by_last), (_, by_other)) in outcome(&last).into_iter().zip(outcome(&other)) {
            writeln!(text, "| {name} | {kind} | {by_last} | {by_other} |").unwrap();
        }
    }
    text
}

#[test]
fn the_table_of_transitions_is_the_codes() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../schemas/agreement-states.md"
    );
    let page = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- table -->\n", "<!-- end of table -->");
    let (before, rest) = page.split_once(begin).unwrap();
    let (found, after) = rest.split_once(end).unwrap();
    let table = table();
    if std::env::var_os("COUNTERSIGN_WRITE_SNAPSHOTS").is_some() && found != table {
        std::fs::write(path, format!("{before}{begin}{table}{end}{after}")).unwrap();
        return;
    }
    assert!(found == table, "the table is now:\n{table}");
}

fn now(documents: &[HeldDocument], at: u64) -> State {
    state(ID, documents, Timestamp(at))
}

#[test]
fn each_way_leads_to_its_state_and_says_who_may_go_on() {
    for (name, documents) in ways() {
        let state = now(&documents, 50);
        match name {
            "ended" => assert_eq!(state.name, Name::Ended(End::Completed)),
            name => assert_eq!(state.name.word(), name),
        }
        assert!(state.not_obeyed.is_empty(), "{name}: {state:?}");
        // What a side may do is what it is obeyed in.
        for side in both() {
            for (kind, document) in kinds(&documents, &side, 50) {
                let may = match kind {
                    "agreement, one signature" => May::Accept,
                    "counter" => May::Counter,
                    "step: refuse" => May::Refuse,
                    "step: withdraw" => May::Withdraw,
                    "step: suspend" => May::Suspend,
                    "step: resume" => May::Resume,
                    "step: complete" => May::Complete,
                    "termination" => May::Terminate,
                    _ => continue,
                };
                let mut more = documents.clone();
                let digest = document.digest;
                more.push(document);
                let obeyed = now(&more, 50).disobeys(&digest).is_none();
                assert_eq!(state.may(&side, may), obeyed, "{name}, {kind}, {side}");
            }
        }
    }
}

#[test]
fn time_alone_ends_proposals_and_agreements() {
    let first = [hold_proposal(&proposal())];
    assert_eq!(now(&first, 9).name, Name::Nothing);
    assert_eq!(now(&first, 99).name, Name::Proposed);
    let over = now(&first, 5000);
    assert_eq!(
        (over.name, over.since),
        (Name::Ended(End::Expired), Timestamp(100))
    );
    let agreed = [hold_agreement(&invited(), &both())];
    assert_eq!(now(&agreed, 999).name, Name::Active);
    assert_eq!(now(&agreed, 999).until, Some(Timestamp(1000)));
    let over = now(&agreed, 1000);
    assert_eq!(
        (over.name, over.since),
        (Name::Ended(End::Expired), Timestamp(1000))
    );
}

#[test]
fn what_comes_too_late_or_from_the_wrong_side_is_named() {
    let told = |documents: &[HeldDocument], last: &HeldDocument| {
        let mut all = documents.to_vec();
        all.push(last.clone());
        now(&all, 400).disobeys(&last.digest)
    };
    let first = proposal();
    let open = [hold_proposal(&first)];
    let late = first.agreement(first.digest(), Timestamp(100));
    let late = hold_agreement(&late, &[producer()]);
    assert_eq!(told(&open, &late), Some(Disobeyed::AfterTheDeadline));
    let withdrawn = hold_step(&step(StepKind::Withdraw, &consumer(), first.digest(), 20));
    let after = first.agreement(first.digest(), Timestamp(21));
    let after = hold_agreement(&after, &[producer()]);
    let taken_back = [open[0].clone(), withdrawn];
    assert_eq!(told(&taken_back, &after), Some(Disobeyed::AfterTheEnd));
    let other = Plan {
        exposure_events: 7,
        ..Plan::default()
    };
    let one = hold_proposal(&counter(&first, 20));
    let two = Proposal {
        plan: other.clone(),
        ..counter(&first, 21)
    };
    let two = hold_proposal(&two);
    assert_eq!(
        told(&[open[0].clone(), one], &two),
        Some(Disobeyed::NotOpen)
    );
    let better = Agreement {
        plan: other,
        ..first.agreement(first.digest(), Timestamp(30))
    };
    let better = hold_agreement(&better, &[producer()]);
    assert_eq!(told(&open, &better), Some(Disobeyed::OtherTerms));
    let own = first.agreement(first.digest(), Timestamp(30));
    let own = hold_agreement(&own, &[consumer()]);
    assert_eq!(told(&open, &own), Some(Disobeyed::WrongSigner));
    let foreign = step(StepKind::Suspend, &stranger(), digest(&invited()), 40);
    let agreed = [hold_agreement(&invited(), &both())];
    assert_eq!(
        told(&agreed, &hold_step(&foreign)),
        Some(Disobeyed::WrongSigner)
    );
    // Says the consumer, signs nobody.
    let mut unsigned = hold_step(&step(
        StepKind::Suspend,
        &consumer(),
        digest(&invited()),
        40,
    ));
    unsigned.signed_by.clear();
    assert_eq!(told(&agreed, &unsigned), Some(Disobeyed::WrongSigner));
}

#[test]
fn rounds_are_bounded() {
    let mut documents = vec![hold_proposal(&proposal())];
    let mut last = proposal();
    for round in 2..=ROUNDS_MAX {
        last = counter(&last, u64::from(10 + round));
        documents.push(hold_proposal(&last));
    }
    let full = now(&documents, 50);
    assert_eq!(full.name, Name::Countered);
    assert!(full.not_obeyed.is_empty());
    assert!(both().iter().all(|side| !full.may(side, May::Counter)));
    let more = hold_proposal(&counter(&last, 40));
    documents.push(more.clone());
    let told = now(&documents, 50).disobeys(&more.digest);
    assert_eq!(told, Some(Disobeyed::TooManyRounds));
}

#[test]
fn each_side_lifts_its_own_suspension() {
    let agreed = hold_agreement(&invited(), &both());
    let on = digest(&invited());
    let by = |side: &Authority, made| step(StepKind::Suspend, side, on, made);
    let (first, second) = (by(&producer(), 40), by(&consumer(), 41));
    let lift = |side: &Authority, what: &Step, made| {
        hold_step(&step(StepKind::Resume, side, digest(what), made))
    };
    let mut documents = vec![agreed, hold_step(&first), hold_step(&second)];
    assert_eq!(now(&documents, 45).suspended_by.len(), 2);
    let foreign = lift(&consumer(), &first, 50);
    documents.push(foreign.clone());
    assert_eq!(
        now(&documents, 55).disobeys(&foreign.digest),
        Some(Disobeyed::WrongSigner)
    );
    documents.push(lift(&producer(), &first, 60));
    let still = now(&documents, 65);
    assert_eq!((still.name, still.since), (Name::Suspended, Timestamp(41)));
    documents.push(lift(&consumer(), &second, 70));
    let lifted = now(&documents, 75);
    assert_eq!((lifted.name, lifted.since), (Name::Active, Timestamp(70)));
    // At a time in between it is what it was.
    assert_eq!(now(&documents, 65), still);
}

#[test]
fn what_supersedes_takes_over_when_it_begins() {
    let old = invited();
    let new = Agreement {
        id: OTHER_ID,
        supersedes: Some(digest(&old)),
        from: Timestamp(300),
        made: Timestamp(200),
        ..old.clone()
    };
    let documents = [hold_agreement(&old, &both()), hold_agreement(&new, &both())];
    let before = now(&documents, 299);
    assert_eq!(
        (before.name, before.until),
        (Name::Active, Some(Timestamp(300)))
    );
    assert_eq!(now(&documents, 300).name, Name::Ended(End::Superseded));
    let new = state(OTHER_ID, &documents, Timestamp(300));
    assert_eq!(new.name, Name::Active);
    // Under one signature it supersedes nothing.
    let alone = [
        documents[0].clone(),
        hold_agreement(
            match &documents[1].document {
                AgreementDocument::Agreement(agreement) => agreement,
                _ => unreachable!(),
            },
            &[producer()],
        ),
    ];
    assert_eq!(now(&alone, 300).name, Name::Active);
}

/// Documents of the talks by one side, dated before both signed, at that time and after it.
fn talk_beside(agreed: &Agreement, by: &Authority) -> Vec<(String, HeldDocument)> {
    let on = agreed.accepts.unwrap_or(proposal().digest());
    let mut all = Vec::new();
    for made in [1, 9, 10, 11, 29, 30, 31] {
        let first = Proposal {
            by: by.clone(),
            valid_until: Timestamp(made + 1),
            made: Timestamp(made),
            ..proposal()
        };
        let answer = Proposal {
            by: by.clone(),
            ..counter(&proposal(), made)
        };
        let acceptance = Agreement {
            until: Some(Timestamp(900)),
            ..proposal().agreement(proposal().digest(), Timestamp(made))
        };
        let kinds = [
            ("proposal", hold_proposal(&first)),
            ("counter", hold_proposal(&answer)),
            (
                "acceptance",
                hold_agreement(&acceptance, std::slice::from_ref(by)),
            ),
            ("refuse", hold_step(&step(StepKind::Refuse, by, on, made))),
            (
                "withdraw",
                hold_step(&step(StepKind::Withdraw, by, on, made)),
            ),
        ];
        all.extend(kinds.map(|(kind, document)| (format!("{kind} of {made} by {by}"), document)));
    }
    all
}

#[test]
fn no_side_undoes_what_both_have_signed_by_a_document_dated_back() {
    let negotiated = proposal().agreement(proposal().digest(), Timestamp(30));
    let with_talks = vec![
        hold_proposal(&proposal()),
        hold_agreement(&negotiated, &both()),
    ];
    let from_an_invitation = vec![hold_agreement(&invited(), &both())];
    for (agreed, documents) in [(negotiated, with_talks), (invited(), from_an_invitation)] {
        let expected = now(&documents, 50);
        assert_eq!(expected.name, Name::Active);
        assert!(expected.not_obeyed.is_empty());
        for (told, document) in both().iter().flat_map(|by| talk_beside(&agreed, by)) {
            for first in [true, false] {
                let mut more = documents.clone();
                more.insert(if first { 0 } else { more.len() }, document.clone());
                let mut found = now(&more, 50);
                assert!(found.disobeys(&document.digest).is_some(), "{told}");
                found.not_obeyed.clear();
                assert_eq!(found, expected, "{told}");
            }
        }
    }
}

#[test]
fn what_both_have_signed_stands_whatever_was_said_before() {
    let first = proposal();
    let withdrawn = step(StepKind::Withdraw, &consumer(), first.digest(), 20);
    let late = first.agreement(first.digest(), Timestamp(100));
    let documents = [
        hold_proposal(&first),
        hold_step(&withdrawn),
        hold_agreement(&late, &both()),
    ];
    // Before they signed, the talks were what they were.
    assert_eq!(now(&documents, 15).name, Name::Proposed);
    assert_eq!(now(&documents, 99).name, Name::Ended(End::Withdrawn));
    let agreed = now(&documents, 100);
    assert_eq!((agreed.name, agreed.since), (Name::Active, Timestamp(100)));
    let withdrawn = documents[1].digest;
    assert_eq!(agreed.not_obeyed, [(withdrawn, Disobeyed::OutOfPlace)]);
    // Both signatures of one side are one.
    let alone = Agreement {
        consumer: party(1),
        made: Timestamp(5),
        ..invited()
    };
    let alone = hold_agreement(&alone, &[producer()]);
    let with = [documents.as_slice(), std::slice::from_ref(&alone)].concat();
    let found = now(&with, 150);
    assert_eq!(found.disobeys(&alone.digest), Some(Disobeyed::OutOfPlace));
    assert_eq!(found.acts_on, agreed.acts_on);
}

/// One document of a made-up history.
#[derive(Clone, Debug)]
struct Move {
    kind: u8,
    by: u8,
    /// Which of the documents before it acts on; beyond them: on nothing that is there.
    on: prop::sample::Index,
    wild: bool,
    after: u64,
    signers: u8,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = (
        0..11u8,
        0..8u8,
        any::<prop::sample::Index>(),
        prop::bool::weighted(0.1),
        0..12u64,
        0..6u8,
    );
    let one = one.prop_map(|(kind, by, on, wild, after, signers)| Move {
        kind,
        by,
        on,
        wild,
        after,
        signers,
    });
    prop::collection::vec(one, 0..14)
}

/// Documents that mostly act on what is there, and sometimes on what is not, by whoever may and whoever may not.
fn history(moves: &[Move]) -> Vec<HeldDocument> {
    let mut all: Vec<HeldDocument> = Vec::new();
    let mut at = 5;
    for one in moves {
        at += one.after;
        let made = Timestamp(at);
        let by = match one.by {
            0..=3 => producer(),
            4..=6 => consumer(),
            _ => stranger(),
        };
        let newest = |wanted: fn(&AgreementDocument) -> bool| {
            let mut all = all.iter().rev();
            all.find(|one| wanted(&one.document))
        };
        let chosen = if all.is_empty() || one.wild {
            None
        } else {
            Some(one.on.get(&all))
        };
        let open = newest(|document| matches!(document, AgreementDocument::Proposal(_)));
        let open = if one.wild { chosen } else { open };
        let proposed = match open.map(|open| &open.document) {
            Some(AgreementDocument::Proposal(proposal)) => (**proposal).clone(),
            _ => proposal(),
        };
        let agreed = newest(|document| matches!(document, AgreementDocument::Agreement(_)));
        let agreed = agreed
            .or(chosen)
            .map_or(Digest([7; 32]), |one| Digest(one.digest));
        let signers: &[Authority] = match one.signers {
            0 => &[producer()],
            1 => &[consumer()],
            2 => &[],
            _ => &both(),
        };
        let on_chosen = chosen.map_or(Digest([8; 32]), |one| Digest(one.digest));
        all.push(match one.kind {
            0 => hold_proposal(&Proposal {
                by,
                made,
                valid_until: Timestamp(at + 40),
                ..proposal()
            }),
            1 => hold_proposal(&Proposal {
                by,
                ..counter(&proposed, at)
            }),
            2 | 3 => hold_agreement(&proposed.agreement(proposed.digest(), made), signers),
            4 => hold_agreement(&Agreement { made, ..invited() }, signers),
            5 => hold_step(&step(StepKind::Suspend, &by, agreed, at)),
            6 => hold_step(&step(StepKind::Resume, &by, on_chosen, at)),
            7 => hold_step(&step(StepKind::Complete, &by, agreed, at)),
            8 => {
                let kind = if one.wild {
                    StepKind::Refuse
                } else {
                    StepKind::Withdraw
                };
                hold_step(&step(kind, &by, proposed.digest(), at))
            }
            9 => hold_termination(&Termination {
                agreement: ID,
                stream: stream(),
                by,
                reason: String::new(),
                position: None,
                made,
            }),
            _ => hold_agreement(
                &Agreement {
                    id: OTHER_ID,
                    supersedes: Some(agreed),
                    made,
                    ..invited()
                },
                signers,
            ),
        });
    }
    all
}

/// Whether both have signed an agreement by then.
fn is_agreed(documents: &[HeldDocument], at: u64) -> bool {
    documents.iter().any(|one| {
        let AgreementDocument::Agreement(agreement) = &one.document else {
            return false;
        };
        agreement.id == ID
            && agreement.made <= Timestamp(at)
            && agreement.until.is_none_or(|until| agreement.from < until)
            && both().iter().all(|side| one.signed_by.contains(side))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn order_and_repetition_change_nothing(
        moves in moves(),
        at in 0..160u64,
        shuffle in any::<u64>(),
    ) {
        let documents = history(&moves);
        let expected = now(&documents, at);
        let mut mixed = documents.clone();
        mixed.extend(documents.iter().step_by(2).cloned());
        // Each signature by itself says what all of them say.
        for one in &documents {
            for signer in &one.signed_by {
                mixed.push(HeldDocument { signed_by: vec![signer.clone()], ..one.clone() });
            }
        }
        let mut seed = shuffle;
        for last in (1..mixed.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            mixed.swap(last, (seed >> 33) as usize % (last + 1));
        }
        prop_assert_eq!(now(&mixed, at), expected);
    }

    #[test]
    fn an_ended_agreement_stays_ended(moves in moves()) {
        let documents = history(&moves);
        let mut ended: Option<(State, bool)> = None;
        for at in 0..170 {
            let state = now(&documents, at);
            let agreed = is_agreed(&documents, at);
            // Talks that are over give way to what both sign after all, and to nothing else.
            if let Some((ended, _)) = ended.as_ref().filter(|(_, before)| *before == agreed) {
                prop_assert_eq!(ended.name, state.name);
                prop_assert_eq!(ended.since, state.since);
                prop_assert_eq!(&ended.cause, &state.cause);
            }
            let is_end = state.name.is_end();
            prop_assert!(!is_end || state.next.is_empty());
            ended = is_end.then_some((state, agreed));
        }
    }

    #[test]
    fn what_both_have_signed_stands_whatever_one_side_says(
        moves in moves(),
        more in moves(),
        made in 0..100u64,
        by_producer in any::<bool>(),
    ) {
        let by = if by_producer { producer() } else { consumer() };
        let mut documents = history(&moves);
        let agreement = Agreement { made: Timestamp(made), ..invited() };
        documents.push(hold_agreement(&agreement, &both()));
        let expected: Vec<State> = (made..170).map(|at| now(&documents, at)).collect();
        let talk = history(&more).into_iter().filter(|one| match &one.document {
            AgreementDocument::Agreement(agreement) => agreement.id == ID,
            AgreementDocument::Proposal(_) => true,
            AgreementDocument::Step(step) => {
                matches!(step.step, StepKind::Refuse | StepKind::Withdraw)
            }
            AgreementDocument::Termination(_) => false,
        });
        // Where it was held before, this is a signature more, and then it may be one of both.
        let talk: Vec<_> = talk
            .filter(|one| documents.iter().all(|held| held.digest != one.digest))
            .map(|one| HeldDocument { signed_by: vec![by.clone()], ..one })
            .collect();
        documents.extend(talk);
        for (at, expected) in (made..170).zip(expected) {
            let found = now(&documents, at);
            let not_obeyed = expected.not_obeyed.clone();
            prop_assert!(not_obeyed.iter().all(|(digest, _)| found.disobeys(digest).is_some()));
            prop_assert_eq!(State { not_obeyed, ..found }, expected);
        }
    }

    #[test]
    fn a_state_never_depends_on_what_is_dated_later(moves in moves(), at in 0..160u64) {
        let documents = history(&moves);
        let mut known = documents.clone();
        known.retain(|one| one.document.made() <= Timestamp(at));
        prop_assert_eq!(now(&known, at), now(&documents, at));
    }

    #[test]
    fn what_is_not_obeyed_changes_nothing(moves in moves(), at in 0..160u64) {
        let documents = history(&moves);
        let state = now(&documents, at);
        let mut obeyed = documents.clone();
        obeyed.retain(|one| state.disobeys(&one.digest).is_none());
        let without = now(&obeyed, at);
        prop_assert!(without.not_obeyed.is_empty());
        prop_assert_eq!(State { not_obeyed: Vec::new(), ..state }, without);
    }

    #[test]
    fn until_is_when_time_alone_changes_it(moves in moves(), at in 0..160u64) {
        let mut documents = history(&moves);
        documents.retain(|one| one.document.made() <= Timestamp(at));
        let state = now(&documents, at);
        if let Some(until) = state.until {
            prop_assert!(until > Timestamp(at));
            prop_assert_eq!(now(&documents, until.0 - 1).name, state.name);
            prop_assert_ne!(now(&documents, until.0).name, state.name);
        }
    }
}
