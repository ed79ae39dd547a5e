//! The log's storage and the queryable view of the ledger.
