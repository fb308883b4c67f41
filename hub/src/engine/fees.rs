//! Fees: what the hub takes of an account's earnings at a cut-off. Integers only.

use weir_protocol::act::{BASIS_POINTS, FeeSchedule, Policy};
use weir_protocol::amount::Amount;

/// The policy's schedule: what holds for an account without one of its own.
pub const fn default_schedule(policy: &Policy) -> FeeSchedule {
    FeeSchedule {
        basis_points: policy.fee_basis_points,
        per_payment: policy.fee_per_payment,
        minimum: policy.fee_minimum,
    }
}

/// The fee on what was earned with so many payments in a window.
///
/// `earned · basis points ÷ 10,000`, rounded down to a nano, plus `per payment · payments`; at least the minimum; never
/// more than was earned, and nothing on nothing.
pub fn fee(schedule: &FeeSchedule, earned: Amount, payments: u64) -> Amount {
    let part =
        u128::from(earned.nanos()) * u128::from(schedule.basis_points.min(BASIS_POINTS)) / u128::from(BASIS_POINTS);
    let fixed = u128::from(schedule.per_payment.nanos()) * u128::from(payments);
    // Two products of 64 bits each: their sum needs 129 at most, and the first is below 2^64.
    let fee = part.saturating_add(fixed).max(u128::from(schedule.minimum.nanos())).min(u128::from(earned.nanos()));
    Amount::from_nanos(u64::try_from(fee).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn schedule(basis_points: u32, per_payment: u64, minimum: u64) -> FeeSchedule {
        FeeSchedule { basis_points, per_payment: Amount::from_nanos(per_payment), minimum: Amount::from_nanos(minimum) }
    }

    fn nanos(schedule: FeeSchedule, earned: u64, payments: u64) -> u64 {
        fee(&schedule, Amount::from_nanos(earned), payments).nanos()
    }

    #[test]
    fn part_rounds_down_to_a_nano() {
        assert_eq!(nanos(schedule(1, 0, 0), 9_999, 1), 0);
        assert_eq!(nanos(schedule(1, 0, 0), 10_000, 1), 1);
        assert_eq!(nanos(schedule(10_000, 0, 0), u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn payments_and_minimum_count_and_nothing_passes_what_was_earned() {
        assert_eq!(nanos(schedule(100, 7, 0), 10_000, 3), 121);
        assert_eq!(nanos(schedule(100, 7, 122), 10_000, 3), 122);
        assert_eq!(nanos(schedule(100, 7, 121), 10_000, 3), 121);
        assert_eq!(nanos(schedule(0, 0, 50), 49, 1), 49);
        assert_eq!(nanos(schedule(0, 0, 50), 0, 1), 0, "nothing on nothing");
        assert_eq!(nanos(schedule(u32::MAX, u64::MAX, u64::MAX), u64::MAX, u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn fee_never_passes_what_was_earned_and_grows_with_it(
            points in 0_u32..=10_000,
            each: u64,
            minimum: u64,
            earned: u64,
            more in 0_u64..1_000_000,
            payments: u64,
        ) {
            let schedule = schedule(points, each, minimum);
            let fee = nanos(schedule, earned, payments);
            prop_assert!(fee <= earned);
            prop_assert!(nanos(schedule, earned.saturating_add(more), payments) >= fee);
        }
    }
}
