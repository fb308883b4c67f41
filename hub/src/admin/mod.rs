//! The operator's side of a running hub: verbs over `DATA/admin.sock`.
//!
//! One JSON object a line, request then answer, as many as wanted on a connection:
//! `{"verb": "accounts approve", "account": "weir1…"}` → `{"ok": {…}}` or
//! `{"error": {"code": …, "message": …, "hint": …, "exit": …}}`.
//! The socket has mode 0600: whoever can open it is the operator.
//!
//! - [`request`]: the verbs. [`report`]: the shapes of the answers.
//! - [`desk`]: carries a verb out on a running hub. [`offline`]: reads when none is running.
//! - [`socket`], [`client`]: the two ends of the line.
//! - [`settle`]: windows, plans, operators. `debit`: mandates and direct debits.
//! - [`compactor`]: writes snapshots, one at a time.
//!
//! It owns no state of the hub and no rule: verbs become acts, reads, or a run of settlement.

pub mod client;
pub mod compactor;
mod debit;
pub mod desk;
pub mod offline;
pub mod report;
pub mod request;
pub mod settle;
pub mod socket;
pub mod sweep;

use serde::{Deserialize, Serialize};
use weir_protocol::reject::{Reaction, Reject};

/// The socket in the data directory.
pub const SOCKET: &str = "admin.sock";

/// Why a verb was not carried out, as it travels. The codes are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// For programs: a refusal's name, or one of `malformed`, `unavailable`, `failed`.
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// The exit code of a command that meets it.
    pub exit: u8,
}

impl Fault {
    /// Something failed or is refused; trying again does not help by itself.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: None, exit: 1 }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Reject> for Fault {
    fn from(reject: Reject) -> Self {
        let fault = Self::new(reject.name(), reject.to_string());
        match (reject, reject.reaction()) {
            (Reject::Stopped, _) => Self {
                exit: 3,
                ..fault.hint("`weir-hub status` says why; a set clock waits for `weir-hub clock confirm`, an ended certificate for `weir-hub certify` and a new start")
            },
            (_, Reaction::Retry) => Self { exit: 3, ..fault },
            _ => fault,
        }
    }
}
