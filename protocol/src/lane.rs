//! The lane as a state machine without I/O, on both sides: [`payer`] makes frames and settles what became of each payment,
//! [`hub`] takes or refuses them. Time and keys are arguments; `now` is only ever compared.

pub mod hub;
pub mod payer;
