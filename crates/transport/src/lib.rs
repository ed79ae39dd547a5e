//! The servers: QUIC sessions and the HTTP door; the only listening sockets.
