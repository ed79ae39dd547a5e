//! What an authority is asked, and what it answers.

use x509_cert::der::Tag;

use super::TimestampError;
use super::cms::{Parts, unsigned};
use crate::Hash;

/// SEQUENCE { 1, SEQUENCE { SEQUENCE { SHA-256, NULL }, OCTET STRING of 32 bytes }, … } up to the digest; lengths included.
const BEFORE_DIGEST: [u8; 24] = [
    0x30, 0x39, 0x02, 0x01, 0x01, 0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65,
    0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20,
];

/// `certReq` TRUE: without the certificate nobody could judge the token later.
const AFTER_DIGEST: [u8; 3] = [0x01, 0x01, 0xff];

/// A `TimeStampReq` for a SHA-256, for any authority. No nonce: an older token over the same digest would be a better one, not a replay.
#[must_use]
pub fn timestamp_query(digest: &Hash) -> Vec<u8> {
    [&BEFORE_DIGEST[..], digest, &AFTER_DIGEST].concat()
}

/// The token in a `TimeStampResp`: SEQUENCE { SEQUENCE { status, … }, token? }.
pub(super) fn token_of(response: &[u8]) -> Result<&[u8], TimestampError> {
    let mut outer = Parts::of(response)?;
    let mut answer = outer.inner(Tag::Sequence)?;
    outer.end()?;
    let mut status = answer.inner(Tag::Sequence)?;
    let status = unsigned(status.next(Tag::Integer)?.value())?;
    // Granted, or granted with changes that the token itself tells.
    if status > 1 {
        let status = u32::try_from(status).unwrap_or(u32::MAX);
        return Err(TimestampError::NotGranted { status });
    }
    let token = answer.raw()?;
    answer.end()?;
    Ok(token)
}
