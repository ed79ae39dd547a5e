//! Independent checker of exported evidence.
