//! The command channel: the same conversation over the socket and in process, and what it refuses. That another user is refused cannot be shown
//! here: a test has one user.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use countersign::admin::{
    AdminClient, AdminError, AdminFrames, AdminListener, BoxFuture, COMMAND_BYTES_MAX, Channel,
    Command, Handler, KIND_COMMAND, KIND_REPLY, OpenLocal, Out, Reply, serve_admin,
    serve_connection, with_node,
};
use countersign::config::Config;
use countersign::data_dir::DataDir;
use countersign::errors::{CommandError, ErrorCode};
use countersign::init::{InitOptions, init};
use countersign_event::time::Timestamp;
use countersign_protocol::{
    CONTROL_FRAME_BYTES_MAX, FrameError, Message as _, PublishAck, PublishBatch,
};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

/// Answers a few commands in a way that can be told apart.
#[derive(Default)]
struct Echo {
    closed: AtomicUsize,
    dropped: Arc<Notify>,
}

/// Tells when the future that holds it is dropped.
struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Handler for Echo {
    fn handle<'a>(
        &'a self,
        command: Command,
        out: &'a mut Out,
    ) -> BoxFuture<'a, Result<(), CommandError>> {
        Box::pin(async move {
            match command {
                Command::Status => out.value(&json!({"running": true})).await,
                Command::StreamLs => {
                    for number in 0..3 {
                        out.item(&number).await?;
                    }
                    out.progress(3, Some(3), "entries").await
                }
                Command::StreamTail { .. } => {
                    let _guard = OnDrop(Arc::clone(&self.dropped));
                    out.item(&"first").await?;
                    std::future::pending().await
                }
                other => Err(
                    CommandError::new(ErrorCode::NotFound, format_args!("no {other:?}"))
                        .advise("look elsewhere"),
                ),
            }
        })
    }

    fn publish(&self, mut frames: AdminFrames) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move {
            while let Some((kind, body)) = frames.next().await? {
                let (batch, bulk) = PublishBatch::read_bulk(kind, &body).unwrap();
                let ack = PublishAck {
                    first_number: batch.first_number,
                    count: batch.count,
                    duplicates: 0,
                    last_sequence: bulk.len() as u64,
                };
                frames.write(PublishAck::KIND, &ack.to_body()).await?;
            }
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CommandError>> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

struct Local(Arc<Echo>);

impl OpenLocal for Local {
    fn open_local<'a>(
        &'a self,
        _dir: &'a DataDir,
    ) -> BoxFuture<'a, Result<Arc<dyn Handler>, CommandError>> {
        let handler: Arc<dyn Handler> = Arc::clone(&self.0) as _;
        Box::pin(async move { Ok(handler) })
    }
}

fn make(data: &Path) -> DataDir {
    let mut config = Config::default();
    config.journal.segment_bytes = 64 << 10;
    let options = InitOptions {
        name: "Acme".to_owned(),
        domain: None,
        config,
        data: data.to_owned(),
    };
    init(&options, Timestamp(1)).unwrap();
    DataDir::open(data).unwrap()
}

/// A channel to a handler in process.
fn channel(handler: &Arc<Echo>) -> Channel {
    let (near, far) = AdminFrames::pair();
    let handler = Arc::clone(handler);
    tokio::spawn(async move { serve_connection(far, &*handler).await });
    Channel::new(near)
}

/// Raw bytes to a handler, and what it answers.
async fn answer(bytes: &[u8]) -> Option<Reply> {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let (read, write) = tokio::io::split(far);
    let served = tokio::spawn(async move {
        serve_connection(AdminFrames::new(read, write), &Echo::default()).await;
    });
    near.write_all(bytes).await.unwrap();
    near.shutdown().await.unwrap();
    let (read, write) = tokio::io::split(near);
    let mut frames = AdminFrames::new(read, write);
    let reply = frames.next().await.unwrap().map(|(kind, body)| {
        assert_eq!(kind, KIND_REPLY);
        serde_json::from_slice(&body).unwrap()
    });
    served.await.unwrap();
    reply
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
    [&length[..], &[kind], body].concat()
}

async fn refused(bytes: &[u8]) -> String {
    match answer(bytes).await {
        Some(Reply::Error { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_connection_carries_commands_one_after_the_other() {
    let handler = Arc::new(Echo::default());
    let mut channel = channel(&handler);
    assert_eq!(
        channel.call(&Command::Status).await.unwrap(),
        json!({"running": true})
    );
    channel.send(&Command::StreamLs).await.unwrap();
    let mut replies = Vec::new();
    while let Some(reply) = channel.next().await.unwrap() {
        replies.push(reply);
    }
    let unit = "entries".to_owned();
    let progress = Reply::Progress {
        done: 3,
        total: Some(3),
        unit,
    };
    let items = (0..3).map(|number| Reply::Item(json!(number)));
    assert_eq!(replies, items.chain([progress]).collect::<Vec<_>>());
    let error = channel.call(&Command::AppLs).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    assert_eq!(error.advice.as_deref(), Some("look elsewhere"));
    channel.call(&Command::Status).await.unwrap();
}

#[tokio::test]
async fn after_publish_the_connection_carries_protocol_frames_both_ways() {
    let handler = Arc::new(Echo::default());
    let mut frames = channel(&handler).publish().await.unwrap();
    for number in [1, 2] {
        let batch = PublishBatch {
            first_number: number,
            count: 1,
        };
        let bulk = vec![7; 2 << 20];
        let body = [batch.to_body(), bulk].concat();
        frames.write(PublishBatch::KIND, &body).await.unwrap();
        let (kind, body) = frames.next().await.unwrap().unwrap();
        let ack = PublishAck::read(kind, &body).unwrap();
        assert_eq!((ack.first_number, ack.last_sequence), (number, 2 << 20));
    }
    frames.outgoing.close().await.unwrap();
    assert!(frames.next().await.unwrap().is_none());
}

#[tokio::test]
async fn oversized_frames_are_refused_by_their_first_five_bytes() {
    let too_long = u32::try_from(COMMAND_BYTES_MAX + 2).unwrap();
    for length in [0, too_long, u32::MAX] {
        let header = [&length.to_be_bytes()[..], &[KIND_COMMAND]].concat();
        assert_eq!(refused(&header).await, "admin-protocol", "{length}");
    }
    let (mut near, _far) = AdminFrames::pair();
    let body = vec![0; CONTROL_FRAME_BYTES_MAX + 1];
    let error = near.write(10, &body).await.unwrap_err();
    assert!(matches!(
        error,
        AdminError::Frame(FrameError::TooLarge { kind: 10, .. })
    ));
}

#[tokio::test]
async fn what_is_no_command_is_refused() {
    let command = |json: &str| frame(KIND_COMMAND, json.as_bytes());
    let good = r#"{"version":1,"command":{"name":"agreement-ls"}}"#;
    // It reaches the handler, which knows no such thing.
    assert_eq!(refused(&command(good)).await, "not-found");
    for bad in [
        "",
        "{",
        "null",
        r#"{"version":1}"#,
        r#"{"version":1,"command":{"name":"status"},"more":1}"#,
        r#"{"version":1,"command":{"name":"no-such"}}"#,
        r#"{"version":1,"command":{"name":"ping"}}"#,
    ] {
        assert_eq!(refused(&command(bad)).await, "admin-protocol", "{bad}");
    }
    assert_eq!(
        refused(&frame(KIND_REPLY, good.as_bytes())).await,
        "admin-protocol"
    );
    assert_eq!(refused(&frame(10, b"")).await, "admin-protocol");
    // Another version is told so, whatever its commands look like.
    let newer = r#"{"version":2,"command":{"what":"ever"}}"#;
    assert_eq!(refused(&command(newer)).await, "admin-version");
    // A frame that breaks off.
    let whole = command(good);
    assert_eq!(refused(&whole[..whole.len() - 1]).await, "io");
    assert!(answer(b"").await.is_none());
}

#[tokio::test]
async fn a_follower_that_goes_away_ends_its_command() {
    let handler = Arc::new(Echo::default());
    let mut channel = channel(&handler);
    let stream = "quakes".to_owned();
    let tail = Command::StreamTail {
        stream,
        count: 1,
        follow: true,
    };
    channel.send(&tail).await.unwrap();
    assert_eq!(
        channel.next().await.unwrap(),
        Some(Reply::Item(json!("first")))
    );
    drop(channel);
    let limit = std::time::Duration::from_secs(20);
    let ended = tokio::time::timeout(limit, handler.dropped.notified()).await;
    ended.unwrap();
}

#[tokio::test]
async fn a_command_finds_the_running_node_and_otherwise_runs_in_process() {
    let parent = tempfile::tempdir().unwrap();
    // Far longer than the 107 bytes that a socket's path may have.
    let deep = parent.path().join("d".repeat(120));
    for data in [parent.path().join("node"), deep] {
        let dir = make(&data);
        let (running, local) = (Arc::new(Echo::default()), Local(Arc::default()));
        let ask = async |expected: bool| {
            let value = with_node(&dir, &local, async |node| {
                assert_eq!(node.is_running(), expected);
                node.channel().await?.call(&Command::Status).await
            });
            assert_eq!(value.await.unwrap(), json!({"running": true}));
        };

        ask(false).await;
        assert_eq!(local.0.closed.load(Ordering::SeqCst), 1);

        let lock = dir.lock().unwrap();
        let listener = AdminListener::bind(&dir, &lock).unwrap();
        let mode = std::fs::metadata(dir.socket_file())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
        let node = tokio::spawn(serve_admin(listener, Arc::clone(&running) as _));
        ask(true).await;
        assert_eq!(local.0.closed.load(Ordering::SeqCst), 1);
        assert_eq!(running.closed.load(Ordering::SeqCst), 0);

        node.abort();
        assert!(node.await.unwrap_err().is_cancelled());
        drop(lock);
        ask(false).await;
    }
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let dir = make(&parent.path().join("node"));
    drop(std::os::unix::net::UnixListener::bind(dir.socket_file()).unwrap());
    assert!(dir.socket_file().exists());
    assert!(AdminClient::connect(&dir).await.unwrap().is_none());
    let lock = dir.lock().unwrap();
    let listener = AdminListener::bind(&dir, &lock).unwrap();
    let node = tokio::spawn(serve_admin(listener, Arc::new(Echo::default())));
    let client = AdminClient::connect(&dir).await.unwrap().unwrap();
    let mut channel = client.channel().await.unwrap();
    channel.call(&Command::Status).await.unwrap();
    node.abort();
}
