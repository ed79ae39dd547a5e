#![allow(dead_code, reason = "each test file uses its share of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use countersign_crypto::SeededEntropy;
use countersign_event::commitment::{attribute_commitment, data_commitment};
use countersign_store::disk::Disk;
use countersign_store::journal::{
    Birth, ContentInput, Erasure, Growth, Journal, JournalReader, LogKind, LogNumber, OpenError,
    Options, PartInput, Recovery,
};
use countersign_store::sim::SimDisk;
use countersign_tlog::{CompactRange, Hash, leaf_hash};

pub(crate) const SMALL: Options = Options {
    segment_bytes: 16 << 10,
    cache_bytes: 8 << 10,
};

pub(crate) fn dir() -> PathBuf {
    PathBuf::from("/journal")
}

/// SplitMix64, so that a seed says everything about a workload.
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub(crate) fn create(disk: &SimDisk, options: Options, seed: u64) -> Journal {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Journal::create(disk, &dir(), options, Box::new(SeededEntropy::new(seed))).unwrap()
}

pub(crate) fn open(
    disk: &SimDisk,
    options: Options,
    seed: u64,
) -> Result<(Journal, Recovery), OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Journal::open(disk, &dir(), options, Box::new(SeededEntropy::new(seed)))
}

/// What a log should hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelLog {
    pub(crate) range: CompactRange,
    pub(crate) last_leaf: Hash,
    pub(crate) time_us: u64,
    pub(crate) entries: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) leaves: Vec<Hash>,
    /// Annotations by the first sequence of their part.
    pub(crate) annotations: Vec<(u64, Vec<u8>)>,
    pub(crate) covers: Vec<(u64, Vec<u8>)>,
    pub(crate) signatures: Vec<(u64, Hash, [u8; 64])>,
    /// Entries whose content is gone, with the control entry that allows it.
    pub(crate) erased: BTreeMap<u64, u64>,
}

/// What a journal should hold, by origin.
pub(crate) type Model = BTreeMap<u32, ModelLog>;

pub(crate) struct PartOptions {
    pub(crate) events: usize,
    pub(crate) content_bytes_max: u64,
    pub(crate) annotation: Vec<u8>,
    pub(crate) cover: Vec<u8>,
    pub(crate) sign: bool,
    pub(crate) erasures: Vec<Erasure>,
    /// Whether the events come without content.
    pub(crate) absent: bool,
}

impl PartOptions {
    pub(crate) fn events(events: usize) -> Self {
        Self {
            events,
            content_bytes_max: 200,
            annotation: Vec::new(),
            cover: Vec::new(),
            sign: false,
            erasures: Vec::new(),
            absent: false,
        }
    }
}

impl ModelLog {
    /// Makes the next part and takes it over as if it were committed.
    pub(crate) fn part(
        &mut self,
        log: LogNumber,
        options: PartOptions,
        dice: &mut Dice,
    ) -> PartInput {
        let expected_size = self.range.size();
        let signature_before = (options.sign && expected_size > 0).then(|| {
            let signature = [u8::try_from(dice.below(255)).unwrap() + 1; 64];
            self.signatures
                .push((expected_size, self.range.root(), signature));
            signature
        });
        let mut growth = Growth::new(self.range.clone(), self.last_leaf, self.time_us);
        let (mut entries, mut contents, mut content) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.events {
            let (entry, bytes, lengths) =
                self.event(options.content_bytes_max, options.absent, dice);
            let leaf = leaf_hash(&entry);
            entries.extend_from_slice(&entry);
            assert_eq!(growth.push(&entry), Ok(leaf));
            if options.absent {
                contents.push(ContentInput::ABSENT);
            } else {
                contents.push(lengths);
                content.push(Bytes::from(bytes.clone()));
            }
            self.range.append(leaf);
            self.last_leaf = leaf;
            self.leaves.push(leaf);
            self.entries.push((entry, bytes));
        }
        if !options.annotation.is_empty() {
            self.annotations
                .push((expected_size, options.annotation.clone()));
        }
        if !options.cover.is_empty() {
            self.covers.push((self.range.size(), options.cover.clone()));
        }
        for erasure in &options.erasures {
            for sequence in erasure.first..erasure.end {
                if self.entries[usize::try_from(sequence).unwrap()].0[1] == 0 {
                    self.erased.insert(sequence, erasure.by);
                }
            }
        }
        PartInput {
            erasures: options.erasures,
            log,
            expected_size,
            entries,
            growth,
            signature_before,
            cover: options.cover,
            annotation: options.annotation,
            contents,
            content,
        }
    }

    fn event(
        &mut self,
        content_bytes_max: u64,
        absent: bool,
        dice: &mut Dice,
    ) -> (Vec<u8>, Vec<u8>, ContentInput) {
        let attribute_bytes = dice.below(content_bytes_max / 2 + 1);
        let data_part_bytes = dice.below(content_bytes_max / 2 + 1);
        let mut content = Vec::new();
        while (content.len() as u64) < 64 + attribute_bytes + data_part_bytes {
            content.extend_from_slice(&dice.next().to_be_bytes());
        }
        content.truncate(usize::try_from(64 + attribute_bytes + data_part_bytes).unwrap());
        let split = 64 + usize::try_from(attribute_bytes).unwrap();
        self.time_us += dice.below(1000);
        // Now and then a control entry, which no erasure touches.
        let kind = u8::from(dice.below(5) == 0 && !absent);
        let mut entry = vec![1, kind];
        entry.extend_from_slice(&u32::try_from(data_part_bytes).unwrap().to_be_bytes());
        entry.extend_from_slice(&self.range.size().to_be_bytes());
        entry.extend_from_slice(&self.last_leaf);
        entry.extend_from_slice(&self.time_us.to_be_bytes());
        entry.extend_from_slice(&attribute_commitment(
            content[..32].try_into().unwrap(),
            &content[64..split],
        ));
        entry.extend_from_slice(&data_commitment(
            content[32..64].try_into().unwrap(),
            &content[split..],
        ));
        let lengths = ContentInput {
            attribute_bytes: u32::try_from(attribute_bytes).unwrap(),
            data_part_bytes: u32::try_from(data_part_bytes).unwrap(),
        };
        (entry, content, lengths)
    }
}

pub(crate) fn birth(number: u32) -> Birth {
    Birth {
        kind: LogKind::Own,
        origin: format!("example.org/streams/s{number}"),
        settings: vec![7; number as usize],
    }
}

/// Compares a log with the model: every entry and content, every leaf hash, the head.
pub(crate) fn check_log(
    reader: &JournalReader,
    log: LogNumber,
    model: &ModelLog,
) -> Result<(), String> {
    let head = reader.head(log).ok_or("no such log")?;
    if head.range != model.range || head.last_leaf != model.last_leaf {
        return Err(format!(
            "log {log}: head of size {} differs from the expected one of size {}",
            head.size,
            model.range.size()
        ));
    }
    let mut next = 0;
    while next < head.size {
        let runs = reader
            .read(log, next, u64::MAX, 1 << 20)
            .map_err(|error| format!("log {log}: {error}"))?;
        for run in &runs {
            for stored in run.iter() {
                let at = usize::try_from(stored.sequence).unwrap();
                let (entry, content) = &model.entries[at];
                let erased = model.erased.get(&next).copied();
                let content: &[u8] = if erased.is_some() { &[] } else { content };
                let same = stored.sequence == next
                    && stored.entry == entry
                    && stored.content == content
                    && stored.erased_by == erased;
                if !same {
                    return Err(format!("log {log}: entry {at} differs"));
                }
                next += 1;
            }
        }
    }
    for (sequence, leaf) in (0..).zip(&model.leaves) {
        let found = reader
            .leaf_hash(log, sequence)
            .map_err(|error| format!("log {log}: leaf {sequence}: {error}"))?;
        if &found != leaf {
            return Err(format!("log {log}: leaf hash {sequence} differs"));
        }
    }
    let mut annotations = Vec::new();
    reader
        .annotations(Some(log), 1, &mut |found| {
            annotations.push((found.first, found.annotation.to_vec()));
            true
        })
        .map_err(|error| format!("log {log}: {error}"))?;
    if annotations != model.annotations {
        return Err(format!("log {log}: annotations differ"));
    }
    let newest = model.signatures.last().copied();
    let found = reader
        .checkpoint_at_or_before(log, u64::MAX)
        .map_err(|error| format!("log {log}: {error}"))?
        .map(|checkpoint| (checkpoint.size, checkpoint.root, checkpoint.signature));
    if newest != found || found != head.checkpoint.map(|c| (c.size, c.root, c.signature)) {
        return Err(format!("log {log}: checkpoints differ"));
    }
    let newest = model.covers.last().cloned();
    let found = head.cover.map(|cover| (cover.size, cover.cover.to_vec()));
    if newest != found {
        return Err(format!("log {log}: covers differ"));
    }
    Ok(())
}

pub(crate) fn check_all(reader: &JournalReader, model: &Model) -> Result<(), String> {
    for (number, log) in model {
        let info = reader
            .logs()
            .into_iter()
            .find(|info| info.number.value() == *number)
            .ok_or_else(|| format!("log {number} is missing"))?;
        let born = birth(*number);
        if info.origin != born.origin || info.settings[..] != born.settings {
            return Err(format!("log {number}: birth differs"));
        }
        check_log(reader, info.number, log)?;
    }
    Ok(())
}

/// Looks for erased content in every byte of a disk: its salts and its last bytes are random, and nothing else has them.
pub(crate) fn check_gone(disk: &SimDisk, model: &Model) -> Result<(), String> {
    let key = |bytes: &[u8]| u64::from_be_bytes(bytes[..8].try_into().unwrap());
    let mut sought = HashMap::new();
    // A look at two bytes first: the pieces of a disk are many.
    let mut begins = vec![false; 1 << 16];
    for (number, log) in model {
        for sequence in log.erased.keys() {
            let content = &log.entries[usize::try_from(*sequence).unwrap()].1;
            for piece in [&content[..8], &content[content.len() - 8..]] {
                begins[usize::from(u16::from_be_bytes([piece[0], piece[1]]))] = true;
                sought.insert(key(piece), (number, sequence));
            }
        }
    }
    if sought.is_empty() {
        return Ok(());
    }
    for path in disk.files() {
        let bytes = disk.contents(&path).unwrap();
        for at in 0..bytes.len().saturating_sub(7) {
            let begin = usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            if !begins[begin] {
                continue;
            }
            if let Some((number, sequence)) = sought.get(&key(&bytes[at..])) {
                let path = path.display();
                return Err(format!(
                    "log {number}: erased entry {sequence} is still in {path}"
                ));
            }
        }
    }
    Ok(())
}
