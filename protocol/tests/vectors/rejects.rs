//! Every refusal; frames and acts that lead to one, with the facts that decide; and those that just do not.

use serde_json::{Value, json};
use weir_protocol::act::{
    Act, Amend, Approval, Earnings, EarningsUse, Freeze, Refund, Register, Revoke, SignedAct, Withdraw,
};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::{ChannelTerms, LaneGrant, LaneMode, MAX_LANES, OPENED_AT_TOLERANCE_MS};
use weir_protocol::hash::Hash;
use weir_protocol::id::AccountId;
use weir_protocol::keys::{PublicKey, SecretKey, Signature};
use weir_protocol::lane::hub::{Bounds, Lane};
use weir_protocol::payment::{Frame, Head, MAX_SKIP, Payment, Run, payment_id};
use weir_protocol::reject::{Reaction, Reject};
use weir_protocol::wire::{self, LaneRequest};

use super::malformed::raw_frame;
use super::messages::NO_CHANNEL;
use super::world::{DAY, Group, START, World, case, key, nanos, value};

pub(crate) fn cases(world: &World) -> Vec<Value> {
    let mut cases: Vec<Value> = Reject::ALL.iter().copied().map(refusal).collect();
    cases.extend(periods(world));
    cases.extend(frames(world));
    cases.extend(acts(world));
    cases
}

fn refusal(reject: Reject) -> Value {
    let reaction = match reject.reaction() {
        Reaction::GiveUp => "give up",
        Reaction::Retry => "retry",
        Reaction::Attach => "attach",
        Reaction::First => "first",
    };
    case("reject", reject.name(), json!({ "code": reject.code(), "reaction": reaction }))
}

fn periods(world: &World) -> Vec<Value> {
    let grant = world.grants[1];
    let times = [0, START - 1, START, START + 3_599_999, START + 3_600_000, START + DAY, u64::MAX];
    times
        .iter()
        .map(|time| {
            let period = grant.period_at(Time(START), Time(*time));
            let start = grant.period_start(Time(START), period);
            let body = json!({
                "period": grant.period, "opened_at": START, "time": time, "k": period, "begins": start,
            });
            case("period", &format!("at {time}"), body)
        })
        .collect()
}

/// The facts that decide on a frame; see `README.md`, "Precedence".
#[derive(Clone)]
struct Facts {
    stopped: bool,
    proven: bool,
    attached: bool,
    closed: bool,
    revoked: bool,
    frozen_outgoing: bool,
    grant: LaneGrant,
    channel_expires_at: u64,
    head: Head,
    void_through: u64,
    total_at_period_start: u64,
    room: u64,
    payees: Vec<(AccountId, bool, bool)>,
    payment_max: u64,
    time: u64,
}

impl Facts {
    fn json(&self) -> Value {
        let payees: serde_json::Map<String, Value> = self
            .payees
            .iter()
            .map(|(account, approved, frozen)| {
                (account.to_string(), json!({ "approved": approved, "frozen_incoming": frozen }))
            })
            .collect();
        json!({
            "stopped": self.stopped,
            "proven": self.proven,
            "attached": self.attached,
            "closed": self.closed,
            "revoked": self.revoked,
            "frozen_outgoing": self.frozen_outgoing,
            "grant": self.grant,
            "channel_expires_at": self.channel_expires_at,
            "head": self.head,
            "void_through": self.void_through,
            "total_at_period_start": nanos(self.total_at_period_start),
            "room": nanos(self.room),
            "payees": payees,
            "payment_max": nanos(self.payment_max),
            "time": self.time,
        })
    }
}

impl Facts {
    /// What the hub's lane says, where the decision is the lane's.
    fn judge(&self, body: &[u8]) -> Option<Result<(), (Reject, u64)>> {
        let before = self.stopped || !self.proven || !self.attached || self.closed;
        let Ok(LaneRequest::Frame(frame)) = wire::decode::<LaneRequest>(body) else { return None };
        if before || frame.run.check_shape().is_err() {
            return None;
        }
        let mut kept = serde_json::to_value(Lane::new(self.grant)).unwrap();
        kept["head"] = json!(self.head);
        kept["void_through"] = json!(self.void_through);
        kept["revoked"] = json!(self.revoked);
        let lane: Lane = serde_json::from_value(kept).unwrap();
        let bounds = Bounds {
            now: Time(self.time),
            opened_at: Time(START),
            expires_at: Time(self.channel_expires_at),
            headroom: nanos(self.room),
            headroom_from: Time(0),
            frozen: self.frozen_outgoing,
            payment_max: nanos(self.payment_max),
        };
        let key = self.grant.key.parse().unwrap();
        let taken = lane.judge(vec![frame], &bounds, &key, &mut |payee| match self
            .payees
            .iter()
            .find(|(account, ..)| account == payee)
        {
            None | Some((_, false, _)) => Err(Reject::UnknownPayee),
            Some((_, true, true)) => Err(Reject::Frozen),
            Some((_, true, false)) => Ok(()),
        });
        assert_eq!(taken.groups.len(), usize::from(taken.fault.is_none()));
        Some(taken.fault.map_or(Ok(()), |fault| Err((fault.reject, fault.sequence))))
    }
}

fn body(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode_into(&LaneRequest::Frame(frame), &mut bytes);
    bytes
}

fn frame_case(name: &str, facts: &Facts, body: &[u8], expected: Option<(Reject, u64)>) -> Value {
    if let Some(judged) = facts.judge(body) {
        assert_eq!(judged.err(), expected, "{name}");
    }
    let expected = expected.map(|(reject, fault)| json!({ "reject": reject, "fault": fault }));
    case("frame_rule", name, json!({ "facts": facts.json(), "frame": hex::encode(body), "expected": expected }))
}

/// Says the facts once, as a case of their own, and in each case after it only those that differ.
fn shorten(name: &str, facts: &Value, cases: Vec<Value>) -> Vec<Value> {
    let mut short = vec![case("facts", name, json!({ "facts": facts }))];
    for mut one in cases {
        let full = one.get("facts").and_then(Value::as_object).unwrap();
        let differ: serde_json::Map<String, Value> = full
            .iter()
            .filter(|(key, value)| facts.get(key.as_str()) != Some(*value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        *one.get_mut("facts").unwrap() = json!({ "of": name, "but": differ });
        short.push(one);
    }
    short
}

fn frames(world: &World) -> Vec<Value> {
    use Reject as R;
    let [first, second, _] = &world.groups;
    let facts = Facts {
        stopped: false,
        proven: true,
        attached: true,
        closed: false,
        revoked: false,
        frozen_outgoing: false,
        grant: world.grants[0],
        channel_expires_at: world.terms.expires_at.0,
        head: first.head,
        void_through: 6,
        total_at_period_start: 0,
        room: 17_449_999_999,
        payees: vec![(world.shop, true, false), (world.press, true, false)],
        payment_max: world.policy.payment_max.nanos(),
        time: START + 3500,
    };
    let with = |change: &dyn Fn(&mut Facts)| {
        let mut facts = facts.clone();
        change(&mut facts);
        facts
    };
    let good = body(second.frame());
    let pay = |payee, amount| Payment { payee, amount: nanos(amount), reference: second.payments[0].1.reference };
    let signed = |first_sequence, payments: &[Payment], until| {
        body(Group::new(&world.channel, first.lane, first.head, first_sequence, payments, until).frame())
    };
    // Where a cheap rule refuses, the signature is not looked at: zeros stand there.
    let unsigned = |previous, first_sequence, payments: &[Payment]| {
        body(Frame {
            previous_sequence: previous,
            run: Run::new(first_sequence, payments).unwrap(),
            valid_until: Time(0),
            signature: Signature::ZERO,
        })
    };
    let one = [pay(world.shop, 5)];
    let stranger = AccountId(key(9).public());
    let mut flipped = second.frame();
    flipped.signature.0[7] ^= 1;
    let until = second.head.valid_until.0;
    let trailing = [good.clone(), vec![0]].concat();
    let far = 6 + MAX_SKIP;
    let two = [pay(world.shop, 5), pay(world.press, 5)];
    let zero_second = [pay(world.shop, 5), pay(world.press, 0)];
    let mut cases = vec![
        frame_case("taken", &facts, &good, None),
        frame_case("bytes after the end", &facts, &trailing, Some((R::Malformed, 0))),
        frame_case(
            "payees out of order",
            &facts,
            &raw_frame(7, &[world.shop.key(), world.press.key()], &[1, 0]),
            Some((R::Malformed, 0)),
        ),
        frame_case(
            "stopped",
            &with(&|facts| (facts.stopped, facts.proven) = (true, false)),
            &good,
            Some((R::Stopped, 0)),
        ),
        frame_case(
            "no key proven",
            &with(&|facts| (facts.proven, facts.attached) = (false, false)),
            &good,
            Some((R::Unauthenticated, 0)),
        ),
        frame_case(
            "detached",
            &with(&|facts| (facts.attached, facts.closed) = (false, true)),
            &good,
            Some((R::Detached, 0)),
        ),
        frame_case("closed", &with(&|facts| facts.closed = true), &unsigned(9, 9, &one), Some((R::Closed, 0))),
        frame_case("follows another head", &facts, &unsigned(2, 2, &one), Some((R::Conflict, 2))),
        frame_case(
            "follows a later head",
            &with(&|facts| facts.revoked = true),
            &unsigned(7, 8, &one),
            Some((R::Conflict, 8)),
        ),
        frame_case("not above the head", &facts, &unsigned(3, 3, &one), Some((R::Sequence, 3))),
        frame_case("voided", &facts, &unsigned(3, 6, &one), Some((R::Sequence, 6))),
        frame_case("as far as may be", &facts, &signed(far, &one, 0), None),
        frame_case("one further", &facts, &unsigned(3, far + 1, &one), Some((R::Sequence, far + 1))),
        frame_case("only its first as far as may be", &facts, &signed(far, &two, 0), None),
        frame_case(
            "as far as may be without a void",
            &with(&|facts| facts.void_through = 0),
            &signed(3 + MAX_SKIP, &one, 0),
            None,
        ),
        frame_case(
            "revoked",
            &with(&|facts| (facts.revoked, facts.time) = (true, until)),
            &good,
            Some((R::Revoked, 0)),
        ),
        frame_case("a millisecond before its deadline", &with(&|facts| facts.time = until - 1), &good, None),
        frame_case("at its deadline", &with(&|facts| facts.time = until), &good, Some((R::Expired, 7))),
        frame_case(
            "the channel expired",
            &with(&|facts| (facts.channel_expires_at, facts.frozen_outgoing) = (facts.time, true)),
            &good,
            Some((R::Expired, 0)),
        ),
        frame_case(
            "the payer is frozen",
            &with(&|facts| facts.frozen_outgoing = true),
            &unsigned(3, 7, &zero_second),
            Some((R::Frozen, 0)),
        ),
        frame_case("the second pays nothing", &facts, &unsigned(3, 7, &zero_second), Some((R::Zero, 8))),
        frame_case(
            "the second's payee is unknown",
            &facts,
            &unsigned(3, 7, &[pay(world.shop, 5), pay(stranger, 5)]),
            Some((R::UnknownPayee, 8)),
        ),
        frame_case(
            "the payee is not approved",
            &with(&|facts| facts.payees[0].1 = false),
            &unsigned(3, 7, &one),
            Some((R::UnknownPayee, 7)),
        ),
        frame_case(
            "the payee is frozen",
            &with(&|facts| facts.payees[1].2 = true),
            &unsigned(3, 7, &two),
            Some((R::Frozen, 8)),
        ),
        frame_case("a payment as large as may be", &with(&|facts| facts.payment_max = 5), &signed(7, &one, 0), None),
        frame_case(
            "a payment a nano larger",
            &with(&|facts| facts.payment_max = 4),
            &unsigned(3, 7, &one),
            Some((R::TooLarge, 7)),
        ),
        frame_case("no bound on a payment", &with(&|facts| facts.payment_max = 0), &signed(7, &one, 0), None),
        frame_case(
            "the total overflows",
            &with(&|facts| (facts.payment_max, facts.room) = (0, 1)),
            &unsigned(3, 7, &[pay(world.shop, u64::MAX)]),
            Some((R::Overflow, 7)),
        ),
        frame_case("all that the channel has", &with(&|facts| facts.room = 240_000_001), &good, None),
        frame_case(
            "a nano more than the channel has",
            &with(&|facts| facts.room = 240_000_000),
            &good,
            Some((R::Capacity, 8)),
        ),
        frame_case(
            "the first fault counts",
            &with(&|facts| facts.room = 4),
            &unsigned(3, 7, &zero_second),
            Some((R::Capacity, 7)),
        ),
        frame_case("a flipped signature", &facts, &body(flipped), Some((R::Signature, 7))),
    ];
    let other_lane = Group::new(&key(9), first.lane, first.head, 7, &one, 0).frame();
    cases.push(frame_case("signed with another key", &facts, &body(other_lane), Some((R::Signature, 7))));
    let other_state = Head { state: second.head.state, ..first.head };
    let other_state = Group::new(&world.channel, first.lane, other_state, 7, &one, 0).frame();
    cases.push(frame_case("signed over another state", &facts, &body(other_state), Some((R::Signature, 7))));
    cases.extend(granted_lanes(world, &facts));
    shorten("a lane's facts", &facts.json(), cases)
}

/// Rules that a grant adds: lane 1 has periods and an expiry, lane 2 one payee.
fn granted_lanes(world: &World, facts: &Facts) -> Vec<Value> {
    let third = &world.groups[2];
    let one = Facts { grant: world.grants[1], head: third.head, void_through: 1, ..facts.clone() };
    let pay = |amount| Payment { amount: nanos(amount), ..third.payments[0].1 };
    let spend = |amount| body(Group::new(&world.lane_one, third.lane, third.head, 2, &[pay(amount)], 0).frame());
    let later = Facts { total_at_period_start: third.head.total.nanos(), time: START + 3_600_000, ..one.clone() };
    let expiry = world.grants[1].expires_at.0;
    let expired = Facts { time: expiry, ..one.clone() };
    let last = Facts { time: expiry - 1, ..one.clone() };
    let two = world.grants[2];
    let empty = Head::empty(&two.id());
    let bound = Facts { grant: two, head: empty, void_through: 0, ..facts.clone() };
    let pay_press = Payment { payee: world.press, ..pay(5) };
    let to = |payments: &[Payment]| body(Group::new(&world.lane_two, two.id(), empty, 1, payments, 0).frame());
    vec![
        frame_case("all of the period's limit", &one, &spend(10_000_000), None),
        frame_case("a nano above the period's limit", &one, &spend(10_000_001), Some((Reject::Limit, 2))),
        frame_case("the next period's limit", &later, &spend(1_000_000_000), None),
        frame_case("a nano above the next period's", &later, &spend(1_000_000_001), Some((Reject::Limit, 2))),
        frame_case("at the lane's last instant", &last, &spend(5), None),
        frame_case("the lane expired", &expired, &spend(5), Some((Reject::Expired, 0))),
        frame_case("the lane's payee", &bound, &to(&[pay(5)]), None),
        frame_case("another payee", &bound, &to(&[pay(5), pay_press]), Some((Reject::WrongPayee, 2))),
        frame_case("all of a lane's limit", &bound, &to(&[pay(5_000_000_000)]), None),
        frame_case("above a lane's limit", &bound, &to(&[pay(5_000_000_000), pay(1)]), Some((Reject::Limit, 2))),
    ]
}

/// What the hub has when the acts arrive.
fn act_facts(world: &World) -> Value {
    let channel = json!({
        "account": world.payer,
        "key": world.terms.key,
        "number": 7,
        "closed": false,
        "currency": "EUR",
        "capacity": world.terms.capacity,
        "expires_at": world.terms.expires_at,
        "lanes": 3,
        "revoked": [2],
        "room": nanos(11_000_000_000),
    });
    let payment = json!({
        "payee": world.shop,
        "currency": "EUR",
        "amount": nanos(2_500_000_000),
        "refunded": nanos(400_000_000),
        "time": START + 3000,
    });
    let account = |approved, number, available, earned| {
        json!({
            "approved": approved, "frozen_outgoing": false, "number": number,
            "available": { "EUR": nanos(available) }, "earned": { "EUR": nanos(earned) },
        })
    };
    let paid = payment_id(&world.groups[0].lane, 3);
    json!({
        "stopped": false,
        "time": START + 5000,
        "hub": world.hub,
        "policy": world.policy,
        "accounts": {
            world.payer.to_string(): account(true, 3, 30_000_000_000, 0),
            world.shop.to_string(): account(true, 1, 100_000_000, 2_000_000_000),
            world.press.to_string(): account(false, 1, 0, 0),
        },
        "channels": { world.channel_id().to_string(): channel },
        "payments": { paid.to_string(): payment },
        "taken": [],
    })
}

fn act_case(name: &str, facts: &Value, act: &SignedAct, expected: Option<Reject>) -> Value {
    let mut bytes = Vec::new();
    wire::encode_into(act, &mut bytes);
    case("act_rule", name, json!({ "facts": facts, "act": hex::encode(bytes), "value": act, "expected": expected }))
}

/// Facts with one of them replaced; the path names it.
fn but(facts: &Value, path: &str, to: &Value) -> Value {
    let mut facts = facts.clone();
    *facts.pointer_mut(path).expect(path) = to.clone();
    facts
}

fn acts(world: &World) -> Vec<Value> {
    let mut cases = accounts(world);
    cases.extend(openings(world));
    cases.extend(grants(world));
    cases.extend(amendments(world));
    cases.extend(refunds(world));
    shorten("a hub's facts", &act_facts(world), cases)
}

fn accounts(world: &World) -> Vec<Value> {
    let facts = act_facts(world);
    let register = |number, name: &str, iban: &str| {
        Act::Register(Register { number, account: world.payer, name: name.into(), iban: iban.into() })
            .sign(&world.hub, &world.account)
    };
    let iban = "DE89370400440532013000";
    let mut unsigned = register(4, "Ada", iban);
    unsigned.signature = Signature::ZERO;
    let good = register(4, "Ada", iban);
    let taken = but(&facts, "/taken", &json!([good.act.digest(&world.hub)]));
    let taken = but(&taken, &format!("/accounts/{}/number", world.payer), &json!(4));
    let stopped = but(&facts, "/stopped", &json!(true));
    let freeze = Freeze { account: world.shop, incoming: true, outgoing: true, reason: "mine".into() };
    let freeze = Act::Freeze(freeze).sign(&world.hub, &world.account);
    let withdraw = |account, key: &SecretKey, code: &str, marked| {
        let currency = code.parse::<Currency>().unwrap();
        Act::Withdraw(Withdraw { number: 9, account, currency, marked: nanos(marked) }).sign(&world.hub, key)
    };
    let frozen = but(&facts, &format!("/accounts/{}/frozen_outgoing", world.payer), &json!(true));
    let [shop, press, stranger] = [7, 8, 9].map(key);
    let nobody = AccountId(stranger.public());
    let all = 30_000_000_000;
    vec![
        act_case("a registration", &facts, &good, None),
        act_case("a first registration", &facts, &register_by(world, &stranger), None),
        act_case("a name too long", &facts, &register(4, &"n".repeat(71), iban), Some(Reject::Malformed)),
        act_case("no name", &stopped, &register(4, "", iban), Some(Reject::Malformed)),
        act_case(
            "a bank account number too long",
            &facts,
            &register(4, "Ada", &"X".repeat(35)),
            Some(Reject::Malformed),
        ),
        act_case("stopped", &stopped, &freeze, Some(Reject::Stopped)),
        act_case("an operator's act from outside", &facts, &of_an_operator(world), Some(Reject::Unsupported)),
        act_case("earnings that are kept", &facts, &earnings(world, "EUR"), None),
        act_case("earnings in a currency not served", &facts, &earnings(world, "CHF"), Some(Reject::Currency)),
        act_case("the hub's own act from outside", &facts, &freeze, Some(Reject::Unsupported)),
        act_case("a registration without a signature", &facts, &unsigned, Some(Reject::Unauthenticated)),
        act_case("the same registration again", &taken, &good, None),
        act_case("another with the same number", &taken, &register(4, "Ada P.", iban), Some(Reject::Stale)),
        act_case("a number not above the last", &facts, &register(3, "Ada", iban), Some(Reject::Stale)),
        act_case("a wrong checksum", &facts, &register(4, "Ada", "DE88370400440532013000"), Some(Reject::Iban)),
        act_case("a withdrawal of all", &facts, &withdraw(world.payer, &world.account, "EUR", all), None),
        act_case(
            "a withdrawal of more",
            &facts,
            &withdraw(world.payer, &world.account, "EUR", all + 1),
            Some(Reject::Insufficient),
        ),
        act_case(
            "a withdrawal in a currency not served",
            &facts,
            &withdraw(world.payer, &world.account, "USD", 1),
            Some(Reject::Currency),
        ),
        act_case(
            "a withdrawal by nobody",
            &facts,
            &withdraw(nobody, &stranger, "EUR", 1),
            Some(Reject::UnknownAccount),
        ),
        act_case(
            "a withdrawal by another",
            &facts,
            &withdraw(world.payer, &shop, "EUR", 1),
            Some(Reject::Unauthenticated),
        ),
        act_case(
            "a withdrawal before approval",
            &facts,
            &withdraw(world.press, &press, "EUR", 1),
            Some(Reject::NotApproved),
        ),
        act_case(
            "a withdrawal by a frozen account",
            &frozen,
            &withdraw(world.payer, &world.account, "EUR", all + 1),
            Some(Reject::Frozen),
        ),
    ]
}

fn of_an_operator(world: &World) -> SignedAct {
    let operator = key(0x21);
    let approval = Approval {
        number: 1,
        operator: operator.public(),
        window: 1,
        currency: Currency::EUR,
        plan: Hash::ZERO,
        file: Hash::ZERO,
    };
    Act::Approval(approval).sign(&world.hub, &operator)
}

fn earnings(world: &World, code: &str) -> SignedAct {
    let currency = code.parse::<Currency>().unwrap();
    let earnings = Earnings { number: 9, account: world.payer, currency, becomes: EarningsUse::Keep };
    Act::Earnings(earnings).sign(&world.hub, &world.account)
}

fn register_by(world: &World, key: &SecretKey) -> SignedAct {
    let account = AccountId(key.public());
    let register = Register { number: 1, account, name: "New".into(), iban: "DE89370400440532013000".into() };
    Act::Register(register).sign(&world.hub, key)
}

fn openings(world: &World) -> Vec<Value> {
    let facts = act_facts(world);
    let now = START + 5000;
    let base = ChannelTerms { opened_at: Time(now), salt: [0x42; 32], ..world.terms };
    let open = |terms: ChannelTerms| Act::Open(terms).sign(&world.hub, &world.account);
    let currency = "USD".parse::<Currency>().unwrap();
    let [early, late] = [now - OPENED_AT_TOLERANCE_MS, now + OPENED_AT_TOLERANCE_MS].map(Time);
    let all = nanos(30_000_000_000);
    let more = nanos(30_000_000_001);
    let nobody = AccountId(key(9).public());
    let unknown = Act::Open(ChannelTerms { account: nobody, ..base }).sign(&world.hub, &key(9));
    let unapproved = Act::Open(ChannelTerms { account: world.press, ..base }).sign(&world.hub, &key(8));
    let frozen = but(&facts, &format!("/accounts/{}/frozen_outgoing", world.payer), &json!(true));
    let elsewhere = open(ChannelTerms { hub: weir_protocol::id::HubId(key(9).public()), ..base });
    vec![
        act_case("an opening", &facts, &open(base), None),
        act_case("an opening at another hub", &facts, &elsewhere, Some(Reject::Malformed)),
        act_case(
            "a channel key off the curve",
            &facts,
            &open(ChannelTerms { key: PublicKey([0x55; 32]), ..base }),
            Some(Reject::Malformed),
        ),
        act_case(
            "an opening under another scheme",
            &facts,
            &open(ChannelTerms { scheme: 1, ..base }),
            Some(Reject::Unsupported),
        ),
        act_case("an opening by nobody", &facts, &unknown, Some(Reject::UnknownAccount)),
        act_case(
            "an opening signed by the channel key",
            &facts,
            &Act::Open(base).sign(&world.hub, &world.channel),
            Some(Reject::Unauthenticated),
        ),
        act_case("an opening before approval", &facts, &unapproved, Some(Reject::NotApproved)),
        act_case("an opening by a frozen account", &frozen, &open(base), Some(Reject::Frozen)),
        act_case(
            "an opening in a currency not served",
            &facts,
            &open(ChannelTerms { currency, ..base }),
            Some(Reject::Currency),
        ),
        act_case("opened ten minutes ago", &facts, &open(ChannelTerms { opened_at: early, ..base }), None),
        act_case(
            "opened longer ago",
            &facts,
            &open(ChannelTerms { opened_at: early.minus_ms(1), ..base }),
            Some(Reject::Clock),
        ),
        act_case("opened in ten minutes", &facts, &open(ChannelTerms { opened_at: late, ..base }), None),
        act_case(
            "opened later",
            &facts,
            &open(ChannelTerms { opened_at: late.plus_ms(1), ..base }),
            Some(Reject::Clock),
        ),
        act_case(
            "expired at once",
            &facts,
            &open(ChannelTerms { expires_at: Time(now), ..base }),
            Some(Reject::Expired),
        ),
        act_case(
            "an opening with nothing",
            &facts,
            &open(ChannelTerms { capacity: Amount::ZERO, ..base }),
            Some(Reject::Zero),
        ),
        act_case("an opening with all there is", &facts, &open(ChannelTerms { capacity: all, ..base }), None),
        act_case(
            "an opening with a nano more",
            &facts,
            &open(ChannelTerms { capacity: more, ..base }),
            Some(Reject::Insufficient),
        ),
    ]
}

fn grants(world: &World) -> Vec<Value> {
    let facts = act_facts(world);
    let base = LaneGrant { lane: 3, ..world.grants[1] };
    let grant = |grant: LaneGrant| Act::Grant(grant).sign(&world.hub, &world.channel);
    let channel = format!("/channels/{}", world.channel_id());
    let closed = but(&facts, &format!("{channel}/closed"), &json!(true));
    let full = but(&facts, &format!("{channel}/lanes"), &json!(MAX_LANES));
    let reserved = LaneGrant { mode: LaneMode::Reserved, period: 0, ..base };
    let revoke = |number, lane| {
        Act::Revoke(Revoke { number, channel: world.channel_id(), lane }).sign(&world.hub, &world.channel)
    };
    vec![
        act_case("a grant", &facts, &grant(base), None),
        act_case(
            "a direct lane",
            &facts,
            &grant(LaneGrant { mode: LaneMode::Direct, ..base }),
            Some(Reject::Unsupported),
        ),
        act_case(
            "a lane under another scheme",
            &facts,
            &grant(LaneGrant { scheme: 1, ..base }),
            Some(Reject::Unsupported),
        ),
        act_case(
            "a reserved lane with periods",
            &facts,
            &grant(LaneGrant { period: 60, ..reserved }),
            Some(Reject::Malformed),
        ),
        act_case(
            "a lane key off the curve",
            &facts,
            &grant(LaneGrant { key: PublicKey([0x55; 32]), ..base }),
            Some(Reject::Malformed),
        ),
        act_case(
            "zeros as the only payee",
            &facts,
            &grant(LaneGrant { payee: Some(AccountId::ZERO), ..base }),
            Some(Reject::Malformed),
        ),
        act_case(
            "a grant on no channel",
            &facts,
            &grant(LaneGrant { channel: NO_CHANNEL, ..base }),
            Some(Reject::UnknownChannel),
        ),
        act_case(
            "a grant signed by the account key",
            &facts,
            &Act::Grant(base).sign(&world.hub, &world.account),
            Some(Reject::Unauthenticated),
        ),
        act_case("a grant on a closed channel", &closed, &grant(LaneGrant { lane: 9, ..base }), Some(Reject::Closed)),
        act_case("a lane too many", &full, &grant(LaneGrant { lane: MAX_LANES, ..base }), Some(Reject::LanesFull)),
        act_case("a number that skips", &facts, &grant(LaneGrant { lane: 4, ..base }), Some(Reject::LaneNumber)),
        act_case("a number again", &facts, &grant(LaneGrant { lane: 2, ..base }), Some(Reject::LaneNumber)),
        act_case(
            "a lane expired at once",
            &facts,
            &grant(LaneGrant { expires_at: Time(START), ..base }),
            Some(Reject::Expired),
        ),
        act_case("all the room reserved", &facts, &grant(LaneGrant { limit: nanos(11_000_000_000), ..reserved }), None),
        act_case(
            "more than the room reserved",
            &facts,
            &grant(LaneGrant { limit: nanos(11_000_000_001), ..reserved }),
            Some(Reject::Capacity),
        ),
        act_case("a revocation", &facts, &revoke(8, 1), None),
        act_case("a revocation of no lane", &facts, &revoke(8, 3), Some(Reject::UnknownLane)),
        act_case("a revocation with an old number", &facts, &revoke(7, 1), Some(Reject::Stale)),
        act_case("a revocation of a revoked lane", &facts, &revoke(8, 2), Some(Reject::Revoked)),
    ]
}

fn amendments(world: &World) -> Vec<Value> {
    let facts = act_facts(world);
    let base = Amend {
        number: 4,
        channel: world.channel_id(),
        capacity: world.terms.capacity,
        expires_at: world.terms.expires_at,
        renew: false,
    };
    let amend = |amend: Amend| Act::Amend(amend).sign(&world.hub, &world.account);
    let closed = but(&facts, &format!("/channels/{}/closed", world.channel_id()), &json!(true));
    let all = Amend { capacity: nanos(50_000_000_000), ..base };
    let more = Amend { capacity: nanos(50_000_000_001), ..base };
    let less = Amend { capacity: nanos(19_999_999_999), ..base };
    let earlier = Amend { expires_at: base.expires_at.minus_ms(1), ..base };
    let close = &world.close_request;
    let by_account = close.act.clone().sign(&world.hub, &world.account);
    let by_shop = close.act.clone().sign(&world.hub, &key(7));
    vec![
        act_case("an amendment", &facts, &amend(base), None),
        act_case(
            "an amendment by the channel key",
            &facts,
            &Act::Amend(base).sign(&world.hub, &world.channel),
            Some(Reject::Unauthenticated),
        ),
        act_case(
            "an amendment of no channel",
            &facts,
            &amend(Amend { channel: NO_CHANNEL, ..base }),
            Some(Reject::UnknownChannel),
        ),
        act_case("an amendment with an old number", &closed, &amend(Amend { number: 3, ..base }), Some(Reject::Stale)),
        act_case("an amendment of a closed channel", &closed, &amend(less), Some(Reject::Closed)),
        act_case("a lower capacity", &facts, &amend(less), Some(Reject::Lower)),
        act_case("an earlier expiry", &facts, &amend(earlier), Some(Reject::Lower)),
        act_case("a top-up with all there is", &facts, &amend(all), None),
        act_case("a top-up with a nano more", &facts, &amend(more), Some(Reject::Insufficient)),
        act_case("a close by the channel key", &facts, close, None),
        act_case("a close by the account key", &facts, &by_account, None),
        act_case("a close by another", &facts, &by_shop, Some(Reject::Unauthenticated)),
        act_case("a close of a closed channel", &closed, close, Some(Reject::Closed)),
    ]
}

fn refunds(world: &World) -> Vec<Value> {
    let facts = act_facts(world);
    let paid = payment_id(&world.groups[0].lane, 3);
    let base =
        Refund { chain: START, commit: 3, group: 0, leaf: 2, payment_id: paid, refunded_total: nanos(500_000_000) };
    let refund = |refund: Refund| Act::Refund(refund).sign(&world.hub, &key(7));
    let total = |nanos_total| refund(Refund { refunded_total: nanos(nanos_total), ..base });
    let over = START + 3000 + 90 * DAY;
    let [last, over] = [over - 1, over].map(|time| but(&facts, "/time", &value(&Time(time))));
    let poor = but(&facts, &format!("/accounts/{}/earned/EUR", world.shop), &json!("0"));
    let unknown = refund(Refund { payment_id: weir_protocol::id::PaymentId([1; 32]), ..base });
    vec![
        act_case("a refund", &facts, &refund(base), None),
        act_case("a refund of nothing known", &facts, &unknown, Some(Reject::UnknownPayment)),
        act_case(
            "a refund by another",
            &facts,
            &Act::Refund(base).sign(&world.hub, &key(8)),
            Some(Reject::Unauthenticated),
        ),
        act_case("a refund of all", &facts, &total(2_500_000_000), None),
        act_case("a refund of more", &facts, &total(2_500_000_001), Some(Reject::RefundAmount)),
        act_case("a refund of less than before", &facts, &total(399_999_999), Some(Reject::RefundAmount)),
        act_case("a refund on the last day", &last, &refund(base), None),
        act_case("a refund too late", &over, &refund(base), Some(Reject::RefundClosed)),
        act_case("a refund of what the payee has", &poor, &total(500_000_000), None),
        act_case("a refund of more than the payee has", &poor, &total(500_000_001), Some(Reject::Insufficient)),
    ]
}
