//! The proof of one event as a COSE receipt (`schemas/cose-receipt.md`).

use std::path::Path;
use std::sync::Arc;

use countersign_audit::{COSE_PROOF, cose_files};
use countersign_event::names::Origin;
use countersign_exchange::Exchange;
use countersign_store::journal::Erasure;
use countersign_tlog::cose_receipt::CoseReceipt;
use countersign_tlog::leaf_hash;

use super::ExportError;
use super::proof::{ProofSummary, Proven, Shown, check_extension, event_proof, run, write};
use super::snapshot::SignedBy;

/// Issues the receipt that an entry is in a stream of ours, under its newest signed head, into `out` and files beside it.
///
/// # Errors
/// [`ExportError`].
pub async fn prove_event_in_cose(
    exchange: &Arc<Exchange>,
    stream: &Origin,
    shown: Shown,
    out: &Path,
) -> Result<ProofSummary, ExportError> {
    let (exchange, stream, path) = (Arc::clone(exchange), stream.clone(), out.to_owned());
    let prove = move || {
        check_extension(&path, COSE_PROOF)?;
        let signed = SignedBy::of(&exchange, &stream)?;
        let own = exchange.identity();
        if stream.authority() != *own.authority() {
            return Err(ExportError::NotOurs { origin: stream });
        }
        // INVARIANT: only a root that is under a signed checkpoint is signed once more. The proof is verified against that checkpoint before it is
        // handed on; its path then leads to that root and no other.
        let log = signed.newest(&exchange)?;
        let event = event_proof(exchange.reader(), &log, &shown, &signed.documents)?;
        let size = log.checkpoint.size;
        let leaf_hash = leaf_hash(&event.entry);
        let sequence = shown.sequence;
        let leaf = (&leaf_hash, sequence);
        let proof = event.proof.proof.clone();
        let receipt = CoseReceipt::sign(stream.as_str(), leaf, size, proof, &own.log_key);
        let receipt = receipt.map_err(|source| ExportError::Cose {
            origin: stream.clone(),
            sequence,
            source,
        })?;
        let erased_by = exchange.reader().erased_by(log.number, sequence);
        let erased_by = erased_by.filter(|by| event.content.is_none() && *by != Erasure::FILTERED);
        let proven = Proven::Event {
            sequence,
            size,
            erased_by,
        };
        let files = cose_files(&receipt, &event);
        write(&path, &files, stream, proven, signed.trusted())
    };
    run(out, prove).await
}
