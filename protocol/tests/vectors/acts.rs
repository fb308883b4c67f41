//! Every kind of act.

use serde_json::{Value, json};
use weir_protocol::act::{
    Abort, Act, Allocate, Amend, Approval, ApproveCollect, ApproveIban, Author, Close, CloseCause, Collect, Collected,
    CollectionWord, Debit, DebitCause, Deposit, Earnings, EarningsUse, FeeSchedule, Fees, ForceFinal, Freeze, Instruct,
    Limits, Mandate, MandateScheme, MandateTerms, Operator, Outcome, PayoutOutcome, Plan, Policy, Refund, Register,
    Revoke, Roll, Settled, Statement, Withdraw, payout_leaf,
};
use weir_protocol::amount::{Currency, Time};
use weir_protocol::commit::{Blind, act_item};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::keys::SecretKey;
use weir_protocol::merkle;
use weir_protocol::payment::payment_id;
use weir_protocol::wire;

use super::layout;
use super::world::{DAY, START, World, case, key, nanos, value};

/// Every kind of act at least once, in the order of their numbers.
pub(crate) fn all(world: &World) -> Vec<(&'static str, Act)> {
    let mut acts: Vec<(&str, Act)> = [
        ("the first chain", 1, 0),
        ("a certificate", 1, 1),
        ("a policy", 1, 2),
        ("a registration", 2, 0),
        ("a registration with a name beyond ASCII", 2, 3),
        ("an approval", 2, 1),
        ("a deposit", 2, 2),
        ("a deposit to suspense", 3, 3),
        ("an opening", 2, 4),
        ("a grant", 2, 5),
        ("a reserved grant to one payee", 2, 6),
        ("a void", 3, 1),
        ("a request to close", 4, 0),
        ("a close by request", 4, 1),
        ("a cut-off", 5, 0),
    ]
    .map(|(name, number, index)| (name, world.commit(number).act(index).0))
    .into();
    acts.extend(further(world));
    acts.sort_by_key(|(_, act)| act.kind());
    let kinds: std::collections::BTreeSet<_> = acts.iter().map(|(_, act)| act.kind()).collect();
    assert_eq!(kinds.len(), 38, "every kind has a case");
    acts
}

fn further(world: &World) -> Vec<(&'static str, Act)> {
    let channel = world.channel_id();
    let chain = weir_protocol::act::Chain {
        previous_chain: START,
        kept_number: 7,
        kept_id: world.commit(7).signed.commit.id(),
        cut: 8,
    };
    let policy = Policy { currencies: vec![], open_registration: true, ..world.policy.clone() };
    let three = ["CHF", "EUR", "SEK"].map(|code| code.parse::<Currency>().unwrap());
    let limits = Limits {
        account: None,
        payment_max: nanos(0),
        balance_max: nanos(500_000_000_000),
        day_max: nanos(20_000_000_000),
        iban_wait_s: 259_200,
    };
    let freeze = |incoming, outgoing, reason: &str| {
        Act::Freeze(Freeze { account: world.press, incoming, outgoing, reason: reason.into() })
    };
    let close = |cause| Act::Close(Close { cause, request: Hash::ZERO, ..world.close() });
    let payouts = [(world.shop, 3_540_000_000), (world.press, 240_000_000)];
    let leaves = payouts.map(|(account, amount)| payout_leaf(1, &account, Currency::EUR, nanos(amount)));
    let plan = Plan {
        number: 1,
        operator: Some(key(OPERATORS[0]).public()),
        window: 1,
        currency: Currency::EUR,
        payouts: 2,
        total: nanos(3_780_000_000),
        root: merkle::root(&leaves),
        file: sha256(b"<Document/>"),
    };
    let outcome = |outcome, reference: &str| {
        Act::Outcome(Outcome {
            window: 1,
            account: world.shop,
            currency: Currency::EUR,
            amount: nanos(3_540_000_000),
            outcome,
            reference: reference.into(),
        })
    };
    let debit = |cause, reference: &str| {
        Act::Debit(Debit {
            cause,
            currency: Currency::EUR,
            amount: nanos(350_000_000),
            connector: "DE89370400440532013000".into(),
            bank_reference: reference.into(),
        })
    };
    let allocate = |account, incoming| {
        Act::Allocate(Allocate {
            account,
            incoming,
            currency: Currency::EUR,
            amount: nanos(10_000_000_000),
            connector: "DE89370400440532013000".into(),
            bank_reference: "B-79".into(),
        })
    };
    let statement = |sequence, overdrawn| {
        Act::Statement(Statement {
            currency: Currency::EUR,
            connector: "DE89370400440532013000".into(),
            statement: "STMT-17".into(),
            sequence,
            opening_overdrawn: false,
            opening: nanos(20_000_000_000),
            closing_overdrawn: overdrawn,
            closing: nanos(16_460_000_000),
            closed_at: Time(START + DAY),
            entries: 3,
            file: sha256(b"<Document/>"),
        })
    };
    let amend =
        Amend { number: 4, channel, capacity: nanos(30_000_000_000), expires_at: Time(START + 60 * DAY), renew: false };
    let roll = Roll {
        channel,
        roll: 1,
        root: merkle::root(&world.heads()),
        spent: world.close().spent,
        capacity: world.terms.capacity,
        expires_at: Time(START + 60 * DAY),
    };
    let refund = Refund {
        chain: START,
        commit: 3,
        group: 0,
        leaf: 2,
        payment_id: payment_id(&world.groups[0].lane, 3),
        refunded_total: nanos(500_000_000),
    };
    let withdraw = Withdraw { number: 5, account: world.payer, currency: Currency::EUR, marked: nanos(10_000_000_000) };
    let deposit = Deposit {
        account: Some(world.payer),
        currency: Currency::EUR,
        amount: nanos(u64::MAX),
        connector: String::new(),
        bank_reference: "x".repeat(140),
    };
    let register = Register { number: u64::MAX, account: world.payer, name: "n".repeat(70), iban: "X".repeat(34) };
    vec![
        ("a later chain that gave a commit up", Act::Chain(chain)),
        ("a policy without currencies", Act::Policy(policy.clone())),
        ("a policy with three currencies", Act::Policy(Policy { currencies: three.into(), ..policy })),
        ("a registration as long as it may be", Act::Register(register)),
        ("a deposit with texts of both extremes", Act::Deposit(deposit)),
        ("a freeze", freeze(true, false, "court order 12/34")),
        ("a release", freeze(false, false, "")),
        ("a revocation", Act::Revoke(Revoke { number: 8, channel, lane: 1 })),
        ("an amendment", Act::Amend(amend)),
        ("a close by expiry", close(CloseCause::Expiry)),
        ("a close by the operator", close(CloseCause::Operator)),
        ("a roll", Act::Roll(roll)),
        ("a refund", Act::Refund(refund)),
        ("a withdrawal", Act::Withdraw(withdraw)),
        ("a plan", Act::Plan(plan.clone())),
        (
            "an instruction",
            Act::Instruct(Instruct {
                window: 1,
                currency: Currency::EUR,
                plan: Act::Plan(plan.clone()).digest(&world.hub),
            }),
        ),
        ("an outcome: settled", outcome(PayoutOutcome::Settled, "B-77")),
        ("an outcome: returned", outcome(PayoutOutcome::Returned, "AC04")),
        ("an outcome: refused", outcome(PayoutOutcome::Refused, "AC04")),
        ("an outcome: confirmed", outcome(PayoutOutcome::Confirmed, "MSG-1")),
        ("a window settled", Act::Settled(Settled { window: 1 })),
        ("a charge of the bank", debit(DebitCause::Charge, "B-78")),
        ("a debit that nobody knows", debit(DebitCause::Unknown, &"y".repeat(140))),
        ("an allocation", allocate(Some(world.payer), true)),
        ("an allocation to the hub", allocate(None, false)),
        ("a statement", statement(17, false)),
        ("a statement of an overdrawn account without a number", statement(0, true)),
        ("limits of everybody", Act::Limits(limits)),
        (
            "limits of an account",
            Act::Limits(Limits { account: Some(world.shop), payment_max: nanos(u64::MAX), iban_wait_s: 0, ..limits }),
        ),
    ]
    .into_iter()
    .chain(of_operators(world, &plan))
    .chain(of_collections(world))
    .collect()
}

/// Mandates, and what is collected under them.
fn of_collections(world: &World) -> Vec<(&'static str, Act)> {
    let account = world.payer;
    let mandate = |scheme, mandate_id: &str, revoked| {
        let (mandate_id, iban) = (mandate_id.to_owned(), "DE89370400440532013000".to_owned());
        Act::Mandate(Mandate { number: 9, account, scheme, mandate_id, iban, signed_at: Time(START), revoked })
    };
    let terms = |accepted, at_once, provisional_days| {
        let mandate_id = "W-1".to_owned();
        Act::MandateTerms(MandateTerms { account, mandate_id, accepted, at_once, provisional_days })
    };
    let collect = Collect {
        collection: 1,
        account,
        mandate_id: "W-1".into(),
        currency: Currency::EUR,
        amount: nanos(50_000_000_000),
        created_at: Time(START),
        due: Time(START + 14 * DAY),
        first: true,
        file: sha256(b"a direct debit"),
    };
    let collected = |word, reference: &str| {
        let (currency, amount) = (Currency::EUR, nanos(50_000_000_000));
        Act::Collected(Collected { collection: 1, account, currency, amount, word, reference: reference.into() })
    };
    let operator = SecretKey::from_bytes(&[OPERATORS[1]; 32]).unwrap().public();
    let approve =
        |number, approved| Act::ApproveCollect(ApproveCollect { number, operator, approved, collect: collect.clone() });
    vec![
        ("a collection that an operator agrees to", approve(12, true)),
        ("a collection that an operator gives up", approve(13, false)),
        ("a mandate", mandate(MandateScheme::Core, "W-1", false)),
        ("a mandate between companies", mandate(MandateScheme::B2b, &"M".repeat(35), false)),
        ("a mandate that ends", mandate(MandateScheme::Core, "W-1", true)),
        ("a mandate accepted", terms(true, nanos(20_000_000_000), 56)),
        ("a mandate ended by the operator", terms(false, nanos(0), 0)),
        ("a collection", Act::Collect(collect.clone())),
        ("a later collection", Act::Collect(Collect { collection: u64::MAX, first: false, ..collect.clone() })),
        ("a collection booked", collected(CollectionWord::Booked, "B-90")),
        ("a collection returned", collected(CollectionWord::Returned, "MD06 B-91")),
        ("a collection refused", collected(CollectionWord::Refused, "AC04")),
    ]
}

/// What operators say, and what an account wants of its earnings.
fn of_operators(world: &World, plan: &Plan) -> Vec<(&'static str, Act)> {
    let [first, second] = OPERATORS.map(|fill| key(fill).public());
    let digest = Act::Plan(plan.clone()).digest(&world.hub);
    let schedule = FeeSchedule { basis_points: 10_000, per_payment: nanos(7), minimum: nanos(u64::MAX) };
    let abort = |number, operator, reason: &str| {
        Act::Abort(Abort { number, operator, window: 1, currency: Currency::EUR, plan: digest, reason: reason.into() })
    };
    let earnings =
        |becomes| Act::Earnings(Earnings { number: 6, account: world.shop, currency: Currency::EUR, becomes });
    let operator =
        |number, by, key, stands, name: &str| Act::Operator(Operator { number, by, key, stands, name: name.into() });
    vec![
        ("a plan of the hub itself", Act::Plan(Plan { number: 0, operator: None, ..plan.clone() })),
        ("an operator, by the hub itself", operator(0, None, first, true, "Ada")),
        ("an operator, named by another", operator(4, Some(first), second, true, &"n".repeat(70))),
        ("an operator ends", operator(5, Some(first), second, false, "")),
        (
            "an approval",
            Act::Approval(Approval {
                number: 1,
                operator: second,
                window: 1,
                currency: Currency::EUR,
                plan: digest,
                file: plan.file,
            }),
        ),
        ("a plan given up", abort(2, Some(first), "an account was named wrongly")),
        ("a plan given up by the hub itself", abort(0, None, "")),
        (
            "fees of an account",
            Act::Fees(Fees { number: 3, operator: Some(second), account: world.shop, own: true, schedule }),
        ),
        (
            "fees of the policy again",
            Act::Fees(Fees {
                number: 0,
                operator: None,
                account: world.shop,
                own: false,
                schedule: FeeSchedule { basis_points: 0, per_payment: nanos(0), minimum: nanos(0) },
            }),
        ),
        (
            "a last payout to one account",
            Act::ForceFinal(ForceFinal { number: 9, operator: Some(first), window: 1, account: Some(world.shop) }),
        ),
        (
            "a last payout to everybody",
            Act::ForceFinal(ForceFinal { number: 0, operator: None, window: u64::MAX, account: None }),
        ),
        ("earnings that are paid out", earnings(EarningsUse::PayOut)),
        ("earnings that are netted", earnings(EarningsUse::Net)),
        ("earnings that are kept", earnings(EarningsUse::Keep)),
        (
            "a changed bank account that an operator agrees to",
            Act::ApproveIban(ApproveIban {
                number: 11,
                operator: second,
                account: world.shop,
                iban: "DE02100500000054540402".to_owned(),
            }),
        ),
    ]
}

/// What the operators' keys are made of.
const OPERATORS: [u8; 2] = [0x21, 0x22];

/// The key that signs an act of the story; none for the hub's own.
pub(crate) fn signer(world: &World, act: &Act) -> Option<SecretKey> {
    let fill = match act.author() {
        Author::Hub => return None,
        Author::Identity => 1,
        Author::Account(account) => [3, 7, 8].into_iter().find(|fill| key(*fill).public() == account.key()).unwrap(),
        Author::ChannelOwner(channel) => {
            assert_eq!(channel, world.channel_id());
            3
        }
        Author::Channel(_) | Author::ChannelOrOwner(_) => 4,
        Author::Payee(_) => 7,
        Author::Operator(operator) => OPERATORS.into_iter().find(|fill| key(*fill).public() == operator).unwrap(),
    };
    Some(key(fill))
}

const fn author_word(author: &Author) -> &'static str {
    match author {
        Author::Hub => "hub",
        Author::Identity => "identity",
        Author::Account(_) => "account",
        Author::ChannelOwner(_) => "owner",
        Author::Channel(_) => "channel",
        Author::ChannelOrOwner(_) => "channel or owner",
        Author::Payee(_) => "payee",
        Author::Operator(_) => "operator",
    }
}

pub(crate) fn cases(world: &World) -> Vec<Value> {
    let mut cases = Vec::new();
    for (index, (name, act)) in (0..).zip(all(world)) {
        let json = value(&act);
        let (word, fields) = json.as_object().and_then(|object| object.iter().next()).unwrap();
        let tag = act.tag().name();
        let preimage = layout::act(tag, &world.hub, fields);
        let digest = act.digest(&world.hub);
        assert_eq!(layout::hash(tag, &preimage), digest, "{name}");
        assert!(act.within_limits(), "{name}");
        let blind = Blind::derive(&[0x5e; 32], START, 99, index);
        let signer = signer(world, &act);
        let mut encoded = Vec::new();
        wire::encode_into(&act, &mut encoded);
        cases.push(case(
            "act",
            name,
            json!({
                "act": json,
                "word": word,
                "number": act.kind(),
                "tag": tag,
                "author": author_word(&act.author()),
                "hub": world.hub,
                "preimage": hex::encode(preimage),
                "digest": digest,
                "encoded": hex::encode(encoded),
                "blind": blind,
                "item": act_item(&blind, act.kind(), &digest),
                "signer": signer.as_ref().map(SecretKey::public),
                "signature": signer.as_ref().map(|key| key.sign(&digest)),
            }),
        ));
    }
    cases
}
