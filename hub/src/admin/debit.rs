//! Direct debits on a running hub: mandates, and what is collected under them.

use weir_protocol::act::{Act, MandateScheme, MandateTerms};
use weir_protocol::amount::Amount;
use weir_protocol::id::AccountId;

use super::Fault;
use super::desk::{Desk, json};
use super::request::MandateName;
use super::settle::fault;
use crate::engine::collections::{MandateRecord, MandateState, NotCollected};
use crate::settlement::collect::{DebitError, MandateRow, Wish, collections, mandates};
use crate::settlement::with_causes;

impl Desk {
    /// The mandate that is meant: the named one, or the only one in a state.
    async fn mandate(&self, name: &MandateName, usual: MandateState) -> Result<(String, MandateRecord), Fault> {
        let account = name.account;
        self.standing(account).await?;
        let of = move |view: &crate::pipeline::View<'_>| -> Vec<(String, MandateRecord)> {
            let all = view.books.collections().mandates().filter(|(of, ..)| *of == account);
            all.map(|(_, id, record)| (id.to_owned(), record.clone())).collect()
        };
        let all = self.handle.read(of).await?;
        let fits = |(id, record): &&(String, MandateRecord)| match &name.mandate_id {
            Some(wanted) => wanted == id,
            None => record.state == usual,
        };
        let mut found = all.iter().filter(fits);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            (Some(_), Some(_)) => {
                Err(Fault::new("ambiguous", format!("account `{account}` has several such mandates"))
                    .hint("name one with `--mandate ID`; `weir-hub mandates list` shows them"))
            }
            (None, _) => Err(Fault::new("unknown_mandate", format!("account `{account}` has no such mandate"))
                .hint("`weir-hub mandates list` shows them; its owner makes one with `weir mandate sign`")),
        }
    }

    async fn mandate_row(&self, account: AccountId, id: String, commit: Option<u64>) -> Result<MandateRow, Fault> {
        let of = move |view: &crate::pipeline::View<'_>| {
            mandates(view.books).mandates.into_iter().find(|row| row.account == account && row.mandate_id == id)
        };
        let row = self.handle.read(of).await?;
        let row = row.ok_or_else(|| Fault::new("unknown_mandate", "the mandate is gone"))?;
        Ok(MandateRow { commit, ..row })
    }

    pub(super) async fn accept_mandate(
        &self,
        name: &MandateName,
        at_once: Option<Amount>,
    ) -> Result<MandateRow, Fault> {
        // Without a bank account there is nothing to collect to.
        let debits = self.bank()?.debits().clone();
        if debits.creditor_id.is_none() {
            return Err(no_creditor_id());
        }
        let (mandate_id, record) = self.mandate(name, MandateState::Waiting).await?;
        let account = name.account;
        let terms = match record.scheme {
            MandateScheme::Core => MandateTerms {
                account,
                mandate_id: mandate_id.clone(),
                accepted: true,
                at_once: at_once.unwrap_or(debits.at_once),
                provisional_days: debits.provisional_days,
            },
            MandateScheme::B2b if at_once.is_some() => {
                return Err(Fault::new("malformed", "what is collected under B2B is available at once, all of it")
                    .hint("leave `--at-once` out"));
            }
            MandateScheme::B2b => MandateTerms {
                account,
                mandate_id: mandate_id.clone(),
                accepted: true,
                at_once: Amount::ZERO,
                provisional_days: 0,
            },
        };
        let in_force = move |view: &crate::pipeline::View<'_>| {
            view.books.collections().in_force(&account).map(|(id, _)| id.to_owned())
        };
        if let Some(other) = self.handle.read(in_force).await?.filter(|other| *other != mandate_id) {
            return Err(Fault::new("Exists", format!("mandate `{other}` is in force"))
                .hint(format!("end it first: `weir-hub mandates end {account}`")));
        }
        let same = record.state == MandateState::Accepted
            && (record.at_once, record.provisional_days) == (terms.at_once, terms.provisional_days);
        let commit = if same { None } else { Some(self.order(Act::MandateTerms(terms)).await?) };
        self.mandate_row(account, mandate_id, commit).await
    }

    pub(super) async fn end_mandate(&self, name: &MandateName) -> Result<MandateRow, Fault> {
        let (mandate_id, record) = self.mandate(name, MandateState::Accepted).await?;
        let account = name.account;
        let terms = MandateTerms {
            account,
            mandate_id: mandate_id.clone(),
            accepted: false,
            at_once: Amount::ZERO,
            provisional_days: 0,
        };
        let ended = record.state == MandateState::Ended;
        let commit = if ended { None } else { Some(self.order(Act::MandateTerms(terms)).await?) };
        self.mandate_row(account, mandate_id, commit).await
    }

    pub(super) async fn debits(&self) -> Result<serde_json::Value, Fault> {
        let hub = self.handle.hub();
        json(&self.handle.read(move |view| collections(view.books, &hub)).await?)
    }

    pub(super) async fn collect(&self, wish: Wish, dry_run: bool) -> Result<serde_json::Value, Fault> {
        json(&self.bank()?.collect(wish, dry_run).await.map_err(not_collected)?)
    }

    pub(super) async fn debit_proposal(&self, wish: Wish) -> Result<serde_json::Value, Fault> {
        json(&self.bank()?.propose_collection(wish).await.map_err(not_collected)?)
    }

    pub(super) async fn debit_planned(&self, collection: u64) -> Result<serde_json::Value, Fault> {
        json(&self.bank()?.planned_collection(collection).await.map_err(not_collected)?)
    }

    pub(super) async fn debit_run(&self, collection: u64, dry_run: bool) -> Result<serde_json::Value, Fault> {
        json(&self.bank()?.run_collection(collection, dry_run).await.map_err(not_collected)?)
    }
}

fn no_creditor_id() -> Fault {
    Fault::new("unavailable", "this hub has no creditor identifier: it cannot collect by direct debit")
        .hint("set `bank.creditor_id` in `hub.toml`, then restart the hub")
}

pub(super) fn not_collected(error: DebitError) -> Fault {
    let text = error.to_string();
    match error {
        DebitError::NoCreditorId => no_creditor_id(),
        DebitError::NoMandate(account) => Fault::new("no_mandate", text)
            .hint(format!("`weir-hub mandates list` shows what waits; `weir-hub mandates accept {account}` accepts")),
        DebitError::Amount(_) => Fault::new("malformed", text),
        DebitError::Closed { next, .. } => Fault::new("due", text).hint(format!("`--due {next}`")),
        DebitError::Due { .. } => Fault::new("due", text)
            .hint("the account is told of it so many days before: `debit.lead_days` in `hub.toml`"),
        DebitError::NotNow { why: NotCollected::NoPlan { .. }, .. } => Fault::new("NotApproved", text).hint(
            "`weir-hub debit plan ACCOUNT AMOUNT --operator FILE` plans it, `debit approve` agrees, `debit run` tells the bank",
        ),
        DebitError::NotNow { why, .. } => Fault::new(why.reject().name(), text)
            .hint("`weir-hub debit list` says who agreed; `debit approve` agrees, `debit abort` gives it up"),
        DebitError::NotPlanned(_) => {
            Fault::new("not_planned", text).hint("`weir-hub debit list` shows what is planned and what was told")
        }
        DebitError::Overtaken(_) => Fault { exit: 3, ..Fault::new("overtaken", text).hint("plan it again") },
        DebitError::Write(error) => Fault::new("failed", with_causes(&error)),
        DebitError::Settlement(error) => fault(error),
    }
}
