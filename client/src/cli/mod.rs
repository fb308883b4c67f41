//! The command line of `weir`: typed arguments, one file a family of commands. stdout is data, stderr is talk.
//!
//! It asks the library, prints what comes of it, and holds no rule of the protocol.

mod account;
mod bench;
mod channels;
mod context;
mod evidence;
mod failure;
mod fetch;
mod gate;
mod history;
mod hub;
mod keys;
mod lanes;
mod listen;
mod mandate;
mod money;
mod orders;
mod pay;
mod printer;
mod proxy;
mod purse;
mod receipts;
mod text;
mod wallet;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{CommandFactory as _, Parser, Subcommand};

use context::Context;
use failure::{Failure, INTERRUPTED};
use printer::Printer;

/// Pay and be paid through a Weir hub, in amounts down to a billionth of a currency unit.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Output is a table on a terminal and JSON when piped or with --json; amounts are units of a currency, as strings.\nExit codes: 0 done, 1 refused or failed, 2 usage, 3 a retry is safe, 4 outcome unknown (look first), 130 interrupted.\n\nThe first steps:\n  weir init --hub weir://…\n  weir register --name NAME --iban IBAN\n  weir deposit\n  weir open 10.00\n  weir pay weir1… 0.05"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The folder that holds keys, channels and receipts [default: ~/.weir].
    #[arg(long, global = true, env = "WEIR_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
    /// Print JSON, also on a terminal.
    #[arg(long, global = true)]
    json: bool,
    /// What is logged on stderr, such as `debug` or `weir_client=debug,quinn=info` [default: errors; `gate`: warnings too].
    #[arg(long, global = true, env = "WEIR_LOG", value_name = "FILTER")]
    log: Option<String>,
}

// What stops a lane is said by the command itself.
/// What is logged unless somebody says otherwise.
const LOG: &str = "error,weir_client::lane=off";
/// The same for the gate: its operator is not there to be told otherwise. Strangers' requests log nothing at this level.
const GATE_LOG: &str = "error,weir=warn,weir_client=warn,weir_client::lane=off";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a home: a new account's key, for one hub.
    Init(account::InitArgs),
    /// Show the account's id, its hub and its home.
    Id,
    /// Show the hub's rules, or tell the home where the hub moved to.
    Hub(hub::HubArgs),
    /// Make the account known to the hub, or change its bank details.
    Register(account::RegisterArgs),
    /// Show where to send money for this account.
    Deposit(money::DepositArgs),
    /// Lock money for spending: open a channel.
    Open(channels::OpenArgs),
    /// Give a channel more capacity or a later expiry.
    Amend(channels::AmendArgs),
    /// Pay somebody.
    Pay(pay::PayArgs),
    /// Fetch something from the web, and pay for it.
    Fetch(fetch::FetchArgs),
    /// Let other programs pay: a local proxy within a budget.
    Proxy(proxy::ProxyArgs),
    /// Show what was bought over HTTP, and what is left of it where.
    Wallet(wallet::WalletArgs),
    /// Print each payment to this account as it comes.
    Listen(listen::ListenArgs),
    /// List the account's channels.
    Channels,
    /// Ways to spend a channel: keys and budgets of their own.
    #[command(subcommand)]
    Lanes(lanes::LanesCommand),
    /// Show how much there is, and where.
    Balance,
    /// Show what happened to the account.
    History(history::HistoryArgs),
    /// Give money back for a payment to this account.
    Refund(listen::RefundArgs),
    /// Have balance paid out to the bank account at the next cut-off.
    Withdraw(money::WithdrawArgs),
    /// Say what becomes of what you earn: paid out, or available to be spent again.
    Earnings(money::EarningsArgs),
    /// Let the hub top the account up by direct debit, or end that.
    #[command(subcommand)]
    Mandate(mandate::MandateCommand),
    /// Close a channel for good: what is not spent comes back.
    Close(channels::CloseArgs),
    /// Check a receipt or evidence, offline.
    Verify(receipts::VerifyArgs),
    /// Prove what became of a channel, a payment, a payout or an act, in a file that anyone can check offline.
    #[command(subcommand)]
    Evidence(evidence::EvidenceCommand),
    /// Show the account's statement of a window.
    Statement(evidence::StatementArgs),
    /// List the receipts in the home, or write those of earlier payments again.
    Receipts(receipts::ReceiptsArgs),
    /// Charge over HTTP: the gate before a web server.
    Gate(gate::GateArgs),
    /// Measure a hub under load: payments a second, latency, what each payment costs.
    Bench(bench::BenchArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command line; the process's exit code.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let runs_gate = matches!(&cli.command, Command::Gate(gate::GateArgs { command: None, .. }));
    let log = cli.log.as_deref().unwrap_or(if runs_gate { GATE_LOG } else { LOG });
    match log_to_stderr(log).and_then(|()| dispatch(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit()
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let printer = Printer::new(cli.json);
    let home = || {
        let default = || std::env::home_dir().map(|folder| folder.join(".weir"));
        let none = || Failure::usage(anyhow!("no home folder is known: name one with `--home DIR` or `WEIR_HOME`"));
        cli.home.clone().or_else(default).ok_or_else(none)
    };
    match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "weir", &mut script);
            printer::raw(&script).map(drop)
        }
        Command::Verify(args) => receipts::verify(printer, &args),
        Command::Gate(gate::GateArgs { command: Some(gate::GateCommand::Doctor(args)), .. }) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let context = Context::new(printer, if args.dry_run { PathBuf::new() } else { home()? });
            if !args.dry_run {
                context.unlock()?;
            }
            let done = runtime.block_on(interruptible(&context, gate::doctor(&context, &args)));
            runtime.shutdown_background();
            done
        }
        Command::Gate(args) => gate::gate(printer, args),
        Command::Init(args) => account::init(&Context::new(printer, home()?), &args),
        Command::Id => account::id(&Context::new(printer, home()?)),
        Command::Wallet(args) => wallet::wallet(&Context::new(printer, home()?), &args),
        Command::Bench(args) => {
            bench::bench(&Context::new(printer, if args.needs_home() { home()? } else { PathBuf::new() }), &args)
        }
        command => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let context = Context::new(printer, home()?);
            context.unlock()?;
            let done = match &command {
                // Ends by itself when it is told to.
                Command::Proxy(args) => runtime.block_on(proxy::proxy(&context, args)),
                command => runtime.block_on(interruptible(&context, run(&context, command))),
            };
            runtime.shutdown_background();
            done
        }
    }
}

async fn run(context: &Context, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Hub(args) => hub::hub(context, args).await,
        Command::Register(args) => account::register(context, args).await,
        Command::Deposit(args) => money::deposit(context, args).await,
        Command::Open(args) => channels::open(context, args).await,
        Command::Amend(args) => channels::amend(context, args).await,
        Command::Pay(args) => pay::pay(context, args).await,
        Command::Fetch(args) => fetch::fetch(context, args).await,
        Command::Listen(args) => listen::listen(context, args).await,
        Command::Channels => channels::channels(context).await,
        Command::Lanes(command) => lanes::run(context, command).await,
        Command::Balance => account::balance(context).await,
        Command::History(args) => history::history(context, args).await,
        Command::Refund(args) => listen::refund(context, args).await,
        Command::Withdraw(args) => money::withdraw(context, args).await,
        Command::Earnings(args) => money::earnings(context, args).await,
        Command::Mandate(command) => mandate::run(context, command).await,
        Command::Close(args) => channels::close(context, args).await,
        Command::Receipts(args) => receipts::receipts(context, args).await,
        Command::Evidence(command) => evidence::evidence(context, command).await,
        Command::Statement(args) => evidence::statement(context, args).await,
        // Done without a runtime, or without an end by Ctrl-C.
        Command::Init(_)
        | Command::Proxy(_)
        | Command::Id
        | Command::Wallet(_)
        | Command::Verify(_)
        | Command::Gate(_)
        | Command::Bench(_)
        | Command::Completions { .. } => Ok(()),
    }
}

/// Runs until done or Ctrl-C. Nothing is lost by stopping anywhere; what is left open is said.
async fn interruptible(context: &Context, command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::select! {
        done = command => done,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            let failure = Failure::from(anyhow!("interrupted")).exit_with(INTERRUPTED);
            Err(match context.interruption() {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
    }
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
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn filters_of_the_log_are_read_and_the_gate_s_hears_warnings() {
        for (text, most) in [(LOG, tracing::Level::ERROR), (GATE_LOG, tracing::Level::WARN)] {
            let filter = tracing_subscriber::EnvFilter::try_new(text);
            assert_eq!(filter.map(|filter| filter.max_level_hint()).ok().flatten(), Some(most.into()), "{text}");
        }
    }
}
