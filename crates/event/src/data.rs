//! The data part: the payload of an event as it came, with what its author signed.
//!
//! ```text
//! ┌ state and flag ─────────────────────────────────────┬ only where A is set ─────────┬──────┐
//! │ A 0 0 0 s s s s                                     │ length u32 ‖ author material │ data │
//! │ s: 0 absent, 1 null, 2 text, 3 binary · A: material │                              │      │
//! │ 5 members: a JSON object, 6 a view of one           │                              │      │
//! └─────────────────────────────────────────────────────┴──────────────────────────────┴──────┘
//! ```
//!
//! Payload bytes are never re-serialised: signatures of authors hold only over the bytes that came.

use std::fmt;

use crate::fields::{self, FieldsError, View};

/// Bytes of author material that the format admits at most.
pub const AUTHOR_MATERIAL_BYTES_MAX: usize = 65_535;
/// Data bytes that the format admits at most: 16 MiB. A node's own limit (1 MiB by default) lies below.
pub const DATA_BYTES_MAX: usize = 16 << 20;

/// Bytes of a data part at most: its state, the length of the author material, the material, the data.
pub(crate) const DATA_PART_BYTES_MAX: usize = 1 + 4 + AUTHOR_MATERIAL_BYTES_MAX + DATA_BYTES_MAX;

pub(crate) const STATE_MASK: u8 = 0x0f;
pub(crate) const AUTHOR_MATERIAL: u8 = 0x80;
const RESERVED: u8 = 0x70;

/// Which kind of payload an event has. The numbers are stored and never reused.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum DataState {
    /// No payload at all.
    #[default]
    Absent = 0,
    /// An explicit JSON `null`.
    Null = 1,
    /// UTF-8 text; the JSON text itself where the media type is JSON or none is given.
    Text = 2,
    /// Any bytes.
    Binary = 3,
    /// The text of a JSON object that is committed to member by member. (4 is not used: golden examples know it as unknown.)
    Members = 5,
    /// Some members of such an object, and commitments of the others: a [`View`]. Nobody publishes it; what somebody gets who may not see all is of this kind.
    View = 6,
}

/// A view over a data part, or the pieces to make one of.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct DataPart<'a> {
    /// The kind of payload.
    pub state: DataState,
    /// The decoded `dssematerial`, not empty where present.
    pub author_material: Option<&'a [u8]>,
    /// The payload as it came; empty where absent or null. Of a view, its encoding.
    pub data: &'a [u8],
}

/// Why bytes are no data part.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DataError {
    /// Author material longer than the format admits.
    #[error("the author material has {found} bytes, more than the {max} admitted")]
    AuthorMaterialTooLong {
        /// Bytes found.
        found: usize,
        /// Bytes admitted.
        max: usize,
    },
    /// Payload longer than the format admits.
    #[error("the data has {found} bytes, more than the {max} admitted")]
    DataTooLong {
        /// Bytes found.
        found: usize,
        /// Bytes admitted.
        max: usize,
    },
    /// Author material of no bytes: leave it out instead.
    #[error("the author material is empty; an event without author material leaves it out")]
    EmptyAuthorMaterial,
    /// Data that is not the JSON object, or view of one, that its state says.
    #[error("the data is not what its state says: {0}")]
    Fields(FieldsError),
    /// Text that is not UTF-8.
    #[error("the data is marked as text but is not UTF-8 from byte {offset} on")]
    NotUtf8 {
        /// Bytes of valid UTF-8 before the first wrong one.
        offset: usize,
    },
    /// Reserved bits are set.
    #[error("reserved bits are set in the state byte {found:#04x} of the data part")]
    ReservedBits {
        /// The state byte.
        found: u8,
    },
    /// A state this version does not know.
    #[error("data state {found} is unknown")]
    State {
        /// The low nibble of the state byte.
        found: u8,
    },
    /// The bytes end within a field.
    #[error("the data part ends too early: {needed} bytes needed, {found} found")]
    Truncated {
        /// Bytes that the part says it has.
        needed: usize,
        /// Bytes there are.
        found: usize,
    },
    /// Payload bytes where the state says there are none.
    #[error("the data part is marked as absent or null, yet {found} bytes of data follow")]
    Unexpected {
        /// Payload bytes found.
        found: usize,
    },
}

impl<'a> DataPart<'a> {
    /// A text payload without author material.
    #[must_use]
    pub fn text(data: &'a str) -> Self {
        Self {
            state: DataState::Text,
            author_material: None,
            data: data.as_bytes(),
        }
    }

    /// A binary payload without author material.
    #[must_use]
    pub fn binary(data: &'a [u8]) -> Self {
        Self {
            state: DataState::Binary,
            author_material: None,
            data,
        }
    }

    /// Checks everything that [`DataPart::decode`] checks, on pieces that are still apart.
    ///
    /// # Errors
    /// [`DataError`]: too long, text that is not UTF-8, empty author material, or a payload where the state has none.
    pub fn validate(&self) -> Result<(), DataError> {
        if let Some(material) = self.author_material {
            if material.is_empty() {
                return Err(DataError::EmptyAuthorMaterial);
            }
            if material.len() > AUTHOR_MATERIAL_BYTES_MAX {
                return Err(DataError::AuthorMaterialTooLong {
                    found: material.len(),
                    max: AUTHOR_MATERIAL_BYTES_MAX,
                });
            }
        }
        if self.data.len() > DATA_BYTES_MAX && self.data_bytes() > DATA_BYTES_MAX {
            return Err(DataError::DataTooLong {
                found: self.data_bytes(),
                max: DATA_BYTES_MAX,
            });
        }
        match self.state {
            DataState::Absent | DataState::Null if !self.data.is_empty() => {
                Err(DataError::Unexpected {
                    found: self.data.len(),
                })
            }
            DataState::Text => match std::str::from_utf8(self.data) {
                Ok(_) => Ok(()),
                Err(error) => Err(DataError::NotUtf8 {
                    offset: error.valid_up_to(),
                }),
            },
            DataState::Members => fields::check(self.data).map_err(DataError::Fields),
            DataState::View => View::decode(self.data)
                .map(|_| ())
                .map_err(DataError::Fields),
            DataState::Absent | DataState::Null | DataState::Binary => Ok(()),
        }
    }

    /// The members that are disclosed, where this is a view.
    #[must_use]
    pub fn view(&self) -> Option<View<'a>> {
        match self.state {
            DataState::View => View::parse(self.data).ok(),
            _ => None,
        }
    }

    /// Bytes of the data that are here: all of them, but of a view.
    #[must_use]
    pub fn data_bytes(&self) -> usize {
        match self.view() {
            None => self.data.len(),
            Some(view) => view.disclosed_bytes(),
        }
    }

    /// Whether an author signed the event, as far as its data part tells: a view withholds the material.
    #[must_use]
    pub fn is_author_signed(&self) -> bool {
        self.author_material.is_some() || self.view().is_some_and(|view| view.is_author_signed())
    }

    /// Appends the encoded part to `out`, after validating it.
    ///
    /// # Errors
    /// As [`DataPart::validate`]; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), DataError> {
        self.validate()?;
        out.reserve(self.encoded_len());
        match self.author_material {
            None => out.push(self.state as u8),
            Some(material) => {
                // At most 65,535, as just validated.
                let length = u32::try_from(material.len()).unwrap_or(u32::MAX);
                out.push(self.state as u8 | AUTHOR_MATERIAL);
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(material);
            }
        }
        out.extend_from_slice(self.data);
        Ok(())
    }

    /// Bytes that [`DataPart::encode`] appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let author = self
            .author_material
            .map_or(0, |material| 4 + material.len());
        1 + author + self.data.len()
    }

    /// Reads an encoded part without copying; every accepted input is what [`DataPart::encode`] gives for the result.
    ///
    /// # Errors
    /// [`DataError`] for anything else.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DataError> {
        let Some((&head, rest)) = bytes.split_first() else {
            return Err(DataError::Truncated {
                needed: 1,
                found: 0,
            });
        };
        if head & RESERVED != 0 {
            return Err(DataError::ReservedBits { found: head });
        }
        let state = match head & STATE_MASK {
            0 => DataState::Absent,
            1 => DataState::Null,
            2 => DataState::Text,
            3 => DataState::Binary,
            5 => DataState::Members,
            6 if head & AUTHOR_MATERIAL == 0 => DataState::View,
            found => return Err(DataError::State { found }),
        };
        let (author_material, data) = if head & AUTHOR_MATERIAL == 0 {
            (None, rest)
        } else {
            let (material, data) = split_material(rest)?;
            (Some(material), data)
        };
        let part = Self {
            state,
            author_material,
            data,
        };
        part.validate()?;
        Ok(part)
    }
}

/// Payloads and signatures of others do not belong in traces: lengths say enough.
impl fmt::Debug for DataPart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPart")
            .field("state", &self.state)
            .field(
                "author_material_bytes",
                &self.author_material.map(<[u8]>::len),
            )
            .field("data_bytes", &self.data.len())
            .finish()
    }
}

/// The head of an encoded part (state, and author material where there is some), and the data behind it.
pub(crate) fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first()?;
    let length = match head & AUTHOR_MATERIAL {
        0 => 1,
        _ => 5 + split_material(rest).ok()?.0.len(),
    };
    bytes.split_at_checked(length)
}

fn split_material(rest: &[u8]) -> Result<(&[u8], &[u8]), DataError> {
    let truncated = |needed: usize| DataError::Truncated {
        needed: needed.saturating_add(1),
        found: rest.len() + 1,
    };
    let (length, rest_on) = rest.split_first_chunk::<4>().ok_or(truncated(4))?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > AUTHOR_MATERIAL_BYTES_MAX {
        return Err(DataError::AuthorMaterialTooLong {
            found: length,
            max: AUTHOR_MATERIAL_BYTES_MAX,
        });
    }
    rest_on
        .split_at_checked(length)
        .ok_or(truncated(4 + length))
}
