//! The integration tests of the workspace, in one binary: one module a subject.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

mod architecture;
mod tour;
