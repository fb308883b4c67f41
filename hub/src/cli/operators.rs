//! `operators`, and signing as one: the key file stays with its owner, who signs here; the hub gets the signature.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use serde::Serialize;
use weir_protocol::act::{Act, ApproveIban, MAX_NAME, Operator};
use weir_protocol::id::{AccountId, HubId};
use weir_protocol::keys::{PublicKey, SecretKey};

use super::printer::{self, Printer};
use super::verbs::{running, show_limits, stopped};
use super::{ConfirmArgs, DataArg, Failure};
use crate::admin::client::Client;
use crate::admin::report::LimitsRow;
use crate::admin::request::Request;
use crate::admin::settle::{OperatorList, SaidRow};
use crate::engine::operators::OperatorState;
use crate::keys::{KeyFiles, create_key_file, read_secret};

/// Names an operator's key file when no flag does.
const VARIABLE: &str = "WEIR_HUB_OPERATOR";

/// An operator's key file.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct OperatorArg {
    /// The key file of the operator who signs [env: WEIR_HUB_OPERATOR].
    #[arg(long, value_name = "FILE")]
    pub(super) operator: Option<PathBuf>,
}

impl OperatorArg {
    /// The file: the flag's, or the environment's.
    pub(super) fn file(&self) -> Option<PathBuf> {
        let set = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        self.operator.clone().or_else(|| set.map(PathBuf::from))
    }
}

/// Agreeing to something as an operator.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AgreeArgs {
    #[command(flatten)]
    operator: OperatorArg,
    /// Do not ask.
    #[arg(long)]
    pub(super) yes: bool,
}

impl AgreeArgs {
    /// The key file, without which nobody agrees.
    pub(super) fn file(&self) -> Result<PathBuf, Failure> {
        self.operator.file().ok_or_else(|| {
            let hint = "`--operator FILE` or WEIR_HUB_OPERATOR names the key file";
            Failure::usage(anyhow!("who signs?")).hint(hint)
        })
    }
}

/// Planning something as an operator, or looking at what a plan would be.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PlanSignArgs {
    #[command(flatten)]
    pub(super) agree: AgreeArgs,
    /// Sign and record the plan, with the key that `--operator` or WEIR_HUB_OPERATOR names. `--operator` alone does too.
    #[arg(long)]
    sign: bool,
}

impl PlanSignArgs {
    /// The key file; none: only a look.
    pub(super) fn file(&self) -> Result<Option<PathBuf>, Failure> {
        let signs = self.sign || self.agree.operator.operator.is_some();
        signs.then(|| self.agree.file()).transpose()
    }
}

/// An operator as people read it: whose key, and the key.
pub(super) fn named(name: &str, key: &PublicKey) -> String {
    if name.is_empty() { key.to_string() } else { format!("{name}, {key}") }
}

/// Operators as people read them.
pub(super) fn all_named<'a>(names: &'a [String], keys: &'a [PublicKey]) -> impl Iterator<Item = String> + 'a {
    let names = names.iter().map(String::as_str).chain(std::iter::repeat(""));
    keys.iter().zip(names).map(|(key, name)| named(name, key))
}

/// Somebody who signs as an operator.
pub(super) struct Signer {
    key: SecretKey,
    hub: HubId,
    number: u64,
}

impl Signer {
    /// Reads the key, and asks the hub for its next number. Fails when the key is no standing operator's.
    pub(super) fn open(data: &Path, hub: &mut Client, file: &Path) -> Result<Self, Failure> {
        let key = read_secret(file)?;
        let list: OperatorList = hub.ask(&Request::OperatorsList {})?;
        let public = key.public();
        let known = list.operators.iter().find(|row| row.key == public && row.state == OperatorState::Stands);
        let Some(known) = known else {
            let error = anyhow!("`{public}` ({}) is not the key of an operator who stands", file.display());
            return Err(Failure::from(error).hint(format!("`weir-hub operators add {public} --name NAME` adds it")));
        };
        Ok(Self { key, hub: KeyFiles::of(data).certificate()?.hub, number: known.number })
    }

    pub(super) fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// The number of the next act.
    pub(super) const fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Signs an act that names this operator and [`Self::next`], and hands it to the hub.
    pub(super) fn send(&self, hub: &mut Client, act: Act) -> Result<SaidRow, Failure> {
        let signed = Box::new(act.sign(&self.hub, &self.key));
        Ok(hub.ask(&Request::Sign { signed })?)
    }
}

/// `accounts approve-iban`.
#[derive(Debug, clap::Args)]
pub(super) struct ApproveIbanArgs {
    #[command(flatten)]
    data: DataArg,
    /// The account.
    account: AccountId,
    #[command(flatten)]
    operator: OperatorArg,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Signs that payouts of an account may go to the bank account that waits.
pub(super) fn approve_iban(args: &ApproveIbanArgs, printer: Printer) -> Result<(), Failure> {
    let data = &args.data.data;
    let account = args.account;
    let look = Request::AccountsLimits { account, set: None };
    let mut hub = running(data)?;
    let row: LimitsRow = hub.ask(&look)?;
    let Some(iban) = row.waiting_iban.clone() else {
        let error = anyhow!("no changed bank account of `{account}` waits");
        return Err(Failure::from(error).hint("`weir-hub accounts limits ACCOUNT` shows what waits"));
    };
    if args.confirm.dry_run {
        return printer.print(&row, show_limits);
    }
    let Some(file) = args.operator.file() else {
        let error = anyhow!("an operator must sign this");
        return Err(Failure::usage(error).hint("`--operator FILE` names the key file"));
    };
    let mut signer = Signer::open(data, &mut hub, &file)?;
    if !args.confirm.yes {
        printer::say(&show_limits(&row));
        printer::confirm(&format!("Agree that payouts of this account go to {iban}?"))?;
    }
    let number = signer.next();
    let act = ApproveIban { number, operator: signer.public(), account, iban };
    signer.send(&mut hub, Act::ApproveIban(act))?;
    let row: LimitsRow = hub.ask(&look)?;
    printer.print(&row, show_limits)
}

#[derive(Debug, Serialize)]
struct KeyMade {
    key: PublicKey,
    file: PathBuf,
}

/// Makes a key file.
pub(super) fn key(file: &Path, printer: Printer) -> Result<(), Failure> {
    let key = create_key_file(file)?;
    printer.print(&KeyMade { key, file: file.to_owned() }, |made| {
        printer::facts([("key", made.key.to_string()), ("file", made.file.display().to_string())])
    })
}

/// Lists operators.
pub(super) fn list(data: &Path, printer: Printer) -> Result<(), Failure> {
    let list: OperatorList = match Client::connect(data)? {
        Some(mut hub) => hub.ask(&Request::OperatorsList {})?,
        None => OperatorList::of(stopped(data)?.state().books()),
    };
    printer.print(&list, show_list)
}

fn show_list(list: &OperatorList) -> String {
    let rows = list.operators.iter().map(|row| {
        let state = match row.state {
            OperatorState::Named => "waits for another operator",
            OperatorState::Stands => "stands",
            OperatorState::Revoked => "revoked",
        };
        [row.key.to_string(), row.name.clone(), state.to_owned()]
    });
    let table = printer::table(["OPERATOR", "NAME", "STATE"], rows);
    format!("{table}\n\napprovals that a plan needs besides the planner: {}", list.approvals_needed)
}

/// Adds or revokes a key.
pub(super) fn change(
    data: &Path,
    key: PublicKey,
    name: Option<String>,
    signer: &OperatorArg,
    printer: Printer,
) -> Result<(), Failure> {
    let stands = name.is_some();
    let name = name.unwrap_or_default();
    if name.len() > MAX_NAME || stands && name.is_empty() {
        return Err(Failure::usage(anyhow!("a name has 1 to {MAX_NAME} bytes")));
    }
    let mut hub = running(data)?;
    let _: SaidRow = match signer.file() {
        None => hub.ask(&Request::OperatorsChange { key, stands, name })?,
        Some(file) => {
            let mut signer = Signer::open(data, &mut hub, &file)?;
            let number = signer.next();
            let act = Act::Operator(Operator { number, by: Some(signer.public()), key, stands, name });
            signer.send(&mut hub, act)?
        }
    };
    let list: OperatorList = hub.ask(&Request::OperatorsList {})?;
    printer.print(&list, show_list)
}
