//! The hub's own command line, where the tests of this crate find it.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_hub::cli::main()
}
