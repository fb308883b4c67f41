//! Reading verbs when no hub is running: the newest snapshot and what the journal has after it. Writes nothing, takes no
//! lock, and so could not disturb a hub that starts meanwhile.

use std::path::Path;

use weir_protocol::amount::Time;
use weir_protocol::id::{AccountId, ChannelId, HubId};

use super::report::{AccountPage, ChannelPage, ChannelRow, Process, Status};
use super::request::PAGE;
use crate::audit::journal_of;
use crate::clock::wall_ms;
use crate::config::BankConfig;
use crate::engine::state::{Depth, State};
use crate::pipeline::compact::{self, ReplayError};
use crate::settlement::SettlementError;
use crate::settlement::heard::Heard;
use crate::settlement::reconcile::{Reconciliation, reconcile};
use crate::settlement::resolve::{SuspenseList, suspense};
use crate::store::snapshot::Snapshots;

/// The state of a hub that is not running.
#[derive(Debug)]
pub struct Offline {
    state: State,
    snapshot: Option<u64>,
}

impl Offline {
    /// Reads the directory up to its last whole commit.
    pub fn open(data: &Path, hub: HubId) -> Result<Self, ReplayError> {
        let snapshots = Snapshots::new(data.join("snapshots"));
        let mut state = compact::load(hub, &snapshots)?;
        if let Some(journal) = journal_of(data)? {
            compact::replay(&mut state, Depth::Rules, |from, each| journal.scan(from, each), &mut |_| ())?;
        }
        let snapshot = snapshots.numbers()?.last().copied();
        Ok(Self { state, snapshot })
    }

    /// The state.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Gives the state away.
    pub fn into_state(self) -> State {
        self.state
    }

    /// How the hub was left.
    pub fn status(&self, name: String, bank: Option<&BankConfig>) -> Result<Status, SettlementError> {
        let process = Process {
            name,
            running: false,
            health: "stopped".to_owned(),
            address: None,
            pid: None,
            clock_trusted: None,
            snapshot: self.snapshot,
            journal_bytes: None,
            bank: bank.map(|bank| self.reconcile(bank)).transpose()?,
            next_cutoff_ms: None,
        };
        Ok(Status::of(self.state.hub(), process, self.state.books(), self.state.last()))
    }

    /// Bank against ledger, as the hub was left.
    pub fn reconcile(&self, bank: &BankConfig) -> Result<Reconciliation, SettlementError> {
        let heard = Heard::load(&bank.directory)?;
        let max_age_ms = u64::try_from(bank.statement_max_age.as_millis()).unwrap_or(u64::MAX);
        Ok(reconcile(self.state.books(), &heard, wall_ms(), max_age_ms))
    }

    /// Entries of the bank that nobody owns.
    pub fn suspense(&self, bank: &BankConfig) -> Result<SuspenseList, SettlementError> {
        Ok(suspense(self.state.books(), &Heard::load(&bank.directory)?, wall_ms()))
    }

    /// A page of accounts.
    pub fn accounts(&self, after: Option<AccountId>, waiting: bool) -> AccountPage {
        AccountPage::read(self.state.books(), after, waiting, PAGE)
    }

    /// A page of channels.
    pub fn channels(&self, after: Option<ChannelId>, account: Option<AccountId>) -> ChannelPage {
        let now = Time(wall_ms());
        let channels = self.state.channels().after(after);
        let wanted = channels.filter(|channel| account.is_none_or(|account| channel.account() == account));
        let rows = wanted.take(PAGE + 1).map(|channel| ChannelRow::from(&channel.info(now))).collect();
        ChannelPage::of(rows, PAGE)
    }
}
