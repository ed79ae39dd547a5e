//! The content file of one entry bundle.
//!
//! ```text
//! offset  0   magic "csc1"
//!         4   count u16             1 to 256
//!         6   count × descriptor    state u8 (0 disclosed, 1 not) ‖ attributes length u16 ‖ data part length u32
//!  6+7count   contents of the disclosed entries, in order, to the end of the file
//! ```

use countersign_event::content::{CONTENT_BYTES_MAX, CONTENT_SALT_BYTES};

use crate::write::ContentLengths;

const MAGIC: &[u8; 4] = b"csc1";
const HEAD_BYTES: usize = 6;
const DESCRIPTOR_BYTES: usize = 7;
/// The largest directory: 256 descriptors and what precedes them.
pub(crate) const DIRECTORY_BYTES_MAX: usize = HEAD_BYTES + 256 * DESCRIPTOR_BYTES;

// The states are stored and never reused.
const DISCLOSED: u8 = 0;
const NOT_DISCLOSED: u8 = 1;

/// Why bytes are no directory of a content file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum DirectoryError {
    #[error("it does not begin with `csc1`, the mark of a content file")]
    Magic,
    #[error("it says that it holds {found} contents, and {expected} are expected")]
    Count { found: u16, expected: u64 },
    #[error("the state {state} of a content is unknown to this version")]
    State { state: u8 },
    #[error("a content that is not disclosed has lengths other than zero")]
    LengthsOfNothing,
    #[error("a content of {bytes} bytes is larger than any can be ({CONTENT_BYTES_MAX})")]
    TooLarge { bytes: u64 },
    #[error("it has {found} bytes where its directory makes it {expected}")]
    Length { found: u64, expected: u64 },
}

/// Bytes of a content in its file.
pub(crate) fn content_bytes(lengths: ContentLengths) -> u64 {
    match lengths {
        ContentLengths::Undisclosed => 0,
        ContentLengths::Disclosed {
            attributes,
            data_part,
        } => CONTENT_SALT_BYTES as u64 + u64::from(attributes) + u64::from(data_part),
    }
}

/// Bytes of the whole file.
pub(crate) fn file_bytes(contents: &[ContentLengths]) -> u64 {
    let directory = directory_bytes(contents.len() as u64) as u64;
    contents.iter().fold(directory, |sum, lengths| {
        sum.saturating_add(content_bytes(*lengths))
    })
}

/// Bytes of the directory of `count` contents, at most 256.
pub(crate) fn directory_bytes(count: u64) -> usize {
    usize::try_from(count).map_or(DIRECTORY_BYTES_MAX, |count| {
        HEAD_BYTES + DESCRIPTOR_BYTES * count.min(256)
    })
}

/// The directory; at most 256 contents, which the caller sees to.
pub(crate) fn encode_directory(contents: &[ContentLengths]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + DESCRIPTOR_BYTES * contents.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(
        &u16::try_from(contents.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
    );
    for lengths in contents {
        let (state, attributes, data_part) = match *lengths {
            ContentLengths::Disclosed {
                attributes,
                data_part,
            } => (DISCLOSED, attributes, data_part),
            ContentLengths::Undisclosed => (NOT_DISCLOSED, 0, 0),
        };
        out.push(state);
        out.extend_from_slice(&attributes.to_be_bytes());
        out.extend_from_slice(&data_part.to_be_bytes());
    }
    out
}

/// Reads a directory of just `expected` contents in a file of `file_len` bytes.
pub(crate) fn decode_directory(
    bytes: &[u8],
    expected: u64,
    file_len: u64,
) -> Result<Vec<ContentLengths>, DirectoryError> {
    let (magic, rest) = bytes
        .split_first_chunk::<4>()
        .ok_or(DirectoryError::Magic)?;
    let (count, rest) = rest.split_first_chunk::<2>().ok_or(DirectoryError::Magic)?;
    if magic != MAGIC {
        return Err(DirectoryError::Magic);
    }
    let found = u16::from_be_bytes(*count);
    if u64::from(found) != expected || rest.len() != DESCRIPTOR_BYTES * usize::from(found) {
        return Err(DirectoryError::Count { found, expected });
    }
    let descriptors = rest.chunks_exact(DESCRIPTOR_BYTES);
    let contents = descriptors
        .map(decode_descriptor)
        .collect::<Result<Vec<_>, _>>()?;
    let expected = file_bytes(&contents);
    if file_len != expected {
        return Err(DirectoryError::Length {
            found: file_len,
            expected,
        });
    }
    Ok(contents)
}

fn decode_descriptor(bytes: &[u8]) -> Result<ContentLengths, DirectoryError> {
    let attributes = u16::from_be_bytes([bytes[1], bytes[2]]);
    let data_part = u32::from_be_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]);
    match bytes[0] {
        DISCLOSED => {
            let lengths = ContentLengths::Disclosed {
                attributes,
                data_part,
            };
            let bytes = content_bytes(lengths);
            if bytes > CONTENT_BYTES_MAX as u64 {
                return Err(DirectoryError::TooLarge { bytes });
            }
            Ok(lengths)
        }
        NOT_DISCLOSED if attributes == 0 && data_part == 0 => Ok(ContentLengths::Undisclosed),
        NOT_DISCLOSED => Err(DirectoryError::LengthsOfNothing),
        state => Err(DirectoryError::State { state }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_back_and_each_bit_of_it_counts() {
        let contents = [
            ContentLengths::Disclosed {
                attributes: 150,
                data_part: 20,
            },
            ContentLengths::Undisclosed,
            ContentLengths::Disclosed {
                attributes: 3,
                data_part: 70_000,
            },
        ];
        let bytes = encode_directory(&contents);
        let len = file_bytes(&contents);
        assert_eq!(bytes.len(), directory_bytes(3));
        assert_eq!(decode_directory(&bytes, 3, len), Ok(contents.to_vec()));
        assert!(decode_directory(&bytes, 4, len).is_err());
        assert!(decode_directory(&bytes, 3, len + 1).is_err());
        for bit in 0..8 * bytes.len() {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(
                decode_directory(&altered, 3, len),
                Ok(contents.to_vec()),
                "bit {bit}"
            );
        }
    }
}
