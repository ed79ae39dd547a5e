//! Receipts: signature, series, and sums and roots computed anew from the entries.

use std::collections::BTreeMap;

use countersign_crypto::{Hash, sha256_of};
use countersign_event::documents::{Agreement, Document, Receipt, Rejection, Role, SeriesId};
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;

use super::documents::{
    Agreements, Documents, Filed, Judged, agreement_of, is_false, is_missing, organization_of, push,
};
use super::keys::{Keys, When};
use crate::layout::Span;
use crate::report::{Collector, Severity};
use crate::walk::{State, Walked};

/// All that receipts are judged by.
pub(crate) struct Context<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) span: Span,
    pub(crate) documents: &'a Documents<'a>,
    pub(crate) agreements: &'a Agreements,
    pub(crate) keys: &'a Keys,
    pub(crate) walked: &'a Walked,
}

impl Context<'_> {
    /// Checks the rejections: signed by the consumer, about an entry that is here.
    pub(crate) fn check_rejections(&self, found: &mut Collector<'_>) {
        for filed in &self.documents.rejections {
            if let Err((severity, what)) = self.check_rejection(filed) {
                push(
                    found,
                    severity,
                    filed.path,
                    Some(filed.claim.sequence),
                    what,
                );
            }
        }
    }

    fn check_rejection(&self, filed: &Filed<'_, Rejection>) -> Judged<()> {
        let claim = &filed.claim;
        if claim.stream != *self.origin {
            return is_false(format!("it is about another log, {}", claim.stream));
        }
        let agreement = agreement_of(self.agreements, &claim.agreement)?;
        let state = claim
            .sequence
            .checked_add(1)
            .and_then(|size| self.walked.states.get(&size));
        self.open(agreement, filed, claim.made, state)?;
        // The state that a range begins with stands for entries that are not here: it has no leaf to compare with.
        let here = state.filter(|_| claim.sequence >= self.span.start());
        match here {
            Some(state) if state.leaf != claim.leaf.0 => is_false(format!(
                "the entry {} that it rejects is another one here",
                claim.sequence
            )),
            // What it is about lies before the bundle, or beyond it: coverage says the latter.
            _ => Ok(()),
        }
    }

    /// Checks the receipts, series by series.
    pub(crate) fn check_receipts(&self, found: &mut Collector<'_>) {
        let mut series: BTreeMap<(Authority, SeriesId), Vec<&Filed<'_, Receipt>>> = BTreeMap::new();
        for filed in &self.documents.receipts {
            if let Err((severity, what)) = self.check_receipt(filed) {
                push(found, severity, filed.path, None, what);
            }
            // Also one that is not good holds its place, so that the rest of the series is judged against it.
            let key = (filed.claim.consumer.clone(), filed.claim.series);
            series.entry(key).or_default().push(filed);
        }
        for receipts in series.values_mut() {
            receipts.sort_by_key(|filed| filed.claim.number);
            check_series(self.span, receipts, found);
        }
    }

    fn check_receipt(&self, filed: &Filed<'_, Receipt>) -> Judged<()> {
        let claim = &filed.claim;
        if claim.stream != *self.origin {
            return is_false(format!("it is about another log, {}", claim.stream));
        }
        let agreement = agreement_of(self.agreements, &claim.agreement)?;
        if claim.consumer != agreement.consumer.authority {
            return is_false(format!(
                "{} signs it, and the agreement is with {}",
                claim.consumer, agreement.consumer.authority
            ));
        }
        if claim.start > claim.size || claim.applied > claim.size {
            return is_false("it begins, or was applied, beyond its own size".to_owned());
        }
        let state = self.walked.states.get(&claim.size);
        self.open(agreement, filed, claim.made, state)?;
        self.check_rejected(claim)?;
        match state {
            Some(state) => self.check_state(claim, state),
            // Beyond the bundle: coverage says so.
            None if claim.size > self.span.to => Ok(()),
            None => is_missing(format!(
                "it ends at {}, and the log here could not be read there: it cannot be checked",
                claim.size
            )),
        }
    }

    fn check_state(&self, claim: &Receipt, state: &State) -> Judged<()> {
        if state.root != claim.root.0 {
            return is_false(format!(
                "its root is not that of the first {} entries here: the consumer saw another history",
                claim.size
            ));
        }
        if claim.filter.is_some() {
            return is_missing(
                "its sums are under a filter, which this version does not apply".to_owned(),
            );
        }
        let Some(start) = self.walked.states.get(&claim.start) else {
            // A range cannot recompute sums that began before it; the root above holds all the same.
            return if claim.start < self.span.start() {
                Ok(())
            } else {
                is_false("it begins where the log has no entry".to_owned())
            };
        };
        let events = state.events.saturating_sub(start.events);
        let bytes = state.bytes.saturating_sub(start.bytes);
        if (claim.events, claim.bytes) != (events, bytes) {
            return is_false(format!(
                "it counts {} events of {} bytes, and entries {} to {} have {events} of {bytes}",
                claim.events, claim.bytes, claim.start, claim.size
            ));
        }
        Ok(())
    }

    /// Count and digest of the rejected list are those of the rejections here, in their order.
    fn check_rejected(&self, claim: &Receipt) -> Judged<()> {
        let count = claim.rejected.count;
        if count == 0 {
            return if claim.rejected.digest.0 == Hash::default() {
                Ok(())
            } else {
                is_false("it counts no rejections and yet has a digest of some".to_owned())
            };
        }
        let digests: Vec<Hash> = self
            .documents
            .rejections
            .iter()
            .filter(|rejection| rejection.claim.agreement == claim.agreement)
            .map(|rejection| rejection.envelope.payload_digest())
            .take(usize::try_from(count).unwrap_or(usize::MAX))
            .collect();
        if (digests.len() as u64) < count {
            return is_missing(format!(
                "it counts {count} rejections, and {} are here",
                digests.len()
            ));
        }
        let parts: Vec<&[u8]> = digests.iter().map(<[u8; 32]>::as_slice).collect();
        if sha256_of(&parts) == claim.rejected.digest.0 {
            Ok(())
        } else {
            is_false(format!(
                "the {count} rejections that it counts are not those that are here"
            ))
        }
    }

    /// Verifies that the consumer of an agreement signed a document.
    fn open<D: Document>(
        &self,
        agreement: &Agreement,
        filed: &Filed<'_, D>,
        made: Timestamp,
        covers: Option<&State>,
    ) -> Judged<()> {
        let when = When {
            made,
            begun: true,
            covers: covers.map(|state| state.time),
        };
        organization_of(self.keys, &agreement.consumer.authority)?
            .open::<D>(Role::Receipt, filed.envelope, when)
            .map(drop)
            .or_else(is_false)
    }
}

/// Checks the receipts of one series, ascending by number, against each other.
fn check_series(span: Span, receipts: &[&Filed<'_, Receipt>], found: &mut Collector<'_>) {
    if let Some(first) = receipts.first() {
        let begins = first.claim.number == 1;
        if begins != first.claim.previous.is_none() {
            let what =
                "the first receipt of a series names none before it, every other does".to_owned();
            push(found, Severity::False, first.path, None, what);
        } else if !begins && span.from == 0 {
            let what = format!(
                "the receipts before number {} of its series are not here",
                first.claim.number
            );
            push(found, Severity::Missing, first.path, None, what);
        }
    }
    for pair in receipts.windows(2) {
        if let Err((severity, what)) = check_pair(pair[0], pair[1]) {
            push(found, severity, pair[1].path, None, what);
        }
    }
}

fn check_pair(before: &Filed<'_, Receipt>, after: &Filed<'_, Receipt>) -> Judged<()> {
    let (old, new) = (&before.claim, &after.claim);
    let digest = before.envelope.payload_digest();
    if old.number == new.number {
        return if digest == after.envelope.payload_digest() {
            Ok(())
        } else {
            is_false(format!(
                "{} signed two receipts of number {}: they contradict each other",
                new.consumer, new.number
            ))
        };
    }
    let grows = old.size <= new.size
        && old.events <= new.events
        && old.bytes <= new.bytes
        && old.applied <= new.applied
        && old.rejected.count <= new.rejected.count;
    let same = (old.agreement, old.start, &old.filter) == (new.agreement, new.start, &new.filter);
    if !grows || !same {
        return is_false(format!(
            "it takes back what receipt {} of its series says",
            old.number
        ));
    }
    if new.number - old.number > 1 {
        return is_missing(format!(
            "the receipts between numbers {} and {} of its series are not here",
            old.number, new.number
        ));
    }
    if new.previous.is_some_and(|previous| previous.0 == digest) {
        Ok(())
    } else {
        is_false(format!(
            "it follows another receipt of number {} than the one here",
            old.number
        ))
    }
}
