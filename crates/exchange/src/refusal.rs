use countersign_event::documents::{Document as _, Refusal, RefusalCode};
use countersign_event::dsse::Envelope;

/// A no, ready to be sent: the signed document and the words for people.
#[derive(Clone, Debug)]
pub struct Refused {
    /// What it says.
    pub refusal: Refusal,
    /// Its signed form.
    pub envelope: Envelope,
    /// After how many milliseconds it is worth trying again; 0 = not by itself.
    pub retry_after_ms: u64,
}

impl std::error::Error for Refused {}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused: {}", self.refusal.reason)?;
        for advice in &self.refusal.advice {
            write!(f, "; what would help: {advice}")?;
        }
        Ok(())
    }
}

impl Refused {
    /// Signs a refusal.
    #[must_use]
    pub fn sign(refusal: Refusal, key: &countersign_crypto::SigningKey) -> Self {
        let retry_after_ms = match refusal.code {
            RefusalCode::Busy => 1_000,
            RefusalCode::Pending => 30_000,
            _ => 0,
        };
        Self {
            envelope: refusal.sign(key),
            refusal,
            retry_after_ms,
        }
    }

    /// The stable word of its code.
    #[must_use]
    pub fn code(&self) -> String {
        serde_json::to_value(self.refusal.code)
            .ok()
            .and_then(|code| code.as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// As a message.
    #[must_use]
    pub fn message(&self) -> countersign_protocol::Refused {
        countersign_protocol::Refused {
            refusal: self.envelope.to_json(),
            code: self.code(),
            reason: self.refusal.reason.clone(),
            retry_after_ms: self.retry_after_ms,
        }
    }
}
