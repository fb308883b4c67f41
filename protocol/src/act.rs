//! Acts: everything besides payments that changes the hub's state. One enum serves wire, journal and evidence.
//!
//! An act as hashed = hub 32 ‖ its fields in the order of the struct; its digest = `H("weir/<kind>", act)`. Two acts have
//! preimages of their own: `open` (the terms) and `grant`. Whoever authors an act signs its digest; the hub's own acts
//! carry no signature, the commit's covers them.

mod collection;
mod limits;
mod settlement;

use serde::{Deserialize, Serialize};

pub use self::collection::{
    ApproveCollect, Collect, Collected, CollectionWord, MAX_MANDATE_ID, MAX_PROVISIONAL_DAYS, Mandate, MandateScheme,
    MandateTerms,
};
pub use self::limits::Limits;
use crate::amount::{Amount, Currency, Time};
use crate::channel::{ChannelTerms, LaneGrant};
use crate::hash::{Fixed, Hash, Preimage, Tag, tag};
use crate::id::{AccountId, ChannelId, HubId, LaneId, PaymentId};
use crate::keys::{PublicKey, SecretKey, Signature};

pub use settlement::{
    Abort, Approval, ApproveIban, BASIS_POINTS, Earnings, EarningsUse, FeeSchedule, Fees, ForceFinal, Operator, Plan,
};

/// Most bytes of a name.
pub const MAX_NAME: usize = 70;
/// Most bytes of a bank account number.
pub const MAX_IBAN: usize = 34;
/// Most bytes of any other text in an act.
pub const MAX_TEXT: usize = 140;
/// Most currencies in a policy.
pub const MAX_CURRENCIES: usize = 32;

/// A chain of commits begins; the first item of its first commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The chain before; 0 for the first.
    pub previous_chain: u64,
    /// The last commit of it that is kept; 0 for the first.
    pub kept_number: u64,
    /// That commit's id; zeros for the first.
    pub kept_id: Hash,
    /// The highest number known to have been signed on the chain before and now given up; 0 when none is.
    pub cut: u64,
}

/// Which key signs for the hub, and when. Signed by the identity key, which signs nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The signing key.
    pub key: PublicKey,
    /// From this time on, inclusive.
    pub not_before: Time,
    /// Until before this time.
    pub not_after: Time,
}

/// The hub's rules. A new policy replaces the old one whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Whether an account may act without the operator's approval.
    pub open_registration: bool,
    /// Days after a payment in which its payee may refund it.
    pub refund_days: u32,
    /// Most that one payment may be; zero: no bound.
    pub payment_max: Amount,
    /// Least that is paid out; less is carried over.
    pub payout_min: Amount,
    /// Hundredths of a percent of what an account earned in a window, rounded down to a nano.
    pub fee_basis_points: u32,
    /// Besides, for each payment that it received in the window.
    pub fee_per_payment: Amount,
    /// At least this in a window in which it earned something; never more than it earned.
    pub fee_minimum: Amount,
    /// How many operators besides the planner must agree before the bank is told.
    pub approvals: u32,
    /// The currencies that the bank connectors pay out.
    pub currencies: Vec<Currency>,
}

/// An account and its bank details; sent again with a greater number to change them. Signed by the account key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Above the last number taken from the account key.
    pub number: u64,
    /// The account.
    pub account: AccountId,
    /// Who it is, as the bank account is named.
    pub name: String,
    /// Where payouts go.
    pub iban: String,
}

/// The operator approves an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approve {
    /// The account.
    pub account: AccountId,
}

/// The operator freezes or releases an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// The account.
    pub account: AccountId,
    /// Whether payments to it are refused.
    pub incoming: bool,
    /// Whether payments, openings and withdrawals by it are refused.
    pub outgoing: bool,
    /// Why.
    pub reason: String,
}

/// Money arrived at the bank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposit {
    /// Whose it is; `None` (zeros): suspense.
    pub account: Option<AccountId>,
    /// The currency.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
    /// The bank connector.
    pub connector: String,
    /// The bank's own reference of the entry: a deposit with a known one is never posted again.
    pub bank_reference: String,
}

/// A lane ends. Signed by the channel key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// Above the last number taken from the channel key.
    pub number: u64,
    /// The channel.
    pub channel: ChannelId,
    /// The lane's number.
    pub lane: u32,
}

/// A channel's capacity, expiry and consent to roll. Signed by the account key. Capacity and expiry only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amend {
    /// Above the last number taken from the account key.
    pub number: u64,
    /// The channel.
    pub channel: ChannelId,
    /// The new capacity.
    pub capacity: Amount,
    /// The new expiry.
    pub expires_at: Time,
    /// Whether the channel may roll.
    pub renew: bool,
}

/// The hub gives up sequences of a lane for ever: none in (`sequence`, `void_through`] is ever taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Void {
    /// The lane.
    pub lane: LaneId,
    /// The lane's head, hashed.
    pub head: Hash,
    /// The head's sequence.
    pub sequence: u64,
    /// The head's total.
    pub total: Amount,
    /// The last sequence given up.
    pub void_through: u64,
}

/// A payer asks that a channel be closed. Signed by the account key or the channel key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseRequest {
    /// Above the last number taken from the key that signs.
    pub number: u64,
    /// The channel.
    pub channel: ChannelId,
}

/// Why a channel was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseCause {
    /// The payer asked: `request` is the digest of the request.
    Request,
    /// Its expiry passed.
    Expiry,
    /// The operator closed it.
    Operator,
}

impl CloseCause {
    /// The number in a preimage.
    pub const fn code(self) -> u16 {
        match self {
            Self::Request => 0,
            Self::Expiry => 1,
            Self::Operator => 2,
        }
    }
}

/// A channel is closed, finally: everything beyond the heads is void on all its lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The channel.
    pub channel: ChannelId,
    /// Why.
    pub cause: CloseCause,
    /// The digest of the request; zeros for another cause.
    pub request: Hash,
    /// Merkle root of the heads of every lane ever granted, by number.
    pub root: Hash,
    /// Spent in the channel's whole life.
    pub spent: Amount,
    /// Given back to the account.
    pub returned: Amount,
}

/// A channel's books close for a window, and it runs on untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roll {
    /// The channel.
    pub channel: ChannelId,
    /// Counts the channel's rolls from 1.
    pub roll: u64,
    /// Merkle root of the heads of every lane ever granted, by number.
    pub root: Hash,
    /// Spent in the channel's whole life.
    pub spent: Amount,
    /// The capacity.
    pub capacity: Amount,
    /// The new expiry.
    pub expires_at: Time,
}

/// A payee gives money back. Signed by the payee's account key. Cumulative, so it cannot work twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// The chain of the payment's commit.
    pub chain: u64,
    /// The number of the payment's commit.
    pub commit: u64,
    /// The group's index in the commit.
    pub group: u32,
    /// The payment's index in the group.
    pub leaf: u32,
    /// The payment.
    pub payment_id: PaymentId,
    /// Refunded of this payment in all, with this refund.
    pub refunded_total: Amount,
}

/// How much balance is marked for payout at the next cut-off: absolute. Signed by the account key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdraw {
    /// Above the last number taken from the account key.
    pub number: u64,
    /// The account.
    pub account: AccountId,
    /// The currency.
    pub currency: Currency,
    /// The amount that is marked from now on; zero takes the mark back.
    pub marked: Amount,
}

/// A window is cut off: always the last item of its commit, so that the commit's number bounds the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cutoff {
    /// The window.
    pub window: u64,
}

/// A plan goes to the bank: its payouts leave the accounts and are in transit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruct {
    /// The window.
    pub window: u64,
    /// The currency.
    pub currency: Currency,
    /// The plan's digest.
    pub plan: Hash,
}

/// What a bank says of a payout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayoutOutcome {
    /// The bank booked it: it left the hub's bank account.
    Settled,
    /// The bank booked it back: it is in the hub's bank account again, and the payee's account has it.
    Returned,
    /// The bank says that it was not and will not be paid; nothing was booked.
    Refused,
    /// The bank says that it is paid; nothing is booked yet.
    Confirmed,
}

impl PayoutOutcome {
    /// The number in a preimage.
    pub const fn code(self) -> u16 {
        match self {
            Self::Settled => 0,
            Self::Returned => 1,
            Self::Refused => 2,
            Self::Confirmed => 3,
        }
    }
}

/// The bank's word on one payout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The window.
    pub window: u64,
    /// The account.
    pub account: AccountId,
    /// The currency.
    pub currency: Currency,
    /// The payout's amount.
    pub amount: Amount,
    /// What happened.
    pub outcome: PayoutOutcome,
    /// The bank's reference or reason.
    pub reference: String,
}

/// A window is done: nothing of it is in transit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The window.
    pub window: u64,
}

/// Why money left the bank account without a payout of the hub's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DebitCause {
    /// The bank's fees: the hub bears them.
    Charge,
    /// Nobody knows yet.
    Unknown,
}

impl DebitCause {
    /// The number in a preimage.
    pub const fn code(self) -> u16 {
        match self {
            Self::Charge => 0,
            Self::Unknown => 1,
        }
    }
}

/// Money left the bank account, and no payout of the hub's explains it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debit {
    /// Why.
    pub cause: DebitCause,
    /// The currency.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
    /// The bank connector.
    pub connector: String,
    /// The bank's own reference of the entry: one with a known reference is never posted again.
    pub bank_reference: String,
}

/// An entry of the bank that nobody owned gets an owner. Once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocate {
    /// Whose it is; `None` (zeros): the hub's own.
    pub account: Option<AccountId>,
    /// Whether money arrived (1) or left (0).
    pub incoming: bool,
    /// The currency.
    pub currency: Currency,
    /// How much: the whole entry.
    pub amount: Amount,
    /// The bank connector of the entry.
    pub connector: String,
    /// The bank's own reference of the entry.
    pub bank_reference: String,
}

/// What the bank's account statement says the account holds. Its entries are acts of their own, posted before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The currency.
    pub currency: Currency,
    /// The bank connector.
    pub connector: String,
    /// The bank's id of the statement.
    pub statement: String,
    /// The bank's number of it; 0: it has none.
    pub sequence: u64,
    /// Whether the opening balance is below zero.
    pub opening_overdrawn: bool,
    /// The opening balance, without its sign.
    pub opening: Amount,
    /// Whether the closing balance is below zero.
    pub closing_overdrawn: bool,
    /// The closing balance, without its sign.
    pub closing: Amount,
    /// The end of the day of the closing balance, in UTC.
    pub closed_at: Time,
    /// How many booked entries it has.
    pub entries: u32,
    /// SHA-256 of the bank's file.
    pub file: Hash,
}

/// An act. The order of the variants is part of the wire format: new ones come at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is described at its struct")]
pub enum Act {
    Chain(Chain),
    Certificate(Certificate),
    Policy(Policy),
    Register(Register),
    Approve(Approve),
    Freeze(Freeze),
    Deposit(Deposit),
    Open(ChannelTerms),
    Grant(LaneGrant),
    Revoke(Revoke),
    Amend(Amend),
    Void(Void),
    CloseRequest(CloseRequest),
    Close(Close),
    Roll(Roll),
    Refund(Refund),
    Withdraw(Withdraw),
    Cutoff(Cutoff),
    Plan(Plan),
    Instruct(Instruct),
    Outcome(Outcome),
    Settled(Settled),
    Debit(Debit),
    Allocate(Allocate),
    Statement(Statement),
    Operator(Operator),
    Approval(Approval),
    Abort(Abort),
    Fees(Fees),
    ForceFinal(ForceFinal),
    Earnings(Earnings),
    Limits(Limits),
    Mandate(Mandate),
    MandateTerms(MandateTerms),
    Collect(Collect),
    Collected(Collected),
    ApproveIban(ApproveIban),
    ApproveCollect(ApproveCollect),
}

/// Whose signature an act carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// The hub itself: none.
    Hub,
    /// The hub's identity key.
    Identity,
    /// This account's key.
    Account(AccountId),
    /// The key of the account that owns this channel.
    ChannelOwner(ChannelId),
    /// This channel's key.
    Channel(ChannelId),
    /// Either the owner's key or the channel's key.
    ChannelOrOwner(ChannelId),
    /// The payee of the payment.
    Payee(PaymentId),
    /// This operator's key.
    Operator(PublicKey),
}

impl Act {
    /// The number of the kind: part of the hashed item.
    pub const fn kind(&self) -> u16 {
        match self {
            Self::Chain(_) => 1,
            Self::Certificate(_) => 2,
            Self::Policy(_) => 3,
            Self::Register(_) => 4,
            Self::Approve(_) => 5,
            Self::Freeze(_) => 6,
            Self::Deposit(_) => 7,
            Self::Open(_) => 8,
            Self::Grant(_) => 9,
            Self::Revoke(_) => 10,
            Self::Amend(_) => 11,
            Self::Void(_) => 12,
            Self::CloseRequest(_) => 13,
            Self::Close(_) => 14,
            Self::Roll(_) => 15,
            Self::Refund(_) => 16,
            Self::Withdraw(_) => 17,
            Self::Cutoff(_) => 18,
            Self::Plan(_) => 19,
            Self::Instruct(_) => 20,
            Self::Outcome(_) => 21,
            Self::Settled(_) => 22,
            Self::Debit(_) => 23,
            Self::Allocate(_) => 24,
            Self::Statement(_) => 25,
            Self::Operator(_) => 26,
            Self::Approval(_) => 27,
            Self::Abort(_) => 28,
            Self::Fees(_) => 29,
            Self::ForceFinal(_) => 30,
            Self::Earnings(_) => 31,
            Self::Limits(_) => 32,
            Self::Mandate(_) => 33,
            Self::MandateTerms(_) => 34,
            Self::Collect(_) => 35,
            Self::Collected(_) => 36,
            Self::ApproveIban(_) => 37,
            Self::ApproveCollect(_) => 38,
        }
    }

    /// The tag under which the act is hashed.
    pub fn tag(&self) -> &'static Tag {
        match self {
            Self::Chain(_) => &tag::CHAIN,
            Self::Certificate(_) => &tag::CERTIFICATE,
            Self::Policy(_) => &tag::POLICY,
            Self::Register(_) => &tag::REGISTER,
            Self::Approve(_) => &tag::APPROVE,
            Self::Freeze(_) => &tag::FREEZE,
            Self::Deposit(_) => &tag::DEPOSIT,
            Self::Open(_) => &tag::CHANNEL,
            Self::Grant(_) => &tag::LANE,
            Self::Revoke(_) => &tag::REVOKE,
            Self::Amend(_) => &tag::AMEND,
            Self::Void(_) => &tag::VOID,
            Self::CloseRequest(_) => &tag::CLOSE_REQUEST,
            Self::Close(_) => &tag::CLOSE,
            Self::Roll(_) => &tag::ROLL,
            Self::Refund(_) => &tag::REFUND,
            Self::Withdraw(_) => &tag::WITHDRAW,
            Self::Cutoff(_) => &tag::CUTOFF,
            Self::Plan(_) => &tag::PLAN,
            Self::Instruct(_) => &tag::INSTRUCT,
            Self::Outcome(_) => &tag::OUTCOME,
            Self::Settled(_) => &tag::SETTLED,
            Self::Debit(_) => &tag::DEBIT,
            Self::Allocate(_) => &tag::ALLOCATE,
            Self::Statement(_) => &tag::STATEMENT,
            Self::Operator(_) => &tag::OPERATOR,
            Self::Approval(_) => &tag::APPROVAL,
            Self::Abort(_) => &tag::ABORT,
            Self::Fees(_) => &tag::FEES,
            Self::ForceFinal(_) => &tag::FORCE_FINAL,
            Self::Earnings(_) => &tag::EARNINGS,
            Self::Limits(_) => &tag::LIMITS,
            Self::Mandate(_) => &tag::MANDATE,
            Self::MandateTerms(_) => &tag::MANDATE_TERMS,
            Self::Collect(_) => &tag::COLLECT,
            Self::Collected(_) => &tag::COLLECTED,
            Self::ApproveIban(_) => &tag::APPROVE_IBAN,
            Self::ApproveCollect(_) => &tag::APPROVE_COLLECT,
        }
    }

    /// The digest: what the author signs. For an opening it is the channel's id, for a grant the lane's id.
    pub fn digest(&self, hub: &HubId) -> Hash {
        match self {
            Self::Open(terms) => Hash(terms.id().0),
            Self::Grant(grant) => Hash(grant.id().0),
            _ => self.preimage(hub).hash(self.tag()),
        }
    }

    /// Hub ‖ fields. Not used for openings and grants, whose preimages are their own.
    fn preimage(&self, hub: &HubId) -> Preimage {
        let start = Preimage::new().raw(hub.as_bytes());
        match self {
            Self::Open(_) | Self::Grant(_) => start,
            Self::Chain(act) => start.u64(act.previous_chain).u64(act.kept_number).raw(&act.kept_id.0).u64(act.cut),
            Self::Certificate(act) => start.raw(&act.key.0).time(act.not_before).time(act.not_after),
            Self::Policy(act) => {
                let fields = start
                    .flag(act.open_registration)
                    .u32(act.refund_days)
                    .amount(act.payment_max)
                    .amount(act.payout_min)
                    .u32(act.fee_basis_points)
                    .amount(act.fee_per_payment)
                    .amount(act.fee_minimum)
                    .u32(act.approvals)
                    .u32(u32::try_from(act.currencies.len()).unwrap_or(u32::MAX));
                act.currencies.iter().fold(fields, |fields, currency| fields.currency(*currency))
            }
            Self::Register(act) => start.u64(act.number).raw(act.account.as_bytes()).text(&act.name).text(&act.iban),
            Self::Approve(act) => start.raw(act.account.as_bytes()),
            Self::Freeze(act) => {
                start.raw(act.account.as_bytes()).flag(act.incoming).flag(act.outgoing).text(&act.reason)
            }
            Self::Deposit(act) => start
                .raw(act.account.unwrap_or(AccountId::ZERO).as_bytes())
                .currency(act.currency)
                .amount(act.amount)
                .text(&act.connector)
                .text(&act.bank_reference),
            Self::Revoke(act) => start.u64(act.number).raw(&act.channel.0).u32(act.lane),
            Self::Amend(act) => {
                start.u64(act.number).raw(&act.channel.0).amount(act.capacity).time(act.expires_at).flag(act.renew)
            }
            Self::Void(act) => {
                start.raw(&act.lane.0).raw(&act.head.0).u64(act.sequence).amount(act.total).u64(act.void_through)
            }
            Self::CloseRequest(act) => start.u64(act.number).raw(&act.channel.0),
            Self::Close(act) => start
                .raw(&act.channel.0)
                .u16(act.cause.code())
                .raw(&act.request.0)
                .raw(&act.root.0)
                .amount(act.spent)
                .amount(act.returned),
            Self::Roll(act) => start
                .raw(&act.channel.0)
                .u64(act.roll)
                .raw(&act.root.0)
                .amount(act.spent)
                .amount(act.capacity)
                .time(act.expires_at),
            Self::Refund(act) => start
                .u64(act.chain)
                .u64(act.commit)
                .u32(act.group)
                .u32(act.leaf)
                .raw(&act.payment_id.0)
                .amount(act.refunded_total),
            Self::Withdraw(act) => {
                start.u64(act.number).raw(act.account.as_bytes()).currency(act.currency).amount(act.marked)
            }
            Self::Cutoff(act) => start.u64(act.window),
            Self::Plan(act) => act.lay(start),
            Self::Instruct(act) => start.u64(act.window).currency(act.currency).raw(&act.plan.0),
            Self::Outcome(act) => start
                .u64(act.window)
                .raw(act.account.as_bytes())
                .currency(act.currency)
                .amount(act.amount)
                .u16(act.outcome.code())
                .text(&act.reference),
            Self::Settled(act) => start.u64(act.window),
            Self::Debit(act) => start
                .u16(act.cause.code())
                .currency(act.currency)
                .amount(act.amount)
                .text(&act.connector)
                .text(&act.bank_reference),
            Self::Allocate(act) => start
                .raw(act.account.unwrap_or(AccountId::ZERO).as_bytes())
                .flag(act.incoming)
                .currency(act.currency)
                .amount(act.amount)
                .text(&act.connector)
                .text(&act.bank_reference),
            Self::Statement(act) => start
                .currency(act.currency)
                .text(&act.connector)
                .text(&act.statement)
                .u64(act.sequence)
                .flag(act.opening_overdrawn)
                .amount(act.opening)
                .flag(act.closing_overdrawn)
                .amount(act.closing)
                .time(act.closed_at)
                .u32(act.entries)
                .raw(&act.file.0),
            Self::Operator(act) => act.lay(start),
            Self::Approval(act) => act.lay(start),
            Self::Abort(act) => act.lay(start),
            Self::Fees(act) => act.lay(start),
            Self::ForceFinal(act) => act.lay(start),
            Self::Earnings(act) => act.lay(start),
            Self::Mandate(act) => act.lay(start),
            Self::MandateTerms(act) => act.lay(start),
            Self::Collect(act) => act.lay(start),
            Self::Collected(act) => act.lay(start),
            Self::ApproveIban(act) => act.lay(start),
            Self::ApproveCollect(act) => act.lay(start),
            Self::Limits(act) => start
                .raw(act.account.unwrap_or(AccountId::ZERO).as_bytes())
                .amount(act.payment_max)
                .amount(act.balance_max)
                .amount(act.day_max)
                .u32(act.iban_wait_s),
        }
    }

    /// Who must have signed it.
    pub const fn author(&self) -> Author {
        match self {
            Self::Certificate(_) => Author::Identity,
            Self::Register(act) => Author::Account(act.account),
            Self::Open(terms) => Author::Account(terms.account),
            Self::Withdraw(act) => Author::Account(act.account),
            Self::Grant(grant) => Author::Channel(grant.channel),
            Self::Revoke(act) => Author::Channel(act.channel),
            Self::Amend(act) => Author::ChannelOwner(act.channel),
            Self::CloseRequest(act) => Author::ChannelOrOwner(act.channel),
            Self::Refund(act) => Author::Payee(act.payment_id),
            Self::Earnings(act) => Author::Account(act.account),
            Self::Mandate(act) => Author::Account(act.account),
            Self::Approval(act) => Author::Operator(act.operator),
            Self::ApproveIban(act) => Author::Operator(act.operator),
            Self::ApproveCollect(act) => Author::Operator(act.operator),
            Self::Plan(Plan { operator: Some(key), .. })
            | Self::Operator(Operator { by: Some(key), .. })
            | Self::Abort(Abort { operator: Some(key), .. })
            | Self::Fees(Fees { operator: Some(key), .. })
            | Self::ForceFinal(ForceFinal { operator: Some(key), .. }) => Author::Operator(*key),
            Self::Chain(_)
            | Self::Policy(_)
            | Self::Approve(_)
            | Self::Freeze(_)
            | Self::Deposit(_)
            | Self::Void(_)
            | Self::Close(_)
            | Self::Roll(_)
            | Self::Cutoff(_)
            | Self::Plan(_)
            | Self::Instruct(_)
            | Self::Outcome(_)
            | Self::Settled(_)
            | Self::Debit(_)
            | Self::Allocate(_)
            | Self::Statement(_)
            | Self::Operator(_)
            | Self::Abort(_)
            | Self::Fees(_)
            | Self::ForceFinal(_)
            | Self::Limits(_)
            | Self::MandateTerms(_)
            | Self::Collect(_)
            | Self::Collected(_) => Author::Hub,
        }
    }

    /// Whether every text and list is within its limit.
    pub fn within_limits(&self) -> bool {
        match self {
            Self::Register(act) => !act.name.is_empty() && act.name.len() <= MAX_NAME && act.iban.len() <= MAX_IBAN,
            Self::Freeze(act) => act.reason.len() <= MAX_TEXT,
            Self::Deposit(act) => act.connector.len() <= MAX_TEXT && act.bank_reference.len() <= MAX_TEXT,
            Self::Policy(act) => act.currencies.len() <= MAX_CURRENCIES,
            Self::Outcome(act) => act.reference.len() <= MAX_TEXT,
            Self::Debit(act) => act.connector.len() <= MAX_TEXT && act.bank_reference.len() <= MAX_TEXT,
            Self::Allocate(act) => act.connector.len() <= MAX_TEXT && act.bank_reference.len() <= MAX_TEXT,
            Self::Statement(act) => act.connector.len() <= MAX_TEXT && act.statement.len() <= MAX_TEXT,
            Self::Operator(act) => act.within_limits(),
            Self::Abort(act) => act.within_limits(),
            Self::ApproveIban(act) => act.iban.len() <= MAX_IBAN,
            Self::Fees(act) => act.schedule.within_limits(),
            Self::Limits(act) => act.is_well_formed(),
            Self::Mandate(act) => act.within_limits(),
            Self::MandateTerms(act) => act.within_limits(),
            Self::Collect(act) => act.within_limits(),
            Self::ApproveCollect(act) => act.collect.within_limits(),
            Self::Collected(act) => act.within_limits(),
            _ => true,
        }
    }

    /// Signs the act's digest.
    pub fn sign(self, hub: &HubId, key: &SecretKey) -> SignedAct {
        let signature = key.sign(&self.digest(hub));
        SignedAct { act: self, signature }
    }
}

/// An act with its author's signature over the digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAct {
    /// The act.
    pub act: Act,
    /// The author's signature.
    pub signature: Signature,
}

/// One payout of a plan: `H("weir/payout", window ‖ account ‖ currency ‖ amount)`, 52 bytes.
pub fn payout_leaf(window: u64, account: &AccountId, currency: Currency, amount: Amount) -> Hash {
    Fixed::<52>::new()
        .u64(window)
        .put(account.as_bytes())
        .put(&currency.to_bytes())
        .u64(amount.nanos())
        .hash(&tag::PAYOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_longer_than_its_limit_is_out_of_limits() {
        let register = |name: usize, iban: usize| {
            Act::Register(Register {
                number: 1,
                account: AccountId::ZERO,
                name: "n".repeat(name),
                iban: "i".repeat(iban),
            })
        };
        assert!(register(MAX_NAME, MAX_IBAN).within_limits());
        assert!(!register(MAX_NAME + 1, MAX_IBAN).within_limits());
        assert!(!register(MAX_NAME, MAX_IBAN + 1).within_limits());
        assert!(!register(0, 1).within_limits());
    }
}
