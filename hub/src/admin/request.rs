//! The operator's verbs as they travel.

use serde::{Deserialize, Serialize};
use weir_protocol::id::{AccountId, ChannelId};

use super::Fault;
use crate::settlement::resolve::Decision;

/// Longest line of a request, in bytes without its line feed.
pub const REQUEST_BYTES_MAX: usize = 16 << 10;
/// Entries of one page of a list.
pub const PAGE: usize = 256;

/// What the operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", deny_unknown_fields)]
pub enum Request {
    /// How the hub is.
    #[serde(rename = "status")]
    Status {},
    /// A page of accounts, by id.
    #[serde(rename = "accounts list")]
    AccountsList {
        /// Only those above this id.
        #[serde(default)]
        after: Option<AccountId>,
        /// Only those that wait for approval.
        #[serde(default)]
        waiting: bool,
    },
    /// An account may act from now on.
    #[serde(rename = "accounts approve")]
    AccountsApprove {
        /// Which.
        account: AccountId,
    },
    /// An account's payments are refused, or no longer.
    #[serde(rename = "accounts freeze")]
    AccountsFreeze {
        /// Which.
        account: AccountId,
        /// Whether payments to it are refused.
        incoming: bool,
        /// Whether payments, openings and withdrawals by it are refused.
        outgoing: bool,
        /// Why.
        reason: String,
    },
    /// A page of channels, by id.
    #[serde(rename = "channels list")]
    ChannelsList {
        /// Only those above this id.
        #[serde(default)]
        after: Option<ChannelId>,
        /// Only this account's.
        #[serde(default)]
        account: Option<AccountId>,
    },
    /// A channel ends.
    #[serde(rename = "channels close")]
    ChannelsClose {
        /// Which.
        channel: ChannelId,
        /// Only say what it would do.
        dry_run: bool,
    },
    /// Channels of which nothing was heard for long end.
    #[serde(rename = "channels close-idle")]
    ChannelsCloseIdle {
        /// For how long.
        idle_ms: u64,
        /// What the dry run said to confirm; none: a dry run.
        confirm: Option<String>,
    },
    /// The open window is settled.
    #[serde(rename = "settle run")]
    SettleRun {
        /// Only say what it would do.
        dry_run: bool,
    },
    /// Bank against ledger.
    #[serde(rename = "reconcile")]
    Reconcile {},
    /// A break is decided.
    #[serde(rename = "reconcile resolve")]
    ReconcileResolve {
        /// The break or entry.
        id: String,
        /// What is decided.
        decision: Decision,
        /// Only say what it would do.
        dry_run: bool,
    },
    /// Entries of the bank that nobody owns.
    #[serde(rename = "suspense list")]
    SuspenseList {},
    /// The state is written beside the journal.
    #[serde(rename = "snapshot")]
    Snapshot {},
    /// The wall clock is right.
    #[serde(rename = "clock confirm")]
    ClockConfirm {},
}

impl Request {
    /// Whether asking twice could do something twice or otherwise than asked, so that a lost answer leaves it open.
    pub const fn changes(&self) -> bool {
        match self {
            Self::Status {}
            | Self::AccountsList { .. }
            | Self::ChannelsList { .. }
            | Self::Reconcile {}
            | Self::SuspenseList {}
            | Self::Snapshot {} => false,
            Self::ReconcileResolve { dry_run, .. } => !*dry_run,
            Self::ChannelsClose { dry_run, .. } | Self::SettleRun { dry_run } => !*dry_run,
            Self::ChannelsCloseIdle { confirm, .. } => confirm.is_some(),
            Self::AccountsApprove { .. } | Self::AccountsFreeze { .. } | Self::ClockConfirm {} => true,
        }
    }
}

/// An answer as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It was done, or is so.
    #[serde(rename = "ok")]
    Done(serde_json::Value),
    /// It was not done.
    #[serde(rename = "error")]
    Fault(Fault),
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_read_as_documented_and_unknown_ones_are_refused() {
        assert_eq!(serde_json::from_str::<Request>(r#"{"verb":"status"}"#).unwrap(), Request::Status {});
        let close = format!(r#"{{"verb":"channels close","channel":"{}","dry_run":true}}"#, "ab".repeat(32));
        let close: Request = serde_json::from_str(&close).unwrap();
        assert_eq!(close, Request::ChannelsClose { channel: ChannelId([0xab; 32]), dry_run: true });
        assert!(!close.changes());
        for bad in ["", "{}", r#"{"verb":"stop"}"#, r#"{"verb":"status","x":1}"#, r#"{"verb":"settle run"}"#, "[]"] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused_without_panic(line in ".{0,200}") {
            let _ = serde_json::from_str::<Request>(&line);
        }
    }
}
