//! A publisher in a process of its own, which writes down every acknowledgement: the witness of what a node promised.
//!
//! The test program starts itself again with [`ROLE`] set; the test called [`CHILD_TEST`] then publishes until its stdin ends.
//!
//! ```text
//! acknowledgements, a line for each event:  number ␠ sequence ␠ SHA-256 of its data
//! handed in, 8 bytes:                       the last number that was given to the publisher
//! ```

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_client::publisher::{Pending, PublishError};
use countersign_client::quic::QuicLimits;
use countersign_client::session::Backoff;
use countersign_client::{
    Expected, Publisher as ClientPublisher, PublisherOptions, SessionOptions,
};
use countersign_crypto::{OsEntropy, SigningKey, sha256};
use countersign_event::attributes::AttributesBuilder;
use countersign_event::data::DataPart;
use countersign_event::time::Timestamp;
use countersign_protocol::publish::write_event;
use tokio::sync::mpsc;

use super::{Node, wait_until};

/// Set in the child: what it has to do.
const ROLE: &str = "COUNTERSIGN_TEST_PUBLISHER";

/// The test that the child runs.
const CHILD_TEST: &str = "publisher_child";

/// Events of a batch.
const BATCH: u64 = 4;

/// Bytes that may be unacknowledged: a few batches, so that some are always on their way and the log grows slowly enough to be compared whole.
const WINDOW_BYTES: usize = 4_096;

/// One line of the record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Acknowledged {
    pub(crate) number: u64,
    pub(crate) sequence: u64,
    pub(crate) digest: String,
}

/// The data of the event with this number: anybody can compute it again.
pub(crate) fn expected_data(number: u64) -> String {
    let noise = hex::encode(sha256(&number.to_be_bytes()));
    format!("{{\"number\":{number},\"noise\":\"{noise}\"}}")
}

/// The running publisher, seen from the test.
#[derive(Debug)]
pub(crate) struct Publisher {
    child: Child,
    record: PathBuf,
    role: String,
}

impl Publisher {
    /// Starts to publish to `stream` of a node under an enrolled key. The record begins empty.
    pub(crate) fn start(node: &Node, key_file: &Path, stream: &str) -> Self {
        let beside = node.data.parent().expect("the directory lies below a root");
        Self::start_with_record(node, key_file, stream, beside)
    }

    /// As before, with the record in another folder than beside the node.
    pub(crate) fn start_with_record(
        node: &Node,
        key_file: &Path,
        stream: &str,
        folder: &Path,
    ) -> Self {
        let name = node.data.file_name().expect("the directory has a name");
        let record = folder.join(name).with_extension("acknowledged");
        let role = serde_json::json!({
            "address": node.listen.to_string(),
            "organization": node.fingerprint,
            "key": key_file,
            "stream": stream,
            "record": record,
        })
        .to_string();
        fs::write(&record, "").expect("the record is made");
        fs::write(record.with_extension("handed-in"), [0; 8]).expect("the record is made");
        let child = spawn(&role, &record);
        Self {
            child,
            record,
            role,
        }
    }

    /// Kills it, and starts another one that goes on where the node says.
    pub(crate) fn replace(&mut self) {
        self.kill();
        self.child = spawn(&self.role, &self.record);
    }

    /// Everything that was acknowledged, in the order of the acknowledgements.
    pub(crate) fn acknowledged(&self) -> Vec<Acknowledged> {
        let text = fs::read_to_string(&self.record).expect("the record is there");
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines.map(read_line).collect()
    }

    /// The last acknowledged number.
    pub(crate) fn last_acknowledged(&self) -> u64 {
        let file = fs::File::open(&self.record).expect("the record is there");
        let length = file.metadata().expect("it has a length").len();
        let from = length.saturating_sub(512);
        let mut tail = vec![0; (length - from) as usize];
        file.read_exact_at(&mut tail, from).expect("it can be read");
        let text = String::from_utf8(tail).expect("it is text");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().last().map_or(0, |line| {
            let number = line
                .split(' ')
                .next()
                .and_then(|number| number.parse().ok());
            number.expect("a line begins with the number")
        })
    }

    /// The last number handed in.
    pub(crate) fn handed_in(&self) -> u64 {
        let bytes = fs::read(self.record.with_extension("handed-in")).expect("it is there");
        u64::from_be_bytes(bytes.try_into().expect("it has 8 bytes"))
    }

    /// Waits until more is acknowledged than `number`.
    #[track_caller]
    pub(crate) fn wait_beyond(&mut self, number: u64) -> u64 {
        wait_until("more is acknowledged", || {
            let ended = self.child.try_wait().expect("the child can be asked");
            assert!(ended.is_none(), "the publisher ended: {}", self.log());
            Some(self.last_acknowledged()).filter(|last| *last > number)
        })
    }

    /// Lets it finish: everything that it handed in is acknowledged afterwards.
    #[track_caller]
    pub(crate) fn finish(&mut self) {
        drop(self.child.stdin.take());
        let status = wait_until("the publisher ends", || {
            self.child.try_wait().expect("the child can be asked")
        });
        assert!(status.success(), "{}", self.log());
    }

    /// Why it ended, where it did.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.record.with_extension("publisher-log")).unwrap_or_default()
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(role: &str, record: &Path) -> Child {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(record.with_extension("publisher-log"))
        .expect("the log opens");
    Command::new(std::env::current_exe().expect("the test knows its program"))
        .args(["--exact", CHILD_TEST, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the publisher starts")
}

fn read_line(line: &str) -> Acknowledged {
    let mut words = line.trim_end().split(' ');
    let mut word = || words.next().expect("a line has three words");
    Acknowledged {
        number: word().parse().expect("a number"),
        sequence: word().parse().expect("a sequence"),
        digest: word().to_owned(),
    }
}

/// What the test [`CHILD_TEST`] does: nothing in the test program itself; in the child, publish until stdin ends.
pub(crate) fn publish_as_child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let role: serde_json::Value = serde_json::from_str(&role).expect("the role is JSON");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the runtime starts");
    runtime.block_on(publish(&role));
}

/// Hands in one event of a series of its own, once: no second attempt where the node refuses. Its data has the number 0, which the
/// publisher's events never have.
pub(crate) fn try_publish(node: &Node, key_file: &Path, stream: &str) -> Result<(), PublishError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the runtime starts");
    runtime.block_on(async {
        let mut options = options(node.listen, &node.fingerprint, key_file, stream);
        options.series = [9; 16];
        options.backoff.attempts_max = Some(0);
        let publisher = ClientPublisher::connect(options).await?;
        let mut bulk = Vec::new();
        write_one(&mut bulk, 0);
        publisher.publish_batch(Bytes::from(bulk), 1).await?;
        publisher.close().await
    })
}

fn options(
    address: SocketAddr,
    organization: &str,
    key_file: &Path,
    stream: &str,
) -> PublisherOptions {
    let key = fs::read_to_string(key_file).expect("the key file is there");
    let key = SigningKey::from_pem(&key).expect("the key file is sound");
    let organization = organization.parse().expect("a fingerprint");
    let expected = Expected::organization(organization);
    let addresses = vec![address.to_string()];
    let mut session = SessionOptions::new(addresses, expected, key, Arc::new(now));
    session.limits = limits();
    let entropy = Box::new(OsEntropy::new().expect("the system has randomness"));
    let mut options = PublisherOptions::new(session, stream, [7; 16], entropy);
    options.window_bytes = WINDOW_BYTES;
    options.backoff = Backoff {
        first: Duration::from_millis(10),
        longest: Duration::from_millis(100),
        attempts_max: None,
    };
    options
}

async fn publish(role: &serde_json::Value) {
    let text = |name: &str| role[name].as_str().expect("the role is complete");
    let address: SocketAddr = text("address").parse().expect("an address");
    // The node may be down at this very moment.
    let publisher = loop {
        let key = Path::new(text("key"));
        let options = options(address, text("organization"), key, text("stream"));
        match ClientPublisher::connect(options).await {
            Ok(publisher) => break publisher,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "not yet: {error}");
            }
        }
    };
    let record = PathBuf::from(text("record"));
    let (pending, waiting) = mpsc::unbounded_channel();
    let writer = tokio::spawn(write_down(record.clone(), waiting));
    let (end, mut ended) = mpsc::channel::<()>(1);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(end);
    });
    let handed_in = OpenOptions::new()
        .write(true)
        .open(record.with_extension("handed-in"))
        .expect("the record is there");
    let mut next = publisher.resumed_after() + 1;
    loop {
        let mut bulk = Vec::new();
        for number in next..next + BATCH {
            write_one(&mut bulk, number);
        }
        next += BATCH;
        let batch = publisher.publish_batch(Bytes::from(bulk), BATCH as u32);
        tokio::select! {
            sent = batch => {
                let sent = sent.expect("the publisher goes on over lost connections");
                handed_in.write_all_at(&(next - 1).to_be_bytes(), 0).expect("the record is written");
                pending.send(sent).expect("the writer runs");
            }
            _ = ended.recv() => break,
        }
    }
    publisher.close().await.expect("everything is acknowledged");
    drop(pending);
    writer.await.expect("everything is written down");
}

async fn write_down(record: PathBuf, mut waiting: mpsc::UnboundedReceiver<Pending>) {
    let mut record = OpenOptions::new()
        .append(true)
        .open(record)
        .expect("the record is there");
    while let Some(pending) = waiting.recv().await {
        let ack = pending.await.expect("the batch is acknowledged");
        let mut lines = String::new();
        for index in 0..u64::from(ack.count) {
            let number = ack.first_number + index;
            let sequence = ack.last_sequence - (u64::from(ack.count) - 1 - index);
            let digest = hex::encode(sha256(expected_data(number).as_bytes()));
            lines.push_str(&format!("{number} {sequence} {digest}\n"));
        }
        record
            .write_all(lines.as_bytes())
            .expect("the record is written");
    }
}

fn write_one(bulk: &mut Vec<u8>, number: u64) {
    let id = number.to_string();
    let mut attributes =
        AttributesBuilder::new(&id, "https://publisher.example/load", "example.load");
    attributes.push_text("datacontenttype", "application/json");
    let attributes = attributes.build().expect("the attributes are sound");
    let data = expected_data(number);
    let mut data_part = Vec::new();
    DataPart::text(&data)
        .encode(&mut data_part)
        .expect("the data is small");
    write_event(bulk, &attributes, &data_part);
}

/// A killed node says no good-bye: silence has to be noticed soon.
fn limits() -> QuicLimits {
    QuicLimits {
        idle_timeout: Duration::from_secs(1),
        keep_alive: Duration::from_millis(250),
        ..QuicLimits::default()
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    Timestamp(u64::try_from(micros).unwrap_or(u64::MAX))
}
