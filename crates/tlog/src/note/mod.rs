//! Signed notes (c2sp.org/signed-note@v1.0.0): a text with signature lines beneath.
//!
//! ```text
//! any UTF-8 text, each line ended by LF             ┐ signed, with its last LF
//! more text                                         ┘
//!                                                     the last empty line of the note parts text and signatures
//! — <key name> <base64(key id, 4 bytes ‖ signature)>   one line per signature, U+2014 first
//! ```

mod vkey;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::{Signature, SigningKey};

pub use vkey::{Algorithm, KeyId, VKEY_BYTES_MAX, Vkey, VkeyError};

use crate::cosignature_v1;

/// The largest note taken, in bytes: the limit of the Go implementation, and thousands of times a checkpoint.
pub const NOTE_BYTES_MAX: usize = 1_000_000;

/// The most signature lines taken: the limit of the Go implementation; the specification asks for at least 16.
pub const SIGNATURES_MAX: usize = 100;

const LINE_START: &str = "\u{2014} ";
const KEY_ID_BYTES: usize = 4;

/// A text and its signatures; whether these are good only [`Note::verify`] says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoteSignature {
    name: String,
    id: KeyId,
    signature: Vec<u8>,
}

/// Why bytes are no signed note, or one that is not to be trusted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoteError {
    /// A line of a known key does not verify; such a note is bad as a whole.
    #[error("signature line {line} is in the name of a known key and does not verify")]
    BadSignature {
        /// The line, counted from 0 among the signature lines.
        line: usize,
    },
    /// The bytes are not UTF-8, or have a control byte other than LF.
    #[error("byte {offset} of the note is no text: UTF-8 without control bytes is expected")]
    Bytes {
        /// Where.
        offset: usize,
    },
    /// A key name is empty, or has a space, a plus sign or a control character.
    #[error("a key name is not empty and has no space, plus sign or control character")]
    KeyName,
    /// A signature line has another form than the specification gives it.
    #[error(
        "signature line {line} is not a dash, a key name and the base64 of key id and signature"
    )]
    Line {
        /// The line, counted from 0 among the signature lines.
        line: usize,
    },
    /// None of the keys given has signed.
    #[error("no signature of a known key is on the note")]
    NoKnownKey,
    /// No empty line parts the text from at least one signature line.
    #[error("the note has no empty line followed by signature lines")]
    NoSignatures,
    /// The text does not end in a line feed.
    #[error("the text of a note ends in a line feed")]
    TextEnd,
    /// The note is larger than [`NOTE_BYTES_MAX`].
    #[error("the note has {bytes} bytes, more than {NOTE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The note has more than [`SIGNATURES_MAX`] signature lines.
    #[error("the note has {lines} signature lines, more than {SIGNATURES_MAX}")]
    TooManySignatures {
        /// Their number.
        lines: usize,
    },
}

impl Note {
    /// A note without signatures.
    ///
    /// # Errors
    /// [`NoteError::Bytes`], [`NoteError::TextEnd`], [`NoteError::TooLarge`].
    pub fn new(text: String) -> Result<Self, NoteError> {
        check_bytes(text.as_bytes())?;
        if !text.ends_with('\n') {
            return Err(NoteError::TextEnd);
        }
        Ok(Self {
            text,
            signatures: Vec::new(),
        })
    }

    /// Reads a signed note: exactly what [`Note::encode`] writes, and nothing else.
    ///
    /// # Errors
    /// [`NoteError`], all but [`NoteError::BadSignature`] and [`NoteError::NoKnownKey`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        let note = check_bytes(bytes)?;
        // The last empty line: the text itself may have empty lines, signature lines may not.
        let (head, lines) = note.rsplit_once("\n\n").ok_or(NoteError::NoSignatures)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::NoSignatures)?;
        let count = lines.split('\n').count();
        if count > SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures { lines: count });
        }
        let signatures = lines
            .split('\n')
            .enumerate()
            .map(|(line, text)| NoteSignature::parse(text).ok_or(NoteError::Line { line }))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            text: format!("{head}\n"),
            signatures,
        })
    }

    /// The signed text, with its last line feed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, in their order.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature line at the end.
    ///
    /// # Errors
    /// [`NoteError::TooManySignatures`].
    pub fn push(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        let lines = self.signatures.len() + 1;
        if lines > SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures { lines });
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// The whole note as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut note = String::with_capacity(self.text.len() + 1 + 192 * self.signatures.len());
        note.push_str(&self.text);
        note.push('\n');
        for signature in &self.signatures {
            signature.write_line(&mut note);
        }
        note
    }

    /// The note as it is without the signature lines of other names than `name`: what its own log signed, whoever cosigned it later.
    #[must_use]
    pub fn only(&self, name: &str) -> Self {
        let lines = self.signatures.iter();
        Self {
            text: self.text.clone(),
            signatures: lines.filter(|line| line.name() == name).cloned().collect(),
        }
    }

    /// The keys of `known` that have signed, in the order of the lines. Lines of other keys are skipped; one bad line in
    /// the name of a known key spoils the note.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`], [`NoteError::NoKnownKey`].
    pub fn verify<'k>(&self, known: &'k [Vkey]) -> Result<Vec<&'k Vkey>, NoteError> {
        let mut good = Vec::new();
        for (line, signature) in self.signatures.iter().enumerate() {
            let mut named = known.iter().filter(|key| signature.names(key)).peekable();
            if named.peek().is_none() {
                continue;
            }
            // Key ids are four bytes: two known keys may share name and id, and then either may have signed.
            let key = named
                .find(|key| signature.verifies(&self.text, key))
                .ok_or(NoteError::BadSignature { line })?;
            good.push(key);
        }
        if good.is_empty() {
            return Err(NoteError::NoKnownKey);
        }
        Ok(good)
    }
}

/// Signs `text` as the log called `name`: the signature line of type 0x01.
///
/// # Errors
/// [`NoteError::KeyName`]. The text is signed as it is; [`Note::new`] is what checks it.
pub fn sign(text: &str, name: &str, key: &SigningKey) -> Result<NoteSignature, NoteError> {
    let id = KeyId::of(name, Algorithm::Ed25519, &key.public());
    let signature = key.sign(text.as_bytes()).to_bytes().to_vec();
    NoteSignature::new(name.to_owned(), id, signature)
}

impl NoteSignature {
    /// A line from its parts.
    ///
    /// # Errors
    /// [`NoteError::KeyName`].
    pub fn new(name: String, id: KeyId, signature: Vec<u8>) -> Result<Self, NoteError> {
        check_name(&name)?;
        Ok(Self {
            name,
            id,
            signature,
        })
    }

    /// Reads one line, without its line feed; `None` where it has another form.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (name, base64) = line.strip_prefix(LINE_START)?.split_once(' ')?;
        check_name(name).ok()?;
        let payload = STANDARD.decode(base64).ok()?;
        let (id, signature) = payload.split_first_chunk::<KEY_ID_BYTES>()?;
        if signature.is_empty() {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            id: KeyId(*id),
            signature: signature.to_vec(),
        })
    }

    /// The name of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the key: which key to try, no more.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The bytes after the key id; their form is the algorithm's.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Whether this line claims to be by `key`.
    #[must_use]
    pub fn names(&self, key: &Vkey) -> bool {
        self.id == key.id() && self.name == key.name()
    }

    /// The line, with its line feed.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut line = String::new();
        self.write_line(&mut line);
        line
    }

    fn write_line(&self, out: &mut String) {
        write_line(out, &self.name, self.id, &self.signature);
    }

    fn verifies(&self, text: &str, key: &Vkey) -> bool {
        match key.algorithm() {
            Algorithm::Ed25519 => {
                <[u8; 64]>::try_from(self.signature.as_slice()).is_ok_and(|bytes| {
                    let signature = Signature::from_bytes(bytes);
                    key.key().verify(text.as_bytes(), &signature).is_ok()
                })
            }
            Algorithm::CosignatureV1 => cosignature_v1::verify(text, self, key).is_ok(),
        }
    }
}

/// Writes one signature line; here too for callers that know their name to be good and keep no [`NoteSignature`].
pub(crate) fn write_line(out: &mut String, name: &str, id: KeyId, signature: &[u8]) {
    let mut payload = Vec::with_capacity(KEY_ID_BYTES + signature.len());
    payload.extend_from_slice(&id.0);
    payload.extend_from_slice(signature);
    out.push_str(LINE_START);
    out.push_str(name);
    out.push(' ');
    STANDARD.encode_string(&payload, out);
    out.push('\n');
}

/// Checks that `name` may be the name of a key: not empty, no Unicode space, no plus sign, no control character.
///
/// # Errors
/// [`NoteError::KeyName`].
pub fn check_name(name: &str) -> Result<(), NoteError> {
    let refused = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.contains(refused) {
        return Err(NoteError::KeyName);
    }
    Ok(())
}

/// The bytes as text, if their number and each of them may be in a note.
fn check_bytes(bytes: &[u8]) -> Result<&str, NoteError> {
    if bytes.len() > NOTE_BYTES_MAX {
        return Err(NoteError::TooLarge { bytes: bytes.len() });
    }
    if let Some(offset) = bytes.iter().position(|&b| b < 0x20 && b != b'\n') {
        return Err(NoteError::Bytes { offset });
    }
    std::str::from_utf8(bytes).map_err(|error| NoteError::Bytes {
        offset: error.valid_up_to(),
    })
}
