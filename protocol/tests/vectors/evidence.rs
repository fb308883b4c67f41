//! Evidence files for every kind of claim, and the same with something changed or left out.

use serde_json::{Value, json};
use weir_protocol::act::{Act, Cutoff, Instruct, Outcome, PayoutOutcome, Plan, Refund, payout_leaf};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::evidence::{
    ActEvidence, ActPart, ChannelClaim, ChannelEvidence, Evidence, HeadGroup, LanePart, PaymentClaim, PaymentEvidence,
    PayoutClaim, PayoutEvidence, PayoutStage, Place, PlacedCommit, Proof, ReceiptClaim, ReceiptEvidence, end_to_end_id,
};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::id::AccountId;
use weir_protocol::keys::SecretKey;
use weir_protocol::merkle::{self, Tree};
use weir_protocol::payment::{Head, payment_id};

use super::world::{Group, Item, World, case, key, nanos, value};

/// The story with its end: window 3 pays the shop and the press, the bank carries one out and refuses the other, and the shop
/// gives something back.
struct Ending {
    world: World,
    plan: Plan,
    leaves: Vec<(AccountId, Amount)>,
}

impl Ending {
    fn new() -> Self {
        let mut world = World::new();
        let mut leaves = vec![(world.shop, nanos(3_520_000_000)), (world.press, nanos(240_000_000))];
        leaves.sort_by_key(|(account, _)| *account);
        let hashes: Vec<Hash> =
            leaves.iter().map(|(account, amount)| payout_leaf(3, account, Currency::EUR, *amount)).collect();
        let plan = Plan {
            number: 0,
            operator: None,
            window: 3,
            currency: Currency::EUR,
            payouts: 2,
            total: nanos(3_760_000_000),
            root: merkle::root(&hashes),
            file: sha256(b"the bank's file"),
        };
        let digest = Act::Plan(plan.clone()).digest(&world.hub);
        world.add(&[Item::Act(Act::Cutoff(Cutoff { window: 3 }))]);
        world.add(&[Item::Act(Act::Plan(plan.clone()))]);
        let instruct = Instruct { window: 3, currency: Currency::EUR, plan: digest };
        world.add(&[Item::Act(Act::Instruct(instruct))]);
        let outcome = |account, outcome, reference: &str| {
            let amount = leaves.iter().find(|(leaf, _)| *leaf == account).unwrap().1;
            let reference = reference.into();
            Act::Outcome(Outcome { window: 3, account, currency: Currency::EUR, amount, outcome, reference })
        };
        let refund = refund(&world);
        let acts = [
            outcome(world.shop, PayoutOutcome::Settled, "B-77"),
            outcome(world.press, PayoutOutcome::Returned, "AC04"),
            Act::Refund(refund),
        ];
        world.add(&acts.map(Item::Act));
        Self { world, plan, leaves }
    }

    /// A part: the act at a place, signed again by its author.
    fn part(&self, number: usize, index: usize, author: Option<&SecretKey>) -> ActPart {
        let (act, proof) = self.world.commit(number).act(index);
        let signature = author.map(|key| key.sign(&act.digest(&self.world.hub)));
        ActPart { act, signature, commit: number as u64, blind: proof.blind, path: proof.path }
    }

    fn place(&self, number: usize, index: usize) -> Place {
        Place { commit: number as u64, path: self.world.commit(number).path(index) }
    }

    /// A file over these commits and the newest.
    fn file(&self, numbers: &[usize], newest: usize, proof: Proof) -> Evidence {
        let ids: Vec<Hash> = self.world.commits.iter().take(newest - 1).map(|built| built.signed.commit.id()).collect();
        let mut numbers = numbers.to_vec();
        numbers.push(newest);
        numbers.sort_unstable();
        numbers.dedup();
        let placed = |number: &usize| PlacedCommit {
            signed: self.world.commit(*number).signed,
            history: if *number == newest { Vec::new() } else { merkle::history_path(&ids, number - 1).unwrap() },
        };
        let commits = numbers.iter().map(placed).collect();
        Evidence::new(self.world.hub, vec![self.world.certificate], commits, proof)
    }

    fn lane(&self, number: usize, group: Option<(&Group, usize)>) -> LanePart {
        let world = &self.world;
        let empty = Head::empty(&world.grants[number].id());
        LanePart {
            grant: (number > 0).then(|| self.part(2, 4 + number, Some(&world.channel))),
            revoke: None,
            head: group.map_or(empty, |(group, _)| group.head),
            signature: group.map(|(group, _)| group.signature),
            group: group.map(|(group, index)| HeadGroup {
                count: group.count(),
                leaves: merkle::root(&group.leaves()),
                place: self.place(3, index),
            }),
        }
    }

    fn channel(&self, closed: bool) -> ChannelEvidence {
        let world = &self.world;
        let [_, second, third] = &world.groups;
        let close = world.close();
        ChannelEvidence {
            claim: ChannelClaim {
                channel: world.channel_id(),
                account: world.payer,
                currency: Currency::EUR,
                capacity: world.terms.capacity,
                expires_at: world.terms.expires_at,
                renew: true,
                amended: false,
                rolls: 0,
                lanes: 3,
                revoked: 0,
                spent: close.spent,
                closed,
                returned: if closed { close.returned } else { Amount::ZERO },
            },
            open: self.part(2, 4, Some(&world.account)),
            amendment: None,
            roll: None,
            request: closed.then(|| self.part(4, 0, Some(&world.channel))),
            close: closed.then(|| self.part(4, 1, None)),
            lanes: vec![self.lane(0, Some((second, 2))), self.lane(1, Some((third, 4))), self.lane(2, None)],
        }
    }

    /// The payment at `leaf` of a group of lane `number`, item `index` of commit 3.
    fn payment(&self, at: usize, leaf: usize, index: usize, number: usize) -> PaymentEvidence {
        let world = &self.world;
        let group = &world.groups[at];
        let mut before = group.before.state;
        for (sequence, payment) in group.payments.iter().take(leaf) {
            before = weir_protocol::payment::next_state(&before, *sequence, payment);
        }
        let (sequence, _) = group.payments[leaf];
        PaymentEvidence {
            claim: PaymentClaim {
                receipt: receipt_claim(group, leaf),
                payer: world.payer,
                channel: world.channel_id(),
                lane: world.grants[number].lane,
                sequence,
            },
            open: self.part(2, 4, Some(&world.account)),
            grant: (number > 0).then(|| self.part(2, 4 + number, Some(&world.channel))),
            before,
            payments: group.payments.iter().skip(leaf).copied().collect(),
            head: group.head,
            signature: group.signature,
            leaf: Tree::new(group.leaves()).path(leaf).unwrap(),
            group: self.place(3, index),
            refund: None,
        }
    }

    fn receipt(&self) -> ReceiptEvidence {
        let group = &self.world.groups[0];
        ReceiptEvidence {
            claim: ReceiptClaim { refunded: nanos(500_000_000), ..receipt_claim(group, 2) },
            leaf: Tree::new(group.leaves()).path(2).unwrap(),
            head: group.head.digest(&group.lane),
            group: self.place(3, 0),
            refund: Some(self.part(11, 2, Some(&key(7)))),
        }
    }

    fn payout(&self, stage: PayoutStage) -> PayoutEvidence {
        let account = self.world.shop;
        let at = self.leaves.iter().position(|(leaf, _)| *leaf == account).unwrap();
        let hashes = self.leaves.iter().map(|(id, amount)| payout_leaf(3, id, Currency::EUR, *amount)).collect();
        let is_told = stage != PayoutStage::Planned;
        PayoutEvidence {
            claim: PayoutClaim {
                account,
                window: 3,
                amount: self.leaves[at].1,
                currency: Currency::EUR,
                end_to_end_id: end_to_end_id(3, &account),
                stage,
                words: u32::from(stage == PayoutStage::Settled),
                file: self.plan.file,
            },
            registration: self.part(2, 3, Some(&key(7))),
            cutoff: self.part(8, 0, None),
            plan: self.part(9, 0, None),
            payout: Tree::new(hashes).path(at).unwrap(),
            instruction: is_told.then(|| self.part(10, 0, None)),
            outcomes: if stage == PayoutStage::Settled { vec![self.part(11, 0, None)] } else { Vec::new() },
        }
    }

    fn files(&self) -> Vec<(&'static str, Evidence)> {
        let receipt = Proof::Receipt(Box::new(self.receipt()));
        let payout = |stage| Proof::Payout(Box::new(self.payout(stage)));
        let signed = ActEvidence { key: Some(key(7).public()), part: self.part(11, 2, Some(&key(7))) };
        let own = ActEvidence { key: None, part: self.part(2, 2, None) };
        vec![
            ("a refund by itself", self.file(&[11], 11, Proof::Act(Box::new(signed)))),
            ("a deposit by itself", self.file(&[2], 11, Proof::Act(Box::new(own)))),
            ("a closed channel", self.file(&[2, 3, 4], 11, Proof::Channel(Box::new(self.channel(true))))),
            ("an open channel", self.file(&[2, 3], 3, Proof::Channel(Box::new(self.channel(false))))),
            ("a payment on lane 0", self.file(&[2, 3], 7, Proof::Payment(Box::new(self.payment(0, 1, 0, 0))))),
            ("a payment on lane 1", self.file(&[2, 3], 6, Proof::Payment(Box::new(self.payment(2, 0, 4, 1))))),
            ("a payment as its payee shows it, refunded in part", self.file(&[3, 11], 11, receipt)),
            ("a payout that was carried out", self.file(&[2, 8, 9, 10, 11], 11, payout(PayoutStage::Settled))),
            ("a payout that the bank was told of", self.file(&[2, 8, 9, 10], 11, payout(PayoutStage::Instructed))),
        ]
    }
}

fn refund(world: &World) -> Refund {
    let group = &world.groups[0];
    Refund {
        chain: world.commit(3).signed.commit.chain,
        commit: 3,
        group: 0,
        leaf: 2,
        payment_id: payment_id(&group.lane, group.payments[2].0),
        refunded_total: nanos(500_000_000),
    }
}

fn receipt_claim(group: &Group, leaf: usize) -> ReceiptClaim {
    let (sequence, payment) = group.payments[leaf];
    ReceiptClaim {
        payment_id: payment_id(&group.lane, sequence),
        payee: payment.payee,
        amount: payment.amount,
        currency: Currency::EUR,
        reference: payment.reference,
        refunded: Amount::ZERO,
    }
}

fn read(file: &Value) -> Result<(), String> {
    let bytes = serde_json::to_vec(file).unwrap();
    Evidence::read(&bytes, None).map(drop).map_err(|error| error.to_string())
}

/// A change at a place: `None` drops it.
fn changed(file: &Value, pointer: &str, to: Option<Value>) -> Value {
    let mut file = file.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match (file.pointer_mut(parent).unwrap(), to) {
        (Value::Object(fields), Some(to)) => drop(fields.insert(name.to_owned(), to)),
        (Value::Object(fields), None) => drop(fields.remove(name).unwrap()),
        (Value::Array(entries), Some(to)) => entries[name.parse::<usize>().unwrap()] = to,
        (Value::Array(entries), None) => drop(entries.remove(name.parse::<usize>().unwrap())),
        _ => unreachable!("a pointer leads into an object or a list"),
    }
    file
}

/// The smallest file.
pub(crate) fn small() -> Evidence {
    let ending = Ending::new();
    let own = ActEvidence { key: None, part: ending.part(2, 2, None) };
    ending.file(&[2], 2, Proof::Act(Box::new(own)))
}

pub(crate) fn cases() -> Vec<Value> {
    let ending = Ending::new();
    let files = ending.files();
    let mut cases = Vec::new();
    for (name, file) in &files {
        let verdict = file.check().unwrap();
        let body = json!({
            "file": file, "valid": true, "kind_of_claim": verdict.kind, "commit": verdict.commit, "newest": verdict.newest,
        });
        cases.push(case("evidence", name, body));
    }
    let wrong: [(&str, &str, Option<Value>); 24] = [
        ("a refund by itself", "/proof/act/key", Some(json!(ending.world.channel.public()))),
        ("a deposit by itself", "/proof/act/part/act/deposit/amount", Some(json!("51"))),
        ("a closed channel", "/format", Some(json!("weir-evidence/2"))),
        ("a closed channel", "/proof/channel/claim/spent", Some(json!("3.73"))),
        ("a closed channel", "/proof/channel/lanes/2", None),
        ("a closed channel", "/proof/channel/lanes/1/signature", Some(Value::Null)),
        ("a closed channel", "/proof/channel/request", Some(Value::Null)),
        ("a closed channel", "/commits/0/history/0", None),
        ("a closed channel", "/commits/3", None),
        ("a closed channel", "/surplus", Some(json!(1))),
        ("an open channel", "/proof/channel/lanes/0/head/total", Some(json!("2"))),
        ("an open channel", "/proof/channel/open/signature", Some(Value::Null)),
        ("a payment on lane 0", "/proof/payment/claim/receipt/amount", Some(json!("0.000000002"))),
        ("a payment on lane 0", "/proof/payment/payments/1", None),
        ("a payment on lane 0", "/proof/payment/before", Some(json!("00".repeat(32)))),
        ("a payment on lane 1", "/proof/payment/grant", Some(Value::Null)),
        ("a payment on lane 1", "/proof/payment/claim/payer", Some(json!(ending.world.shop))),
        ("a payment as its payee shows it, refunded in part", "/proof/receipt/refund", Some(Value::Null)),
        ("a payment as its payee shows it, refunded in part", "/proof/receipt/claim/refunded", Some(json!("2.5"))),
        ("a payout that was carried out", "/proof/payout/outcomes/0", None),
        ("a payout that was carried out", "/proof/payout/claim/end_to_end_id", Some(json!("W3-00"))),
        ("a payout that was carried out", "/proof/payout/registration", None),
        ("a payout that was carried out", "/certificates/0", None),
        ("a payout that the bank was told of", "/proof/payout/claim/stage", Some(json!("settled"))),
    ];
    for (of, pointer, to) in wrong {
        let (_, file) = files.iter().find(|(name, _)| *name == of).unwrap();
        let made = changed(&value(file), pointer, to.clone());
        assert!(read(&made).is_err(), "{of}: {pointer}");
        let name = if to.is_some() { format!("{of}: another `{pointer}`") } else { format!("{of}: no `{pointer}`") };
        let change = to.map_or_else(|| json!({ "drop": pointer }), |to| json!({ "set": pointer, "to": to }));
        cases.push(case("evidence_change", &name, json!({ "of": of, "change": change, "valid": false })));
    }
    cases
}

/// Pointers to everything inside, and what is there.
fn places(value: &Value, at: &str, found: &mut Vec<(String, Value)>) {
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(entries) => entries.iter().enumerate().map(|(place, value)| (place.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (name, inner) in entries {
        let pointer = format!("{at}/{name}");
        found.push((pointer.clone(), inner.clone()));
        places(inner, &pointer, found);
    }
}

/// Something of the same type and length, mostly.
fn other(value: &Value) -> Value {
    match value {
        Value::Null => json!(0),
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => json!(number.as_u64().unwrap() + 1),
        Value::String(text) => {
            let mut bytes = text.clone().into_bytes();
            let last = bytes.last_mut().unwrap();
            *last = if *last == b'9' || *last == b'f' || *last == b'z' { *last - 1 } else { *last + 1 };
            json!(String::from_utf8(bytes).unwrap())
        }
        Value::Array(_) => json!([]),
        Value::Object(_) => Value::Null,
    }
}

#[test]
fn evidence_with_any_field_changed_or_left_out_is_refused() {
    for (name, file) in Ending::new().files() {
        let file = value(&file);
        assert_eq!(read(&file), Ok(()), "{name}");
        let mut found = Vec::new();
        places(&file, "", &mut found);
        assert!(found.len() > 35, "{name}: {}", found.len());
        for (pointer, inner) in found {
            let new = other(&inner);
            if new != inner {
                assert!(read(&changed(&file, &pointer, Some(new))).is_err(), "{name}: `{pointer}` was changed");
            }
            assert!(read(&changed(&file, &pointer, None)).is_err(), "{name}: `{pointer}` was left out");
            if let Value::Array(entries) = &inner
                && let Some(last) = entries.last()
            {
                let twice = [entries.clone(), vec![last.clone()]].concat();
                let twice = changed(&file, &pointer, Some(Value::Array(twice)));
                assert!(read(&twice).is_err(), "{name}: the last of `{pointer}` is there twice");
            }
        }
    }
}

#[test]
fn evidence_with_any_byte_flipped_is_refused() {
    for (name, file) in Ending::new().files() {
        let bytes = serde_json::to_vec(&file).unwrap();
        assert!(Evidence::read(&bytes, None).is_ok());
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 7);
            assert!(Evidence::read(&bytes, None).is_err(), "{name}: byte {at}");
        }
        assert!(Evidence::read(&bytes[..bytes.len() - 1], None).is_err());
    }
}

#[test]
fn evidence_of_another_hub_than_the_trusted_one_is_refused() {
    let ending = Ending::new();
    let (_, file) = &ending.files()[2];
    let bytes = file.to_json().unwrap();
    assert!(Evidence::read(&bytes, Some(ending.world.hub)).is_ok());
    let other = weir_protocol::id::HubId(key(9).public());
    assert!(Evidence::read(&bytes, Some(other)).is_err());
}

#[test]
fn verdict_says_what_is_proven_and_what_is_not() {
    for (name, file) in Ending::new().files() {
        let verdict = file.check().unwrap();
        assert!(verdict.proven.len() >= 2 && verdict.open.len() >= 2, "{name}: {verdict:?}");
        assert!(verdict.time > Time(0) && verdict.newest >= verdict.commit && !verdict.facts.is_empty());
    }
}
