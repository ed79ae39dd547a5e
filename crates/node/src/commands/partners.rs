//! Partners: inviting, joining, agreements and their ends.

use std::time::Duration;

use countersign_client::join::Terms;
use countersign_crypto::{Hash, sha256};
use countersign_event::documents::{Agreement, Erasure, Plan, Side};
use countersign_event::ledger::DomainResult;
use countersign_event::names::Authority;
use countersign_event::time::Timestamp;
use countersign_exchange::{
    DomainProof, InviteOptions, Partner, TokenState, fingerprint_of, slug, token_id,
};
use countersign_protocol::invitation::Invitation;
use countersign_transport::{JoinFailure, Web, check_domain, domain_web, join, ping};
use serde_json::{Value, json};

use super::{LocalNode, exchange_error, internal, join_error, onboarding_error, session_error};
use crate::admin::{Accept, Command, Out};
use crate::errors::{CommandError, ErrorCode};

/// What asking a domain comes to, as an exit code.
fn domain_exit(checked: &DomainProof) -> Result<(), CommandError> {
    let error = |code| {
        CommandError::new(
            code,
            format!("the domain does not prove the name: {}", checked.detail),
        )
    };
    match checked.result {
        DomainResult::Proven => Ok(()),
        DomainResult::Refuted => Err(error(ErrorCode::VerificationFailed)
            .advise("ask the partner, over another way than this one, for its fingerprint")),
        DomainResult::Unreachable => {
            Err(error(ErrorCode::Inconclusive).advise("ask again later; nothing has changed"))
        }
    }
}

struct InviteCommand {
    stream: String,
    consume: bool,
    expires_s: u64,
    period_s: Option<u64>,
    for_key: Option<String>,
    confirm: bool,
    plan: Option<String>,
    exposure_events: Option<u64>,
    fields: Option<Vec<String>>,
    obey: Option<bool>,
}

impl LocalNode {
    pub(super) async fn on_partner(
        &self,
        command: Command,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        match command {
            Command::PartnerInvite {
                stream,
                consume,
                expires_s,
                period_s,
                for_key,
                confirm,
                plan,
                exposure_events,
                fields,
                obey,
            } => {
                let invite = InviteCommand {
                    stream,
                    consume,
                    expires_s,
                    period_s,
                    for_key,
                    confirm,
                    plan,
                    exposure_events,
                    fields,
                    obey,
                };
                out.value(&self.invite(invite).await?).await
            }
            Command::PartnerTerms { link } => out.value(&self.terms(&link).await?).await,
            Command::PartnerJoin { link, accept } => {
                out.value(&self.join(&link, &accept).await?).await
            }
            Command::PartnerConfirm { invitation, .. } => {
                let authority = self
                    .exchange
                    .confirm_join(&invitation)
                    .await
                    .map_err(onboarding_error)?;
                out.value(&json!({ "invitation": invitation, "confirmed": authority }))
                    .await
            }
            Command::PartnerLs => {
                let partners: Vec<Partner> = self
                    .exchange
                    .registry()
                    .partners
                    .values()
                    .cloned()
                    .collect();
                let mut partners: Vec<Value> = partners
                    .iter()
                    .map(|partner| self.partner_value(partner))
                    .collect();
                partners.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
                out.value(&partners).await
            }
            Command::PartnerInfo {
                partner,
                check_domain: asks,
            } => {
                let partner = self.partner(&partner)?;
                let checked = match asks {
                    true => Some(self.ask_domain(&partner.statement.authority).await?),
                    false => None,
                };
                let mut value = self.partner_value(&partner);
                let agreements = self.agreements(|entry| {
                    entry.counterparty(self.own()) == &partner.statement.authority
                });
                value["agreements"] = agreements.into();
                value["addresses"] = partner.addresses.clone().into();
                value["key_statement"] = partner.statement.number.into();
                value["tokens"] = self.tokens(&partner.statement.authority).into();
                if let Some(known) = self.exchange.domain_proof(&partner.statement.authority) {
                    value["domain_asked"] = known.asked.to_rfc3339().into();
                    value["domain_result"] = known.result.as_str().into();
                    value["domain_detail"] = known.detail.into();
                }
                out.value(&value).await?;
                checked.map_or(Ok(()), |checked| domain_exit(&checked))
            }
            Command::PartnerToken {
                partner,
                expires_s,
                withdraw,
            } => {
                let partner = self.partner(&partner)?;
                let value = self.token(&partner, expires_s, withdraw).await?;
                out.value(&value).await
            }
            Command::PartnerSet { partner, region } => {
                let partner = self.partner(&partner)?;
                let authority = &partner.statement.authority;
                let set = self.exchange.set_region(authority, region.clone()).await;
                set.map_err(onboarding_error)?;
                let name = self.partner_name(authority);
                out.value(&json!({ "partner": name, "region": region }))
                    .await
            }
            Command::PartnerRevoke { partner, reason } => {
                let authority = self
                    .exchange
                    .revoke(&partner, &reason)
                    .await
                    .map_err(onboarding_error)?;
                out.value(&json!({ "partner": authority, "revoked": true, "reason": reason }))
                    .await
            }
            Command::PartnerSettle { partner, reason } => {
                let settled = self.exchange.settle(&partner, &reason).await;
                let authority = settled.map_err(onboarding_error)?;
                out.value(&json!({ "partner": authority, "settled": true, "reason": reason }))
                    .await
            }
            Command::Ping { partner, count } => self.ping(&partner, count, out).await,
            _ => Err(internal("not a command about partners")),
        }
    }

    /// Makes a token that speaks for a partner, or withdraws one.
    async fn token(
        &self,
        partner: &Partner,
        expires_s: u64,
        withdraw: Option<String>,
    ) -> Result<Value, CommandError> {
        let authority = &partner.statement.authority;
        let name = self.partner_name(authority);
        if let Some(id) = withdraw {
            let withdrawn = self.exchange.withdraw_token(authority, &id).await;
            if withdrawn.map_err(exchange_error)? {
                return Ok(json!({ "partner": name, "id": id, "state": "withdrawn" }));
            }
            let message = format!("{name} has no token `{id}` that could be withdrawn");
            let advice = format!("`countersign partner info {name}` lists its tokens");
            return Err(CommandError::new(ErrorCode::NotFound, message).advise(advice));
        }
        if partner.revoked.is_some() {
            let message = format!("{name} was revoked: no token would give it anything");
            return Err(CommandError::new(ErrorCode::NotPermitted, message));
        }
        let now = self.exchange.clock().now();
        let expires = Timestamp(now.0.saturating_add(expires_s.saturating_mul(1_000_000)));
        let made = self.exchange.make_token(authority, expires).await;
        let made = made.map_err(exchange_error)?;
        Ok(json!({
            "partner": name,
            "id": made.id,
            "expires": made.expires.to_rfc3339(),
            "token": made.token,
        }))
    }

    /// The partner's tokens, by when they end.
    fn tokens(&self, authority: &Authority) -> Vec<Value> {
        let now = self.exchange.clock().now();
        let registry = self.exchange.registry();
        let of_partner = registry
            .tokens
            .iter()
            .filter(|(_, token)| token.partner == *authority);
        let mut tokens: Vec<_> = of_partner.collect();
        tokens.sort_by_key(|(digest, token)| (token.expires, **digest));
        let value = |(digest, token): (&Hash, &TokenState)| {
            let state = match token.withdrawn {
                true => "withdrawn",
                false if now < token.expires => "good",
                false => "expired",
            };
            json!({ "id": token_id(digest), "expires": token.expires.to_rfc3339(), "state": state })
        };
        tokens.into_iter().map(value).collect()
    }

    pub(super) fn own(&self) -> &Authority {
        self.exchange.identity().authority()
    }

    /// How a partner is called on the command line: its name in small letters, or its authority where that is not unique.
    pub(super) fn partner_name(&self, authority: &Authority) -> String {
        let registry = self.exchange.registry();
        let Some(partner) = registry.partners.get(authority) else {
            return authority.to_string();
        };
        let name = slug(&partner.statement.name);
        if registry.find_partner(&name).is_ok() {
            name
        } else {
            authority.to_string()
        }
    }

    /// Where this node is said to listen: as configured, else at its own address where that names one machine.
    pub(super) fn addresses(&self) -> Vec<String> {
        let advertised: Vec<String> = self
            .config
            .advertise
            .iter()
            .map(ToString::to_string)
            .collect();
        if !advertised.is_empty() {
            return advertised;
        }
        let listen = self
            .server
            .as_ref()
            .map_or(self.config.listen, |server| server.listen);
        if listen.ip().is_unspecified() || listen.port() == 0 {
            Vec::new()
        } else {
            vec![listen.to_string()]
        }
    }

    async fn invite(&self, invite: InviteCommand) -> Result<Value, CommandError> {
        let usage = |error: &dyn std::fmt::Display| CommandError::new(ErrorCode::Usage, error);
        let stream = invite.stream.parse().map_err(|error| usage(&error))?;
        let plan = self.invited_plan(&invite)?;
        let for_key = match invite.for_key {
            None => None,
            Some(text) => Some(fingerprint_of(&text).ok_or_else(|| {
                usage(&format_args!(
                    "`{text}` is no organization key: give a fingerprint (`key-…`) or its base64"
                ))
            })?),
        };
        let now = self.exchange.clock().now();
        let options = InviteOptions {
            stream,
            side: if invite.consume {
                Side::Consumer
            } else {
                Side::Producer
            },
            plan,
            expires_in: Duration::from_secs(invite.expires_s),
            until: invite
                .period_s
                .map(|period| Timestamp(now.0.saturating_add(period.saturating_mul(1_000_000)))),
            for_key,
            confirm: invite.confirm,
            addresses: self.addresses(),
        };
        let stream = options.stream.clone();
        let invitation = self
            .exchange
            .invite(options)
            .await
            .map_err(onboarding_error)?;
        Ok(json!({
            "link": invitation.to_link(),
            "invitation": invitation.id_hex(),
            "stream": stream,
            "addresses": invitation.addresses,
            "fingerprint": invitation.organization,
            "expires": Timestamp(invitation.expires.saturating_mul(1_000_000)).to_rfc3339(),
        }))
    }

    /// The plan named, or one without limits; what the command line says beside it comes first.
    fn invited_plan(&self, invite: &InviteCommand) -> Result<Plan, CommandError> {
        let mut plan = match &invite.plan {
            None => Plan {
                exposure_events: self.config.exposure_events.max(1),
                ..Plan::default()
            },
            Some(name) => self.plan_of(&invite.stream, name)?,
        };
        if let Some(exposure) = invite.exposure_events {
            plan.exposure_events = exposure.max(1);
        }
        if let Some(obey) = invite.obey {
            plan.erasure = if obey { Erasure::Obey } else { Erasure::Ask };
        }
        if let Some(fields) = &invite.fields {
            plan.fields = Some(fields.clone());
        }
        Ok(plan)
    }

    async fn terms(&self, link: &str) -> Result<Value, CommandError> {
        let invitation = parse_link(link)?;
        let mut shown: Option<Terms> = None;
        let asked = join(&self.exchange, &invitation, self.addresses(), |terms| {
            shown = Some(terms.clone());
            false
        })
        .await;
        match (asked, shown) {
            // Signed before: the same documents came back.
            (Ok(agreement), _) => {
                let state = self
                    .exchange
                    .registry()
                    .agreements
                    .get(&agreement.id)
                    .cloned();
                let payload = state
                    .map(|state| hex::encode(state.envelope.payload_digest()))
                    .unwrap_or_default();
                Ok(terms_value(&invitation, &agreement, None, &payload))
            }
            (Err(JoinFailure::Join(_)), Some(terms)) => {
                let payload = hex::encode(sha256(&terms.payload));
                Ok(terms_value(
                    &invitation,
                    &terms.agreement,
                    terms.offer.title.as_deref(),
                    &payload,
                ))
            }
            (Err(error), _) => Err(join_error(error)),
        }
    }

    async fn join(&self, link: &str, accept: &Accept) -> Result<Value, CommandError> {
        let invitation = parse_link(link)?;
        let agreed = |terms: &Terms| hex::encode(sha256(&terms.payload)) == accept.payload_sha256;
        let agreement = join(&self.exchange, &invitation, self.addresses(), agreed)
            .await
            .map_err(join_error)?;
        let inviter = if agreement.producer.authority == *self.own() {
            &agreement.consumer
        } else {
            &agreement.producer
        };
        let stream = self.stream_name(&agreement.stream);
        let reads = agreement.consumer.authority == *self.own();
        Ok(json!({
            "agreement": agreement.id.to_string(),
            "partner": self.partner_name(&inviter.authority),
            "fingerprint": inviter.organization.fingerprint(),
            "stream": stream,
            "direction": if reads { "in" } else { "out" },
            "next": if reads { format!("countersign subscribe {stream} --follow") } else { format!("countersign publish {stream} FILE") },
        }))
    }

    async fn ping(&self, partner: &str, count: u32, out: &mut Out) -> Result<(), CommandError> {
        let partner = self.partner(partner)?;
        for _ in 0..count.max(1) {
            let took = ping(&self.exchange, &partner.statement.authority)
                .await
                .map_err(|error| session_error(&error))?;
            let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            out.item(&json!({ "partner": partner.statement.name, "round_trip_us": took_us }))
                .await?;
        }
        Ok(())
    }

    fn partner_value(&self, partner: &Partner) -> Value {
        let authority = &partner.statement.authority;
        let server = self.server.as_ref();
        let connected = server.is_some_and(|facts| facts.server.connected().contains(authority));
        let state = match (&partner.revoked, connected) {
            (Some(_), _) => "revoked",
            (None, true) => "connected",
            (None, false) => "away",
        };
        json!({
            "name": self.partner_name(authority),
            "title": partner.statement.name,
            "authority": authority,
            "state": state,
            "fingerprint": partner.statement.organization.fingerprint(),
            "proven": self.is_proven(authority),
            "authority_is": self.authority_is(authority),
            "region": partner.region,
        })
    }

    fn is_proven(&self, authority: &Authority) -> bool {
        let since = |proof: DomainProof| proof.since;
        authority.is_fingerprint()
            || self
                .exchange
                .domain_proof(authority)
                .and_then(since)
                .is_some()
    }

    /// What the name of a partner rests on, in words.
    pub(super) fn authority_is(&self, authority: &Authority) -> String {
        if authority.is_fingerprint() {
            return "the fingerprint of its key".to_owned();
        }
        match self.exchange.domain_proof(authority) {
            Some(DomainProof {
                since: Some(since), ..
            }) => {
                format!("a domain, proven since {}", since.to_rfc3339())
            }
            Some(_) => "a domain, unproven: it was not found there".to_owned(),
            None => format!(
                "a domain, unproven: `countersign partner info {} --check-domain` asks it",
                self.partner_name(authority)
            ),
        }
    }

    /// Asks a partner's domain for its key statement.
    async fn ask_domain(&self, authority: &Authority) -> Result<DomainProof, CommandError> {
        if authority.is_fingerprint() {
            let message = format!(
                "`{authority}` is the fingerprint of a key: it proves itself, and has no domain to ask"
            );
            return Err(CommandError::new(ErrorCode::Usage, message));
        }
        let web = Web::new(&domain_web());
        let checked = check_domain(&self.exchange, &web, authority).await;
        checked.map_err(exchange_error)
    }
}

fn parse_link(link: &str) -> Result<Invitation, CommandError> {
    link.parse()
        .map_err(|error| CommandError::new(ErrorCode::LinkInvalid, error))
}

fn terms_value(
    invitation: &Invitation,
    agreement: &Agreement,
    title: Option<&str>,
    payload: &str,
) -> Value {
    let fingerprint =
        |party: &countersign_event::documents::Party| party.organization.fingerprint().to_string();
    json!({
        "inviter_fingerprint": invitation.organization,
        "producer": agreement.producer.name,
        "producer_fingerprint": fingerprint(&agreement.producer),
        "consumer": agreement.consumer.name,
        "consumer_fingerprint": fingerprint(&agreement.consumer),
        "stream": agreement.stream,
        "title": title,
        "plan": agreement.plan.name,
        "exposure_events": agreement.plan.exposure_events,
        "erasure": agreement.plan.erasure,
        "rate": agreement.plan.rate,
        "quota": agreement.plan.quota,
        "history": agreement.plan.history,
        "fields": agreement.plan.fields,
        "filter": agreement.plan.filter,
        "plan_digest": hex::encode(agreement.plan.digest()),
        "from": agreement.from.to_rfc3339(),
        "until": agreement.until.map(Timestamp::to_rfc3339),
        "agreement": agreement.id.to_string(),
        "payload_sha256": payload,
    })
}
