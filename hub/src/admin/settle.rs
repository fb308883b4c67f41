//! Settlement's verbs on a running hub: windows, plans, and what operators say.

use serde::{Deserialize, Serialize};
use weir_protocol::act::{Abort, Act, Author, FeeSchedule, Fees, Operator, Plan, SignedAct};
use weir_protocol::amount::Currency;
use weir_protocol::id::AccountId;
use weir_protocol::keys::PublicKey;
use weir_protocol::reject::Reject;

use super::Fault;
use super::desk::{Desk, json};
use crate::engine::operators::{OperatorState, QUORUM};
use crate::engine::windows::WindowState;
use crate::settlement::{Cursor, Last, SettlementError, with_causes};

/// Accounts in a page of a window's report.
pub const ROWS: usize = 2_000;

/// Who is paid out below the minimum, as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastRow {
    /// Everybody.
    All,
    /// One account.
    One(AccountId),
}

impl From<LastRow> for Last {
    fn from(row: LastRow) -> Self {
        match row {
            LastRow::All => Self::All,
            LastRow::One(account) => Self::One(account),
        }
    }
}

/// Which window is meant when none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usual {
    /// The oldest that is cut off and has no plan; else the open one.
    ToPlan,
    /// The oldest that has a plan the bank was not told of; else the oldest that is not settled.
    ToApprove,
    /// The oldest that is not settled; else the newest that was cut off; else the open one.
    ToShow,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRow {
    /// The key.
    pub key: PublicKey,
    /// Whose it is.
    pub name: String,
    /// Whether it counts.
    pub state: OperatorState,
    /// The last number taken from it.
    pub number: u64,
}

/// All operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorList {
    /// How many stand.
    pub standing: u64,
    /// How many besides the planner must approve a plan.
    pub approvals_needed: u32,
    /// Each, by key.
    pub operators: Vec<OperatorRow>,
}

impl OperatorList {
    /// From the books.
    pub fn of(books: &crate::engine::books::Books) -> Self {
        let operators = books.operators();
        let row = |(key, record): (&PublicKey, &crate::engine::operators::OperatorRecord)| OperatorRow {
            key: *key,
            name: record.name.clone(),
            state: record.state,
            number: record.number(),
        };
        Self {
            standing: operators.standing() as u64,
            approvals_needed: books.policy().approvals,
            operators: operators.iter().map(row).collect(),
        }
    }
}

/// What became of something that an operator, or the hub itself, said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidRow {
    /// Whether it is new; if not, it was taken before.
    pub taken: bool,
}

/// What a plan would be, for an operator to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Everything but the operator and the number.
    pub plan: Plan,
}

/// Where the files of plans wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedRow {
    /// The directory.
    pub directory: std::path::PathBuf,
}

/// A window's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRow {
    /// The window.
    pub window: u64,
}

/// What the hub takes of an account's earnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeesRow {
    /// Whose.
    pub account: AccountId,
    /// Whether the schedule is the account's own, not the policy's.
    pub own: bool,
    /// The schedule.
    pub schedule: FeeSchedule,
}

impl Desk {
    /// Which window is meant.
    async fn window(&self, named: Option<u64>, usual: Usual) -> Result<u64, Reject> {
        if let Some(window) = named {
            return Ok(window);
        }
        self.handle
            .read(move |view| {
                let windows = view.books.windows();
                let first = |wanted: &dyn Fn(WindowState) -> bool| {
                    windows.iter().find(|(_, window)| wanted(window.state)).map(|(number, _)| number)
                };
                let unsettled = first(&|state| state != WindowState::Settled);
                let found = match usual {
                    Usual::ToPlan => first(&|state| state == WindowState::CutOff),
                    Usual::ToApprove => {
                        first(&|state| matches!(state, WindowState::Planned | WindowState::Approved)).or(unsettled)
                    }
                    Usual::ToShow => unsettled.or_else(|| windows.iter().next_back().map(|(number, _)| number)),
                };
                found.unwrap_or_else(|| windows.open())
            })
            .await
    }

    pub(super) async fn settle_report(
        &self,
        named: Option<u64>,
        usual: Usual,
        last: Option<LastRow>,
        after: Option<Cursor>,
    ) -> Result<serde_json::Value, Fault> {
        let window = self.window(named, usual).await?;
        json(&self.bank()?.page(window, last.map(Last::from), after, ROWS).await.map_err(fault)?)
    }

    pub(super) async fn settle_run(
        &self,
        window: Option<u64>,
        last: Option<LastRow>,
        dry_run: bool,
    ) -> Result<serde_json::Value, Fault> {
        let bank = self.bank()?;
        if dry_run {
            return self.settle_report(window, Usual::ToApprove, last, None).await;
        }
        let window = bank.run_window(window, last.map(Last::from)).await.map_err(fault)?;
        json(&bank.page(window, None, None, ROWS).await.map_err(fault)?)
    }

    pub(super) async fn settle_cutoff(&self) -> Result<serde_json::Value, Fault> {
        let window = self.bank()?.cut_off().await.map_err(fault)?;
        json(&WindowRow { window })
    }

    pub(super) async fn settle_proposal(&self, window: u64, currency: Currency) -> Result<serde_json::Value, Fault> {
        let plan = self.bank()?.proposal(window, currency).await.map_err(fault)?;
        json(&Proposal { plan })
    }

    pub(super) fn settle_staged(&self) -> Result<serde_json::Value, Fault> {
        json(&StagedRow { directory: self.bank()?.staged().to_owned() })
    }

    pub(super) async fn operators(&self) -> Result<serde_json::Value, Fault> {
        json(&self.handle.read(|view| OperatorList::of(view.books)).await?)
    }

    /// Something that an operator signed.
    pub(super) async fn signed(&self, signed: SignedAct) -> Result<serde_json::Value, Fault> {
        let Author::Operator(key) = signed.act.author() else {
            return Err(Fault::new("malformed", "only what operators sign is taken here"));
        };
        let planner = match &signed.act {
            Act::Approval(approval) => Some((approval.window, approval.currency)),
            _ => None,
        };
        let collection = match &signed.act {
            Act::ApproveCollect(act) if act.approved => Some(act.collect.collection),
            _ => None,
        };
        let (stands, own) = self
            .handle
            .read(move |view| {
                let plan = planner.and_then(|(window, currency)| {
                    view.books.windows().get(window)?.plans.get(&currency)?.plan.operator
                });
                let planned = collection.and_then(|number| view.books.collections().plans().get(&number));
                let plan = plan.or(planned.map(|plan| plan.planner));
                (view.books.operators().stands(&key), plan == Some(key))
            })
            .await?;
        if !stands {
            return Err(Fault::new("not_an_operator", format!("`{key}` is not the key of an operator who stands"))
                .hint("`weir-hub operators list` says who is; `weir-hub operators add` adds one"));
        }
        if own {
            return Err(Fault::new("own_plan", "the operator who planned cannot approve the plan").hint(
                "another operator must: `weir-hub settle approve` or `weir-hub debit approve`, with `--operator FILE`",
            ));
        }
        let taken = match &signed.act {
            Act::Plan(_) | Act::Approval(_) | Act::Abort(_) | Act::ForceFinal(_) => {
                self.bank()?.record(signed).await.map_err(fault)?
            }
            Act::ApproveCollect(_) => {
                self.bank()?.record_collection(signed).await.map_err(super::debit::not_collected)?
            }
            _ => {
                let named = match &signed.act {
                    Act::Operator(act) if act.stands => Some(act.key),
                    _ => None,
                };
                match (self.handle.order_signed(signed).await, named) {
                    (Err(Reject::Exists), Some(named)) => return Err(self.named_already(named, key).await?),
                    (taken, _) => taken?.is_some(),
                }
            }
        };
        json(&SaidRow { taken })
    }

    /// Why an operator cannot name a key: it stands, or he named it before and another one must.
    async fn named_already(&self, key: PublicKey, by: PublicKey) -> Result<Fault, Fault> {
        let list = self.handle.read(|view| OperatorList::of(view.books)).await?;
        let known = list.operators.iter().find(|row| row.key == key);
        if known.is_some_and(|row| row.state == OperatorState::Stands) {
            return Ok(Fault::new("Exists", format!("`{key}` is an operator's key already")));
        }
        let others = list.operators.iter().filter(|row| row.state == OperatorState::Stands && row.key != by);
        let names: Vec<&str> = others.map(|row| row.name.as_str()).collect();
        Ok(Fault::new("Exists", format!("you have named `{key}` already; another operator must name it too"))
            .hint(format!("one of {} runs the same command with a key file of their own", names.join(", "))))
    }

    /// The hub's own word on an operator, while it has one.
    pub(super) async fn operators_change(
        &self,
        key: PublicKey,
        stands: bool,
        name: String,
    ) -> Result<serde_json::Value, Fault> {
        let standing = self.handle.read(|view| view.books.operators().standing()).await?;
        if standing >= QUORUM {
            return Err(Fault::new(
                "operator_needed",
                format!("{standing} operators stand: one of them must sign this"),
            )
            .hint("`--operator FILE` names the key file"));
        }
        self.handle.order(Act::Operator(Operator { number: 0, by: None, key, stands, name })).await?;
        json(&SaidRow { taken: true })
    }

    /// The hub's own abort, where nobody need agree.
    pub(super) async fn settle_abort(&self, abort: Abort) -> Result<serde_json::Value, Fault> {
        self.alone("aborting a plan").await?;
        self.handle.order(Act::Abort(abort)).await?;
        json(&SaidRow { taken: true })
    }

    pub(super) async fn fees(&self, account: AccountId) -> Result<serde_json::Value, Fault> {
        let row = self
            .handle
            .read(move |view| {
                let (own, schedule) = (view.books.has_own_schedule(&account), view.books.schedule(&account));
                view.books.account(&account).map(|_| FeesRow { account, own, schedule })
            })
            .await?;
        json(&row.ok_or(Reject::UnknownAccount)?)
    }

    /// The hub's own word on an account's fees, where nobody need agree.
    pub(super) async fn fees_change(&self, row: FeesRow) -> Result<serde_json::Value, Fault> {
        self.alone("changing fees").await?;
        let FeesRow { account, own, schedule } = row;
        self.handle.order(Act::Fees(Fees { number: 0, operator: None, account, own, schedule })).await?;
        json(&SaidRow { taken: true })
    }

    async fn alone(&self, what: &str) -> Result<(), Fault> {
        let needed = self.handle.read(|view| view.books.policy().approvals).await?;
        if needed == 0 {
            return Ok(());
        }
        Err(Fault::new("operator_needed", format!("{what} needs an operator's signature"))
            .hint("`--operator FILE` names the key file; `weir-hub operators add` adds an operator"))
    }
}

/// A settlement that does not go on, for whoever asked.
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(super) fn fault(error: SettlementError) -> Fault {
    let message = with_causes(&error);
    let coded = |code: &str| Fault::new(code, message.clone());
    match error {
        SettlementError::Refused(Reject::Unauthenticated) => {
            coded("Unauthenticated").hint("`policy.approvals` asks for operators: `weir-hub settle plan --operator FILE`")
        }
        SettlementError::Refused(reject) => reject.into(),
        SettlementError::NothingPlanned(_) => coded("nothing_planned")
            .hint("`weir-hub settle plan --operator FILE` cuts the open window off and plans it; another operator approves it"),
        SettlementError::NotNow { why, .. } => {
            let hint = "`weir-hub settle status` says who agreed; `settle approve` agrees, `settle abort` gives a plan up";
            coded(why.reject().name()).hint(hint)
        }
        SettlementError::NotCutOff(_) => coded("not_cut_off").hint("`weir-hub settle cutoff` cuts the open window off"),
        SettlementError::NothingDue(_) => coded("nothing_due"),
        SettlementError::TooLate(_) => coded("too_late")
            .hint("without `--window` the open one is cut off and planned; `weir-hub settle abort` gives a plan up"),
        SettlementError::Waits { .. } => coded("waits").hint("run it first, or give it up with `weir-hub settle abort`"),
        SettlementError::Overtaken(_) => Fault { exit: 3, ..coded("overtaken").hint("plan it again") },
        SettlementError::OtherFile { .. } => coded("other_file")
            .hint("the file is not what was planned: find out who changed it; `weir-hub settle abort` gives the plan up"),
        // What was begun goes on by itself: at the next message of the bank, and at the next start.
        _ => coded("failed"),
    }
}
