use countersign_crypto::{Hash, PublicKey, Signature};
use countersign_tlog::Checkpoint;
use countersign_tlog::checkpoint::verify_signature;
use serde::{Deserialize, Serialize};

use crate::Message;

macro_rules! message {
    ($name:ident = $kind:literal) => {
        impl Message for $name {
            const KIND: u8 = $kind;
        }
    };
}

/// The first words of either side: who it is, proven by the key statement that delegates the TLS key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// What the side knows beyond the first form of the major version.
    pub minor: u16,
    /// DSSE envelope (JSON) of the organization's key statement; empty for an enrolled application.
    pub key_statement: Vec<u8>,
    /// Program and version, for people; at most 100 characters.
    pub software: String,
    /// Addresses (`host:port`) where the node can be dialled; may be empty.
    pub addresses: Vec<String>,
}
message!(Hello = 1);

/// No, with a reason.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refused {
    /// DSSE envelope (JSON) of a refusal; empty where it was not worth a signature.
    pub refusal: Vec<u8>,
    /// The stable code, as in the document.
    pub code: String,
    /// Why, for people.
    pub reason: String,
    /// After how many milliseconds it is worth trying again; 0 = not by itself.
    pub retry_after_ms: u64,
}
message!(Refused = 2);

/// An application wants to publish.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PublishOpen {
    /// The stream's name at this node.
    pub stream: String,
    /// The series that the numbers belong to; zeros = unnumbered.
    pub series: [u8; 16],
    /// Make the stream where it does not exist.
    pub create: bool,
}
message!(PublishOpen = 10);

/// The node takes events.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PublishReady {
    /// The log's origin.
    pub origin: String,
    /// The last number of the series that is integrated; 0 where there is none.
    pub last_number: u64,
    /// The sequence at which it lies.
    pub last_sequence: u64,
    /// Data bytes of the largest event.
    pub event_bytes_max: u32,
    /// How many bytes of batches may be unacknowledged.
    pub window_bytes: u32,
    /// Within how many events a repeat is recognised: by number (the first answer comes back) or by (`source`, `id`).
    pub duplicate_window_events: u64,
}
message!(PublishReady = 11);

/// Events, in binary form as bulk ([`crate::publish`]).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PublishBatch {
    /// Number of the first event in its series, from 1; where unnumbered, a number that only names the batch.
    pub first_number: u64,
    /// How many events.
    pub count: u32,
}
message!(PublishBatch = 12);

/// A batch is integrated: durable, in the chain, under a signed checkpoint.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PublishAck {
    /// The batch's first number.
    pub first_number: u64,
    /// How many events the answer is about.
    pub count: u32,
    /// How many of them had been handed in before.
    pub duplicates: u32,
    /// The sequence of the last of them.
    pub last_sequence: u64,
}
message!(PublishAck = 13);

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum StartAt {
    /// At a sequence; clamped to the log's size.
    Sequence(u64),
    /// At the first entry whose time is at or after this (microseconds since 1970, UTC).
    Time(u64),
    /// After the newest entry.
    Now,
    /// Where a reader left off: the next sequence and the leaf hash of the entry before.
    Cursor {
        /// Next sequence.
        next: u64,
        /// Leaf hash of the entry before; zeros at 0.
        leaf: Hash,
    },
}

/// A signed checkpoint without the fields that both sides know.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SignedHead {
    /// Tree size.
    pub size: u64,
    /// Root.
    pub root: Hash,
    /// The log key's signature (64 bytes) over the checkpoint's text; while two keys overlap the older key's follows (128 bytes).
    pub signature: Vec<u8>,
}

impl SignedHead {
    /// The head of a signed checkpoint.
    #[must_use]
    pub fn new(size: u64, root: Hash, signature: Signature) -> Self {
        Self {
            size,
            root,
            signature: signature.to_bytes().to_vec(),
        }
    }

    /// The same with the signature of the key before, while both sign.
    #[must_use]
    pub fn and_before(mut self, signature: Option<Signature>) -> Self {
        self.signature
            .extend(signature.iter().flat_map(|signature| signature.to_bytes()));
        self
    }

    /// The checkpoint of the log `origin` that this head stands for.
    #[must_use]
    pub fn checkpoint(&self, origin: &str) -> Checkpoint {
        Checkpoint {
            origin: origin.to_owned(),
            size: self.size,
            root: self.root,
        }
    }

    /// The signatures, one or two, that of the newer key first; none where the length is wrong.
    pub fn signatures(&self) -> impl Iterator<Item = Signature> {
        let good = [64, 128].contains(&self.signature.len());
        let bytes = if good { self.signature.as_slice() } else { &[] };
        let (signatures, _) = bytes.as_chunks::<64>();
        signatures.iter().copied().map(Signature::from_bytes)
    }

    /// The first signature.
    #[must_use]
    pub fn signature(&self) -> Option<Signature> {
        self.signatures().next()
    }

    /// The first of these keys that has signed the head, which stands for `checkpoint`, and its signature.
    pub fn signed_by<'k>(
        &self,
        checkpoint: &Checkpoint,
        keys: impl Iterator<Item = &'k PublicKey>,
    ) -> Option<(&'k PublicKey, Signature)> {
        for key in keys {
            let good = |signature: &Signature| verify_signature(checkpoint, key, signature).is_ok();
            if let Some(signature) = self.signatures().find(good) {
                return Some((key, signature));
            }
        }
        None
    }
}

/// A consumer wants to read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Subscribe {
    /// The agreement that is the consumer's credential.
    pub agreement: [u8; 16],
    /// Origin of the log.
    pub stream: String,
    /// Where to start.
    pub start: StartAt,
    /// Size of the newest checkpoint that the consumer ever stored of this log; 0 = none.
    pub newest_size: u64,
    /// The series its receipts belong to.
    pub series: [u8; 16],
    /// What the reading is for, as the policy may ask; empty = not said.
    pub purpose: String,
}
message!(Subscribe = 20);

/// The producer delivers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SubscribeReady {
    /// The first sequence that will come.
    pub start: u64,
    /// The newest signed checkpoint.
    pub head: SignedHead,
    /// Compact range of size `start`.
    pub range: Vec<Hash>,
    /// Leaf hash of the entry before `start`; zeros at 0.
    pub last_leaf: Hash,
    /// Its time in microseconds; 0 at 0.
    pub last_time: u64,
    /// Inclusion proof of that leaf in the tree of size `start`.
    pub last_leaf_proof: Vec<Hash>,
    /// Consistency proof from `start` to the head.
    pub consistency: Vec<Hash>,
    /// Consistency proof from `newest_size` to the head; empty where that was 0.
    pub from_newest: Vec<Hash>,
    /// How many events may be delivered beyond the last verified receipt.
    pub exposure_events: u64,
    /// Number of the last receipt of the series that the producer holds; 0 = none.
    pub receipt_number: u64,
    /// Position that it reaches; where no receipt is held, `start`.
    pub receipt_size: u64,
}
message!(SubscribeReady = 21);

/// A consumer wants to read what passes a filter. Answered as [`Subscribe`] is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SubscribeFiltered {
    /// What it wants to read.
    pub request: Subscribe,
    /// The filter's canonical text.
    pub filter: String,
}
message!(SubscribeFiltered = 27);

/// What the producer left out of the batch that follows, by its signed word.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Skipped {
    /// The DSSE envelope (JSON) of a skip claim.
    pub claim: Vec<u8>,
}
message!(Skipped = 28);

/// A receipt or rejection.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReceiptMessage {
    /// The DSSE envelope (JSON).
    pub envelope: Vec<u8>,
}
message!(ReceiptMessage = 23);

/// The producer holds the receipt.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReceiptAck {
    /// Its number.
    pub number: u64,
}
message!(ReceiptAck = 24);

/// The newest checkpoint, without entries: how a reader knows its lag and why it waits.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Heads {
    /// The head.
    pub head: SignedHead,
    /// Why nothing is sent though there is something; empty where nothing is withheld.
    pub paused: String,
}
message!(Heads = 25);

/// The subscription is over.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ended {
    /// DSSE envelope (JSON) of the refusal that says why and at which position.
    pub refusal: Vec<u8>,
}
message!(Ended = 26);

/// Somebody wants to redeem an invitation.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct JoinQuery {
    /// The invitation.
    pub invitation: [u8; 16],
    /// Signature by the link's secret key over the transcript of `schemas/invitation.md`.
    pub proof: Vec<u8>,
}
message!(JoinQuery = 30);

/// The terms, ready to be signed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct JoinTerms {
    /// The offer's JSON text, whose digest is in the link.
    pub offer: String,
    /// Payload of the agreement.
    pub agreement: Vec<u8>,
    /// The agreement under both signatures (DSSE, JSON), where this organization has redeemed the invitation before; else empty.
    pub done: Vec<u8>,
}
message!(JoinTerms = 31);

/// The joiner agrees.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct JoinAccept {
    /// The agreement under the joiner's signature (DSSE, JSON).
    pub envelope: Vec<u8>,
}
message!(JoinAccept = 32);

/// Both have signed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct JoinDone {
    /// The agreement under both signatures (DSSE, JSON).
    pub envelope: Vec<u8>,
}
message!(JoinDone = 33);

/// A signed document that the other side has to know of: a termination, a newer key statement.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Notice {
    /// The DSSE envelope (JSON).
    pub envelope: Vec<u8>,
}
message!(Notice = 40);

/// The notice is stored.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NoticeAck {}
message!(NoticeAck = 41);

/// Are you there?
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ping {
    /// Comes back as it is.
    pub nonce: u64,
}
message!(Ping = 42);

/// Yes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pong {
    /// As it came.
    pub nonce: u64,
}
message!(Pong = 43);

/// Heads of the sender's logs, to be cosigned: each the body of an `add-checkpoint` request of tlog-witness; at most 64.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AddCheckpoints {
    /// The bodies.
    pub requests: Vec<Vec<u8>>,
}
message!(AddCheckpoints = 50);

/// What a witness said to one of them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WitnessSaid {
    /// The status that it would have over HTTP.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// A witness's answers, in the order of the requests.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Cosigned {
    /// The verifier key that the witness cosigns under.
    pub vkey: String,
    /// The answers.
    pub answers: Vec<WitnessSaid>,
}
message!(Cosigned = 51);

/// What do you know of this log?
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AskLog {
    /// Its origin.
    pub origin: String,
    /// The size of the tree that the asker holds.
    pub size: u64,
}
message!(AskLog = 52);

/// The newest checkpoint that is known of a log, and how it goes on from the size asked about.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogState {
    /// The newest signed note; empty where none is known.
    pub note: Vec<u8>,
    /// Root of the tree of the size asked about; zeros where it is not known.
    pub root: Hash,
    /// The consistency proof from there to the note's tree; empty where it is not known.
    pub proof: Vec<Hash>,
    /// How many entries with their content are held, from the first on.
    pub held: u64,
    /// The newest note with enough cosignatures, where the log's owner answers; empty where there is none.
    pub witnessed: Vec<u8>,
}
message!(LogState = 53);

/// Up to where is your log witnessed, and how does that go together with the tree that I hold?
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AskWitnessed {
    /// Its origin.
    pub origin: String,
    /// The size of the tree that the asker holds.
    pub size: u64,
}
message!(AskWitnessed = 55);

/// The newest note of a log of one's own with enough cosignatures.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WitnessedState {
    /// The note; empty where there is none.
    pub note: Vec<u8>,
    /// The consistency proof between the size asked about and that of the note, from the smaller one to the larger; empty where they are the same, or one is 0.
    pub proof: Vec<Hash>,
}
message!(WitnessedState = 56);

/// How would you decide about me?
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AskPolicy {
    /// `discover`, `publish`, `read` or `request`.
    pub action: String,
    /// The stream's origin.
    pub stream: String,
    /// For which purpose; empty = not said.
    pub purpose: String,
    /// Under which plan; empty = that of the active agreement, if there is one.
    pub plan: String,
}
message!(AskPolicy = 70);

/// How the policies would decide, and why.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PolicyAnswer {
    /// The decision.
    pub allowed: bool,
    /// Why, for people.
    pub because: String,
    /// The policies that decided, or that might have permitted.
    pub policies: Vec<String>,
    /// Digest of the whole policy set.
    pub digest: Hash,
    /// Facts about the asker that these policies look at: the name, and the value as JSON text; empty where there is none.
    pub facts: Vec<(String, String)>,
}
message!(PolicyAnswer = 71);

/// The log's owner has lost entries that the other side holds, and wants them back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FetchBack {
    /// The log's origin.
    pub origin: String,
    /// The first entry wanted.
    pub from: u64,
}
message!(FetchBack = 54);

/// Keys of an encrypted stream's epochs, for the subscriber alone; ahead of the batch that needs them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Keys {
    /// DSSE envelopes (JSON) of key wraps.
    pub envelopes: Vec<Vec<u8>>,
}
message!(Keys = 60);

/// Which streams of yours may I know of?
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListStreams {}
message!(ListStreams = 72);

/// The streams that the asker may know of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StreamList {
    /// Each as JSON: `origin`, `title`, `labels`, `encrypted`, `plans`.
    pub streams: Vec<Vec<u8>>,
    /// Whether there are more than fit.
    pub more: bool,
}
message!(StreamList = 73);
