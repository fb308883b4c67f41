//! Settlement: from what everybody earned to bank files, and from the bank's messages back to the ledger.
//!
//! Drives the engine through acts and the bank connector through files; owns neither. Every step is an act or an atomic
//! file operation that may be repeated: after a crash [`Settlement::resume`] goes on where it stopped. The bank is told
//! once: a file is staged before its plan is committed, moves to the outbox only after the instruction is durable, and
//! has left the stage then.
//!
//! - `inbox`: the bank's messages; `spill`: their entries between two readings; `matching`: what an entry is; `told`: the payouts that messages name.
//! - `heard`: what the bank said that is not money. `reconcile`: bank against ledger; `resolve`: what a person decides.
//! - `plan`: what a window pays out, and the bytes of its files. `stage`: where they wait, and how they leave. `split`: how many
//!   payments each has. `side`: several at the same time.
//! - `collect`: direct debits under mandates.
//! - `report`: a window as people and programs see it.

pub mod collect;
mod fuse;
pub mod heard;
mod inbox;
mod matching;
mod plan;
pub mod reconcile;
pub mod report;
pub mod resolve;
mod side;
mod spill;
mod split;
mod stage;
mod told;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_protocol::act::{Abort, Act, Cutoff, ForceFinal, Instruct, Plan, Settled, SignedAct};
use weir_protocol::amount::{Currency, Time};
use weir_protocol::hash::Hash;
use weir_protocol::id::AccountId;
use weir_protocol::reject::Reject;

use crate::bank::{AccountError, Bic, DateError, Iban, InspectError, MAX_PAYMENTS, Spool, SpoolError, WriteError};
use crate::engine::windows::{NotNow, WindowState};
use crate::pipeline::Handle;
use crate::schedule::Schedule;

use collect::Debits;
use heard::Heard;
use inbox::Inbox;
pub use inbox::InboxReport;
pub use matching::Oddity;
pub use report::{Cursor, PayoutLine, RunReport, SkippedLine};
pub use stage::sha256_of;
pub use weir_protocol::evidence::end_to_end_id;

use fuse::Fuse;
use plan::{Draft, PlanFile, file_names, file_root};
use split::Splits;
use stage::Stage;

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
    /// A written file is one that the bank would refuse.
    #[error("the file for the bank is wrong; nothing of it is sent")]
    Inspect(#[from] InspectError),
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
    /// A staged direct debit is not the one that was committed.
    #[error("the file of direct debit {collection} is not the one that was committed: `{}`", path.display())]
    OtherCollection {
        /// Its number.
        collection: u64,
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to tell the bank.
    #[error("no window is planned; window {0} is open")]
    NothingPlanned(u64),
    /// The bank cannot be told now.
    #[error("window {window} cannot be instructed: {why}")]
    NotNow {
        /// The window.
        window: u64,
        /// Why.
        why: NotNow,
    },
    /// No such window, or still open.
    #[error("window {0} was not cut off")]
    NotCutOff(u64),
    /// Nothing to plan.
    #[error("window {0} has nothing to pay out")]
    NothingDue(u64),
    /// What it pays out is fixed.
    #[error("window {0} is planned or settled: who is paid out below the minimum is said before")]
    TooLate(u64),
    /// Another window's plan must go first, or be given up.
    #[error(
        "window {window} waits: what it pays out is part of the plan of window {other}, which the bank has not been told"
    )]
    Waits {
        /// The window.
        window: u64,
        /// The other one.
        other: u64,
    },
    /// A thread panicked.
    #[error("a task of settlement broke off")]
    Broken,
    /// The ledger went on while a plan was made, again and again.
    #[error("the plan of window {0} was overtaken by other bookings; run it again")]
    Overtaken(u64),
}

impl From<Reject> for SettlementError {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

/// Who is paid out below the minimum in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// Everybody.
    All,
    /// One account.
    One(AccountId),
}

impl Last {
    const fn account(self) -> Option<AccountId> {
        match self {
            Self::All => None,
            Self::One(account) => Some(account),
        }
    }
}

/// How far [`Settlement::advance`] goes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// What was begun is finished; where nobody need agree, the bank is told.
    Begun,
    /// What is approved is told the bank.
    Approved,
}

/// Settlement of one hub with one bank account.
#[derive(Debug)]
pub struct Settlement {
    handle: Handle,
    spool: Spool,
    root: PathBuf,
    stage: Stage,
    account: BankAccount,
    heard: tokio::sync::Mutex<Heard>,
    statement_max_age_ms: u64,
    per_file: usize,
    splits: Arc<Splits>,
    debits: Debits,
    fuse: Fuse,
    /// One thing at a time: every step looks at what is durable and does the next.
    turn: tokio::sync::Mutex<()>,
}

impl Settlement {
    /// Over the bank's directories under `root`: `outbox/`, `inbox/`, and `staged/` for what is not told yet.
    pub fn open(handle: Handle, root: &Path, account: BankAccount) -> Result<Self, SettlementError> {
        let spool = Spool::open(root)?;
        let fuse = Fuse::default();
        let stage = Stage::open(root.join("staged"), spool.outbox().to_owned(), fuse.clone())?;
        let heard = tokio::sync::Mutex::new(Heard::load(root)?);
        let root = root.to_owned();
        let turn = tokio::sync::Mutex::new(());
        let splits = Arc::new(Splits::load(&root)?);
        Ok(Self {
            handle,
            spool,
            root,
            stage,
            account,
            heard,
            statement_max_age_ms: 0,
            per_file: MAX_PAYMENTS,
            splits,
            debits: Debits::default(),
            fuse,
            turn,
        })
    }

    /// With fewer payments in one file than [`MAX_PAYMENTS`]; at least one. What is planned already stays as it is.
    #[must_use]
    pub fn with_max_payments_per_file(self, per_file: usize) -> Self {
        Self { per_file: per_file.clamp(1, MAX_PAYMENTS), ..self }
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

    /// Where files wait until the bank may be told.
    pub fn staged(&self) -> &Path {
        self.stage.directory()
    }

    /// Tells the bank what may be told, and says how far the window has come.
    ///
    /// Where the policy asks for no approvals, the open window is cut off and planned first, unless a window is named.
    /// Otherwise the named window, or each that has a plan, is instructed if it is approved. An open window without
    /// anything to pay out is cut off and settled.
    pub async fn run(&self) -> Result<RunReport, SettlementError> {
        let window = self.run_window(None, None).await?;
        self.report(window).await
    }

    /// The same for one window, whose number it gives; `last`: who is paid out below the minimum, where the hub may say so
    /// by itself.
    pub async fn run_window(&self, window: Option<u64>, last: Option<Last>) -> Result<u64, SettlementError> {
        let _turn = self.turn.lock().await;
        let (open, alone, planned, idle) = self
            .handle
            .read(|view| {
                let books = view.books;
                let planned: Vec<u64> = books
                    .windows()
                    .iter()
                    .filter(|(_, window)| matches!(window.state, WindowState::Planned | WindowState::Approved))
                    .map(|(number, _)| number)
                    .collect();
                let idle = report::nothing_to_do(books);
                (books.windows().open(), books.policy().approvals == 0, planned, idle)
            })
            .await?;
        let windows = match window {
            Some(window) => vec![window],
            None if alone => vec![self.cut_off_now(open).await?],
            None if !planned.is_empty() => planned,
            None if idle => vec![self.cut_off_now(open).await?],
            None => return Err(SettlementError::NothingPlanned(open)),
        };
        let mut reported = open;
        for window in windows {
            if let Some(last) = last.filter(|_| alone) {
                let act = ForceFinal { number: 0, operator: None, window, account: last.account() };
                self.order(Act::ForceFinal(act)).await?;
            }
            self.advance(window, Reach::Approved).await?;
            reported = window;
        }
        Ok(reported)
    }

    /// Cuts the open window off, and no more: its number. Where nothing is to be paid out it is settled.
    pub async fn cut_off(&self) -> Result<u64, SettlementError> {
        let _turn = self.turn.lock().await;
        let open = self.handle.read(|view| view.books.windows().open()).await?;
        let window = self.cut_off_now(open).await?;
        self.advance(window, Reach::Begun).await?;
        Ok(window)
    }

    /// Cuts the open window off if a schedule says that it is time; its number then.
    pub async fn cut_off_if_due(&self, schedule: &Schedule) -> Result<Option<u64>, SettlementError> {
        self.cut_off_if_passed(|began| schedule.next_after(began)).await
    }

    /// The same, with the first time after another as a schedule would give it.
    async fn cut_off_if_passed(
        &self,
        next_after: impl Fn(Time) -> Option<Time>,
    ) -> Result<Option<u64>, SettlementError> {
        let _turn = self.turn.lock().await;
        let now = self.handle.now()?;
        let windows =
            |view: &crate::pipeline::View<'_>| (view.books.windows().open(), view.books.windows().opened_at());
        let (open, began) = self.handle.read(windows).await?;
        if began.and_then(next_after).is_none_or(|next| now < next) {
            return Ok(None);
        }
        let window = self.cut_off_now(open).await?;
        self.advance(window, Reach::Begun).await?;
        Ok(Some(window))
    }

    /// An act of the hub itself.
    async fn order(&self, act: Act) -> Result<(), SettlementError> {
        self.fuse.burn()?;
        self.handle.order(act).await?;
        self.fuse.burn()
    }

    async fn cut_off_now(&self, window: u64) -> Result<u64, SettlementError> {
        self.order(Act::Cutoff(Cutoff { window })).await?;
        Ok(window)
    }

    /// The plan that the ledger gives for a window now, for an operator to sign; nothing is written.
    pub async fn proposal(&self, window: u64, currency: Currency) -> Result<Plan, SettlementError> {
        let _turn = self.turn.lock().await;
        let draft = self.draft(window, currency).await?;
        blocking(move || Ok(draft.plan(None, file_root(&draft.hash()?)))).await
    }

    /// Takes a signed plan, approval, abort, or last payouts; whether it was new. The files of a plan are staged before it
    /// is committed, and looked at again before an approval is. Last payouts of the open window cut it off.
    pub async fn record(&self, signed: SignedAct) -> Result<bool, SettlementError> {
        let _turn = self.turn.lock().await;
        match &signed.act {
            Act::Plan(plan) => {
                let known = self.handle.read({
                    let (digest, window, currency) =
                        (signed.act.digest(&self.handle.hub()), plan.window, plan.currency);
                    move |view| {
                        let record = view.books.windows().get(window)?.plans.get(&currency)?;
                        Some(record.digest == digest)
                    }
                });
                match known.await? {
                    Some(true) => return Ok(false),
                    Some(false) => return Err(Reject::Exists.into()),
                    None => {}
                }
                let draft = self.draft(plan.window, plan.currency).await?;
                let proposed = self.staged_plan(plan.window, plan.currency, draft).await?;
                let proposed = Plan { number: plan.number, operator: plan.operator, ..proposed };
                if proposed != *plan {
                    self.stage.clear(&self.handle.hub(), plan.window, plan.currency)?;
                    return Err(SettlementError::Overtaken(plan.window));
                }
            }
            Act::Approval(approval) => {
                self.ensure_staged(approval.window, approval.currency).await?;
            }
            // Cut off and not looked at in between: without what is forced the window may be empty, and would settle.
            Act::ForceFinal(last) => {
                let open = self.handle.read(|view| view.books.windows().open()).await?;
                if last.window == open {
                    self.cut_off_now(open).await?;
                }
            }
            Act::Abort(_) => {}
            _ => return Err(Reject::Unsupported.into()),
        }
        let window = match &signed.act {
            Act::Plan(act) => act.window,
            Act::Approval(act) => act.window,
            Act::Abort(act) => act.window,
            Act::ForceFinal(act) => act.window,
            _ => return Err(Reject::Unsupported.into()),
        };
        self.fuse.burn()?;
        let last = matches!(signed.act, Act::ForceFinal(_));
        let new = match self.handle.order_signed(signed).await {
            Err(Reject::Stale) if last && self.is_fixed(window).await? => return Err(SettlementError::TooLate(window)),
            other => other?.is_some(),
        };
        self.fuse.burn()?;
        self.advance(window, Reach::Begun).await?;
        Ok(new)
    }

    /// Whether what a window pays out can no longer change.
    async fn is_fixed(&self, window: u64) -> Result<bool, SettlementError> {
        let fixed = move |view: &crate::pipeline::View<'_>| {
            let known = view.books.windows().get(window);
            known.is_some_and(|known| known.state != WindowState::CutOff || !known.plans.is_empty())
        };
        Ok(self.handle.read(fixed).await?)
    }

    /// Takes every window that is not settled as far as it goes by itself.
    pub async fn resume(&self) -> Result<(), SettlementError> {
        let _turn = self.turn.lock().await;
        self.release_collections().await?;
        self.freeze_owing().await?;
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
        self.freeze_owing().await?;
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
            self.advance(window, Reach::Begun).await?;
        }
        Ok(())
    }

    async fn advance(&self, window: u64, reach: Reach) -> Result<(), SettlementError> {
        let (currencies, alone) = self
            .handle
            .read(move |view| {
                let policy = view.books.policy();
                // A plan in a currency that is served no more is finished all the same.
                let mut currencies = policy.currencies.clone();
                let planned = view.books.windows().get(window).into_iter().flat_map(|window| window.plans.keys());
                currencies.extend(planned.filter(|currency| !policy.currencies.contains(currency)));
                (currencies, policy.approvals == 0)
            })
            .await?;
        for currency in currencies {
            if alone {
                self.plan(window, currency).await?;
                if self.give_up_outdated(window, currency).await? {
                    self.plan(window, currency).await?;
                }
            }
            let tell = alone || reach == Reach::Approved;
            self.instruct(window, currency, tell, reach == Reach::Approved).await?;
        }
        match self.order(Act::Settled(Settled { window })).await {
            // Payouts wait or are in transit, or it is settled already.
            Err(SettlementError::Refused(Reject::Busy | Reject::Stale)) => Ok(()),
            Err(SettlementError::Refused(Reject::Unsupported)) => Err(SettlementError::NotCutOff(window)),
            other => other,
        }
    }

    /// What a window would pay out.
    async fn draft(&self, window: u64, currency: Currency) -> Result<Draft, SettlementError> {
        let (hub, account, per_file) = (self.handle.hub(), self.account.clone(), self.per_file);
        let (draft, other) = self
            .handle
            .read(move |view| {
                let other = view.books.windows().waiting_elsewhere(window, currency);
                (plan::draft(view.books, &hub, window, currency, (&account, per_file)), other)
            })
            .await?;
        let draft = draft.ok_or(SettlementError::NotCutOff(window))?;
        if draft.is_empty() {
            return Err(SettlementError::NothingDue(window));
        }
        match other {
            Some(other) => Err(SettlementError::Waits { window, other }),
            None => Ok(draft),
        }
    }

    /// Fixes what a window pays out in a currency, its files first: the hub by itself, where nobody need agree.
    async fn plan(&self, window: u64, currency: Currency) -> Result<(), SettlementError> {
        let open = self
            .handle
            .read(move |view| {
                let known = view.books.windows().get(window);
                known
                    .is_some_and(|window| window.state != WindowState::Settled && !window.plans.contains_key(&currency))
            })
            .await?;
        if !open {
            return Ok(());
        }
        for _ in 0..3 {
            let draft = match self.draft(window, currency).await {
                Ok(draft) => draft,
                Err(SettlementError::NothingDue(_) | SettlementError::Waits { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            let plan = self.staged_plan(window, currency, draft).await?;
            match self.order(Act::Plan(plan)).await {
                Err(SettlementError::Refused(Reject::Stale)) => {}
                other => return other,
            }
        }
        Err(SettlementError::Overtaken(window))
    }

    /// Writes the files of a draft, and fixes how they are split; the plan that they make.
    async fn staged_plan(&self, window: u64, currency: Currency, draft: Draft) -> Result<Plan, SettlementError> {
        let (stage, splits, per_file) = (self.stage.clone(), Arc::clone(&self.splits), self.per_file);
        blocking(move || {
            splits.fix(window, currency, per_file)?;
            Ok(draft.plan(None, file_root(&stage.write(&draft)?)))
        })
        .await
    }

    /// Where nobody need agree, a plan that can never be instructed any more is given up, to be made again; whether it was.
    async fn give_up_outdated(&self, window: u64, currency: Currency) -> Result<bool, SettlementError> {
        let outdated = self
            .handle
            .read(move |view| {
                let record = view.books.windows().get(window)?.plans.get(&currency)?;
                let why = view.books.may_instruct(window, currency).err()?;
                let never = matches!(why, NotNow::Planner | NotNow::Details | NotNow::Payee(_) | NotNow::Balance);
                never.then_some((record.digest, why))
            })
            .await?;
        let Some((plan, why)) = outdated else { return Ok(false) };
        tracing::warn!(window, %currency, %why, "a plan is given up and made again");
        let reason = match why {
            NotNow::Planner => "the planner was revoked",
            NotNow::Details => "a payee changed",
            NotNow::Payee(_) => "a payee cannot be paid out",
            _ => "not payable any more",
        };
        let abort = Abort { number: 0, operator: None, window, currency, plan, reason: reason.to_owned() };
        self.order(Act::Abort(abort)).await?;
        self.stage.clear(&self.handle.hub(), window, currency)?;
        Ok(true)
    }

    /// Tells the bank, once: instruction durable, then the staged files move to the outbox. `tell`: whether it is told if
    /// it may be; else only what was begun is finished. `must`: whether it is an error if it may not.
    async fn instruct(&self, window: u64, currency: Currency, tell: bool, must: bool) -> Result<(), SettlementError> {
        let step = self
            .handle
            .read(move |view| {
                let record = view.books.windows().get(window)?.plans.get(&currency)?;
                // The same question that the engine asks when the act comes.
                let may = view.books.may_instruct(window, currency).map(|record| record.digest);
                Some((record.instructed, record.payouts.len(), record.plan.file, may))
            })
            .await?;
        let Some((instructed, payouts, file, may)) = step else {
            return self.stage.clear(&self.handle.hub(), window, currency);
        };
        let hub = self.handle.hub();
        let names = file_names(&hub, window, currency, payouts, self.splits.of(window, currency));
        if !instructed {
            self.ensure_staged(window, currency).await?;
            let digest = match may {
                Ok(digest) if tell => digest,
                Err(why) if must => return Err(SettlementError::NotNow { window, why }),
                _ => return Ok(()),
            };
            self.order(Act::Instruct(Instruct { window, currency, plan: digest })).await?;
        }
        // What has left the stage is the bank's; what is there under another name nobody planned.
        let there = self.stage.waiting(&hub, window, currency)?;
        if let Some(other) = there.iter().find(|name| !names.contains(name)) {
            return Err(SettlementError::OtherFile { window, path: self.stage.directory().join(other) });
        }
        let waiting: Vec<String> = names.iter().filter(|name| there.contains(name)).cloned().collect();
        if !waiting.is_empty() {
            self.check_waiting(window, currency, &names, &waiting, file).await?;
        }
        for name in &waiting {
            self.stage.release(name)?;
        }
        Ok(())
    }

    /// The files of a plan that waits are there and are the planned ones; one that is lost or another is made again.
    async fn ensure_staged(&self, window: u64, currency: Currency) -> Result<(), SettlementError> {
        let (hub, account) = (self.handle.hub(), self.account.clone());
        let known = self
            .handle
            .read(move |view| {
                let record = view.books.windows().get(window)?.plans.get(&currency)?;
                Some((record.payouts.len(), record.plan.file))
            })
            .await?;
        let Some((payouts, file)) = known else { return Err(SettlementError::NotNow { window, why: NotNow::NoPlan }) };
        let per_file = self.splits.of(window, currency);
        let names = file_names(&hub, window, currency, payouts, per_file);
        let stage = self.stage.clone();
        let there = names.clone();
        if blocking(move || stage.holds(&there, file)).await? {
            return Ok(());
        }
        let planned = move |view: &crate::pipeline::View<'_>| {
            plan::planned(view.books, &hub, window, currency, (&account, per_file))
        };
        let draft = self.handle.read(planned).await?;
        let Some(draft) = draft else { return Err(SettlementError::NotNow { window, why: NotNow::NoPlan }) };
        let stage = self.stage.clone();
        // What is there stays until it is known that what replaces it is right.
        let made = blocking(move || {
            if file_root(&draft.hash()?) == file { Ok(file_root(&stage.write(&draft)?) == file) } else { Ok(false) }
        });
        if made.await? {
            return Ok(());
        }
        let path = self.stage.directory().join(names.first().map_or("", String::as_str));
        Err(SettlementError::OtherFile { window, path })
    }

    /// The files that have not left the stage are the planned ones.
    async fn check_waiting(
        &self,
        window: u64,
        currency: Currency,
        names: &[String],
        waiting: &[String],
        file: Hash,
    ) -> Result<(), SettlementError> {
        let stage = self.stage.clone();
        let right = if waiting.len() == names.len() {
            let names = names.to_vec();
            blocking(move || stage.holds(&names, file)).await?
        } else {
            // Some have left: the rest is compared with what they all were.
            let (hub, account) = (self.handle.hub(), self.account.clone());
            let per_file = self.splits.of(window, currency);
            let planned = move |view: &crate::pipeline::View<'_>| {
                plan::planned(view.books, &hub, window, currency, (&account, per_file))
            };
            let draft = self.handle.read(planned).await?;
            let waiting = waiting.to_vec();
            blocking(move || {
                let all = draft.map_or(Ok(Vec::new()), |draft| draft.hash())?;
                let mut right = file_root(&all) == file;
                for made in all.iter().filter(|made: &&PlanFile| waiting.contains(&made.name)) {
                    right = right && stage.is(made)?;
                }
                Ok(right)
            })
            .await?
        };
        let first = waiting.first().map_or("", String::as_str);
        if right {
            Ok(())
        } else {
            Err(SettlementError::OtherFile { window, path: self.stage.directory().join(first) })
        }
    }

    /// What a cut-off now would come to, without doing it.
    pub async fn preview(&self) -> Result<RunReport, SettlementError> {
        let hub = self.handle.hub();
        let whole = |view: &crate::pipeline::View<'_>| view.books.windows().open();
        let window = self.handle.read(whole).await?;
        let splits = Arc::clone(&self.splits);
        let page = move |view: &crate::pipeline::View<'_>| {
            report::page(view.books, (&hub, &splits), window, None, None, usize::MAX)
        };
        let report = self.handle.read(page).await?;
        report.ok_or(SettlementError::NotCutOff(window))
    }

    /// How far a window has come, whole.
    pub async fn report(&self, window: u64) -> Result<RunReport, SettlementError> {
        self.page(window, None, None, usize::MAX).await
    }

    /// A page of a window's report: `limit` accounts after a place. The first page has the sums.
    pub async fn page(
        &self,
        window: u64,
        last: Option<Last>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<RunReport, SettlementError> {
        let hub = self.handle.hub();
        let splits = Arc::clone(&self.splits);
        let page = move |view: &crate::pipeline::View<'_>| {
            report::page(view.books, (&hub, &splits), window, last, after, limit)
        };
        let page = self.handle.read(page).await?;
        page.ok_or(SettlementError::NotCutOff(window))
    }
}

/// Work that takes its time, away from the threads that carry bytes.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SettlementError> + Send + 'static,
) -> Result<T, SettlementError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| SettlementError::Broken)?
}

/// An error with its causes, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SettlementError {
    let path = path.to_owned();
    move |source| SettlementError::Io { action, path, source }
}

#[cfg(test)]
mod inbox_tests;
#[cfg(test)]
mod tests;
