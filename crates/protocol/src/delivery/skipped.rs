//! Entries that a filter left out: their 118 bytes can be rebuilt, their content does not come, and the producer signs that none of them passes.

use countersign_event::documents::{Agreement, Digest, KeyStatement, Role, SkipClaim};
use countersign_event::dsse::Envelope;
use countersign_event::entry::Kind;
use countersign_filter::Filter;

use super::{Absent, BatchFault, Descriptor, Rebuild, SealedHead, VerifiedBatch};

impl Rebuild<'_> {
    /// An entry that was left out. Control entries never are: that is in the entry itself, and under the tree.
    #[cold]
    #[inline(never)]
    pub(super) fn skip(
        &mut self,
        sequence: u64,
        descriptor: &Descriptor<'_>,
        absent: &Absent<'_>,
    ) -> Result<SealedHead, BatchFault> {
        let form = |what| BatchFault::Form {
            first: sequence,
            what,
        };
        if self.filter.is_none() {
            return Err(form("an entry is left out, and no filter was asked for"));
        }
        if descriptor.kind == Kind::Control {
            return Err(form("a control entry is left out"));
        }
        match self.skipped.last_mut() {
            Some((_, end)) if *end == sequence => *end = sequence.saturating_add(1),
            _ => self.skipped.push((sequence, sequence.saturating_add(1))),
        }
        absent.head(sequence, descriptor)
    }
}

/// Checks what the producer says of the entries that it left out of a batch: `claim` is a skip claim (DSSE, JSON) under its agreement key, of this batch,
/// agreement and filter. A batch without such entries needs none.
///
/// # Errors
/// [`BatchFault::SkipClaim`].
pub fn check_skip_claim(
    batch: &VerifiedBatch,
    filter: &Filter,
    agreement: &Agreement,
    producer: &KeyStatement,
    claim: &[u8],
) -> Result<(), BatchFault> {
    if batch.skipped().is_empty() {
        return Ok(());
    }
    let fault = |what| BatchFault::SkipClaim {
        first: batch.first(),
        what,
    };
    if claim.is_empty() {
        return Err(fault("the producer says nothing of them"));
    }
    let envelope = Envelope::from_json(claim)
        .map_err(|_| fault("what the producer says of them is no signed document"))?;
    let claim = producer
        .open_dated(Role::Agreement, &envelope, |claim: &SkipClaim| claim.made)
        .map_err(|_| fault("what is said of them is not signed by the producer's agreement key"))?;
    let said = SkipClaim {
        agreement: agreement.id,
        stream: agreement.stream.clone(),
        consumer: agreement.consumer.authority.clone(),
        filter: Digest(filter.digest()),
        from: batch.first(),
        size: batch.end(),
        root: Digest(batch.range().root()),
        skipped: batch.skipped().iter().map(|(first, end)| end - first).sum(),
        runs: SkipClaim::digest_of(batch.skipped()),
        made: claim.made,
    };
    if claim == said {
        Ok(())
    } else {
        Err(fault("what the producer says is not about them"))
    }
}
