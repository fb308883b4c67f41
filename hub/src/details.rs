//! What names a bank account and its holder: IBAN, BIC, names and texts as banks take them. Checked once, when made.
//!
//! Shared by the engine, which refuses a registration that no bank could pay, and by `bank`, which writes the files.
//! Pure: it must not know accounts of the hub, files, or money.

mod account;
mod text;

pub use account::{AccountError, Bic, Currency, Iban};
pub(crate) use account::{clip, compact};
pub(crate) use text::is_bank_char;
pub use text::{TextError, bank_name, check_identifier, check_remittance};
