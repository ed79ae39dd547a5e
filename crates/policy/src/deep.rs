//! Room on the stack for Cedar, which recurses over the policies it is given.
//!
//! Cedar's evaluator and type checker notice a stack that is nearly used up; its parser does not, and would end the process.
//! What a policy may nest is limited where it is loaded; here the stack gets the room that those limits need, so that
//! neither loading nor a decision depends on how deep the caller already is.

/// Frames of an unoptimised build are several times as large.
const SCALE: usize = if cfg!(debug_assertions) { 8 } else { 1 };

/// Room for parsing and validating one policy at its limits. Measured unoptimised: 24 levels of brackets take 50 KiB each and
/// 128 operators in a chain 25 KiB each, 5 MiB in all. Pages that are not used are not taken.
const LOAD_BYTES: usize = 16 * 1024 * 1024;

/// Room that a decision needs at the same limits. Measured optimised: 128 operators in a chain and 24 levels of brackets take
/// 5.3 KiB each, and the evaluator keeps 100 KiB: 0.9 MiB in all.
const DECIDE_BYTES: usize = SCALE * 1024 * 1024;

/// The stack that a decision gets where less than [`DECIDE_BYTES`] is left.
const DECIDE_NEW_BYTES: usize = 2 * DECIDE_BYTES;

/// Runs `load` with room for the deepest policy that is taken.
pub(crate) fn load<R>(load: impl FnOnce() -> R) -> R {
    stacker::grow(LOAD_BYTES, load)
}

/// Runs `decide` with room for evaluating the deepest policy that is taken. Costs nothing where the room is there.
pub(crate) fn decide<R>(decide: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(DECIDE_BYTES, DECIDE_NEW_BYTES, decide)
}
