use std::collections::{BTreeSet, HashMap, HashSet};

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use serde::{Deserialize, Serialize};

/// The longest text in a request, in bytes: an origin (253 + 9 + 64) fits three times. Enforced by `decide`, since a
/// purpose or a title comes from the other side.
pub(crate) const TEXT_BYTES_MAX: usize = 1024;
/// The most labels on a stream, or streams in an agreement. Enforced by `decide`.
pub(crate) const SET_ITEMS_MAX: usize = 1024;

/// What the principal wants to do with the stream.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Learn that the stream exists, and its terms.
    Discover,
    /// Append events.
    Publish,
    /// Receive events.
    Read,
    /// Ask for an agreement.
    Request,
}

impl Action {
    /// All actions that are decided today. The schema also names `relay`, `trace` and `witness`, reserved for later.
    pub const ALL: [Self; 4] = [Self::Discover, Self::Publish, Self::Read, Self::Request];

    /// The name in policies: `Action::"<name>"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Request => "request",
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An organization as a policy sees it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    /// Its authority (`schemas/names.md`); `Organization::"<authority>"` in policies.
    pub authority: String,
    /// The fingerprint of its organization key; empty where unknown.
    #[serde(default)]
    pub fingerprint: String,
    /// The name it has at this node; empty where it has none.
    #[serde(default)]
    pub name: String,
    /// True for the organization that runs this node.
    #[serde(default)]
    pub own: bool,
    /// True where it has an agreement with us or has redeemed an invitation.
    #[serde(default)]
    pub partner: bool,
    /// Where it is established, in the words of this node's operator, who recorded it; none where that was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// A node or an application of an organization.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The fingerprint of its own key; `Node::"<fingerprint>"` or `Application::"<fingerprint>"` in policies.
    pub fingerprint: String,
    /// Its name here; empty where it has none.
    #[serde(default)]
    pub name: String,
    /// The organization it belongs to.
    pub organization: Organization,
}

/// Who asks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Principal {
    /// An enrolled application.
    Application(Member),
    /// A node.
    Node(Member),
    /// The organization itself.
    Organization(Organization),
}

impl Principal {
    /// The organization that answers for this principal.
    #[must_use]
    pub fn organization(&self) -> &Organization {
        match self {
            Self::Application(member) | Self::Node(member) => &member.organization,
            Self::Organization(organization) => organization,
        }
    }
}

/// The stream asked for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Free words that its owner put on it; at most 1,024.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// Its name, the last part of the origin.
    pub name: String,
    /// Its origin; `Stream::"<origin>"` in policies.
    pub origin: String,
    /// The authority of the organization whose stream it is.
    pub owner: String,
    /// Its title, where it has one.
    #[serde(default)]
    pub title: Option<String>,
}

/// The agreement under which the request is made, as the caller has verified it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// Whether it holds at the time of the request: computed by the caller from the documents it has and from log time.
    pub active: bool,
    /// Its identifier.
    pub id: String,
    /// The plan agreed on.
    #[serde(default)]
    pub plan: String,
    /// The plan's digest, in hexadecimal; empty where it is not known.
    #[serde(default)]
    pub plan_digest: String,
    /// The origins of the streams that it covers; at most 1,024.
    #[serde(default)]
    pub streams: BTreeSet<String>,
}

/// What proved who asks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    /// The key of an enrolled application, by TLS.
    ApplicationKey,
    /// The right to open this node's own socket.
    Local,
    /// The key of a node that its organization's key statement delegates, by TLS.
    NodeKey,
    /// A token, which whoever holds it can show.
    Token,
}

impl Credential {
    /// The word in policies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ApplicationKey => "application-key",
            Self::Local => "local",
            Self::NodeKey => "node-key",
            Self::Token => "token",
        }
    }
}

/// The circumstances of a request.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The agreement under which the request is made, where there is one.
    #[serde(default)]
    pub agreement: Option<Agreement>,
    /// What proved who asks; none where nobody asks, as in a made-up request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// The time of the request: microseconds since 1970-01-01T00:00:00Z, as in a log entry. Policies see milliseconds.
    pub now_us: u64,
    /// The plan asked for, where a plan is asked for.
    #[serde(default)]
    pub plan: Option<String>,
    /// What the principal says it wants the data for.
    #[serde(default)]
    pub purpose: Option<String>,
}

/// One question to the policies.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Who asks.
    pub principal: Principal,
    /// What for.
    pub action: Action,
    /// The stream asked for.
    pub resource: Stream,
    /// The circumstances.
    pub context: Context,
}

/// Why a request could not be put to the policies. It is a denial.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the request's `{field}` has {bytes} bytes; at most {TEXT_BYTES_MAX} are taken")]
    TextTooLong { field: &'static str, bytes: usize },
    #[error("the request's `{field}` has {items} items; at most {SET_ITEMS_MAX} are taken")]
    TooManyItems { field: &'static str, items: usize },
    #[error("the request's time, {now_us} microseconds since 1970, is after the year 9999")]
    TimeOutOfRange { now_us: u64 },
    #[error("the request does not fit the schema: {detail}")]
    Schema { detail: String },
}

impl RequestError {
    pub(crate) fn schema(error: &impl std::fmt::Display) -> Self {
        Self::Schema {
            detail: error.to_string(),
        }
    }
}

/// The names of the schema, parsed once.
#[derive(Clone, Debug)]
pub(crate) struct Types {
    application: EntityTypeName,
    node: EntityTypeName,
    organization: EntityTypeName,
    stream: EntityTypeName,
    discover: EntityUid,
    publish: EntityUid,
    read: EntityUid,
    request: EntityUid,
}

impl Types {
    pub(crate) fn of_schema() -> Self {
        let action_type = entity_type("Action");
        Self {
            application: entity_type("Application"),
            node: entity_type("Node"),
            organization: entity_type("Organization"),
            stream: entity_type("Stream"),
            discover: uid(&action_type, Action::Discover.name()),
            publish: uid(&action_type, Action::Publish.name()),
            read: uid(&action_type, Action::Read.name()),
            request: uid(&action_type, Action::Request.name()),
        }
    }

    pub(crate) fn action(&self, action: Action) -> &EntityUid {
        match action {
            Action::Discover => &self.discover,
            Action::Publish => &self.publish,
            Action::Read => &self.read,
            Action::Request => &self.request,
        }
    }
}

/// A request in Cedar's terms.
pub(crate) struct CedarRequest {
    pub(crate) entities: Vec<Entity>,
    pub(crate) principal: EntityUid,
    /// The organization that the principal is or belongs to.
    pub(crate) principal_organization: EntityUid,
    pub(crate) resource: EntityUid,
    /// The organization whose stream it is.
    pub(crate) resource_organization: EntityUid,
    pub(crate) context: Vec<(String, RestrictedExpression)>,
}

impl Request {
    pub(crate) fn to_cedar(&self, types: &Types) -> Result<CedarRequest, RequestError> {
        self.check_sizes()?;
        let organization = self.principal.organization();
        let principal_organization = uid(&types.organization, &organization.authority);
        let mut entities = vec![party(
            principal_organization.clone(),
            organization,
            &organization.name,
            &organization.fingerprint,
            HashSet::new(),
        )?];
        let principal = match &self.principal {
            Principal::Organization(_) => principal_organization.clone(),
            Principal::Application(member) => uid(&types.application, &member.fingerprint),
            Principal::Node(member) => uid(&types.node, &member.fingerprint),
        };
        if let Principal::Application(member) | Principal::Node(member) = &self.principal {
            entities.push(party(
                principal.clone(),
                organization,
                &member.name,
                &member.fingerprint,
                HashSet::from([principal_organization.clone()]),
            )?);
        }
        let resource = uid(&types.stream, &self.resource.origin);
        let resource_organization = uid(&types.organization, &self.resource.owner);
        entities.push(stream(
            resource.clone(),
            &self.resource,
            resource_organization.clone(),
        )?);
        Ok(CedarRequest {
            entities,
            principal,
            principal_organization,
            resource,
            resource_organization,
            context: self.context.to_cedar()?,
        })
    }

    fn check_sizes(&self) -> Result<(), RequestError> {
        let organization = self.principal.organization();
        let mut texts = vec![
            ("authority", &organization.authority),
            ("fingerprint", &organization.fingerprint),
            ("name", &organization.name),
            ("stream name", &self.resource.name),
            ("origin", &self.resource.origin),
            ("owner", &self.resource.owner),
        ];
        if let Principal::Application(member) | Principal::Node(member) = &self.principal {
            texts.push(("fingerprint", &member.fingerprint));
            texts.push(("name", &member.name));
        }
        texts.extend(organization.region.iter().map(|text| ("region", text)));
        texts.extend(self.resource.title.iter().map(|text| ("title", text)));
        texts.extend(self.context.plan.iter().map(|text| ("plan", text)));
        texts.extend(self.context.purpose.iter().map(|text| ("purpose", text)));
        check_items("labels", &self.resource.labels)?;
        texts.extend(self.resource.labels.iter().map(|text| ("label", text)));
        if let Some(agreement) = &self.context.agreement {
            check_items("agreement streams", &agreement.streams)?;
            texts.push(("agreement id", &agreement.id));
            texts.push(("agreement plan", &agreement.plan));
            texts.push(("agreement plan digest", &agreement.plan_digest));
            texts.extend(
                agreement
                    .streams
                    .iter()
                    .map(|text| ("agreement stream", text)),
            );
        }
        match texts.iter().find(|(_, text)| text.len() > TEXT_BYTES_MAX) {
            None => Ok(()),
            Some((field, text)) => Err(RequestError::TextTooLong {
                field,
                bytes: text.len(),
            }),
        }
    }
}

impl Context {
    /// The time as policies see it; empty where it is out of their range.
    pub(crate) fn now_text(&self) -> String {
        datetime_text(self.now_us).unwrap_or_default()
    }

    fn to_cedar(&self) -> Result<Vec<(String, RestrictedExpression)>, RequestError> {
        let mut pairs = vec![("now".to_owned(), datetime(self.now_us)?)];
        if let Some(credential) = self.credential {
            pairs.push(("credential".to_owned(), string(credential.name())));
        }
        if let Some(plan) = &self.plan {
            pairs.push(("plan".to_owned(), string(plan)));
        }
        if let Some(purpose) = &self.purpose {
            pairs.push(("purpose".to_owned(), string(purpose)));
        }
        if let Some(agreement) = &self.agreement {
            let record = RestrictedExpression::new_record([
                (
                    "active".to_owned(),
                    RestrictedExpression::new_bool(agreement.active),
                ),
                ("id".to_owned(), string(&agreement.id)),
                ("plan".to_owned(), string(&agreement.plan)),
                ("plan_digest".to_owned(), string(&agreement.plan_digest)),
                ("streams".to_owned(), set(&agreement.streams)),
            ])
            .map_err(|error| RequestError::schema(&error))?;
            pairs.push(("agreement".to_owned(), record));
        }
        Ok(pairs)
    }
}

fn check_items(field: &'static str, items: &BTreeSet<String>) -> Result<(), RequestError> {
    if items.len() > SET_ITEMS_MAX {
        return Err(RequestError::TooManyItems {
            field,
            items: items.len(),
        });
    }
    Ok(())
}

/// An entity of the schema's type `Party`.
fn party(
    uid: EntityUid,
    organization: &Organization,
    name: &str,
    fingerprint: &str,
    parents: HashSet<EntityUid>,
) -> Result<Entity, RequestError> {
    let mut attributes = HashMap::from([
        ("authority".to_owned(), string(&organization.authority)),
        ("fingerprint".to_owned(), string(fingerprint)),
        ("name".to_owned(), string(name)),
        (
            "own".to_owned(),
            RestrictedExpression::new_bool(organization.own),
        ),
        (
            "partner".to_owned(),
            RestrictedExpression::new_bool(organization.partner),
        ),
    ]);
    if let Some(region) = &organization.region {
        attributes.insert("region".to_owned(), string(region));
    }
    Entity::new(uid, attributes, parents).map_err(|error| RequestError::schema(&error))
}

fn stream(uid: EntityUid, stream: &Stream, owner: EntityUid) -> Result<Entity, RequestError> {
    let mut attributes = HashMap::from([
        ("labels".to_owned(), set(&stream.labels)),
        ("name".to_owned(), string(&stream.name)),
        ("origin".to_owned(), string(&stream.origin)),
        ("owner".to_owned(), string(&stream.owner)),
    ]);
    if let Some(title) = &stream.title {
        attributes.insert("title".to_owned(), string(title));
    }
    Entity::new(uid, attributes, HashSet::from([owner]))
        .map_err(|error| RequestError::schema(&error))
}

#[expect(clippy::expect_used, reason = "the names are plain identifiers")]
fn entity_type(name: &str) -> EntityTypeName {
    name.parse().expect("an identifier is an entity type")
}

fn uid(entity_type: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(entity_type.clone(), EntityId::new(id))
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn set(items: &BTreeSet<String>) -> RestrictedExpression {
    RestrictedExpression::new_set(items.iter().map(|item| string(item)))
}

fn datetime(now_us: u64) -> Result<RestrictedExpression, RequestError> {
    let text = datetime_text(now_us).ok_or(RequestError::TimeOutOfRange { now_us })?;
    Ok(RestrictedExpression::new_datetime(text))
}

/// Cedar's `datetime` has milliseconds and a year of four digits.
fn datetime_text(now_us: u64) -> Option<String> {
    let time = jiff::Timestamp::from_microsecond(i64::try_from(now_us).ok()?).ok()?;
    // `%.3f` truncates, so that the time which policies see is never later than the log's.
    Some(time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}
