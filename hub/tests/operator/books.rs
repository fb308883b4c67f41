//! Real payments under the operator's verbs and the audit: what is right is clean, what was tampered with is named.

use std::path::Path;

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use weir_hub::audit::{Report, Subject, Verdict, audit};
use weir_hub::cli::run::Running;
use weir_hub::clock::wall_ms;
use weir_hub::config::Settings;
use weir_hub::engine::record::{ItemRecord, Record, RefundContext};
use weir_hub::engine::said::Said;
use weir_hub::engine::shard::{Input, StreamId};
use weir_hub::keys::KeyFiles;
use weir_hub::pipeline::{Handle, ReplyTo};
use weir_hub::store::Store as _;
use weir_hub::store::disk::DiskStore;
use weir_hub::store::journal::{JournalOptions, JournalReader};
use weir_protocol::act::{Act, Deposit, Refund, Register};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::ChannelTerms;
use weir_protocol::id::{AccountId, HubId, LaneId, Reference};
use weir_protocol::keys::SecretKey;
use weir_protocol::payment::{Frame, Payment, Run, next_state, payment_id};

use crate::hub::Place;

const IBAN: &str = "DE02120300000000202051";

fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32]).unwrap()
}

pub(crate) fn account(seed: u8) -> AccountId {
    AccountId(key(seed).public())
}

/// A hub in this process, with the operator's socket that the binary talks to.
pub(crate) struct Live {
    pub(crate) place: Place,
    runtime: Runtime,
    running: Option<Running>,
}

impl Live {
    pub(crate) fn start() -> Self {
        let place = Place::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let small = |name: &str| (name == "WEIR_HUB_JOURNAL_SEGMENT_MIB").then(|| "1".to_owned());
        let config = Settings::gather(&place.data(), &Vec::new(), small).unwrap().resolve().unwrap();
        let running = runtime.block_on(async { Running::start(&place.data(), &config, None).unwrap() });
        Self { place, runtime, running: Some(running) }
    }

    fn handle(&self) -> Handle {
        self.running.as_ref().unwrap().handle().clone()
    }

    fn act(&self, act: Act, by: u8, refund: Option<RefundContext>) -> Said {
        let handle = self.handle();
        let shard = match &act {
            Act::Open(terms) => handle.shard_of(&terms.id().0),
            _ => handle.shard_of(account(by).as_bytes()),
        };
        let signed = Box::new(act.sign(&handle.hub(), &key(by)));
        self.runtime.block_on(handle.request(shard, |reply| Input::Act { signed, refund, reply })).unwrap()
    }

    pub(crate) fn done(&self, act: Act, by: u8, refund: Option<RefundContext>) {
        let said = self.act(act, by, refund);
        assert!(matches!(said, Said::Done { .. }), "{said:?}");
    }

    fn register(&self, by: u8) {
        let register = Register { number: 1, account: account(by), name: format!("Account {by}"), iban: IBAN.into() };
        self.done(Act::Register(register), by, None);
    }

    fn deposit(&self, to: u8, amount: &str) {
        let deposit = Deposit {
            account: Some(account(to)),
            currency: Currency::EUR,
            amount: amount.parse().unwrap(),
            connector: "test".into(),
            bank_reference: format!("{to} {amount}"),
        };
        self.runtime.block_on(self.handle().order(Act::Deposit(deposit))).unwrap();
    }

    fn open(&self, by: u8, capacity: &str) -> ChannelTerms {
        let terms = ChannelTerms {
            hub: self.handle().hub(),
            account: account(by),
            scheme: 0,
            key: key(by).public(),
            currency: Currency::EUR,
            capacity: capacity.parse().unwrap(),
            opened_at: Time(wall_ms()),
            expires_at: Time(wall_ms() + 3_600_000),
            renew: false,
            salt: [1; 32],
        };
        self.done(Act::Open(terms), by, None);
        terms
    }

    /// Pays from lane 0, which `by` holds; a refund of the first payment, with its context.
    fn pay(&self, terms: &ChannelTerms, by: u8, amounts: &[&str], payee: u8) -> (Refund, RefundContext) {
        let handle = self.handle();
        let lane = LaneId(terms.lane_zero().id().0);
        let shard = handle.shard_of(&terms.id().0);
        self.runtime.block_on(async {
            let (queue, mut answers) = mpsc::unbounded_channel();
            let stream = StreamId(7);
            let reply = ReplyTo::new(0, queue);
            handle.send(shard, Input::Attach { lane, stream, void_through: 0, reply }).await.unwrap();
            let (_, Said::Attached { head, .. }) = answers.recv().await.unwrap() else { panic!("not attached") };
            let payments: Vec<_> = amounts
                .iter()
                .map(|amount| Payment {
                    payee: account(payee),
                    amount: amount.parse().unwrap(),
                    reference: Reference([5; 32]),
                })
                .collect();
            let run = Run::new(head.sequence + 1, &payments).unwrap();
            let mut next = head;
            for (sequence, payment) in run.payments() {
                next.state = next_state(&next.state, sequence, &payment);
                next.sequence = sequence;
                next.total = next.total.checked_add(payment.amount).unwrap();
            }
            let signature = key(by).sign(&next.digest(&lane));
            let frame = Frame { previous_sequence: head.sequence, run, valid_until: Time(0), signature };
            handle.send(shard, Input::Frame { lane, stream, frame }).await.unwrap();
            let (_, Said::Taken { commit, index }) = answers.recv().await.unwrap() else { panic!("not taken") };
            let header = commit.commit().commit;
            let refund = Refund {
                chain: header.chain,
                commit: header.number,
                group: index,
                leaf: 0,
                payment_id: payment_id(&lane, head.sequence + 1),
                refunded_total: "0.5".parse().unwrap(),
            };
            let context = RefundContext {
                lane,
                payer: account(by),
                payee: account(payee),
                currency: Currency::EUR,
                paid: payments[0].amount,
                paid_at: header.time,
            };
            (refund, context)
        })
    }

    pub(crate) fn stop(mut self) -> Place {
        let running = self.running.take().unwrap();
        self.runtime.block_on(running.stop());
        self.place
    }
}

/// A payer (3) and a payee (4), a channel with payments, a refund.
fn busy() -> (Live, ChannelTerms) {
    let live = Live::start();
    live.register(3);
    live.register(4);
    for seed in [3, 4] {
        let approved = live.place.json(&["accounts", "approve", &account(seed).to_string()]);
        assert_eq!((&approved["approved"], approved["commit"].is_u64()), (&Value::from(true), true));
    }
    live.deposit(3, "10");
    let terms = live.open(3, "5");
    let (refund, context) = live.pay(&terms, 3, &["1.5", "0.000000001", "0.25"], 4);
    live.done(Act::Refund(refund), 4, Some(context));
    (live, terms)
}

#[test]
fn operator_sees_and_steers_accounts_and_channels() {
    let (live, terms) = busy();
    let place = &live.place;
    let channel = terms.id().to_string();
    let (payer, payee) = (account(3).to_string(), account(4).to_string());

    let accounts = place.json(&["accounts", "list"]);
    let row = |id: &str| {
        let rows = accounts["accounts"].as_array().unwrap();
        rows.iter().find(|row| row["account"] == id).unwrap().clone()
    };
    assert_eq!(accounts["accounts"].as_array().unwrap().len(), 2);
    assert_eq!(row(&payer)["balances"]["EUR"]["available"], "5.5");
    assert_eq!(row(&payer)["balances"]["EUR"]["locked"], "3.249999999");
    assert_eq!(row(&payee)["balances"]["EUR"]["earned"], "1.250000001");
    assert_eq!(place.json(&["accounts", "list", "--waiting"])["accounts"], serde_json::json!([]));
    assert_eq!(place.json(&["accounts", "approve", &payer])["commit"], Value::Null, "it was so already");
    let (code, said) = place.fails(&["accounts", "approve", &account(9).to_string()]);
    assert!(code == 1 && said.contains("not registered"), "{said}");

    let frozen = place.json(&["accounts", "freeze", &payer, "--outgoing", "--reason", "asked for"]);
    assert_eq!((&frozen["frozen_outgoing"], &frozen["frozen_incoming"]), (&Value::from(true), &Value::from(false)));
    assert_eq!(place.json(&["status"])["accounts"], serde_json::json!({"all": 2, "waiting": 0, "frozen": 1}));
    let released = place.json(&["accounts", "unfreeze", &payer]);
    assert_eq!(released["frozen_outgoing"], false);

    let listed = place.json(&["channels", "list"]);
    assert_eq!(
        (&listed["channels"][0]["channel"], &listed["channels"][0]["state"]),
        (&channel.as_str().into(), &"open".into())
    );
    assert_eq!(place.json(&["channels", "list", "--account", &payee])["channels"], serde_json::json!([]));
    let (code, said) = place.fails(&["channels", "close", &channel]);
    assert!(code == 2 && said.contains("--yes"), "{said}");
    let planned = place.json(&["channels", "close", &channel, "--dry-run"]);
    assert_eq!((&planned["returned"], &planned["commit"]), (&"3.249999999".into(), &Value::Null));
    let closed = place.json(&["channels", "close", &channel, "--yes"]);
    assert_eq!((&closed["returned"], &closed["spent"]), (&"3.249999999".into(), &"1.750000001".into()));
    assert_eq!(place.fails(&["channels", "close", &channel, "--yes"]).0, 1);

    let online = place.json(&["status"]);
    let (accounts, channels) = (place.json(&["accounts", "list"]), place.json(&["channels", "list"]));
    assert_eq!(place.clean_audit()["payments"], 3);
    let place = live.stop();
    assert_eq!(place.json(&["status"])["sums"], online["sums"]);
    assert_eq!(place.json(&["status"])["head"], online["head"]);
    assert_eq!(place.json(&["accounts", "list"]), accounts, "the directory says what the hub said");
    assert_eq!(place.json(&["channels", "list"]), channels);
    let report = place.clean_audit();
    assert_eq!((&report["payments"], &report["refunds"]), (&3.into(), &1.into()));
    assert_eq!((&report["sums"]["EUR"]["cash"], &report["sums"]["EUR"]["locked"]), (&"10".into(), &"0".into()));
}

#[test]
fn idle_channels_are_closed_together_and_only_as_confirmed() {
    let live = Live::start();
    live.register(1);
    live.register(2);
    for by in [1, 2] {
        let place = &live.place;
        place.json(&["accounts", "approve", &account(by).to_string()]);
        live.deposit(by, "10");
    }
    let (busy, quiet) = (live.open(1, "5"), live.open(2, "2.5"));
    live.pay(&busy, 1, &["1.25"], 2);
    let place = &live.place;
    // Both were heard of within the hour.
    let none = place.json(&["channels", "close-idle", "--idle", "1h"]);
    assert_eq!((&none["channels"], &none["confirm"]), (&0.into(), &"0 channels".into()));
    std::thread::sleep(std::time::Duration::from_millis(5));
    let planned = place.json(&["channels", "close-idle", "--idle", "0", "--dry-run"]);
    assert_eq!((&planned["confirm"], &planned["dry_run"]), (&"2 channels, 6.25 EUR".into(), &true.into()));
    let (code, said) = place.fails(&["channels", "close-idle", "--idle", "0"]);
    assert!(code == 2 && said.contains("--confirm '2 channels, 6.25 EUR'"), "{said}");
    let (code, said) = place.fails(&["channels", "close-idle", "--idle", "0", "--confirm", "3 channels, 6.25 EUR"]);
    assert!(code == 1 && said.contains("nothing was closed"), "{said}");
    let listed = place.json(&["channels", "list"]);
    assert!(listed["channels"].as_array().unwrap().iter().all(|channel| channel["state"] == "open"));
    let done = place.json(&["channels", "close-idle", "--idle", "0", "--confirm", "2 channels, 6.25 EUR"]);
    assert_eq!((&done["closed"], &done["dry_run"]), (&2.into(), &false.into()));
    let after = place.json(&["channels", "close-idle", "--idle", "0", "--dry-run"]);
    assert_eq!(after["channels"], 0);
    let evidence = place.json(&["evidence", "channel", &quiet.id().to_string()]);
    assert_eq!(evidence["proof"]["channel"]["claim"]["returned"], "2.5");
    place.clean_audit();
    drop(live.stop());
}

#[test]
fn list_is_longer_than_a_page() {
    let live = Live::start();
    let handle = live.handle();
    let many = 260_u16;
    live.runtime.block_on(async {
        for number in 0..many {
            let mut secret = [7; 32];
            secret[..2].copy_from_slice(&number.to_le_bytes());
            let key = SecretKey::from_bytes(&secret).unwrap();
            let register = Act::Register(Register {
                number: 1,
                account: AccountId(key.public()),
                name: format!("Account {number}"),
                iban: IBAN.into(),
            });
            let signed = Box::new(register.sign(&handle.hub(), &key));
            let said = handle.request(0, |reply| Input::Act { signed, refund: None, reply }).await.unwrap();
            assert!(matches!(said, Said::Done { .. }), "{said:?}");
        }
    });
    let count = |place: &Place| place.json(&["accounts", "list"])["accounts"].as_array().unwrap().len();
    assert_eq!(count(&live.place), usize::from(many));
    let place = live.stop();
    assert_eq!(count(&place), usize::from(many));
}

/// What is done to every record.
type Change = Box<dyn Fn(&mut Record)>;

/// Writes a journal of its own from another, with each record changed on the way.
fn forge(from: &Path, to: &Path, change: impl Fn(&mut Record)) {
    let reader = JournalReader::open(&from.join("journal")).unwrap();
    let options = JournalOptions { segment_bytes: 1 << 20, ..JournalOptions::default() };
    let mut store = DiskStore::open(to, options).unwrap();
    reader
        .scan(1, &mut |entry| {
            let mut record = Record::decode(&entry.payload).unwrap();
            change(&mut record);
            let _ = store.append(entry.position.chain, entry.position, &record.encode()).unwrap();
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
}

fn look(data: &Path, hub: HubId) -> Report {
    audit(Subject { data, hub, anchor: None }, &mut |_, _| ()).unwrap()
}

#[test]
fn journal_that_was_tampered_with_is_broken_at_the_commit() {
    let (live, _) = busy();
    let place = live.stop();
    let hub = KeyFiles::of(&place.data()).certificate().unwrap().hub;
    let clean = look(&place.data(), hub);
    assert_eq!((clean.audit, clean.payments, clean.refunds), (Verdict::Clean, 3, 1));

    let groups = |change: fn(&mut weir_hub::engine::record::GroupRecord)| -> Change {
        Box::new(move |record| {
            for item in &mut record.items {
                if let ItemRecord::Group(group) = item {
                    change(group);
                }
            }
        })
    };
    let acts = |change: fn(&mut weir_hub::engine::record::ActRecord)| -> Change {
        Box::new(move |record| {
            for item in &mut record.items {
                if let ItemRecord::Act(act) = item {
                    change(act);
                }
            }
        })
    };
    let cases: Vec<(&str, Change)> = vec![
        ("nothing", Box::new(|_| ())),
        ("a payer's signature", groups(|group| group.signature.0[5] ^= 1)),
        (
            "a payee",
            groups(|group| {
                let payments: Vec<_> =
                    group.payments().map(|(_, payment)| Payment { payee: account(3), ..payment }).collect();
                group.runs = vec![Run::new(group.first_sequence(), &payments).unwrap()];
            }),
        ),
        ("a total", groups(|group| group.head.total = Amount::from_nanos(1))),
        (
            "a deposit",
            acts(|act| {
                if let Act::Deposit(deposit) = &mut act.act {
                    deposit.amount = "1000".parse().unwrap();
                }
            }),
        ),
        (
            "a deposit too small for what follows",
            acts(|act| {
                if let Act::Deposit(deposit) = &mut act.act {
                    deposit.amount = "1".parse().unwrap();
                }
            }),
        ),
        (
            "an account's signature",
            acts(|act| {
                if let (Act::Register(_), Some(author)) = (&act.act, &mut act.author) {
                    author.signature.0[9] ^= 1;
                }
            }),
        ),
        ("a blind", acts(|act| act.blind.0[0] ^= 1)),
        (
            "the payer of a refund",
            acts(|act| {
                if let Some(context) = &mut act.context {
                    context.payer = context.payee;
                }
            }),
        ),
        (
            "the amount of a refund's payment",
            acts(|act| {
                if let Some(context) = &mut act.context {
                    context.paid = "5".parse().unwrap();
                }
            }),
        ),
        (
            "the hub's signature",
            Box::new(|record| {
                if record.header().number == 4 {
                    record.commit.signature.0[1] ^= 1;
                }
            }),
        ),
        (
            "a time",
            Box::new(|record| {
                if record.header().number == 4 {
                    record.commit.commit.time.0 += 1;
                }
            }),
        ),
        (
            "a dropped item",
            Box::new(|record| {
                if record.header().number == 2 {
                    record.items.clear();
                }
            }),
        ),
    ];
    for (what, change) in cases {
        let forged = tempfile::tempdir().unwrap();
        forge(&place.data(), forged.path(), change);
        let report = look(forged.path(), hub);
        let expected = if what == "nothing" { Verdict::Clean } else { Verdict::Broken };
        assert_eq!(report.audit, expected, "{what}: {report:?}");
        if let Some(error) = report.first_error {
            assert_eq!(error.commit, report.commits + 1, "{what}: {error:?}");
        }
    }

    // The hub that it must be.
    assert_eq!(look(&place.data(), HubId(key(5).public())).audit, Verdict::Broken);
}

#[test]
fn damage_before_the_end_is_named_and_a_torn_end_is_not_damage() {
    let (live, _) = busy();
    let place = live.stop();
    let hub = KeyFiles::of(&place.data()).certificate().unwrap().hub;
    let commits = look(&place.data(), hub).commits;
    let segment = std::fs::read_dir(place.data().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .unwrap();
    let whole = std::fs::read(&segment).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();

    let mut torn = whole.clone();
    torn[end] ^= 1;
    std::fs::write(&segment, &torn).unwrap();
    let report = look(&place.data(), hub);
    assert_eq!((report.audit, report.commits), (Verdict::Clean, commits - 1), "what was torn was never acknowledged");

    let mut damaged = whole.clone();
    damaged[5_000] ^= 1;
    std::fs::write(&segment, &damaged).unwrap();
    let report = look(&place.data(), hub);
    assert_eq!(report.audit, Verdict::Broken);
    assert!(report.first_error.unwrap().what.contains("damaged"));
    let (code, said) = place.fails(&["run"]);
    assert!(code == 1 && said.contains("damaged") && said.contains("hint: "), "{said}");
    std::fs::write(&segment, &whole).unwrap();
    place.clean_audit();
}
