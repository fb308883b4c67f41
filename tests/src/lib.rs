//! The harness that Weir's tests share, and the simulator.

pub mod harness;
pub mod scale;
pub mod sim;
