//! Random payments and requests against a simple model: what is drawn is what the model says, and never more than was paid.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const PRICES: [u64; 3] = [30, 50, 70];

#[derive(Debug, Clone)]
enum Op {
    /// Asks for a resource and pays its price and this much more.
    Pay { resource: usize, more: u64 },
    /// Shows one of the payments for a resource, perhaps with a key, and is served to the end or not.
    Ask { payment: usize, resource: usize, key: Option<u8>, ends: bool },
    /// Time goes by.
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let more = prop_oneof![Just(0_u64), 1..200_u64];
    prop_oneof![
        2 => (0..3_usize, more).prop_map(|(resource, more)| Op::Pay { resource, more }),
        8 => (0..6_usize, 0..3_usize, proptest::option::of(0..3_u8), proptest::bool::weighted(0.8))
            .prop_map(|(payment, resource, key, ends)| Op::Ask { payment, resource, key, ends }),
        1 => (1..GRACE_MS).prop_map(Op::Wait),
    ]
}

/// A payment, told in the simplest way.
struct Simple {
    credential: Credential,
    paid: u64,
    drawn: u64,
    /// What it opens, if it is used once.
    single: Option<usize>,
    /// Requests that were served, and until when they are again.
    served: BTreeMap<(usize, Option<u8>), u64>,
}

async fn run(ops: &[Op]) {
    let shop = Shop::open();
    let mut payments: Vec<Simple> = Vec::new();
    let mut now = NOW;
    let offers = [0, 1, 2].map(|at| offer(&format!("/{at}"), PRICES[at]));
    for op in ops {
        match *op {
            Op::Wait(ms) => now = now.plus_ms(ms),
            Op::Pay { resource, more } => {
                let demand = demanded(&shop.desk, &offers[resource], now).await;
                let paid_now = PRICES[resource] + more;
                payments.push(Simple {
                    credential: paid(&demand.challenge, paid_now, now.plus_ms(1)),
                    paid: paid_now,
                    drawn: 0,
                    single: (more == 0).then_some(resource),
                    served: BTreeMap::new(),
                });
            }
            Op::Ask { payment, resource, key, ends } => {
                let Some(simple) = payments.get_mut(payment) else { continue };
                let shown = match key {
                    Some(key) => keyed(&simple.credential, &key.to_string()),
                    None => showing(&simple.credential),
                };
                let verdict = shop.judge(&offers[resource], &shown, now).await;
                let name = (resource, key);
                let again = simple.served.get(&name).is_some_and(|until| now.0 < *until);
                let opens = simple.single.is_none_or(|single| single == resource);
                let price = PRICES[resource];
                match verdict {
                    Verdict::Serve(charge) => {
                        assert!(opens);
                        assert_eq!(charge.is_again(), again);
                        if !ends {
                            continue;
                        }
                        let drawn = charge.commit(Used::Most, now).await.unwrap().drawn.drawn.nanos();
                        assert_eq!(drawn, if again { 0 } else { price });
                        simple.drawn += drawn;
                        if !again && (key.is_some() || simple.single.is_some()) {
                            simple.served.insert(name, now.0 + GRACE_MS);
                        }
                    }
                    Verdict::Demand(demand) => {
                        assert!(!again || !opens, "what was paid is served again");
                        assert!(!opens || simple.paid - simple.drawn < price, "enough was left");
                        assert_ne!(demand.problem, PaymentProblem::PaymentRequired);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        let drawn: u64 = payments.iter().map(|simple| simple.drawn).sum();
        assert_eq!(shop.drawn(), u128::from(drawn));
        assert!(payments.iter().all(|simple| simple.drawn <= simple.paid));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn desk_under_random_requests_draws_what_the_model_says(ops in proptest::collection::vec(op(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(&ops));
    }
}
