//! The binary `weir-hub`: everything is in the library's `cli`.

fn main() -> std::process::ExitCode {
    weir_hub::cli::main()
}
