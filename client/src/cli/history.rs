//! What happened to the account: `history`.

use clap::Args;
use serde::Serialize;
use weir_client::Client;
use weir_client::protocol::act::{Act, Collect, CollectionWord, PayoutOutcome};
use weir_client::protocol::amount::{Amount, Currency};
use weir_client::protocol::hash::Hash;
use weir_client::protocol::id::{ChannelId, PaymentId, Reference};
use weir_client::protocol::wire::{Cursor, StatementEntry, StatementItem};

use super::context::{Context, Use};
use super::failure::Failure;
use super::printer;
use super::text::{self, Place, short};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir history --last 20\n  weir history --after 18446744073709:1042   (`through` of an earlier answer)"
)]
pub(super) struct HistoryArgs {
    /// Only what happened after this place.
    #[arg(long, value_name = "CHAIN:NUMBER")]
    after: Option<Place>,
    /// Only so many of the newest entries.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

#[derive(Debug, Serialize)]
struct HistoryReport {
    entries: Vec<Entry>,
    /// Where to go on: `--after`.
    through: String,
}

/// One thing that happened. What does not apply is null.
#[derive(Debug, Serialize)]
struct Entry {
    time_ms: u64,
    chain: u64,
    commit: u64,
    kind: &'static str,
    amount: Option<Amount>,
    currency: Option<Currency>,
    payment_id: Option<PaymentId>,
    reference: Option<Reference>,
    note: Option<String>,
    channel: Option<ChannelId>,
    lane: Option<u32>,
    payments: Option<u32>,
    /// The digest of the act.
    act: Option<Hash>,
}

impl Entry {
    fn new(client: &Client, entry: &StatementEntry) -> Self {
        let mut new = Self {
            time_ms: entry.time.0,
            chain: entry.at.chain,
            commit: entry.at.number,
            kind: "earned",
            amount: None,
            currency: None,
            payment_id: None,
            reference: None,
            note: None,
            channel: None,
            lane: None,
            payments: None,
            act: None,
        };
        match &entry.what {
            StatementItem::Earned { payment_id, amount, currency, reference, .. } => {
                (new.amount, new.currency) = (Some(*amount), Some(*currency));
                (new.payment_id, new.reference, new.note) =
                    (Some(*payment_id), Some(*reference), text::note(reference));
            }
            StatementItem::Paid { channel, lane, count, amount, currency } => {
                new.kind = "paid";
                (new.amount, new.currency) = (Some(*amount), Some(*currency));
                (new.channel, new.lane, new.payments) = (Some(*channel), Some(*lane), Some(*count));
            }
            StatementItem::Act(act) => new.act(client, act),
        }
        new
    }

    fn act(&mut self, client: &Client, act: &Act) {
        self.act = Some(act.digest(&client.hub()));
        self.kind = kind(act);
        match act {
            Act::Deposit(deposit) => (self.amount, self.currency) = (Some(deposit.amount), Some(deposit.currency)),
            Act::Open(terms) => {
                (self.amount, self.currency) = (Some(terms.capacity), Some(terms.currency));
                self.channel = Some(terms.id());
            }
            Act::Grant(grant) => (self.channel, self.lane) = (Some(grant.channel), Some(grant.lane)),
            Act::Revoke(revoke) => (self.channel, self.lane) = (Some(revoke.channel), Some(revoke.lane)),
            Act::Amend(amend) => (self.channel, self.amount) = (Some(amend.channel), Some(amend.capacity)),
            Act::CloseRequest(request) => self.channel = Some(request.channel),
            Act::Close(close) => (self.channel, self.amount) = (Some(close.channel), Some(close.returned)),
            Act::Roll(roll) => (self.channel, self.amount) = (Some(roll.channel), Some(roll.spent)),
            Act::Refund(refund) => {
                (self.payment_id, self.amount) = (Some(refund.payment_id), Some(refund.refunded_total));
            }
            Act::Withdraw(withdraw) => (self.amount, self.currency) = (Some(withdraw.marked), Some(withdraw.currency)),
            Act::Outcome(outcome) => {
                (self.amount, self.currency) = (Some(outcome.amount), Some(outcome.currency));
                // Why it did not arrive: its owner can mend a wrong bank account.
                let failed = matches!(outcome.outcome, PayoutOutcome::Refused | PayoutOutcome::Returned);
                self.note = (failed && !outcome.reference.is_empty()).then(|| outcome.reference.clone());
            }
            Act::Mandate(mandate) => self.note = Some(mandate.mandate_id.clone()),
            Act::MandateTerms(terms) => self.note = Some(terms.mandate_id.clone()),
            // The notice before the debit: what, when, under which mandate.
            Act::Collect(collect) => self.collection(collect),
            Act::ApproveCollect(act) => self.collection(&act.collect),
            Act::Collected(collected) => {
                (self.amount, self.currency) = (Some(collected.amount), Some(collected.currency));
                let failed = collected.word != CollectionWord::Booked && !collected.reference.is_empty();
                self.note = failed.then(|| collected.reference.clone());
            }
            Act::Allocate(allocate) => (self.amount, self.currency) = (Some(allocate.amount), Some(allocate.currency)),
            // Why the operator does it is for whom it concerns.
            Act::Freeze(freeze) => {
                let reason: String = freeze.reason.chars().filter(|c| !c.is_control()).collect();
                self.note = Some(reason).filter(|reason| !reason.is_empty());
            }
            _ => {}
        }
    }

    /// What is to be debited, under which mandate and when.
    fn collection(&mut self, collect: &Collect) {
        (self.amount, self.currency) = (Some(collect.amount), Some(collect.currency));
        let due = text::time(collect.due);
        let day = due.split(['T', ' ']).next().unwrap_or_default();
        self.note = Some(format!("{} due {day}", collect.mandate_id));
    }

    fn row(&self) -> [String; 6] {
        let what = match (&self.note, self.payment_id, self.channel) {
            (Some(note), Some(payment), _) => format!("payment {} “{note}”", short(&payment)),
            (None, Some(payment), _) => format!("payment {}", short(&payment)),
            (_, None, Some(channel)) => {
                let lane = self.lane.map(|lane| format!(" lane {lane}")).unwrap_or_default();
                let count = self.payments.map(|count| format!(", {count} payments")).unwrap_or_default();
                format!("channel {}{lane}{count}", short(&channel))
            }
            (Some(note), None, None) => note.clone(),
            (None, None, None) => String::new(),
        };
        [
            text::time(weir_client::protocol::amount::Time(self.time_ms)),
            self.commit.to_string(),
            self.kind.replace('_', " "),
            self.amount.map(|amount| amount.to_string()).unwrap_or_default(),
            self.currency.map(|currency| currency.to_string()).unwrap_or_default(),
            what,
        ]
    }
}

/// The name of an act in JSON.
const fn kind(act: &Act) -> &'static str {
    match act {
        Act::Chain(_) => "chain",
        Act::Certificate(_) => "certificate",
        Act::Policy(_) => "policy",
        Act::Register(_) => "register",
        Act::Approve(_) => "approve",
        Act::Freeze(freeze) if freeze.incoming || freeze.outgoing => "freeze",
        Act::Freeze(_) => "unfreeze",
        Act::Deposit(_) => "deposit",
        Act::Open(_) => "open",
        Act::Grant(_) => "grant",
        Act::Revoke(_) => "revoke",
        Act::Amend(_) => "amend",
        Act::Void(_) => "void",
        Act::CloseRequest(_) => "close_request",
        Act::Close(_) => "close",
        Act::Roll(_) => "roll",
        Act::Refund(_) => "refund",
        Act::Withdraw(_) => "withdraw",
        Act::Cutoff(_) => "cutoff",
        Act::Plan(_) => "plan",
        Act::Instruct(_) => "instruct",
        Act::Outcome(outcome) => match outcome.outcome {
            PayoutOutcome::Settled => "payout_settled",
            PayoutOutcome::Returned => "payout_returned",
            PayoutOutcome::Refused => "payout_refused",
            PayoutOutcome::Confirmed => "payout_confirmed",
        },
        Act::Settled(_) => "settled",
        Act::Debit(_) => "debit",
        Act::Allocate(_) => "allocate",
        Act::Statement(_) => "statement",
        Act::Operator(_) => "operator",
        Act::Approval(_) => "approval",
        Act::Abort(_) => "abort",
        Act::Fees(_) => "fees",
        Act::ForceFinal(_) => "force_final",
        Act::Earnings(_) => "earnings",
        Act::Limits(_) => "limits",
        Act::Mandate(mandate) if mandate.revoked => "mandate_revoked",
        Act::Mandate(_) => "mandate",
        Act::MandateTerms(terms) if terms.accepted => "mandate_accepted",
        Act::MandateTerms(_) => "mandate_ended",
        Act::Collect(_) => "direct_debit_announced",
        Act::Collected(collected) => match collected.word {
            CollectionWord::Booked => "direct_debit_booked",
            CollectionWord::Returned => "direct_debit_returned",
            CollectionWord::Refused => "direct_debit_refused",
        },
        Act::ApproveIban(_) => "approve_iban",
        Act::ApproveCollect(act) if act.approved => "direct_debit_agreed",
        Act::ApproveCollect(_) => "direct_debit_given_up",
    }
}

impl HistoryReport {
    fn show(&self) -> String {
        let heading = ["TIME", "COMMIT", "WHAT", "AMOUNT", "", ""];
        printer::table(heading, self.entries.iter().map(Entry::row), "nothing has happened yet")
    }
}

/// Everything that happened after a place and until now, each given to `each`; the place up to which it goes.
pub(super) async fn walk(
    client: &Client,
    mut after: Cursor,
    mut each: impl FnMut(&StatementEntry),
) -> Result<Cursor, Failure> {
    // A busy hub commits while we read: what comes after this is not waited for.
    let now = client.hub_info().await?.newest;
    while after.number < now.number {
        let (entries, through) = client.statement(after).await?;
        entries.iter().for_each(&mut each);
        // A hub that goes back would hold us here for ever.
        if through.number <= after.number {
            break;
        }
        after = through;
    }
    Ok(after)
}

/// Says what happened.
pub(super) async fn history(context: &Context, args: &HistoryArgs) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let after = args.after.map_or_else(Cursor::default, |place| place.0);
    let mut entries = std::collections::VecDeque::new();
    let through = walk(&client, after, |entry| {
        entries.push_back(Entry::new(&client, entry));
        if args.last.is_some_and(|last| entries.len() > last) {
            entries.pop_front();
        }
    })
    .await?;
    client.shut_down().await;
    let report = HistoryReport { entries: entries.into(), through: Place(through).to_string() };
    context.printer.print(&report, HistoryReport::show)
}
