//! The exchange node: configuration, composition, command line.
