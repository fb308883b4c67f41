//! The operator's verbs as they travel.

use serde::{Deserialize, Serialize};
use weir_protocol::act::SignedAct;
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId};
use weir_protocol::keys::PublicKey;

use super::Fault;
use super::settle::{FeesRow, LastRow, Usual};
use crate::settlement::Cursor;
use crate::settlement::collect::Wish;
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
    /// The bounds of an account, set if any is given.
    #[serde(rename = "accounts limits")]
    AccountsLimits {
        /// Which.
        account: AccountId,
        /// All three, or none to look only. Zero: as for everybody.
        #[serde(default)]
        set: Option<LimitSet>,
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
    /// What may be told the bank is told; where nobody need agree, the open window is settled.
    #[serde(rename = "settle run")]
    SettleRun {
        /// Which window; none: what there is.
        #[serde(default)]
        window: Option<u64>,
        /// Who is paid out below the minimum.
        #[serde(default)]
        last: Option<LastRow>,
        /// Only say what it would do.
        dry_run: bool,
    },
    /// A page of a window's report.
    #[serde(rename = "settle report")]
    SettleReport {
        /// Which window.
        #[serde(default)]
        window: Option<u64>,
        /// Which is meant when none is named.
        usual: Usual,
        /// Who would be paid out below the minimum.
        #[serde(default)]
        last: Option<LastRow>,
        /// Only accounts after this place.
        #[serde(default)]
        after: Option<Cursor>,
    },
    /// The open window is cut off, and no more.
    #[serde(rename = "settle cutoff")]
    SettleCutoff {},
    /// The plan of a window, for an operator to sign.
    #[serde(rename = "settle proposal")]
    SettleProposal {
        /// Which window.
        window: u64,
        /// Which currency.
        currency: Currency,
    },
    /// Where files of plans wait.
    #[serde(rename = "settle staged")]
    SettleStaged {},
    /// A plan is given up by the hub itself.
    #[serde(rename = "settle abort")]
    SettleAbort {
        /// Which window.
        window: u64,
        /// Which currency.
        currency: Currency,
        /// The plan's digest.
        plan: Hash,
        /// Why.
        reason: String,
    },
    /// Something that an operator signed.
    #[serde(rename = "sign")]
    Sign {
        /// The act with its signature.
        signed: Box<SignedAct>,
    },
    /// Who the operators are.
    #[serde(rename = "operators list")]
    OperatorsList {},
    /// A key begins or ends to be an operator's, by the hub itself.
    #[serde(rename = "operators change")]
    OperatorsChange {
        /// The key.
        key: PublicKey,
        /// Whether it is to stand.
        stands: bool,
        /// Whose it is.
        name: String,
    },
    /// What an account's fees are.
    #[serde(rename = "fees show")]
    FeesShow {
        /// Whose.
        account: AccountId,
    },
    /// An account's fees change, by the hub itself.
    #[serde(rename = "fees change")]
    FeesChange {
        /// To what.
        fees: FeesRow,
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
    /// All mandates.
    #[serde(rename = "mandates list")]
    MandatesList {},
    /// The hub collects under a mandate from now on; or what counts at once changes.
    #[serde(rename = "mandates accept")]
    MandatesAccept {
        /// Which.
        mandate: MandateName,
        /// How much CORE money counts at once; none: as the settings say.
        at_once: Option<Amount>,
    },
    /// It does no longer.
    #[serde(rename = "mandates end")]
    MandatesEnd {
        /// Which.
        mandate: MandateName,
    },
    /// All direct debits.
    #[serde(rename = "debit list")]
    DebitList {},
    /// The bank is told to collect.
    #[serde(rename = "debit collect")]
    DebitCollect {
        /// What.
        wish: Wish,
        /// Only say what it would do.
        dry_run: bool,
    },
    /// A collection for an operator to sign.
    #[serde(rename = "debit proposal")]
    DebitProposal {
        /// What.
        wish: Wish,
    },
    /// A planned collection, for another operator to agree to, or to be given up.
    #[serde(rename = "debit planned")]
    DebitPlanned {
        /// Which.
        collection: u64,
    },
    /// The bank is told of a planned collection.
    #[serde(rename = "debit run")]
    DebitRun {
        /// Which.
        collection: u64,
        /// Only say what it would do.
        dry_run: bool,
    },
    /// The state is written beside the journal.
    #[serde(rename = "snapshot")]
    Snapshot {},
    /// The wall clock is right.
    #[serde(rename = "clock confirm")]
    ClockConfirm {},
}

/// An account's own bounds. Zero: as for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSet {
    /// Most that one payment of the account's may be.
    pub payment_max: Amount,
    /// Most that a deposit may bring available and locked money to.
    pub balance_max: Amount,
    /// Most that it may lock in channels on one day.
    pub day_max: Amount,
}

/// Names a mandate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MandateName {
    /// The account.
    pub account: AccountId,
    /// Its id; none: the only one that waits, or, to end it, the one in force.
    pub mandate_id: Option<String>,
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
            | Self::Snapshot {}
            | Self::MandatesList {}
            | Self::DebitList {}
            | Self::DebitProposal { .. }
            | Self::DebitPlanned { .. }
            | Self::SettleReport { .. }
            | Self::SettleProposal { .. }
            | Self::SettleStaged {}
            | Self::OperatorsList {}
            | Self::FeesShow { .. } => false,
            Self::ReconcileResolve { dry_run, .. }
            | Self::ChannelsClose { dry_run, .. }
            | Self::DebitCollect { dry_run, .. }
            | Self::DebitRun { dry_run, .. }
            | Self::SettleRun { dry_run, .. } => !*dry_run,
            Self::ChannelsCloseIdle { confirm, .. } => confirm.is_some(),
            Self::AccountsLimits { set, .. } => set.is_some(),
            Self::AccountsApprove { .. }
            | Self::AccountsFreeze { .. }
            | Self::MandatesAccept { .. }
            | Self::MandatesEnd { .. }
            | Self::SettleCutoff {}
            | Self::SettleAbort { .. }
            | Self::Sign { .. }
            | Self::OperatorsChange { .. }
            | Self::FeesChange { .. }
            | Self::ClockConfirm {} => true,
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
