//! `init` and `certify`: who the hub is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;
use weir_protocol::amount::Time;
use weir_protocol::id::HubId;
use weir_protocol::keys::PublicKey;

use super::printer::{self, Printer};
use super::{DataArg, Failure};
use crate::audit::journal_of;
use crate::clock::wall_ms;
use crate::config::{self, Settings};
use crate::engine::record::Record;
use crate::keys::{HubCertificate, KeyFiles, make_private_directory, write_durably};
use crate::store::DirectoryLock;

/// Days that a certificate holds at most: no key should be used for longer.
const DAYS_MAX: i64 = 3650;

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    data: DataArg,
    /// What you call this hub.
    #[arg(long)]
    name: Option<String>,
    /// The hub's own bank account.
    #[arg(long)]
    iban: Option<String>,
    /// Its bank, where that bank wants to be named.
    #[arg(long, requires = "iban")]
    bic: Option<String>,
    /// The account's owner, as the bank knows it.
    #[arg(long, requires = "iban")]
    bank_name: Option<String>,
    /// The currency served.
    #[arg(long)]
    currency: Option<String>,
    /// Where clients will connect.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// A file on another disk that will note the newest commit.
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
    /// Days that the first certificate holds.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
}

#[derive(Debug, Args)]
pub(super) struct CertifyArgs {
    #[command(flatten)]
    data: DataArg,
    /// The identity key, when it is not in the data directory.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Make a new signing key as well and destroy the old one. The hub must not be running.
    #[arg(long)]
    new_key: bool,
    /// Days that the certificate holds.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
}

#[derive(Debug, Serialize)]
struct Made {
    hub: HubId,
    data: PathBuf,
    config: PathBuf,
    identity_key: PathBuf,
    signing_key: PublicKey,
    not_before_ms: u64,
    not_after_ms: u64,
}

impl Made {
    fn new(data: &Path, certificate: &HubCertificate) -> Self {
        let signed = &certificate.signed.certificate;
        Self {
            hub: certificate.hub,
            data: data.to_owned(),
            config: data.join(config::FILE),
            identity_key: KeyFiles::of(data).identity_path(),
            signing_key: signed.key,
            not_before_ms: signed.not_before.0,
            not_after_ms: signed.not_after.0,
        }
    }

    fn show(&self) -> String {
        printer::facts([
            ("hub", self.hub.to_string()),
            ("data", self.data.display().to_string()),
            ("config", self.config.display().to_string()),
            ("identity key", self.identity_key.display().to_string()),
            ("certified until", printer::time(self.not_after_ms)),
        ])
    }
}

/// Makes a new hub.
pub(super) fn init(args: &InitArgs, printer: Printer) -> Result<(), Failure> {
    let data = &args.data.data;
    let occupied = match std::fs::read_dir(data) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(anyhow!(error).context(format!("cannot look into `{}`", data.display())).into()),
    };
    if occupied {
        let error = anyhow!("`{}` is not empty", data.display());
        return Err(Failure::from(error).hint("name a new directory; a hub is never made over another"));
    }
    let set = chosen(args)?;
    // Checked before anything is made.
    let flags = set.iter().map(|(name, value)| (*name, flag_of(name), value.clone())).collect();
    Settings::gather(data, &flags, |_| None)?.resolve()?;
    make_private_directory(data)?;
    let certificate = KeyFiles::of(data).create(Time(wall_ms()), args.days)?;
    write_durably(&data.join(config::FILE), config::template(&set).as_bytes(), 0o644)?;
    printer.print(&Made::new(data, &certificate), Made::show)?;
    printer::say("The identity key is needed for certificates only: take it away and keep it safe.");
    printer::say(&format!("Next: weir-hub run --data {}", data.display()));
    Ok(())
}

/// What the command line sets in the file.
fn chosen(args: &InitArgs) -> Result<BTreeMap<&'static str, String>, Failure> {
    let anchor = args.anchor.as_deref().map(std::path::absolute).transpose().context("`--anchor` is not a path")?;
    let anchor = anchor.map(|path| path.into_os_string().into_string());
    let anchor = anchor.transpose().map_err(|_| Failure::usage(anyhow!("`--anchor` must be valid UTF-8")))?;
    let values = [
        ("name", args.name.clone()),
        ("listen", args.listen.clone()),
        ("anchor", anchor),
        ("policy.currencies", args.currency.clone()),
        ("bank.name", args.bank_name.clone()),
        ("bank.iban", args.iban.clone()),
        ("bank.bic", args.bic.clone()),
    ];
    Ok(values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

fn flag_of(key: &str) -> &'static str {
    match key {
        "name" => "--name",
        "listen" => "--listen",
        "anchor" => "--anchor",
        "policy.currencies" => "--currency",
        "bank.name" => "--bank-name",
        "bank.iban" => "--iban",
        "bank.bic" => "--bic",
        _ => "the command line",
    }
}

/// Renews the certificate.
pub(super) fn certify(args: &CertifyArgs, printer: Printer) -> Result<(), Failure> {
    let data = &args.data.data;
    let keys = KeyFiles::of(data);
    let identity = args.identity.clone().unwrap_or_else(|| keys.identity_path());
    let now = Time(wall_ms());
    let certificate = if args.new_key {
        // A running hub would sign on with the old key, outside of its certificate.
        let _lock = DirectoryLock::take(data)?;
        let from = last_time(data)?.map_or(now, |last| last.plus_ms(1));
        if from > now {
            let error = anyhow!("the last commit is of {}, which is yet to come", printer::time(from.0));
            return Err(Failure::from(error).hint("set the clock right first"));
        }
        keys.replace(&identity, from, now, args.days)?
    } else {
        keys.renew(&identity, now, args.days)?
    };
    printer.print(&Made::new(data, &certificate), Made::show)?;
    printer::say("The hub takes the certificate up at its next start.");
    Ok(())
}

/// When the last commit was made.
fn last_time(data: &Path) -> Result<Option<Time>, Failure> {
    let Some(journal) = journal_of(data)? else { return Ok(None) };
    let Some(last) = journal.last()? else { return Ok(None) };
    let entry = journal.read(last.number)?.context("the last commit cannot be read")?;
    Ok(Some(Record::decode(&entry.payload)?.header().time))
}
