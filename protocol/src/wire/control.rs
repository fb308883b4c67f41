//! The control stream: requests with ids, replies in any order.

use serde::{Deserialize, Serialize};

use super::hello::{Cursor, KeyScope};
use crate::act::{MandateScheme, Policy, SignedAct};
use crate::amount::{Amount, Currency, Time};
use crate::channel::{ChannelTerms, LaneGrant};
use crate::commit::{ActProof, Answer, SignedCertificate, SignedCommit};
use crate::hash::Hash;
use crate::id::{AccountId, ChannelId, LaneId, Reference};
use crate::keys::{PublicKey, Signature};
use crate::payment::{Head, Payment};
use crate::reject::Reject;

/// Entries in one page of a list.
pub const MAX_PAGE: usize = 256;

/// A request with the client's number for it, unique among those in flight on the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMessage {
    /// Comes back with the reply.
    pub id: u64,
    /// The request.
    pub request: Request,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyMessage {
    /// The request's number.
    pub id: u64,
    /// The reply, or why not.
    pub reply: Result<Reply, Reject>,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Proves a key on this connection.
    Prove {
        /// What the key is for.
        scope: KeyScope,
        /// The key.
        key: PublicKey,
        /// Over [`crate::wire::hello_digest`].
        signature: Signature,
    },
    /// Does something: the author's key need not be proven, the act's own signature counts.
    Act(SignedAct),
    /// The hub's rules and time.
    Hub,
    /// An account's balances. Needs its key.
    Account(AccountId),
    /// Where to send money for this account. Needs its key.
    DepositInstructions {
        /// The account.
        account: AccountId,
        /// The currency.
        currency: Currency,
    },
    /// The account's channels, by id. Needs its key.
    Channels {
        /// The account.
        account: AccountId,
        /// Only ids above this one.
        after: Option<ChannelId>,
    },
    /// One channel. Needs the account's, the channel's or one of its lanes' keys.
    Channel(ChannelId),
    /// The lanes of a channel, by number. Needs the account's or the channel's key.
    Lanes {
        /// The channel.
        channel: ChannelId,
        /// The first number wanted.
        from: u32,
    },
    /// One group of a lane with its answer: the first that reaches beyond `since`. Needs the account's, channel's or lane's key.
    History {
        /// The lane.
        lane: LaneId,
        /// The last sequence already known.
        since: u64,
    },
    /// What happened to an account, oldest first. Needs its key.
    Statement {
        /// The account.
        account: AccountId,
        /// Entries of the commits after this one.
        after: Cursor,
        /// How many entries of the first of them are known already.
        skip: u32,
    },
    /// A commit's header and its place in the newest history.
    Commit {
        /// The number.
        number: u64,
    },
    /// Evidence, up to the newest commit. Needs a key of what it is about.
    Evidence(EvidenceSubject),
    /// An account's statement of a window, in a form of its choice. Needs its key.
    WindowStatement {
        /// The account.
        account: AccountId,
        /// The window; none: the one that was cut off last, or the open one when none was.
        window: Option<u64>,
        /// The form.
        form: StatementForm,
    },
    /// The account's mandates, by id. Needs its key.
    Mandates(AccountId),
}

/// What evidence is wanted of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvidenceSubject {
    /// A channel. Needs the account's or the channel's key.
    Channel(ChannelId),
    /// A payment that was made. Needs the account's, channel's or lane's key.
    Payment {
        /// The lane.
        lane: LaneId,
        /// The payment's sequence.
        sequence: u64,
    },
    /// A payment that was received. Needs the payee's key.
    Receipt {
        /// The number of its commit.
        commit: u64,
        /// The group's index in it.
        group: u32,
        /// The payment's index in the group.
        leaf: u32,
    },
    /// A payout. Needs the account's key.
    Payout {
        /// The account.
        account: AccountId,
        /// The window.
        window: u64,
        /// The currency.
        currency: Currency,
    },
    /// An act of an account, or of the hub about it; a cut-off, plan, instruction or settlement of a window. Needs the
    /// account's key.
    Act {
        /// The account.
        account: AccountId,
        /// The number of its commit.
        commit: u64,
        /// Its index in it.
        item: u32,
    },
}

/// The form of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatementForm {
    /// An object.
    Json,
    /// Comma-separated values.
    Csv,
    /// One page that needs nothing else.
    Html,
}

/// What the hub replies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The key is proven.
    Proven,
    /// The act is done and durable.
    Done(Box<Done>),
    /// The hub.
    Hub(Box<HubInfo>),
    /// Balances.
    Account(Box<AccountInfo>),
    /// Where to send money.
    DepositInstructions(DepositInstructions),
    /// Channels; fewer than [`MAX_PAGE`] when there are no more.
    Channels(Vec<ChannelInfo>),
    /// A channel.
    Channel(Box<ChannelInfo>),
    /// Lanes; fewer than [`MAX_PAGE`] when there are no more.
    Lanes(Vec<LaneInfo>),
    /// A group, or nothing beyond `since`.
    History(Option<Box<HistoryGroup>>),
    /// Entries, and where to go on from; no entries and the same cursor: nothing more for now.
    Statement {
        /// What happened.
        entries: Vec<StatementEntry>,
        /// Everything up to this commit was given.
        through: Cursor,
        /// How many entries of the next commit that has any were given: the next request's `skip`.
        skip: u32,
    },
    /// A commit.
    Commit(Box<CommitInfo>),
    /// Evidence: to be checked like a stranger's.
    Evidence(Box<crate::evidence::Evidence>),
    /// A statement, as text in the form that was asked for.
    WindowStatement(String),
    /// Mandates, all of them: an account has at most 64.
    Mandates(Vec<MandateInfo>),
}

/// The result of an act: what was taken, and what it led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The act as recorded; for a close request, the close that it led to.
    pub act: crate::act::Act,
    /// Its place in its commit.
    pub proof: ActProof,
}

/// The hub's rules and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubInfo {
    /// The rules in force.
    pub policy: Policy,
    /// The hub's time.
    pub time: Time,
    /// The newest durable commit.
    pub newest: Cursor,
}

/// An account as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInfo {
    /// The account.
    pub account: AccountId,
    /// Its name.
    pub name: String,
    /// Where payouts go.
    pub iban: String,
    /// Whether it may act.
    pub approved: bool,
    /// Whether payments to it are refused.
    pub frozen_incoming: bool,
    /// Whether payments by it are refused.
    pub frozen_outgoing: bool,
    /// The last number taken from its key.
    pub number: u64,
    /// Per currency.
    pub balances: Vec<Balance>,
}

/// Where a mandate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MandateStanding {
    /// For the operator.
    Waiting,
    /// The hub collects under it.
    Accepted,
    /// Nothing is collected under it any more.
    Ended,
}

/// A mandate as its account's owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MandateInfo {
    /// What names it at the banks.
    pub mandate_id: String,
    /// The rules.
    pub scheme: MandateScheme,
    /// The bank account that is debited.
    pub iban: String,
    /// When it was signed.
    pub signed_at: Time,
    /// Where it stands.
    pub standing: MandateStanding,
    /// Of what can still be taken back, so much counts as available at once.
    pub at_once: Amount,
    /// For so many days the rest stays provisional.
    pub provisional_days: u32,
}

/// An account's money in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// The currency.
    pub currency: Currency,
    /// Free to open channels with or to withdraw.
    pub available: Amount,
    /// Locked in open channels and not spent.
    pub locked: Amount,
    /// Earned in the open window.
    pub earned: Amount,
    /// Earned in windows that are cut off, less fees, not yet paid out.
    pub payable: Amount,
    /// Marked for payout by its owner.
    pub marked: Amount,
    /// On its way to the bank account.
    pub in_transit: Amount,
    /// Collected by direct debit and not to be spent yet: its debtor may still take it back.
    pub provisional: Amount,
}

/// Where to send money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositInstructions {
    /// The hub's bank account.
    pub iban: String,
    /// Its holder.
    pub name: String,
    /// The bank.
    pub bic: String,
    /// The creditor reference (ISO 11649) that says whose money it is.
    pub reference: String,
    /// The currency.
    pub currency: Currency,
}

/// A channel as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    /// Its id.
    pub channel: ChannelId,
    /// As signed when it was opened.
    pub terms: ChannelTerms,
    /// The capacity now.
    pub capacity: Amount,
    /// The expiry now.
    pub expires_at: Time,
    /// The consent to roll now.
    pub renew: bool,
    /// Spent in its life, on all lanes.
    pub spent: Amount,
    /// Set aside for live reserved lanes and not spent by them.
    pub reserved: Amount,
    /// Lanes ever granted, lane 0 included.
    pub lanes: u32,
    /// How often it rolled.
    pub rolls: u64,
    /// The last number taken from its key.
    pub number: u64,
    /// Whether it is closed.
    pub closed: bool,
}

/// A lane as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneInfo {
    /// Its id.
    pub lane: LaneId,
    /// As granted.
    pub grant: LaneGrant,
    /// Its head.
    pub head: Head,
    /// The highest sequence that is voided or taken.
    pub void_through: u64,
    /// Spent in the period of its last payment; its total when it has no periods.
    pub spent_in_period: Amount,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// A group of a lane, with everything that the payer needs to rebuild its states and leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryGroup {
    /// Payments with their sequences, ascending.
    pub payments: Vec<(u64, Payment)>,
    /// The head that the group leads to.
    pub head: Head,
    /// The lane key's signature over that head.
    pub signature: Signature,
    /// The hub's answer, as given then.
    pub answer: Answer,
    /// Which key signed the commit.
    pub certificate: SignedCertificate,
}

/// One thing that happened to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementEntry {
    /// The commit.
    pub at: Cursor,
    /// The commit's time.
    pub time: Time,
    /// What.
    pub what: StatementItem,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatementItem {
    /// It was paid by somebody.
    Earned {
        /// The group's index in the commit.
        group: u32,
        /// The payment's index in the group.
        leaf: u32,
        /// The payment.
        payment_id: crate::id::PaymentId,
        /// How much.
        amount: Amount,
        /// The currency.
        currency: Currency,
        /// What for.
        reference: Reference,
    },
    /// A group of payments of one of its channels.
    Paid {
        /// The channel.
        channel: ChannelId,
        /// The lane's number.
        lane: u32,
        /// Payments in the group.
        count: u32,
        /// Their sum.
        amount: Amount,
        /// The currency.
        currency: Currency,
    },
    /// An act of its own or of the hub about it.
    Act(crate::act::Act),
}

/// A commit and its place in the newest history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitInfo {
    /// The commit asked for.
    pub commit: SignedCommit,
    /// Which key signed it.
    pub certificate: SignedCertificate,
    /// The newest durable commit, whose history covers all before it.
    pub newest: SignedCommit,
    /// Which key signed the newest.
    pub newest_certificate: SignedCertificate,
    /// Inclusion path of the commit's id as leaf `number − 1` of `newest.number − 1`; empty for the newest itself.
    pub path: Vec<Hash>,
}
