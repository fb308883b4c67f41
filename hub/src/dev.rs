//! `weir-hub dev`: everything in one process, to see it and to try it. Hub, sandbox bank, two payees, four payers, seeded
//! traffic. The only part of the hub that plays a user, and so the only one that may use `weir-client`; its people have
//! nothing else, over real QUIC, and their money arrives only through the hub's `inbox/`.
//!
//! DIR: `hub/` (data of the hub, as `init` makes it), `hub/bank/` (the bank's directories), `sandbox/` (the sandbox bank),
//! `homes/` (a home for each person), `gates/` (of the demo web: see `dev/web.rs`).

mod bank;
mod people;
mod random;
mod screen;
mod script;
mod web;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use weir_client::protocol::id::{AccountId, HubAddress};

use self::bank::{DevBank, nobodys_iban};
use self::people::{Left, Person};
use self::screen::Screen;
use self::script::{Homes, Summary, Town};
use self::web::{Checked, Urls, Web};
use crate::audit::report::{Report, Verdict};
use crate::audit::{self, Subject};
use crate::cli::Failure;
use crate::cli::run::Running;
use crate::clock::wall_ms;
use crate::config::{self, Config, Settings};
use crate::keys::{KeyFiles, make_private_directory, write_durably};

/// A rate that nobody reaches.
const UNBOUNDED: &str = "1000000/1000000";

/// Everything in one process, to try it.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// The folder for everything; created. Without it one is made, printed and kept.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Run the main job once and exit: 0 only if the audit is clean.
    #[arg(long)]
    once: bool,
    /// The hub and its bank alone: no people, no traffic.
    #[arg(long, conflicts_with = "once")]
    empty: bool,
    /// No demo news site, API, reader, agent and payment debugger.
    #[arg(long)]
    no_web: bool,
    /// Makes amounts, payees and order reproducible.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// The result of `--once --json`.
#[derive(Debug, Serialize)]
struct Once {
    data: PathBuf,
    seed: u64,
    #[serde(flatten)]
    summary: Summary,
    /// One article and one call of the API, bought over HTTP; they are among the payments.
    #[serde(skip_serializing_if = "Option::is_none")]
    web: Option<Checked>,
    commits: u64,
    audit: Verdict,
    elapsed_ms: u64,
}

/// The line of `--json` without `--once`.
#[derive(Debug, Serialize)]
struct Ready {
    hub: HubAddress,
    pid: u32,
    data: PathBuf,
    inbox: PathBuf,
    outbox: PathBuf,
    payees: Vec<ReadyPerson>,
    payers: Vec<ReadyPerson>,
    #[serde(flatten)]
    web: Option<Urls>,
}

#[derive(Debug, Serialize)]
struct ReadyPerson {
    home: PathBuf,
    account: AccountId,
}

/// Runs the command.
pub fn dev(args: &DevArgs, json: bool) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(crate::config::io_threads()).enable_all().build()?;
    runtime.block_on(run(args, json))
}

async fn run(args: &DevArgs, json: bool) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let screen = Screen::new(json);
    let dir = folder(args.data.as_deref())?;
    screen.say(&format!("everything is kept in {}", dir.display()));
    let data = make_hub(&dir.join("hub"))?;
    let config = Settings::gather(&data, &Vec::new(), |_| None)?.resolve()?;
    let running = Running::start(&data, &config, None)?;
    let settlement = running.settlement().context("the hub of `dev` has a bank account")?;
    let bank = DevBank::open(&dir.join("sandbox"), settlement.spool(), settlement.account())?;
    let banking = tokio::spawn(bank.clone().serve());
    screen.step(&format!("the hub accepts at {}", running.address()));
    let work = async {
        if args.empty {
            return Ok(Stands::default());
        }
        let town = Town::found(&dir.join("homes"), running.address(), &bank, &screen).await?;
        let mut summary =
            if json && !args.once { None } else { Some(town.run(args.seed, &bank, settlement, &screen).await?) };
        let (mut web, mut checked) = (None, None);
        if !args.no_web {
            let payees: Vec<AccountId> = town.payees.iter().map(Person::account).collect();
            let started = Web::start(&dir, running.address(), &payees, &bank, &screen).await?;
            if args.once {
                let done = started.check(&town.payees, &screen).await?;
                if let Some(summary) = &mut summary {
                    summary.bought(&[done.article, done.prepaid])?;
                }
                checked = Some(done);
                started.stop().await;
            } else {
                web = Some(started);
            }
        }
        anyhow::Ok(Stands { homes: town.leave().await, summary, web, checked })
    };
    let stands = tokio::select! {
        worked = work => worked?,
        _ = terminate.recv() => return Err(interrupted()),
        _ = interrupt.recv() => return Err(interrupted()),
    };
    let Stands { homes, summary, mut web, checked } = stands;
    if let (true, Some(summary)) = (args.once, summary) {
        banking.abort();
        running.stop().await;
        let report = audit_of(&data, &config)?;
        return once(args, json, &dir, &report, (summary, checked), &screen);
    }
    let report = tokio::task::block_in_place(|| audit_of(&data, &config))?;
    ready(json, &dir, &running, &homes, web.as_ref(), &report, &screen)?;
    if let Some(web) = &mut web {
        web.open();
    }
    let failed = tokio::select! {
        what = running.ended() => Some(what),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    if let Some(web) = web {
        web.stop().await;
    }
    banking.abort();
    running.stop().await;
    screen.say("stopped; everything acknowledged is durable");
    failed.map_or(Ok(()), |what| Err(anyhow::anyhow!("{what}").into()))
}

/// What there is when the work is done.
#[derive(Debug, Default)]
struct Stands {
    homes: Homes,
    summary: Option<Summary>,
    web: Option<Web>,
    checked: Option<Checked>,
}

fn interrupted() -> Failure {
    anyhow::anyhow!("interrupted before the main job was done").into()
}

/// The folder: named and empty, or made under the system's directory for temporary files.
fn folder(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let dir = match named {
        Some(dir) => dir.to_owned(),
        None => std::env::temp_dir().join(format!("weir-dev-{}-{}", wall_ms(), std::process::id())),
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
    if std::fs::read_dir(&dir)?.next().is_some() {
        bail!("`{}` is not empty: `dev` starts afresh in a folder of its own", dir.display());
    }
    Ok(std::path::absolute(dir)?)
}

/// A hub as `init` makes it, with open registration and a bank that is looked at often.
fn make_hub(data: &Path) -> anyhow::Result<PathBuf> {
    let set = BTreeMap::from([
        ("name", "Weir dev hub".to_owned()),
        ("listen", "127.0.0.1:0".to_owned()),
        ("anchor", "../hub.anchor".to_owned()),
        ("bank.name", "Weir dev hub".to_owned()),
        ("bank.iban", nobodys_iban(1)),
        ("bank.poll_ms", "50".to_owned()),
        // One person plays everybody here.
        ("rates.registrations", UNBOUNDED.to_owned()),
        ("rates.attaches", UNBOUNDED.to_owned()),
        ("rates.grants", UNBOUNDED.to_owned()),
        ("rates.acts", UNBOUNDED.to_owned()),
        ("rates.proofs", UNBOUNDED.to_owned()),
        ("policy.registration", "open".to_owned()),
        ("policy.fee_basis_points", "50".to_owned()),
        // Nobody here is a second operator.
        ("policy.approvals", "0".to_owned()),
    ]);
    for name in set.keys() {
        ensure!(config::KEYS.iter().any(|key| key.name == *name), "`{name}` is not a setting");
    }
    make_private_directory(data)?;
    KeyFiles::of(data).create(weir_client::protocol::amount::Time(wall_ms()), 365)?;
    write_durably(&data.join(config::FILE), config::template(&set).as_bytes(), 0o644)?;
    Ok(data.to_owned())
}

fn audit_of(data: &Path, config: &Config) -> anyhow::Result<Report> {
    let hub = KeyFiles::of(data).certificate()?.hub;
    Ok(audit::audit(Subject { data, hub, anchor: config.anchor.as_deref() }, &mut |_, _| ())?)
}

fn once(
    args: &DevArgs,
    json: bool,
    dir: &Path,
    report: &Report,
    (summary, web): (Summary, Option<Checked>),
    screen: &Screen,
) -> Result<(), Failure> {
    screen.done(&audited(report));
    if json {
        print(&Once {
            data: dir.to_owned(),
            seed: args.seed,
            summary,
            web,
            commits: report.commits,
            audit: report.audit,
            elapsed_ms: screen.elapsed_ms(),
        })?;
    } else {
        screen.say(&format!(
            "done in {} ms: {} payments over {} lanes of {} channels came to {} EUR; {} payouts of {} EUR in\n  {}",
            screen.elapsed_ms(),
            summary.payments,
            summary.lanes,
            summary.channels,
            summary.paid,
            summary.payouts,
            summary.paid_out,
            summary.bank_file.display()
        ));
    }
    if report.audit == Verdict::Clean {
        Ok(())
    } else {
        Err(anyhow::anyhow!("the books do not follow from the journal").into())
    }
}

fn audited(report: &Report) -> String {
    match (&report.audit, &report.first_error) {
        (Verdict::Clean, _) => format!(
            "an audit recomputed {} commits, every signature, lane and balance, from the journal: clean",
            report.commits
        ),
        (Verdict::Broken, error) => format!(
            "the audit is broken at commit {}: {}",
            error.as_ref().map_or(0, |error| error.commit),
            error.as_ref().map_or("", |error| error.what.as_str())
        ),
    }
}

fn ready(
    json: bool,
    dir: &Path,
    running: &Running,
    homes: &Homes,
    web: Option<&Web>,
    report: &Report,
    screen: &Screen,
) -> anyhow::Result<()> {
    let people = |people: &[Left]| -> Vec<ReadyPerson> {
        people.iter().map(|person| ReadyPerson { home: person.home.clone(), account: person.account }).collect()
    };
    let settlement = running.settlement().context("the hub of `dev` has a bank account")?;
    if json {
        return print(&Ready {
            hub: running.address().clone(),
            pid: std::process::id(),
            data: dir.to_owned(),
            inbox: settlement.spool().inbox().to_owned(),
            outbox: settlement.spool().outbox().to_owned(),
            payees: people(&homes.payees),
            payers: people(&homes.payers),
            web: web.map(|web| web.urls.clone()),
        });
    }
    screen.done(&audited(report));
    screen.say("the hub stays until Ctrl-C");
    screen.say("");
    screen.say(&format!("hub     {}", running.address()));
    for person in homes.payees.iter().chain(&homes.payers) {
        screen.say(&format!("{:<7} {}  {}", person.folder(), person.account, person.name));
    }
    if let Some(web) = web {
        screen.say("");
        screen.say(&format!(
            "article  {}  (a gate charges for it; a reader buys one now and then)",
            web.urls.article_url
        ));
        screen.say(&format!("API      {}  (metered by the token; an agent calls it)", web.urls.api_url));
        screen.say(&format!("debugger {}  (every payment at the two gates, step by step)", web.urls.debugger_url));
        screen.say(&format!("prices   {}: edit them while the gates run", web.gates.display()));
    }
    let (Some(payer), Some(payee)) = (homes.payers.first(), homes.payees.first()) else { return Ok(()) };
    screen.say("\ntry, in another terminal:");
    screen.say(&format!("  weir --home {} pay {} 0.05 --note \"an article\"", payer.home.display(), payee.account));
    screen.say(&format!("  weir --home {} balance", payee.home.display()));
    if let Some(web) = web {
        screen.say(&format!("  weir --home {} fetch --budget 1 {}", payer.home.display(), web.urls.article_url));
    }
    screen.say(&format!("  weir-hub settle run --data {}", dir.join("hub").display()));
    Ok(())
}

fn print(value: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}
