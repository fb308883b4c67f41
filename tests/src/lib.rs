//! The harness that Weir's tests share.

pub mod harness;
