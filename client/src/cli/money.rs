//! Money in and out of the bank: `deposit`, `withdraw`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;
use weir_client::Client;
use weir_client::protocol::act::{Act, EarningsUse};
use weir_client::protocol::amount::{Amount, AmountError, Currency};
use weir_client::protocol::wire::{Cursor, DepositInstructions, StatementItem};

use super::account::ActDone;
use super::context::{Context, Use};
use super::failure::{Failure, UNKNOWN};
use super::printer::{self, confirm, say};

/// Decimal places that a bank transfer has.
const MINOR_DIGITS: u32 = 2;
/// Longest wait for a sandbox deposit.
const SANDBOX_PATIENCE: Duration = Duration::from_secs(60);
const SANDBOX_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir deposit\n  weir deposit --sandbox 20.00 --sandbox-dir ./dev   (a hub started with `weir-hub dev`)"
)]
pub(super) struct DepositArgs {
    /// The currency to send.
    #[arg(long, default_value = "EUR")]
    currency: Currency,
    /// Let the sandbox bank of a dev hub send so many units, and wait until they have arrived.
    #[arg(long, value_name = "AMOUNT")]
    sandbox: Option<Amount>,
    /// The dev hub's folder.
    #[arg(long, value_name = "DIR", env = "WEIR_SANDBOX")]
    sandbox_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "AMOUNT is what is marked in all, so the same command given twice marks it once; 0 takes the mark back.\n\nExamples:\n  weir withdraw 12.50\n  weir withdraw all --dry-run"
)]
pub(super) struct WithdrawArgs {
    /// How much is to be paid out at the next cut-off, in all: units of the currency, or `all`.
    #[arg(value_name = "AMOUNT|all")]
    amount: Marked,
    /// The currency.
    #[arg(long, default_value = "EUR")]
    currency: Currency,
    /// Only show what would happen.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "It holds from the open window on, until it is changed. What becomes available can be spent, and marked with `weir withdraw`.\n\nExamples:\n  weir earnings net\n  weir earnings pay-out"
)]
pub(super) struct EarningsArgs {
    /// What becomes of earnings at a cut-off, less fees.
    #[arg(value_enum)]
    becomes: Becomes,
    /// The currency.
    #[arg(long, default_value = "EUR")]
    currency: Currency,
}

/// What becomes of earnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Becomes {
    /// They are paid out.
    PayOut,
    /// As much as you spent in the same window stays available; the rest is paid out.
    Net,
    /// All of it stays available.
    Keep,
}

impl From<Becomes> for EarningsUse {
    fn from(becomes: Becomes) -> Self {
        match becomes {
            Becomes::PayOut => Self::PayOut,
            Becomes::Net => Self::Net,
            Becomes::Keep => Self::Keep,
        }
    }
}

/// How much balance is to be marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marked {
    All,
    Amount(Amount),
}

impl FromStr for Marked {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::Amount) }
    }
}

#[derive(Debug, Serialize)]
struct DepositReport {
    iban: String,
    name: String,
    bic: String,
    reference: String,
    currency: Currency,
    /// What has arrived; null when nothing was ordered.
    arrived: Option<Amount>,
    /// The commit that booked it.
    commit: Option<u64>,
}

impl DepositReport {
    fn show(&self) -> String {
        let mut facts = vec![
            ("to", self.name.clone()),
            ("iban", grouped(&self.iban)),
            ("bic", self.bic.clone()),
            ("reference", self.reference.clone()),
            ("currency", self.currency.to_string()),
        ];
        facts.retain(|(_, value)| !value.is_empty());
        facts.extend(self.arrived.map(|amount| ("arrived", amount.to_string())));
        facts.extend(self.commit.map(|commit| ("commit", commit.to_string())));
        printer::facts(facts)
    }
}

/// An IBAN in groups of four, as on paper.
fn grouped(iban: &str) -> String {
    let letters: Vec<char> = iban.chars().collect();
    letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

/// Says where to send money; with a sandbox, has it sent.
pub(super) async fn deposit(context: &Context, args: &DepositArgs) -> Result<(), Failure> {
    let order = match (args.sandbox, &args.sandbox_dir) {
        (None, _) => None,
        (Some(amount), Some(folder)) => Some((amount, orders_folder(folder, amount)?)),
        (Some(_), None) => {
            let error = anyhow!("`--sandbox` needs `--sandbox-dir DIR` or `WEIR_SANDBOX`: the dev hub's folder");
            return Err(Failure::usage(error));
        }
    };
    let client = context.client(Use::Beside).await?;
    let instructions = client.deposit_instructions(args.currency).await?;
    let mut report = DepositReport {
        iban: instructions.iban.clone(),
        name: instructions.name.clone(),
        bic: instructions.bic.clone(),
        reference: instructions.reference.clone(),
        currency: instructions.currency,
        arrived: None,
        commit: None,
    };
    if let Some((amount, folder)) = order {
        let info = client.account_info().await?;
        let after = client.hub_info().await?.newest;
        let order = SandboxOrder {
            amount: with_minor_digits(amount),
            reference: &instructions.reference,
            name: &info.name,
            iban: &info.iban,
        };
        let placed = place(&folder, &order)?;
        context.unfinished(Some("the sandbox bank has the order: `weir balance` shows when it has arrived".to_owned()));
        say("The sandbox bank has the order; waiting for the money.");
        report.commit = Some(arrival(&client, after, &instructions, amount, &placed).await?);
        report.arrived = Some(amount);
        context.unfinished(None);
    }
    client.shut_down().await;
    context.printer.print(&report, DepositReport::show)?;
    if report.arrived.is_none() {
        say("Write the reference into the transfer exactly so: it says whose money it is.");
    }
    Ok(())
}

/// What a dev hub's sandbox bank is told to send.
#[derive(Debug, Serialize)]
pub(super) struct SandboxOrder<'a> {
    pub(super) amount: String,
    pub(super) reference: &'a str,
    pub(super) name: &'a str,
    pub(super) iban: &'a str,
}

/// Where a dev hub's sandbox bank looks for orders.
pub(super) fn orders_folder(folder: &Path, amount: Amount) -> Result<PathBuf, Failure> {
    if amount.is_zero() || amount.floor_to_minor(MINOR_DIGITS) != amount {
        let error =
            anyhow!("`{amount}` is not an amount that a bank transfers: above zero, with at most two decimal places");
        return Err(Failure::usage(error));
    }
    let sandbox = folder.join("sandbox");
    if !sandbox.is_dir() {
        let error = anyhow!("`{}` is not the folder of a dev hub: it has no `sandbox` folder", folder.display());
        return Err(Failure::from(error).hint("name the folder that `weir-hub dev` printed"));
    }
    Ok(sandbox.join("orders"))
}

/// The amount with two decimal places at least, as banks write it.
pub(super) fn with_minor_digits(amount: Amount) -> String {
    let text = amount.to_string();
    match text.split_once('.') {
        None => format!("{text}.00"),
        Some((_, digits)) if digits.len() < 2 => format!("{text}0"),
        Some(_) => text,
    }
}

/// Puts an order into the bank's folder, whole or not at all.
pub(super) fn place(folder: &Path, order: &SandboxOrder<'_>) -> Result<PathBuf, Failure> {
    let mut unique = [0_u8; 16];
    getrandom::fill(&mut unique).map_err(|error| anyhow!("no randomness: {error}"))?;
    let unique = hex::encode(unique);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let (hidden, path) = (folder.join(format!(".{unique}.new")), folder.join(format!("{unique}.json")));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create_new(&hidden)?;
        file.write_all(&serde_json::to_vec(order)?)?;
        file.sync_all()?;
        std::fs::rename(&hidden, &path)
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path)
}

/// Waits until the hub has booked the deposit; the commit's number.
async fn arrival(
    client: &Client,
    mut after: Cursor,
    instructions: &DepositInstructions,
    amount: Amount,
    placed: &Path,
) -> Result<u64, Failure> {
    let until = tokio::time::Instant::now() + SANDBOX_PATIENCE;
    loop {
        let (entries, through) = client.statement(after).await?;
        for entry in &entries {
            if let StatementItem::Act(Act::Deposit(deposit)) = &entry.what
                && deposit.amount == amount
                && deposit.currency == instructions.currency
            {
                return Ok(entry.at.number);
            }
        }
        after = through;
        if placed.with_extension("refused").exists() {
            return Err(anyhow!("the sandbox bank has refused the order `{}`", placed.display()).into());
        }
        if tokio::time::Instant::now() >= until {
            let error = anyhow!("the money has not arrived after {} seconds", SANDBOX_PATIENCE.as_secs());
            let hint = "is `weir-hub dev` running in that folder? The order stays there; `weir balance` shows when it has arrived";
            return Err(Failure::from(error).hint(hint).exit_with(UNKNOWN));
        }
        tokio::time::sleep(SANDBOX_PAUSE).await;
    }
}

#[derive(Debug, Serialize)]
struct WithdrawReport {
    currency: Currency,
    /// Marked for payout from now on, in all.
    marked: Amount,
    /// Marked before.
    marked_before: Amount,
    /// What stays available.
    available: Amount,
    dry_run: bool,
    #[serde(flatten)]
    done: ActDone,
}

impl WithdrawReport {
    fn show(&self) -> String {
        let mut facts = vec![
            ("marked", format!("{} {}", self.marked, self.currency)),
            ("before", format!("{} {}", self.marked_before, self.currency)),
            ("stays available", format!("{} {}", self.available, self.currency)),
        ];
        facts.extend(self.done.facts());
        if self.dry_run {
            facts.push(("dry run", "nothing was sent".to_owned()));
        }
        printer::facts(facts)
    }
}

/// Marks balance for payout at the next cut-off.
pub(super) async fn withdraw(context: &Context, args: &WithdrawArgs) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let info = client.account_info().await?;
    let balance = info.balances.iter().find(|balance| balance.currency == args.currency);
    let (available, before) =
        balance.map_or((Amount::ZERO, Amount::ZERO), |balance| (balance.available, balance.marked));
    let whole = available.checked_add(before)?;
    let marked = match args.amount {
        Marked::All => whole,
        Marked::Amount(amount) => amount,
    };
    let Ok(left) = whole.checked_sub(marked) else {
        let error = anyhow!("`{marked} {}` is more than the {whole} that are available or marked", args.currency);
        return Err(Failure::from(error)
            .hint("`weir balance` shows what is available; locked money comes free with `weir close`"));
    };
    let mut report = WithdrawReport {
        currency: args.currency,
        marked,
        marked_before: before,
        available: left,
        dry_run: args.dry_run,
        done: ActDone::NONE,
    };
    if marked == before {
        say("That much is marked already: nothing to do.");
    } else if !args.dry_run {
        if !args.yes {
            confirm(&format!("Pay out {marked} {} to {} at the next cut-off?", args.currency, info.iban))?;
        }
        let done = client.withdraw(args.currency, marked).await?;
        report.done = ActDone::of(&client.hub(), &done);
    }
    client.shut_down().await;
    context.printer.print(&report, WithdrawReport::show)
}

#[derive(Debug, Serialize)]
struct EarningsReport {
    currency: Currency,
    becomes: Becomes,
    #[serde(flatten)]
    done: ActDone,
}

/// Says what becomes of earnings.
pub(super) async fn earnings(context: &Context, args: &EarningsArgs) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let done = client.use_earnings(args.currency, args.becomes.into()).await?;
    let report =
        EarningsReport { currency: args.currency, becomes: args.becomes, done: ActDone::of(&client.hub(), &done) };
    client.shut_down().await;
    context.printer.print(&report, |report| {
        let becomes = match report.becomes {
            Becomes::PayOut => "paid out",
            Becomes::Net => "available again as far as you spend, else paid out",
            Becomes::Keep => "available again",
        };
        let facts = [("earnings", format!("{becomes} ({})", report.currency))];
        printer::facts(facts)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn sandbox_amount_is_written_as_banks_write_it() {
        for (text, bank) in [("5", "5.00"), ("5.5", "5.50"), ("0.01", "0.01"), ("1200.10", "1200.10")] {
            assert_eq!(with_minor_digits(text.parse().unwrap()), bank);
        }
    }

    #[test]
    fn sandbox_order_needs_a_dev_folder_and_whole_cents() {
        let folder = tempfile::tempdir().unwrap();
        let amount = "5.00".parse().unwrap();
        assert!(orders_folder(folder.path(), amount).unwrap_err().text().contains("not the folder of a dev hub"));
        std::fs::create_dir(folder.path().join("sandbox")).unwrap();
        let orders = orders_folder(folder.path(), amount).unwrap();
        for bad in ["0", "0.001"] {
            assert!(orders_folder(folder.path(), bad.parse().unwrap()).is_err(), "{bad}");
        }
        let order = SandboxOrder { amount: with_minor_digits(amount), reference: "RF18", name: "A", iban: "DE" };
        place(&orders, &order).unwrap();
        place(&orders, &order).unwrap();
        let files: Vec<_> = std::fs::read_dir(&orders).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 2);
        for file in files {
            assert_eq!(file.extension().unwrap(), "json");
            let order: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            assert_eq!(order, serde_json::json!({"amount": "5.00", "reference": "RF18", "name": "A", "iban": "DE"}));
        }
    }

    #[test]
    fn amount_to_withdraw_is_all_or_a_number() {
        assert_eq!("all".parse(), Ok(Marked::All));
        assert_eq!("0".parse(), Ok(Marked::Amount(Amount::ZERO)));
        assert!("half".parse::<Marked>().is_err());
    }

    #[test]
    fn iban_is_grouped_by_four() {
        assert_eq!(grouped("DE02120300000000202051"), "DE02 1203 0000 0000 2020 51");
    }
}
