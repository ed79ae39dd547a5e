//! Cedar authorization: principal, action, resource and context in, decision with reasons out.
