//! The journal's ledger logs, as the view reads them.

use countersign_crypto::Hash;
use countersign_event::names::Origin;
use countersign_store::journal::{JournalReader, LogKind, LogNumber};
use countersign_store::ledger::{LedgerEntry, LedgerSource, SourceError};

use crate::pipeline::ledger::read_entry;

/// The journal's ledger logs, as the view reads them.
pub struct LedgerLogs {
    pub(super) reader: JournalReader,
}

impl LedgerLogs {
    fn number(&self, log: &Origin) -> Option<LogNumber> {
        let logs = self.reader.logs();
        logs.iter()
            .find(|info| info.origin == log.as_str())
            .map(|info| info.number)
    }

    fn find(&self, log: &Origin, sequence: u64) -> Result<LogNumber, SourceError> {
        self.number(log).ok_or_else(|| SourceError {
            log: log.clone(),
            sequence,
            cause: "there is no such log in the journal".into(),
        })
    }
}

impl LedgerSource for LedgerLogs {
    fn logs(&self) -> Vec<(Origin, u64)> {
        let logs = self.reader.logs();
        logs.iter()
            .filter(|info| info.kind == LogKind::Ledger)
            .filter_map(|info| Some((info.origin.parse().ok()?, self.reader.size(info.number)?)))
            .collect()
    }

    fn leaf_hash(&self, log: &Origin, sequence: u64) -> Result<Hash, SourceError> {
        let number = self.find(log, sequence)?;
        self.reader
            .leaf_hash(number, sequence)
            .map_err(|error| SourceError {
                log: log.clone(),
                sequence,
                cause: error.into(),
            })
    }

    fn entries(
        &self,
        log: &Origin,
        from: u64,
        max: usize,
    ) -> Result<Vec<LedgerEntry>, SourceError> {
        let number = self.find(log, from)?;
        let runs = self
            .reader
            .read(number, from, max as u64, 8 << 20)
            .map_err(|error| SourceError {
                log: log.clone(),
                sequence: from,
                cause: error.into(),
            })?;
        Ok(runs
            .iter()
            .flat_map(|run| run.iter())
            .take(max)
            .map(|stored| read_entry(&stored, countersign_tlog::leaf_hash(stored.entry)))
            .collect())
    }
}
