//! Which series a consumer signs its receipts into: `schemas/witness.md`, "Copied directories".
//!
//! A directory that is restored does not know what it has signed since the backup, and its producer need not say. So the series is bound to what is
//! known to be new: the current generation of the ledger log that the receipts are written to.

use std::sync::PoisonError;

use countersign_crypto::{PublicKey, sha256_of};
use countersign_event::documents::{AgreementId, SeriesId};
use countersign_event::names::{Authority, Origin};

use crate::Exchange;

/// Bytes at the beginning of a series that all series of one agreement and generation have in common.
const OF_GENERATION: usize = 8;

impl Exchange {
    /// The ledger log about a producer that receipts are written to, where it is a successor: its name has the random part by which a restored directory
    /// differs from every other copy.
    pub(crate) fn restored_ledger(&self, producer: &Authority) -> Option<Origin> {
        let first = Origin::of_ledger(self.identity().authority(), producer);
        let current = self.current_ledger(&first)?;
        Some(current.origin().clone()).filter(|current| *current != first)
    }

    /// The series to go on with, of those that have receipts here, newest last; `restored` is what [`Self::restored_ledger`] gave. Where none is of this generation, the
    /// first one of it.
    pub(crate) fn series_of(
        &self,
        agreement: AgreementId,
        restored: Option<&Origin>,
        last: impl Iterator<Item = SeriesId>,
    ) -> SeriesId {
        let first = self.first_series(agreement, restored);
        // Other copies of this directory may have gone on with what is older than the restore. Without one, a node key may have changed since.
        let counts = |series: &SeriesId| {
            restored.is_none() || series.0[..OF_GENERATION] == first.0[..OF_GENERATION]
        };
        let begun = self.begun_series.lock();
        let begun = begun.unwrap_or_else(PoisonError::into_inner);
        let begun = begun.get(&agreement).copied();
        begun
            .filter(counts)
            .or_else(|| last.filter(counts).last())
            .unwrap_or(first)
    }

    fn first_series(&self, agreement: AgreementId, restored: Option<&Origin>) -> SeriesId {
        match restored {
            None => series_id(agreement, &self.identity().node_key.public()),
            Some(ledger) => {
                let ledger = ledger.as_str().as_bytes();
                first_half(&sha256_of(&[b"countersign.ser3", &agreement.0, ledger]))
            }
        }
    }

    /// Begins another series, which nobody can foresee, in the place of one that must not be gone on with. It is durable with its first receipt, before that is sent.
    pub(crate) fn begin_series(&self, agreement: AgreementId, restored: Option<&Origin>) {
        let mut series = self.first_series(agreement, restored);
        self.with_entropy(|entropy| entropy.fill(&mut series.0[OF_GENERATION..]));
        let begun = self.begun_series.lock();
        let mut begun = begun.unwrap_or_else(PoisonError::into_inner);
        begun.insert(agreement, series);
    }
}

/// A series for each receiver: one node, one agreement.
#[must_use]
pub fn series_id(agreement: AgreementId, node: &PublicKey) -> SeriesId {
    first_half(&sha256_of(&[
        b"countersign.ser1",
        &agreement.0,
        node.as_bytes(),
    ]))
}

fn first_half(digest: &[u8; 32]) -> SeriesId {
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    SeriesId(id)
}
