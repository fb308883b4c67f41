//! `kill -9` of the hub and of payers under load, again and again: nothing acknowledged is lost, nothing is paid twice.
#![expect(clippy::print_stdout, reason = "what a run came to is worth seeing")]

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weir_client::{Client, CreditEvent, LaneRecord};
use weir_protocol::id::PaymentId;
use weir_tests::harness::books::Books;
use weir_tests::harness::orders::{Series, index_of};
use weir_tests::harness::payer::{Acknowledged, Payer, Task};
use weir_tests::harness::people::{self, PATIENCE};
use weir_tests::harness::place::{Hub, Place};
use weir_tests::harness::random::Random;

use crate::{HUB, PAYER};

const HUB_KILLS: u32 = 30;
const PAYER_KILLS: u32 = 24;
const PAYERS: usize = 3;
/// Calls at once of each payer.
const WINDOW: usize = 24;
/// How many acknowledged payments a payer that was killed asks for again.
const ASKED_AGAIN: u64 = 8;

/// A payer whose process comes and goes, and the keeper of what it acknowledged.
struct Restarting {
    task: Task,
    process: Option<Payer>,
    sender: Sender<Acknowledged>,
    receiver: Receiver<Acknowledged>,
    /// By number in the series; the first receipt of each.
    kept: BTreeMap<u64, (PaymentId, Acknowledged)>,
    again: u64,
}

impl Restarting {
    fn new(task: Task) -> Self {
        let (sender, receiver) = channel();
        let mut payer = Self { task, process: None, sender, receiver, kept: BTreeMap::new(), again: 0 };
        payer.start();
        payer
    }

    fn start(&mut self) {
        self.process = Some(Payer::start(PAYER, &self.task, self.sender.clone()));
    }

    /// Takes what was acknowledged since; how many.
    fn keep(&mut self) -> usize {
        let mut count = 0;
        while let Ok(one) = self.receiver.try_recv() {
            let id = one.payment_id();
            match self.kept.get(&one.index) {
                Some((known, _)) => {
                    assert_eq!(*known, id, "payment {} was acknowledged as two", one.index);
                    self.again += 1;
                }
                None => drop(self.kept.insert(one.index, (id, one))),
            }
            count += 1;
        }
        count
    }

    /// Waits until something is acknowledged.
    fn progress(&mut self, place: &Place) {
        let end = Instant::now() + PATIENCE;
        while self.keep() == 0 {
            assert!(Instant::now() < end, "payments do not go on: {}", place.said());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The first payment that was not acknowledged.
    fn first_open(&self) -> u64 {
        // The numbers are ascending: where one is missing, the next is above its place.
        let gap = self.kept.keys().zip(0..).find(|(index, place)| *index != place);
        gap.map_or(self.kept.len() as u64, |(_, place)| place)
    }

    /// Kills the process and starts another, which begins a little before the first payment that was not acknowledged.
    fn kill(&mut self) {
        self.process.take().unwrap().kill();
        self.keep();
        let first_open = self.first_open();
        self.task.first = first_open.saturating_sub(ASKED_AGAIN);
        self.start();
    }

    /// Lets the last process finish, then one more pays whatever an earlier one may have begun.
    fn finish(&mut self) {
        assert_eq!(self.process.take().unwrap().finish(), Some(0));
        self.keep();
        let last = *self.kept.last_key_value().unwrap().0;
        self.task.first = self.first_open().min(last);
        self.task.end = last + 1 + WINDOW as u64;
        let mut process = Payer::start(PAYER, &self.task, self.sender.clone());
        assert_eq!(process.wait(), Some(0));
        self.keep();
        assert_eq!(self.kept.len() as u64, self.task.end, "everything that was begun is paid");
    }
}

/// What a payee is told while the hub comes and goes: each payment once.
async fn listen(client: Client, told: watch::Sender<(usize, u64)>, mut enough: watch::Receiver<usize>) {
    let mut credits = client.credits().unwrap();
    let mut seen: HashSet<PaymentId> = HashSet::new();
    let mut sum = 0;
    loop {
        tokio::select! {
            event = credits.next() => if let CreditEvent::Credited(group) = event.unwrap() {
                for payment in group.payments() {
                    assert!(seen.insert(payment.payment_id), "{} was credited twice", payment.payment_id);
                    sum += payment.amount.nanos();
                }
                told.send_replace((seen.len(), sum));
            },
            _ = enough.changed() => {}
        }
        if seen.len() >= *enough.borrow() {
            return;
        }
    }
}

#[test]
fn hub_and_payers_killed_under_load_lose_and_double_nothing() {
    let mut random = Random::seeded("kill");
    let place = Place::new(HUB);
    let mut hub = Some(place.run());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let address = hub.as_ref().unwrap().address.clone();
    let (payees, lanes): (Vec<Client>, Vec<LaneRecord>) = runtime.block_on(async {
        let payees = vec![
            people::registered(&place, "payee0", &address).await,
            people::registered(&place, "payee1", &address).await,
        ];
        let mut lanes = Vec::new();
        for number in 0..PAYERS {
            let (client, lane) = people::payer(&place, &format!("payer{number}"), &address, 1_000).await;
            client.shut_down().await;
            lanes.push(lane);
        }
        (payees, lanes)
    });
    let accounts: Vec<_> = payees.iter().map(Client::account).collect();
    let listeners: Vec<_> = payees
        .iter()
        .map(|payee| {
            let told = watch::Sender::new((0, 0));
            let heard = told.subscribe();
            let wanted = watch::Sender::new(usize::MAX);
            let task = runtime.spawn(listen(payee.clone(), told, wanted.subscribe()));
            (task, heard, wanted)
        })
        .collect();

    let series = |number: usize| Series { seed: 1_000 + number as u64, payees: accounts.clone() };
    let mut payers: Vec<Restarting> = (0..PAYERS)
        .map(|number| {
            let home = place.path(&format!("payer{number}"));
            let (lane, series) = (lanes[number].id(), series(number));
            Restarting::new(Task { home, lane, series, first: 0, end: u64::MAX, window: WINDOW })
        })
        .collect();

    let started = Instant::now();
    let (mut hub_kills, mut payer_kills) = (0, 0);
    while hub_kills < HUB_KILLS || payer_kills < PAYER_KILLS {
        // Mostly under load; now and then at once, in the middle of a recovery.
        let chosen = usize::try_from(random.below(PAYERS as u64)).unwrap();
        if random.below(5) > 0 {
            payers[chosen].progress(&place);
        }
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        let left = u64::from(HUB_KILLS - hub_kills + PAYER_KILLS - payer_kills);
        if random.below(left) < u64::from(HUB_KILLS - hub_kills) {
            Hub::kill(hub.take().unwrap());
            hub = Some(place.run());
            hub_kills += 1;
        } else {
            payers[chosen].kill();
            payer_kills += 1;
        }
    }
    for payer in &mut payers {
        payer.progress(&place);
        payer.finish();
    }
    let took = started.elapsed();

    let books = Books::read(&place.data());
    for (payer, lane) in payers.iter().zip(&lanes) {
        let lane = lane.id();
        assert_eq!(books.paid(lane) as u64, payer.task.end, "nothing but what was acknowledged");
        for (index, (id, acknowledged)) in &payer.kept {
            let receipt = acknowledged.checked();
            let order = payer.task.series.order(*index);
            assert_eq!(
                (receipt.payee, receipt.amount, receipt.reference),
                (order.payee, order.amount, order.reference)
            );
            let booked = books.by_id.get(id).unwrap();
            assert_eq!((booked.lane, booked.payment.reference), (lane, order.reference));
            assert_eq!((booked.commit, booked.payment.amount), (receipt.receipt.number, order.amount));
            assert_eq!(books.by_reference.get(&(lane, order.reference)), Some(id));
            assert_eq!(index_of(&receipt.reference).1, *index);
        }
    }
    for (payee, (task, heard, wanted)) in payees.iter().zip(listeners) {
        let received = books.received(payee.account());
        wanted.send_replace(received.0);
        runtime.block_on(async { tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap() });
        assert_eq!(*heard.borrow(), received, "a payee is told of every payment, each once");
        let info = runtime.block_on(payee.account_info()).unwrap();
        assert_eq!(info.balances[0].earned.nanos(), received.1);
    }
    assert_eq!(place.clean_audit()["payments"], books.by_id.len());
    hub.take().unwrap().stop();
    let report = place.clean_audit();
    let again: u64 = payers.iter().map(|payer| payer.again).sum();
    assert!(again > 0, "payments were asked for again");
    println!(
        "{hub_kills} kills of the hub and {payer_kills} of payers in {} ms: {} payments, {again} asked for again, {} commits",
        took.as_millis(),
        books.by_id.len(),
        report["commits"]
    );
}
