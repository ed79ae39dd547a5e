//! The pipeline of one event on both sides, as stages; owns no socket and no clock.
