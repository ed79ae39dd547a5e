//! What the auditor brings along: trust comes from outside the bundle, never from within.

use countersign_crypto::{Fingerprint, PublicKey, TsaRoots};
use countersign_event::documents::{
    Document as _, KeyRevocation, KeyStatement, RevocationError, StatementError,
};
use countersign_event::dsse::Envelope;
use countersign_tlog::policy::{Policy, PolicyError};
use countersign_tlog::{Vkey, VkeyError};

/// The most lines taken from a trust file.
const LINES_MAX: usize = 4096;

/// Whose word counts.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    fingerprints: Vec<Fingerprint>,
    vkeys: Vec<Vkey>,
    statements: Vec<KeyStatement>,
    policies: Vec<Policy>,
    revocations: Vec<KeyRevocation>,
    tsa_roots: TsaRoots,
}

/// Why a text gives no trust.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TrustError {
    /// A key statement that does not verify.
    #[error("the key statement to trust is not good: {0}")]
    Statement(#[from] StatementError),
    /// A key revocation that does not verify.
    #[error("the key revocation is not good: {0}")]
    Revocation(#[from] RevocationError),
    /// JSON that is no envelope.
    #[error("the file to trust is JSON, but no key statement or key revocation in a DSSE envelope")]
    Envelope,
    /// A line that is none of the known kinds.
    #[error(
        "line {line} is neither a fingerprint `key-…`, a verifier key `<origin>+<id>+<key>`, nor a witness policy (`log`, `witness`, `group`, `quorum`)"
    )]
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// A verifier key that is none.
    #[error("line {line}: {source}")]
    Vkey {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        source: VkeyError,
    },
    /// A witness policy that cannot be judged.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Not text, or too long.
    #[error("the file to trust is not text of at most {LINES_MAX} lines")]
    Text,
    /// Nothing in it.
    #[error("the file to trust names no key")]
    Empty,
}

impl Trust {
    /// Nobody: the best verdict is then inconclusive.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Organization keys, by fingerprint.
    #[must_use]
    pub fn of_fingerprints(fingerprints: impl IntoIterator<Item = Fingerprint>) -> Self {
        Self {
            fingerprints: fingerprints.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Keys of logs.
    #[must_use]
    pub fn of_vkeys(vkeys: impl IntoIterator<Item = Vkey>) -> Self {
        Self {
            vkeys: vkeys.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A witness policy: its logs are trusted, and where it is about a log, its quorum has to be met.
    #[must_use]
    pub fn of_policy(policy: Policy) -> Self {
        Self {
            vkeys: policy.logs().to_vec(),
            policies: vec![policy],
            ..Self::default()
        }
    }

    /// Authorities that keep the time. They say when, never who: nobody is trusted by these alone.
    #[must_use]
    pub fn of_tsa_roots(tsa_roots: TsaRoots) -> Self {
        Self {
            tsa_roots,
            ..Self::default()
        }
    }

    /// Reads a file that somebody trusts: a key statement or a key revocation (DSSE JSON), a witness policy (`schemas/witness-policy.md`), or lines that are fingerprints and
    /// vkeys. Empty lines and those that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn from_file(bytes: &[u8]) -> Result<Self, TrustError> {
        if Policy::is_meant(bytes) {
            return Ok(Self::of_policy(Policy::parse(bytes)?));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| TrustError::Text)?;
        if text.trim_start().starts_with('{') {
            let envelope = Envelope::from_json(bytes).map_err(|_| TrustError::Envelope)?;
            if envelope.payload_type() == KeyRevocation::PAYLOAD_TYPE {
                return Ok(Self {
                    revocations: vec![KeyRevocation::verify(&envelope)?],
                    ..Self::default()
                });
            }
            let statement = KeyStatement::verify(&envelope)?;
            return Ok(Self {
                fingerprints: vec![statement.organization.fingerprint()],
                statements: vec![statement],
                ..Self::default()
            });
        }
        let mut trust = Self::default();
        for (number, line) in text.lines().enumerate() {
            if number >= LINES_MAX {
                return Err(TrustError::Text);
            }
            trust.line(number + 1, line.trim())?;
        }
        if trust.is_none() {
            return Err(TrustError::Empty);
        }
        Ok(trust)
    }

    /// Both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.fingerprints.extend(other.fingerprints);
        self.vkeys.extend(other.vkeys);
        self.statements.extend(other.statements);
        self.policies.extend(other.policies);
        self.revocations.extend(other.revocations);
        self.tsa_roots = self.tsa_roots.and(other.tsa_roots);
        self
    }

    /// Whether nobody is trusted: a witness policy without logs names witnesses, and no log whose word counts.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.fingerprints.is_empty() && self.vkeys.is_empty()
    }

    fn line(&mut self, line: usize, text: &str) -> Result<(), TrustError> {
        let mut words = text.split_ascii_whitespace();
        let vkey = match (words.next(), words.next()) {
            (None, _) => return Ok(()),
            (Some(word), _) if word.starts_with('#') => return Ok(()),
            (Some(word), None) if word.contains('+') => word,
            (Some(word), None) => {
                self.fingerprints
                    .push(word.parse().map_err(|_| TrustError::Line { line })?);
                return Ok(());
            }
            (Some(_), Some(_)) => return Err(TrustError::Line { line }),
        };
        let vkey = Vkey::parse(vkey).map_err(|source| TrustError::Vkey { line, source })?;
        self.vkeys.push(vkey);
        Ok(())
    }

    /// Whether the organization key is trusted.
    pub(crate) fn admits_organization(&self, key: &PublicKey) -> bool {
        self.fingerprints.contains(&key.fingerprint())
    }

    /// Whether the key is trusted for the log.
    pub(crate) fn admits_log(&self, vkey: &Vkey) -> bool {
        self.vkeys.contains(vkey)
    }

    /// Keys of logs that are trusted.
    pub(crate) fn vkeys(&self) -> &[Vkey] {
        &self.vkeys
    }

    /// Key revocations brought along. They take trust away, and give none.
    pub(crate) fn revocations(&self) -> &[KeyRevocation] {
        &self.revocations
    }

    /// Authorities that keep the time.
    pub(crate) fn tsa_roots(&self) -> &TsaRoots {
        &self.tsa_roots
    }

    /// Witness policies.
    pub(crate) fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// Key statements brought along.
    pub(crate) fn statements(&self) -> &[KeyStatement] {
        &self.statements
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use countersign_crypto::SigningKey;
    use countersign_tlog::Algorithm;

    #[test]
    fn trust_files_of_each_kind_are_read() {
        let key = SigningKey::from_seed(&[1; 32]).public();
        let vkey = Vkey::new("a.example/streams/x", Algorithm::Ed25519, key).unwrap();
        let fingerprint = key.fingerprint();
        let lines =
            Trust::from_file(format!("# ours\n\n{fingerprint}\n{vkey}\n").as_bytes()).unwrap();
        assert!(lines.admits_organization(&key) && lines.admits_log(&vkey));
        let policy =
            Trust::from_file(format!("log {vkey} https://a.example\nquorum none\n").as_bytes())
                .unwrap();
        assert!(policy.admits_log(&vkey) && !policy.admits_organization(&key));
    }

    #[test]
    fn what_cannot_be_judged_is_refused_by_name() {
        let refused = |text: &str| Trust::from_file(text.as_bytes()).unwrap_err();
        assert_eq!(refused("# nothing\n"), TrustError::Empty);
        let unknown = PolicyError::UnknownName {
            line: 2,
            name: "2".to_owned(),
        };
        assert_eq!(refused("\nquorum 2\n"), TrustError::Policy(unknown));
        assert_eq!(
            refused("# one\nlog\n"),
            TrustError::Policy(PolicyError::Form { line: 2 })
        );
        let mixed = format!("{}\nquorum none\n", "key-".to_owned() + &"a".repeat(32));
        assert_eq!(refused(&mixed), TrustError::Line { line: 2 });
        assert_eq!(refused("hello\n"), TrustError::Line { line: 1 });
        assert_eq!(refused("{}"), TrustError::Envelope);
        assert!(matches!(
            refused("a+b+c\n"),
            TrustError::Vkey { line: 1, .. }
        ));
        assert_eq!(Trust::from_file(&[0xff]).unwrap_err(), TrustError::Text);
    }
}
