//! The hub's side of a lane.
