//! Going through the documents in the order of their dates.

use std::collections::BTreeMap;

use countersign_crypto::Hash;

use super::{AgreementDocument, Cause, Disobeyed, End, HeldDocument, May, Name, State, step_word};
use crate::documents::{
    Agreement, AgreementId, Digest, Proposal, ROUNDS_MAX, Step, StepKind, Termination,
};
use crate::names::Authority;
use crate::time::Timestamp;

/// The state of the agreement `id` at `at`. Documents that are dated later, and those about other agreements, count for nothing; an agreement of another name
/// counts where it supersedes this one.
#[must_use]
pub fn state(id: AgreementId, documents: &[HeldDocument], at: Timestamp) -> State {
    // One document is one document, however often and under however many signatures it is held.
    let mut held: BTreeMap<Hash, (&AgreementDocument, Vec<&Authority>)> = BTreeMap::new();
    for one in documents {
        if one.document.made() > at {
            continue;
        }
        let entry = held.entry(one.digest);
        let (_, signers) = entry.or_insert_with(|| (&one.document, Vec::new()));
        for signer in &one.signed_by {
            if !signers.contains(&signer) {
                signers.push(signer);
            }
        }
    }
    let mut ordered: Vec<Dated<'_>> = held
        .into_iter()
        .map(|(digest, (document, signers))| Dated {
            digest,
            document,
            signers,
        })
        .collect();
    // Of one date: what something acts on comes before it, and of the rest the digest decides.
    ordered.sort_by_key(|one| (one.document.made(), rank(one), one.digest));
    // What both have signed stands, and of the talks only what led to it is left: else one side could undo it by a document of its own that it dates back.
    let agreed = ordered.iter().find_map(|one| one.agreed(id));
    let led = agreed.map(|agreed| led_to(agreed, &ordered));
    let mut machine = Machine::new(id);
    for one in &ordered {
        machine.time_passes(one.document.made());
        let taken = match &led {
            Some(led) if one.is_talk(id) => {
                machine.beside_the_agreement(one, led.contains(&one.digest))
            }
            _ => machine.take(one),
        };
        if let Err(why) = taken {
            machine.not_obeyed.push((one.digest, why));
        }
    }
    machine.time_passes(at);
    machine.finish(at)
}

struct Dated<'a> {
    digest: Hash,
    document: &'a AgreementDocument,
    signers: Vec<&'a Authority>,
}

impl<'a> Dated<'a> {
    fn is_signed_by(&self, authority: &Authority) -> bool {
        self.signers.contains(&authority)
    }

    fn is_signed_by_both(&self, agreement: &Agreement) -> bool {
        let (producer, consumer) = (&agreement.producer, &agreement.consumer);
        producer.authority != consumer.authority
            && self.is_signed_by(&producer.authority)
            && self.is_signed_by(&consumer.authority)
    }

    /// The agreement `id` that this is, under both signatures.
    fn agreed(&self, id: AgreementId) -> Option<&'a Agreement> {
        match self.document {
            AgreementDocument::Agreement(agreement) => {
                let stands = agreement.id == id && has_time(agreement);
                (stands && self.is_signed_by_both(agreement)).then_some(&**agreement)
            }
            _ => None,
        }
    }

    /// Whether it belongs to the talks about `id`: what one side can say alone before both have signed.
    fn is_talk(&self, id: AgreementId) -> bool {
        self.document.agreement() == id
            && match self.document {
                AgreementDocument::Agreement(agreement) => !self.is_signed_by_both(agreement),
                AgreementDocument::Proposal(_) => true,
                AgreementDocument::Step(step) => {
                    matches!(step.step, StepKind::Refuse | StepKind::Withdraw)
                }
                AgreementDocument::Termination(_) => false,
            }
    }
}

fn has_time(agreement: &Agreement) -> bool {
    agreement.until.is_none_or(|until| agreement.from < until)
}

/// The proposals that led to an agreement: the one that it accepts, the one that this answers, and so on. Both sides have signed for them, since each names the one
/// before by its digest.
fn led_to(agreed: &Agreement, documents: &[Dated<'_>]) -> Vec<Hash> {
    let mut led = Vec::new();
    let mut before = agreed.accepts;
    while let Some(Digest(digest)) = before.filter(|Digest(digest)| !led.contains(digest)) {
        let mut all = documents.iter();
        before = all.find_map(|one| match one.document {
            AgreementDocument::Proposal(proposal)
                if one.digest == digest && proposal.agreement == agreed.id =>
            {
                led.push(digest);
                proposal.answers
            }
            _ => None,
        });
    }
    led
}

fn rank(one: &Dated<'_>) -> (u8, u32) {
    match one.document {
        AgreementDocument::Proposal(proposal) => (0, proposal.round),
        AgreementDocument::Agreement(agreement) if agreement.supersedes.is_none() => (1, 0),
        AgreementDocument::Agreement(_) => (2, 0),
        AgreementDocument::Step(step) => match step.step {
            StepKind::Suspend => (3, 0),
            StepKind::Resume => (4, 0),
            StepKind::Complete => (5, 0),
            StepKind::Refuse => (6, 0),
            StepKind::Withdraw => (7, 0),
        },
        AgreementDocument::Termination(_) => (8, 0),
    }
}

/// The open proposal and what is known of it.
struct Talks<'a> {
    digest: Hash,
    proposal: &'a Proposal,
    accepted: Option<(Hash, &'a Agreement)>,
}

struct Held<'a> {
    digest: Hash,
    terms: &'a Agreement,
    suspensions: Vec<(Hash, &'a Step)>,
    /// When the last suspension was lifted, and by what.
    resumed: Option<(Hash, &'a Step)>,
    /// What takes its place, and when.
    superseded: Option<(Timestamp, Hash)>,
}

enum Phase<'a> {
    Nothing,
    Talks(Talks<'a>),
    Held(Box<Held<'a>>),
    Ended {
        end: End,
        since: Timestamp,
        cause: Cause,
    },
}

struct Machine<'a> {
    id: AgreementId,
    phase: Phase<'a>,
    not_obeyed: Vec<(Hash, Disobeyed)>,
}

impl<'a> Machine<'a> {
    fn new(id: AgreementId) -> Self {
        Self {
            id,
            phase: Phase::Nothing,
            not_obeyed: Vec::new(),
        }
    }

    /// What time alone does until `to`.
    fn time_passes(&mut self, to: Timestamp) {
        let over = match &self.phase {
            Phase::Talks(talks) => Some((talks.proposal.valid_until, End::Expired, None)),
            Phase::Held(held) => held.end(),
            Phase::Nothing | Phase::Ended { .. } => None,
        };
        if let Some((since, end, document)) = over.filter(|(since, ..)| *since <= to) {
            let cause = Cause {
                word: Name::Ended(end).word(),
                document,
                ..Cause::default()
            };
            self.phase = Phase::Ended { end, since, cause };
        }
    }

    fn take(&mut self, one: &Dated<'a>) -> Result<(), Disobeyed> {
        match one.document {
            AgreementDocument::Agreement(agreement) if agreement.id != self.id => {
                self.superseding(one, agreement)
            }
            // Nothing about this one.
            document if document.agreement() != self.id => Ok(()),
            AgreementDocument::Agreement(agreement) => self.agreement(one, agreement),
            AgreementDocument::Proposal(proposal) => self.proposal(one, proposal),
            AgreementDocument::Step(step) => self.step(one, step),
            AgreementDocument::Termination(end) => self.termination(one, end),
        }
    }

    fn proposal(&mut self, one: &Dated<'a>, proposal: &'a Proposal) -> Result<(), Disobeyed> {
        let (producer, consumer) = (&proposal.producer.authority, &proposal.consumer.authority);
        let is_party = proposal.by == *producer || proposal.by == *consumer;
        if !is_party || producer == consumer || !one.is_signed_by(&proposal.by) {
            return Err(Disobeyed::WrongSigner);
        }
        let over = |until: Timestamp| until <= proposal.from.unwrap_or(proposal.made);
        if proposal.valid_until <= proposal.made || proposal.until.is_some_and(over) {
            return Err(Disobeyed::NoTime);
        }
        match &self.phase {
            Phase::Nothing => {
                if proposal.round != 1 || proposal.answers.is_some() {
                    return Err(Disobeyed::NotOpen);
                }
                if proposal.stream.authority() != *producer {
                    return Err(Disobeyed::OtherTerms);
                }
            }
            Phase::Talks(talks) => {
                let open = talks.proposal;
                if talks.accepted.is_some() {
                    return Err(Disobeyed::OutOfPlace);
                }
                if proposal.answers != Some(Digest(talks.digest))
                    || proposal.round != open.round + 1
                {
                    return Err(Disobeyed::NotOpen);
                }
                if proposal.by == open.by {
                    return Err(Disobeyed::WrongSigner);
                }
                if proposal.round > ROUNDS_MAX {
                    return Err(Disobeyed::TooManyRounds);
                }
                let same = proposal.producer == open.producer
                    && proposal.consumer == open.consumer
                    && proposal.stream == open.stream
                    && proposal.supersedes == open.supersedes;
                if !same {
                    return Err(Disobeyed::OtherTerms);
                }
            }
            Phase::Held(_) => return Err(Disobeyed::OutOfPlace),
            Phase::Ended { .. } => return Err(Disobeyed::AfterTheEnd),
        }
        self.phase = Phase::Talks(Talks {
            digest: one.digest,
            proposal,
            accepted: None,
        });
        Ok(())
    }

    /// A document of the talks, where both have signed: nothing comes of it, whatever its date.
    fn beside_the_agreement(&mut self, one: &Dated<'a>, led: bool) -> Result<(), Disobeyed> {
        match self.phase {
            _ if led => Ok(()),
            Phase::Nothing => Err(Disobeyed::OutOfPlace),
            _ => self.take(one),
        }
    }

    fn agreement(&mut self, one: &Dated<'a>, agreement: &'a Agreement) -> Result<(), Disobeyed> {
        if one.is_signed_by_both(agreement) {
            return self.hold(one, agreement);
        }
        let talks = match &mut self.phase {
            Phase::Nothing if agreement.accepts.is_none() => return Err(Disobeyed::WrongSigner),
            Phase::Nothing => return Err(Disobeyed::NotOpen),
            Phase::Talks(talks) => talks,
            Phase::Held(_) => return Err(Disobeyed::OutOfPlace),
            Phase::Ended { end, since, .. }
                if agreement.accepts.is_some()
                    && *end == End::Expired
                    && *since <= agreement.made =>
            {
                return Err(Disobeyed::AfterTheDeadline);
            }
            Phase::Ended { .. } => return Err(Disobeyed::AfterTheEnd),
        };
        let accepts = agreement.accepts.ok_or(Disobeyed::NotOpen)?;
        if accepts.0 != talks.digest {
            return Err(Disobeyed::NotOpen);
        }
        if *agreement != talks.proposal.agreement(accepts, agreement.made) {
            return Err(Disobeyed::OtherTerms);
        }
        if !one.is_signed_by(talks.proposal.other()) {
            return Err(Disobeyed::WrongSigner);
        }
        if talks.accepted.is_some() {
            return Err(Disobeyed::OutOfPlace);
        }
        talks.accepted = Some((one.digest, agreement));
        Ok(())
    }

    /// An agreement under both signatures.
    fn hold(&mut self, one: &Dated<'a>, agreement: &'a Agreement) -> Result<(), Disobeyed> {
        match self.phase {
            Phase::Held(_) => return Err(Disobeyed::OutOfPlace),
            Phase::Ended { .. } => return Err(Disobeyed::AfterTheEnd),
            Phase::Nothing | Phase::Talks(_) => {}
        }
        if !has_time(agreement) {
            return Err(Disobeyed::NoTime);
        }
        self.phase = Phase::Held(Box::new(Held {
            digest: one.digest,
            terms: agreement,
            suspensions: Vec::new(),
            resumed: None,
            superseded: None,
        }));
        Ok(())
    }

    /// An agreement of another name.
    fn superseding(&mut self, one: &Dated<'a>, agreement: &'a Agreement) -> Result<(), Disobeyed> {
        let Phase::Held(held) = &mut self.phase else {
            return Ok(());
        };
        let terms = held.terms;
        if agreement.supersedes != Some(Digest(held.digest)) || !one.is_signed_by_both(agreement) {
            return Ok(());
        }
        let same = agreement.producer.authority == terms.producer.authority
            && agreement.consumer.authority == terms.consumer.authority
            && agreement.stream == terms.stream;
        if !same {
            return Err(Disobeyed::OtherTerms);
        }
        if held.superseded.is_some() {
            return Err(Disobeyed::OutOfPlace);
        }
        held.superseded = Some((agreement.from.max(agreement.made), one.digest));
        Ok(())
    }

    fn step(&mut self, one: &Dated<'a>, step: &'a Step) -> Result<(), Disobeyed> {
        if !one.is_signed_by(&step.by) {
            return Err(Disobeyed::WrongSigner);
        }
        let end = match &mut self.phase {
            Phase::Nothing => return Err(Disobeyed::OutOfPlace),
            Phase::Ended { .. } => return Err(Disobeyed::AfterTheEnd),
            Phase::Talks(talks) => talks.step(step)?,
            Phase::Held(held) => match held.step(one.digest, step)? {
                Some(end) => end,
                None => return Ok(()),
            },
        };
        let cause = Cause {
            word: step_word(step.step),
            by: Some(step.by.clone()),
            reason: step.reason.clone(),
            document: Some(one.digest),
            position: step.position,
        };
        self.phase = Phase::Ended {
            end,
            since: step.made,
            cause,
        };
        Ok(())
    }

    fn termination(&mut self, one: &Dated<'a>, end: &'a Termination) -> Result<(), Disobeyed> {
        let held = match &self.phase {
            Phase::Held(held) => held,
            Phase::Ended { .. } => return Err(Disobeyed::AfterTheEnd),
            Phase::Nothing | Phase::Talks(_) => return Err(Disobeyed::OutOfPlace),
        };
        if !one.is_signed_by(&end.by) || !held.is_party(&end.by) {
            return Err(Disobeyed::WrongSigner);
        }
        if end.stream != held.terms.stream {
            return Err(Disobeyed::OtherTerms);
        }
        let cause = Cause {
            word: Name::Ended(End::Terminated).word(),
            by: Some(end.by.clone()),
            reason: end.reason.clone(),
            document: Some(one.digest),
            position: end.position,
        };
        self.phase = Phase::Ended {
            end: End::Terminated,
            since: end.made,
            cause,
        };
        Ok(())
    }

    fn finish(mut self, at: Timestamp) -> State {
        self.not_obeyed.sort_by_key(|(digest, _)| *digest);
        let not_obeyed = self.not_obeyed;
        let state = |name, cause, since, until| State {
            name,
            cause,
            since,
            until,
            next: Vec::new(),
            acts_on: None,
            suspended_by: Vec::new(),
            not_obeyed: Vec::new(),
        };
        let mut state = match &self.phase {
            Phase::Nothing => state(Name::Nothing, Cause::default(), Timestamp(0), None),
            Phase::Ended { end, since, cause } => {
                state(Name::Ended(*end), cause.clone(), *since, None)
            }
            Phase::Talks(talks) => talks.state(),
            Phase::Held(held) => held.state(at),
        };
        state.not_obeyed = not_obeyed;
        state
    }
}

impl Talks<'_> {
    fn step(&self, step: &Step) -> Result<End, Disobeyed> {
        let open = self.proposal;
        let (by, end) = match step.step {
            StepKind::Refuse if self.accepted.is_none() => (open.other(), End::Refused),
            StepKind::Withdraw => (&open.by, End::Withdrawn),
            _ => return Err(Disobeyed::OutOfPlace),
        };
        if step.by != *by {
            return Err(Disobeyed::WrongSigner);
        }
        if step.on != Digest(self.digest) || step.stream != open.stream {
            return Err(Disobeyed::NotOpen);
        }
        Ok(end)
    }

    fn state(&self) -> State {
        let open = self.proposal;
        let (author, other) = (&open.by, open.other());
        let (name, by, document, since, reason) = match self.accepted {
            Some((digest, accepted)) => {
                (Name::Accepted, other, digest, accepted.made, String::new())
            }
            None => {
                let name = if open.round == 1 {
                    Name::Proposed
                } else {
                    Name::Countered
                };
                let purpose = open.purpose.clone().unwrap_or_default();
                (name, author, self.digest, open.made, purpose)
            }
        };
        let (authors, others) = if self.accepted.is_some() {
            (vec![May::Countersign, May::Withdraw], Vec::new())
        } else {
            let mut others = vec![May::Accept];
            if open.round < ROUNDS_MAX {
                others.push(May::Counter);
            }
            others.push(May::Refuse);
            (vec![May::Withdraw], others)
        };
        let producer = &open.producer.authority;
        let (producers, consumers) = if author == producer {
            (authors, others)
        } else {
            (others, authors)
        };
        State {
            name,
            cause: Cause {
                word: name.word(),
                by: Some(by.clone()),
                reason,
                document: Some(document),
                position: None,
            },
            since,
            until: Some(open.valid_until),
            next: vec![
                (producer.clone(), producers),
                (open.consumer.authority.clone(), consumers),
            ],
            acts_on: Some(self.digest),
            suspended_by: Vec::new(),
            not_obeyed: Vec::new(),
        }
    }
}

impl<'a> Held<'a> {
    fn is_party(&self, authority: &Authority) -> bool {
        let terms = self.terms;
        [&terms.producer.authority, &terms.consumer.authority].contains(&authority)
    }

    /// When time alone ends it, how, and by what document.
    fn end(&self) -> Option<(Timestamp, End, Option<Hash>)> {
        let expires = self.terms.until.map(|until| (until, End::Expired, None));
        let replaced = self
            .superseded
            .map(|(from, by)| (from, End::Superseded, Some(by)));
        match (expires, replaced) {
            (Some(expires), Some(replaced)) if expires.0 < replaced.0 => Some(expires),
            (_, Some(replaced)) => Some(replaced),
            (expires, None) => expires,
        }
    }

    /// The end that a step is, if it is one.
    fn step(&mut self, digest: Hash, step: &'a Step) -> Result<Option<End>, Disobeyed> {
        if matches!(step.step, StepKind::Refuse | StepKind::Withdraw) {
            return Err(Disobeyed::OutOfPlace);
        }
        if !self.is_party(&step.by) {
            return Err(Disobeyed::WrongSigner);
        }
        if step.stream != self.terms.stream {
            return Err(Disobeyed::NotOpen);
        }
        if step.step == StepKind::Resume {
            let lifted = |(digest, _): &(Hash, &Step)| Digest(*digest) == step.on;
            let at = self.suspensions.iter().position(lifted);
            let at = at.ok_or(Disobeyed::NotOpen)?;
            if self.suspensions[at].1.by != step.by {
                return Err(Disobeyed::WrongSigner);
            }
            self.suspensions.remove(at);
            self.resumed = Some((digest, step));
            return Ok(None);
        }
        if step.on != Digest(self.digest) {
            return Err(Disobeyed::NotOpen);
        }
        if step.step == StepKind::Complete {
            return Ok(Some(End::Completed));
        }
        let again = self.suspensions.iter().any(|(_, open)| open.by == step.by);
        if step.cause.is_none() || again {
            return Err(Disobeyed::OutOfPlace);
        }
        self.suspensions.push((digest, step));
        Ok(None)
    }

    fn state(&self, at: Timestamp) -> State {
        let terms = self.terms;
        let until = self.end().map(|(end, ..)| end);
        let plain = |word, by: Option<&Authority>, document| Cause {
            word,
            by: by.cloned(),
            document: Some(document),
            ..Cause::default()
        };
        let (name, cause, since, until) = if at < terms.from {
            let first = until.map_or(terms.from, |until| until.min(terms.from));
            let cause = plain("agreed", None, self.digest);
            (Name::Agreed, cause, terms.made, Some(first))
        } else if let Some((digest, step)) = self.suspensions.first() {
            let cause = Cause {
                word: step.cause.map_or("suspended", |cause| cause.word()),
                by: Some(step.by.clone()),
                reason: step.reason.clone(),
                document: Some(*digest),
                position: step.position,
            };
            (Name::Suspended, cause, step.made.max(terms.from), until)
        } else if let Some((digest, step)) = self.resumed.filter(|(_, step)| step.made > terms.from)
        {
            let mut cause = plain("resumed", Some(&step.by), digest);
            cause.reason.clone_from(&step.reason);
            (Name::Active, cause, step.made, until)
        } else {
            let cause = plain("agreed", None, self.digest);
            (Name::Active, cause, terms.from, until)
        };
        let may = |side: &Authority| {
            let own = self.suspensions.iter().any(|(_, open)| open.by == *side);
            let stop = if own { May::Resume } else { May::Suspend };
            let mut may = vec![May::Amend, May::Complete, stop, May::Terminate];
            if self.superseded.is_some() {
                may.retain(|may| *may != May::Amend);
            }
            (side.clone(), may)
        };
        State {
            name,
            cause,
            since,
            until,
            next: vec![
                may(&terms.producer.authority),
                may(&terms.consumer.authority),
            ],
            acts_on: Some(self.digest),
            suspended_by: self
                .suspensions
                .iter()
                .map(|(digest, step)| (step.by.clone(), *digest))
                .collect(),
            not_obeyed: Vec::new(),
        }
    }
}
