//! What is told from the journal: evidence for third parties, statements for participants, the journal for other ledgers.
//!
//! Reads only; holds no rule of money: what was booked is what the engine books when it judges the journal again.

pub mod evidence;
pub mod export;
pub mod replay;
pub mod statement;
