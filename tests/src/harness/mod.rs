//! Real processes, real QUIC, real `kill -9`: a hub in a directory of its own, its bank, its people, and what its journal
//! holds. Knows no rule of the hub; whatever fails here fails the test that asked.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

pub mod bank;
pub mod books;
pub mod orders;
pub mod payer;
pub mod people;
pub mod place;
pub mod random;
pub mod raw;
pub mod relay;
pub mod shop;
