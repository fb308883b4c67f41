//! What a hub keeps in memory, measured. Prints JSON.
//!
//! `scale channels [COUNT]`: for each of so many open channels (1,000,000 by default, of one account for each thousand)
//! after a restart. `scale connections [FEW MANY]`: for each idle authenticated connection (200 and 1,000), beside a bare
//! QUIC server's. `scale settle [COUNT]`: the time and memory that settling a window of so many payees (1,000,000) takes.
//! `scale bank-file [COUNT]`: the same for a file of so many payouts (100,000). `scale month [FILES LINES]`: how long so
//! many statements (22) of so many lines (100,000) take until bank and ledger agree. `scale gate [CONNECTIONS]`: what a paid
//! request costs at the gate, beside an unpaid one through the same proxy, over so many connections (64). `scale keep DIR
//! COUNT`: makes such channels in a directory that stays. Anything else is the hub's own command line.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool")]

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use weir_tests::scale::make::Population;
use weir_tests::scale::{bank_file, cost, gate, idle, keep, month, settle};

/// Channels of one account.
const EACH: u64 = 1000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["channels"] => channels(1_000_000),
        ["channels", count] => count.parse().context("not a number").and_then(channels),
        ["keep", directory, count] => count.parse().context("not a number").and_then(|count| {
            println!("{}", keep(&this()?, Path::new(directory), population(count))?.display());
            Ok(())
        }),
        ["settle"] => settled(1_000_000),
        ["settle", count] => count.parse().context("not a number").and_then(settled),
        ["month"] => month(22, 100_000),
        ["month", files, lines] => files
            .parse()
            .and_then(|files| Ok((files, lines.parse()?)))
            .context("not a number")
            .and_then(|(files, lines)| month(files, lines)),
        ["gate"] => paid_requests(64),
        ["gate", count] => count.parse().context("not a number").and_then(paid_requests),
        ["gate-serve", file] => gate::serve(file),
        ["bank-file"] => bank_file(100_000),
        ["bank-file", count] => count.parse().context("not a number").and_then(bank_file),
        ["connections"] => connections(200, 1_000),
        ["connections", few, many] => few
            .parse()
            .and_then(|few| Ok((few, many.parse()?)))
            .context("not a number")
            .and_then(|(few, many)| connections(few, many)),
        _ => return weir_hub::cli::main(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn this() -> anyhow::Result<String> {
    Ok(std::env::current_exe()?.to_str().context("a path that is not text")?.to_owned())
}

fn population(count: u64) -> Population {
    Population { accounts: count.div_ceil(EACH), channels_each: EACH.min(count), paying: true }
}

fn paid_requests(connections: usize) -> anyhow::Result<()> {
    println!("{:#}", gate::measure(&this()?, connections)?);
    Ok(())
}

fn channels(count: u64) -> anyhow::Result<()> {
    println!("{:#}", cost(&this()?, population(count))?.json());
    Ok(())
}

fn settled(accounts: u64) -> anyhow::Result<()> {
    println!("{:#}", settle::cost(&this()?, accounts)?.json());
    Ok(())
}

fn month(files: u64, lines: u64) -> anyhow::Result<()> {
    println!("{:#}", month::cost(&this()?, files, lines)?);
    Ok(())
}

fn bank_file(count: u64) -> anyhow::Result<()> {
    println!("{:#}", bank_file::cost(count)?);
    Ok(())
}

fn connections(few: usize, many: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let idle = runtime.block_on(idle::cost(&this()?, few, many))?;
    println!("{:#}", idle.json(few, many));
    Ok(())
}
