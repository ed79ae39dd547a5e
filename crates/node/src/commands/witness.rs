//! Witnesses: who cosigns our streams, what we have cosigned, and whether a checkpoint from elsewhere fits.

use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_exchange::{Compared, Log, WitnessId};
use countersign_store::journal::LogKind;
use serde_json::{Value, json};

use super::{LocalNode, exchange_error};
use crate::admin::{Command, Out};
use crate::errors::{CommandError, ErrorCode};

impl LocalNode {
    pub(super) async fn on_witness(
        &self,
        command: Command,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        match command {
            Command::WitnessCompare { checkpoint } => self.compare(&checkpoint, out).await,
            _ => self.witness_ls(out).await,
        }
    }

    async fn witness_ls(&self, out: &mut Out) -> Result<(), CommandError> {
        let exchange = &self.exchange;
        for standing in exchange.witness_standings() {
            let (who, over) = match &standing.witness {
                WitnessId::Partner(partner) => (self.partner_name(partner), "session"),
                WitnessId::Outside(name) => (name.clone(), "http"),
            };
            out.item(&json!({
                "stream": self.stream_name(&standing.origin),
                "cosigned": "by others",
                "witness": who,
                "over": over,
                "size": standing.cosigned,
                "time": null,
                "state": if standing.trouble.is_empty() { "ok".to_owned() } else { standing.trouble },
                "origin": standing.origin,
            }))
            .await?;
        }
        let cosigned = exchange.cosigned_here().await.map_err(exchange_error)?;
        let name = exchange.witness_vkey().map(|vkey| vkey.name().to_owned());
        for (origin, cosigned) in cosigned {
            let log: Option<Origin> = origin.parse().ok();
            let forked = log.as_ref().is_some_and(|log| exchange.has_forked(log));
            out.item(&json!({
                "stream": log.map_or_else(|| origin.clone(), |log| self.stream_name(&log)),
                "cosigned": "here",
                "witness": name,
                "size": cosigned.latest.size,
                "time": Timestamp(cosigned.at.saturating_mul(1_000_000)).to_rfc3339(),
                "state": if forked { "forked: nothing more is cosigned" } else { "ok" },
                "origin": origin,
            }))
            .await?;
        }
        Ok(())
    }

    async fn compare(&self, checkpoint: &str, out: &mut Out) -> Result<(), CommandError> {
        let compared = self.exchange.compare_note(checkpoint).await;
        let (origin, size, verdict) = match compared {
            Compared::Unknown(why) => return Err(CommandError::new(ErrorCode::Malformed, why)),
            Compared::Judged {
                origin,
                size,
                verdict,
            } => (origin, size, verdict),
        };
        out.value(&json!({
            "origin": origin,
            "size": size,
            "result": verdict.as_str(),
            "detail": verdict.detail(),
        }))
        .await?;
        match verdict.as_str() {
            "consistent" => Ok(()),
            "forked" => Err(CommandError::new(ErrorCode::VerificationFailed, verdict.detail())
                .advise("the proof is in the folder `evidence` of the data directory; `countersign evidence verify FILE` checks it anywhere")),
            _ => Err(CommandError::new(ErrorCode::Inconclusive, verdict.detail())),
        }
    }

    /// How far a log of ours is witnessed, in words.
    pub(super) fn assurance(&self, log: &Log) -> Value {
        if self.exchange.has_forked(log.origin()) {
            return "forked: it has signed two histories".into();
        }
        match log.witnessed() {
            // Of a copy it is asked only where somebody waits for it.
            None if log.kind() != LogKind::Own => "integrated".into(),
            // Nobody outside has seen this history until a witness or a partner's receipt says so.
            None => "unwitnessed".into(),
            Some(witnessed) => format!(
                "witnessed up to {} by {}",
                witnessed.size,
                witnessed.witnesses.join(", ")
            )
            .into(),
        }
    }

    /// The same for all streams of this node in one word.
    pub(super) fn assurance_of_all(&self) -> &'static str {
        let logs = self.exchange.logs();
        let own = logs.iter().filter(|log| log.kind() == LogKind::Own);
        let witnessed: Vec<bool> = own.map(|log| log.witnessed().is_some()).collect();
        match (witnessed.contains(&true), witnessed.contains(&false)) {
            (false, _) => "unwitnessed",
            (true, true) => "partly witnessed",
            (true, false) => "witnessed",
        }
    }
}
