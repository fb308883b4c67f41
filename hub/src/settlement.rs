//! Settlement: from what everybody earned to bank files, and from the bank's messages back to the ledger.
//!
//! Drives the engine through acts and the bank connector through files; owns neither. Every step is an act or an atomic
//! file operation that may be repeated: after a crash [`Settlement::resume`] goes on where it stopped. The bank is told
//! once: a file is staged before its plan is committed, moves to the outbox only after the instruction is durable, and
//! has left the stage then.
//!
//! - `inbox`: the bank's messages; `matching`: what an entry is; `told`: the payouts that messages name.
//! - `heard`: what the bank said that is not money. `reconcile`: bank against ledger; `resolve`: what a person decides.
//! - `plan`: what a window pays out, and the bytes of its file.

pub mod heard;
mod inbox;
mod matching;
mod plan;
pub mod reconcile;
pub mod resolve;
mod told;

use std::path::{Path, PathBuf};

use serde::Serialize;
use weir_protocol::act::{Act, Cutoff, Instruct, Plan, Settled};
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::id::AccountId;
use weir_protocol::reject::Reject;

use crate::bank::{AccountError, Bic, DateError, Iban, Spool, SpoolError, WriteError, write_atomically};
use crate::engine::windows::{PayoutState, WindowState, Windows};
use crate::pipeline::Handle;

use heard::Heard;
use inbox::Inbox;
pub use inbox::InboxReport;
pub use matching::Oddity;
pub use plan::end_to_end_id;

/// The hub's own bank account.
#[derive(Debug, Clone)]
pub struct BankAccount {
    /// Its holder.
    pub name: String,
    /// The account.
    pub iban: Iban,
    /// The bank, where it wants to be named.
    pub bic: Option<Bic>,
}

/// Why settlement did not go on.
#[derive(Debug, thiserror::Error)]
pub enum SettlementError {
    /// The hub refused an act, or does not accept now.
    #[error("the hub refused: {0}")]
    Refused(Reject),
    /// Directories of the bank.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A file for the bank cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What names a bank account, or a day, does not fit.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// A day outside the calendar.
    #[error(transparent)]
    Date(#[from] DateError),
    /// A file operation.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The staged file is not the one that was planned.
    #[error("the file of window {window} is not the one that was planned: `{}`", path.display())]
    OtherFile {
        /// The window.
        window: u64,
        /// The file.
        path: PathBuf,
    },
    /// The ledger went on while a plan was made, again and again.
    #[error("the plan of window {0} was overtaken by other bookings; run it again")]
    Overtaken(u64),
}

impl From<Reject> for SettlementError {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

/// One payout, as reported.
#[derive(Debug, Clone, Serialize)]
pub struct PayoutLine {
    /// Who is paid.
    pub account: AccountId,
    /// How much.
    pub amount: Amount,
    /// The currency.
    pub currency: Currency,
    /// As the bank sees it.
    pub end_to_end_id: String,
    /// How far it has come; none in a dry run.
    pub state: Option<PayoutState>,
}

/// Somebody who is not paid out, and why.
#[derive(Debug, Clone, Serialize)]
pub struct SkippedLine {
    /// Who.
    pub account: AccountId,
    /// What stays on the account.
    pub amount: Amount,
    /// The currency.
    pub currency: Currency,
    /// Why.
    pub why: String,
}

/// What a run did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// The window.
    pub window: u64,
    /// How far it has come; none in a dry run.
    pub state: Option<WindowState>,
    /// What is paid out.
    pub payouts: Vec<PayoutLine>,
    /// Who is not, and why.
    pub skipped: Vec<SkippedLine>,
    /// The files for the bank, by name.
    pub files: Vec<String>,
}

/// Settlement of one hub with one bank account.
#[derive(Debug)]
pub struct Settlement {
    handle: Handle,
    spool: Spool,
    root: PathBuf,
    staged: PathBuf,
    account: BankAccount,
    heard: tokio::sync::Mutex<Heard>,
    statement_max_age_ms: u64,
    /// One thing at a time: every step looks at what is durable and does the next.
    turn: tokio::sync::Mutex<()>,
}

impl Settlement {
    /// Over the bank's directories under `root`: `outbox/`, `inbox/`, and `staged/` for what is not told yet.
    pub fn open(handle: Handle, root: &Path, account: BankAccount) -> Result<Self, SettlementError> {
        let spool = Spool::open(root)?;
        let staged = root.join("staged");
        std::fs::create_dir_all(&staged).map_err(io("create", &staged))?;
        let heard = tokio::sync::Mutex::new(Heard::load(root)?);
        let root = root.to_owned();
        Ok(Self {
            handle,
            spool,
            root,
            staged,
            account,
            heard,
            statement_max_age_ms: 0,
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// With a bound on the age of the newest statement, beyond which reconciliation raises an alarm; 0: none.
    #[must_use]
    pub fn with_statement_max_age(self, age: std::time::Duration) -> Self {
        Self { statement_max_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX), ..self }
    }

    /// The bank's directories.
    pub const fn spool(&self) -> &Spool {
        &self.spool
    }

    /// The hub's bank account.
    pub const fn account(&self) -> &BankAccount {
        &self.account
    }

    /// Cuts the open window off and takes it as far as it goes: plan, file, instruction. The bank's answer comes through
    /// the inbox.
    pub async fn run(&self) -> Result<RunReport, SettlementError> {
        let _turn = self.turn.lock().await;
        let window = self.handle.read(|view| view.books.windows().open()).await?;
        self.handle.order(Act::Cutoff(Cutoff { window })).await?;
        self.advance(window).await?;
        self.report(window).await
    }

    /// What [`run`](Self::run) would do now, without doing it.
    pub async fn preview(&self) -> Result<RunReport, SettlementError> {
        Ok(self.handle.read(|view| plan::preview(view.books)).await?)
    }

    /// Takes every window that is not settled as far as it goes.
    pub async fn resume(&self) -> Result<(), SettlementError> {
        let _turn = self.turn.lock().await;
        self.advance_all().await
    }

    /// Reads what the bank has brought, then takes windows further.
    pub async fn poll(&self) -> Result<InboxReport, SettlementError> {
        let _turn = self.turn.lock().await;
        let report = {
            let mut heard = self.heard.lock().await;
            let mut inbox = Inbox {
                handle: &self.handle,
                spool: &self.spool,
                root: &self.root,
                account: &self.account,
                heard: &mut heard,
                now_ms: crate::clock::wall_ms(),
            };
            inbox.take().await?
        };
        if report.files > 0 {
            self.advance_all().await?;
        }
        Ok(report)
    }

    async fn advance_all(&self) -> Result<(), SettlementError> {
        let open = |view: &crate::pipeline::View<'_>| -> Vec<u64> {
            let windows = view.books.windows().iter();
            windows.filter(|(_, window)| window.state != WindowState::Settled).map(|(number, _)| number).collect()
        };
        for window in self.handle.read(open).await? {
            self.advance(window).await?;
        }
        Ok(())
    }

    async fn advance(&self, window: u64) -> Result<(), SettlementError> {
        let currencies = self.handle.read(|view| view.books.policy().currencies.clone()).await?;
        for currency in currencies {
            self.plan(window, currency).await?;
            self.instruct(window, currency).await?;
        }
        match self.handle.order(Act::Settled(Settled { window })).await {
            // Payouts are in transit, or it is settled already.
            Ok(_) | Err(Reject::Busy | Reject::Stale) => Ok(()),
            Err(reject) => Err(reject.into()),
        }
    }

    /// Fixes what a window pays out in a currency, its file first.
    async fn plan(&self, window: u64, currency: Currency) -> Result<(), SettlementError> {
        for _ in 0..3 {
            let account = self.account.clone();
            let hub = self.handle.hub();
            let draft = self.handle.read(move |view| plan::draft(view.books, &hub, window, currency, &account)).await?;
            let Some(draft) = draft else { return Ok(()) };
            let mut file = Hash::ZERO;
            if !draft.payouts.is_empty() {
                let bytes = draft.write()?;
                file = sha256(&bytes);
                write_atomically(&self.staged, &draft.file_name(), |out| {
                    std::io::Write::write_all(out, &bytes).map_err(io("write into", &self.staged))
                })?;
            }
            let amounts = draft.amounts();
            let plan = Plan {
                window,
                currency,
                payouts: u32::try_from(amounts.len()).unwrap_or(u32::MAX),
                total: amounts
                    .values()
                    .try_fold(Amount::ZERO, |sum, part| sum.checked_add(*part))
                    .unwrap_or(Amount::MAX),
                root: Windows::plan_root(window, currency, &amounts),
                file,
            };
            match self.handle.order(Act::Plan(plan)).await {
                Ok(_) => return Ok(()),
                Err(Reject::Stale) => {}
                Err(reject) => return Err(reject.into()),
            }
        }
        Err(SettlementError::Overtaken(window))
    }

    /// Tells the bank, once: instruction durable, then the staged file moves to the outbox.
    async fn instruct(&self, window: u64, currency: Currency) -> Result<(), SettlementError> {
        let planned = self
            .handle
            .read(move |view| {
                let record = view.books.windows().get(window)?.plans.get(&currency)?;
                let told = record.payouts.values().all(|payout| payout.state != PayoutState::Planned);
                Some((record.digest, record.plan.file, told))
            })
            .await?;
        let Some((digest, file, told)) = planned else { return Ok(()) };
        if file.is_zero() {
            return Ok(());
        }
        let name = plan::file_name(&self.handle.hub(), window, currency);
        let staged = self.staged.join(&name);
        if !staged.exists() {
            // It has left the stage: the bank has it.
            return if told { Ok(()) } else { Err(SettlementError::OtherFile { window, path: staged }) };
        }
        let bytes = std::fs::read(&staged).map_err(io("read", &staged))?;
        if sha256(&bytes) != file {
            return Err(SettlementError::OtherFile { window, path: staged });
        }
        if !told {
            self.handle.order(Act::Instruct(Instruct { window, currency, plan: digest })).await?;
        }
        let outbox = self.spool.outbox().join(&name);
        std::fs::rename(&staged, &outbox).map_err(io("move to the outbox", &staged))?;
        for dir in [self.spool.outbox(), self.staged.as_path()] {
            std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir))?;
        }
        Ok(())
    }

    /// How far a window has come.
    pub async fn report(&self, window: u64) -> Result<RunReport, SettlementError> {
        let hub = self.handle.hub();
        let report = self.handle.read(move |view| plan::report(view.books, &hub, window)).await?;
        report.ok_or(SettlementError::Refused(Reject::Unsupported))
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SettlementError {
    let path = path.to_owned();
    move |source| SettlementError::Io { action, path, source }
}

#[cfg(test)]
mod tests;
