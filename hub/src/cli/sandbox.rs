//! `sandbox-bank`: a bank for a hub that has none yet, on the hub's own bank directories. It shares no code with the hub's
//! side of them but the formats.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::Failure;
use super::printer::{self, Printer};
use crate::bank::{
    Behaviour, Branch, BranchRound, Chance, Currency, Fault, Iban, SandboxOptions, Spool, StatusVersion,
};
use crate::clock::wall_ms;
use crate::config::Settings;

/// In the bank's directory.
const BANK_FILE: &str = "bank.toml";
const DAY_S: u64 = 86_400;

#[derive(Debug, Args)]
#[command(after_long_help = after_help())]
pub(super) struct SandboxArgs {
    /// The bank's own directory: `bank.toml`, orders, and its books.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The hub's data directory: says which account, and where its files lie.
    #[arg(long, env = "WEIR_HUB_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where `outbox/` and `inbox/` of the hub lie, when it is not the hub's setting.
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// The hub's account, when it is not the hub's setting.
    #[arg(long)]
    iban: Option<Iban>,
    /// The account's owner, when it is not the hub's setting.
    #[arg(long)]
    name: Option<String>,
    /// One round, then end.
    #[arg(long)]
    once: bool,
    /// End the day after the round: a statement (camt.053).
    #[arg(long, requires = "once")]
    end_of_day: bool,
    /// Of the dice.
    #[arg(long)]
    seed: Option<u64>,
    /// A fault, and how often it strikes: `reject=10%,late`; alone: always.
    #[arg(long, value_name = "FAULT[=CHANCE]", value_delimiter = ',', value_parser = fault)]
    misbehave: Vec<(Fault, Chance)>,
    /// Book a batch in one line.
    #[arg(long)]
    batch_booking: bool,
    /// What a charge is, in units of the account.
    #[arg(long, value_name = "AMOUNT", value_parser = charge)]
    charge: Option<Decimal>,
    /// How long after the booking money comes back.
    #[arg(long, value_name = "SECONDS")]
    return_after: Option<u64>,
    /// Which pain.002 it writes: 10, 03 or mixed.
    #[arg(long, value_name = "VERSION", value_parser = status_version)]
    status_version: Option<StatusVersion>,
    /// Report entries during the day too (camt.052).
    #[arg(long)]
    intraday: bool,
    /// Length of a day, at whose end a statement is made; 0: none is [default: 86400].
    #[arg(long, value_name = "SECONDS")]
    day: Option<u64>,
    /// How often it looks at its directories.
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=86_400_000))]
    poll_ms: u64,
}

fn after_help() -> String {
    let faults = Fault::ALL.map(|fault| format!("  {:<18} {}", fault.name(), fault.words()));
    format!("Faults:\n{}", faults.join("\n"))
}

fn fault(text: &str) -> Result<(Fault, Chance), crate::bank::BehaviourError> {
    let (name, chance) = text.split_once('=').unwrap_or((text, "always"));
    Ok((name.parse()?, chance.parse()?))
}

fn charge(text: &str) -> Result<Decimal, rust_decimal::Error> {
    Decimal::from_str_exact(text)
}

fn status_version(text: &str) -> Result<StatusVersion, String> {
    match text {
        "10" => Ok(StatusVersion::V10),
        "03" => Ok(StatusVersion::V03),
        "mixed" => Ok(StatusVersion::Mixed),
        _ => Err("it is `10`, `03` or `mixed`".to_owned()),
    }
}

/// `bank.toml`. Flags go before it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BankFile {
    files: Option<PathBuf>,
    iban: Option<Iban>,
    name: Option<String>,
    seed: Option<u64>,
    batch_booking: bool,
    charge: Option<String>,
    return_after_s: Option<u64>,
    status_version: Option<StatusVersion>,
    intraday: bool,
    day_s: Option<u64>,
    misbehave: BTreeMap<String, String>,
    rejects: BTreeMap<Iban, String>,
    returns: BTreeMap<Iban, String>,
}

impl BankFile {
    fn read(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(BANK_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .with_context(|| format!("`{}` makes no sense", path.display()))
                .map_err(Failure::usage),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(anyhow::Error::new(error).context(format!("cannot read `{}`", path.display())).into()),
        }
    }
}

/// What a bank is opened with.
struct Opening {
    options: SandboxOptions,
    behaviour: Behaviour,
    day_ms: u64,
}

impl SandboxArgs {
    fn opening(&self) -> Result<Opening, Failure> {
        let file = BankFile::read(&self.dir)?;
        let hub = self.data.as_deref().map(hub_account).transpose()?;
        let (files, iban, name) = hub.unwrap_or_default();
        let files = self.files.clone().or_else(|| file.files.clone().map(|files| self.dir.join(files))).or(files);
        let iban = self.iban.or(file.iban).or(iban);
        let name = self.name.clone().or_else(|| file.name.clone()).or(name);
        let (Some(files), Some(iban)) = (files, iban) else {
            let error = anyhow!("nothing says whose bank this is, and where the hub's files lie");
            return Err(
                Failure::usage(error).hint("`--data DIR` of a hub with `bank.iban` set, or `--files` and `--iban`")
            );
        };
        let spool = Spool::open(&made(&files)?)?;
        let options = SandboxOptions {
            dir: self.dir.clone(),
            outbox: spool.outbox().to_owned(),
            inbox: spool.inbox().to_owned(),
            name: name.unwrap_or_else(|| "Weir hub".to_owned()),
            iban,
            currency: Currency::EUR,
            rejects: file.rejects.clone(),
            batch_booking: self.batch_booking || file.batch_booking,
        };
        let day_s = self.day.or(file.day_s).unwrap_or(DAY_S);
        Ok(Opening { options, behaviour: self.behaviour(file)?, day_ms: day_s.saturating_mul(1000) })
    }

    fn behaviour(&self, file: BankFile) -> Result<Behaviour, Failure> {
        let nonsense = |error: anyhow::Error| Failure::usage(error.context(format!("`{BANK_FILE}` makes no sense")));
        let mut chances = BTreeMap::new();
        for (name, chance) in &file.misbehave {
            let read = || anyhow::Ok((name.parse::<Fault>()?, chance.parse::<Chance>()?));
            let (fault, chance) = read().map_err(nonsense)?;
            chances.insert(fault, chance);
        }
        chances.extend(self.misbehave.iter().copied());
        let of_file = file.charge.as_deref().map(charge).transpose();
        let of_file = of_file.map_err(|error| nonsense(anyhow::Error::new(error).context("`charge`")))?;
        let return_after_s = self.return_after.or(file.return_after_s).unwrap_or(0);
        let behaviour = Behaviour {
            seed: self.seed.or(file.seed).unwrap_or(0),
            chances,
            returns: file.returns,
            return_after_ms: return_after_s.saturating_mul(1000),
            charge: self.charge.or(of_file).unwrap_or_default(),
            status_version: self.status_version.or(file.status_version).unwrap_or_default(),
            intraday: self.intraday || file.intraday,
        };
        let charges = [Fault::Charge, Fault::Deduct];
        if behaviour.charge.is_zero() && charges.iter().any(|fault| behaviour.chances.contains_key(fault)) {
            let error = anyhow!("a fault charges, and `charge` says not how much");
            return Err(Failure::usage(error).hint("`--charge 0.35`"));
        }
        Ok(behaviour)
    }
}

/// Where a hub's bank files lie, its account, and its owner.
type Account = (Option<PathBuf>, Option<Iban>, Option<String>);

fn hub_account(data: &Path) -> Result<Account, Failure> {
    let config = Settings::gather(data, &Vec::new(), |name| std::env::var(name).ok())?.resolve()?;
    Ok((Some(config.bank.directory), config.bank.iban, Some(config.bank.name)))
}

fn made(dir: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
    Ok(dir.to_owned())
}

/// What `--once` did.
#[derive(Debug, Serialize)]
struct Done {
    #[serde(flatten)]
    round: BranchRound,
    /// Messages and money that wait for a later round.
    pending: usize,
    /// Of the hub's account.
    balance: String,
}

/// What a daemon prints first.
#[derive(Debug, Serialize)]
struct Open {
    iban: Iban,
    balance: String,
    inbox: PathBuf,
    outbox: PathBuf,
    orders: PathBuf,
    pid: u32,
}

pub(super) fn sandbox(args: &SandboxArgs, printer: Printer) -> Result<(), Failure> {
    let Opening { options, behaviour, day_ms } = args.opening()?;
    let (iban, inbox, outbox) = (options.iban, options.inbox.clone(), options.outbox.clone());
    // Within `--once` the day ends when it is asked to.
    let day_ms = if args.once { 0 } else { day_ms };
    let mut branch = Branch::open(options, behaviour, day_ms, wall_ms())?;
    if args.once {
        let mut round = branch.round(wall_ms())?;
        if args.end_of_day {
            round.statement = Some(branch.bank_mut().end_of_day(wall_ms())?);
        }
        let pending = branch.bank().pending();
        let done = Done { round, pending, balance: money(&branch) };
        return printer.print(&done, show_done);
    }
    let open = Open {
        iban,
        balance: money(&branch),
        inbox,
        outbox,
        orders: branch.orders().to_owned(),
        pid: std::process::id(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(branch, &open, Duration::from_millis(args.poll_ms), printer))
}

async fn serve(mut branch: Branch, open: &Open, poll: Duration, printer: Printer) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    printer.print(open, show_open)?;
    printer::say("The bank is open. Ctrl-C closes it.");
    let mut ticks = tokio::time::interval(poll);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trouble = String::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
        match branch.round(wall_ms()) {
            Ok(round) => {
                trouble.clear();
                if !round.is_idle() {
                    tracing::info!(?round, balance = money(&branch), "the sandbox bank");
                }
            }
            // Said once, not at every look.
            Err(error) if error.to_string() == trouble => {}
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the sandbox bank");
                trouble = error.to_string();
            }
        }
    }
}

fn money(branch: &Branch) -> String {
    format!("{:.2}", branch.bank().balance())
}

fn show_open(open: &Open) -> String {
    printer::facts([
        ("account", open.iban.to_string()),
        ("balance", open.balance.clone()),
        ("fetches from", open.outbox.display().to_string()),
        ("brings to", open.inbox.display().to_string()),
        ("orders", open.orders.display().to_string()),
    ])
}

fn show_done(round: &Done) -> String {
    let run = &round.round.run;
    let mut facts = vec![
        ("files fetched", run.fetched.len().to_string()),
        ("executed", run.executed.to_string()),
        ("rejected", run.rejected.to_string()),
        ("came back", run.returned.to_string()),
        ("files seen before", run.duplicates.to_string()),
        ("files not understood", run.unreadable.to_string()),
        ("transfers to the hub", round.round.deposits.to_string()),
        ("orders refused", round.round.refused.to_string()),
        ("waits for a later round", round.pending.to_string()),
    ];
    facts.extend(round.round.statement.clone().map(|name| ("statement", name)));
    facts.push(("balance", round.balance.clone()));
    printer::facts(facts)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    #[test]
    fn fault_without_a_chance_strikes_always() {
        assert_eq!(fault("late").unwrap(), (Fault::Late, Chance::ALWAYS));
        assert_eq!(fault("reject=100%").unwrap(), (Fault::Reject, Chance::ALWAYS));
        assert!(fault("reject=often").is_err());
        assert!(fault("nothing").is_err());
    }

    #[test]
    fn bank_file_with_an_unknown_key_is_refused() {
        let text = r#"
            seed = 7
            charge = "0.35"
            status_version = "mixed"
            [misbehave]
            reject = "10%"
            [returns]
            "NL91ABNA0417164300" = "MD07"
        "#;
        let file: BankFile = toml::from_str(text).unwrap();
        assert_eq!((file.seed, file.status_version), (Some(7), Some(StatusVersion::Mixed)));
        assert_eq!(file.misbehave["reject"], "10%");
        assert!(toml::from_str::<BankFile>("sead = 7").is_err());
    }
}
