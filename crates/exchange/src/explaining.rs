//! A dry run of the policies for a partner: how would we decide about it, and why, as far as it may see.

use std::sync::Arc;

use countersign_event::documents::RefusalCode;
use countersign_policy::{Action, Reason};
use countersign_protocol::{AskPolicy, PolicyAnswer};

use crate::Exchange;
use crate::access::{PURPOSE_CHARS_MAX, Peer};
use crate::refusal::Refused;

impl Exchange {
    /// Decides what a peer asks about without doing it, and keeps no record of the answer. It says what a refusal would say, and those facts that concern
    /// the asker: what a stream is labelled with and how policies are written stays here.
    ///
    /// # Errors
    /// A refusal: for strangers, for a stream that the peer may not discover, for an action that is none.
    pub fn answer_policy(
        self: &Arc<Self>,
        peer: &Peer,
        ask: &AskPolicy,
    ) -> Result<PolicyAnswer, Box<Refused>> {
        const ASKED: &str = "explain";
        let refuse = |code, reason: &str| {
            Box::new(self.refuse(peer, ASKED, &ask.stream, code, reason.to_owned()))
        };
        let action = Action::ALL
            .into_iter()
            .find(|action| action.name() == ask.action);
        let action = action.ok_or_else(|| {
            let reason = "the action is none of discover, publish, read, request";
            refuse(RefusalCode::Malformed, reason)
        })?;
        let known = peer
            .authority()
            .filter(|authority| self.registry().partners.contains_key(*authority));
        let Some(authority) = known.cloned() else {
            let reason = "only partners are told how this node would decide";
            return Err(refuse(RefusalCode::NotPermitted, reason));
        };
        let now = self.clock().now();
        let agreement = ask.stream.parse().ok().and_then(|origin| {
            let registry = self.registry();
            registry.active_agreement(&authority, &origin, now).cloned()
        });
        let log = self.discover(peer, ASKED, &ask.stream, agreement.as_ref())?;

        let described = log.described();
        let mut request =
            self.policy_request(peer, action, described, agreement.as_ref(), &ask.purpose);
        if !ask.plan.is_empty() {
            request.context.plan = Some(ask.plan.chars().take(PURPOSE_CHARS_MAX).collect());
        }
        let policies = self.policies();
        let (decision, digest) = self.decide(&request);
        let concerned = &decision.explanation.policies;
        let facts = policies
            .facts_used(&request, &decision)
            .into_iter()
            .filter(|fact| !fact.name.starts_with("resource"))
            .map(|fact| {
                let value = fact.value.map(|value| value.to_string());
                (fact.name, value.unwrap_or_default())
            });
        // A revoked partner gets a no whatever the policies say.
        let because = match decision.allowed || decision.explanation.reason != Reason::Permitted {
            true => decision.explanation.to_string(),
            false => "access as a whole was ended here".to_owned(),
        };
        Ok(PolicyAnswer {
            allowed: decision.allowed,
            because,
            policies: concerned.iter().map(|note| note.id.to_string()).collect(),
            digest,
            facts: facts.collect(),
        })
    }
}
