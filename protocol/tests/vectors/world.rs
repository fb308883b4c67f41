//! The little story that the vectors tell: one hub, one payer with a channel of three lanes, two payees, seven commits.

use serde::Serialize;
use serde_json::{Value, json};
use weir_protocol::act::{
    Act, Approve, Certificate, Chain, Close, CloseCause, CloseRequest, Cutoff, Deposit, Policy, Register, SignedAct,
    Void,
};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::{ChannelTerms, LaneGrant, LaneMode};
use weir_protocol::commit::{ActProof, Answer, Blind, Commit, SignedCertificate, SignedCommit, act_item, group_item};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::id::{AccountId, ChannelId, HubId, LaneId, Reference};
use weir_protocol::keys::{SecretKey, Signature};
use weir_protocol::merkle::{self, Tree};
use weir_protocol::payment::{Frame, Head, Payment, Run, next_state, payment_id, receipt_leaf};
use weir_protocol::receipt::{Receipt, ReceiptClaim};

/// When the story begins, in ms.
pub(crate) const START: u64 = 1_790_000_000_000;
/// A day in ms.
pub(crate) const DAY: u64 = 86_400_000;

/// A case of a vector file.
pub(crate) fn case(kind: &str, name: &str, body: Value) -> Value {
    let Value::Object(mut fields) = body else { unreachable!("a case is an object") };
    fields.insert("kind".into(), json!(kind));
    fields.insert("name".into(), json!(name));
    Value::Object(fields)
}

/// A value as it stands in a vector file.
pub(crate) fn value<T: Serialize>(of: &T) -> Value {
    serde_json::to_value(of).unwrap()
}

pub(crate) fn nanos(nanos: u64) -> Amount {
    Amount::from_nanos(nanos)
}

pub(crate) fn key(fill: u8) -> SecretKey {
    SecretKey::from_bytes(&[fill; 32]).unwrap()
}

/// Payments of one lane in one commit.
pub(crate) struct Group {
    pub(crate) lane: LaneId,
    pub(crate) before: Head,
    pub(crate) payments: Vec<(u64, Payment)>,
    pub(crate) head: Head,
    pub(crate) signature: Signature,
}

impl Group {
    /// Payments on top of a head, signed.
    pub(crate) fn new(
        key: &SecretKey,
        lane: LaneId,
        before: Head,
        first: u64,
        payments: &[Payment],
        valid_until: u64,
    ) -> Self {
        let payments: Vec<_> = (first..).zip(payments.iter().copied()).collect();
        let mut head = Head { valid_until: Time(valid_until), ..before };
        for (sequence, payment) in &payments {
            head.state = next_state(&head.state, *sequence, payment);
            head.sequence = *sequence;
            head.total = head.total.checked_add(payment.amount).unwrap();
        }
        let signature = key.sign(&head.digest(&lane));
        Self { lane, before, payments, head, signature }
    }

    pub(crate) fn frame(&self) -> Frame {
        let payments: Vec<_> = self.payments.iter().map(|(_, payment)| *payment).collect();
        let first = self.payments.first().unwrap().0;
        Frame {
            previous_sequence: self.before.sequence,
            run: Run::new(first, &payments).unwrap(),
            valid_until: self.head.valid_until,
            signature: self.signature,
        }
    }

    pub(crate) fn leaves(&self) -> Vec<Hash> {
        let leaf = |(sequence, payment): &(u64, Payment)| {
            receipt_leaf(&payment_id(&self.lane, *sequence), payment, Currency::EUR)
        };
        self.payments.iter().map(leaf).collect()
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.payments.len()).unwrap()
    }

    pub(crate) fn item(&self) -> Hash {
        group_item(&self.head.digest(&self.lane), self.count(), &merkle::root(&self.leaves()))
    }

    pub(crate) fn answer(&self, commit: &Built, index: usize) -> Answer {
        Answer {
            first_sequence: self.payments.first().unwrap().0,
            through_sequence: self.head.sequence,
            count: self.count(),
            leaves: merkle::root(&self.leaves()),
            commit: commit.signed,
            path: commit.path(index),
        }
    }

    pub(crate) fn receipt(&self, leaf: usize, built: &Built, index: usize) -> (Receipt, ReceiptClaim) {
        let (sequence, payment) = *self.payments.get(leaf).unwrap();
        let commit = built.signed.commit;
        let receipt = Receipt {
            payment_id: payment_id(&self.lane, sequence),
            leaf_path: Tree::new(self.leaves()).path(leaf).unwrap(),
            head: self.head.digest(&self.lane),
            group_path: built.path(index),
            chain: commit.chain,
            number: commit.number,
            time: commit.time,
            history: commit.history,
            signature: built.signed.signature,
        };
        (receipt, ReceiptClaim { hub: commit.hub, currency: Currency::EUR, payment })
    }
}

/// What a commit of the story holds.
pub(crate) enum Item<'a> {
    Act(Act),
    Group(&'a Group),
}

/// A commit with its items.
pub(crate) struct Built {
    pub(crate) signed: SignedCommit,
    pub(crate) items: Vec<Hash>,
    acts: Vec<Option<(Act, Blind)>>,
}

impl Built {
    pub(crate) fn path(&self, index: usize) -> merkle::Path {
        Tree::new(self.items.clone()).path(index).unwrap()
    }

    /// The act at this place and its proof.
    pub(crate) fn act(&self, index: usize) -> (Act, ActProof) {
        let (act, blind) = self.acts.get(index).unwrap().clone().unwrap();
        (act, ActProof { commit: self.signed, blind, path: self.path(index) })
    }
}

pub(crate) struct World {
    pub(crate) identity: SecretKey,
    pub(crate) signing: SecretKey,
    pub(crate) account: SecretKey,
    pub(crate) channel: SecretKey,
    pub(crate) lane_one: SecretKey,
    pub(crate) lane_two: SecretKey,
    pub(crate) hub: HubId,
    pub(crate) payer: AccountId,
    pub(crate) shop: AccountId,
    pub(crate) press: AccountId,
    pub(crate) certificate: SignedCertificate,
    pub(crate) policy: Policy,
    pub(crate) terms: ChannelTerms,
    pub(crate) grants: [LaneGrant; 3],
    /// Lane 0, sequences 1–3; lane 0, sequences 7–8; lane 1, sequence 1. All three are in commit 3.
    pub(crate) groups: [Group; 3],
    pub(crate) void: Void,
    pub(crate) close_request: SignedAct,
    /// Commits 1 to 7.
    pub(crate) commits: Vec<Built>,
}

/// The secrets of the story, by name.
pub(crate) const SECRETS: &[(&str, u8)] = &[
    ("identity", 1),
    ("signing", 2),
    ("account", 3),
    ("channel", 4),
    ("lane_one", 5),
    ("lane_two", 6),
    ("shop", 7),
    ("press", 8),
    ("stranger", 9),
    ("next_signing", 10),
];

impl World {
    pub(crate) fn new() -> Self {
        let [identity, signing, account, channel, lane_one, lane_two] = [1, 2, 3, 4, 5, 6].map(key);
        let hub = HubId(identity.public());
        let payer = AccountId(account.public());
        let [shop, press] = [7, 8].map(|fill| AccountId(key(fill).public()));
        let certificate =
            Certificate { key: signing.public(), not_before: Time(START - DAY), not_after: Time(START + 365 * DAY) };
        let digest = Act::Certificate(certificate).digest(&hub);
        let certificate = SignedCertificate { certificate, signature: identity.sign(&digest) };
        let policy = Policy {
            open_registration: false,
            refund_days: 90,
            payment_max: nanos(100_000_000_000),
            payout_min: nanos(1_000_000_000),
            fee_basis_points: 50,
            fee_per_payment: nanos(1_000),
            fee_minimum: nanos(10_000_000),
            approvals: 1,
            currencies: vec![Currency::EUR],
        };
        let terms = ChannelTerms {
            hub,
            account: payer,
            scheme: 0,
            key: channel.public(),
            currency: Currency::EUR,
            capacity: nanos(20_000_000_000),
            opened_at: Time(START),
            expires_at: Time(START + 30 * DAY),
            renew: true,
            salt: sha256(b"salt").0,
        };
        let shared = LaneGrant {
            channel: terms.id(),
            lane: 1,
            scheme: 0,
            key: lane_one.public(),
            mode: LaneMode::Shared,
            payee: None,
            limit: nanos(1_000_000_000),
            period: 3600,
            expires_at: Time(START + 7 * DAY),
        };
        let reserved = LaneGrant {
            lane: 2,
            key: lane_two.public(),
            mode: LaneMode::Reserved,
            payee: Some(shop),
            limit: nanos(5_000_000_000),
            period: 0,
            ..shared
        };
        let grants = [terms.lane_zero(), shared, reserved];
        let groups = groups(&channel, &lane_one, &grants, shop, press);
        let request = CloseRequest { number: 9, channel: terms.id() };
        let close_request = Act::CloseRequest(request).sign(&hub, &channel);
        let [first, ..] = &groups;
        let void = Void {
            lane: first.lane,
            head: first.head.digest(&first.lane),
            sequence: 3,
            total: first.head.total,
            void_through: 6,
        };
        let mut world = Self {
            identity,
            signing,
            account,
            channel,
            lane_one,
            lane_two,
            hub,
            payer,
            shop,
            press,
            certificate,
            policy,
            terms,
            grants,
            groups,
            void,
            close_request,
            commits: Vec::new(),
        };
        world.tell();
        world
    }

    pub(crate) fn channel_id(&self) -> ChannelId {
        self.terms.id()
    }

    pub(crate) fn commit(&self, number: usize) -> &Built {
        self.commits.get(number - 1).unwrap()
    }

    /// Every lane's head at the end, by number.
    pub(crate) fn heads(&self) -> Vec<Hash> {
        let [_, second, third] = &self.groups;
        let unused = self.grants[2].id();
        vec![second.head.digest(&second.lane), third.head.digest(&third.lane), Head::empty(&unused).digest(&unused)]
    }

    pub(crate) fn close(&self) -> Close {
        let [_, second, third] = &self.groups;
        let spent = second.head.total.checked_add(third.head.total).unwrap();
        Close {
            channel: self.channel_id(),
            cause: CloseCause::Request,
            request: self.close_request.act.digest(&self.hub),
            root: merkle::root(&self.heads()),
            spent,
            returned: self.terms.capacity.checked_sub(spent).unwrap(),
        }
    }

    fn tell(&mut self) {
        let chain = Chain { previous_chain: 0, kept_number: 0, kept_id: Hash::ZERO, cut: 0 };
        let register = |number, account, name: &str, iban: &str| {
            Act::Register(Register { number, account, name: name.into(), iban: iban.into() })
        };
        let deposit = |account, units: u64, reference: &str| {
            Act::Deposit(Deposit {
                account,
                currency: Currency::EUR,
                amount: nanos(units * 1_000_000_000),
                connector: "sandbox".into(),
                bank_reference: reference.into(),
            })
        };
        let stories = [
            vec![Act::Chain(chain), Act::Certificate(self.certificate.certificate), Act::Policy(self.policy.clone())],
            vec![
                register(1, self.payer, "Ada Payer", "DE89370400440532013000"),
                Act::Approve(Approve { account: self.payer }),
                deposit(Some(self.payer), 50, "E-1"),
                register(1, self.shop, "Zoë's Shop", "FR1420041010050500013M02606"),
                Act::Open(self.terms),
                Act::Grant(self.grants[1]),
                Act::Grant(self.grants[2]),
            ],
        ];
        for acts in stories {
            let items: Vec<_> = acts.into_iter().map(Item::Act).collect();
            self.add(&items);
        }
        let third = build(
            self,
            &[
                Item::Group(&self.groups[0]),
                Item::Act(Act::Void(self.void)),
                Item::Group(&self.groups[1]),
                Item::Act(deposit(None, 3, "E-2")),
                Item::Group(&self.groups[2]),
            ],
        );
        self.commits.push(third);
        self.add(&[Item::Act(self.close_request.act.clone()), Item::Act(Act::Close(self.close()))]);
        self.add(&[Item::Act(Act::Cutoff(Cutoff { window: 1 }))]);
        self.add(&[Item::Act(Act::Approve(Approve { account: self.shop }))]);
        self.add(&[Item::Act(Act::Cutoff(Cutoff { window: 2 }))]);
    }

    pub(crate) fn add(&mut self, items: &[Item<'_>]) {
        let built = build(self, items);
        self.commits.push(built);
    }
}

fn groups(
    channel: &SecretKey,
    lane_one: &SecretKey,
    grants: &[LaneGrant; 3],
    shop: AccountId,
    press: AccountId,
) -> [Group; 3] {
    let pay = |payee, amount, what: &str| Payment {
        payee,
        amount: nanos(amount),
        reference: Reference(sha256(what.as_bytes()).0),
    };
    let [zero, one, _] = grants.map(|grant| grant.id());
    let payments =
        [pay(shop, 50_000_000, "article 1"), pay(press, 1, "one nano"), pay(shop, 2_500_000_000, "order 17")];
    let first = Group::new(channel, zero, Head::empty(&zero), 1, &payments, 0);
    let payments = [pay(press, 120_000_000, "issue 9"), pay(press, 120_000_001, "issue 10")];
    let second = Group::new(channel, zero, first.head, 7, &payments, START + DAY);
    let third = Group::new(lane_one, one, Head::empty(&one), 1, &[pay(shop, 990_000_000, "article 2")], 0);
    [first, second, third]
}

/// The next commit of the story over these items.
fn build(world: &World, items: &[Item<'_>]) -> Built {
    let number = world.commits.len() as u64 + 1;
    let ids: Vec<Hash> = world.commits.iter().map(|built| built.signed.commit.id()).collect();
    let secret = [0x5e; 32];
    let mut acts = Vec::new();
    let mut hashes = Vec::new();
    for (index, item) in (0_u32..).zip(items) {
        match item {
            Item::Act(act) => {
                let blind = Blind::derive(&secret, START, number, index);
                hashes.push(act_item(&blind, act.kind(), &act.digest(&world.hub)));
                acts.push(Some((act.clone(), blind)));
            }
            Item::Group(group) => {
                hashes.push(group.item());
                acts.push(None);
            }
        }
    }
    let commit = Commit {
        hub: world.hub,
        chain: START,
        number,
        time: Time(START + number * 1000),
        history: merkle::root(&ids),
        items: u32::try_from(items.len()).unwrap(),
        root: merkle::root(&hashes),
    };
    Built { signed: SignedCommit { commit, signature: world.signing.sign(&commit.id()) }, items: hashes, acts }
}
