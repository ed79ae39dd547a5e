//! What an entry commits to: the event itself, with the salts that hide it.
//!
//! ```text
//! ┌ attribute salt (32) ┬ data salt (32) ┬ attributes ┬ data part ┐   one run of bytes, on disk and on the wire;
//! └─────────────────────┴────────────────┴────────────┴───────────┘   the length of the attributes travels beside it
//! ```

use countersign_crypto::Hash;

use crate::attributes::{ATTRIBUTE_BYTES_MAX, AttributeError, Attributes};
use crate::commitment::{SALT_BYTES, Salts, commitments, commitments_whole};
use crate::data::{
    AUTHOR_MATERIAL_BYTES_MAX, DATA_BYTES_MAX, DATA_PART_BYTES_MAX, DataError, DataPart, DataState,
};
use crate::encryption::{SEALED_EXTRA_BYTES, SealedRef};
use crate::entry::{Entry, Flags, Kind};
use crate::fields::{self, NO_SALT, View};
use crate::time::Timestamp;

/// Bytes of a content that are neither attributes nor data part.
pub const CONTENT_SALT_BYTES: usize = 2 * SALT_BYTES;

/// The largest content that the format admits: salts, attributes, and a data part of one state byte, a length, author
/// material and data, and what sealing adds to it. Readers bound their buffers by it before they allocate.
pub const CONTENT_BYTES_MAX: usize =
    CONTENT_SALT_BYTES + ATTRIBUTE_BYTES_MAX + DATA_PART_BYTES_MAX + SEALED_EXTRA_BYTES;

/// How large the parts of an event may be, checked before anything of that size is allocated. Values above those of
/// [`Limits::FORMAT`] have no effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of all attributes in canonical form. Default 65,535.
    pub attribute_bytes_max: usize,
    /// Bytes of the decoded author material. Default 65,535.
    pub author_material_bytes_max: usize,
    /// Bytes of the data. Default 1 MiB.
    pub data_bytes_max: usize,
}

impl Limits {
    /// What the format itself admits: for reading what somebody else, under limits of their own, has already logged.
    pub const FORMAT: Self = Self {
        attribute_bytes_max: ATTRIBUTE_BYTES_MAX,
        author_material_bytes_max: AUTHOR_MATERIAL_BYTES_MAX,
        data_bytes_max: DATA_BYTES_MAX,
    };

    fn check(&self, attributes: &[u8], data: &DataPart<'_>) -> Result<(), EventError> {
        if attributes.len() > self.attribute_bytes_max {
            return Err(EventError::Attributes(AttributeError::TooLong {
                found: attributes.len(),
                max: self.attribute_bytes_max,
            }));
        }
        self.check_data(data).map_err(EventError::Data)
    }

    /// Whether payload and author material keep to the limits.
    pub(crate) fn check_data(&self, data: &DataPart<'_>) -> Result<(), DataError> {
        let material = data.author_material.map_or(0, <[u8]>::len);
        if material > self.author_material_bytes_max {
            return Err(DataError::AuthorMaterialTooLong {
                found: material,
                max: self.author_material_bytes_max,
            });
        }
        if data.data.len() > self.data_bytes_max && data.data_bytes() > self.data_bytes_max {
            return Err(DataError::DataTooLong {
                found: data.data_bytes(),
                max: self.data_bytes_max,
            });
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            data_bytes_max: 1 << 20,
            ..Self::FORMAT
        }
    }
}

/// Why an event is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EventError {
    /// The attributes are not valid.
    #[error(transparent)]
    Attributes(#[from] AttributeError),
    /// The data part is not valid.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// An event in binary form, checked, owning its bytes.
#[derive(Clone, Eq, PartialEq)]
pub struct Event {
    attributes: Vec<u8>,
    data_part: Vec<u8>,
}

impl Event {
    /// Takes canonical attributes and an encoded data part.
    ///
    /// # Errors
    /// [`EventError`] where either is not valid or passes a limit.
    pub fn check(
        attributes: Vec<u8>,
        data_part: Vec<u8>,
        limits: &Limits,
    ) -> Result<Self, EventError> {
        EventRef::check(&attributes, &data_part, limits)?;
        Ok(Self {
            attributes,
            data_part,
        })
    }

    /// Takes canonical attributes and the pieces of a data part.
    ///
    /// # Errors
    /// As [`Event::check`].
    pub fn new(
        attributes: Vec<u8>,
        data: &DataPart<'_>,
        limits: &Limits,
    ) -> Result<Self, EventError> {
        Attributes::check(&attributes)?;
        limits.check(&attributes, data)?;
        let mut data_part = Vec::new();
        data.encode(&mut data_part)?;
        Ok(Self {
            attributes,
            data_part,
        })
    }

    /// The borrowed twin.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "INVARIANT: both parts were checked when this value was made and cannot be changed"
    )]
    pub fn as_ref(&self) -> EventRef<'_> {
        EventRef::check(&self.attributes, &self.data_part, &Limits::FORMAT)
            .expect("checked when made")
    }

    /// The canonical attributes.
    #[must_use]
    pub fn attribute_bytes(&self) -> &[u8] {
        &self.attributes
    }

    /// The encoded data part.
    #[must_use]
    pub fn data_part_bytes(&self) -> &[u8] {
        &self.data_part
    }

    /// Canonical attributes and encoded data part.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<u8>) {
        (self.attributes, self.data_part)
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_ref().fmt(f)
    }
}

/// An event in binary form, checked, borrowing its bytes: what hot paths pass on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EventRef<'a> {
    attributes: Attributes<'a>,
    data: DataPart<'a>,
    data_part: ByteSlice<'a>,
}

/// Bytes that a debug print leaves out.
#[derive(Clone, Copy, Eq, PartialEq)]
struct ByteSlice<'a>(&'a [u8]);

impl std::fmt::Debug for ByteSlice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<'a> EventRef<'a> {
    /// Checks canonical attributes and an encoded data part, without copying or allocating.
    ///
    /// # Errors
    /// [`EventError`] where either is not valid or passes a limit.
    pub fn check(
        attributes: &'a [u8],
        data_part: &'a [u8],
        limits: &Limits,
    ) -> Result<Self, EventError> {
        let checked = Attributes::check(attributes)?;
        let data = DataPart::decode(data_part)?;
        limits.check(attributes, &data)?;
        Ok(Self {
            attributes: checked,
            data,
            data_part: ByteSlice(data_part),
        })
    }

    /// The attributes.
    #[must_use]
    pub fn attributes(&self) -> &Attributes<'a> {
        &self.attributes
    }

    /// The payload and the author material.
    #[must_use]
    pub fn data(&self) -> &DataPart<'a> {
        &self.data
    }

    /// The canonical attributes.
    #[must_use]
    pub fn attribute_bytes(&self) -> &'a [u8] {
        self.attributes.as_bytes()
    }

    /// The encoded data part.
    #[must_use]
    pub fn data_part_bytes(&self) -> &'a [u8] {
        self.data_part.0
    }

    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> Event {
        Event {
            attributes: self.attribute_bytes().to_vec(),
            data_part: self.data_part_bytes().to_vec(),
        }
    }

    /// Bytes of the content this event makes.
    #[must_use]
    pub fn content_len(&self) -> usize {
        CONTENT_SALT_BYTES + self.attribute_bytes().len() + self.data_part_bytes().len()
    }

    /// Appends the content to `out`.
    pub fn write_content(&self, salts: &Salts, out: &mut Vec<u8>) {
        out.reserve(self.content_len());
        out.extend_from_slice(&salts.attributes);
        out.extend_from_slice(&salts.data);
        out.extend_from_slice(self.attribute_bytes());
        out.extend_from_slice(self.data_part_bytes());
    }
}

/// What sealing fixes of an entry; position, link and time come when it is sequenced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SealedHead {
    /// Commitment to the attributes.
    pub attributes: Hash,
    /// Commitment to the data part.
    pub data: Hash,
    /// Bytes of the data alone; of a view, those that are disclosed: its entry states how many there are.
    pub data_bytes: u32,
    /// Author-signed where there is author material.
    pub flags: Flags,
}

impl SealedHead {
    /// The entry at a position.
    #[must_use]
    pub fn entry(&self, kind: Kind, sequence: u64, prev: Hash, time: Timestamp) -> Entry {
        Entry {
            kind,
            flags: self.flags,
            data_bytes: self.data_bytes,
            sequence,
            prev,
            time,
            attributes: self.attributes,
            data: self.data,
        }
    }
}

/// Commits to an event under fresh salts.
#[must_use]
pub fn seal(event: &EventRef<'_>, salts: &Salts) -> SealedHead {
    let (attributes, data) = commitments(salts, event.attribute_bytes(), event.data_part_bytes());
    SealedHead {
        attributes,
        data,
        // INVARIANT: at most `DATA_BYTES_MAX`, which `EventRef::check` made sure of.
        data_bytes: u32::try_from(event.data.data_bytes()).unwrap_or(u32::MAX),
        flags: Flags {
            encrypted: false,
            author_signed: event.data.is_author_signed(),
        },
    }
}

/// Why a content is not what an entry commits to.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ContentError {
    /// The attributes or their salt are not those committed to.
    #[error(
        "the attributes do not match the entry's commitment: they were altered or belong to another entry"
    )]
    AttributeCommitment,
    /// The entry says author-signed and the data part has no author material, or the other way round.
    #[error("the entry says that author material is {}, the content says otherwise", if *.stated { "present" } else { "absent" })]
    AuthorSigned {
        /// What the entry says.
        stated: bool,
    },
    /// A control entry with members withheld.
    #[error("a control entry is shown whole, and this one withholds members")]
    ControlView,
    /// The data part or its salt are not those committed to.
    #[error(
        "the data does not match the entry's commitment: it was altered or belongs to another entry"
    )]
    DataCommitment,
    /// The entry states another data length.
    #[error("the entry states {stated} bytes of data, the content has {found}")]
    DataLength {
        /// Bytes that the entry states.
        stated: u32,
        /// Bytes there are.
        found: u32,
    },
    /// The entry states more data than an event can have.
    #[error("the entry states {stated} bytes of data, more than the {max} that an event can have")]
    StatedBytes {
        /// Bytes that the entry states.
        stated: u32,
        /// Bytes that the format admits.
        max: usize,
    },
    /// The data is sealed to recipients: it takes a key to read it.
    #[error("the data is encrypted: it takes a key to read it")]
    Encrypted,
    /// The parts are not a valid event.
    #[error(transparent)]
    Event(#[from] EventError),
    /// Something in the place of a salt that no holder has.
    #[error("members are withheld, and something stands in the place of the data salt")]
    ViewSalt,
    /// Too short for its salts and the stated attributes.
    #[error("the content has {found} bytes, fewer than its salts and attributes need ({needed})")]
    Truncated {
        /// Bytes needed at least.
        needed: usize,
        /// Bytes there are.
        found: usize,
    },
}

/// Splits a content, checks its form and commits to it anew: all that is needed to rebuild its entry.
///
/// # Errors
/// [`ContentError::Truncated`] or [`ContentError::Event`].
pub fn open_content(
    content: &[u8],
    attribute_bytes: usize,
) -> Result<(EventRef<'_>, SealedHead), ContentError> {
    let (salts, attributes, data_part) = split_content(content, attribute_bytes)?;
    let event = EventRef::check(attributes, data_part, &Limits::FORMAT)?;
    check_view_salt(&event, &salts)?;
    let head = seal(&event, &salts);
    Ok((event, head))
}

/// Checks that `content` is what `entry` commits to. `attribute_bytes` is the length of its attributes. Of an encrypted entry both commitments are checked, and
/// then it is [`ContentError::Encrypted`].
///
/// # Errors
/// [`ContentError`] naming the first field that differs. A wrong commitment is told from a malformed event, and comes
/// first: it is the sender's or the disk's doing, while a committed event that is malformed was logged so.
pub fn check_content<'a>(
    entry: &Entry,
    content: &'a [u8],
    attribute_bytes: usize,
) -> Result<EventRef<'a>, ContentError> {
    let (salts, attributes, data_part) = split_content(content, attribute_bytes)?;
    let (attribute_commitment, data_commitment) = match entry.flags.encrypted {
        false => commitments(&salts, attributes, data_part),
        true => commitments_whole(&salts, attributes, data_part),
    };
    if attribute_commitment != entry.attributes {
        return Err(ContentError::AttributeCommitment);
    }
    if data_commitment != entry.data {
        return Err(ContentError::DataCommitment);
    }
    check_stated_bytes(entry.flags, entry.data_bytes)?;
    if entry.flags.encrypted {
        return Err(ContentError::Encrypted);
    }
    let event = EventRef::check(attributes, data_part, &Limits::FORMAT)?;
    check_view_salt(&event, &salts)?;
    check_stated(entry, &event)?;
    Ok(event)
}

/// Checks the length that an entry states of its data: of what is withheld, erased or left out nothing else bounds it.
///
/// # Errors
/// [`ContentError::StatedBytes`].
pub fn check_stated_bytes(flags: Flags, stated: u32) -> Result<(), ContentError> {
    let max = match flags.encrypted {
        false => DATA_BYTES_MAX,
        true => DATA_PART_BYTES_MAX + SEALED_EXTRA_BYTES,
    };
    if usize::try_from(stated).is_ok_and(|stated| stated <= max) {
        return Ok(());
    }
    Err(ContentError::StatedBytes { stated, max })
}

/// Checks what an entry states of its data against the content.
///
/// # Errors
/// [`ContentError::AuthorSigned`], [`ContentError::DataLength`], [`ContentError::ControlView`].
pub fn check_stated(entry: &Entry, event: &EventRef<'_>) -> Result<(), ContentError> {
    let stated = entry.data_bytes;
    let found = u32::try_from(event.data.data_bytes()).unwrap_or(u32::MAX);
    let withheld = match event.data.view() {
        Some(_) if entry.kind == Kind::Control => return Err(ContentError::ControlView),
        Some(view) => view.withheld() > 0,
        None => false,
    };
    // The shortest member that can be withheld has three bytes and a comma or brace; that many are not told apart here.
    if found != stated && !(withheld && found < stated) {
        return Err(ContentError::DataLength { stated, found });
    }
    let stated = entry.flags.author_signed;
    if stated != event.data.is_author_signed() {
        return Err(ContentError::AuthorSigned { stated });
    }
    Ok(())
}

/// A holder of a view has no data salt: in its place nothing is that the log would not bind.
fn check_view_salt(event: &EventRef<'_>, salts: &Salts) -> Result<(), ContentError> {
    if event.data.state == DataState::View && salts.data != NO_SALT {
        return Err(ContentError::ViewSalt);
    }
    Ok(())
}

/// The content of which only the members of these names are disclosed: `None` where the data part has no members to withhold, and all of it is shown.
///
/// # Errors
/// [`ContentError`] where the content is none.
pub fn view_content(
    content: &[u8],
    attribute_bytes: usize,
    sees: impl Fn(&str) -> bool,
) -> Result<Option<Vec<u8>>, ContentError> {
    let (salts, attributes, data_part) = split_content(content, attribute_bytes)?;
    if !fields::is_fields(data_part) {
        return Ok(None);
    }
    let view = View::of(&salts.data, data_part, sees);
    let view = view.map_err(|error| EventError::Data(DataError::Fields(error)))?;
    let mut out = Vec::with_capacity(content.len());
    out.extend_from_slice(&salts.attributes);
    out.extend_from_slice(&NO_SALT);
    out.extend_from_slice(attributes);
    view.encode(&mut out);
    Ok(Some(out))
}

/// Whether a content withholds members of its data.
#[must_use]
pub fn is_view(content: &[u8], attribute_bytes: usize) -> bool {
    let at = CONTENT_SALT_BYTES.saturating_add(attribute_bytes);
    content.get(at) == Some(&(DataState::View as u8))
}

/// Splits a content whose data is sealed, checks its form and commits to it anew: all that is needed to rebuild its entry.
/// Whether its author signed it is not to be seen without a key, and stays as the entry says.
///
/// # Errors
/// [`ContentError::Truncated`] or [`ContentError::Event`].
pub fn open_sealed_content(
    content: &[u8],
    attribute_bytes: usize,
    flags: Flags,
) -> Result<(SealedRef<'_>, SealedHead), ContentError> {
    let (salts, attributes, data_part) = split_content(content, attribute_bytes)?;
    let sealed = SealedRef::check(attributes, data_part)?;
    let (attributes_committed, data_committed) = commitments_whole(&salts, attributes, data_part);
    let head = SealedHead {
        attributes: attributes_committed,
        data: data_committed,
        data_bytes: u32::try_from(data_part.len()).unwrap_or(u32::MAX),
        flags,
    };
    Ok((sealed, head))
}

/// Salts, attributes and data part of a content.
///
/// # Errors
/// [`ContentError::Truncated`].
pub fn split_content(
    content: &[u8],
    attribute_bytes: usize,
) -> Result<(Salts, &[u8], &[u8]), ContentError> {
    let truncated = ContentError::Truncated {
        needed: CONTENT_SALT_BYTES.saturating_add(attribute_bytes),
        found: content.len(),
    };
    let Some((attribute_salt, rest)) = content.split_first_chunk::<SALT_BYTES>() else {
        return Err(truncated);
    };
    let Some((data_salt, rest)) = rest.split_first_chunk::<SALT_BYTES>() else {
        return Err(truncated);
    };
    let Some((attributes, data_part)) = rest.split_at_checked(attribute_bytes) else {
        return Err(truncated);
    };
    let salts = Salts {
        attributes: *attribute_salt,
        data: *data_salt,
    };
    Ok((salts, attributes, data_part))
}
