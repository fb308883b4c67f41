//! `gate refund`: says what would be given back, asks, and gives it back payment by payment.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use weir_client::Span;
use weir_client::gate::balance::BalanceState;
use weir_client::gate::config::Settings;
use weir_client::gate::ops::refund::Condition;
use weir_client::gate::ops::shapes::{BalanceRow, BalancesAsked, RefundAsked, RefundOutcome, Refunded};
use weir_client::protocol::amount::{Amount, Currency};

use super::super::context::now;
use super::super::failure::{Failure, INTERRUPTED, RETRY, UNKNOWN};
use super::super::printer::{self, Printer, say};
use super::super::text::{Prefix, short};
use super::operate::{Counter, load};

#[derive(Debug, Args)]
#[command(
    after_help = "What is free of each payment is taken from its balance first, then given back by the hub: a crash in between gives back once. Requests under way keep what they hold.\n\nExamples:\n  weir gate refund --config gate.toml 8c1e09\n  weir gate refund --remainders-older-than 30d --dry-run\n  weir gate refund --never-shown-older-than 7d --yes"
)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(in crate::cli) struct RefundArgs {
    /// Payments: their ids, or the first 6 digits or more.
    #[arg(group = "what")]
    payment: Vec<Prefix>,
    /// Also what is left of payments that were shown and not used for so long.
    #[arg(long, value_name = "SPAN", group = "what")]
    remainders_older_than: Option<Span>,
    /// Also payments that answer a demand of this gate, were made so long ago, and were never shown.
    #[arg(long, value_name = "SPAN", group = "what")]
    never_shown_older_than: Option<Span>,
    /// The gate's configuration.
    #[arg(long, value_name = "FILE", default_value = "gate.toml")]
    config: PathBuf,
    /// Only show what would happen.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct RefundsReport {
    refunds: Vec<Refunded>,
    /// Those that were not tried after one that could not be.
    not_tried: usize,
    /// What the hub has given back with this; in a dry run what it would.
    sums: Vec<Sum>,
    dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Sum {
    currency: Currency,
    amount: Amount,
}

/// Gives back what is left of payments.
pub(super) async fn refund(printer: Printer, args: &RefundArgs) -> Result<(), Failure> {
    let settings = load(&args.config)?;
    if settings.home.is_none() {
        let error = anyhow!("the configuration names no `home`: only the payee can refund");
        return Err(Failure::from(error).hint("name the payee's home folder in the configuration"));
    }
    let conditions = conditions(args, &settings)?;
    let mut counter = Counter::open(printer, &settings, !args.dry_run).await?;
    let planned = plan(&mut counter, args, &conditions).await?;
    let rows = planned.iter().map(|(row, _)| planned_row(row)).collect();
    let report = RefundsReport { refunds: rows, not_tried: 0, sums: Vec::new(), dry_run: true };
    let report = RefundsReport { sums: sums(&report.refunds, RefundOutcome::Planned), ..report };
    if args.dry_run || planned.is_empty() {
        counter.close().await;
        return printer.print(&RefundsReport { dry_run: args.dry_run, ..report }, show);
    }
    if !args.yes {
        say(&show(&report));
        let sums = report.sums.iter().map(|sum| format!("{} {}", sum.amount, sum.currency)).collect::<Vec<_>>();
        printer::confirm(&format!("Give back {} of {} payments?", sums.join(" and "), planned.len()))?;
    }
    let (refunds, failure) = tokio::select! {
        done = run(&mut counter, &planned) => done,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            let hint = "a refund that is under way is finished by the gate: look with `weir gate balances --state refunding`";
            return Err(Failure::from(anyhow!("interrupted")).hint(hint).exit_with(INTERRUPTED));
        }
    };
    counter.close().await;
    let not_tried = planned.len().saturating_sub(refunds.len());
    let sums = sums(&refunds, RefundOutcome::Refunded);
    let report = RefundsReport { refunds, not_tried, sums, dry_run: false };
    printer.print(&report, show)?;
    match failure {
        Some(failure) => Err(failure),
        None => judge(&report.refunds),
    }
}

/// What is to be refunded besides the payments that are named.
fn conditions(args: &RefundArgs, settings: &Settings) -> Result<Vec<Condition>, Failure> {
    let since = |span: Span, name: &str| match span {
        Span::Ms(ms) => Ok((ms, now().minus_ms(ms))),
        Span::Never => Err(Failure::usage(anyhow!("`{name} never` is no span")).hint("such as `30d`")),
    };
    let mut conditions = Vec::new();
    if let Some(span) = args.remainders_older_than {
        conditions.push(Condition::UnusedSince(since(span, "--remainders-older-than")?.1));
    }
    if let Some(span) = args.never_shown_older_than {
        let (ms, before) = since(span, "--never-shown-older-than")?;
        if ms <= settings.challenge_ttl_ms {
            let ttl = Span::Ms(settings.challenge_ttl_ms);
            let error =
                anyhow!("`{span}` is not longer than `challenge_ttl`, {ttl}: their readers may still be on the way");
            return Err(Failure::usage(error).hint("a longer span, or name the payments"));
        }
        conditions.push(Condition::NeverShown(before));
    }
    Ok(conditions)
}

/// Each payment once, with what it must be when its turn comes.
async fn plan(
    counter: &mut Counter,
    args: &RefundArgs,
    conditions: &[Condition],
) -> Result<Vec<(BalanceRow, Condition)>, Failure> {
    let mut planned = Vec::new();
    let mut seen = HashSet::new();
    for prefix in &args.payment {
        let row = counter.find(prefix).await?;
        if seen.insert(row.payment) {
            planned.push((row, Condition::Named));
        }
    }
    for condition in conditions {
        let asked = BalancesAsked { condition: Some(*condition), ..BalancesAsked::default() };
        let (rows, _) = counter.all(asked, usize::MAX).await?;
        // What is being refunded already, the gate finishes by itself.
        for row in rows.into_iter().filter(|row| row.state != BalanceState::Refunding) {
            if seen.insert(row.payment) {
                planned.push((row, *condition));
            }
        }
    }
    Ok(planned)
}

fn planned_row(row: &BalanceRow) -> Refunded {
    let amount = if row.refunding.is_zero() { row.left } else { row.refunding };
    let nothing = amount.is_zero();
    Refunded {
        payment: row.payment,
        outcome: if nothing { RefundOutcome::Skipped } else { RefundOutcome::Planned },
        amount: Some(amount),
        currency: Some(row.currency),
        refunded: row.refunded.checked_add(amount).ok(),
        why: nothing.then(|| "nothing is left of it".to_owned()),
        act: None,
        commit: None,
    }
}

/// Refunds one after the other, until one cannot be tried.
async fn run(counter: &mut Counter, planned: &[(BalanceRow, Condition)]) -> (Vec<Refunded>, Option<Failure>) {
    let mut refunds = Vec::with_capacity(planned.len());
    for (row, condition) in planned {
        match counter.refund(RefundAsked { payment: row.payment, condition: *condition }).await {
            Ok(done) => {
                let ends =
                    matches!(done.outcome, RefundOutcome::Unreachable | RefundOutcome::Unknown | RefundOutcome::Failed);
                refunds.push(done);
                if ends {
                    break;
                }
            }
            Err(failure) => return (refunds, Some(failure)),
        }
    }
    (refunds, None)
}

/// The sum of those with an outcome, by currency.
fn sums(refunds: &[Refunded], outcome: RefundOutcome) -> Vec<Sum> {
    let mut sums: Vec<Sum> = Vec::new();
    for done in refunds.iter().filter(|done| done.outcome == outcome) {
        let (Some(amount), Some(currency)) = (done.amount, done.currency) else { continue };
        match sums.iter_mut().find(|sum| sum.currency == currency) {
            // A sum for people: above what an amount can be, it stays there.
            Some(sum) => sum.amount = sum.amount.checked_add(amount).unwrap_or(Amount::MAX),
            None => sums.push(Sum { currency, amount }),
        }
    }
    sums
}

/// The exit code, and what to do.
fn judge(refunds: &[Refunded]) -> Result<(), Failure> {
    let count = |outcome| refunds.iter().filter(|done| done.outcome == outcome).count();
    let why = |outcome| {
        let of = refunds.iter().find(|done| done.outcome == outcome);
        of.and_then(|done| done.why.clone()).unwrap_or_default()
    };
    if count(RefundOutcome::Unknown) > 0 {
        let error = anyhow!("a refund was sent and not answered: {}", why(RefundOutcome::Unknown));
        let hint = "its money is held; the gate sends it again by itself, when it runs, and it works once";
        return Err(Failure::from(error).hint(hint).exit_with(UNKNOWN));
    }
    if count(RefundOutcome::Unreachable) > 0 {
        let error = anyhow!("the hub is out of reach, nothing was taken: {}", why(RefundOutcome::Unreachable));
        return Err(Failure::from(error).exit_with(RETRY));
    }
    if count(RefundOutcome::Failed) > 0 {
        return Err(anyhow!("{}", why(RefundOutcome::Failed)).into());
    }
    let short = count(RefundOutcome::Insufficient);
    if short > 0 {
        let error = anyhow!("{short} refunded nothing: the payee has too little balance at the hub");
        return Err(Failure::from(error).hint("`weir balance` shows it, `weir deposit` where to send more"));
    }
    let refused = count(RefundOutcome::Refused);
    if refused > 0 {
        return Err(anyhow!("{refused} refused by the hub: {}", why(RefundOutcome::Refused)).into());
    }
    Ok(())
}

fn show(report: &RefundsReport) -> String {
    let rows = report.refunds.iter().map(|done| {
        let amount = done.amount.map(|amount| amount.to_string()).unwrap_or_default();
        let currency = done.currency.map(|currency| currency.to_string()).unwrap_or_default();
        let act = done.act.map(|act| short(&act)).unwrap_or_default();
        let why = done.why.clone().unwrap_or_default();
        [short(&done.payment), done.outcome.as_str().to_owned(), format!("{amount} {currency}"), act, why]
    });
    let mut lines = vec![printer::table(["payment", "", "amount", "act", ""], rows, "Nothing to refund.")];
    for sum in &report.sums {
        let words = if report.dry_run { "would be given back" } else { "given back" };
        lines.push(format!("{} {} {words}", sum.amount, sum.currency));
    }
    if report.not_tried > 0 {
        lines.push(format!("{} not tried", report.not_tried));
    }
    lines.join("\n")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use weir_client::protocol::id::PaymentId;

    fn done(outcome: RefundOutcome, nanos: u64) -> Refunded {
        Refunded {
            payment: PaymentId([1; 32]),
            outcome,
            amount: Some(Amount::from_nanos(nanos)),
            currency: Some(Currency::EUR),
            refunded: None,
            why: None,
            act: None,
            commit: None,
        }
    }

    #[test]
    fn sums_count_only_what_has_the_outcome() {
        let refunds =
            [done(RefundOutcome::Refunded, 3), done(RefundOutcome::Refused, 5), done(RefundOutcome::Refunded, 4)];
        let sums = sums(&refunds, RefundOutcome::Refunded);
        assert_eq!(sums, [Sum { currency: Currency::EUR, amount: Amount::from_nanos(7) }]);
    }

    #[test]
    fn unknown_outcome_is_told_before_everything_else() {
        assert!(judge(&[done(RefundOutcome::Refunded, 1), done(RefundOutcome::Skipped, 1)]).is_ok());
        let text = judge(&[done(RefundOutcome::Refused, 1), done(RefundOutcome::Unknown, 1)]).unwrap_err().text();
        assert!(text.contains("not answered"), "{text}");
        let text = judge(&[done(RefundOutcome::Refused, 1)]).unwrap_err().text();
        assert!(text.contains("1 refused"), "{text}");
    }
}
