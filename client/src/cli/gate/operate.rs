//! What the operator sees: `gate status`, `gate balances`, `gate reload`. Asks the running gate; when none runs, opens the
//! store itself.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use weir_client::gate::balance::{BalanceError, BalanceState};
use weir_client::gate::config::{GateConfig, Settings};
use weir_client::gate::ops::refund::Refunds;
use weir_client::gate::ops::shapes::{
    BalancePage, BalanceRow, BalancesAsked, RefundAsked, Refunded, ReloadReport, Status,
};
#[cfg(unix)]
use weir_client::gate::ops::socket::{AskError, Asking};
use weir_client::gate::ops::till::Till;
use weir_client::gate::service;
use weir_client::protocol::amount::Time;
use weir_client::protocol::id::PaymentId;
use weir_client::{PlainKeys, Sealer};

use super::super::context::Context;
use super::super::failure::{Failure, RETRY, UNKNOWN};
use super::super::printer::{self, Printer, say};
use super::super::text::{self, Prefix, short};

/// How long a gate that starts or stops is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weir gate status --config gate.toml\n  weir gate status --json | jq .totals")]
pub(in crate::cli) struct StatusArgs {
    /// The gate's configuration.
    #[arg(long, value_name = "FILE", default_value = "gate.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir gate balances --config gate.toml\n  weir gate balances --state unshown\n  weir gate balances --payment 8c1e09"
)]
pub(in crate::cli) struct BalancesArgs {
    /// The gate's configuration.
    #[arg(long, value_name = "FILE", default_value = "gate.toml")]
    config: PathBuf,
    /// Only those: `open` (something is left), `spent`, `unshown` (paid, never shown), `refunding` (not yet confirmed by the
    /// hub).
    #[arg(long, value_name = "STATE")]
    state: Option<StateText>,
    /// Only this one: its payment id, or the first 6 digits or more.
    #[arg(long, value_name = "ID")]
    payment: Option<Prefix>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Those after this place: `next` of an earlier list.
    #[arg(long, value_name = "PLACE", default_value = "")]
    after: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReloadArgs {
    /// The gate's configuration.
    #[arg(long, value_name = "FILE", default_value = "gate.toml")]
    config: PathBuf,
}

/// A state on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StateText(BalanceState);

impl FromStr for StateText {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "open" => BalanceState::Open,
            "spent" => BalanceState::Spent,
            "unshown" => BalanceState::Unshown,
            "refunding" => BalanceState::Refunding,
            _ => return Err("one of `open`, `spent`, `unshown`, `refunding`"),
        }))
    }
}

const fn word(state: BalanceState) -> &'static str {
    match state {
        BalanceState::Open => "open",
        BalanceState::Spent => "spent",
        BalanceState::Unshown => "unshown",
        BalanceState::Refunding => "refunding",
    }
}

/// Where questions go.
pub(super) enum Counter {
    /// To the running gate.
    #[cfg(unix)]
    Running(Asking),
    /// To its store, opened and held until the verb ends.
    Stored(Till),
}

/// Reads a configuration.
pub(super) fn load(file: &std::path::Path) -> Result<Settings, Failure> {
    let config = GateConfig::load(file).map_err(|errors| Failure::from(anyhow!("{errors}")))?;
    Ok(config.settings)
}

/// What opens the payee's keys; asks for the passphrase where there is one.
pub(super) fn sealer(printer: Printer, settings: &Settings) -> Result<Sealer, Failure> {
    let Some(home) = &settings.home else { return Ok(PlainKeys::sealer()) };
    let context = Context::new(printer, home.clone());
    context.unlock()?;
    Ok(context.sealer())
}

impl Counter {
    /// The running gate, or the store. `payee`: with the payee's keys, so that money can be given back.
    pub(super) async fn open(printer: Printer, settings: &Settings, payee: bool) -> Result<Self, Failure> {
        let since = tokio::time::Instant::now();
        loop {
            #[cfg(unix)]
            match Asking::connect(&settings.state).await {
                Ok(asking) => return Ok(Self::Running(asking)),
                Err(AskError::Absent { .. }) => {}
                Err(error) => return Err(Failure::from(error).exit_with(RETRY)),
            }
            if !settings.state.is_dir() {
                let error = anyhow!("no gate has run here: `{}` is no folder", settings.state.display());
                return Err(Failure::from(error).hint("`state` of the configuration names it; the gate makes it"));
            }
            match service::open_balances(settings) {
                Ok(balances) => {
                    let refunds = if payee {
                        let client = service::payee(settings, sealer(printer, settings)?)?;
                        client.map(|client| std::sync::Arc::new(Refunds::new(balances.clone(), client)))
                    } else {
                        None
                    };
                    return Ok(Self::Stored(Till::new(balances, refunds)));
                }
                // A gate that is starting has the store before its socket, one that is stopping the other way round.
                Err(BalanceError::Held(_)) if since.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                Err(error @ BalanceError::Held(_)) => {
                    let hint = "that process gives no answer on its admin socket, `admin.sock` beside the store: it is another user's, or its log says why";
                    return Err(Failure::from(error).hint(hint));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How the gate is.
    async fn status(&mut self) -> Result<Status, Failure> {
        match self {
            #[cfg(unix)]
            Self::Running(asking) => Ok(asking.get("/status").await.map_err(asked)?),
            Self::Stored(till) => Ok(till.status()),
        }
    }

    /// A page of balances.
    pub(super) async fn page(&mut self, asked: &BalancesAsked) -> Result<BalancePage, Failure> {
        match self {
            #[cfg(unix)]
            Self::Running(asking) => Ok(asking.post("/balances", asked).await.map_err(self::asked)?),
            Self::Stored(till) => till.page(asked).map_err(|error| Failure::usage(error.into())),
        }
    }

    /// Every balance that is asked for, at most so many; where the next begin.
    pub(super) async fn all(
        &mut self,
        mut asked: BalancesAsked,
        most: usize,
    ) -> Result<(Vec<BalanceRow>, Option<String>), Failure> {
        let mut rows = Vec::new();
        loop {
            asked.most = most.saturating_sub(rows.len());
            let page = self.page(&asked).await?;
            rows.extend(page.balances);
            match page.next {
                Some(next) if rows.len() < most => asked.after = next,
                next => return Ok((rows, next)),
            }
        }
    }

    /// The one balance that begins so.
    pub(super) async fn find(&mut self, prefix: &Prefix) -> Result<BalanceRow, Failure> {
        let payment: Option<PaymentId> = prefix.to_string().parse().ok();
        let asked = BalancesAsked { payment, ..BalancesAsked::default() };
        let (rows, _) = self.all(asked, usize::MAX).await?;
        let found = prefix.find("payment of this gate", rows, |row| row.payment.to_string());
        found.map_err(|error| {
            let hint = "`weir gate balances` lists them; `weir refund` gives back payments that are not the gate's";
            Failure::from(error).hint(hint)
        })
    }

    /// Refunds one payment.
    pub(super) async fn refund(&mut self, asked: RefundAsked) -> Result<Refunded, Failure> {
        match self {
            #[cfg(unix)]
            Self::Running(asking) => asking.post("/refund", &asked).await.map_err(|error| {
                let hint = "a refund that is under way is finished by the gate: look with `weir gate balances --state refunding`";
                Failure::from(error).hint(hint).exit_with(UNKNOWN)
            }),
            Self::Stored(till) => Ok(till.refund(asked).await),
        }
    }

    /// Lets go of the store, and of the hub.
    pub(super) async fn close(self) {
        if let Self::Stored(till) = self
            && let Some(refunds) = till.refunds()
        {
            refunds.client().shut_down().await;
        }
    }
}

#[cfg(unix)]
fn asked(error: AskError) -> Failure {
    match error {
        AskError::Refused(_) => error.into(),
        AskError::Absent { .. } | AskError::Lost(_) => Failure::from(error).exit_with(RETRY),
    }
}

/// Shows how the gate is.
pub(super) async fn status(printer: Printer, args: &StatusArgs) -> Result<(), Failure> {
    let settings = load(&args.config)?;
    let mut counter = Counter::open(printer, &settings, false).await?;
    let status = counter.status().await?;
    counter.close().await;
    printer.print(&status, show_status)
}

fn show_status(status: &Status) -> String {
    let time = |ms: u64| text::time(Time(ms));
    let mut facts = vec![("running", if status.running { "yes" } else { "no" }.to_owned())];
    facts.extend(status.address.as_ref().map(|address| ("address", address.clone())));
    facts.extend(status.pid.map(|pid| ("process", pid.to_string())));
    facts.extend(status.started_at_ms.map(|ms| ("since", time(ms))));
    facts.extend(status.in_flight.map(|count| ("paid in flight", count.to_string())));
    let store = &status.store;
    let queued = format!("{} balances, {} requests remembered, {} to write", store.balances, store.draws, store.queued);
    facts.push(("store", store.closed.as_ref().map_or(queued, |why| format!("closed: {why}"))));
    facts.push(("never shown", status.unshown.to_string()));
    facts.extend(status.prices_read_at_ms.map(|ms| ("prices read", time(ms))));
    if let Some(certificate) = &status.certificate {
        facts.push(("hub's key", format!("{} until {}", short(&certificate.key), time(certificate.not_after_ms))));
    }
    if let Some(credits) = &status.credits {
        let heard = if credits.connected { "hub heard" } else { "hub not heard" };
        let why = credits.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        let at = match (credits.chain, credits.number) {
            (Some(chain), Some(number)) => format!(", noted through {chain}:{number}"),
            _ => String::new(),
        };
        let counts = format!("; {} noted, {} not the gate's", credits.noted, credits.foreign);
        facts.push(("credits", format!("{heard}{why}{at}{counts}")));
    }
    let rows = status.totals.iter().map(|row| {
        let sums = [&row.paid, &row.drawn, &row.reserved, &row.left, &row.unshown, &row.refunding, &row.refunded];
        let [paid, drawn, reserved, left, unshown, refunding, refunded] = sums.map(Clone::clone);
        [row.currency.to_string(), paid, drawn, reserved, left, unshown, refunding, refunded]
    });
    let heading = ["", "paid", "drawn", "reserved", "left", "never shown", "refunding", "refunded"];
    format!("{}\n{}", printer::facts(facts), printer::table(heading, rows, "No payments."))
}

/// Lists balances.
pub(super) async fn balances(printer: Printer, args: &BalancesArgs) -> Result<(), Failure> {
    let settings = load(&args.config)?;
    let mut counter = Counter::open(printer, &settings, false).await?;
    let state = args.state.map(|StateText(state)| state);
    let page = if let Some(prefix) = &args.payment {
        let row = counter.find(prefix).await?;
        let balances = if state.is_none_or(|state| row.state == state) { vec![row] } else { Vec::new() };
        BalancePage { balances, next: None }
    } else {
        let asked = BalancesAsked { state, after: args.after.clone(), ..BalancesAsked::default() };
        let (balances, next) = counter.all(asked, args.limit as usize).await?;
        BalancePage { balances, next }
    };
    counter.close().await;
    printer.print(&page, show_balances)?;
    if let Some(next) = &page.next {
        say(&format!("There may be more: `--after {next}`, or a greater `--limit`."));
    }
    Ok(())
}

fn show_balances(page: &BalancePage) -> String {
    let rows = page.balances.iter().map(|row| {
        [
            short(&row.payment),
            word(row.state).to_owned(),
            text::time(Time(row.paid_at_ms)),
            format!("{} {}", row.paid, row.currency),
            row.drawn.to_string(),
            row.reserved.to_string(),
            row.left.to_string(),
            row.refunding.to_string(),
            row.refunded.to_string(),
        ]
    });
    let heading = ["payment", "state", "paid at", "paid", "drawn", "reserved", "left", "refunding", "refunded"];
    printer::table(heading, rows, "No balances.")
}

/// Has the running gate read its prices anew.
pub(super) async fn reload(printer: Printer, args: &ReloadArgs) -> Result<(), Failure> {
    let settings = load(&args.config)?;
    #[cfg(unix)]
    {
        let report: ReloadReport = match Asking::connect(&settings.state).await {
            Ok(mut asking) => asking.post("/reload", &serde_json::Value::Null).await.map_err(asked)?,
            Err(error) => return Err(Failure::from(error).hint("a gate reads its prices when it starts")),
        };
        printer.print(&report, show_reload)?;
        if report.error.is_some() || !report.prices { Err(Failure::said()) } else { Ok(()) }
    }
    #[cfg(not(unix))]
    {
        let _ = (printer, settings, show_reload);
        Err(Failure::usage(anyhow!("a running gate reads its file anew by itself when it changes")))
    }
}

fn show_reload(report: &ReloadReport) -> String {
    let mut lines = Vec::new();
    match &report.error {
        Some(error) => lines.push(format!("{error}\nthe old prices stay in force")),
        None if report.prices => lines.push("prices were read anew".to_owned()),
        None => {
            lines.push("the file changes mode, currency or grace: it holds after a restart, its prices too".to_owned());
        }
    }
    if report.needs_restart && report.prices {
        lines.push("the file also changes settings that hold after a restart".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_one_of_four_words() {
        for state in ["open", "spent", "unshown", "refunding"] {
            assert!(state.parse::<StateText>().is_ok_and(|StateText(read)| word(read) == state));
        }
        assert!("Open".parse::<StateText>().is_err() && "".parse::<StateText>().is_err());
    }
}
