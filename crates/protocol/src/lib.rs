//! Messages and framing between nodes: bytes in, bytes out.
