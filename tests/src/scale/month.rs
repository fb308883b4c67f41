//! A month of a busy bank account: statements with many lines, until bank and ledger agree.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use weir_hub::bank::CreditorReference;
use weir_protocol::id::AccountId;

use super::make::{self, Population};
use super::{cpu_seconds_of, memory};
use crate::harness::place::{HUB_IBAN, Place};

/// Accounts that money arrives for.
const ACCOUNTS: u64 = 1_000;
/// What each has before the month begins, in major units.
const BEFORE: u64 = 10;
/// Longest that is waited for.
const PATIENCE: Duration = Duration::from_secs(1_800);
const PAUSE: Duration = Duration::from_millis(100);

/// Brings `files` statements of `lines` deposits each to a hub, all at once, and measures until the last one is taken.
pub fn cost(binary: &str, files: u64, lines: u64) -> anyhow::Result<Value> {
    let mut place = Place::new(binary);
    place.set("WEIR_HUB_JOURNAL_SEGMENT_MIB", "64");
    place.set("WEIR_HUB_BANK_STATEMENT_MAX_AGE", "0");
    make::fill(&place.data(), Population { accounts: ACCOUNTS, channels_each: 1, paying: false })?;
    let references: Vec<String> = (0..ACCOUNTS)
        .map(|number| {
            let account = AccountId(make::key("payer", number)?.public());
            Ok(CreditorReference::from_id(account.as_bytes()).as_str().to_owned())
        })
        .collect::<anyhow::Result<_>>()?;
    let hub = place.run();
    let inbox = place.data().join("bank/inbox");
    let rss_before = memory(&hub, "VmRSS")?;
    let (mut bytes, mut rss) = (0, Vec::new());
    let hidden = |number: u64| inbox.join(format!(".{number:04}.part"));
    let path = |number: u64| inbox.join(format!("{number:04}.xml"));
    for number in 1..=files {
        bytes += write(&hidden(number), number, lines, &references)?;
    }
    let cpu_before = cpu_seconds_of(hub.pid())?;
    let begun = Instant::now();
    // The last one first: the hub may look at any time, and takes them by name.
    for number in (1..=files).rev() {
        std::fs::rename(hidden(number), path(number))?;
    }
    for number in 1..=files {
        while path(number).exists() {
            if begun.elapsed() > PATIENCE {
                bail!("the hub does not take `{}`: {}", path(number).display(), place.said());
            }
            std::thread::sleep(PAUSE);
        }
        rss.push(memory(&hub, "VmRSS")?);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds_of(hub.pid())? - cpu_before;
    let begun = Instant::now();
    let report = place.json(&["reconcile", "--json"]);
    let reconcile_seconds = begun.elapsed().as_secs_f64();
    let euro = &report["currencies"]["EUR"];
    if euro["difference"] != "0" {
        bail!("bank and ledger differ: {report}");
    }
    let figures = json!({
        "files": files,
        "lines": files * lines,
        "bytes": bytes,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "reconcile_seconds": reconcile_seconds,
        "rss_bytes_before": rss_before,
        "rss_bytes_after_each": rss,
        "peak_bytes": memory(&hub, "VmHWM")?,
        "bank": euro["bank"],
        "cash": euro["cash"],
    });
    hub.stop();
    Ok(figures)
}

/// Writes a statement of a day; its bytes.
fn write(path: &Path, number: u64, lines: u64, references: &[String]) -> anyhow::Result<u64> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    let opening = ACCOUNTS * BEFORE * 100 + (number - 1) * lines * 125;
    let money = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    let day = format!("2026-{:02}-{:02}", 10 + (number - 1) / 28, 1 + (number - 1) % 28);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:camt.053.001.08\">\n\
         <BkToCstmrStmt><GrpHdr><MsgId>M{number}</MsgId><CreDtTm>{day}T20:00:00Z</CreDtTm></GrpHdr><Stmt><Id>S{number}</Id>\
         <ElctrncSeqNb>{number}</ElctrncSeqNb><Acct><Id><IBAN>{HUB_IBAN}</IBAN></Id><Ccy>EUR</Ccy></Acct>"
    );
    for (code, cents) in [("OPBD", opening), ("CLBD", opening + lines * 125)] {
        write!(
            text,
            "<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy=\"EUR\">{}</Amt><CdtDbtInd>CRDT</CdtDbtInd>\
             <Dt><Dt>{day}</Dt></Dt></Bal>",
            money(cents)
        )?;
    }
    let mut bytes = 0;
    for line in 0..lines {
        let reference = references.get((line % ACCOUNTS) as usize).context("as many references as accounts")?;
        write!(
            text,
            "\n<Ntry><Amt Ccy=\"EUR\">1.25</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>{day}</Dt>\
             </BookgDt><ValDt><Dt>{day}</Dt></ValDt><AcctSvcrRef>{number:04}-{line:010}</AcctSvcrRef><BkTxCd><Domn>\
             <Cd>PMNT</Cd><Fmly><Cd>RCDT</Cd><SubFmlyCd>ESCT</SubFmlyCd></Fmly></Domn></BkTxCd><NtryDtls><TxDtls><Refs>\
             <EndToEndId>NOTPROVIDED</EndToEndId></Refs><Amt Ccy=\"EUR\">1.25</Amt><CdtDbtInd>CRDT</CdtDbtInd><RltdPties>\
             <Dbtr><Pty><Nm>Somebody Who Pays {line}</Nm></Pty></Dbtr><DbtrAcct><Id><IBAN>DE89370400440532013000</IBAN></Id>\
             </DbtrAcct></RltdPties><RmtInf><Strd><CdtrRefInf><Tp><CdOrPrtry><Cd>SCOR</Cd></CdOrPrtry><Issr>ISO</Issr></Tp>\
             <Ref>{reference}</Ref></CdtrRefInf></Strd></RmtInf></TxDtls></NtryDtls></Ntry>"
        )?;
        if text.len() > 1 << 20 {
            out.write_all(text.as_bytes())?;
            bytes += text.len() as u64;
            text.clear();
        }
    }
    text.push_str("</Stmt></BkToCstmrStmt></Document>\n");
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(bytes + text.len() as u64)
}
