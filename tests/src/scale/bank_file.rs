//! A file of payouts for the bank: how long it takes to write and to inspect, and what the process holds meanwhile.
//!
//! Payouts are made as they are asked for, so that what is measured is the file's alone.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Instant;

use anyhow::Context as _;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use weir_hub::bank::{
    Currency, Date, Debtor, Iban, Payment, Remittance, TransferHeader, inspect_transfers, write_transfers,
};
use weir_hub::clock::wall_ms;

const IBANS: [&str; 3] = ["DE02120300000000202051", "NL91ABNA0417164300", "FR1420041010050500013M02606"];

/// Writes a file of `count` payouts into a temporary directory, syncs it, reads it back and inspects it.
pub fn cost(count: u64) -> anyhow::Result<Value> {
    let header = TransferHeader {
        message_id: "WEIR-0000000000-1-EUR".to_owned(),
        batch_id: "WEIR-0000000000-1-EUR".to_owned(),
        created_ms: wall_ms(),
        debtor: Debtor { name: "Weir".to_owned(), iban: "DE89370400440532013000".parse()?, bic: None },
        currency: Currency::EUR,
        execution_date: Date::from_unix_ms(wall_ms())?.target_day_from()?,
    };
    let ibans = IBANS.map(str::parse::<Iban>).into_iter().collect::<Result<Vec<_>, _>>()?;
    let payments = || {
        (0..count).zip(ibans.iter().cycle()).map(|(number, iban)| Payment {
            end_to_end_id: format!("W1-{number:022x}"),
            amount: Decimal::new((1 + number * 7919 % 1_000_000).cast_signed(), 2),
            creditor_name: format!("Müller & Söhne {number}"),
            creditor_iban: *iban,
            remittance: Remittance::Text("Weir payout window 1".to_owned()),
        })
    };
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("file.xml");
    let before = peak_bytes()?;
    let started = Instant::now();
    let mut out = BufWriter::with_capacity(64 << 10, File::create(&path)?);
    write_transfers(&mut out, &header, payments)?;
    out.flush()?;
    out.get_ref().sync_all()?;
    let write_seconds = started.elapsed().as_secs_f64();
    let written = peak_bytes()?;
    let started = Instant::now();
    let totals = inspect_transfers(File::open(&path)?)?;
    let inspect_seconds = started.elapsed().as_secs_f64();
    Ok(json!({
        "payments": totals.payments,
        "file_bytes": std::fs::metadata(&path)?.len(),
        "write_seconds": write_seconds,
        "inspect_seconds": inspect_seconds,
        "peak_bytes_before": before,
        "peak_bytes_written": written,
        "peak_bytes_inspected": peak_bytes()?,
    }))
}

/// The most that this process ever had resident.
fn peak_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}
