//! When windows are cut off.
