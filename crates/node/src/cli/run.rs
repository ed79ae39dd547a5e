use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap_complete::generate;
use countersign_audit::{EVENT_PROOF, GROWTH_PROOF};
use countersign_crypto::{OsEntropy, PublicKey, SigningKey};
use countersign_event::control::{AuthorRule, Retention};
use countersign_event::documents::{PLAN_BYTES_MAX, PLANS_MAX, Plans, StepKind};
use countersign_event::encryption::Encryption;
use countersign_event::jwe::JWK_BYTES_MAX;
use countersign_exchange::Clock as _;
use countersign_store::disk::{Disk as _, RealDisk, SyncSite};
use serde_json::Value;

use super::args::{
    AgreementVerb, AppVerb, Assurance, ConfigVerb, Doors, ErasureVerb, EvidenceVerb, FilterVerb,
    KeyVerb, LedgerVerb, Noun, PartnerVerb, PolicyVerb, ReceiptVerb, StreamVerb, WhoReads,
    WitnessVerb,
};
use super::parts::CommandResult;
use super::plan_args::PlanVerb;
use super::{Cli, Column, Exit, Global, JoinArgs, Output, Parts, Shape, SubscribeArgs, View};
use crate::admin::{Accept, Command, Node, PolicyQuestion, Reply, with_node};
use crate::clock::SystemClock;
use crate::commands::{gap_note, parse_plans, plan_value};
use crate::config::{Config, FlagValue, Loaded};
use crate::data_dir::{self, DataDir, Environment};
use crate::errors::{CommandError, ErrorCode};
use crate::init::{InitOptions, init};
use crate::key_protection::{protect, unprotect};
use crate::keys::{KeyFileError, read_key};

/// Carries out what was typed. Ctrl-C drops what is under way: logs are safe at every moment, and what was acknowledged stays.
pub(super) async fn run(
    cli: Cli,
    environment: &Environment,
    parts: &dyn Parts,
    output: &mut Output,
) -> CommandResult {
    // `serve` finishes its work when it is told to stop, a reader without a node keeps its last receipt: both listen for that themselves.
    let listens_itself = match &cli.command {
        Noun::Serve(_) => true,
        Noun::Subscribe(args) => args.profile.is_some(),
        _ => false,
    };
    if listens_itself {
        return dispatch(cli, environment, parts, output).await;
    }
    tokio::select! {
        result = dispatch(cli, environment, parts, output) => result,
        _ = tokio::signal::ctrl_c() => Err(CommandError::new(ErrorCode::Interrupted, "interrupted")),
    }
}

async fn dispatch(
    cli: Cli,
    environment: &Environment,
    parts: &dyn Parts,
    output: &mut Output,
) -> CommandResult {
    let global = &cli.global;
    let place = || Place {
        global,
        environment,
    };
    match cli.command {
        // Without a node.
        Noun::Bench(verb) => parts.bench(&verb, output).await,
        Noun::Completion(args) => {
            let mut script = Vec::new();
            generate(
                args.shell,
                &mut super::command(),
                "countersign",
                &mut script,
            );
            output.data(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Ok)
        }
        Noun::App(AppVerb::Key { file }) => {
            let key = app_key(None, Some(file.clone()))?;
            let fingerprint = PublicKey::from_base64(&key).map(|key| key.fingerprint());
            let fingerprint = fingerprint
                .map_err(|error| CommandError::new(ErrorCode::Internal, error))?
                .to_string();
            let file = file.display().to_string();
            let value = serde_json::json!({ "key": key, "fingerprint": fingerprint, "file": file });
            output.value(&View::FIELDS, &value)?;
            Ok(Exit::Ok)
        }
        Noun::Config(ConfigVerb::Explain { sample }) => explain(&place(), sample, output),
        Noun::Demo(args) => parts.demo(&args, output).await,
        Noun::Evidence(EvidenceVerb::Verify(args)) => parts.evidence_verify(&args, output).await,
        Noun::Key(verb @ (KeyVerb::Protect | KeyVerb::Unprotect)) => {
            let dir = place().open()?;
            let keys = place().settings(&dir, &[])?.config.keys;
            let _lock = dir.lock()?;
            let done = match verb {
                KeyVerb::Protect => protect(&dir, &keys)?,
                _ => unprotect(&dir, &keys)?,
            };
            output.value(&View::FIELDS, &to_value(&done)?)?;
            Ok(Exit::Ok)
        }
        Noun::Plan(PlanVerb::Check { file }) => {
            let plans = read_plans(&file)?;
            let values: Vec<Value> = plans
                .plans
                .iter()
                .map(|plan| plan_value(None, plan))
                .collect();
            output.value(&CHECKED_PLANS, &values.into())?;
            Ok(Exit::Ok)
        }
        Noun::Filter(FilterVerb::Check(args)) => super::filter::check(&args, output),
        Noun::Init(args) => {
            let mut flags = flags(&args.doors);
            if let Some(file) = &args.passphrase_file {
                flags.push(FlagValue {
                    flag: "--passphrase-file",
                    key: "keys.passphrase_file",
                    value: absolute(file)?,
                });
            }
            let settings = Config::load(None, environment, &flags)?;
            let options = InitOptions {
                name: args.org,
                domain: args.domain,
                config: settings.config,
                data: place().path()?,
            };
            report_init(&options, output)
        }
        Noun::Partner(PartnerVerb::Join(args)) if args.profile.is_some() => {
            parts.join_profile(&args, output).await
        }
        Noun::Subscribe(args) if args.profile.is_some() => {
            parts.subscribe_profile(&args, output).await
        }
        // The node itself.
        Noun::Serve(args) => {
            let dir = place().open()?;
            let settings = place().settings(&dir, &flags(&args.doors))?;
            parts.serve(&dir, &settings, output).await
        }
        // Conversations with a node.
        Noun::Partner(PartnerVerb::Join(args)) => {
            let dir = place().open()?;
            with_node(&dir, parts, async |node| join(&args, node, output).await).await
        }
        Noun::Publish(args) => {
            let dir = place().open()?;
            with_node(&dir, parts, async |node| {
                parts.publish(&args, node, output).await
            })
            .await
        }
        Noun::Subscribe(args) => {
            let dir = place().open()?;
            with_node(&dir, parts, async |node| {
                subscribe(&args, node, output).await
            })
            .await
        }
        // One command, its answers shown.
        other => {
            if let Some(question) = question(&other)
                && !output.confirm(&question)?
            {
                return Err(CommandError::new(
                    ErrorCode::Interrupted,
                    "not confirmed; nothing was changed",
                ));
            }
            let (command, view) = request(other)?;
            let dir = place().open()?;
            with_node(&dir, parts, async |node| {
                show(&command, &view, node, output).await
            })
            .await
        }
    }
}

/// Which directory is meant.
struct Place<'a> {
    global: &'a Global,
    environment: &'a Environment,
}

impl Place<'_> {
    fn path(&self) -> Result<PathBuf, CommandError> {
        let here = std::env::current_dir().unwrap_or_default();
        Ok(data_dir::choose(
            self.global.data.as_deref(),
            self.environment,
            &here,
        )?)
    }

    fn open(&self) -> Result<DataDir, CommandError> {
        Ok(DataDir::open(&self.path()?)?)
    }

    fn settings(&self, dir: &DataDir, flags: &[FlagValue]) -> Result<Loaded, CommandError> {
        Ok(Config::load(
            Some(&dir.config_file()),
            self.environment,
            flags,
        )?)
    }
}

fn flags(doors: &Doors) -> Vec<FlagValue> {
    let given = |flag, key, value: &Option<String>| {
        value.clone().map(|value| FlagValue { flag, key, value })
    };
    let advertise = (!doors.advertise.is_empty()).then(|| doors.advertise.join(","));
    [
        given("--listen", "listen", &doors.listen),
        given("--http", "http", &doors.http),
        given("--advertise", "advertise", &advertise),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn report_init(options: &InitOptions, output: &mut Output) -> CommandResult {
    let report = init(options, SystemClock::new().now())?;
    let value = to_value(&report)?;
    if output.is_json() {
        output.value(&View::FIELDS, &value)?;
        return Ok(Exit::Ok);
    }
    output.note(&format!(
        "Made a node for {} in {}",
        report.organization,
        report.data.display()
    ));
    output.note("Fingerprint of the organization key, for partners to compare:");
    output.data(&format!("{}\n", report.fingerprint))?;
    output.note(
        "keys/organization.pem signs key statements only: move it to a safe place when you like.",
    );
    output.note("Next:");
    for command in &report.next {
        output.note(&format!("  {command}"));
    }
    Ok(Exit::Ok)
}

fn explain(place: &Place<'_>, sample: bool, output: &mut Output) -> CommandResult {
    if sample {
        output.data(&Config::default().to_file_text())?;
        return Ok(Exit::Ok);
    }
    let dir = place.open()?;
    let settings = place.settings(&dir, &[])?;
    output.value(&CONFIG, &to_value(&settings.explain())?)?;
    Ok(Exit::Ok)
}

async fn show(command: &Command, view: &View, node: &Node, output: &mut Output) -> CommandResult {
    let mut channel = node.channel().await?;
    channel.send(command).await?;
    while let Some(reply) = channel.next().await? {
        match reply {
            Reply::Item(item) => output.item(view, &item)?,
            Reply::Line(line) => show_line(&line, view, output)?,
            Reply::Progress { done, total, unit } => output.progress(done, total, &unit),
            Reply::Value(value) => output.value(view, &value)?,
            Reply::Done | Reply::Error { .. } => {}
        }
    }
    output.end_progress();
    Ok(Exit::Ok)
}

/// An event, or the note that stands for events without content: for programs both are lines, for people the note is none.
fn show_line(line: &str, view: &View, output: &mut Output) -> Result<(), CommandError> {
    if !output.is_json()
        && line.contains("\"gap\":{")
        && let Some(note) = serde_json::from_str(line).ok().as_ref().and_then(gap_note)
    {
        output.note(&note);
        return Ok(());
    }
    output.line(view, line)
}

async fn join(args: &JoinArgs, node: &Node, output: &mut Output) -> CommandResult {
    let mut channel = node.channel().await?;
    let link = args.link.clone();
    let terms = channel
        .call(&Command::PartnerTerms { link: link.clone() })
        .await?;
    let payload_sha256 = terms["payload_sha256"]
        .as_str()
        .ok_or_else(|| {
            CommandError::new(ErrorCode::Internal, "the terms came without their digest")
        })?
        .to_owned();
    if !args.yes {
        output.note(&View::FIELDS.render(&terms));
        if !output.confirm("Accept these terms and sign the agreement?")? {
            return Err(CommandError::new(
                ErrorCode::Interrupted,
                "not accepted; nothing was signed",
            ));
        }
    }
    let accept = Accept { payload_sha256 };
    let joined = channel.call(&Command::PartnerJoin { link, accept }).await?;
    output.value(&View::FIELDS, &joined)?;
    Ok(Exit::Ok)
}

/// Shows events, and keeps the application's cursor: an event counts as taken over once it has been written to stdout.
async fn subscribe(args: &SubscribeArgs, node: &Node, output: &mut Output) -> CommandResult {
    let typed = (args.filter.as_deref(), args.filter_json.as_deref());
    let filter = super::filter::read(typed, output)?;
    let mut channel = node.channel().await?;
    let mut cursor = match &args.name {
        Some(app) => Some((node.channel().await?, app.clone())),
        None => None,
    };
    let command = Command::Subscribe {
        stream: args.stream.clone(),
        from: args.from,
        count: args.count,
        follow: args.follow,
        app: args.name.clone(),
        filter: filter.map(|filter| filter.canonical().to_owned()),
        witnessed: args.assurance == Assurance::Witnessed,
    };
    channel.send(&command).await?;
    while let Some(reply) = channel.next().await? {
        let Reply::Line(line) = &reply else { continue };
        show_line(line, &EVENTS, output)?;
        let sequence = || reply.item().and_then(|item| item["sequence"].as_u64());
        if let Some((channel, app)) = &mut cursor
            && let Some(sequence) = sequence()
        {
            let applied = Command::CursorApplied {
                app: app.clone(),
                stream: args.stream.clone(),
                next: sequence.saturating_add(1),
            };
            channel.call(&applied).await?;
        }
    }
    Ok(Exit::Ok)
}

/// What has to be confirmed, unless `--yes` says so.
fn question(command: &Noun) -> Option<String> {
    match command {
        Noun::Agreement(AgreementVerb::Terminate {
            agreement,
            yes: false,
            ..
        }) => Some(format!("End agreement {agreement}?")),
        Noun::Key(KeyVerb::Revoke {
            key, yes: false, ..
        }) => Some(format!(
            "Revoke the key {key}? Nothing more is accepted under it, and that cannot be taken back."
        )),
        Noun::Partner(PartnerVerb::Revoke {
            partner,
            yes: false,
            ..
        }) => Some(format!(
            "End all agreements with {partner} and refuse it from now on?"
        )),
        Noun::Stream(StreamVerb::Erase {
            stream,
            sequence,
            yes: false,
            ..
        }) => Some(format!(
            "Erase the content of entry {sequence} of {stream}? It cannot be brought back."
        )),
        _ => None,
    }
}

/// The command behind what was typed, and how its answer is laid out.
fn request(typed: Noun) -> Result<(Command, View), CommandError> {
    Ok(match typed {
        Noun::Agreement(verb) => match verb {
            AgreementVerb::Info { agreement } => {
                (Command::AgreementInfo { agreement }, View::FIELDS)
            }
            AgreementVerb::Ls => (Command::AgreementLs, AGREEMENTS),
            verb => (agreement_request(verb)?, View::FIELDS),
        },
        Noun::App(verb) => match verb {
            AppVerb::Add { app, key, key_file } => {
                let key = app_key(key, key_file)?;
                (Command::AppAdd { app, key }, View::FIELDS)
            }
            AppVerb::Key { .. } => {
                let message = "`app key` is no question to a node";
                return Err(CommandError::new(ErrorCode::Internal, message));
            }
            AppVerb::Ls => (Command::AppLs, View::TABLE),
            AppVerb::Remove { app } => (Command::AppRemove { app }, View::FIELDS),
        },
        Noun::Doctor(args) => {
            let confirm_clock = args.confirm_clock;
            (Command::Doctor { confirm_clock }, View::FIELDS)
        }
        Noun::Erasure(verb) => erasure(verb),
        Noun::Evidence(EvidenceVerb::Export {
            stream,
            out,
            from,
            to,
        }) => {
            let out = absolute(&out)?;
            let command = Command::EvidenceExport {
                stream,
                from,
                to,
                out,
            };
            (command, View::FIELDS)
        }
        Noun::Evidence(EvidenceVerb::Timestamp {
            stream,
            size,
            out,
            attach,
        }) => (timestamp(stream, size, out, attach)?, View::FIELDS),
        Noun::Key(verb) => key(verb)?,
        Noun::Ledger(verb) => match verb {
            LedgerVerb::Ls {
                partner,
                stream,
                kind,
                since,
                until,
                limit,
            } => {
                let command = Command::LedgerLs {
                    partner,
                    stream,
                    kind,
                    since,
                    until,
                    limit,
                };
                (command, LEDGER)
            }
            LedgerVerb::Rebuild => (Command::LedgerRebuild, View::FIELDS),
            LedgerVerb::Verify => (Command::LedgerVerify, View::FIELDS),
        },
        Noun::Partner(verb) => partner(verb)?,
        Noun::Plan(PlanVerb::Set { stream, file }) => {
            let plans = read_plans(&file)?;
            (Command::PlanSet { stream, plans }, PLANS)
        }
        Noun::Plan(PlanVerb::Ls { stream }) => (Command::PlanLs { stream }, PLANS),
        Noun::Ping(args) => {
            let (partner, count) = (args.partner, args.count);
            (Command::Ping { partner, count }, View::TABLE)
        }
        Noun::Policy(verb) => match verb {
            PolicyVerb::Check => (Command::PolicyCheck, View::FIELDS),
            PolicyVerb::Explain {
                action,
                principal,
                stream,
                purpose,
                plan,
                region,
                credential,
                at,
            } => {
                let question = PolicyQuestion {
                    action,
                    principal,
                    stream,
                    purpose,
                    plan,
                    region,
                    credential,
                    at,
                };
                (Command::PolicyExplain { question }, View::FIELDS)
            }
            PolicyVerb::Test { files } => {
                let files = files
                    .iter()
                    .map(|file| absolute(file))
                    .collect::<Result<_, _>>()?;
                (Command::PolicyTest { files }, View::FIELDS)
            }
        },
        Noun::Receipt(ReceiptVerb::Ls {
            partner,
            stream,
            limit,
        }) => {
            let command = Command::ReceiptLs {
                partner,
                stream,
                limit,
            };
            (command, RECEIPTS)
        }
        Noun::Witness(WitnessVerb::Ls) => (Command::WitnessLs, WITNESSES),
        Noun::Witness(WitnessVerb::Compare { checkpoint }) => {
            let checkpoint = read_note(&checkpoint)?;
            (Command::WitnessCompare { checkpoint }, View::FIELDS)
        }
        Noun::Status => (Command::Status, View::FIELDS),
        Noun::Stream(verb) => match verb {
            StreamVerb::Access { stream, access } => {
                let open = access == "open";
                (Command::StreamAccess { stream, open }, View::FIELDS)
            }
            StreamVerb::Authors {
                stream,
                author_keys,
                require_author,
                none,
            } => {
                let set = author_rule(author_keys, require_author);
                let set = set.or_else(|| none.then(AuthorRule::default));
                (Command::StreamAuthors { stream, set }, View::FIELDS)
            }
            StreamVerb::Consistency {
                stream,
                old,
                new,
                out,
            } => {
                let newest = new.map_or_else(|| "newest".to_owned(), |new| new.to_string());
                let made = format!("{}-{old}-{newest}.{GROWTH_PROOF}", short(&stream));
                let out = absolute(&out.unwrap_or_else(|| made.into()))?;
                let command = Command::StreamConsistency {
                    stream,
                    old,
                    new,
                    out,
                };
                (command, View::FIELDS)
            }
            StreamVerb::Proof {
                stream,
                sequence,
                fields,
                format,
                timestamped,
                out,
            } => {
                let extension = proof_extension(format.as_deref(), out.as_deref())?;
                let made = format!("{}-{sequence}.{extension}", short(&stream));
                let out = absolute(&out.unwrap_or_else(|| made.into()))?;
                let command = Command::StreamProof {
                    stream,
                    sequence,
                    timestamped,
                    fields,
                    out,
                };
                (command, View::FIELDS)
            }
            StreamVerb::Jwe {
                stream,
                sequence,
                from,
                to,
                recipient,
            } => {
                let command = Command::StreamJwe {
                    stream,
                    from: sequence.or(from).unwrap_or_default(),
                    to: sequence.map(|sequence| sequence.saturating_add(1)).or(to),
                    recipient: read_text(&recipient, JWK_BYTES_MAX as u64, "a JSON Web Key")?,
                };
                (command, JWES)
            }
            StreamVerb::Provenance {
                stream,
                from,
                to,
                out,
            } => {
                let made = format!("{}.prov.json", short(&stream));
                let out = absolute(&out.unwrap_or_else(|| made.into()))?;
                let command = Command::StreamProvenance {
                    stream,
                    from,
                    to,
                    out,
                };
                (command, View::FIELDS)
            }
            StreamVerb::Create {
                stream,
                title,
                labels,
                commit,
                author_keys,
                require_author,
                cites,
                encryption,
                rotate_after,
                rotate_every,
            } => {
                let author = author_rule(author_keys, require_author);
                let command = Command::StreamCreate {
                    stream,
                    title,
                    labels,
                    fields: commit == "fields",
                    author,
                    cites,
                    encryption: match encryption {
                        WhoReads::None => Encryption::None,
                        WhoReads::Partners => Encryption::Partners,
                    },
                    epoch_entries: rotate_after,
                    epoch_seconds: rotate_every.unwrap_or(0),
                };
                (command, View::FIELDS)
            }
            StreamVerb::Rotate { stream } => (Command::StreamRotate { stream }, View::FIELDS),
            StreamVerb::Erase {
                stream,
                sequence,
                reason,
                ..
            } => {
                let command = Command::StreamErase {
                    stream,
                    sequence,
                    reason,
                };
                (command, View::FIELDS)
            }
            StreamVerb::Retention {
                stream,
                age,
                bytes,
                count,
                keep_all,
            } => {
                let wanted = Retention {
                    age_seconds: age,
                    bytes,
                    count,
                };
                let set = (keep_all || !wanted.keeps_all()).then_some(wanted);
                (Command::StreamRetention { stream, set }, View::FIELDS)
            }
            StreamVerb::Info { stream } => (Command::StreamInfo { stream }, View::FIELDS),
            StreamVerb::Ls { of: None } => (Command::StreamLs, STREAMS),
            StreamVerb::Ls { of: Some(partner) } => (Command::StreamsOf { partner }, OFFERED),
            StreamVerb::Tail {
                stream,
                count,
                follow,
            } => {
                let command = Command::StreamTail {
                    stream,
                    count,
                    follow,
                };
                (command, EVENTS)
            }
        },
        // Taken care of before.
        Noun::Bench(_)
        | Noun::Completion(_)
        | Noun::Config(_)
        | Noun::Demo(_)
        | Noun::Evidence(EvidenceVerb::Verify(_))
        | Noun::Filter(_)
        | Noun::Init(_)
        | Noun::Plan(PlanVerb::Check { .. })
        | Noun::Publish(_)
        | Noun::Serve(_)
        | Noun::Subscribe(_) => {
            let message = "this command has no request to a node";
            return Err(CommandError::new(ErrorCode::Internal, message));
        }
    })
}

fn key(verb: KeyVerb) -> Result<(Command, View), CommandError> {
    let path = |path: Option<PathBuf>| path.as_deref().map(absolute).transpose();
    Ok(match verb {
        KeyVerb::Ls => (Command::KeyLs, KEYS),
        KeyVerb::Protect | KeyVerb::Unprotect => {
            let message = "key files are put under a passphrase without a node";
            return Err(CommandError::new(ErrorCode::Internal, message));
        }
        KeyVerb::Revoke {
            key,
            reason,
            organization_key,
            ..
        } => {
            let command = Command::KeyRevoke {
                key,
                reason,
                organization_key: path(organization_key)?,
            };
            (command, View::FIELDS)
        }
        KeyVerb::Rotate {
            role,
            overlap,
            period,
            organization_key,
            out,
        } => {
            let command = Command::KeyRotate {
                role,
                overlap_s: overlap,
                period_s: period,
                organization_key: path(organization_key)?,
                out: path(out)?,
            };
            (command, View::FIELDS)
        }
    })
}

fn erasure(verb: ErasureVerb) -> (Command, View) {
    match verb {
        ErasureVerb::Approve { id, reason } => {
            (Command::ErasureApprove { id, reason }, View::FIELDS)
        }
        ErasureVerb::Hold { stream, reason } => {
            let held = true;
            let command = Command::ErasureHold {
                stream,
                held,
                reason,
            };
            (command, View::FIELDS)
        }
        ErasureVerb::Ls { stream } => (Command::ErasureLs { stream }, ERASURES),
        ErasureVerb::Refuse { id, reason } => (Command::ErasureRefuse { id, reason }, View::FIELDS),
        ErasureVerb::Release { stream } => {
            let command = Command::ErasureHold {
                stream,
                held: false,
                reason: String::new(),
            };
            (command, View::FIELDS)
        }
    }
}

fn partner(verb: PartnerVerb) -> Result<(Command, View), CommandError> {
    Ok(match verb {
        PartnerVerb::Confirm { invitation, key } => {
            (Command::PartnerConfirm { invitation, key }, View::FIELDS)
        }
        PartnerVerb::Info {
            partner,
            check_domain,
        } => (
            Command::PartnerInfo {
                partner,
                check_domain,
            },
            View::FIELDS,
        ),
        PartnerVerb::Invite {
            stream,
            consume,
            expires,
            period,
            for_key,
            confirm,
            plan,
            exposure,
            fields,
            erasure,
        } => {
            let command = Command::PartnerInvite {
                stream,
                consume,
                expires_s: expires,
                period_s: period,
                for_key,
                confirm,
                plan,
                exposure_events: exposure,
                fields,
                obey: erasure.map(|erasure| erasure == "obey"),
            };
            (command, View::FIELDS)
        }
        PartnerVerb::Join(_) => {
            let message = "this command is a conversation, not one request";
            return Err(CommandError::new(ErrorCode::Internal, message));
        }
        PartnerVerb::Ls => (Command::PartnerLs, PARTNERS),
        PartnerVerb::Token {
            partner,
            expires,
            withdraw,
        } => {
            let command = Command::PartnerToken {
                partner,
                expires_s: expires,
                withdraw,
            };
            (command, View::FIELDS)
        }
        PartnerVerb::Set {
            partner,
            region,
            no_region: _,
        } => (Command::PartnerSet { partner, region }, View::FIELDS),
        PartnerVerb::Revoke {
            partner, reason, ..
        } => (Command::PartnerRevoke { partner, reason }, View::FIELDS),
        PartnerVerb::Settle { partner, reason } => {
            (Command::PartnerSettle { partner, reason }, View::FIELDS)
        }
    })
}

/// The stream's own name, of `ORG/STREAM` or an origin: the beginning of a file's name.
fn short(stream: &str) -> &str {
    stream.rsplit('/').next().unwrap_or(stream)
}

/// Largest file read: an answer with its token, or a checkpoint's note.
const STAMPED_BYTES_MAX: u64 = 1_000_000;

/// `evidence timestamp`: asks, or takes the answer in.
fn timestamp(
    stream: String,
    size: Option<u64>,
    out: Option<PathBuf>,
    attach: Option<PathBuf>,
) -> Result<Command, CommandError> {
    let Some(answer) = attach else {
        let made = format!("{}.tsq", short(&stream));
        let out = absolute(&out.unwrap_or_else(|| made.into()))?;
        return Ok(Command::EvidenceTimestampQuery { stream, size, out });
    };
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path);
        let read = file.and_then(|file| file.take(STAMPED_BYTES_MAX).read_to_end(&mut bytes));
        let unread = |error: std::io::Error| {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorCode::NotFound,
                _ => ErrorCode::Io,
            };
            CommandError::new(code, format_args!("`{}`: {error}", path.display()))
                .advise("the answer and the checkpoint that it is about lie side by side, as `evidence timestamp` wrote it")
        };
        read.map(|_| bytes).map_err(unread)
    };
    let token = STANDARD.encode(read(&answer)?);
    let checkpoint = read(&answer.with_extension("checkpoint"))?;
    Ok(Command::EvidenceTimestampAttach {
        stream,
        checkpoint: String::from_utf8_lossy(&checkpoint).into_owned(),
        token,
    })
}

/// The extension of a proof of one event: that of the form asked for, else that of the file named. Only one of them is to be believed.
fn proof_extension<'a>(
    format: Option<&'a str>,
    out: Option<&'a Path>,
) -> Result<&'a str, CommandError> {
    let named = out.map(|out| out.extension().and_then(OsStr::to_str));
    match (format, named) {
        (Some(format), Some(named)) if named != Some(format) => {
            let message = format!(
                "a proof in the format `{format}` is written to a file that ends in `.{format}`"
            );
            Err(CommandError::new(ErrorCode::Usage, message))
        }
        (Some(format), _) => Ok(format),
        (None, named) => Ok(named.flatten().unwrap_or(EVENT_PROOF)),
    }
}

/// The largest file that is taken for a signed note.
const NOTE_FILE_MAX: u64 = 65_536;

/// The largest file of plans: as many as a stream may have, each as long as it may be, and as much again for white space and remarks.
const PLAN_FILE_MAX: u64 = 2 * (PLANS_MAX * PLAN_BYTES_MAX) as u64;

fn read_note(path: &Path) -> Result<String, CommandError> {
    read_text(path, NOTE_FILE_MAX, "a signed checkpoint")
}

fn read_plans(path: &Path) -> Result<Plans, CommandError> {
    let text = read_text(path, PLAN_FILE_MAX, "a file of plans")?;
    let is_json = path.extension() == Some(OsStr::new("json"));
    parse_plans(&text, is_json).map_err(|error| {
        let message = format!("`{}`: {}", path.display(), error.message);
        CommandError::new(error.code, message)
    })
}

/// What a file or standard input holds.
fn read_text(path: &Path, bytes_max: u64, what: &str) -> Result<String, CommandError> {
    let io = |error: std::io::Error| {
        CommandError::new(
            ErrorCode::Io,
            format_args!("cannot read `{}`: {error}", path.display()),
        )
    };
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .take(bytes_max + 1)
            .read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(io)?;
        file.take(bytes_max + 1).read_to_string(&mut text)
    };
    if read.map_err(io)? as u64 > bytes_max {
        let what = format!("`{}` is too large for {what}", path.display());
        return Err(CommandError::new(ErrorCode::Malformed, what));
    }
    Ok(text)
}

/// The node may run in another folder.
fn absolute(path: &Path) -> Result<String, CommandError> {
    let absolute = std::path::absolute(path).map_err(|error| {
        CommandError::new(
            ErrorCode::Usage,
            format_args!("`{}` is no path: {error}", path.display()),
        )
    })?;
    absolute.into_os_string().into_string().map_err(|path| {
        CommandError::new(
            ErrorCode::Usage,
            format_args!("`{}` is not UTF-8", path.display()),
        )
    })
}

/// The public key of an application: as given, from its key file, or of a key that is made there.
fn author_rule(keys: Vec<PublicKey>, required: bool) -> Option<AuthorRule> {
    (!keys.is_empty()).then_some(AuthorRule { keys, required })
}

fn app_key(key: Option<String>, file: Option<PathBuf>) -> Result<String, CommandError> {
    let Some(file) = file else {
        return Ok(key.unwrap_or_default());
    };
    let key = match read_key(&file) {
        Err(KeyFileError::Missing { .. }) => make_key(&file)?,
        other => other?,
    };
    Ok(key.public().to_base64())
}

fn make_key(file: &Path) -> Result<SigningKey, CommandError> {
    let mut entropy =
        OsEntropy::new().map_err(|error| CommandError::new(ErrorCode::Internal, error))?;
    let key = SigningKey::generate(&mut entropy);
    let pem = key
        .to_pem()
        .map_err(|error| CommandError::new(ErrorCode::Internal, error))?;
    RealDisk
        .create_new(file)
        .and_then(|made| {
            made.write_all_at(pem.as_bytes(), 0)?;
            made.sync_all(SyncSite::CreateRoot)
        })
        .map_err(|error| {
            let message = format!("cannot make `{}`: {error}", file.display());
            CommandError::new(ErrorCode::Io, message)
        })?;
    Ok(key)
}

/// The command behind a verb that changes an agreement.
fn agreement_request(verb: AgreementVerb) -> Result<Command, CommandError> {
    let step = |agreement, step, cause, reason| Command::AgreementStep {
        agreement,
        step,
        cause,
        reason,
    };
    Ok(match verb {
        AgreementVerb::Amend {
            agreement,
            plan,
            period,
            valid,
            wait,
        } => Command::AgreementAmend {
            agreement,
            plan,
            period_s: period,
            valid_s: valid,
            wait_s: wait,
        },
        AgreementVerb::Approve { agreement, wait } => Command::AgreementApprove {
            agreement,
            wait_s: wait,
        },
        AgreementVerb::Complete { agreement, reason } => {
            step(agreement, StepKind::Complete, None, reason)
        }
        AgreementVerb::Counter {
            agreement,
            plan,
            period,
            valid,
        } => Command::AgreementCounter {
            agreement,
            plan,
            period_s: period,
            valid_s: valid,
        },
        AgreementVerb::Info { .. } | AgreementVerb::Ls => {
            let message = "nothing of an agreement is changed by looking at it";
            return Err(CommandError::new(ErrorCode::Internal, message));
        }
        AgreementVerb::Refuse { agreement, reason } => {
            step(agreement, StepKind::Refuse, None, reason)
        }
        AgreementVerb::Request {
            stream,
            plan,
            period,
            purpose,
            valid,
            wait,
        } => Command::AgreementRequest {
            stream,
            plan,
            period_s: period,
            purpose,
            valid_s: valid,
            wait_s: wait,
        },
        AgreementVerb::Resume { agreement, reason } => {
            step(agreement, StepKind::Resume, None, reason)
        }
        AgreementVerb::Suspend {
            agreement,
            reason,
            text,
        } => step(agreement, StepKind::Suspend, Some(reason), text),
        AgreementVerb::Terminate {
            agreement, reason, ..
        } => Command::AgreementTerminate { agreement, reason },
        AgreementVerb::Withdraw { agreement, reason } => {
            step(agreement, StepKind::Withdraw, None, reason)
        }
    })
}

fn to_value(value: &impl serde::Serialize) -> Result<Value, CommandError> {
    serde_json::to_value(value).map_err(|error| CommandError::new(ErrorCode::Internal, error))
}

/// A list of which these members are shown, under headings made of their names.
macro_rules! table {
    ($($key:literal $title:literal),+ $(,)?) => {
        View { shape: Shape::Table, columns: &[$(Column { key: $key, title: $title }),+] }
    };
}

const AGREEMENTS: View = table!["id" "id", "partner" "partner", "direction" "way", "stream" "stream", "state" "state", "cause" "cause", "until" "until", "next" "you can"];
const CONFIG: View = table!["key" "setting", "value" "value", "unit" "unit", "from" "from"];
const ERASURES: View = table!["id" "id", "way" "way", "partner" "partner", "stream" "stream", "sequence" "sequence", "state" "state", "answer" "answer"];
const EVENTS: View = table!["sequence" "sequence", "time" "time", "type" "type", "source" "source", "id" "id", "data" "data"];
const JWES: View = table!["jwe" "jwe"];
const KEYS: View = table!["role" "role", "key" "key", "from" "from", "until" "until", "state" "state", "file" "file"];
const LEDGER: View =
    table!["time" "time", "kind" "kind", "partner" "partner", "stream" "stream", "summary" "what"];
const OFFERED: View =
    table!["stream" "stream", "title" "title", "plans" "plans", "encrypted" "encrypted"];
const PARTNERS: View = table!["name" "name", "title" "organization", "authority" "authority", "state" "state", "fingerprint" "fingerprint"];
const CHECKED_PLANS: View = table!["plan" "plan", "rate" "rate", "quota" "quota", "history" "history", "exposure_events" "exposure", "erasure" "erasure", "digest" "digest"];
const PLANS: View = table!["stream" "stream", "plan" "plan", "rate" "rate", "quota" "quota", "history" "history", "exposure_events" "exposure", "erasure" "erasure", "digest" "digest"];
const RECEIPTS: View = table!["time" "time", "partner" "partner", "stream" "stream", "number" "number", "size" "size", "events" "events", "data_bytes" "data", "level" "level"];
const WITNESSES: View = table!["stream" "stream", "cosigned" "cosigned", "witness" "witness", "size" "size", "time" "time", "state" "state"];
const STREAMS: View =
    table!["name" "name", "kind" "kind", "size" "size", "time" "newest", "origin" "origin"];
