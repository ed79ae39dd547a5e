//! How policies would decide, and why: ours about anybody, a partner's about us.

use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_exchange::{LogSettings, Peer};
use countersign_policy::{Action, Context, Organization, Principal, Request};
use countersign_protocol::AskPolicy;
use countersign_transport::ask_policy;
use serde_json::{Map, Value, json};

use super::{LocalNode, session_error};
use crate::admin::{Out, PolicyQuestion};
use crate::errors::{CommandError, ErrorCode};

/// The word for this organization as the one that asks.
const US: &str = "us";

impl LocalNode {
    pub(super) async fn explain(
        &self,
        question: PolicyQuestion,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        let origin = self.stream(&question.stream)?;
        if question.principal == US && origin.authority() != *self.own() {
            return out
                .value(&self.explained_there(&origin, question).await?)
                .await;
        }
        let request = self.made_up_request(&origin, question)?;
        let policies = self.exchange.policies();
        let decision = policies.decide(&request);
        let used = policies.facts_used(&request, &decision);
        let used: Map<String, Value> = used
            .into_iter()
            .map(|fact| (fact.name, fact.value.unwrap_or_default()))
            .collect();
        out.value(&json!({
            "allowed": decision.allowed,
            "because": decision.explanation.to_string(),
            "policies": decision.determining.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "looked_at": used,
            "errors": decision.errors,
            "policy_digest": hex::encode(policies.digest()),
            "facts": request,
        }))
        .await
    }

    /// What the producer's own node says that it would decide about us.
    async fn explained_there(
        &self,
        origin: &Origin,
        question: PolicyQuestion,
    ) -> Result<Value, CommandError> {
        let made_up = [
            ("--at", question.at.is_some()),
            ("--region", question.region.is_some()),
            ("--credential", question.credential.is_some()),
        ];
        if let Some((flag, _)) = made_up.into_iter().find(|(_, given)| *given) {
            let message = format!(
                "`{flag}` cannot be made up where a partner's node is asked: it decides about what it knows of us, now"
            );
            return Err(CommandError::new(ErrorCode::Usage, message));
        }
        let ask = AskPolicy {
            action: question.action,
            stream: origin.to_string(),
            purpose: question.purpose.unwrap_or_default(),
            plan: question.plan.unwrap_or_default(),
        };
        let answer = ask_policy(&self.exchange, &origin.authority(), &ask)
            .await
            .map_err(|error| session_error(&error))?;
        let facts = answer.facts.into_iter().map(|(name, value)| {
            let value = serde_json::from_str(&value).unwrap_or_default();
            (name, value)
        });
        Ok(json!({
            "allowed": answer.allowed,
            "because": answer.because,
            "policies": answer.policies,
            "looked_at": facts.collect::<Map<String, Value>>(),
            "policy_digest": hex::encode(answer.digest),
            "asked": self.partner_name(&origin.authority()),
        }))
    }

    fn made_up_request(
        &self,
        origin: &Origin,
        question: PolicyQuestion,
    ) -> Result<Request, CommandError> {
        let usage = |message: String| CommandError::new(ErrorCode::Usage, message);
        let action = Action::ALL
            .into_iter()
            .find(|known| known.name() == question.action)
            .ok_or_else(|| {
                let action = &question.action;
                usage(format!(
                    "`{action}` is no action: use discover, publish, read or request"
                ))
            })?;
        let log = self.exchange.log(origin);
        let settings = log.map(|log| log.settings().clone()).unwrap_or_default();
        let purpose = question.purpose.unwrap_or_default();
        let mut request = match question.principal.as_str() {
            "stranger" => self.stranger_request(action, origin, &settings, &purpose),
            "local" | US => self.exchange.policy_request(
                &Peer::Local,
                action,
                (origin, &settings),
                None,
                &purpose,
            ),
            name => self.partner_request(name, action, (origin, &settings), &purpose)?,
        };
        if let Some(at) = question.at {
            let at = Timestamp::parse_rfc3339(&at).map_err(|error| usage(error.to_string()))?;
            request.context.now_us = at.0;
        }
        if let Some(credential) = question.credential {
            let known = serde_json::from_value(Value::String(credential.clone()));
            request.context.credential = Some(known.map_err(|_| {
                usage(format!(
                    "`{credential}` is no credential: use application-key, local, node-key or token"
                ))
            })?);
        }
        if question.plan.is_some() {
            request.context.plan = question.plan;
        }
        if question.region.is_some() {
            match &mut request.principal {
                Principal::Application(member) | Principal::Node(member) => {
                    member.organization.region = question.region;
                }
                Principal::Organization(organization) => organization.region = question.region,
            }
        }
        Ok(request)
    }

    fn partner_request(
        &self,
        name: &str,
        action: Action,
        stream: (&Origin, &LogSettings),
        purpose: &str,
    ) -> Result<Request, CommandError> {
        let partner = self.partner(name)?;
        let authority = partner.statement.authority.clone();
        let now = self.exchange.clock().now();
        let agreement = self
            .exchange
            .registry()
            .active_agreement(&authority, stream.0, now)
            .cloned();
        let peer = Peer::Organization {
            node: partner.statement.organization,
            statement: partner.statement.into(),
            envelope: partner.envelope.into(),
            addresses: Vec::new(),
        };
        Ok(self
            .exchange
            .policy_request(&peer, action, stream, agreement.as_ref(), purpose))
    }

    fn stranger_request(
        &self,
        action: Action,
        origin: &Origin,
        settings: &LogSettings,
        purpose: &str,
    ) -> Request {
        let stream = (origin, settings);
        let mut request = self
            .exchange
            .policy_request(&Peer::Local, action, stream, None, purpose);
        request.principal = Principal::Organization(Organization {
            authority: "stranger.example".to_owned(),
            name: "A stranger".to_owned(),
            ..Organization::default()
        });
        request.context = Context {
            now_us: request.context.now_us,
            purpose: request.context.purpose,
            ..Context::default()
        };
        request
    }
}
