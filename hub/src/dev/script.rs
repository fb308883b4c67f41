//! The main job, step by step: fund, open, pay, receipt, refund, close, cut off, bank file, settled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::sync::watch;
use weir_client::protocol::amount::{Amount, Currency, Time};
use weir_client::protocol::channel::LaneMode;
use weir_client::protocol::id::HubAddress;
use weir_client::{LaneRecord, Opened};

use super::bank::DevBank;
use super::people::{Heard, Job, Left, PATIENCE, Paid, Person, listen};
use super::random::Random;
use super::screen::Screen;
use crate::clock::wall_ms;
use crate::engine::windows::WindowState;
use crate::settlement::{RunReport, Settlement};

/// Payments in the main job.
const PAYMENTS: u64 = 24_000;
/// Channels of each payer.
const CHANNELS: usize = 2;

/// Payers and payees: folder, name.
const PAYEES: &[(&str, &str)] = &[("gazette", "Morning Gazette"), ("weather", "Weather API")];
const PAYERS: &[(&str, &str)] =
    &[("ada", "Ada Reader"), ("ben", "Ben Reader"), ("chloe", "Chloe Robotics"), ("dan", "Dan Analytics")];

/// Everybody, ready to pay and be paid.
#[derive(Debug)]
pub(super) struct Town {
    pub(super) payees: Vec<Person>,
    pub(super) payers: Vec<Person>,
    channels: Vec<(Person, Opened)>,
    lanes: Vec<(Person, LaneRecord)>,
}

/// The homes of a town whose people have left.
#[derive(Debug, Default)]
pub(super) struct Homes {
    /// Of those who are paid.
    pub(super) payees: Vec<Left>,
    /// Of those who pay.
    pub(super) payers: Vec<Left>,
}

/// What the main job came to.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    /// Payments made.
    pub(super) payments: u64,
    /// Their sum.
    pub(super) paid: Amount,
    /// Channels opened.
    pub(super) channels: usize,
    /// Lanes that paid.
    pub(super) lanes: usize,
    /// Payouts confirmed by the bank.
    pub(super) payouts: usize,
    /// Their sum.
    pub(super) paid_out: Amount,
    /// The file for the bank, where the bank keeps it now.
    pub(super) bank_file: PathBuf,
    /// A receipt that was verified offline.
    pub(super) receipt: PathBuf,
    /// The window that was settled.
    pub(super) window: u64,
}

impl Summary {
    /// More payments were made, each over a channel of its own.
    pub(super) fn bought(&mut self, amounts: &[Amount]) -> anyhow::Result<()> {
        for amount in amounts {
            self.paid = self.paid.checked_add(*amount)?;
            self.payments += 1;
            self.channels += 1;
            self.lanes += 1;
        }
        Ok(())
    }
}

impl Town {
    /// Everybody registers, transfers money to the hub's bank account, and opens channels once it has arrived.
    pub(super) async fn found(homes: &Path, hub: &HubAddress, bank: &DevBank, screen: &Screen) -> anyhow::Result<Self> {
        screen.step("two payees and four payers register, each with a key and a bank account");
        let mut payees = Vec::new();
        let mut payers = Vec::new();
        for ((folder, name), number) in PAYEES.iter().zip(1..) {
            payees.push(Person::register(homes, folder, name, number, hub).await?);
        }
        for ((folder, name), number) in PAYERS.iter().zip(101..) {
            payers.push(Person::register(homes, folder, name, number, hub).await?);
        }
        let deposit: Amount = "50".parse()?;
        screen.step("each payer transfers 50 EUR; the bank announces it in a camt.054 file in the hub's inbox");
        for payer in &payers {
            payer.transfer(bank, deposit).await?;
        }
        for payer in &payers {
            payer.wait_for(deposit).await?;
        }
        screen.step("each payer opens two channels of 20 EUR over QUIC");
        let mut channels = Vec::new();
        let mut lanes = Vec::new();
        let now = Time(wall_ms());
        for payer in &payers {
            for _ in 0..CHANNELS {
                let opened = payer.open("20".parse()?, now).await?;
                lanes.push((payer.clone(), opened.lane));
                channels.push((payer.clone(), opened));
            }
        }
        screen.step("the first channel gets two more lanes: one with 5 EUR set aside, one for the first payee only, 8 EUR a day");
        if let (Some((payer, opened)), Some(payee)) = (channels.first(), payees.first()) {
            let reserved = payer.grant(opened, LaneMode::Reserved, None, "5".parse()?, 0).await?;
            let bound = payer.grant(opened, LaneMode::Shared, Some(payee.account()), "8".parse()?, 86_400).await?;
            lanes.push((payer.clone(), reserved));
            lanes.push((payer.clone(), bound));
        }
        Ok(Self { payees, payers, channels, lanes })
    }

    /// Everybody lets go of the homes, for others to use them: the clients are gone when this returns.
    pub(super) async fn leave(self) -> Homes {
        for person in self.payees.iter().chain(&self.payers) {
            person.client.shut_down().await;
        }
        let left = |people: &[Person]| people.iter().map(Person::left).collect();
        Homes { payees: left(&self.payees), payers: left(&self.payers) }
    }

    /// The whole main job, once.
    pub(super) async fn run(
        &self,
        seed: u64,
        bank: &DevBank,
        settlement: &Settlement,
        screen: &Screen,
    ) -> anyhow::Result<Summary> {
        let (paid, heard) = self.pay(seed, screen).await?;
        let receipt = self.verify_one(screen).await?;
        self.refund(&heard, screen).await?;
        self.close_and_withdraw(screen).await?;
        let (report, bank_file) = self.settle(bank, settlement, screen).await?;
        let mut paid_out = Amount::ZERO;
        for payout in &report.payouts {
            paid_out = paid_out.checked_add(payout.amount)?;
        }
        Ok(Summary {
            payments: paid.payments,
            paid: Amount::from_nanos(paid.nanos),
            channels: self.channels.len(),
            lanes: self.lanes.len(),
            payouts: report.payouts.len(),
            paid_out,
            bank_file,
            receipt,
            window: report.window,
        })
    }

    async fn pay(&self, seed: u64, screen: &Screen) -> anyhow::Result<(Paid, Vec<Heard>)> {
        screen.step(&format!(
            "{PAYMENTS} payments over {} lanes, from a nano to a fifth of a cent, each authorised by a signed frame",
            self.lanes.len()
        ));
        let everybody: Vec<_> = self.payees.iter().map(Person::account).collect();
        let share = PAYMENTS / self.lanes.len() as u64;
        let rest = PAYMENTS % self.lanes.len() as u64;
        let (total, _) = watch::channel(0);
        let mut listening = Vec::new();
        for payee in &self.payees {
            listening.push(tokio::spawn(listen(payee.client.credits()?, total.clone(), PAYMENTS)));
        }
        let bar = screen.bar(PAYMENTS);
        let answered = Arc::new(AtomicU64::new(0));
        let mut paying = Vec::new();
        for ((payer, lane), number) in self.lanes.iter().zip(0_u64..) {
            let payees = lane.grant.payee.map_or_else(|| everybody.clone(), |only| vec![only]);
            let count = share + u64::from(number < rest);
            let job = Job { payer: payer.clone(), lane: *lane, payees, count, random: Random::new(seed, number) };
            let (bar, answered) = (bar.clone(), Arc::clone(&answered));
            paying.push(tokio::spawn(job.run(move |count| {
                bar.set_position(answered.fetch_add(count, Ordering::Relaxed) + count);
            })));
        }
        let mut paid = Paid::default();
        for job in paying {
            let part = job.await??;
            paid.payments += part.payments;
            paid.nanos += part.nanos;
        }
        bar.finish_and_clear();
        let mut heard = Vec::new();
        for listener in listening {
            heard.push(listener.await??);
        }
        let credited: u64 = heard.iter().map(|heard| heard.nanos).sum();
        ensure!(credited == paid.nanos, "payees heard of {credited} nanos, payers paid {}", paid.nanos);
        screen.done(&format!(
            "{} EUR paid; both payees checked a proof of every credit, and the sums agree to the nano",
            Amount::from_nanos(paid.nanos)
        ));
        Ok((paid, heard))
    }

    /// One more payment, whose receipt is checked with nothing but the hub's id.
    async fn verify_one(&self, screen: &Screen) -> anyhow::Result<PathBuf> {
        let (Some((payer, lane)), Some(payee)) = (self.lanes.first(), self.payees.first()) else {
            anyhow::bail!("nobody is here")
        };
        let lane = payer.client.lane(lane.id())?;
        let found = lane.groups(0, 1).await?;
        let group = found.first().context("no payment is kept")?;
        let reference = group.payments().next().map(|(_, payment)| payment.reference).context("an empty group")?;
        let paid = lane.find(reference).await?.context("a payment is not kept")?;
        let receipt = paid.receipt()?;
        receipt.check()?;
        ensure!(receipt.hub == payer.client.hub(), "a receipt of another hub");
        let path = paid.keep_receipt()?;
        screen.done(&format!(
            "a receipt over {} EUR verified offline: {} (first payee {})",
            receipt.amount,
            path.display(),
            payee.name
        ));
        Ok(path)
    }

    async fn refund(&self, heard: &[Heard], screen: &Screen) -> anyhow::Result<()> {
        let (Some(payee), Some(credited)) = (self.payees.first(), heard.first().and_then(|heard| heard.first)) else {
            anyhow::bail!("nothing was credited")
        };
        payee.client.refund(credited.place, credited.amount).await?;
        screen.done(&format!("{} refunds a payment of {} EUR", payee.name, credited.amount));
        Ok(())
    }

    async fn close_and_withdraw(&self, screen: &Screen) -> anyhow::Result<()> {
        let Some((payer, opened)) = self.channels.last() else { anyhow::bail!("no channel") };
        payer.client.close(opened.channel.terms.id()).await?;
        screen.done(&format!("{} closes a channel; what was not spent is available again", payer.name));
        let marked: Amount = "5".parse()?;
        payer.client.withdraw(Currency::EUR, marked).await?;
        screen.done(&format!("{} marks {marked} EUR for payout", payer.name));
        Ok(())
    }

    async fn settle(
        &self,
        bank: &DevBank,
        settlement: &Settlement,
        screen: &Screen,
    ) -> anyhow::Result<(RunReport, PathBuf)> {
        screen.step("the window is cut off: open channels roll without their payers noticing, everything is netted");
        let run = settlement.run().await?;
        let name = run.files.first().context("no file for the bank was written")?;
        screen.done(&format!("{} payouts in one pain.001 file: {name}", run.payouts.len()));
        let end = tokio::time::Instant::now() + PATIENCE;
        let report = loop {
            settlement.poll().await?;
            let report = settlement.report(run.window).await?;
            if report.state == Some(WindowState::Settled) {
                break report;
            }
            ensure!(tokio::time::Instant::now() < end, "the bank did not answer");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        bank.end_of_day().await?;
        settlement.poll().await?;
        let rolled = self.still_pays().await?;
        screen.done(&format!("the bank executed it and says so (pain.002, camt.053); {rolled}"));
        let file = bank.fetched(name).context("the bank has not fetched the file")?;
        Ok((report, file))
    }

    /// A lane that rolled goes on as if nothing had happened.
    async fn still_pays(&self) -> anyhow::Result<String> {
        let Some((payer, opened)) = self.channels.first() else { anyhow::bail!("no channel") };
        let info = payer.client.channel(opened.channel.terms.id()).await?;
        ensure!(info.rolls == 1, "the first channel did not roll");
        Ok(format!("{}'s channel rolled and is open", payer.name))
    }
}
