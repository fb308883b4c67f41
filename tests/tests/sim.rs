//! The simulator holds on a few seeds, is the same run every time, and finds every planted bug. Its full length is a job of
//! its own: `cargo run --release -p weir-tests --bin sim -- --seeds 200`.

use weir_tests::sim::{Options, Report, run};

const fn options(seed: u64) -> Options {
    Options {
        seed,
        operations: 200,
        #[cfg(feature = "planted-bugs")]
        bug: None,
    }
}

#[test]
fn simulator_of_a_few_seeds_holds_and_runs_the_same_again() {
    for seed in 1..=8 {
        let report = run(options(seed));
        assert_eq!(report.failure, None, "seed {seed}");
        assert!(report.commits > 0 && report.operations >= 200, "seed {seed} did nothing");
        let Report { hash, .. } = run(options(seed));
        assert_eq!(hash, report.hash, "seed {seed} ran otherwise the second time");
    }
}

#[cfg(feature = "planted-bugs")]
#[test]
fn simulator_finds_every_planted_bug_within_forty_seeds() {
    // What an assertion of a planted product says is of no interest.
    std::panic::set_hook(Box::new(|_| {}));
    let is_found = |bug| {
        (1..=40).any(|seed| {
            let options = Options { operations: 500, bug: Some(bug), ..options(seed) };
            run(options).failure.is_some()
        })
    };
    let missed: Vec<&str> =
        weir_protocol::planted::Bug::ALL.into_iter().filter(|(_, bug)| !is_found(*bug)).map(|(name, _)| name).collect();
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
