//! Requests to erase, and what was answered: signed by the right side, about an event that a tombstone names, and not belied by the bundle itself.

use std::collections::BTreeMap;

use countersign_crypto::Hash;
use countersign_event::documents::{ErasureAnswer, ErasureId, ErasureRequest, Outcome, Role};
use countersign_event::names::{Authority, Origin};

use super::documents::{
    Agreements, Documents, Filed, Judged, agreement_of, is_false, is_missing, organization_of, push,
};
use super::keys::{Keys, When};
use crate::layout::Span;
use crate::report::Collector;
use crate::walk::Walked;

/// What requests and answers are judged by.
pub(crate) struct Context<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) span: Span,
    pub(crate) documents: &'a Documents<'a>,
    pub(crate) agreements: &'a Agreements,
    pub(crate) keys: &'a Keys,
    pub(crate) walked: &'a Walked,
}

/// A request that is good, and who has to answer it.
struct Asked<'a> {
    request: &'a ErasureRequest,
    digest: Hash,
    consumer: &'a Authority,
}

impl Context<'_> {
    pub(crate) fn check(&self, found: &mut Collector<'_>) {
        let mut asked: BTreeMap<ErasureId, Asked<'_>> = BTreeMap::new();
        for filed in &self.documents.requests {
            let judged = self.check_request(filed).and_then(|request| {
                let (id, digest) = (filed.claim.id, request.digest);
                match asked.insert(id, request) {
                    Some(twin) if twin.digest != digest => {
                        is_false(format!("another request has the id {id}"))
                    }
                    _ => Ok(()),
                }
            });
            if let Err((severity, what)) = judged {
                push(
                    found,
                    severity,
                    filed.path,
                    Some(filed.claim.sequence),
                    what,
                );
            }
        }
        for filed in &self.documents.answers {
            if let Err((severity, what)) = self.check_answer(filed, &asked) {
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

    fn check_request<'a>(&'a self, filed: &'a Filed<'_, ErasureRequest>) -> Judged<Asked<'a>> {
        let claim = &filed.claim;
        self.check_origin(&claim.stream)?;
        let agreement = agreement_of(self.agreements, &claim.agreement)?;
        if claim.by != agreement.producer.authority {
            return is_false(format!("{} asks, and is not the producer", claim.by));
        }
        let when = When {
            made: claim.made,
            begun: true,
            covers: None,
        };
        organization_of(self.keys, &claim.by)?
            .open::<ErasureRequest>(Role::Agreement, filed.envelope, when)
            .map(drop)
            .or_else(is_false)?;
        let named = self.walked.is_tombstone(claim.tombstone, claim.sequence);
        if self.is_shown(claim.tombstone) && !named {
            return is_false(format!("entry {} is no tombstone of it", claim.tombstone));
        }
        Ok(Asked {
            request: claim,
            digest: filed.envelope.payload_digest(),
            consumer: &agreement.consumer.authority,
        })
    }

    fn check_answer(
        &self,
        filed: &Filed<'_, ErasureAnswer>,
        asked: &BTreeMap<ErasureId, Asked<'_>>,
    ) -> Judged<()> {
        let claim = &filed.claim;
        self.check_origin(&claim.stream)?;
        let Some(asked) = asked.get(&claim.request) else {
            return is_missing(format!(
                "the request {} that it answers is not here, or is not good",
                claim.request
            ));
        };
        if claim.digest.0 != asked.digest || claim.sequence != asked.request.sequence {
            return is_false("it answers another request than the one of its id".to_owned());
        }
        if claim.by != *asked.consumer {
            return is_false(format!("{} answers, and was not asked", claim.by));
        }
        let when = When {
            made: claim.made,
            begun: true,
            covers: None,
        };
        organization_of(self.keys, &claim.by)?
            .open::<ErasureAnswer>(Role::Agreement, filed.envelope, when)
            .map(drop)
            .or_else(is_false)?;
        if claim.outcome == Outcome::Done && self.is_shown(claim.sequence) {
            return is_false(format!(
                "it says that {} has erased the content, which is here",
                claim.by
            ));
        }
        Ok(())
    }

    fn check_origin(&self, stream: &Origin) -> Judged<()> {
        match stream == self.origin {
            true => Ok(()),
            false => is_false(format!("it is about another log, {stream}")),
        }
    }

    /// Whether the content of an entry is here.
    fn is_shown(&self, sequence: u64) -> bool {
        (self.span.from..self.span.to).contains(&sequence) && !self.walked.is_undisclosed(sequence)
    }
}
