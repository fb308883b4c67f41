//! The command line of `weir-hub`: typed arguments, one file a command or family. stdout is data, stderr is talk.
//!
//! It puts the parts together and holds no rule of the hub.

mod debit;
mod echo;
mod failure;
mod init;
mod operators;
mod printer;
mod reconcile;
mod reports;
pub mod run;
mod sandbox;
mod settle;
mod upkeep;
mod verbs;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use weir_protocol::amount::Amount;
use weir_protocol::id::{AccountId, ChannelId};
use weir_protocol::keys::PublicKey;

pub use failure::Failure;
use printer::Printer;

use crate::admin::request::LimitSet;

/// A payment-channel micropayment hub.
#[derive(Debug, Parser)]
#[command(name = "weir-hub", version, about, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print JSON, also on a terminal.
    #[arg(long, global = true)]
    json: bool,
    /// What is logged on stderr, such as `debug` or `weir_hub=debug,quinn=info` [default: `warn,weir_hub=info`; `dev`: `warn`].
    #[arg(long, global = true, env = "WEIR_HUB_LOG", value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new hub: keys and settings.
    Init(init::InitArgs),
    /// Run the hub until it is told to stop.
    Run(run::RunArgs),
    /// Everything in one process, to try it: hub, sandbox bank, payees, payers, traffic.
    Dev(crate::dev::DevArgs),
    /// How the hub is.
    Status(DataArg),
    /// Participants.
    #[command(subcommand)]
    Accounts(AccountsCommand),
    /// Prefunded money of payers.
    #[command(subcommand)]
    Channels(ChannelsCommand),
    /// Windows and payouts.
    #[command(subcommand)]
    Settle(settle::SettleCommand),
    /// Whose word settlement needs.
    #[command(subcommand)]
    Operators(OperatorsCommand),
    /// Bank against ledger: whether they agree, and what waits for a person. Exit 1 if something raises an alarm.
    Reconcile(reconcile::ReconcileArgs),
    /// Entries of the bank that nobody owns.
    #[command(subcommand)]
    Suspense(reconcile::SuspenseCommand),
    /// Permissions to collect from participants' bank accounts.
    #[command(subcommand)]
    Mandates(debit::MandatesCommand),
    /// Top-ups by direct debit.
    #[command(subcommand)]
    Debit(debit::DebitCommand),
    /// Write the state beside the journal, for a quick start.
    Snapshot(DataArg),
    /// The hub's clock.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Recompute everything from the journal; exit 0 only if all of it follows.
    Audit(upkeep::AuditArgs),
    /// Delete the read index and build it again from the journal. The hub must not be running.
    Rebuild(DataArg),
    /// Renew the signing key's certificate. The identity key must be there.
    Certify(init::CertifyArgs),
    /// A bank to try the hub with, on the hub's own bank directories; misbehaves on request.
    SandboxBank(Box<sandbox::SandboxArgs>),
    /// Answer on the hub's transport without doing its work, until stdin ends: for `weir bench`.
    #[command(hide = true)]
    Echo,
    /// Prove what became of a channel, a payment, a payout or an act, in a file that anyone can check offline.
    #[command(subcommand)]
    Evidence(reports::EvidenceCommand),
    /// A participant's statement of one window.
    Statement(reports::StatementArgs),
    /// The books for other programs.
    #[command(subcommand)]
    Export(reports::ExportCommand),
    /// Settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Clone, Args)]
struct DataArg {
    /// The data directory.
    #[arg(long, env = "WEIR_HUB_DATA", value_name = "DIR")]
    data: PathBuf,
}

#[derive(Debug, Clone, Args)]
struct ConfirmArgs {
    /// Only show what would happen.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
enum AccountsCommand {
    /// All accounts, by id.
    List {
        #[command(flatten)]
        data: DataArg,
        /// Only those that wait for approval.
        #[arg(long)]
        waiting: bool,
    },
    /// Let an account act.
    Approve {
        #[command(flatten)]
        data: DataArg,
        /// The account.
        account: AccountId,
    },
    /// Refuse an account's payments; without a direction, both.
    Freeze {
        #[command(flatten)]
        data: DataArg,
        /// The account.
        account: AccountId,
        /// Payments to it.
        #[arg(long)]
        incoming: bool,
        /// Payments, openings and withdrawals by it.
        #[arg(long)]
        outgoing: bool,
        /// Why; it is kept in the journal.
        #[arg(long)]
        reason: String,
    },
    /// What the hub takes of an account's earnings; with values, change it.
    Fees(settle::FeesArgs),
    /// Show an account's own bounds, or set them: those that are not named are then as for everybody.
    Limits {
        #[command(flatten)]
        data: DataArg,
        /// The account.
        account: AccountId,
        /// Most that one payment of the account's may be; `none`: no bound.
        #[arg(long, value_name = "AMOUNT", value_parser = bound)]
        payment: Option<Amount>,
        /// Most that a deposit may bring available and locked money to; `none`: no bound.
        #[arg(long, value_name = "AMOUNT", value_parser = bound)]
        balance: Option<Amount>,
        /// Most that it may lock in channels on one day; `none`: no bound.
        #[arg(long, value_name = "AMOUNT", value_parser = bound)]
        day: Option<Amount>,
        /// Nothing of its own: everything as for everybody.
        #[arg(long, conflicts_with_all = ["payment", "balance", "day"])]
        reset: bool,
    },
    /// Agree, as an operator, to the bank account to which an account's owner has changed.
    ApproveIban(operators::ApproveIbanArgs),
    /// Take an account's payments again, in both directions.
    Unfreeze {
        #[command(flatten)]
        data: DataArg,
        /// The account.
        account: AccountId,
        /// Why; it is kept in the journal.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
enum ChannelsCommand {
    /// All channels, by id.
    List {
        #[command(flatten)]
        data: DataArg,
        /// Only this account's.
        #[arg(long)]
        account: Option<AccountId>,
    },
    /// Close a channel for good: what is not spent goes back to its account.
    Close {
        #[command(flatten)]
        data: DataArg,
        #[command(flatten)]
        confirm: ConfirmArgs,
        /// The channel.
        channel: ChannelId,
    },
    /// Close all channels of which nothing was heard for long.
    #[command(
        after_help = "Nothing is closed that paid, was opened, amended, granted or attached a lane in that time. To have it done without a terminal, say what the dry run said:\n\nExample:\n  weir-hub channels close-idle --idle 90d --dry-run --data hub\n  weir-hub channels close-idle --idle 90d --confirm '3 channels, 12.5 EUR' --data hub"
    )]
    CloseIdle {
        #[command(flatten)]
        data: DataArg,
        /// For how long: days or hours, such as `90d` or `36h`.
        #[arg(long, value_parser = crate::config::age)]
        idle: std::time::Duration,
        /// Only show what would happen.
        #[arg(long)]
        dry_run: bool,
        /// Do it if it is exactly this: count and amounts, as the dry run shows them.
        #[arg(long, value_name = "TEXT", conflicts_with = "dry_run")]
        confirm: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum OperatorsCommand {
    /// Make an operator's key file (mode 0600), where its owner keeps it; prints the public key.
    Key {
        /// The file; what is there is never replaced.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Add a key. While fewer than two operators stand, whoever holds the machine may; then two operators must, one after
    /// the other.
    Add {
        #[command(flatten)]
        data: DataArg,
        /// The public key, as `operators key` prints it.
        key: PublicKey,
        /// Whose it is.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        operator: operators::OperatorArg,
    },
    /// All operators, by key.
    List(DataArg),
    /// End a key at once. From two operators on, one of them must sign it.
    Revoke {
        #[command(flatten)]
        data: DataArg,
        /// The public key.
        key: PublicKey,
        #[command(flatten)]
        operator: operators::OperatorArg,
    },
}

#[derive(Debug, Subcommand)]
enum ClockCommand {
    /// Say that the wall clock is right, after it was set while the hub ran.
    Confirm(DataArg),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Every setting, and where its value comes from.
    Show(SettingsArgs),
}

/// Settings that have flags of their own.
#[derive(Debug, Clone, Args)]
struct SettingsArgs {
    #[command(flatten)]
    data: DataArg,
    /// Where clients connect (setting `listen`).
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// A file elsewhere that notes the newest commit (setting `anchor`).
    #[arg(long, value_name = "FILE")]
    anchor: Option<String>,
}

impl SettingsArgs {
    fn flags(&self) -> crate::config::Flags {
        let listen = self.listen.clone().map(|value| ("listen", "--listen", value));
        let anchor = self.anchor.clone().map(|value| ("anchor", "--anchor", value));
        listen.into_iter().chain(anchor).collect()
    }

    fn settings(&self) -> Result<crate::config::Settings, crate::config::ConfigError> {
        crate::config::Settings::gather(&self.data.data, &self.flags(), |name| std::env::var(name).ok())
    }
}

impl Cli {
    /// `dev` says in plain words what happens: its log is for what goes wrong.
    fn filter(&self) -> &str {
        let usual = if matches!(self.command, Command::Dev(_)) { "warn" } else { "warn,weir_hub=info" };
        self.log.as_deref().unwrap_or(usual)
    }
}

/// Runs the command line; the process's exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(failure) = log_to_stderr(cli.filter()).and_then(|()| dispatch(cli.command, cli.json)) {
        failure.print();
        return failure.exit();
    }
    ExitCode::SUCCESS
}

fn dispatch(command: Command, json: bool) -> Result<(), Failure> {
    let printer = Printer::new(json);
    match command {
        Command::Init(args) => init::init(&args, printer),
        Command::Run(args) => run::run(&args, printer),
        Command::Dev(args) => crate::dev::dev(&args, json),
        Command::Status(data) => verbs::status(&data.data, printer),
        Command::Accounts(AccountsCommand::List { data, waiting }) => verbs::accounts(&data.data, waiting, printer),
        Command::Accounts(AccountsCommand::Approve { data, account }) => verbs::approve(&data.data, account, printer),
        Command::Accounts(AccountsCommand::Freeze { data, account, incoming, outgoing, reason }) => {
            let both = !incoming && !outgoing;
            verbs::freeze(&data.data, account, (incoming || both, outgoing || both), reason, printer)
        }
        Command::Accounts(AccountsCommand::Limits { data, account, payment, balance, day, reset }) => {
            let any = reset || payment.is_some() || balance.is_some() || day.is_some();
            let set = any.then(|| LimitSet {
                payment_max: payment.unwrap_or(Amount::ZERO),
                balance_max: balance.unwrap_or(Amount::ZERO),
                day_max: day.unwrap_or(Amount::ZERO),
            });
            verbs::limits(&data.data, account, set, printer)
        }
        Command::Accounts(AccountsCommand::ApproveIban(args)) => operators::approve_iban(&args, printer),
        Command::Accounts(AccountsCommand::Unfreeze { data, account, reason }) => {
            verbs::freeze(&data.data, account, (false, false), reason, printer)
        }
        Command::Channels(ChannelsCommand::List { data, account }) => verbs::channels(&data.data, account, printer),
        Command::Channels(ChannelsCommand::Close { data, confirm, channel }) => {
            verbs::close(&data.data, &confirm, channel, printer)
        }
        Command::Channels(ChannelsCommand::CloseIdle { data, idle, dry_run, confirm }) => {
            verbs::close_idle(&data.data, idle, (dry_run, confirm), printer)
        }
        Command::Accounts(AccountsCommand::Fees(args)) => settle::fees(&args, printer),
        Command::Settle(command) => settle::settle(&command, printer),
        Command::Operators(OperatorsCommand::Key { out }) => operators::key(&out, printer),
        Command::Operators(OperatorsCommand::List(data)) => operators::list(&data.data, printer),
        Command::Operators(OperatorsCommand::Add { data, key, name, operator }) => {
            operators::change(&data.data, key, Some(name), &operator, printer)
        }
        Command::Operators(OperatorsCommand::Revoke { data, key, operator }) => {
            operators::change(&data.data, key, None, &operator, printer)
        }
        Command::Reconcile(args) => reconcile::reconcile(&args, printer),
        Command::Suspense(command) => reconcile::suspense(&command, printer),
        Command::Mandates(command) => debit::mandates_command(&command, printer),
        Command::Debit(command) => debit::debit(&command, printer),
        Command::Snapshot(data) => verbs::snapshot(&data.data, printer),
        Command::Clock(ClockCommand::Confirm(data)) => verbs::confirm_clock(&data.data, printer),
        Command::Audit(args) => upkeep::audit(&args, printer),
        Command::Rebuild(data) => upkeep::rebuild(&data.data, printer),
        Command::Certify(args) => init::certify(&args, printer),
        Command::SandboxBank(args) => sandbox::sandbox(&args, printer),
        Command::Evidence(command) => reports::evidence(&command, printer),
        Command::Statement(args) => reports::statement(&args, printer),
        Command::Export(reports::ExportCommand::Journal(args)) => reports::export(&args, printer),
        Command::Echo => echo::echo(printer),
        Command::Config(ConfigCommand::Show(args)) => upkeep::show_config(&args, printer),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "weir-hub", &mut script);
            printer.raw(&script)
        }
    }
}

/// A bound above zero, or `none`.
fn bound(text: &str) -> Result<Amount, String> {
    if text == "none" {
        return Ok(Amount::MAX);
    }
    let amount: Amount = text.parse().map_err(|error| format!("{error}"))?;
    if amount.is_zero() { Err("it is above zero, or `none`".to_owned()) } else { Ok(amount) }
}

fn log_to_stderr(filter: &str) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| Failure::usage(anyhow::Error::new(error).context("`--log` is not a filter")))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
