//! The payer's side of a lane.
