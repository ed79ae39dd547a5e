//! Consumers whose receipts contradict each other: `schemas/receipt-fork.md`.

use std::sync::{Arc, PoisonError};

use countersign_event::documents::{Receipt, ReceiptContradiction, ReceiptFork};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};

use crate::{Exchange, ExchangeError, OnboardingError};

impl Exchange {
    /// What the receipts of a partner have against each other, where nothing is delivered to it because of that.
    #[must_use]
    pub fn contradicting(&self, partner: &Authority) -> Option<String> {
        self.registry().contradicting.get(partner).cloned()
    }

    /// Looks for a receipt held here that one which was refused contradicts; keeps both as proof against their signer. The signature of the refused one was verified.
    pub(crate) async fn look_for_contradiction(
        self: &Arc<Self>,
        refused: &Receipt,
        envelope: &Envelope,
    ) -> Result<(), ExchangeError> {
        let (agreement, series) = (refused.agreement, refused.series);
        // The one with its number and the one before; the newest, which it may go back behind, is the registry's.
        let after = refused.number.saturating_sub(2);
        let mut held = self
            .own_receipts_after(agreement, &refused.stream, series, (after, 3))
            .await?;
        let newest = self.registry().receipts.get(&(agreement, series)).cloned();
        held.extend(newest.map(|newest| newest.envelope));
        let proof = held
            .iter()
            .find_map(|held| ReceiptFork::between(held, envelope));
        let Some(proof) = proof else {
            return Ok(());
        };
        // It is one: what it says is no surprise.
        if let Ok((_, _, found)) = proof.contradiction() {
            self.note_receipt_fork(&refused.consumer, &refused.stream, proof, found);
        }
        Ok(())
    }

    /// Keeps the proof, and says so in the ledger. Nothing more is delivered to that partner until a person decides; what it receipts is still taken.
    fn note_receipt_fork(
        self: &Arc<Self>,
        partner: &Authority,
        stream: &Origin,
        mut proof: ReceiptFork,
        found: ReceiptContradiction,
    ) {
        let detail = found.to_string();
        let news = {
            let registry = self.registry.write();
            let mut registry = registry.unwrap_or_else(PoisonError::into_inner);
            let statement = registry.partners.get(partner);
            proof.statements = statement
                .map(|one| one.envelope.clone())
                .into_iter()
                .collect();
            let before = registry
                .contradicting
                .insert(partner.clone(), detail.clone());
            before.is_none()
        };
        if !news {
            return;
        }
        let evidence = self
            .evidence
            .keep(stream.as_str(), "receipt-fork", &proof.encode());
        tracing::error!(%partner, %stream, ?evidence, "receipts of a partner contradict each other: nothing more is delivered to it");
        let record = LedgerRecord::Contradiction {
            partner: partner.clone(),
            stream: Some(stream.clone()),
            detail,
            evidence,
            settled: false,
        };
        self.record_lazily(Some(partner.clone()), record);
        self.access_changed();
    }

    /// A person decides to go on with a partner whose receipts contradicted each other. The proof stays.
    ///
    /// # Errors
    /// [`OnboardingError::Unknown`] where there is no such partner, or nothing to decide.
    pub async fn settle(
        self: &Arc<Self>,
        partner: &str,
        reason: &str,
    ) -> Result<Authority, OnboardingError> {
        let authority = {
            let registry = self.registry();
            let found = registry.find_partner(partner).ok();
            let found = found.map(|partner| partner.statement.authority.clone());
            found.filter(|authority| registry.contradicting.contains_key(authority))
        };
        let authority = authority.ok_or_else(|| OnboardingError::Unknown {
            what: "partner with contradicting receipts",
            name: partner.to_owned(),
        })?;
        let reason = reason.chars().filter(|c| !c.is_control());
        let record = LedgerRecord::Contradiction {
            partner: authority.clone(),
            stream: None,
            detail: reason.take(500).collect(),
            evidence: None,
            settled: true,
        };
        self.record_and_wait(Some(authority.clone()), record)
            .await?;
        Ok(authority)
    }
}
