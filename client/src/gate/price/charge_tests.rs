#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use super::*;
use proptest::prelude::*;

fn per(count: u64) -> NonZeroU64 {
    NonZeroU64::new(count).unwrap()
}

fn nanos(nanos: u64) -> Amount {
    Amount::from_nanos(nanos)
}

fn plain(tiers: &[(Option<u64>, u64)], of: u64, max: u64) -> UnitPrice {
    let tiers = tiers.iter().map(|(up_to, price)| Tier { up_to: *up_to, price: nanos(*price) }).collect();
    UnitPrice::Plain { tiers, per: per(of), max }
}

fn units(count: u64) -> Usage {
    Usage { units: Units::plain(count), ..Usage::default() }
}

#[test]
fn rate_is_rounded_up_to_the_next_nano() {
    let rate = Rate { price: nanos(10), per: per(1_000) };
    for (count, cost) in [(0, 0), (1, 1), (100, 1), (101, 2), (1_000, 10), (1_001, 11)] {
        assert_eq!(rate.cost(count), Ok(nanos(cost)), "{count}");
    }
}

#[test]
fn rate_at_the_edge_of_an_amount_fits_or_overflows() {
    let rate = Rate { price: Amount::MAX, per: per(1) };
    assert_eq!(rate.cost(1), Ok(Amount::MAX));
    assert_eq!(rate.cost(2), Err(AmountError::Overflow));
    assert_eq!(Rate { price: Amount::MAX, per: per(u64::MAX) }.cost(u64::MAX), Ok(Amount::MAX));
}

#[test]
fn price_whose_most_does_not_fit_is_refused() {
    let bytes = |max| BytePrice { rate: Rate { price: nanos(1), per: per(1) }, counted: Counted::Both, max };
    assert!(Price::new(nanos(1), Some(bytes(u64::MAX - 1)), None).is_ok());
    assert_eq!(Price::new(nanos(1), Some(bytes(u64::MAX)), None), Err(AmountError::Overflow));
}

#[test]
fn charge_of_bytes_counts_what_is_asked_up_to_the_maximum() {
    let used = Usage { request_bytes: 1_500, response_bytes: 2_500, ..Usage::default() };
    for (counted, cost) in [(Counted::Request, 2), (Counted::Response, 3), (Counted::Both, 4)] {
        let bytes = BytePrice { rate: Rate { price: nanos(1), per: per(1_000) }, counted, max: 10_000 };
        let price = Price::new(nanos(100), Some(bytes), None).unwrap();
        assert_eq!(price.charge(&used, 0), nanos(100 + cost));
        assert!(!price.exceeds(&used));
        let more = Usage { request_bytes: 10_001, response_bytes: 10_001, ..Usage::default() };
        assert_eq!(price.charge(&more, 0), nanos(110));
        assert!(price.exceeds(&more));
    }
}

#[test]
fn tiers_charge_each_unit_in_its_own_step() {
    let price =
        Price::new(Amount::ZERO, None, Some(plain(&[(Some(1_000), 10), (Some(2_000), 5), (None, 1)], 1, 5_000)));
    let price = price.unwrap();
    for (before, count, cost) in [
        (0, 1_000, 10_000),
        (0, 1_001, 10_005),
        (990, 20, 150),
        (999, 1, 10),
        (1_000, 1, 5),
        (1_999, 2, 6),
        (2_000, 5_000, 5_000),
        (u64::MAX, 3, 3),
        (0, 2_500, 15_500),
    ] {
        assert_eq!(price.charge(&units(count), before), nanos(cost), "{before} {count}");
    }
    assert_eq!(price.most(), nanos(50_000));
}

#[test]
fn charge_beyond_the_most_units_is_the_charge_of_the_most() {
    let price = Price::new(nanos(5), None, Some(plain(&[(None, 2)], 1, 100))).unwrap();
    assert_eq!(price.charge(&units(100), 0), nanos(205));
    assert!(!price.exceeds(&units(100)));
    assert_eq!(price.charge(&units(101), 0), nanos(205));
    assert!(price.exceeds(&units(101)));
    assert_eq!(price.charge(&units(u64::MAX), u64::MAX), nanos(205));
}

fn tokens(of: u64, max_input: u64, max_output: u64) -> Price {
    let units = UnitPrice::Tokens {
        input: nanos(300),
        cached: nanos(30),
        cache_write: nanos(375),
        output: nanos(1_500),
        per: per(of),
        max_input,
        max_output,
    };
    Price::new(nanos(7), None, Some(units)).unwrap()
}

#[test]
fn tokens_are_charged_by_kind() {
    let units = Units { plain: 0, input: 10, cached: 100, cache_write: 4, output: 20 };
    let used = Usage { units, ..Usage::default() };
    assert_eq!(tokens(1, 1_000, 1_000).charge(&used, 0), nanos(7 + 3_000 + 3_000 + 1_500 + 30_000));
    assert_eq!(tokens(1_000, 1_000, 1_000).charge(&used, 0), nanos(7 + 3 + 3 + 2 + 30));
}

#[test]
fn long_prompt_takes_nothing_of_what_is_reserved_for_the_answer() {
    let price = tokens(1, 100, 10);
    assert_eq!(price.most(), nanos(7 + 37_500 + 15_000));
    let units = Units { input: 1_000_000, output: 1, ..Units::default() };
    let used = Usage { units, ..Usage::default() };
    assert_eq!(price.charge(&used, 0), nanos(7 + 37_500 + 1_500));
    assert!(price.exceeds(&used));
    // So many that the sum of the prompt overflows.
    let units = Units { input: u64::MAX, cached: u64::MAX, cache_write: u64::MAX, output: u64::MAX, plain: u64::MAX };
    assert_eq!(price.charge(&Usage { units, ..Usage::default() }, 0), price.most());
}

fn any_tiers() -> impl Strategy<Value = Vec<Tier>> {
    (proptest::collection::btree_set(1_u64..100_000, 0..4), proptest::collection::vec(0_u64..1_000_000, 5)).prop_map(
        |(bounds, prices)| {
            let mut bounds: Vec<_> = bounds.into_iter().map(Some).collect();
            bounds.push(None);
            bounds.into_iter().zip(prices).map(|(up_to, price)| Tier { up_to, price: nanos(price) }).collect()
        },
    )
}

prop_compose! {
    fn any_price()(
        fixed in 0_u64..1_000_000_000,
        bytes in proptest::option::of((0_u64..1_000_000, 1_u64..10_000, 0_u64..10_000_000)),
        kind in 0..3,
        tiers in any_tiers(),
        prices in proptest::array::uniform4(0_u64..1_000_000),
        of in 1_u64..5_000,
        (max, max_output) in (0_u64..1_000_000, 0_u64..1_000_000),
    ) -> Price {
        let bytes = bytes.map(|(price, of, max)| {
            BytePrice { rate: Rate { price: nanos(price), per: per(of) }, counted: Counted::Both, max }
        });
        let [input, cached, cache_write, output] = prices.map(nanos);
        let units = match kind {
            0 => None,
            1 => Some(UnitPrice::Plain { tiers, per: per(of), max }),
            _ => Some(UnitPrice::Tokens { input, cached, cache_write, output, per: per(of), max_input: max, max_output }),
        };
        Price::new(nanos(fixed), bytes, units).unwrap()
    }
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..2_000_000, 1 => any::<u64>()]
}

prop_compose! {
    fn any_usage()(bytes in (count(), count()), units in proptest::array::uniform5(count())) -> Usage {
        let [plain, input, cached, cache_write, output] = units;
        let units = Units { plain, input, cached, cache_write, output };
        Usage { request_bytes: bytes.0, response_bytes: bytes.1, units }
    }
}

fn sum(one: &Usage, other: &Usage) -> Usage {
    let add = u64::saturating_add;
    Usage {
        request_bytes: add(one.request_bytes, other.request_bytes),
        response_bytes: add(one.response_bytes, other.response_bytes),
        units: Units {
            plain: add(one.units.plain, other.units.plain),
            input: add(one.units.input, other.units.input),
            cached: add(one.units.cached, other.units.cached),
            cache_write: add(one.units.cache_write, other.units.cache_write),
            output: add(one.units.output, other.units.output),
        },
    }
}

proptest! {
    #[test]
    fn charge_is_between_the_fixed_part_and_the_most(price in any_price(), used in any_usage(), before in count()) {
        let charge = price.charge(&used, before);
        prop_assert!(price.fixed() <= charge && charge <= price.most());
    }

    #[test]
    fn charge_never_falls_when_more_is_used(
        price in any_price(), one in any_usage(), other in any_usage(), before in count(),
    ) {
        prop_assert!(price.charge(&one, before) <= price.charge(&sum(&one, &other), before));
    }

    #[test]
    fn charge_within_the_maximum_is_exact(price in any_price(), used in any_usage(), before in count()) {
        // The bound is never what decides for a use that fits what is reserved.
        if !price.exceeds(&used) {
            prop_assert_eq!(Ok(price.charge(&used, before)), price.exact(&used, before));
        }
    }

    #[test]
    fn units_drawn_in_two_requests_cost_at_most_a_nano_more_than_in_one(
        tiers in any_tiers(), of in 1_u64..5_000, before in 0_u64..200_000, one in 0_u64..500_000, two in 0_u64..500_000,
    ) {
        let price = Price::new(Amount::ZERO, None, Some(UnitPrice::Plain { tiers, per: per(of), max: 1_000_000 })).unwrap();
        let together = price.charge(&units(one + two), before).nanos();
        let apart = price.charge(&units(one), before).nanos() + price.charge(&units(two), before + one).nanos();
        prop_assert!(together <= apart && apart <= together + 1);
    }
}
