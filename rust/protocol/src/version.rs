//! Generations: the number every envelope carries, and our own extension on top of it.

/// The wire generation of `{v, t, p}` envelopes: the one the hosted service speaks.
pub const GENERATION: u32 = 7;

/// Oldest envelope generation still understood.
pub const GENERATION_MIN: u32 = 1;

/// Our superset: hello with a token, flow-control credits, drain and out-of-memory verdicts, whole-file calls, stats.
pub const EXTENSION: u32 = 1;

/// Oldest extension still understood.
pub const EXTENSION_MIN: u32 = 1;

/// What both sides can use: the lower of the two maxima, if it reaches both minima.
///
/// ```
/// use microsandbox_protocol::version::negotiate;
/// assert_eq!(negotiate((1, 3), (2, 5)), Some(3));
/// assert_eq!(negotiate((1, 1), (2, 5)), None);
/// ```
pub fn negotiate(ours: (u32, u32), theirs: (u32, u32)) -> Option<u32> {
    let usable = ours.1.min(theirs.1);
    (usable >= ours.0 && usable >= theirs.0).then_some(usable)
}
