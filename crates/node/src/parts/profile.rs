//! Joining and reading without a node: one file holds key, agreement and cursor.

mod errors;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_client::join::Terms;
use countersign_client::profile::{Profile, Subscription};
use countersign_client::subscriber::{DeliveredEvent, EventBatch, Start, SubscribeError};
use countersign_client::{Clock, Subscriber, SubscriberOptions};
use countersign_crypto::OsEntropy;
use countersign_event::content::ContentError;
use countersign_event::control::AuthorRule;
use countersign_event::documents::Party;
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_exchange::Clock as _;
use countersign_protocol::invitation::Invitation;
use countersign_tlog::policy::{POLICY_BYTES_MAX, Policy};
use serde_json::{Value, json};

use self::errors::{of_profile, of_subscription};
use super::verify::read_bounded;
use crate::admin::StartAt;
use crate::cli::{
    Assurance, Column, CommandResult, Exit, JoinArgs, Output, Shape, SubscribeArgs, View,
};
use crate::clock::SystemClock;
use crate::commands::{gap_line, gap_note};
use crate::errors::{CommandError, ErrorCode};
use crate::event_line::{EventPlace, event_line, sealed_line};

/// `partner join LINK --profile FILE`: makes the file where there is none, shows the terms, asks, and stores the agreement under both signatures.
/// The same link with the same file is safe at any time.
///
/// # Errors
/// [`ErrorCode::LinkInvalid`], [`ErrorCode::InvitationExpired`], [`ErrorCode::ConfirmationNeeded`], [`ErrorCode::Interrupted`] where the person said
/// no; the inviter's refusal; what the file or the network reports.
pub(crate) async fn join_profile(args: &JoinArgs, output: &mut Output) -> CommandResult {
    let path = profile_path(args.profile.as_deref())?;
    let invitation: Invitation = args
        .link
        .parse()
        .map_err(|error| CommandError::new(ErrorCode::LinkInvalid, error))?;
    let clock = clock();
    // Before the file is made: an old link leaves nothing behind.
    if clock().0 / 1_000_000 >= invitation.expires {
        let message = "the invitation is over; ask for a new one";
        return Err(CommandError::new(ErrorCode::InvitationExpired, message));
    }
    let profile = open_or_create(path, args.org.as_deref(), clock(), output)?;
    let ours = profile.party();

    let mut asked: Result<(), CommandError> = Ok(());
    let joined = profile.join(&invitation, clock, |terms| {
        output.note(&View::FIELDS.render(&shown_terms(terms, &ours)));
        if args.yes {
            return true;
        }
        asked = match output
            .confirm("Compare the fingerprints. Accept these terms and sign the agreement?")
        {
            Ok(true) => return true,
            Ok(false) => Err(CommandError::new(
                ErrorCode::Interrupted,
                "not accepted; nothing was signed",
            )),
            Err(error) => Err(error),
        };
        false
    });
    let joined = joined.await;
    // That the terms were declined is known here better than there.
    asked?;
    let joined = joined.map_err(of_profile)?;
    output.value(&View::FIELDS, &shown_joined(&joined, &ours, path))?;
    Ok(Exit::Ok)
}

/// `subscribe [ORG/STREAM|ORIGIN] --profile FILE`: prints verified events, each acknowledged once it has been written to stdout.
///
/// # Errors
/// [`ErrorCode::VerificationFailed`] where the producer sent what is not its signed log (the bytes are kept beside the profile),
/// [`ErrorCode::NotFound`] where the profile holds no such subscription, [`ErrorCode::Interrupted`] on Ctrl-C; the producer's refusal; what the file
/// or the network reports.
pub(crate) async fn subscribe_profile(args: &SubscribeArgs, output: &mut Output) -> CommandResult {
    let path = profile_path(args.profile.as_deref())?;
    if !path.exists() {
        let message = format!("there is no profile `{}`", path.display());
        return Err(CommandError::new(ErrorCode::NotFound, message)
            .advise("`countersign partner join LINK --profile FILE` makes one"));
    }
    if args.count == Some(0) {
        return Ok(Exit::Ok);
    }
    let profile = Profile::open(path).map_err(of_profile)?;
    let stream = find(&profile.list(), &args.stream)?;
    let entropy =
        OsEntropy::new().map_err(|error| CommandError::new(ErrorCode::Internal, error))?;
    let options = profile
        .subscriber(&stream, clock(), Box::new(entropy))
        .map_err(of_profile)?;
    let typed = (args.filter.as_deref(), args.filter_json.as_deref());
    let filter = crate::cli::filter::read(typed, output)?;
    let options = SubscriberOptions {
        start: start(args.from),
        follow: args.follow,
        filter,
        witnessed: witnesses(args, &stream)?,
        ..options
    };
    let failed = |error: SubscribeError| {
        let kept = keep_evidence(path, &error);
        of_subscription(error, kept)
    };
    let mut subscriber = Subscriber::subscribe(options).await.map_err(failed)?;
    // Ctrl-C ends the reading, not the last receipt.
    let read = tokio::select! {
        read = read(&mut subscriber, args.count, output) => read,
        _ = tokio::signal::ctrl_c() => Err(ReadEnd::Command(CommandError::new(ErrorCode::Interrupted, "interrupted"))),
    };
    let closed = subscriber.close().await;
    match read {
        Ok(()) => closed.map_err(failed)?,
        Err(ReadEnd::Command(error)) => return Err(error),
        Err(ReadEnd::Subscription(error)) => return Err(failed(error)),
    }
    Ok(Exit::Ok)
}

fn profile_path(path: Option<&Path>) -> Result<&Path, CommandError> {
    path.ok_or_else(|| CommandError::new(ErrorCode::Usage, "`--profile FILE` is missing"))
}

fn clock() -> Clock {
    let clock = SystemClock::new();
    Arc::new(move || clock.now())
}

// Joining.

fn open_or_create(
    path: &Path,
    org: Option<&str>,
    now: Timestamp,
    output: &mut Output,
) -> Result<Profile, CommandError> {
    if path.exists() {
        let profile = Profile::open(path).map_err(of_profile)?;
        let name = &profile.statement().name;
        if org.is_some_and(|org| org != name) {
            let message = format!("`{}` is the profile of `{name}`", path.display());
            return Err(CommandError::new(ErrorCode::Usage, message)
                .advise("leave out `--org`, or choose another file"));
        }
        return Ok(profile);
    }
    // A name for people; who it is, the key says.
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let name = org.or(stem).unwrap_or("reader");
    let mut entropy =
        OsEntropy::new().map_err(|error| CommandError::new(ErrorCode::Internal, error))?;
    let profile = Profile::create(path, name, now, &mut entropy).map_err(of_profile)?;
    output.note(&format!(
        "Made keys for {name} in {}; whoever has this file is {name}",
        path.display()
    ));
    Ok(profile)
}

fn shown_party(party: &Party) -> Value {
    json!({
        "name": party.name,
        "authority": party.authority.to_string(),
        "fingerprint": party.organization.fingerprint().to_string(),
    })
}

fn shown_terms(terms: &Terms, ours: &Party) -> Value {
    let Terms {
        offer, agreement, ..
    } = terms;
    json!({
        "inviter": shown_party(&offer.organization),
        "you": shown_party(ours),
        "stream": agreement.stream.to_string(),
        "title": offer.title,
        "way": "the inviter publishes, you read",
        "plan": agreement.plan.name,
        "exposure_events": agreement.plan.exposure_events,
        "from": agreement.from.to_rfc3339(),
        "until": agreement.until.map_or_else(|| "it is ended".to_owned(), Timestamp::to_rfc3339),
        "confirmed_by_a_person": offer.confirm,
        "agreement": agreement.id.to_string(),
    })
}

fn shown_joined(joined: &Subscription, ours: &Party, path: &Path) -> Value {
    let agreement = &joined.agreement;
    json!({
        "agreement": agreement.id.to_string(),
        "stream": agreement.stream.to_string(),
        "producer": shown_party(&agreement.producer),
        "consumer": shown_party(ours),
        "profile": path.display().to_string(),
        "next": format!("countersign subscribe {} --profile {} --follow", agreement.stream, path.display()),
    })
}

// Reading.

/// The subscription meant: by origin, by `ORG/STREAM` (the producer's name or authority), by the stream's name alone where only one has it.
fn find(subscriptions: &[Subscription], wanted: &str) -> Result<Origin, CommandError> {
    let is_meant = |one: &&Subscription| {
        let agreement = &one.agreement;
        if agreement.stream.as_str() == wanted || wanted.is_empty() {
            return true;
        }
        let stream = agreement.stream.stream();
        let name = stream.as_ref().map_or("", |stream| stream.as_str());
        match wanted.rsplit_once('/') {
            None => name == wanted,
            Some((org, stream)) => {
                let producer = &agreement.producer;
                let is_producer =
                    producer.name.eq_ignore_ascii_case(org) || producer.authority.as_str() == org;
                is_producer && name == stream
            }
        }
    };
    let mut found: Vec<&Origin> = subscriptions
        .iter()
        .filter(is_meant)
        .map(|one| &one.agreement.stream)
        .collect();
    // Joined twice, it is still one log.
    found.sort_unstable_by_key(|origin| origin.as_str());
    found.dedup();
    let list = |origins: &[&Origin]| {
        let texts: Vec<&str> = origins.iter().map(|origin| origin.as_str()).collect();
        texts.join(", ")
    };
    match found.as_slice() {
        [origin] => Ok((*origin).clone()),
        [] => {
            let held: Vec<&Origin> = subscriptions
                .iter()
                .map(|one| &one.agreement.stream)
                .collect();
            let message = format!("the profile holds no agreement for `{wanted}`");
            let advice = if held.is_empty() {
                "join by an invitation first: `countersign partner join LINK --profile FILE`"
                    .to_owned()
            } else {
                format!("it holds {}", list(&held))
            };
            Err(CommandError::new(ErrorCode::NotFound, message).advise(advice))
        }
        several => {
            let message = format!("`{wanted}` may be any of {}", list(several));
            Err(CommandError::new(ErrorCode::Usage, message).advise("give the whole origin"))
        }
    }
}

fn start(from: Option<StartAt>) -> Start {
    match from {
        None => Start::Resume,
        Some(StartAt::Now) => Start::Now,
        Some(StartAt::Sequence(sequence)) => Start::Sequence(sequence),
        Some(StartAt::Start) => Start::Sequence(0),
        Some(StartAt::Time(micros)) => Start::Time(Timestamp(micros)),
    }
}

/// Whose cosignatures an event needs before it is shown; nobody's, where only the log's own signature is asked for.
fn witnesses(args: &SubscribeArgs, stream: &Origin) -> Result<Option<Policy>, CommandError> {
    let usage = |message: String| {
        CommandError::new(ErrorCode::Usage, message).advise(
            "`--assurance witnessed --trust FILE` takes a witness policy (C2SP tlog-policy); get the witnesses' keys from them, not from the producer",
        )
    };
    let path = match (args.assurance, &args.trust) {
        (Assurance::Integrated, None) => return Ok(None),
        (Assurance::Integrated, Some(_)) => {
            return Err(usage(
                "`--trust` says whose cosignatures count, and none were asked for".to_owned(),
            ));
        }
        (Assurance::Witnessed, None) => {
            return Err(usage(
                "a reader without a node has to say whose cosignatures count".to_owned(),
            ));
        }
        (Assurance::Witnessed, Some(path)) => path,
    };
    let shown = path.display();
    let bytes = read_bounded(path, POLICY_BYTES_MAX as u64)
        .map_err(|error| usage(format!("`--trust {shown}`: {error}")))?;
    let policy =
        Policy::parse(&bytes).map_err(|error| usage(format!("`--trust {shown}`: {error}")))?;
    if !policy.asks_for_witnesses() {
        return Err(usage(format!(
            "`--trust {shown}`: the policy asks for no witness"
        )));
    }
    let logs = policy.logs();
    if !logs.is_empty() && !logs.iter().any(|log| log.name() == stream.as_str()) {
        return Err(usage(format!(
            "`--trust {shown}`: the policy lists logs, and `{stream}` is none of them"
        )));
    }
    Ok(Some(policy))
}

/// Why reading ended before its end.
enum ReadEnd {
    Command(CommandError),
    Subscription(SubscribeError),
}

async fn read(
    subscriber: &mut Subscriber,
    count: Option<u64>,
    output: &mut Output,
) -> Result<(), ReadEnd> {
    let mut left = count.unwrap_or(u64::MAX);
    let mut status = subscriber.status().clone();
    let mut is_watched = true;
    // A reader without a node keeps no log: it knows the author keys that the entries of this session name.
    let mut rules = Vec::new();
    let mut told = [String::new(), String::new()];
    loop {
        let batch = tokio::select! {
            batch = subscriber.next() => batch.map_err(ReadEnd::Subscription)?,
            changed = status.changed(), if is_watched => {
                is_watched = changed.is_ok();
                let (paused, unwitnessed) = {
                    let status = status.borrow_and_update();
                    (status.paused_because.clone(), status.unwitnessed_because.clone())
                };
                tell(&mut told[0], paused, "the producer waits", output);
                tell(&mut told[1], unwitnessed, "waiting for witnesses", output);
                continue;
            }
        };
        let Some(batch) = batch else {
            return Ok(());
        };
        rules.extend_from_slice(batch.verified().author_rules());
        left = print(subscriber, &batch, &rules, left, output)?;
        rules.drain(..rules.len().saturating_sub(1));
        if left == 0 {
            return Ok(());
        }
    }
}

/// Tells why nothing comes, once.
fn tell(told: &mut String, why: String, what: &str, output: &mut Output) {
    if *told != why {
        if !why.is_empty() {
            output.note(&format!("{what}: {why}"));
        }
        *told = why;
    }
}

/// Writes a batch to stdout and acknowledges it: in this order, so that a crash in between shows events twice and loses none.
fn print(
    subscriber: &Subscriber,
    batch: &EventBatch,
    rules: &[(u64, AuthorRule)],
    left: u64,
    output: &mut Output,
) -> Result<u64, ReadEnd> {
    let mut text = String::new();
    let mut left = left;
    let mut cursor = batch.cursor();
    for gap in batch.gaps() {
        // A reader without a node keeps no log: what allows it was, or will be, checked on the way, and is not looked up again.
        let line = gap_line(gap.first, gap.end, gap.by, "claimed");
        if output.is_json() {
            text.push_str(&line);
            text.push('\n');
        } else if let Some(note) = serde_json::from_str(&line).ok().as_ref().and_then(gap_note) {
            output.note(&note);
        }
    }
    for event in batch.events() {
        let line = json_line(&event, rules).map_err(ReadEnd::Command)?;
        if output.is_json() {
            text.push_str(&line);
            text.push('\n');
        } else {
            let item =
                serde_json::from_str(&line).map_err(|error| ReadEnd::Command(unreadable(error)))?;
            text.push_str(&EVENTS.line(&item));
        }
        left -= 1;
        if left == 0 {
            cursor = event.cursor();
            break;
        }
    }
    if !text.is_empty() {
        output.data(&text).map_err(ReadEnd::Command)?;
    }
    subscriber.ack(cursor).map_err(ReadEnd::Subscription)?;
    Ok(left)
}

fn json_line(
    event: &DeliveredEvent<'_>,
    rules: &[(u64, AuthorRule)],
) -> Result<String, CommandError> {
    let place = EventPlace {
        sequence: event.sequence,
        time: event.time,
        leaf: *event.leaf,
        control: false,
    };
    let holds = |(from, _): &&(u64, AuthorRule)| *from <= event.sequence;
    let rule = rules.iter().rev().find(holds).map(|(_, rule)| rule);
    let line = match event.event() {
        Ok(content) => event_line(&place, &content, rule),
        Err(ContentError::Encrypted) => {
            let why = "reading it takes a node of the organization, which has its encryption key";
            sealed_line(&place, event.attribute_bytes(), why)
        }
        Err(error) => return Err(unreadable(error)),
    };
    line.map_err(unreadable)
}

const EVENTS: View = View {
    shape: Shape::Table,
    columns: &[
        Column {
            key: "sequence",
            title: "sequence",
        },
        Column {
            key: "time",
            title: "time",
        },
        Column {
            key: "type",
            title: "type",
        },
        Column {
            key: "source",
            title: "source",
        },
        Column {
            key: "id",
            title: "id",
        },
        Column {
            key: "data",
            title: "data",
        },
    ],
};

/// The verifying reader has let it through: if it cannot be read now, the mistake is ours.
fn unreadable(error: impl std::fmt::Display) -> CommandError {
    CommandError::new(
        ErrorCode::Internal,
        format_args!("a verified event cannot be read: {error}"),
    )
}

/// Keeps the bytes that break the producer's word, in a file beside the profile.
fn keep_evidence(profile: &Path, error: &SubscribeError) -> Option<PathBuf> {
    let (SubscribeError::Fault { kind, frame, .. } | SubscribeError::Message { kind, frame, .. }) =
        error
    else {
        return None;
    };
    let mut path = profile.as_os_str().to_owned();
    path.push(format!(".evidence-{}-kind{kind}", clock()().0));
    let path = PathBuf::from(path);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(frame)?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Some(path),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the evidence cannot be kept");
            None
        }
    }
}
