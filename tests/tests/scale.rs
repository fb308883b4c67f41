//! What a hub keeps in memory, on a small scale and with wide bounds: `scale` measures in earnest.

use weir_tests::scale::make::Population;

use super::HUB;

#[test]
fn twenty_thousand_channels_are_kept_in_little_and_are_there_soon() {
    // A debug build, and what a process allocates once weighs more with few channels.
    let population = Population { accounts: 20, channels_each: 1_000, paying: false };
    let cost = weir_tests::scale::cost(HUB, population).unwrap();
    assert!(cost.bytes_per_channel() < 900, "{:#}", cost.json());
    assert!(cost.full.start_seconds < 30.0, "{:#}", cost.json());
    assert!(cost.full.snapshot_bytes > 20_000 * 200, "the snapshot does not hold the channels: {:#}", cost.json());
}
