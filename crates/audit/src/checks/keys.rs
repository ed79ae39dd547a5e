//! Whose keys these are: key statements, and what is trusted from outside.

use std::cmp::Ordering;

use countersign_crypto::PublicKey;
use countersign_event::documents::{
    Document, DocumentError, KeyRevocation, KeyStatement, Role, RoleKey,
};
use countersign_event::dsse::{Envelope, EnvelopeError};
use countersign_event::from_slice_of_objects;
use countersign_event::names::Authority;
use countersign_event::time::Timestamp;
use countersign_tlog::Vkey;

use super::files::{DocumentFile, Listed};
use super::revocations;
use crate::manifest::{KEYS, KEYS_FORMAT, KeysFile, MANIFEST_VERSION, Manifest};
use crate::report::{Check, Collector, Finding, Severity};
use crate::trust::Trust;

/// One organization: its key, those that the key has followed, and what they have stated.
pub(crate) struct Organization {
    pub(crate) authority: Authority,
    /// The newest organization key.
    pub(crate) key: PublicKey,
    // All its organization keys, the first one first.
    line: Vec<PublicKey>,
    /// Whether the key is trusted from outside.
    pub(crate) trusted: bool,
    // Ascending by number, at least one.
    statements: Vec<KeyStatement>,
    /// Keys that it took back, and since when: for other roles than `log` the end of their period.
    taken_back: Vec<(Role, PublicKey, Timestamp)>,
}

/// The organizations of a bundle and the keys of its logs.
pub(crate) struct Keys {
    organizations: Vec<Organization>,
    pub(crate) revocations: Vec<KeyRevocation>,
    /// In the order of the logs.
    pub(crate) vkeys: Vec<Option<Vkey>>,
}

/// What counts of a document's time.
#[derive(Clone, Copy)]
pub(crate) struct When {
    /// When the signer says that it was made.
    pub(crate) made: Timestamp,
    /// Whether the key must have begun by then. Not for agreements: the joiner may make its keys after the proposal.
    pub(crate) begun: bool,
    /// Log time of the last thing it covers: a key that had ended by then cannot have signed it.
    pub(crate) covers: Option<Timestamp>,
}

/// Reads keys and key statements.
pub(crate) fn check(
    manifest: &Manifest,
    listed: &Listed,
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Keys {
    let (organizations, statement_paths) = gather(&listed.documents, trust, found);
    let vkeys = read_vkeys(manifest, listed, &statement_paths, found);
    let keys = Keys::new(organizations, vkeys, &listed.documents, trust, found);
    keys.say(found);
    keys
}

/// Reads key statements where there is nothing else to tell whose keys these are.
pub(crate) fn of_statements(
    statements: &[DocumentFile],
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Keys {
    let (organizations, paths) = gather(statements, trust, found);
    let revoking =
        |document: &&DocumentFile| document.envelope.payload_type() == KeyRevocation::PAYLOAD_TYPE;
    if paths.len() + statements.iter().filter(revoking).count() < statements.len() {
        let what = "a line of it is a document of another kind".to_owned();
        fault(found, &statements[0].path, what);
    }
    let keys = Keys::new(organizations, Vec::new(), statements, trust, found);
    keys.say(found);
    keys
}

/// The organizations that key statements speak for, and the paths of the statements.
fn gather<'a>(
    documents: &'a [DocumentFile],
    trust: &Trust,
    found: &mut Collector<'_>,
) -> (Vec<Organization>, Vec<&'a str>) {
    let mut organizations: Vec<Organization> = Vec::new();
    let mut statement_paths = Vec::new();
    for document in documents {
        if document.envelope.payload_type() != KeyStatement::PAYLOAD_TYPE {
            continue;
        }
        statement_paths.push(document.path.as_str());
        match KeyStatement::verify(&document.envelope) {
            Ok(statement) => add(&mut organizations, statement, trust, Some(document), found),
            Err(error) => fault(found, &document.path, error.to_string()),
        }
    }
    for statement in trust.statements() {
        add(&mut organizations, statement.clone(), trust, None, found);
    }
    (organizations, statement_paths)
}
fn add(
    organizations: &mut Vec<Organization>,
    statement: KeyStatement,
    trust: &Trust,
    document: Option<&DocumentFile>,
    found: &mut Collector<'_>,
) {
    let line = statement.organization_keys();
    let trusted = line.iter().any(|key| trust.admits_organization(key));
    let known = organizations
        .iter_mut()
        .find(|organization| organization.authority == statement.authority);
    let Some(organization) = known else {
        organizations.push(Organization {
            authority: statement.authority.clone(),
            trusted,
            key: statement.organization,
            line,
            statements: vec![statement],
            taken_back: Vec::new(),
        });
        return;
    };
    // Of two statements the one with the higher number comes by a line that begins with the other's: a key that has given its place away states nothing more.
    let fits = |other: &KeyStatement| {
        let (other_line, number) = (other.organization_keys(), other.number);
        match number.cmp(&statement.number) {
            Ordering::Less => line.starts_with(&other_line),
            Ordering::Equal => line == other_line,
            Ordering::Greater => other_line.starts_with(&line),
        }
    };
    if !organization.statements.iter().all(fits) {
        if let Some(document) = document {
            let what = format!(
                "a second organization key claims the authority {}",
                statement.authority
            );
            fault(found, &document.path, what);
        }
        return;
    }
    organization.trusted |= trusted;
    if organization.line.len() < line.len() {
        organization.key = statement.organization;
        organization.line = line;
    }
    let same = organization
        .statements
        .iter()
        .find(|other| other.number == statement.number);
    match (same, document) {
        (None, _) => {
            organization.statements.push(statement);
            organization
                .statements
                .sort_by_key(|statement| statement.number);
        }
        (Some(other), Some(document)) if *other != statement => {
            let what = format!(
                "a second key statement of {} has the number {}: one of them is false",
                statement.authority, statement.number
            );
            fault(found, &document.path, what);
        }
        (Some(_), _) => {}
    }
}

fn read_vkeys(
    manifest: &Manifest,
    listed: &Listed,
    statement_paths: &[&str],
    found: &mut Collector<'_>,
) -> Vec<Option<Vkey>> {
    let none = || manifest.logs.iter().map(|_| None).collect();
    // Its absence has been reported.
    let Some(json) = &listed.keys else {
        return none();
    };
    let keys: KeysFile = match from_slice_of_objects(json) {
        Ok(keys) => keys,
        Err(error) => {
            let what = format!(
                "it is not well-formed (line {}, column {})",
                error.line(),
                error.column()
            );
            fault(found, KEYS, what);
            return none();
        }
    };
    if keys.format != KEYS_FORMAT || keys.version != MANIFEST_VERSION {
        fault(
            found,
            KEYS,
            "it is of another format or version than the bundle".to_owned(),
        );
    }
    if keys.statements != statement_paths {
        fault(
            found,
            KEYS,
            "the key statements that it names are not those that are here".to_owned(),
        );
    }
    if keys.vkeys.len() != manifest.logs.len() {
        fault(
            found,
            KEYS,
            format!(
                "it has {} keys for {} logs",
                keys.vkeys.len(),
                manifest.logs.len()
            ),
        );
        return none();
    }
    let mut vkeys = Vec::with_capacity(keys.vkeys.len());
    for (text, log) in keys.vkeys.iter().zip(&manifest.logs) {
        vkeys.push(match Vkey::parse(text) {
            Ok(vkey) if vkey.name() == log.origin.as_str() => Some(vkey),
            Ok(_) => {
                fault(
                    found,
                    KEYS,
                    format!("the key for {} has another name", log.origin),
                );
                None
            }
            Err(error) => {
                fault(found, KEYS, error.to_string());
                None
            }
        });
    }
    vkeys
}

fn fault(found: &mut Collector<'_>, path: &str, what: String) {
    found.push(Finding {
        check: Check::Keys,
        severity: Severity::False,
        log: None,
        sequence: None,
        file: Some(path.to_owned()),
        what,
    });
}

impl Keys {
    fn new(
        mut organizations: Vec<Organization>,
        vkeys: Vec<Option<Vkey>>,
        documents: &[DocumentFile],
        trust: &Trust,
        found: &mut Collector<'_>,
    ) -> Self {
        let revocations = revocations::gather(documents, &organizations, trust, found);
        for organization in &mut organizations {
            let own = revocations.iter();
            let own = own.filter(|revocation| revocation.authority == organization.authority);
            let taken_back =
                own.map(|revocation| (revocation.role, revocation.key, revocation.made));
            organization.taken_back = taken_back.collect();
        }
        Self {
            organizations,
            revocations,
            vkeys,
        }
    }

    fn say(&self, found: &mut Collector<'_>) {
        let names: Vec<String> = self
            .organizations
            .iter()
            .map(|organization| {
                let trusted = if organization.trusted {
                    "trusted by you"
                } else {
                    "not among those you trust"
                };
                format!(
                    "{} ({}), {trusted}",
                    organization.key.fingerprint(),
                    organization.name()
                )
            })
            .collect();
        if names.is_empty() {
            found.skipped(Check::Keys, "no key statement is here, only keys of logs");
        } else {
            found.done(Check::Keys, names.join("; "));
        }
    }

    /// The organization that speaks under an authority.
    pub(crate) fn of(&self, authority: &Authority) -> Option<&Organization> {
        self.organizations
            .iter()
            .find(|organization| organization.authority == *authority)
    }

    pub(crate) fn organizations(&self) -> &[Organization] {
        &self.organizations
    }
}

impl Organization {
    /// Whether the key is, or was, the organization key.
    pub(crate) fn knows(&self, key: &PublicKey) -> bool {
        self.line.contains(key)
    }

    /// The newest display name: a claim.
    pub(crate) fn name(&self) -> &str {
        self.statements
            .last()
            .map_or("", |statement| statement.name.as_str())
    }

    /// All keys that were ever stated for a role.
    pub(crate) fn keys_ever(&self, role: Role) -> impl Iterator<Item = &RoleKey> {
        self.statements
            .iter()
            .flat_map(move |statement| statement.keys_for(role))
    }

    /// The statement in force at a time, and those after it.
    pub(crate) fn statements_from(&self, time: Timestamp) -> impl Iterator<Item = &KeyStatement> {
        let then = self
            .statements
            .iter()
            .rposition(|statement| statement.made <= time);
        self.statements.iter().skip(then.unwrap_or(0))
    }

    /// The newest statement here.
    pub(crate) fn newest(&self) -> Option<&KeyStatement> {
        self.statements.last()
    }

    /// The keys for a role that were in force at a time: those of the newest statement made by then, else of the first.
    pub(crate) fn keys_at(&self, role: Role, time: Timestamp) -> impl Iterator<Item = &RoleKey> {
        self.statements
            .iter()
            .rev()
            .find(|statement| statement.made <= time)
            .or(self.statements.first())
            .into_iter()
            .flat_map(move |statement| statement.keys_for(role))
    }

    /// When a key was taken back, if it was.
    pub(crate) fn taken_back(&self, role: Role, key: &PublicKey) -> Option<Timestamp> {
        let of_key = self.taken_back.iter();
        let of_key = of_key.filter(|taken| taken.0 == role && taken.1 == *key);
        of_key.map(|taken| taken.2).min()
    }

    /// When the statements here let go of a log key: the end of its period in the last one that has it, or when the next one was made.
    pub(crate) fn let_go(&self, key: &PublicKey) -> Option<Timestamp> {
        let stated = |statement: &KeyStatement| {
            let mut keys = statement.keys_for(Role::Log);
            keys.find(|stated| stated.key == *key)
                .map(|stated| stated.until)
        };
        let last = self
            .statements
            .iter()
            .rposition(|one| stated(one).is_some())?;
        let until = stated(&self.statements[last]).flatten();
        let next = self.statements.get(last + 1).map(|next| next.made);
        until.into_iter().chain(next).min()
    }

    /// Opens a document that the organization must have signed with a key for `role`.
    pub(crate) fn open<D: Document>(
        &self,
        role: Role,
        envelope: &Envelope,
        when: When,
    ) -> Result<D, String> {
        let mut ended = false;
        for key in self.keys_at(role, when.made) {
            match D::open(envelope, &key.key) {
                Err(DocumentError::Envelope(EnvelopeError::NotSignedBy { .. })) => {}
                Err(error) => return Err(error.to_string()),
                Ok(document) => {
                    let taken_back = self.taken_back(role, &key.key);
                    let end = key.until.into_iter().chain(taken_back).min();
                    let over = |time: Timestamp| end.is_some_and(|end| end <= time);
                    if (when.begun && when.made < key.from)
                        || over(when.made)
                        || when.covers.is_some_and(over)
                    {
                        ended = true;
                        continue;
                    }
                    return Ok(document);
                }
            }
        }
        Err(if ended {
            format!(
                "the {role} key of {} that signed it was not in force then",
                self.authority
            )
        } else {
            format!(
                "no {role} key that {} had delegated signed it",
                self.authority
            )
        })
    }
}
