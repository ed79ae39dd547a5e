//! Policy files (c2sp.org/tlog-policy at C2SP/C2SP 1896a5ae, 2026-06-22): which logs, which witnesses, and how many of them have to have cosigned.
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> all|any|<k> <name>...        of names on lines above
//! quorum <name>|none                        exactly one, of a name above
//! ```
//!
//! Items are parted by spaces and tabs; empty lines and those that begin with `#` are skipped. Names are opaque bytes. What the text leaves open is
//! said in `schemas/witness-policy.md`.

use std::collections::HashMap;

use crate::cosignature_v1::{self, CosignatureError};
use crate::decimal::parse_decimal;
use crate::note::{Algorithm, Note, Vkey, VkeyError};

/// The largest file taken, in bytes: 3,072 lines with keys and addresses of common length.
pub const POLICY_BYTES_MAX: usize = 1 << 20;

/// The most logs, witnesses and groups taken, of each; the specification asks for 32.
pub const POLICY_MEMBERS_MAX: usize = 1024;

/// The longest name of a witness or group, in bytes: that of a vkey, which a name may be.
pub const POLICY_NAME_BYTES_MAX: usize = 1024;

/// The name that asks for nobody.
const NONE: &[u8] = b"none";

/// What somebody demands of a checkpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    logs: Vec<Vkey>,
    witnesses: Vec<PolicyWitness>,
    groups: Vec<Group>,
    // None = nobody has to cosign.
    quorum: Option<Member>,
}

/// A witness that a policy knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyWitness {
    /// Its name within the policy: opaque bytes.
    pub name: Vec<u8>,
    /// Its key.
    pub vkey: Vkey,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Member {
    Witness(usize),
    Group(usize),
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Group {
    needed: usize,
    // INVARIANT: groups among them have lower numbers than this one.
    members: Vec<Member>,
}

/// Who cosigned a checkpoint, and whether they are enough.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Witnessed {
    /// The witnesses of the policy that cosigned, in its order.
    pub by: Vec<Cosigned>,
    /// Whether the quorum is met.
    pub met: bool,
    /// The time by which it was, in seconds since 1970; `None` where it is not, or asks for nobody.
    pub met_by_seconds: Option<u64>,
}

/// One witness's word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cosigned {
    /// Its place in [`Policy::witnesses`].
    pub witness: usize,
    /// When, in seconds since 1970: the earliest time that it states.
    pub time_seconds: u64,
}

/// A line in the name of a witness of the policy, which is false.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("signature line {line} is in the name of the witness `{witness}`: {source}")]
pub struct FalseCosignature {
    /// The line, counted from 0 among the signature lines.
    pub line: usize,
    /// The witness's vkey name.
    pub witness: String,
    /// What is wrong.
    pub source: CosignatureError,
}

/// Why bytes are no policy that can be judged.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// A byte that may not be there: only tabs, line feeds and what is printable, or beyond ASCII.
    #[error("byte {offset} of the policy is a control character")]
    Byte {
        /// Where.
        offset: usize,
    },
    /// The last line does not end in a line feed.
    #[error("the last line of the policy does not end in a line feed: the file may be cut off")]
    Cut,
    /// The key of a log or witness is there twice, maybe under another name.
    #[error("line {line}: the same key is on line {first}")]
    DuplicateKey {
        /// The line, from 1.
        line: usize,
        /// The line that has it already.
        first: usize,
    },
    /// A witness or group of that name is there already, or it is `none`.
    #[error("line {line}: the name `{name}` is taken")]
    DuplicateName {
        /// The line, from 1.
        line: usize,
        /// The name, for people.
        name: String,
    },
    /// The line is none of the four, or has too few or too many items.
    #[error(
        "line {line} is none of `log <vkey> [<url>]`, `witness <name> <vkey> [<url>]`, `group <name> all|any|<k> <name>...` and `quorum <name>`"
    )]
    Form {
        /// The line, from 1.
        line: usize,
    },
    /// A name is a member of a group already.
    #[error("line {line}: `{name}` is a member of a group already, and counts only once")]
    MemberTwice {
        /// The line, from 1.
        line: usize,
        /// The name, for people.
        name: String,
    },
    /// More than [`POLICY_MEMBERS_MAX`] of one kind.
    #[error("line {line}: more than {POLICY_MEMBERS_MAX} logs, witnesses or groups")]
    Members {
        /// The line, from 1.
        line: usize,
    },
    /// A name is longer than [`POLICY_NAME_BYTES_MAX`].
    #[error("line {line}: a name has more than {POLICY_NAME_BYTES_MAX} bytes")]
    Name {
        /// The line, from 1.
        line: usize,
    },
    /// No line says who has to cosign.
    #[error("the policy has no `quorum` line; `quorum none` asks for no witness")]
    NoQuorum,
    /// A second line says who has to cosign.
    #[error("line {line}: a second `quorum` line")]
    SecondQuorum {
        /// The line, from 1.
        line: usize,
    },
    /// The number of a group is not from 1 to the number of its members.
    #[error("line {line}: of {members} members 1 to {members} can be asked for")]
    Threshold {
        /// The line, from 1.
        line: usize,
        /// How many there are.
        members: usize,
    },
    /// Larger than [`POLICY_BYTES_MAX`].
    #[error("the policy has {bytes} bytes, more than {POLICY_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// No line above defines the name.
    #[error("line {line}: no line above defines `{name}`")]
    UnknownName {
        /// The line, from 1.
        line: usize,
        /// The name, for people.
        name: String,
    },
    /// A key that cannot be used.
    #[error("line {line}: {source}")]
    Vkey {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: VkeyError,
    },
    /// A key of the other kind.
    #[error(
        "line {line}: a log has a key of type 0x01, a witness one of type 0x04, and this one is of type {algorithm:#04x}"
    )]
    VkeyKind {
        /// The line, from 1.
        line: usize,
        /// The key's type.
        algorithm: u8,
    },
}

impl Policy {
    /// Whether a text means to be a policy: its first line that says anything begins with one of the four words.
    #[must_use]
    pub fn is_meant(bytes: &[u8]) -> bool {
        let lines = bytes.split(|byte| *byte == b'\n').map(items);
        let mut lines = lines.filter(|items| items.first().is_some_and(|item| item[0] != b'#'));
        let words: [&[u8]; 4] = [b"log", b"witness", b"group", b"quorum"];
        lines.next().is_some_and(|items| words.contains(&items[0]))
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLarge { bytes: bytes.len() });
        }
        let allowed = |byte: &u8| matches!(byte, b'\t' | b'\n' | 0x20..=0x7e | 0x80..);
        if let Some(offset) = bytes.iter().position(|byte| !allowed(byte)) {
            return Err(PolicyError::Byte { offset });
        }
        let text = match bytes.split_last() {
            None => return Err(PolicyError::NoQuorum),
            Some((b'\n', text)) => text,
            Some(_) => return Err(PolicyError::Cut),
        };
        let mut reader = Reader::default();
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            reader.line(at + 1, &items(line))?;
        }
        let quorum = reader.quorum.ok_or(PolicyError::NoQuorum)?;
        Ok(Self {
            logs: reader.logs,
            witnesses: reader.witnesses,
            groups: reader.groups,
            quorum,
        })
    }

    /// The logs whose checkpoints it accepts; none where they are known from elsewhere.
    #[must_use]
    pub fn logs(&self) -> &[Vkey] {
        &self.logs
    }

    /// The witnesses that it knows, in the order of its lines.
    #[must_use]
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// Whether anybody has to cosign.
    #[must_use]
    pub fn asks_for_witnesses(&self) -> bool {
        self.quorum.is_some()
    }

    /// Whether these witnesses, by their places in [`Policy::witnesses`], are enough.
    #[must_use]
    pub fn is_met_by(&self, cosigned: impl Fn(usize) -> bool) -> bool {
        let Some(quorum) = self.quorum else {
            return true;
        };
        // A group only has members above it: one pass in their order knows each when it is asked for.
        let mut groups: Vec<bool> = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let members = group.members.iter();
            let witnessing = members.filter(|member| has(member, &cosigned, &groups));
            groups.push(witnessing.count() >= group.needed);
        }
        has(&quorum, &cosigned, &groups)
    }

    /// Verifies the cosignatures of its witnesses on a checkpoint's note, and says whether they are enough. Who signed as the log is not looked at; lines of
    /// others are skipped.
    ///
    /// # Errors
    /// The first line in the name of a witness of the policy that does not verify: such a note is bad as a whole.
    pub fn judge(&self, note: &Note) -> Result<Witnessed, FalseCosignature> {
        let mut times: Vec<Option<u64>> = vec![None; self.witnesses.len()];
        for (line, signature) in note.signatures().iter().enumerate() {
            let named = self.witnesses.iter().enumerate();
            let named = named.filter(|(_, witness)| signature.names(&witness.vkey));
            let mut fault = None;
            let mut verified = false;
            // Key ids are four bytes: two witnesses may share name and id, and then either may have signed.
            for (at, witness) in named {
                match cosignature_v1::verify(note.text(), signature, &witness.vkey) {
                    Ok(time) => {
                        verified = true;
                        times[at] = Some(times[at].map_or(time, |known| known.min(time)));
                    }
                    Err(source) => fault = Some((witness, source)),
                }
            }
            if let (Some((witness, source)), false) = (fault, verified) {
                let witness = witness.vkey.name().to_owned();
                return Err(FalseCosignature {
                    line,
                    witness,
                    source,
                });
            }
        }
        let by: Vec<Cosigned> = times
            .iter()
            .enumerate()
            .filter_map(|(witness, time)| {
                Some(Cosigned {
                    witness,
                    time_seconds: (*time)?,
                })
            })
            .collect();
        let met_with =
            |limit: u64| self.is_met_by(|witness| times[witness].is_some_and(|time| time <= limit));
        let met = met_with(u64::MAX);
        let mut moments: Vec<u64> = by.iter().map(|cosigned| cosigned.time_seconds).collect();
        moments.sort_unstable();
        // More witnesses never unmeet a quorum: the first moment at which it is met is the bound.
        let first = moments.partition_point(|moment| !met_with(*moment));
        let met_by_seconds = moments
            .get(first)
            .copied()
            .filter(|_| self.asks_for_witnesses());
        Ok(Witnessed {
            by,
            met,
            met_by_seconds,
        })
    }
}

fn has(member: &Member, cosigned: &impl Fn(usize) -> bool, groups: &[bool]) -> bool {
    match member {
        Member::Witness(at) => cosigned(*at),
        Member::Group(at) => groups.get(*at).copied().unwrap_or(false),
    }
}

/// The items of a line: spaces and tabs part them, and nothing else does.
fn items(line: &[u8]) -> Vec<&[u8]> {
    let items = line.split(|byte| matches!(byte, b' ' | b'\t'));
    items.filter(|item| !item.is_empty()).collect()
}

#[derive(Default)]
struct Reader {
    logs: Vec<Vkey>,
    witnesses: Vec<PolicyWitness>,
    groups: Vec<Group>,
    quorum: Option<Option<Member>>,
    /// Whether it is a member of a group already.
    names: HashMap<Vec<u8>, (Member, bool)>,
    /// By kind and bytes, the line that has it.
    keys: HashMap<(Algorithm, [u8; 32]), usize>,
}

impl Reader {
    fn line(&mut self, line: usize, items: &[&[u8]]) -> Result<(), PolicyError> {
        match items {
            [] => Ok(()),
            [word, ..] if word[0] == b'#' => Ok(()),
            [b"log", vkey] | [b"log", vkey, _] => {
                let vkey = self.key(line, vkey, Algorithm::Ed25519)?;
                self.logs.push(vkey);
                bounded(line, self.logs.len())
            }
            [b"witness", name, vkey] | [b"witness", name, vkey, _] => {
                self.define(line, name, Member::Witness(self.witnesses.len()))?;
                let vkey = self.key(line, vkey, Algorithm::CosignatureV1)?;
                let name = name.to_vec();
                self.witnesses.push(PolicyWitness { name, vkey });
                bounded(line, self.witnesses.len())
            }
            [b"group", name, needed, members @ ..] if !members.is_empty() => {
                self.group(line, name, needed, members)
            }
            [b"quorum", name] => {
                if self.quorum.is_some() {
                    return Err(PolicyError::SecondQuorum { line });
                }
                self.quorum = Some(match *name {
                    NONE => None,
                    name => Some(self.defined(line, name)?.0),
                });
                Ok(())
            }
            _ => Err(PolicyError::Form { line }),
        }
    }

    fn group(
        &mut self,
        line: usize,
        name: &[u8],
        needed: &[u8],
        members: &[&[u8]],
    ) -> Result<(), PolicyError> {
        let count = members.len();
        let needed = match needed {
            b"all" => Some(count),
            b"any" => Some(1),
            number => std::str::from_utf8(number)
                .ok()
                .and_then(parse_decimal)
                .and_then(|number| usize::try_from(number).ok())
                .filter(|number| (1..=count).contains(number)),
        };
        let wrong = PolicyError::Threshold {
            line,
            members: count,
        };
        let needed = needed.ok_or(wrong)?;
        let mut taken = Vec::with_capacity(count.min(2 * POLICY_MEMBERS_MAX));
        for name in members {
            let (member, is_member) = self.defined(line, name)?;
            if *is_member {
                let name = shown(name);
                return Err(PolicyError::MemberTwice { line, name });
            }
            *is_member = true;
            taken.push(*member);
        }
        // After its members: it is none of its own.
        self.define(line, name, Member::Group(self.groups.len()))?;
        self.groups.push(Group {
            needed,
            members: taken,
        });
        bounded(line, self.groups.len())
    }

    fn define(&mut self, line: usize, name: &[u8], member: Member) -> Result<(), PolicyError> {
        if name.len() > POLICY_NAME_BYTES_MAX {
            return Err(PolicyError::Name { line });
        }
        if name == NONE || self.names.contains_key(name) {
            let name = shown(name);
            return Err(PolicyError::DuplicateName { line, name });
        }
        self.names.insert(name.to_vec(), (member, false));
        Ok(())
    }

    fn defined(&mut self, line: usize, name: &[u8]) -> Result<&mut (Member, bool), PolicyError> {
        let unknown = || PolicyError::UnknownName {
            line,
            name: shown(name),
        };
        self.names.get_mut(name).ok_or_else(unknown)
    }

    fn key(&mut self, line: usize, vkey: &[u8], algorithm: Algorithm) -> Result<Vkey, PolicyError> {
        let text = std::str::from_utf8(vkey).map_err(|_| VkeyError::Form);
        let vkey = text
            .and_then(Vkey::parse)
            .map_err(|source| PolicyError::Vkey { line, source })?;
        if vkey.algorithm() != algorithm {
            let algorithm = vkey.algorithm() as u8;
            return Err(PolicyError::VkeyKind { line, algorithm });
        }
        let key = (algorithm, *vkey.key().as_bytes());
        if let Some(&first) = self.keys.get(&key) {
            return Err(PolicyError::DuplicateKey { line, first });
        }
        self.keys.insert(key, line);
        Ok(vkey)
    }
}

fn bounded(line: usize, count: usize) -> Result<(), PolicyError> {
    if count > POLICY_MEMBERS_MAX {
        return Err(PolicyError::Members { line });
    }
    Ok(())
}

/// A name for people.
fn shown(name: &[u8]) -> String {
    let name = &name[..name.len().min(POLICY_NAME_BYTES_MAX)];
    String::from_utf8_lossy(name).into_owned()
}
