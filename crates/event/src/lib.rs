//! CloudEvents, entries, content commitments and signed documents.
