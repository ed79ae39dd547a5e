//! Salted commitments: what the log keeps of an event for ever, also after the event itself has been erased.
//!
//! ```text
//! SHA-256( tag (16 ASCII bytes) ‖ salt (32 random bytes) ‖ bytes )
//! ```
//!
//! The tag separates kinds, so that equal bytes of another kind never match. The salt is fresh for each part of each
//! entry: once salt and bytes are erased, nobody can confirm a guess of what they were.

use countersign_crypto::{Entropy, Hash, sha256_headed, sha256_headed_pair};

use crate::fields;

/// Tag of the commitment to canonical attributes.
pub const ATTRIBUTES_TAG: &[u8; 16] = b"countersign.at.1";
/// Tag of the commitment to a data part as a *whole*.
pub const DATA_WHOLE_TAG: &[u8; 16] = b"countersign.dw.1";
/// Tag of the commitment to a data part by *fields*.
pub const DATA_FIELDS_TAG: &[u8; 16] = b"countersign.df.1";
/// Tag of the commitment to one member of a *fields* data part.
pub const DATA_MEMBER_TAG: &[u8; 16] = b"countersign.dm.1";

const TAG_BYTES: usize = 16;

/// Bytes of one salt.
pub const SALT_BYTES: usize = 32;

/// The two salts of one entry. A secret as long as the content is: whoever has them can confirm guesses.
#[derive(Clone, Eq, PartialEq)]
pub struct Salts {
    /// Salt of the attribute commitment.
    pub attributes: [u8; SALT_BYTES],
    /// Salt of the data commitment.
    pub data: [u8; SALT_BYTES],
}

impl Salts {
    /// Draws two fresh salts.
    pub fn draw(entropy: &mut dyn Entropy) -> Self {
        // One call for both: the generator works in blocks of 64 bytes.
        let mut both = [0; 2 * SALT_BYTES];
        entropy.fill(&mut both);
        let (mut attributes, mut data) = ([0; SALT_BYTES], [0; SALT_BYTES]);
        attributes.copy_from_slice(&both[..SALT_BYTES]);
        data.copy_from_slice(&both[SALT_BYTES..]);
        Self { attributes, data }
    }
}

impl std::fmt::Debug for Salts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salts(..)")
    }
}

/// Commits to canonical attribute bytes.
#[must_use]
pub fn attribute_commitment(salt: &[u8; SALT_BYTES], attributes: &[u8]) -> Hash {
    sha256_headed(&head(ATTRIBUTES_TAG, salt), attributes)
}

/// Commits to an encoded data part, as its state says: member by member, or as a *whole*. What says that it has members and has none that can be read is taken
/// as a whole, and is no valid event.
#[must_use]
pub fn data_commitment(salt: &[u8; SALT_BYTES], data_part: &[u8]) -> Hash {
    if fields::is_fields(data_part)
        && let Some(commitment) = fields::commitment(salt, data_part)
    {
        return commitment;
    }
    whole_commitment(salt, data_part)
}

/// Commits to bytes as a *whole*, whatever they are: a data part, or one that is encrypted.
#[must_use]
pub fn whole_commitment(salt: &[u8; SALT_BYTES], data_part: &[u8]) -> Hash {
    sha256_headed(&head(DATA_WHOLE_TAG, salt), data_part)
}

/// [`attribute_commitment`] of two events: side by side they cost less than one after the other.
#[must_use]
pub fn attribute_commitments(
    one: (&[u8; SALT_BYTES], &[u8]),
    other: (&[u8; SALT_BYTES], &[u8]),
) -> (Hash, Hash) {
    sha256_headed_pair(
        (&head(ATTRIBUTES_TAG, one.0), one.1),
        (&head(ATTRIBUTES_TAG, other.0), other.1),
    )
}

/// [`whole_commitment`] of two data parts, each with its salt: side by side they cost less than one after the other.
#[must_use]
pub fn whole_commitments(
    one: (&[u8; SALT_BYTES], &[u8]),
    other: (&[u8; SALT_BYTES], &[u8]),
) -> (Hash, Hash) {
    sha256_headed_pair(
        (&head(DATA_WHOLE_TAG, one.0), one.1),
        (&head(DATA_WHOLE_TAG, other.0), other.1),
    )
}

/// Both commitments of one event, attributes first: side by side they cost less than one after the other.
#[must_use]
pub fn commitments(salts: &Salts, attributes: &[u8], data_part: &[u8]) -> (Hash, Hash) {
    if fields::is_fields(data_part) {
        return (
            attribute_commitment(&salts.attributes, attributes),
            data_commitment(&salts.data, data_part),
        );
    }
    commitments_whole(salts, attributes, data_part)
}

/// As [`commitments`], where the data is committed to as a *whole* whatever it is: where it is encrypted, what its first byte says is chance.
#[must_use]
pub fn commitments_whole(salts: &Salts, attributes: &[u8], data_part: &[u8]) -> (Hash, Hash) {
    sha256_headed_pair(
        (&head(ATTRIBUTES_TAG, &salts.attributes), attributes),
        (&head(DATA_WHOLE_TAG, &salts.data), data_part),
    )
}

/// What stands before the bytes.
fn head(tag: &[u8; TAG_BYTES], salt: &[u8; SALT_BYTES]) -> [u8; TAG_BYTES + SALT_BYTES] {
    let mut head = [0; TAG_BYTES + SALT_BYTES];
    head[..TAG_BYTES].copy_from_slice(tag);
    head[TAG_BYTES..].copy_from_slice(salt);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_of_another_kind_do_not_match() {
        let salt = [7; SALT_BYTES];
        assert_ne!(
            attribute_commitment(&salt, b"x"),
            data_commitment(&salt, b"x")
        );
    }

    #[test]
    fn two_at_once_have_their_own_commitments() {
        let (one, other) = ([1; SALT_BYTES], [2; SALT_BYTES]);
        assert_eq!(
            attribute_commitments((&one, b"attributes"), (&other, &[3; 200])),
            (
                attribute_commitment(&one, b"attributes"),
                attribute_commitment(&other, &[3; 200])
            )
        );
        assert_eq!(
            whole_commitments((&one, b"data"), (&other, &[3; 200])),
            (
                whole_commitment(&one, b"data"),
                whole_commitment(&other, &[3; 200])
            )
        );
    }

    #[test]
    fn both_at_once_are_the_two_commitments() {
        let salts = Salts {
            attributes: [1; SALT_BYTES],
            data: [2; SALT_BYTES],
        };
        assert_eq!(
            commitments(&salts, b"attributes", b"data"),
            (
                attribute_commitment(&salts.attributes, b"attributes"),
                data_commitment(&salts.data, b"data")
            )
        );
    }

    #[test]
    fn equal_bytes_under_another_salt_do_not_match() {
        assert_ne!(
            data_commitment(&[1; 32], b"x"),
            data_commitment(&[2; 32], b"x")
        );
    }

    #[test]
    fn the_two_salts_of_an_entry_differ_and_are_not_printed() {
        let mut entropy = countersign_crypto::SeededEntropy::new(1);
        let salts = Salts::draw(&mut entropy);
        assert_ne!(salts.attributes, salts.data);
        assert_ne!(salts, Salts::draw(&mut entropy));
        assert_eq!(format!("{salts:?}"), "Salts(..)");
    }
}
