//! Being paid: `listen`, `refund`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::{Deserialize, Serialize};
use weir_client::protocol::act::Act;
use weir_client::protocol::amount::{Amount, Currency, Time};
use weir_client::protocol::id::{PaymentId, Reference};
use weir_client::protocol::wire::{Cursor, StatementItem};
use weir_client::{CreditEvent, Credited, RefundPlace};

use super::account::ActDone;
use super::context::{Context, Use};
use super::failure::Failure;
use super::history::walk;
use super::printer::{self, say};
use super::text::{self, Place, Prefix, short};

#[derive(Debug, Args)]
#[command(
    after_help = "Each payment is printed once its proof is checked: one line each, one JSON object each when piped. A later `weir listen` goes on where this one stopped; after a crash the last ones are printed again under the same payment ids.\n\nExamples:\n  weir listen\n  weir listen --once\n  weir listen --all | while read -r line; do …; done"
)]
pub(super) struct ListenArgs {
    /// Stop after so many payments.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    once: Option<u64>,
    /// From the first payment that the hub keeps, not from where an earlier `weir listen` stopped.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "TOTAL is all that was given back of the payment, with this: the same command given twice refunds once.\n\nExamples:\n  weir refund 8c1e09\n  weir refund 8c1e09 0.02"
)]
pub(super) struct RefundArgs {
    /// The payment: its id, or the first 6 digits or more.
    payment: Prefix,
    /// All that is to be refunded of it, earlier refunds included: units of the currency, or `all`.
    #[arg(value_name = "TOTAL|all", default_value = "all")]
    total: String,
    /// Look for the payment after this place only.
    #[arg(long, value_name = "CHAIN:NUMBER")]
    after: Option<Place>,
    /// Only show what would happen.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Credit {
    payment_id: PaymentId,
    amount: Amount,
    currency: Currency,
    reference: Reference,
    /// The reference as text, where it is one; else null.
    note: Option<String>,
    time_ms: u64,
    chain: u64,
    commit: u64,
}

impl Credit {
    fn new(credited: &Credited) -> Self {
        Self {
            payment_id: credited.payment_id,
            amount: credited.amount,
            currency: credited.currency,
            reference: credited.reference,
            note: text::note(&credited.reference),
            time_ms: credited.time.0,
            chain: credited.place.chain,
            commit: credited.place.commit,
        }
    }

    fn show(&self) -> String {
        let what = self.note.as_ref().map_or_else(|| short(&self.reference), |note| format!("“{note}”"));
        format!(
            "{}  {:>14} {}  payment {}  {what}",
            text::time(Time(self.time_ms)),
            self.amount,
            self.currency,
            short(&self.payment_id)
        )
    }
}

/// What was printed after the place up to which everything was dealt with: kept when listening stops between places.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Printed {
    chain: u64,
    number: u64,
    payments: HashSet<PaymentId>,
}

impl Printed {
    fn path(home: &Path) -> PathBuf {
        home.join("listened.json")
    }

    /// What an earlier process printed beyond this place.
    fn after(home: &Path, place: Cursor) -> HashSet<PaymentId> {
        // A lost or damaged file only means that payments are printed again.
        let read = std::fs::read(Self::path(home)).ok();
        let printed: Self = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        if (printed.chain, printed.number) == (place.chain, place.number) { printed.payments } else { HashSet::new() }
    }

    fn keep(home: &Path, place: Cursor, payments: HashSet<PaymentId>) -> Result<(), Failure> {
        let path = Self::path(home);
        let printed = Self { chain: place.chain, number: place.number, payments };
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(&printed)?)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(())
    }
}

/// Prints each payment to the account as it comes.
pub(super) async fn listen(context: &Context, args: &ListenArgs) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let acknowledged = client.home().credit_cursor()?;
    let start = if args.all { Cursor::default() } else { acknowledged };
    let mut credits = client.credits_after(start);
    let mut earlier = if args.all { HashSet::new() } else { Printed::after(context.home(), start) };
    // Printed since the last place.
    let mut printed = earlier.clone();
    let mut left = args.once;
    say("Listening for payments; Ctrl-C ends it.");
    loop {
        match credits.next().await? {
            CreditEvent::Credited(group) => {
                for payment in group.payments() {
                    if earlier.remove(&payment.payment_id) {
                        continue;
                    }
                    let goes_on = context.printer.line(&Credit::new(&payment), Credit::show)?;
                    if !goes_on {
                        // Whoever reads has seen enough: this one may not have been seen.
                        return Ok(());
                    }
                    printed.insert(payment.payment_id);
                    left = left.map(|left| left.saturating_sub(1));
                    if left == Some(0) {
                        if credits.through().number >= acknowledged.number {
                            Printed::keep(context.home(), credits.through(), printed)?;
                        }
                        client.shut_down().await;
                        return Ok(());
                    }
                }
            }
            CreditEvent::Through(place) => {
                // Reading everything anew takes nothing back from where an earlier process stopped.
                if place.number > acknowledged.number {
                    credits.acknowledge(place)?;
                }
                earlier.clear();
                printed.clear();
            }
        }
    }
}

#[derive(Debug, Serialize)]
struct RefundReport {
    payment_id: PaymentId,
    /// What was paid.
    amount: Amount,
    currency: Currency,
    /// Given back in all, with this.
    refunded: Amount,
    /// Given back before.
    refunded_before: Amount,
    dry_run: bool,
    #[serde(flatten)]
    done: ActDone,
}

impl RefundReport {
    fn show(&self) -> String {
        let mut facts = vec![
            ("payment", self.payment_id.to_string()),
            ("amount", format!("{} {}", self.amount, self.currency)),
            ("refunded", format!("{} {}", self.refunded, self.currency)),
            ("before", format!("{} {}", self.refunded_before, self.currency)),
        ];
        facts.extend(self.done.facts());
        if self.dry_run {
            facts.push(("dry run", "nothing was sent".to_owned()));
        }
        printer::facts(facts)
    }
}

/// Gives money back for a payment.
pub(super) async fn refund(context: &Context, args: &RefundArgs) -> Result<(), Failure> {
    let wanted: Option<Amount> = match args.total.as_str() {
        "all" => None,
        text => Some(
            text.parse()
                .map_err(|error| Failure::usage(anyhow::Error::new(error).context("`TOTAL` is not an amount")))?,
        ),
    };
    let client = context.client(Use::Beside).await?;
    let mut found: Vec<(RefundPlace, Amount, Currency)> = Vec::new();
    let mut refunds: Vec<(PaymentId, Amount)> = Vec::new();
    let after = args.after.map_or_else(Cursor::default, |place| place.0);
    walk(&client, after, |entry| match &entry.what {
        StatementItem::Earned { group, leaf, payment_id, amount, currency, .. } if args.payment.fits(payment_id) => {
            let place = RefundPlace {
                chain: entry.at.chain,
                commit: entry.at.number,
                group: *group,
                leaf: *leaf,
                payment_id: *payment_id,
            };
            found.push((place, *amount, *currency));
        }
        StatementItem::Act(Act::Refund(refund)) if args.payment.fits(&refund.payment_id) => {
            refunds.push((refund.payment_id, refund.refunded_total));
        }
        _ => {}
    })
    .await?;
    let one = args.payment.find("payment to this account", found, |(place, ..)| place.payment_id.to_string());
    let (place, amount, currency) =
        one.map_err(|error| Failure::from(error).hint("`weir history` lists the payments to you"))?;
    let before = refunds.iter().filter(|(payment, _)| *payment == place.payment_id).map(|(_, total)| *total).max();
    let before = before.unwrap_or(Amount::ZERO);
    let refunded = wanted.unwrap_or(amount);
    if refunded.is_zero() || refunded > amount || refunded < before {
        let error = anyhow!("`{refunded} {currency}` does not fit: {amount} was paid, and {before} of it refunded");
        return Err(
            Failure::from(error).hint("name all that is to be refunded of the payment, earlier refunds included")
        );
    }
    let mut report = RefundReport {
        payment_id: place.payment_id,
        amount,
        currency,
        refunded,
        refunded_before: before,
        dry_run: args.dry_run,
        done: ActDone::NONE,
    };
    if refunded == before {
        say("That much is refunded already: nothing to do.");
    } else if !args.dry_run {
        let done = client.refund(place, refunded).await?;
        report.done = ActDone::of(&client.hub(), &done);
    }
    client.shut_down().await;
    context.printer.print(&report, RefundReport::show)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn printed_payments_are_remembered_for_their_place_alone() {
        let home = tempfile::tempdir().unwrap();
        let place = Cursor { chain: 2, number: 7 };
        assert!(Printed::after(home.path(), place).is_empty());
        let printed = HashSet::from([PaymentId([4; 32])]);
        Printed::keep(home.path(), place, printed.clone()).unwrap();
        assert_eq!(Printed::after(home.path(), place), printed);
        assert!(Printed::after(home.path(), Cursor { chain: 2, number: 8 }).is_empty());
        std::fs::write(Printed::path(home.path()), "{").unwrap();
        assert!(Printed::after(home.path(), place).is_empty());
    }
}
