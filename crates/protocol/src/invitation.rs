//! The invitation link and the proof that redeems it: `schemas/invitation.md`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_crypto::{Fingerprint, Hash, PublicKey, Signature, SigningKey, sha256};
use serde::{Deserialize, Serialize};

/// Label of the TLS exporter that binds a proof to its session.
pub const EXPORTER_LABEL: &[u8] = b"countersign join 1";

const PREFIX: &str = "countersign:";
const VERSION: u8 = 1;
const LINK_BYTES_MAX: usize = 8192;
/// A slip of the pen is told from a refusal: the body is followed by the first bytes of its SHA-256.
const CHECK_BYTES: usize = 4;

/// What a link says. Whoever has it may join: it is shown to nobody but the invited.
#[derive(Clone, Deserialize, Serialize)]
pub struct Invitation {
    version: u8,
    /// Names the invitation.
    pub id: [u8; 16],
    /// Where the inviter listens.
    pub addresses: Vec<String>,
    /// Fingerprint of the inviter's organization key.
    pub organization: Fingerprint,
    /// The inviter's node key, pinned in TLS.
    pub node: PublicKey,
    /// SHA-256 of the offer's JSON text.
    pub offer: Hash,
    /// Seconds since 1970 at which it ends.
    pub expires: u64,
    secret: [u8; 32],
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("organization", &self.organization)
            .field("addresses", &self.addresses)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Text that is no invitation link.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LinkError {
    /// Cut, altered or something else.
    #[error(
        "this is not a whole invitation link: it begins with `countersign:` and has to be copied to its last character"
    )]
    Malformed,
    /// Made by a newer version.
    #[error(
        "this invitation link has version {found}; this program knows version {VERSION}: update it"
    )]
    Version {
        /// Its version.
        found: u8,
    },
}

/// The parts of an invitation that the caller decides.
#[derive(Clone, Debug)]
pub struct InvitationTerms {
    /// Where the inviter listens: 1 to 8 `host:port`.
    pub addresses: Vec<String>,
    /// The inviter's organization key.
    pub organization: Fingerprint,
    /// The inviter's node key.
    pub node: PublicKey,
    /// SHA-256 of the offer's JSON text.
    pub offer: Hash,
    /// Seconds since 1970 at which it ends.
    pub expires: u64,
}

impl Invitation {
    /// A new invitation with a fresh id and secret.
    pub fn new(terms: InvitationTerms, entropy: &mut dyn countersign_crypto::Entropy) -> Self {
        let mut id = [0; 16];
        let mut secret = [0; 32];
        entropy.fill(&mut id);
        entropy.fill(&mut secret);
        Self {
            version: VERSION,
            id,
            addresses: terms.addresses,
            organization: terms.organization,
            node: terms.node,
            offer: terms.offer,
            expires: terms.expires,
            secret,
        }
    }

    /// The id in hexadecimal.
    #[must_use]
    pub fn id_hex(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What the inviter keeps of the secret: the public key that proofs verify under.
    #[must_use]
    pub fn secret_key(&self) -> PublicKey {
        SigningKey::from_seed(&self.secret).public()
    }

    /// Proves the secret, in the TLS session of `exporter` and for these keys only.
    #[must_use]
    pub fn prove(&self, exporter: &Hash, organization: &PublicKey, node: &PublicKey) -> Signature {
        SigningKey::from_seed(&self.secret).sign(&transcript(
            exporter,
            &self.id,
            organization,
            node,
        ))
    }

    /// The link's text.
    #[must_use]
    pub fn to_link(&self) -> String {
        let mut body = postcard::to_stdvec(self).unwrap_or_default();
        body.extend_from_slice(&sha256(&body)[..CHECK_BYTES]);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(body))
    }
}

/// Verifies a joiner's proof against what was kept of the secret.
#[must_use]
pub fn verify_proof(
    secret_key: &PublicKey,
    exporter: &Hash,
    id: &[u8; 16],
    organization: &PublicKey,
    node: &PublicKey,
    proof: &[u8],
) -> bool {
    Signature::try_from(proof)
        .and_then(|proof| secret_key.verify(&transcript(exporter, id, organization, node), &proof))
        .is_ok()
}

fn transcript(
    exporter: &Hash,
    id: &[u8; 16],
    organization: &PublicKey,
    node: &PublicKey,
) -> Vec<u8> {
    [
        &b"countersign.join"[..],
        exporter,
        id,
        organization.as_bytes(),
        node.as_bytes(),
    ]
    .concat()
}

impl FromStr for Invitation {
    type Err = LinkError;

    fn from_str(link: &str) -> Result<Self, LinkError> {
        let body = link
            .trim()
            .strip_prefix(PREFIX)
            .filter(|body| body.len() <= LINK_BYTES_MAX)
            .and_then(|body| URL_SAFE_NO_PAD.decode(body).ok())
            .ok_or(LinkError::Malformed)?;
        if let Some(&found) = body.first()
            && found != VERSION
        {
            return Err(LinkError::Version { found });
        }
        let (body, check) = body
            .split_last_chunk::<CHECK_BYTES>()
            .ok_or(LinkError::Malformed)?;
        if sha256(body)[..CHECK_BYTES] != check[..] {
            return Err(LinkError::Malformed);
        }
        let invitation: Self = postcard::from_bytes(body).map_err(|_| LinkError::Malformed)?;
        let addresses = &invitation.addresses;
        if addresses.is_empty() || addresses.len() > 8 || addresses.iter().any(|a| a.len() > 255) {
            return Err(LinkError::Malformed);
        }
        Ok(invitation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_crypto::SeededEntropy;

    fn invitation() -> Invitation {
        let key = SigningKey::from_seed(&[1; 32]).public();
        let terms = InvitationTerms {
            addresses: vec!["node.example:4433".to_owned()],
            organization: key.fingerprint(),
            node: key,
            offer: [7; 32],
            expires: 1_800_000_000,
        };
        Invitation::new(terms, &mut SeededEntropy::new(1))
    }

    #[test]
    fn a_link_reads_back_and_any_altered_character_is_refused() {
        let link = invitation().to_link();
        let read: Invitation = link.parse().unwrap();
        assert_eq!(read.to_link(), link);
        assert!(!format!("{read:?}").contains("secret"));
        for position in 0..link.len() {
            let mut altered = link.clone().into_bytes();
            altered[position] = if altered[position] == b'A' {
                b'B'
            } else {
                b'A'
            };
            let altered = String::from_utf8(altered).unwrap();
            assert!(altered.parse::<Invitation>().is_err(), "{position}");
            assert!(
                link[..position].parse::<Invitation>().is_err(),
                "{position}"
            );
        }
    }

    #[test]
    fn a_proof_is_bound_to_session_and_keys() {
        let invitation = invitation();
        let organization = SigningKey::from_seed(&[2; 32]).public();
        let node = SigningKey::from_seed(&[3; 32]).public();
        let proof = invitation.prove(&[9; 32], &organization, &node).to_bytes();
        let secret_key = invitation.secret_key();
        let check = |exporter: &Hash, id: &[u8; 16], o: &PublicKey, n: &PublicKey, proof: &[u8]| {
            verify_proof(&secret_key, exporter, id, o, n, proof)
        };
        assert!(check(
            &[9; 32],
            &invitation.id,
            &organization,
            &node,
            &proof
        ));
        assert!(!check(
            &[8; 32],
            &invitation.id,
            &organization,
            &node,
            &proof
        ));
        assert!(!check(&[9; 32], &[0; 16], &organization, &node, &proof));
        assert!(!check(&[9; 32], &invitation.id, &node, &node, &proof));
        assert!(!check(
            &[9; 32],
            &invitation.id,
            &organization,
            &organization,
            &proof
        ));
        assert!(!check(
            &[9; 32],
            &invitation.id,
            &organization,
            &node,
            &proof[..63]
        ));
    }
}
