//! Fields: a data part that is committed to member by member, so that a holder can be shown some members of a JSON object and still verify what it sees.
//!
//! ```text
//! data part (state 5)   │ head │ {"a":1,│ "b" : 2, │ "c":3} │      slices: their concatenation is the data part, byte for byte
//! member commitment     │  c0  │   c1   │    c2    │   c3   │      SHA-256( "countersign.dm.1" ‖ salt_i ‖ slice_i )
//! data commitment         SHA-256( "countersign.df.1" ‖ n u32 ‖ c0 ‖ c1 ‖ … ‖ cn )
//! salt_i                  HMAC-SHA-256( data salt, "countersign.ms.1" ‖ i u32 )
//!
//! view (state 6)        │ n u32 │ c0 │ salt_1 ‖ slice_1 │ c2 │ c3 │    what somebody gets who may see `a`
//! ```
//!
//! Who has the data salt has everything; who has some of the members' salts learns nothing of the others, as each is the output of a pseudorandom function.
//! Names are withheld with their values: what shows is how many members there are, and how long the data is. Described in `schemas/entry.md`.

use std::borrow::Cow;

use countersign_crypto::{Hash, HmacKey, sha256_headed, sha256_of};

use crate::commitment::{DATA_FIELDS_TAG, DATA_MEMBER_TAG, SALT_BYTES};
use crate::data::{DataState, STATE_MASK, split_head};
use crate::json::{self, JsonError};

/// Members of one object at most: a view of as many takes 37 bytes more for each than its data, 37,888, which lies within the room that a content has for
/// author material, which no view has.
pub const MEMBERS_MAX: usize = 1024;

/// Tag of the derivation of a member's salt.
pub const MEMBER_SALT_TAG: &[u8; 16] = b"countersign.ms.1";

/// What stands in a view's content in the place of the data salt, which no holder of a view gets.
pub const NO_SALT: [u8; SALT_BYTES] = [0; SALT_BYTES];

const WITHHELD: u8 = 0;
const DISCLOSED: u8 = 1;

/// Why data cannot be committed to member by member, or a view is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FieldsError {
    /// Not a JSON object.
    #[error("it is no JSON object ({0})")]
    Json(JsonError),
    /// Data that does not come as JSON.
    #[error("it does not come as JSON")]
    NotJson,
    /// Two members of one name: whoever is shown the one holds another value of it than whoever is shown the other.
    #[error(
        "two of its members have one name, of which one holder could be shown the one and another the other"
    )]
    Repeated,
    /// A publisher handed in what only a sealed event is.
    #[error("it is handed in as what only a node makes of it")]
    Published,
    /// Too many members.
    #[error("it has more than {MEMBERS_MAX} members")]
    TooMany,
    /// A view is not of the form.
    #[error("it is no view of an object's members: {0}")]
    View(&'static str),
}

impl From<JsonError> for FieldsError {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

/// One slice of a data part, as a holder has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Slice<'a> {
    Disclosed {
        salt: [u8; SALT_BYTES],
        bytes: &'a [u8],
    },
    Withheld(Hash),
}

impl Slice<'_> {
    fn commitment(&self) -> Hash {
        match self {
            Self::Disclosed { salt, bytes } => member_commitment(salt, bytes),
            Self::Withheld(commitment) => *commitment,
        }
    }
}

/// The members of an object that somebody sees, and how many there are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct View<'a> {
    head: Slice<'a>,
    members: Vec<Slice<'a>>,
}

impl<'a> View<'a> {
    /// Reads what follows the state byte of a view.
    ///
    /// # Errors
    /// [`FieldsError`] where it is not of the form, or a disclosed slice is no member in its place.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FieldsError> {
        let view = Self::parse(bytes)?;
        check_names(view.names()?.into_iter().map(|(_, name)| name).collect())?;
        Ok(view)
    }

    /// As [`View::decode`], of bytes that it accepted before.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, FieldsError> {
        let broken = FieldsError::View("it breaks off");
        let (count, mut rest) = bytes.split_first_chunk::<4>().ok_or(broken)?;
        let count = usize::try_from(u32::from_be_bytes(*count)).unwrap_or(usize::MAX);
        if !(1..=MEMBERS_MAX).contains(&count) {
            return Err(FieldsError::View("it has not 1 to 1,024 members"));
        }
        let head = read_slice(&mut rest).ok_or(broken)?;
        // A head with author material is never disclosed: its digests are not salted.
        if matches!(head, Slice::Disclosed { bytes, .. } if bytes != [DataState::Members as u8]) {
            return Err(FieldsError::View("its head is another"));
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(read_slice(&mut rest).ok_or(broken)?);
        }
        if !rest.is_empty() {
            return Err(FieldsError::View("bytes follow it"));
        }
        Ok(Self { head, members })
    }

    /// The view of a whole data part of state 5, or a narrower one of a view: members of the names that `sees` admits stay disclosed, author material does not.
    ///
    /// # Errors
    /// [`FieldsError`] where the data part is neither, or has two members of one name.
    pub fn of(
        data_salt: &[u8; SALT_BYTES],
        data_part: &'a [u8],
        sees: impl Fn(&str) -> bool,
    ) -> Result<Self, FieldsError> {
        let whole = Self::whole(data_salt, data_part)?;
        let mut members = whole.members.clone();
        let names = whole.names()?;
        for (at, name) in &names {
            if !sees(name) {
                members[*at] = Slice::Withheld(whole.members[*at].commitment());
            }
        }
        check_names(names.into_iter().map(|(_, name)| name).collect())?;
        let head = match whole.head {
            Slice::Disclosed { bytes: [_], .. } => whole.head,
            head => Slice::Withheld(head.commitment()),
        };
        Ok(Self { head, members })
    }

    /// A data part of state 5 or 6 as its slices. Two may have one name: what the log has committed to is told from what was altered, and is refused by
    /// [`check`] and [`View::decode`].
    fn whole(data_salt: &[u8; SALT_BYTES], data_part: &'a [u8]) -> Result<Self, FieldsError> {
        match data_part.first().map(|state| state & STATE_MASK) {
            Some(state) if state == DataState::View as u8 => {
                let view = Self::parse(&data_part[1..])?;
                view.names().map(|_| view)
            }
            Some(state) if state == DataState::Members as u8 => {
                let (head, data) =
                    split_head(data_part).ok_or(FieldsError::View("its head breaks off"))?;
                let salts = MemberSalts::new(data_salt);
                let disclosed = |(index, bytes)| Slice::Disclosed {
                    salt: salts.salt(index),
                    bytes,
                };
                Ok(Self {
                    head: disclosed((0, head)),
                    members: (1..).zip(slices(data, |_| ())?).map(disclosed).collect(),
                })
            }
            _ => Err(FieldsError::View("it is of another kind")),
        }
    }

    /// Appends the data part that holds the view.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(DataState::View as u8);
        // INVARIANT: at most MEMBERS_MAX.
        out.extend_from_slice(&(self.members.len() as u32).to_be_bytes());
        for slice in std::iter::once(&self.head).chain(&self.members) {
            match slice {
                Slice::Withheld(commitment) => {
                    out.push(WITHHELD);
                    out.extend_from_slice(commitment);
                }
                Slice::Disclosed { salt, bytes } => {
                    out.push(DISCLOSED);
                    out.extend_from_slice(salt);
                    // INVARIANT: a slice lies within a data part, whose length is a u32.
                    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                    out.extend_from_slice(bytes);
                }
            }
        }
    }

    /// The commitment to the data part that this is a view of.
    #[must_use]
    pub fn commitment(&self) -> Hash {
        let mut commitments = Vec::with_capacity(self.members.len() + 1);
        commitments.push(self.head.commitment());
        commitments.extend(self.members.iter().map(Slice::commitment));
        // INVARIANT: at most MEMBERS_MAX.
        let count = (self.members.len() as u32).to_be_bytes();
        sha256_of(&[DATA_FIELDS_TAG, &count, commitments.as_flattened()])
    }

    /// How many members are withheld.
    #[must_use]
    pub fn withheld(&self) -> usize {
        let withheld = |slice: &&Slice<'_>| matches!(slice, Slice::Withheld(_));
        self.members.iter().filter(withheld).count()
    }

    /// Whether the event bears author material, which is withheld.
    #[must_use]
    pub fn is_author_signed(&self) -> bool {
        matches!(self.head, Slice::Withheld(_))
    }

    /// Bytes of data that are disclosed.
    #[must_use]
    pub fn disclosed_bytes(&self) -> usize {
        let bytes = |slice: &Slice<'_>| match slice {
            Slice::Disclosed { bytes, .. } => bytes.len(),
            Slice::Withheld(_) => 0,
        };
        self.members.iter().map(bytes).sum()
    }

    /// The members that are disclosed, as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(self.disclosed_bytes() + 2);
        out.push('{');
        for at in 0..self.members.len() {
            // INVARIANT: looked at when the view was made.
            let Ok(Some(member)) = self.member(at) else {
                continue;
            };
            let member = member.trim_matches(SPACE);
            if !member.is_empty() {
                if out.len() > 1 {
                    out.push(',');
                }
                out.push_str(member);
            }
        }
        out.push('}');
        out
    }

    /// The text of a disclosed member, without what parts it from others.
    fn member(&self, at: usize) -> Result<Option<&'a str>, FieldsError> {
        let Slice::Disclosed { bytes, .. } = self.members[at] else {
            return Ok(None);
        };
        let misplaced = FieldsError::View("a slice does not fit its place");
        let mut text = std::str::from_utf8(bytes).map_err(|_| misplaced)?;
        if at == 0 {
            text = text.trim_start_matches(SPACE);
            text = text.strip_prefix('{').ok_or(misplaced)?;
        }
        if at + 1 == self.members.len() {
            text = text.trim_end_matches(SPACE);
            text = text.strip_suffix('}').ok_or(misplaced)?;
        } else {
            text = text.strip_suffix(',').ok_or(misplaced)?;
        }
        Ok(Some(text))
    }

    /// Place and name of each disclosed member; none of the one slice of an object without members.
    fn names(&self) -> Result<Vec<(usize, String)>, FieldsError> {
        let mut names = Vec::new();
        for at in 0..self.members.len() {
            let Some(member) = self.member(at)? else {
                continue;
            };
            let object = format!("{{{member}}}");
            json::check_depth(&object)?;
            let before = names.len();
            json::members(&object, |found, _| {
                names.push((at, found.into_owned()));
                Ok::<(), FieldsError>(())
            })?;
            let count = names.len() - before;
            let is_empty = count == 0 && self.members.len() == 1;
            if count != 1 && !is_empty {
                return Err(FieldsError::View("a slice is not one member"));
            }
        }
        Ok(names)
    }
}

const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Whether data can be committed to member by member.
///
/// # Errors
/// [`FieldsError`].
pub fn check(data: &[u8]) -> Result<(), FieldsError> {
    let mut names = Vec::new();
    slices(data, |name| names.push(name))?;
    check_names(names)
}

/// That no two members have one name, as JSON reads it. Of a view that holds for the members that are disclosed: nobody sees the names of the others.
fn check_names<N: Ord>(mut names: Vec<N>) -> Result<(), FieldsError> {
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(FieldsError::Repeated);
    }
    Ok(())
}

/// The commitment to a data part of state 5 or 6; `None` for others, and for what is malformed.
pub(crate) fn commitment(salt: &[u8; SALT_BYTES], data_part: &[u8]) -> Option<Hash> {
    let view = View::whole(salt, data_part).ok()?;
    // A view's own salts are all there is.
    let is_view = data_part.first() == Some(&(DataState::View as u8));
    (!is_view || *salt == NO_SALT).then(|| view.commitment())
}

/// Whether a data part is committed to member by member.
#[inline]
pub(crate) fn is_fields(data_part: &[u8]) -> bool {
    matches!(data_part.first(), Some(state) if state & STATE_MASK >= DataState::Members as u8)
}

/// The slices of an object: each member with what precedes it and the comma behind it; the first with the opening brace, the last with the closing one. An object
/// without members is one slice. `named` is told the name of each.
fn slices<'a>(
    data: &'a [u8],
    mut named: impl FnMut(Cow<'a, str>),
) -> Result<Vec<&'a [u8]>, FieldsError> {
    let text = json::text(data)?;
    let mut ends: Vec<usize> = Vec::new();
    json::members(text, |name, raw| {
        if ends.len() == MEMBERS_MAX {
            return Err(FieldsError::TooMany);
        }
        // A slice of the text: where it ends follows from where both lie.
        let begin = raw.get().as_ptr().addr().wrapping_sub(text.as_ptr().addr());
        ends.push(begin + raw.get().len());
        named(name);
        Ok(())
    })?;
    json::check_depth(text)?;
    let mut out = Vec::with_capacity(ends.len().max(1));
    let mut start = 0;
    for end in ends.iter().rev().skip(1).rev() {
        let behind = data.get(*end..).unwrap_or_default();
        // Valid JSON: white space and a comma follow a member that is not the last.
        let comma = behind.iter().position(|byte| *byte == b',').unwrap_or(0);
        let end = end + comma + 1;
        out.push(data.get(start..end).unwrap_or_default());
        start = end;
    }
    out.push(data.get(start..).unwrap_or_default());
    Ok(out)
}

fn read_slice<'a>(rest: &mut &'a [u8]) -> Option<Slice<'a>> {
    let (state, after) = rest.split_first()?;
    let (hash, after) = after.split_first_chunk::<SALT_BYTES>()?;
    match *state {
        WITHHELD => {
            *rest = after;
            Some(Slice::Withheld(*hash))
        }
        DISCLOSED => {
            let (length, after) = after.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (bytes, after) = after.split_at_checked(length)?;
            *rest = after;
            Some(Slice::Disclosed { salt: *hash, bytes })
        }
        _ => None,
    }
}

/// The salts of the slices of one data part.
struct MemberSalts(HmacKey);

impl MemberSalts {
    fn new(data_salt: &[u8; SALT_BYTES]) -> Self {
        Self(HmacKey::new(data_salt))
    }

    fn salt(&self, index: u32) -> [u8; SALT_BYTES] {
        self.0
            .authenticate(&[MEMBER_SALT_TAG, &index.to_be_bytes()])
    }
}

fn member_commitment(salt: &[u8; SALT_BYTES], slice: &[u8]) -> Hash {
    let mut head = [0; 48];
    head[..16].copy_from_slice(DATA_MEMBER_TAG);
    head[16..].copy_from_slice(salt);
    sha256_headed(&head, slice)
}
