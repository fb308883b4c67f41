//! Acts, proofs and reads.

use weir_hub::clock::wall_ms;
use weir_protocol::act::{
    Act, Amend, Approve, CloseRequest, Cutoff, Deposit, Freeze, Refund, Register, Revoke, Settled, Void, Withdraw,
};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::{ChannelTerms, LaneGrant, LaneMode};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId, HubId, LaneId, PaymentId};
use weir_protocol::keys::PublicKey;
use weir_protocol::payment::payment_id;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{Cursor, KeyScope, Reply, Request};
use weir_tests::harness::bank::PERSON_IBAN;
use weir_tests::harness::people::euro;

use super::spending_key;
use super::{FROZEN, PAYEE, PAYER_SEED, POOR, STRANGER, World, account, expect, grant, key, lane_scope, nanos, pay};

const DAY_MS: u64 = 86_400_000;

fn register(number: u64, seed: u8, name: &str, iban: &str) -> Act {
    Act::Register(Register { number, account: account(seed), name: name.into(), iban: iban.into() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn act_that_is_wrong_in_any_way_gets_its_refusal() {
    let mut world = World::new(&[]).await;
    let (mut raw, terms) = world.cast().await;
    let channel = terms.id();
    let (me, mine) = (key(PAYER_SEED), spending_key(PAYER_SEED));
    let (strange, poor, payees) = (key(STRANGER), key(POOR), key(PAYEE));
    let usd: Currency = "USD".parse().unwrap();
    let now = Time(wall_ms());

    // Another key's payment, for refunds.
    raw.prove(lane_scope(terms.lane_zero().id()), &mine).await.unwrap();
    let mut spender = raw.attach(terms.lane_zero().id(), spending_key(PAYER_SEED)).await;
    spender.pay(&[pay(PAYEE, euro(1))]).await;
    let mut payee = world.connect().await;
    payee.prove(KeyScope::Account(account(PAYEE)), &key(PAYEE)).await.unwrap();
    let statement = payee.ask(Request::Statement { account: account(PAYEE), after: Cursor::default(), skip: 0 }).await;
    let Ok(Reply::Statement { entries, .. }) = statement else { panic!("{statement:?}") };
    let (at, group, leaf) = entries
        .iter()
        .find_map(|entry| match &entry.what {
            weir_protocol::wire::StatementItem::Earned { group, leaf, .. } => Some((entry.at, *group, *leaf)),
            _ => None,
        })
        .unwrap();
    let place = Refund {
        chain: at.chain,
        commit: at.number,
        group,
        leaf,
        payment_id: payment_id(&spender.lane, 1),
        refunded_total: nanos(5),
    };

    let terms = |change: fn(&mut ChannelTerms)| {
        let mut terms = ChannelTerms { salt: [99; 32], ..terms };
        change(&mut terms);
        Act::Open(terms)
    };
    let lane = |change: fn(&mut LaneGrant)| {
        let mut grant = grant(channel, 1, LaneMode::Shared, euro(1));
        change(&mut grant);
        Act::Grant(grant)
    };
    let amend =
        |number, capacity, expires_at| Act::Amend(Amend { number, channel, capacity, expires_at, renew: false });
    let revoke = |number, channel, lane| Act::Revoke(Revoke { number, channel, lane });
    let withdraw =
        |number, currency, marked| Act::Withdraw(Withdraw { number, account: account(PAYER_SEED), currency, marked });
    let long = "x".repeat(71);
    let long_iban = "D".repeat(35);
    let far = now.plus_ms(40 * DAY_MS);
    let rows: Vec<(&str, Act, &weir_protocol::keys::SecretKey, Reject)> = vec![
        ("a name without letters", register(2, PAYER_SEED, "", PERSON_IBAN), &me, Reject::Malformed),
        ("a name too long", register(2, PAYER_SEED, &long, PERSON_IBAN), &me, Reject::Malformed),
        ("an account number too long", register(2, PAYER_SEED, "Name", &long_iban), &me, Reject::Malformed),
        ("number zero", register(0, PAYER_SEED, "Name", PERSON_IBAN), &me, Reject::Stale),
        ("a wrong check digit", register(2, PAYER_SEED, "Name", "DE02120300000000202052"), &me, Reject::Iban),
        ("another's key", register(2, PAYER_SEED, "Name", PERSON_IBAN), &mine, Reject::Unauthenticated),
        ("a number taken before", register(1, PAYER_SEED, "Another", PERSON_IBAN), &me, Reject::Stale),
        ("another hub", terms(|terms| terms.hub = HubId(terms.key)), &me, Reject::Malformed),
        ("an unknown scheme", terms(|terms| terms.scheme = 1), &me, Reject::Unsupported),
        ("a key that is none", terms(|terms| terms.key = PublicKey([0xff; 32])), &me, Reject::Malformed),
        ("an account that is none", terms(|terms| terms.account = account(STRANGER)), &strange, Reject::UnknownAccount),
        ("another's account", terms(|terms| terms.account = account(POOR)), &me, Reject::Unauthenticated),
        ("by the channel's key", terms(|_| ()), &mine, Reject::Unauthenticated),
        ("a currency not served", terms(|terms| terms.currency = "USD".parse().unwrap()), &me, Reject::Currency),
        ("nothing in it", terms(|terms| terms.capacity = Amount::ZERO), &me, Reject::Zero),
        ("too old", terms(|terms| terms.opened_at = Time(terms.opened_at.0 - 700_000)), &me, Reject::Clock),
        ("from the future", terms(|terms| terms.opened_at = terms.opened_at.plus_ms(700_000)), &me, Reject::Clock),
        ("expired", terms(|terms| terms.expires_at = terms.opened_at), &me, Reject::Expired),
        ("above the balance", terms(|terms| terms.capacity = euro(91)), &me, Reject::Insufficient),
        ("as much as can be written", terms(|terms| terms.capacity = Amount::MAX), &me, Reject::Insufficient),
        ("no such channel", lane(|grant| grant.channel = ChannelId([8; 32])), &mine, Reject::UnknownChannel),
        ("by the account's key", lane(|_| ()), &me, Reject::Unauthenticated),
        ("a direct lane", lane(|grant| grant.mode = LaneMode::Direct), &mine, Reject::Unsupported),
        ("a lane's unknown scheme", lane(|grant| grant.scheme = 7), &mine, Reject::Unsupported),
        ("a lane's key that is none", lane(|grant| grant.key = PublicKey([0; 32])), &mine, Reject::Malformed),
        ("zeros as payee", lane(|grant| grant.payee = Some(AccountId::ZERO)), &mine, Reject::Malformed),
        (
            "a reserved lane with a period",
            lane(|grant| (grant.mode, grant.period) = (LaneMode::Reserved, 1)),
            &mine,
            Reject::Malformed,
        ),
        ("a gap in the numbers", lane(|grant| grant.lane = 2), &mine, Reject::LaneNumber),
        ("lane 0", lane(|grant| grant.lane = 0), &mine, Reject::LaneNumber),
        ("one lane too many", lane(|grant| grant.lane = 1_024), &mine, Reject::LanesFull),
        ("a lane that has expired", lane(|grant| grant.expires_at = Time(1)), &mine, Reject::Expired),
        (
            "nothing set aside",
            lane(|grant| (grant.mode, grant.limit) = (LaneMode::Reserved, Amount::ZERO)),
            &mine,
            Reject::Zero,
        ),
        (
            "more set aside than there is",
            lane(|grant| (grant.mode, grant.limit) = (LaneMode::Reserved, euro(10))),
            &mine,
            Reject::Capacity,
        ),
        ("a channel that is none", revoke(1, ChannelId([8; 32]), 0), &mine, Reject::UnknownChannel),
        ("a lane that is none", revoke(1, channel, 5), &mine, Reject::UnknownLane),
        ("revoked by a stranger", revoke(1, channel, 0), &strange, Reject::Unauthenticated),
        ("less capacity", amend(2, euro(9), far), &me, Reject::Lower),
        ("a nearer expiry", amend(2, euro(10), now), &me, Reject::Lower),
        ("amended above the balance", amend(2, euro(101), far), &me, Reject::Insufficient),
        ("amended as much as can be written", amend(2, Amount::MAX, far), &me, Reject::Insufficient),
        ("amended by the channel's key", amend(2, euro(11), far), &mine, Reject::Unauthenticated),
        ("an amendment that is late", amend(1, euro(11), far), &me, Reject::Stale),
        (
            "closing a channel that is none",
            Act::CloseRequest(CloseRequest { number: 2, channel: ChannelId([8; 32]) }),
            &me,
            Reject::UnknownChannel,
        ),
        (
            "closing another's channel",
            Act::CloseRequest(CloseRequest { number: 2, channel }),
            &poor,
            Reject::Unauthenticated,
        ),
        ("refund by the payer", Act::Refund(place), &me, Reject::Unauthenticated),
        (
            "refund of another id",
            Act::Refund(Refund { payment_id: PaymentId([3; 32]), ..place }),
            &payees,
            Reject::UnknownPayment,
        ),
        (
            "refund at a place that is none",
            Act::Refund(Refund { leaf: leaf + 1, ..place }),
            &payees,
            Reject::UnknownPayment,
        ),
        (
            "refund in a commit that is none",
            Act::Refund(Refund { commit: u64::MAX, ..place }),
            &payees,
            Reject::UnknownPayment,
        ),
        (
            "refund of more than was paid",
            Act::Refund(Refund { refunded_total: euro(1).checked_add(nanos(1)).unwrap(), ..place }),
            &payees,
            Reject::RefundAmount,
        ),
        ("a currency without an account", withdraw(2, usd, nanos(1)), &me, Reject::Currency),
        ("more than is there", withdraw(2, Currency::EUR, euro(91)), &me, Reject::Insufficient),
        ("withdrawn by the channel's key", withdraw(2, Currency::EUR, nanos(1)), &mine, Reject::Unauthenticated),
    ];
    let mut wrong = Vec::new();
    for (row, act, by, expected) in rows {
        let said = raw.sign(act, by).await;
        if said.as_ref().err() != Some(&expected) {
            wrong.push(format!("{row}: {said:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.honest_traffic_goes_on();

    // What only the hub may do, signed by somebody: none of it is heard.
    let theirs = [
        Act::Approve(Approve { account: account(POOR) }),
        Act::Freeze(Freeze { account: account(PAYEE), incoming: true, outgoing: true, reason: "x".into() }),
        Act::Deposit(Deposit {
            account: Some(account(POOR)),
            currency: Currency::EUR,
            amount: euro(1_000),
            connector: "bank".into(),
            bank_reference: "1".into(),
        }),
        Act::Void(Void { lane: LaneId([1; 32]), head: Hash([0; 32]), sequence: 1, total: nanos(1), void_through: 9 }),
        Act::Cutoff(Cutoff { window: 1 }),
        Act::Settled(Settled { window: 1 }),
    ];
    for act in theirs {
        expect("the hub's own act", raw.sign(act, &me).await, Reject::Unsupported);
    }

    // Replays: the same act again is the same answer; an older one is stale; a refund again moves nothing.
    let first = raw.sign(Act::Refund(place), &key(PAYEE)).await.unwrap();
    assert_eq!(raw.sign(Act::Refund(place), &key(PAYEE)).await.unwrap(), first);
    let less = Refund { refunded_total: nanos(4), ..place };
    expect("refunding less", raw.sign(Act::Refund(less), &key(PAYEE)).await, Reject::RefundAmount);
    let amended = raw.sign(amend(2, euro(11), far), &me).await.unwrap();
    assert_eq!(raw.sign(amend(2, euro(11), far), &me).await.unwrap(), amended);
    expect("the same number for another act", raw.sign(amend(2, euro(12), far), &me).await, Reject::Stale);
    raw.sign(withdraw(3, Currency::EUR, nanos(7)), &me).await.unwrap();
    expect("an act that was overtaken", raw.sign(amend(2, euro(11), far), &me).await, Reject::Stale);
    let opened = raw.sign(terms(|_| ()), &me).await.unwrap();
    assert_eq!(raw.sign(terms(|_| ()), &me).await.unwrap(), opened, "one channel, not two");
    raw.sign(lane(|_| ()), &mine).await.unwrap();
    raw.sign(revoke(1, channel, 1), &mine).await.unwrap();
    expect("revoked twice", raw.sign(revoke(2, channel, 1), &mine).await, Reject::Revoked);
    world.honest_traffic_goes_on();

    // Reads and proofs: what is another's is not told, and not whether it exists.
    let mut other = world.connect().await;
    other.prove(KeyScope::Account(account(FROZEN)), &key(FROZEN)).await.unwrap();
    let (payer, lane_zero) = (account(PAYER_SEED), spender.lane);
    let reads = [
        Request::Account(payer),
        Request::DepositInstructions { account: payer, currency: Currency::EUR },
        Request::Channels { account: payer, after: None },
        Request::Channel(channel),
        Request::Channel(ChannelId([8; 32])),
        Request::Lanes { channel, from: 0 },
        Request::History { lane: lane_zero, since: 0 },
        Request::History { lane: LaneId([8; 32]), since: 0 },
        Request::Statement { account: payer, after: Cursor::default(), skip: 0 },
        Request::Statement { account: account(STRANGER), after: Cursor::default(), skip: 0 },
    ];
    for read in reads {
        let row = format!("{read:?}");
        expect(&row, other.ask(read).await, Reject::Unauthenticated);
    }
    let scopes = [
        KeyScope::Account(payer),
        KeyScope::Channel(channel),
        KeyScope::Lane(lane_zero),
        KeyScope::Account(account(STRANGER)),
        KeyScope::Lane(LaneId([8; 32])),
    ];
    for scope in scopes {
        expect("a proof with another's key", other.prove(scope, &key(FROZEN)).await, Reject::Unauthenticated);
    }
    // A proof that was made for another connection.
    other.nonce = raw.nonce;
    let replayed = other.prove(KeyScope::Account(payer), &me).await;
    expect("a proof of another connection", replayed, Reject::Unauthenticated);
    assert!(other.ask(Request::Hub).await.is_ok(), "the connection lives");

    // Closed, and everything after it.
    drop(spender);
    raw.sign(Act::CloseRequest(CloseRequest { number: 4, channel }), &me).await.unwrap();
    let after: Vec<(&str, Act, _)> = vec![
        ("a lane", lane(|grant| grant.lane = 2), &mine),
        ("a revocation", revoke(3, channel, 0), &mine),
        ("an amendment", amend(5, euro(12), far), &me),
    ];
    for (row, act, by) in after {
        expect(row, raw.sign(act, by).await, Reject::Closed);
    }
    world.end();
}
