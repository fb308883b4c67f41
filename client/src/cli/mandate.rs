//! `mandate`: lets the hub collect from a bank account.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use weir_client::NewMandate;
use weir_client::protocol::act::MandateScheme;
use weir_client::protocol::amount::{Amount, Time};
use weir_client::protocol::wire::{MandateInfo, MandateStanding};

use super::account::ActDone;
use super::context::{Context, Use};
use super::failure::Failure;
use super::printer::{self, confirm, say};
use super::text;

#[derive(Debug, Subcommand)]
pub(super) enum MandateCommand {
    /// Let the hub top this account up from a bank account by SEPA direct debit, once its operator has accepted.
    #[command(
        after_help = "The hub tells you of each debit in `weir history` before it is due. Under CORE you can have your bank take one back for eight weeks: until then its money is provisional, and counts only as far as the hub lets it. Under B2B, between companies, you cannot; your bank must know the mandate.\n\nExamples:\n  weir mandate sign\n  weir mandate sign --scheme b2b --iban DE89370400440532013000"
    )]
    Sign(SignArgs),
    /// All mandates of this account.
    List,
    /// Take a mandate back, for good. What the bank was told of before is still debited.
    End(EndArgs),
}

#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// The rules.
    #[arg(long, value_enum, default_value = "core")]
    scheme: Scheme,
    /// The bank account that is debited [default: the registered one].
    #[arg(long)]
    iban: Option<String>,
    /// What names the mandate at the banks, at most 35 letters, digits or -?:().,'+ [default: made of the account and the time].
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Only show what would happen.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct EndArgs {
    /// The mandate, as `weir mandate list` shows it.
    id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Scheme {
    /// For everybody; a debit can be taken back for eight weeks.
    Core,
    /// Between companies; it cannot.
    B2b,
}

impl From<Scheme> for MandateScheme {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Core => Self::Core,
            Scheme::B2b => Self::B2b,
        }
    }
}

#[derive(Debug, Serialize)]
struct MandateReport {
    dry_run: bool,
    mandate_id: String,
    /// `signed` or `ended`.
    state: &'static str,
    /// Null when it ended.
    scheme: Option<Scheme>,
    iban: Option<String>,
    signed_at_ms: Option<u64>,
    #[serde(flatten)]
    done: ActDone,
}

impl MandateReport {
    fn show(&self) -> String {
        let mut facts = vec![("mandate", self.mandate_id.clone()), ("state", self.state.to_owned())];
        facts.extend(
            self.scheme.map(|scheme| ("scheme", if scheme == Scheme::Core { "core" } else { "b2b" }.to_owned())),
        );
        facts.extend(self.iban.clone().map(|iban| ("debits", iban)));
        facts.extend(self.signed_at_ms.map(|ms| ("signed", text::time(Time(ms)))));
        facts.extend(self.done.facts());
        printer::facts(facts)
    }
}

pub(super) async fn run(context: &Context, command: &MandateCommand) -> Result<(), Failure> {
    match command {
        MandateCommand::Sign(args) => sign(context, args).await,
        MandateCommand::End(args) => end(context, args).await,
        MandateCommand::List => list(context).await,
    }
}

/// One mandate, as the hub has it.
#[derive(Debug, Serialize)]
struct MandateRow {
    mandate_id: String,
    /// `waiting` for the operator, `accepted` or `ended`.
    state: &'static str,
    scheme: Scheme,
    iban: String,
    signed_at_ms: u64,
    /// Of what can still be taken back, so much can be spent at once.
    at_once: Amount,
    /// For so many days the rest cannot.
    provisional_days: u32,
}

#[derive(Debug, Serialize)]
struct MandateList {
    mandates: Vec<MandateRow>,
}

impl MandateList {
    fn show(&self) -> String {
        let rows = self.mandates.iter().map(|row| {
            let signed = text::time(Time(row.signed_at_ms));
            let day = signed.split(['T', ' ']).next().unwrap_or_default().to_owned();
            let at_once = match row.scheme {
                Scheme::B2b => "all".to_owned(),
                Scheme::Core => row.at_once.to_string(),
            };
            let scheme = if row.scheme == Scheme::Core { "core" } else { "b2b" };
            [row.mandate_id.clone(), row.state.to_owned(), scheme.to_owned(), row.iban.clone(), day, at_once]
        });
        printer::table(["MANDATE", "STATE", "SCHEME", "DEBITS", "SIGNED", "AT ONCE"], rows, "there are none")
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let mandates = client.mandates().await?;
    client.shut_down().await;
    let row = |info: MandateInfo| MandateRow {
        mandate_id: info.mandate_id,
        state: match info.standing {
            MandateStanding::Waiting => "waiting",
            MandateStanding::Accepted => "accepted",
            MandateStanding::Ended => "ended",
        },
        scheme: match info.scheme {
            MandateScheme::Core => Scheme::Core,
            MandateScheme::B2b => Scheme::B2b,
        },
        iban: info.iban,
        signed_at_ms: info.signed_at.0,
        at_once: info.at_once,
        provisional_days: info.provisional_days,
    };
    let list = MandateList { mandates: mandates.into_iter().map(row).collect() };
    context.printer.print(&list, MandateList::show)
}

async fn sign(context: &Context, args: &SignArgs) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let signed_at = Time(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let iban = match &args.iban {
        Some(iban) => iban.clone(),
        None => client.account_info().await?.iban,
    };
    let mandate_id = args.id.clone().unwrap_or_else(|| {
        let account = hex::encode(client.account().as_bytes().get(..6).unwrap_or_default());
        format!("WEIR-{account}-{}", now.as_secs())
    });
    let mut report = MandateReport {
        dry_run: args.dry_run,
        mandate_id: mandate_id.clone(),
        state: "signed",
        scheme: Some(args.scheme),
        iban: Some(iban.clone()),
        signed_at_ms: Some(signed_at.0),
        done: ActDone::NONE,
    };
    if !args.dry_run {
        if !args.yes {
            say(&report.show());
            confirm("Let the hub collect from this bank account?")?;
        }
        let scheme = args.scheme.into();
        let done = client.mandate(NewMandate { scheme, mandate_id, iban, signed_at }, false).await?;
        report.done = ActDone::of(&client.hub(), &done);
    }
    client.shut_down().await;
    context.printer.print(&report, MandateReport::show)
}

async fn end(context: &Context, args: &EndArgs) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let mandate_id = args.id.clone();
    let nothing = NewMandate { scheme: MandateScheme::Core, mandate_id, iban: String::new(), signed_at: Time(0) };
    let done = client.mandate(nothing, true).await?;
    let report = MandateReport {
        dry_run: false,
        mandate_id: args.id.clone(),
        state: "ended",
        scheme: None,
        iban: None,
        signed_at_ms: None,
        done: ActDone::of(&client.hub(), &done),
    };
    client.shut_down().await;
    context.printer.print(&report, MandateReport::show)
}
