//! A payer's process: see [`weir_tests::harness::payer`].

use std::process::ExitCode;

use weir_tests::harness::payer::{Task, main as pay};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    pay(&Task::from_args(&args))
}
