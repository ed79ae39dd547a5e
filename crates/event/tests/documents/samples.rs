//! Strategies for documents of every kind, optional members present and absent.

use std::num::NonZeroU32;

use countersign_crypto::{PublicKey, SigningKey};
use countersign_event::documents::{
    Agreement, AgreementId, Digest, Erasure, ErasureAnswer, ErasureId, ErasureRequest, History,
    KeyRevocation, KeyStatement, KeySuccession, KeyWrap, Level, Offer, Outcome, Party, Period,
    Plan, Plans, Proposal, Quota, Rate, Receipt, Refusal, RefusalCode, Rejection, Rejections,
    RevokedHead, Role, RoleKey, SeriesId, Side, SkipClaim, Step, StepKind, SuspensionCause,
    Termination,
};
use countersign_event::encryption::WrappedKey;
use countersign_event::names::{Authority, Origin, StreamName};
use countersign_event::time::Timestamp;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn key() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_map(|seed| SigningKey::from_seed(&seed).public())
}

fn domain() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?){1,3}",
        // The longest labels, and the longest domain: 63 + 1 + 63 + 1 + 63 + 1 + 61 = 253.
        1 => "[a-z]{63}\\.[a-z]{63}\\.[a-z]{63}\\.[a-z]{61}",
    ]
}

fn authority() -> impl Strategy<Value = Authority> {
    prop_oneof![
        key().prop_map(|key| Authority::of_key(&key)),
        domain().prop_map(|text| text.parse().unwrap()),
    ]
}

fn stream_name() -> impl Strategy<Value = StreamName> {
    "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|text| text.parse().unwrap())
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        3 => (authority(), stream_name()).prop_map(|(a, name)| Origin::of_stream(&a, &name)),
        1 => (authority(), authority()).prop_map(|(a, b)| Origin::of_ledger(&a, &b)),
        1 => authority().prop_map(|a| Origin::of_node_ledger(&a)),
    ]
}

/// Up to the last whole day of the year 9999.
fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        (0..253_402_128_000_000_000_u64).prop_map(Timestamp),
        (0..253_402_128_000_u64).prop_map(|second| Timestamp(second * 1_000_000)),
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..10u64, Just(u64::MAX)]
}

fn words() -> impl Strategy<Value = String> {
    "\\PC{0,40}|a\n\"b\\\\"
}

fn name() -> impl Strategy<Value = String> {
    "\\PC{1,100}"
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn agreement_id() -> impl Strategy<Value = AgreementId> {
    any::<[u8; 16]>().prop_map(AgreementId)
}

prop_compose! {
    fn party()(authority in authority(), name in name(), organization in key()) -> Party {
        Party { authority, name, organization }
    }
}

prop_compose! {
    fn plan()(
        name in words(),
        exposure_events in number(),
        erasure in select(vec![Erasure::Ask, Erasure::Obey]),
        rate in of(rate()),
        quota in of(quota()),
        history in of((of(number()), of(number()))),
        fields in of(prop::collection::vec(words(), 0..3)),
        filter in of("\\[[a-z{}\":]{0,20}\\]"),
    ) -> Plan {
        let history = history.map(|(events, seconds)| History { events, seconds });
        Plan { name, exposure_events, erasure, rate, quota, history, fields, filter }
    }
}

fn limit() -> impl Strategy<Value = NonZeroU32> {
    any::<NonZeroU32>()
}

prop_compose! {
    fn rate()(events_per_second in limit(), burst_events in of(limit())) -> Rate {
        Rate { events_per_second, burst_events }
    }
}

prop_compose! {
    fn quota()(
        period in prop_oneof![
            Just(Period::Day),
            Just(Period::Month),
            (1..1_000_000_000_u32).prop_map(|n| Period::Seconds(NonZeroU32::new(n).unwrap())),
        ],
        events in of(number()),
        bytes in of(number()),
    ) -> Quota {
        Quota { period, events, bytes }
    }
}

prop_compose! {
    pub(crate) fn plans()(plans in prop::collection::vec(plan(), 1..3)) -> Plans {
        Plans { plans }
    }
}

prop_compose! {
    fn role_key()(
        role in select(vec![Role::Agreement, Role::Encryption, Role::Log, Role::Node, Role::Receipt, Role::Witness]),
        key in key(),
        from in time(),
        until in of(time()),
    ) -> RoleKey {
        RoleKey { role, key, from, until }
    }
}

prop_compose! {
    pub(crate) fn key_statement()(
        authority in authority(),
        name in name(),
        organization in key(),
        number in number(),
        made in time(),
        keys in prop::collection::vec(role_key(), 0..3),
    ) -> KeyStatement {
        KeyStatement { authority, name, organization, number, made, keys, succession: Vec::new() }
    }
}

prop_compose! {
    pub(crate) fn key_succession()(
        authority in authority(),
        from in key(),
        to in key(),
        made in time(),
    ) -> KeySuccession {
        KeySuccession { authority, from, to, made }
    }
}

prop_compose! {
    pub(crate) fn key_revocation()(
        (authority, organization, key) in (authority(), key(), key()),
        role in select(vec![Role::Agreement, Role::Encryption, Role::Log, Role::Node, Role::Receipt, Role::Witness]),
        reason in words(),
        made in time(),
        heads in prop::collection::vec(revoked_head(), 0..3),
    ) -> KeyRevocation {
        KeyRevocation { authority, organization, key, role, reason, made, heads, succession: Vec::new() }
    }
}

prop_compose! {
    fn revoked_head()(origin in origin(), size in number(), root in digest()) -> RevokedHead {
        RevokedHead { origin, size, root }
    }
}

prop_compose! {
    pub(crate) fn agreement()(
        id in agreement_id(),
        (producer, consumer) in (party(), party()),
        stream in origin(),
        plan in plan(),
        (from, until, made) in (time(), of(time()), time()),
        (accepts, supersedes) in (of(digest()), of(digest())),
    ) -> Agreement {
        Agreement { id, producer, consumer, stream, plan, from, until, made, accepts, supersedes }
    }
}

prop_compose! {
    pub(crate) fn proposal()(
        (agreement, round, by) in (agreement_id(), any::<u32>(), authority()),
        (producer, consumer) in (party(), party()),
        (stream, plan) in (origin(), plan()),
        (from, until) in (of(time()), of(time())),
        (answers, supersedes, purpose) in (of(digest()), of(digest()), of(".*")),
        (valid_until, made) in (time(), time()),
    ) -> Proposal {
        Proposal { agreement, round, answers, by, producer, consumer, stream, plan, from, until, supersedes, purpose, valid_until, made }
    }
}

prop_compose! {
    pub(crate) fn step()(
        (agreement, stream, on) in (agreement_id(), origin(), digest()),
        step in select(vec![
            StepKind::Complete, StepKind::Refuse, StepKind::Resume, StepKind::Suspend, StepKind::Withdraw,
        ]),
        cause in of(select(SuspensionCause::ALL.to_vec())),
        (by, reason, position, made) in (authority(), ".*", of(number()), time()),
    ) -> Step {
        Step { agreement, stream, step, on, by, cause, reason, position, made }
    }
}

prop_compose! {
    pub(crate) fn receipt()(
        (agreement, stream, consumer) in (agreement_id(), origin(), authority()),
        series in any::<[u8; 16]>().prop_map(SeriesId),
        (previous, filter, root, list) in (of(digest()), of(digest()), digest(), digest()),
        (number, start, size, applied) in (number(), number(), number(), number()),
        (events, bytes, count) in (number(), number(), number()),
        level in select(vec![Level::Received, Level::Verified, Level::Applied]),
        made in time(),
    ) -> Receipt {
        let rejected = Rejections { count, digest: list };
        Receipt {
            agreement, stream, consumer, series, number, previous, start, filter, size, root, events, bytes, level,
            applied, rejected, made,
        }
    }
}

prop_compose! {
    pub(crate) fn rejection()(
        agreement in agreement_id(),
        stream in origin(),
        sequence in number(),
        leaf in digest(),
        reason in words(),
        made in time(),
    ) -> Rejection {
        Rejection { agreement, stream, sequence, leaf, reason, made }
    }
}

prop_compose! {
    pub(crate) fn refusal()(
        (asked, about, reason) in (words(), words(), words()),
        principal in of(authority()),
        code in select(vec![
            RefusalCode::AuthorSignature, RefusalCode::Busy, RefusalCode::CursorMismatch, RefusalCode::InvitationExpired, RefusalCode::InvitationUsed,
            RefusalCode::Malformed, RefusalCode::NoAgreement, RefusalCode::NotFound, RefusalCode::NotPermitted,
            RefusalCode::Pending, RefusalCode::WrongIdentity,
        ]),
        policies in prop::collection::vec(words(), 0..3),
        advice in prop::collection::vec(words(), 0..3),
        position in of(number()),
        made in time(),
    ) -> Refusal {
        Refusal { asked, principal, about, code, reason, policies, advice, position, made }
    }
}

prop_compose! {
    pub(crate) fn skip_claim()(
        agreement in agreement_id(),
        stream in origin(),
        consumer in authority(),
        digests in any::<[[u8; 32]; 3]>(),
        (from, size, skipped) in (number(), number(), number()),
        made in time(),
    ) -> SkipClaim {
        let [filter, root, runs] = digests.map(Digest);
        SkipClaim { agreement, stream, consumer, filter, from, size, root, skipped, runs, made }
    }
}

prop_compose! {
    pub(crate) fn termination()(
        agreement in agreement_id(),
        stream in origin(),
        by in authority(),
        reason in words(),
        position in of(number()),
        made in time(),
    ) -> Termination {
        Termination { agreement, stream, by, reason, position, made }
    }
}

prop_compose! {
    pub(crate) fn erasure_request()(
        id in any::<[u8; 16]>().prop_map(ErasureId),
        agreement in agreement_id(),
        stream in origin(),
        (sequence, tombstone) in (number(), number()),
        by in authority(),
        reason in words(),
        made in time(),
    ) -> ErasureRequest {
        ErasureRequest { id, agreement, stream, sequence, tombstone, by, reason, made }
    }
}

prop_compose! {
    pub(crate) fn erasure_answer()(
        request in any::<[u8; 16]>().prop_map(ErasureId),
        digest in digest(),
        stream in origin(),
        sequence in number(),
        by in authority(),
        outcome in select(vec![Outcome::Done, Outcome::Held, Outcome::Refused]),
        reason in words(),
        made in time(),
    ) -> ErasureAnswer {
        ErasureAnswer { request, digest, stream, sequence, by, outcome, reason, made }
    }
}

prop_compose! {
    pub(crate) fn offer()(
        inviter in select(vec![Side::Consumer, Side::Producer]),
        organization in party(),
        stream in stream_name(),
        title in of(words()),
        plan in plan(),
        (made, until, expires) in (time(), of(time()), time()),
        confirm in any::<bool>(),
    ) -> Offer {
        Offer { inviter, organization, stream, title, plan, made, until, expires, confirm }
    }
}

/// Names, and texts that are nearly one.
pub(crate) fn almost_a_name() -> impl Strategy<Value = String> {
    let whole = prop_oneof![
        authority().prop_map(|name| name.to_string()),
        stream_name().prop_map(|name| name.to_string()),
        origin().prop_map(|name| name.to_string()),
        "[a-z0-9.-]{1,8}(/[a-z/.]{1,8})?",
        "[a-z]{62,65}\\.[a-z]{1,2}",
    ];
    (whole, any::<prop::sample::Index>(), of("[ -~]|\n|é")).prop_map(|(mut text, at, more)| {
        if let Some(more) = more {
            let ends: Vec<usize> = text
                .char_indices()
                .map(|(i, _)| i)
                .chain([text.len()])
                .collect();
            text.insert_str(ends[at.index(ends.len())], &more);
        }
        text
    })
}

prop_compose! {
    pub(crate) fn key_wrap()(
        stream in origin(),
        epoch in number(),
        commitment in digest(),
        (by, to) in (authority(), authority()),
        key in key(),
        encapsulated in digest(),
        (head, tail) in (any::<[u8; 32]>(), any::<[u8; 16]>()),
        made in time(),
    ) -> KeyWrap {
        let mut sealed = [0; 48];
        sealed[..32].copy_from_slice(&head);
        sealed[32..].copy_from_slice(&tail);
        let wrapped = WrappedKey { key, encapsulated, sealed };
        KeyWrap { stream, epoch, commitment, by, to, wrapped, made }
    }
}
