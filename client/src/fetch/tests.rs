//! Buying over real sockets: a gate that lies in every way, a purse whose hub is a key, the middleware and the proxy between.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test should say where")]

pub(crate) mod gate;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use reqwest_middleware::ClientWithMiddleware;
use weir_protocol::act::{Act, Certificate};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::commit::{Commit, SignedCertificate, group_item};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, HubId, LaneId, Reference};
use weir_protocol::keys::{PublicKey, SecretKey};
use weir_protocol::lane::payer::Order;
use weir_protocol::merkle::{self, Path};
use weir_protocol::payment::{Payment, payment_id, receipt_leaf};
use weir_protocol::receipt::{Receipt, ReceiptFile};
use weir_protocol::reject::Reject;

use super::purse::OVER;
use super::*;
use crate::connection::{lock, now};
use gate::{Gate, Mode};

const LANE: LaneId = LaneId([7; 32]);
const PAYEE: AccountId = AccountId(PublicKey([9; 32]));

/// What the hub does with the next orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Refuses.
    Refuse,
    /// Takes it and says nothing.
    TakeSilently,
    /// Says nothing and takes nothing.
    Lose,
}

/// A hub and a lane in one, in memory.
#[derive(Debug)]
struct FakePurse {
    identity: SecretKey,
    signing: SecretKey,
    paid: Mutex<HashMap<Reference, (Order, ReceiptFile)>>,
    words: Mutex<Vec<Word>>,
    pause: std::time::Duration,
}

impl FakePurse {
    fn new() -> Arc<Self> {
        let key = |byte| SecretKey::from_bytes(&[byte; 32]).unwrap();
        Arc::new(Self {
            identity: key(11),
            signing: key(12),
            paid: Mutex::default(),
            words: Mutex::default(),
            pause: std::time::Duration::from_millis(5),
        })
    }

    fn count(&self) -> usize {
        lock(&self.paid).len()
    }

    fn sum(&self) -> u64 {
        lock(&self.paid).values().map(|(order, _)| order.amount.nanos()).sum()
    }

    fn take(&self, order: Order) -> ReceiptFile {
        let mut paid = lock(&self.paid);
        let sequence = paid.len() as u64 + 1;
        let (_, receipt) = paid.entry(order.reference).or_insert_with(|| (order, self.receipt(&order, sequence)));
        receipt.clone()
    }

    fn receipt(&self, order: &Order, sequence: u64) -> ReceiptFile {
        let hub = self.hub();
        let payment = Payment { payee: order.payee, amount: order.amount, reference: order.reference };
        let id = payment_id(&LANE, sequence);
        let leaves = merkle::root(&[receipt_leaf(&id, &payment, Currency::EUR)]);
        let head = Hash([6; 32]);
        let root = merkle::root(&[group_item(&head, 1, &leaves)]);
        let commit = Commit { hub, chain: 1, number: sequence, time: now(), history: Hash::ZERO, items: 1, root };
        let certificate = Certificate { key: self.signing.public(), not_before: Time(0), not_after: Time::MAX };
        let signature = self.identity.sign(&Act::Certificate(certificate).digest(&hub));
        let alone = || Path { index: 0, count: 1, hashes: Vec::new() };
        ReceiptFile {
            format: ReceiptFile::FORMAT.to_owned(),
            hub,
            payee: order.payee,
            amount: order.amount,
            currency: Currency::EUR,
            reference: order.reference,
            certificate: SignedCertificate { certificate, signature },
            receipt: Receipt {
                payment_id: id,
                leaf_path: alone(),
                head,
                group_path: alone(),
                chain: 1,
                number: sequence,
                time: commit.time,
                history: Hash::ZERO,
                signature: self.signing.sign(&commit.id()),
            },
        }
    }
}

impl Purse for FakePurse {
    fn hub(&self) -> HubId {
        HubId(self.identity.public())
    }

    fn lane_for(&self, _: Currency, _: AccountId, _: Amount) -> Later<'_, Result<LaneId, PurseError>> {
        Box::pin(async { Ok(LANE) })
    }

    fn pay(&self, lane: LaneId, order: Order) -> Later<'_, Result<Settled, PurseError>> {
        Box::pin(async move {
            assert_eq!(lane, LANE);
            tokio::time::sleep(self.pause).await;
            if let Some((known, receipt)) = lock(&self.paid).get(&order.reference) {
                assert_eq!((known.payee, known.amount), (order.payee, order.amount));
                return Ok(Settled::Paid(Box::new(receipt.clone()), None));
            }
            if order.deadline == Some(OVER) {
                return Ok(Settled::Refused(Reject::Expired));
            }
            match lock(&self.words).pop() {
                Some(Word::Refuse) => return Ok(Settled::Refused(Reject::Capacity)),
                Some(Word::Lose) => return Ok(Settled::Unknown),
                Some(Word::TakeSilently) => {
                    self.take(order);
                    return Ok(Settled::Unknown);
                }
                None => {}
            }
            Ok(Settled::Paid(Box::new(self.take(order)), None))
        })
    }
}

struct World {
    folder: tempfile::TempDir,
    purse: Arc<FakePurse>,
    gate: Gate,
}

impl World {
    fn new(mode: Mode) -> Self {
        let purse = FakePurse::new();
        let gate = Gate::start(purse.hub(), PAYEE, 10, mode);
        Self { folder: tempfile::tempdir().unwrap(), purse, gate }
    }

    fn payer(&self, limits: Limits, options: Options) -> Payer {
        let store = Store::open(self.folder.path(), BTreeMap::from([(Currency::EUR, limits)]), DAY_MS).unwrap();
        Payer::new(Arc::clone(&self.purse) as Arc<dyn Purse>, store, options)
    }

    fn web(&self) -> ClientWithMiddleware {
        web(self.payer(Limits::default(), Options::default()))
    }

    fn prepaying(&self, times: u32) -> ClientWithMiddleware {
        web(self.payer(Limits::default(), Options { prepay: Prepay::Times(times), ..Options::default() }))
    }
}

fn web(payer: Payer) -> ClientWithMiddleware {
    let inner = client(None, None).unwrap();
    let pay = PayMiddleware::new(payer).ahead(inner.clone());
    reqwest_middleware::ClientBuilder::new(inner).with(pay).build()
}

fn nanos(nanos: u64) -> Amount {
    Amount::from_nanos(nanos)
}

async fn get(web: &ClientWithMiddleware, url: String) -> Result<(u16, Option<Paid>), FetchError> {
    read(web.get(url).send().await).await
}

async fn read(answer: reqwest_middleware::Result<reqwest::Response>) -> Result<(u16, Option<Paid>), FetchError> {
    match answer {
        Ok(answer) => {
            let found = (answer.status().as_u16(), answer.extensions().get::<Paid>().cloned());
            answer.bytes().await.unwrap();
            Ok(found)
        }
        Err(reqwest_middleware::Error::Middleware(error)) => Err(error.downcast().unwrap()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn demand_is_paid_once_and_the_same_resource_is_shown_what_was_bought() {
    let world = World::new(Mode::Access);
    let web = world.web();
    let (status, paid) = get(&web, world.gate.url("/a")).await.unwrap();
    let paid = paid.unwrap();
    assert_eq!((status, paid.paid, paid.drawn, paid.left), (200, nanos(10), Some(nanos(10)), nanos(0)));
    let (status, paid) = get(&web, world.gate.url("/a")).await.unwrap();
    assert_eq!((status, paid.unwrap().paid), (200, nanos(0)));
    // Another process of the home finds it too.
    let (status, paid) = get(&world.web(), world.gate.url("/a")).await.unwrap();
    assert_eq!((status, paid.unwrap().paid), (200, nanos(0)));
    assert_eq!(world.purse.count(), 1);
    assert_eq!(world.gate.state().demands, 1, "the second and third showed it at once");
    get(&web, world.gate.url("/free")).await.unwrap();
    assert!(get(&web, world.gate.url("/b")).await.unwrap().1.is_some());
    assert_eq!(world.purse.count(), 2);
    let state = world.gate.state();
    assert!(state.requests.iter().all(|request| request.headers["accept-payment"] == "weir"));
    let free = state.requests.iter().find(|request| request.path == "/free").unwrap();
    assert!(!free.headers.contains_key("authorization"));
}

#[tokio::test]
async fn what_was_used_up_is_paid_anew_by_a_later_request() {
    let world = World::new(Mode::Honest);
    let web = world.web();
    for _ in 0..2 {
        assert_eq!(get(&web, world.gate.url("/a")).await.unwrap().1.unwrap().paid, nanos(10));
    }
    assert_eq!(world.purse.count(), 2);
}

#[tokio::test]
async fn every_dialect_is_answered_in_its_own_and_a_foreign_demand_is_handed_on() {
    for (mode, header) in
        [(Mode::X402, "payment-signature"), (Mode::OwnHeader, "payment-authorization"), (Mode::Two, "authorization")]
    {
        let world = World::new(mode);
        assert_eq!(get(&world.web(), world.gate.url("/a")).await.unwrap().0, 200, "{mode:?}");
        assert!(world.gate.state().requests.last().unwrap().headers.contains_key(header), "{mode:?}");
        assert_eq!(world.purse.count(), 1);
    }
    let world = World::new(Mode::Foreign);
    let answer = world.web().get(world.gate.url("/a")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (402, "pay by card"));
    // The caller's own `Authorization` stays; the other dialect carries the payment.
    let world = World::new(Mode::Honest);
    let sent = world.web().get(world.gate.url("/a")).header("authorization", "Bearer mine").send();
    assert_eq!(read(sent.await).await.unwrap().0, 200);
    let headers = world.gate.state().requests.last().unwrap().headers.clone();
    assert!(headers["authorization"] == "Bearer mine" && headers.contains_key("payment-signature"));
}

#[tokio::test]
async fn server_that_lies_is_paid_at_most_once_whatever_it_says() {
    for mode in [Mode::Never, Mode::OtherPayee, Mode::Rise] {
        let world = World::new(mode);
        for _ in 0..3 {
            let error = get(&world.web(), world.gate.url("/a")).await.unwrap_err();
            assert!(matches!(error, FetchError::NotServed { .. }), "{mode:?}: {error}");
            assert_eq!((world.purse.count(), world.purse.sum()), (1, 10), "{mode:?}");
        }
        // A person gives it up.
        let options = Options { pay_again: true, ..Options::default() };
        let again = get(&web(world.payer(Limits::default(), options)), world.gate.url("/a")).await;
        assert_eq!(again.is_ok(), mode == Mode::Rise, "{mode:?}: {again:?}");
        assert_eq!(world.purse.count(), 2, "{mode:?}");
    }
    for mode in [Mode::Expired, Mode::OtherHub] {
        let world = World::new(mode);
        let error = get(&world.web(), world.gate.url("/a")).await.unwrap_err();
        assert!(matches!(error, FetchError::Demand(_)), "{mode:?}: {error}");
        assert_eq!(world.purse.count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_requests_at_once_reach_the_budget_and_no_more() {
    let world = World::new(Mode::Honest);
    // The price of each path differs, so that the last one that fits is not the last one that asks.
    let limits = Limits { per_period: Some(nanos(170)), per_request: Some(nanos(10)), ..Limits::default() };
    let webs = [web(world.payer(limits, Options::default())), web(world.payer(limits, Options::default()))];
    let calls: Vec<_> = (0..50)
        .map(|at| {
            let (web, url) = (webs[at % 2].clone(), world.gate.url(&format!("/{at}")));
            tokio::spawn(async move { get(&web, url).await })
        })
        .collect();
    let mut served = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok((200, Some(paid))) if paid.paid == nanos(10) => served += 1,
            Err(FetchError::Budget(BudgetError::Period { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((served, world.purse.sum()), (17, 170));
    let dear = Limits { per_request: Some(nanos(9)), ..Limits::default() };
    let refused = get(&web(world.payer(dear, Options::default())), world.gate.url("/dear")).await;
    assert!(matches!(refused, Err(FetchError::Budget(BudgetError::Request { .. }))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_one_page_at_once_share_one_payment_and_orders_do_not() {
    let world = World::new(Mode::Access);
    let web = world.web();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (web, url) = (web.clone(), world.gate.url("/a"));
            tokio::spawn(async move { get(&web, url).await.unwrap().0 })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(world.purse.count(), 1);
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let (web, url) = (web.clone(), world.gate.url("/order"));
            tokio::spawn(async move { read(web.post(url).body("x").send().await).await.unwrap().0 })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(world.purse.count(), 11, "each order is its own");
    let keys: std::collections::BTreeSet<_> =
        world.gate.state().served.iter().filter_map(|served| served.key.clone()).collect();
    assert_eq!(keys.len(), 10);
}

#[tokio::test]
async fn paid_request_that_breaks_off_is_sent_again_with_the_same_payment() {
    for mode in [Mode::Drop(2), Mode::Busy(2), Mode::DrawAndDrop(2)] {
        let world = World::new(mode);
        let web = world.web();
        let sent = web.post(world.gate.url("/a")).body("hello").send();
        assert_eq!(read(sent.await).await.unwrap().0, 200, "{mode:?}");
        assert_eq!(world.purse.count(), 1, "{mode:?}");
        assert_eq!(world.gate.state().served.len(), 1, "{mode:?}");
        assert!(world.gate.state().requests.iter().all(|request| request.body == 5));
    }
    // Too many failures: the next request shows it again.
    let world = World::new(Mode::Busy(5));
    let web = world.web();
    assert_eq!(get(&web, world.gate.url("/a")).await.unwrap().0, 503);
    assert_eq!(get(&web, world.gate.url("/a")).await.unwrap().0, 200);
    assert_eq!(world.purse.count(), 1);
}

#[tokio::test]
async fn unknown_outcome_is_asked_about_and_never_paid_again() {
    for (word, paid_before) in [(Word::TakeSilently, 1), (Word::Lose, 0)] {
        let world = World::new(Mode::Honest);
        lock(&world.purse.words).push(word);
        let web = world.web();
        let error = get(&web, world.gate.url("/a")).await.unwrap_err();
        assert!(matches!(error, FetchError::Unknown { .. }), "{error}");
        assert_eq!(world.purse.count(), paid_before);
        // A later process of the home.
        let web = world.web();
        assert_eq!(get(&web, world.gate.url("/a")).await.unwrap().0, 200);
        assert_eq!(world.purse.count(), 1, "{word:?}");
        let payer = world.payer(Limits::default(), Options::default());
        assert_eq!(payer.store().budget(|budget| budget.in_period(Currency::EUR)), nanos(10));
    }
    let world = World::new(Mode::Honest);
    lock(&world.purse.words).push(Word::Refuse);
    let payer = world.payer(Limits::default(), Options::default());
    let error = get(&web(payer.clone()), world.gate.url("/a")).await.unwrap_err();
    assert!(matches!(error, FetchError::Refused(Reject::Capacity)));
    assert_eq!(payer.store().budget(|budget| budget.in_period(Currency::EUR)), nanos(0));
}

#[tokio::test]
async fn request_that_is_given_up_while_it_pays_leaves_what_it_bought_to_the_next() {
    let world = World::new(Mode::Honest);
    let web = world.web();
    for _ in 0..5 {
        let gone = tokio::time::timeout(std::time::Duration::from_millis(1), get(&web, world.gate.url("/a"))).await;
        drop(gone);
    }
    // Whatever the dropped ones had begun is done, and paid at most once.
    assert_eq!(get(&web, world.gate.url("/a")).await.unwrap().0, 200);
    assert_eq!(world.purse.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balance_is_drawn_request_by_request_and_topped_up_when_it_is_short() {
    let world = World::new(Mode::Honest);
    let web = world.prepaying(5);
    let calls: Vec<_> = (0..5)
        .map(|at| {
            let (web, url) = (web.clone(), world.gate.url(&format!("/{at}")));
            tokio::spawn(async move { get(&web, url).await.unwrap() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().0, 200);
    }
    assert!((1..=2).contains(&world.purse.count()), "one balance, or two when the first was being held");
    let before = world.purse.count();
    for at in 0..20 {
        assert_eq!(get(&web, world.gate.url(&format!("/{at}"))).await.unwrap().0, 200);
    }
    assert!(world.purse.count() > before);
    let served = world.gate.state().served.len() as u64 * 10;
    assert!(world.purse.sum() >= served && world.purse.sum() <= served + 150, "{} for {served}", world.purse.sum());
    {
        let state = world.gate.state();
        let left: u64 = state.balances.values().sum();
        assert_eq!(left + served, state.shown.values().sum::<u64>());
    }
    // A balance that the gate says is short, though nobody here knew.
    world.gate.state().balances.values_mut().for_each(|left| *left = 0);
    assert_eq!(get(&web, world.gate.url("/last")).await.unwrap().0, 200);
    // Where more at once would not fit, the price alone is paid.
    let world = World::new(Mode::Honest);
    let limits = Limits { in_all: Some(nanos(15)), ..Limits::default() };
    let options = Options { prepay: Prepay::Amount(nanos(100)), ..Options::default() };
    assert_eq!(get(&super::tests::web(world.payer(limits, options)), world.gate.url("/a")).await.unwrap().0, 200);
    assert_eq!(world.purse.sum(), 10);
}

#[tokio::test]
async fn streamed_body_is_sent_again_up_to_the_bound_and_refused_unpaid_above_it() {
    let world = World::new(Mode::Honest);
    let web = world.web();
    let chunk = bytes::Bytes::from(vec![0; 64 * 1024]);
    for (chunks, fits) in [(16, true), (17, false)] {
        let body = http_body_util::Full::new(bytes::Bytes::from(chunk.repeat(chunks)));
        let sent = read(web.post(world.gate.url("/a")).body(reqwest::Body::wrap(body)).send().await).await;
        match sent {
            Ok((200, _)) => assert!(fits),
            Err(FetchError::BodyOnce { .. }) => assert!(!fits),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.purse.count(), 1);
    // A free one goes through at any length, unchanged.
    let body = http_body_util::Full::new(bytes::Bytes::from(chunk.repeat(40)));
    assert_eq!(
        read(web.post(world.gate.url("/free")).body(reqwest::Body::wrap(body)).send().await).await.unwrap().0,
        200
    );
    assert_eq!(world.gate.state().requests.last().unwrap().body, 40 * 64 * 1024);
}

#[tokio::test]
async fn metered_answer_gives_back_at_its_end_what_it_did_not_draw() {
    for (mode, at_end) in [(Mode::Metered(2), 28), (Mode::Metered(10), 20)] {
        let world = World::new(mode);
        let payer = world.payer(Limits::default(), Options { prepay: Prepay::Times(3), ..Options::default() });
        let web = web(payer.clone());
        let answer = web.get(world.gate.url("/a")).send().await.unwrap();
        assert_eq!(answer.url().as_str(), world.gate.url("/a"), "its address stays");
        let paid = answer.extensions().get::<Paid>().unwrap().clone();
        assert_eq!((paid.drawn, paid.left, paid.metered), (Some(nanos(10)), nanos(20), true), "the head says the most");
        assert_eq!(paid.at_end().left, nanos(20), "the end is not there");
        let left = || payer.store().wallet(|wallet| wallet.purchases().next().unwrap().left);
        assert_eq!(left(), nanos(20));
        assert_eq!(answer.text().await.unwrap(), "article /a\n");
        assert_eq!(
            (paid.at_end().left, paid.at_end().metered, left()),
            (nanos(at_end), false, nanos(at_end)),
            "{mode:?}"
        );
        let headers = world.gate.state().requests.last().unwrap().headers.clone();
        assert_eq!((headers["te"].as_str(), headers["connection"].as_str()), ("trailers", "te"));
        // Never more than was there before, whatever a server says.
        world.gate.state().mode = Mode::Boast(2);
        let paid = get(&web, world.gate.url("/a")).await.unwrap().1.unwrap();
        assert_eq!((paid.drawn, paid.at_end().left, left()), (Some(nanos(1_000)), nanos(at_end), nanos(at_end)));
        assert_eq!(world.purse.count(), 1);
    }
}

#[tokio::test]
async fn balance_of_metered_answers_is_topped_up_when_it_is_short_and_no_sooner() {
    let world = World::new(Mode::Metered(2));
    let web = world.prepaying(2);
    // 20 are paid. Each answer takes 10 and gives 8 back: five go, and at the end of the sixth 8 are left.
    for at in 0..5 {
        let sent = web.post(world.gate.url("/a")).body(format!("{at}")).send();
        assert_eq!(read(sent.await).await.unwrap().0, 200);
        assert_eq!(world.purse.count(), 1, "{at}");
    }
    assert_eq!(world.gate.state().demands, 1);
    // An answer that nobody reads to its end keeps its most: the wallet counts on no more than it was told.
    let unread = web.post(world.gate.url("/a")).body("x").send().await.unwrap();
    drop(unread);
    assert_eq!(read(web.post(world.gate.url("/a")).body("y").send().await).await.unwrap().0, 200);
    assert_eq!(world.purse.count(), 2);
}

#[tokio::test]
async fn balance_is_topped_up_ahead_with_the_offered_demand_and_nothing_is_sent_for_it() {
    for offers in [true, false] {
        let world = World::new(Mode::Metered(10));
        world.gate.state().offers = offers;
        let web = world.prepaying(2);
        for _ in 0..2 {
            assert_eq!(read(web.post(world.gate.url("/a")).body("x").send().await).await.unwrap().0, 200);
        }
        // Twice 10 of 20: what comes next is paid for in the background, where a demand is there.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while offers && world.purse.count() < 2 {
            assert!(std::time::Instant::now() < end, "nothing was paid ahead");
            tokio::task::yield_now().await;
        }
        assert_eq!(world.gate.state().requests.len(), 3, "what changes something is not sent to ask");
        let payer = world.payer(Limits::default(), Options::default());
        let is_ahead = || payer.store().wallet(|wallet| wallet.purchases().any(|one| one.is_paid() && !one.served));
        while offers && !is_ahead() {
            assert!(std::time::Instant::now() < end, "what was paid ahead is not kept");
            payer.store().refresh().unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(world.purse.count(), if offers { 2 } else { 1 });
        assert_eq!(read(web.post(world.gate.url("/a")).body("x").send().await).await.unwrap().0, 200);
        assert_eq!((world.purse.count(), world.purse.sum()), (2, 40));
        let state = world.gate.state();
        let refused = state.requests.iter().filter(|request| !request.headers.contains_key("authorization")).count();
        assert_eq!(refused, if offers { 1 } else { 2 }, "who paid ahead meets no further demand");
    }
}

#[tokio::test]
async fn nobody_but_the_seller_of_the_last_answer_is_paid_ahead() {
    for (mode, paid_ahead) in [(Mode::OtherPayee, 0), (Mode::Honest, 1)] {
        let world = World::new(Mode::Honest);
        let payer = world.payer(Limits::default(), Options { prepay: Prepay::Times(1), ..Options::default() });
        let answer = web(payer.clone()).get(world.gate.url("/a")).send().await.unwrap();
        let paid = answer.extensions().get::<Paid>().unwrap().clone();
        {
            let mut state = world.gate.state();
            (state.mode, state.demands) = (mode, 2);
        }
        let client = client(None, None).unwrap();
        let request = client.get(world.gate.url("/a")).build().unwrap();
        let target = middleware::target(&request);
        let demand = client.execute(request).await.unwrap();
        assert_eq!(demand.status(), 402);
        payer.attempt(target, None).top_up(demand.headers(), &paid).await.unwrap();
        assert_eq!(world.purse.count(), 1 + paid_ahead, "{mode:?}");
    }
}

/// A proxy that pays, and what stops it.
async fn proxy(world: &World) -> (std::net::SocketAddr, tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = tokio::sync::oneshot::channel();
    let serving = super::proxy::serve(listener, world.web(), super::proxy::ProxyOptions::default(), async {
        let _ = stopping.await;
    });
    (address, stop, tokio::spawn(serving))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switch_of_protocols_passes_the_proxy_and_is_paid_for_where_it_must_be() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new(Mode::Honest);
    let (address, stop, serving) = proxy(&world).await;
    let mut open = Vec::new();
    for (path, paid) in [("/free", 0), ("/live", 1)] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n",
            world.gate.url(path)
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101") && head.contains("\r\nupgrade: echo"), "{head}");
        assert!(head.contains("\r\nconnection: upgrade"), "{head}");
        assert_eq!(world.purse.count(), paid);
        for said in ["hello", "again"] {
            stream.write_all(said.as_bytes()).await.unwrap();
            let mut heard = [0; 5];
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, said.as_bytes());
        }
        open.push(stream);
    }
    assert!(world.gate.state().requests.iter().all(|request| !request.headers.contains_key("te")));
    // It stops when the last of them has ended.
    stop.send(()).unwrap();
    let mut last = open.pop().unwrap();
    drop(open);
    last.write_all(b"still").await.unwrap();
    let mut heard = [0; 5];
    last.read_exact(&mut heard).await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err() && !serving.is_finished(), "nothing new");
    drop(last);
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metered_answer_passes_the_proxy_with_its_trailers_for_who_takes_them() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new(Mode::Metered(2));
    let (address, stop, serving) = proxy(&world).await;
    for (te, wanted) in [("TE: trailers\r\n", true), ("", false)] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let url = world.gate.url("/a");
        let request = format!("POST {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n{te}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && body.contains("article /a"), "{answer}");
        assert_eq!(body.to_ascii_lowercase().contains("payment-receipt: "), wanted, "{answer}");
    }
    let left = world.payer(Limits::default(), Options::default());
    let left: Vec<u64> = left.store().wallet(|wallet| wallet.purchases().map(|one| one.left.nanos()).collect());
    assert_eq!(left, [8, 8], "read to the end, whoever asked");
    stop.send(()).unwrap();
    serving.await.unwrap();
}
