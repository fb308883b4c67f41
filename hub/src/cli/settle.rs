//! `settle` and `accounts fees`. What an operator signs is checked here first: the payouts that are shown are those in the
//! plan, and the files that lie there have the hash that is signed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, ensure};
use clap::{Args, Subcommand};
use weir_protocol::act::{Abort, Act, Approval, FeeSchedule, Fees, ForceFinal, MAX_TEXT, Plan};
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::hash::Hash;
use weir_protocol::id::AccountId;
use weir_protocol::merkle;

use super::operators::{AgreeArgs, OperatorArg, PlanSignArgs, Signer, all_named, named};
use super::printer::{self, Printer};
use super::verbs::running;
use super::{DataArg, Failure};
use crate::admin::client::Client;
use crate::admin::request::Request;
use crate::admin::settle::{FeesRow, LastRow, Proposal, SaidRow, StagedRow, Usual, WindowRow};
use crate::engine::windows::{PayoutState, WindowState, Windows};
use crate::settlement::report::{PlanLine, RunReport};
use crate::settlement::sha256_of;

/// Payouts and skipped accounts that a table shows; `--json` has all.
const SHOWN: usize = 50;

#[derive(Debug, Subcommand)]
pub(super) enum SettleCommand {
    /// Show what a window pays out, to whom, who is skipped and why. With an operator's key: record it as a signed plan.
    Plan(PlanArgs),
    /// Agree to a plan, as another operator than the planner.
    Approve(ApproveArgs),
    /// Tell the bank what is planned and approved. Where `policy.approvals` is 0: cut the open window off, plan it, tell
    /// the bank.
    Run(RunArgs),
    /// How far a window has come.
    Status(StatusArgs),
    /// Give up a plan that the bank was not told of; the window can be planned again.
    Abort(AbortArgs),
    /// Cut the open window off, and no more.
    Cutoff {
        #[command(flatten)]
        data: DataArg,
    },
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    data: DataArg,
    /// The window; otherwise the oldest that is cut off and not planned, else the open one.
    #[arg(long)]
    window: Option<u64>,
    /// Pay out below the minimum: to one account, or to `all`. Whole cents still.
    #[arg(long, value_name = "ACCOUNT|all", value_parser = last)]
    force_final: Option<LastRow>,
    #[command(flatten)]
    sign: PlanSignArgs,
}

#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    #[command(flatten)]
    data: DataArg,
    /// The window; otherwise the oldest that is planned.
    #[arg(long)]
    window: Option<u64>,
    /// Only if this is the plan: the `plan_hash` that was agreed on.
    #[arg(long, value_name = "HASH")]
    plan_hash: Option<Hash>,
    #[command(flatten)]
    agree: AgreeArgs,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    data: DataArg,
    /// The window; otherwise each that is planned.
    #[arg(long)]
    window: Option<u64>,
    /// Where `policy.approvals` is 0, pay out below the minimum: to one account, or to `all`.
    #[arg(long, value_name = "ACCOUNT|all", value_parser = last)]
    force_final: Option<LastRow>,
    #[command(flatten)]
    confirm: super::ConfirmArgs,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    data: DataArg,
    /// The window; otherwise the oldest that is not settled, else the newest.
    #[arg(long)]
    window: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct AbortArgs {
    #[command(flatten)]
    data: DataArg,
    /// The window; otherwise the oldest that is planned.
    #[arg(long)]
    window: Option<u64>,
    /// Why; it is kept in the journal.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    operator: OperatorArg,
}

/// `accounts fees`.
#[derive(Debug, Args)]
pub(super) struct FeesArgs {
    #[command(flatten)]
    data: DataArg,
    /// The account.
    account: AccountId,
    /// Hundredths of a percent of what it earns in a window.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    basis_points: Option<u32>,
    /// Besides, for each payment that it receives.
    #[arg(long, value_name = "AMOUNT")]
    per_payment: Option<Amount>,
    /// At least this in a window in which it earns something.
    #[arg(long, value_name = "AMOUNT")]
    minimum: Option<Amount>,
    /// Back to the policy's schedule.
    #[arg(long, conflicts_with_all = ["basis_points", "per_payment", "minimum"])]
    default: bool,
    #[command(flatten)]
    operator: OperatorArg,
}

fn last(text: &str) -> Result<LastRow, String> {
    if text == "all" {
        return Ok(LastRow::All);
    }
    text.parse().map(LastRow::One).map_err(|error| format!("{error}; or `all`"))
}

pub(super) fn settle(command: &SettleCommand, printer: Printer) -> Result<(), Failure> {
    match command {
        SettleCommand::Plan(args) => plan(args, printer),
        SettleCommand::Approve(args) => approve(args, printer),
        SettleCommand::Run(args) => run(args, printer),
        SettleCommand::Status(args) => {
            let report = read(&mut running(&args.data.data)?, args.window, Usual::ToShow, None)?;
            printer.print(&report, show)
        }
        SettleCommand::Abort(args) => abort(args, printer),
        SettleCommand::Cutoff { data } => {
            let mut hub = running(&data.data)?;
            let WindowRow { window } = hub.ask(&Request::SettleCutoff {})?;
            let report = read(&mut hub, Some(window), Usual::ToShow, None)?;
            printer.print(&report, show)
        }
    }
}

/// A whole report, page by page.
fn read(hub: &mut Client, window: Option<u64>, usual: Usual, last: Option<LastRow>) -> Result<RunReport, Failure> {
    let mut whole: RunReport = hub.ask(&Request::SettleReport { window, usual, last, after: None })?;
    while let Some(after) = whole.next {
        let request = Request::SettleReport { window: Some(whole.window), usual, last, after: Some(after) };
        let mut page: RunReport = hub.ask(&request)?;
        whole.positions.append(&mut page.positions);
        whole.payouts.append(&mut page.payouts);
        whole.skipped.append(&mut page.skipped);
        whole.next = page.next;
    }
    Ok(whole)
}

fn plan(args: &PlanArgs, printer: Printer) -> Result<(), Failure> {
    let data = &args.data.data;
    let file = args.sign.file()?;
    let mut hub = running(data)?;
    let report = read(&mut hub, args.window, Usual::ToPlan, args.force_final)?;
    let Some(file) = file else { return printer.print(&report, show) };
    let mut signer = Signer::open(data, &mut hub, &file)?;
    let window = report.window;
    if report.state.is_none() {
        ensure_first(&mut hub, window)?;
    }
    if !args.sign.agree.yes {
        printer::say(&show(&report));
        let cut = if report.state.is_none() { "Cut the window off, and sign" } else { "Sign" };
        printer::confirm_or(
            &format!("{cut} this plan of window {window}?"),
            "without `--operator` nothing is done, `--yes` signs",
        )?;
    }
    // Who is paid out below the minimum is said in the same breath: an open window that pays out nothing else settles when
    // it is cut off.
    if report.state.is_none() && args.force_final.is_none() {
        let _: WindowRow = hub.ask(&Request::SettleCutoff {})?;
    }
    if let Some(last) = args.force_final {
        let account = match last {
            LastRow::All => None,
            LastRow::One(account) => Some(account),
        };
        let number = signer.next();
        let act = ForceFinal { number, operator: Some(signer.public()), window, account };
        signer.send(&mut hub, Act::ForceFinal(act))?;
    }
    // From here on nothing is earned in the window: what is read now is what is planned.
    let shown = changed(&report);
    let report = read(&mut hub, Some(window), Usual::ToPlan, None)?;
    // Bank accounts that waited count from the cut-off on.
    if !args.sign.agree.yes && changed(&report) > shown {
        printer::say(&show(&report));
        printer::confirm("With the cut-off a payout goes to another bank account than was shown. Sign the plan?")?;
    }
    for currency in currencies(&report) {
        let Proposal { plan } = hub.ask(&Request::SettleProposal { window, currency })?;
        check_payouts(&report, currency, (plan.root, plan.total))?;
        let number = signer.next();
        signer.send(&mut hub, Act::Plan(Plan { number, operator: Some(signer.public()), ..plan }))?;
    }
    let report = read(&mut hub, Some(window), Usual::ToShow, None)?;
    printer.print(&report, show)
}

/// Payouts to another bank account than before.
fn changed(report: &RunReport) -> u64 {
    report.payouts.iter().filter(|payout| payout.iban_before.is_some()).count() as u64
}

/// While another plan waits for the bank, nothing else can be planned: better said before the open window is cut off.
fn ensure_first(hub: &mut Client, window: u64) -> Result<(), Failure> {
    let other: RunReport =
        hub.ask(&Request::SettleReport { window: None, usual: Usual::ToApprove, last: None, after: None })?;
    if !matches!(other.state, Some(WindowState::Planned | WindowState::Approved)) {
        return Ok(());
    }
    let other = other.window;
    let error =
        anyhow!("window {window} waits: the bank has not been told of the plan of window {other}; nothing was done");
    Err(Failure::from(error).hint("run it first, or give it up with `weir-hub settle abort`"))
}

/// Currencies in which something is paid out and nothing planned.
fn currencies(report: &RunReport) -> Vec<Currency> {
    let mut all: Vec<Currency> = report.payouts.iter().map(|payout| payout.currency).collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|currency| report.plans.iter().all(|plan| plan.currency != *currency));
    all
}

/// What was shown is what is signed.
fn check_payouts(report: &RunReport, currency: Currency, (root, total): (Hash, Amount)) -> Result<(), Failure> {
    let shown = report.payouts.iter().filter(|payout| payout.currency == currency);
    let made =
        Windows::plan_root(report.window, currency, shown.clone().map(|payout| (&payout.account, &payout.amount)));
    let sum = shown.map(|payout| payout.amount).try_fold(Amount::ZERO, Amount::checked_add);
    if made == root && sum.is_ok_and(|sum| sum == total) {
        return Ok(());
    }
    let error = anyhow!("the payouts that the hub shows are not those that it wants signed");
    Err(Failure::from(error).hint("bookings may have gone on in between: try again; if it stays so, do not sign"))
}

fn approve(args: &ApproveArgs, printer: Printer) -> Result<(), Failure> {
    let data = &args.data.data;
    let file = args.agree.file()?;
    let mut hub = running(data)?;
    let mut signer = Signer::open(data, &mut hub, &file)?;
    let report = read(&mut hub, args.window, Usual::ToApprove, None)?;
    let window = report.window;
    let Some(plan_hash) = report.plan_hash else {
        let error = anyhow!("window {window} has no plan");
        return Err(Failure::from(error).hint("`weir-hub settle plan --operator FILE` makes one"));
    };
    if let Some(wanted) = args.plan_hash.filter(|wanted| *wanted != plan_hash) {
        return Err(anyhow!("the plan of window {window} is `{plan_hash}`, not `{wanted}`").into());
    }
    let StagedRow { directory } = hub.ask(&Request::SettleStaged {})?;
    for plan in &report.plans {
        check_payouts(&report, plan.currency, (plan.root, plan.total))?;
        check_files(&directory, plan)?;
    }
    if !args.agree.yes {
        printer::say(&show(&report));
        printer::confirm_or(
            &format!("Approve the plan of window {window}, `{plan_hash}`?"),
            "`weir-hub settle status` shows it, `--yes` approves it; `--plan-hash HASH` only if it is this one",
        )?;
    }
    let signs = signer.public();
    for plan in report.plans.iter().filter(|plan| !plan.approvals.contains(&signs)) {
        let number = signer.next();
        let approval =
            Approval { number, operator: signs, window, currency: plan.currency, plan: plan.plan, file: plan.file };
        signer.send(&mut hub, Act::Approval(approval))?;
    }
    let report = read(&mut hub, Some(window), Usual::ToShow, None)?;
    printer.print(&report, show)
}

/// The files that lie there are the planned ones: hashed here, not believed.
fn check_files(directory: &Path, plan: &PlanLine) -> Result<(), Failure> {
    let paths: Vec<PathBuf> = plan.files.iter().map(|name| directory.join(name)).collect();
    let mut hashes = Vec::with_capacity(paths.len());
    for path in &paths {
        hashes.push(
            sha256_of(path).map_err(|error| anyhow!(error).context(format!("cannot read `{}`", path.display())))?,
        );
    }
    if merkle::root(&hashes) == plan.file {
        return Ok(());
    }
    let first = paths.first().map_or_else(String::new, |path| path.display().to_string());
    let error = anyhow!("`{first}` is not the file that was planned: its SHA-256 is another");
    Err(Failure::from(error).hint("find out who changed it; `weir-hub settle abort` gives the plan up"))
}

fn run(args: &RunArgs, printer: Printer) -> Result<(), Failure> {
    let mut hub = running(&args.data.data)?;
    let (window, last) = (args.window, args.force_final);
    if args.confirm.dry_run || !args.confirm.yes {
        let planned = read(&mut hub, window, Usual::ToApprove, last)?;
        ensure_can_run(&planned)?;
        if args.confirm.dry_run {
            return printer.print(&planned, show);
        }
        printer::say(&show(&planned));
        let question = if planned.state.is_none() { "Cut the window off and pay this out?" } else { "Pay this out?" };
        printer::confirm(question)?;
    }
    let done: RunReport = hub.ask(&Request::SettleRun { window, last, dry_run: false })?;
    let report = read(&mut hub, Some(done.window), Usual::ToShow, None)?;
    printer.print(&report, show)
}

/// Where operators must agree, only what is planned is run: a dry run says so too.
fn ensure_can_run(report: &RunReport) -> Result<(), Failure> {
    if report.approvals_needed == 0 || !report.plans.is_empty() || report.payouts.is_empty() {
        return Ok(());
    }
    Err(Failure::from(anyhow!("window {} has no plan", report.window)).hint(
        "`weir-hub settle plan` shows what it would pay out; with `--operator FILE` it plans it, and another operator \
         approves it",
    ))
}

fn abort(args: &AbortArgs, printer: Printer) -> Result<(), Failure> {
    let data = &args.data.data;
    if args.reason.len() > MAX_TEXT {
        return Err(Failure::usage(anyhow!("a reason has at most {MAX_TEXT} bytes")));
    }
    let mut hub = running(data)?;
    let report = read(&mut hub, args.window, Usual::ToApprove, None)?;
    let window = report.window;
    ensure_planned(&report)?;
    let mut signer = args.operator.file().map(|file| Signer::open(data, &mut hub, &file)).transpose()?;
    for plan in &report.plans {
        let (currency, plan, reason) = (plan.currency, plan.plan, args.reason.clone());
        let _: SaidRow = match signer.as_mut() {
            None => hub.ask(&Request::SettleAbort { window, currency, plan, reason })?,
            Some(signer) => {
                let number = signer.next();
                let operator = Some(signer.public());
                signer.send(&mut hub, Act::Abort(Abort { number, operator, window, currency, plan, reason }))?
            }
        };
    }
    let report = read(&mut hub, Some(window), Usual::ToShow, None)?;
    printer.print(&report, show)
}

fn ensure_planned(report: &RunReport) -> anyhow::Result<()> {
    ensure!(!report.plans.is_empty(), "window {} has no plan", report.window);
    let told = report.payouts.iter().any(|payout| payout.state.is_some_and(|state| state != PayoutState::Planned));
    ensure!(!told, "the bank has been told of window {}: it cannot be given up any more", report.window);
    Ok(())
}

/// Shows or changes an account's fees.
pub(super) fn fees(args: &FeesArgs, printer: Printer) -> Result<(), Failure> {
    let data = &args.data.data;
    let mut hub = running(data)?;
    let account = args.account;
    let now: FeesRow = hub.ask(&Request::FeesShow { account })?;
    let changes = args.default || args.basis_points.is_some() || args.per_payment.is_some() || args.minimum.is_some();
    if changes {
        let schedule = if args.default {
            FeeSchedule { basis_points: 0, per_payment: Amount::ZERO, minimum: Amount::ZERO }
        } else {
            FeeSchedule {
                basis_points: args.basis_points.unwrap_or(now.schedule.basis_points),
                per_payment: args.per_payment.unwrap_or(now.schedule.per_payment),
                minimum: args.minimum.unwrap_or(now.schedule.minimum),
            }
        };
        let own = !args.default;
        let _: SaidRow = match args.operator.file() {
            None => hub.ask(&Request::FeesChange { fees: FeesRow { account, own, schedule } })?,
            Some(file) => {
                let mut signer = Signer::open(data, &mut hub, &file)?;
                let number = signer.next();
                let operator = Some(signer.public());
                signer.send(&mut hub, Act::Fees(Fees { number, operator, account, own, schedule }))?
            }
        };
    }
    let now: FeesRow = hub.ask(&Request::FeesShow { account })?;
    printer.print(&now, |row| {
        printer::facts([
            ("account", row.account.to_string()),
            ("schedule", if row.own { "its own" } else { "the policy's" }.to_owned()),
            ("of what it earns", format!("{} basis points", row.schedule.basis_points)),
            ("for each payment", row.schedule.per_payment.to_string()),
            ("at least", row.schedule.minimum.to_string()),
        ])
    })
}

fn state_of(report: &RunReport) -> &'static str {
    match report.state {
        None => "open",
        Some(WindowState::CutOff) => "cut off",
        Some(WindowState::Planned) => "planned",
        Some(WindowState::Approved) => "approved",
        Some(WindowState::Instructed) => "instructed",
        Some(WindowState::Settled) => "settled",
    }
}

fn show(report: &RunReport) -> String {
    let mut facts = vec![("window", report.window.to_string()), ("state", state_of(report).to_owned())];
    facts.extend(report.plan_hash.map(|hash| ("plan hash", hash.to_string())));
    if report.aborted > 0 {
        facts.push(("given up", printer::count(report.aborted, "plan")));
    }
    for plan in &report.plans {
        let planner = plan.operator.map(|key| named(plan.operator_name.as_deref().unwrap_or_default(), &key));
        facts.push(("planned by", planner.unwrap_or_else(|| "the hub itself".to_owned())));
        facts.extend(all_named(&plan.approval_names, &plan.approvals).map(|who| ("approved by", who)));
        facts.extend(plan.waits.iter().map(|why| ("waits", why.clone())));
        facts.push(("sha-256 of the files", plan.file.to_string()));
    }
    facts.extend(report.files.iter().map(|name| ("file", name.clone())));
    for (currency, sums) in &report.sums {
        facts.push(("earned", format!("{} {currency} with {}", sums.earned, printer::count(sums.payments, "payment"))));
        facts.push(("fees", format!("{} {currency}", sums.fees)));
        facts.push((
            "paid out",
            format!("{} {currency} with {}", sums.paid_out, printer::count(sums.payouts, "payout")),
        ));
        let each = sums.payments_per_payout.filter(|_| sums.payments > 0);
        facts.extend(each.map(|each| ("instructions", format!("{} for each payout", printer::count(each, "payment")))));
        facts.extend(sums.netted_basis_points.map(|netted| {
            let could = percent(sums.nettable_basis_points.unwrap_or(0));
            (
                "value",
                format!(
                    "{} of what was earned stays (netting it with what was spent can keep {could})",
                    percent(netted)
                ),
            )
        }));
    }
    for (currency, change) in &report.change {
        let text = format!(
            "{} {currency} with {}; {} are new, {} are gone",
            change.paid_out,
            printer::count(change.payouts, "payout"),
            change.new,
            change.gone
        );
        facts.push(("window before", text));
    }
    if changed(report) > 0 {
        let what = printer::count(changed(report), "payout");
        facts.push(("look twice", format!("{what} to another bank account than before: CHANGED")));
    }
    let mut text = printer::facts(facts);
    let positions = report.positions.iter().take(SHOWN).map(|line| {
        [
            line.account.to_string(),
            format!("{} {}", line.earned, line.currency),
            line.payments.to_string(),
            line.fee.to_string(),
            line.kept.to_string(),
            line.marked.to_string(),
            line.carried.to_string(),
            line.payable.to_string(),
            line.paid_before.to_string(),
        ]
    });
    let heading = ["POSITION", "EARNED", "PAYMENTS", "FEE", "KEPT", "MARKED", "CARRIED", "PAYABLE", "PAID OUT BEFORE"];
    part(&mut text, &printer::table(heading, positions), report.positions.len());
    let first = report.payouts.iter().filter(|line| line.iban_before.is_some());
    let payouts = first.chain(report.payouts.iter().filter(|line| line.iban_before.is_none())).take(SHOWN);
    let payouts = payouts.map(|line| {
        let state = line.state.map_or("", |state| match state {
            PayoutState::Planned => "planned",
            PayoutState::Instructed => "instructed",
            PayoutState::Settled => "settled",
            PayoutState::Returned => "returned",
        });
        let amount = format!("{} {}", line.amount, line.currency);
        let goes_to = match (&line.iban, &line.iban_before) {
            (Some(iban), Some(before)) => format!("{iban} CHANGED, was {before}"),
            (iban, _) => iban.clone().unwrap_or_default(),
        };
        [line.account.to_string(), amount, line.end_to_end_id.clone(), state.to_owned(), goes_to]
    });
    let heading = ["PAYOUT TO", "AMOUNT", "END TO END ID", "STATE", "BANK ACCOUNT"];
    part(&mut text, &printer::table(heading, payouts), report.payouts.len());
    let skipped = report.skipped.iter().take(SHOWN);
    let skipped =
        skipped.map(|line| [line.account.to_string(), format!("{} {}", line.amount, line.currency), line.why.clone()]);
    part(&mut text, &printer::table(["SKIPPED", "AMOUNT", "WHY"], skipped), report.skipped.len());
    text
}

fn percent(basis_points: u64) -> String {
    format!("{}.{:02} %", basis_points / 100, basis_points % 100)
}

fn part(text: &mut String, table: &str, lines: usize) {
    if lines == 0 {
        return;
    }
    text.push_str("\n\n");
    text.push_str(table);
    if lines > SHOWN {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n… and {} more: `--json` has all", lines - SHOWN);
    }
}
