//! What a paid request costs at the gate, beside the same request unpaid through the same proxy: CPU of the gate's own process,
//! which is a child of the one that asks and answers.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use weir_client::gate::config::GateConfig;
use weir_client::gate::service;
use weir_protocol::amount::Amount;

use super::cpu_seconds_of;
use crate::harness::shop::{Connection, PaperHub, showing, upstream};

/// How long each kind is asked for.
const SPAN: Duration = Duration::from_secs(4);
/// Turns of each kind; the middle one counts.
const TURNS: usize = 3;

/// The child: a gate, until its input ends.
pub fn serve(file: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = GateConfig::load(file.as_ref())?;
        let running = service::start(&config).await?;
        crate::scale::gate::say(&running.address().to_string());
        tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await?;
        running.stop().await;
        Ok(())
    })
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn say(line: &str) {
    println!("{line}");
}

/// One kind of request, as it was measured.
#[derive(Debug, Clone, Copy)]
struct Seen {
    requests_per_second: f64,
    cpu_us: f64,
}

/// Measures over so many connections that ask one request after the other; JSON.
pub fn measure(binary: &str, connections: usize) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let hub = PaperHub::default();
    let upstream = runtime.block_on(upstream())?;
    hub.configuration(folder.path(), &upstream, "0.000000001")?;
    let file = folder.path().join("gate.toml");
    let mut child = Command::new(binary)
        .args(["gate-serve", file.to_str().context("a path that is not text")?])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut address = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut address)?;
    let address = address.trim().to_owned();
    let pid = child.id();
    let measured = runtime.block_on(async {
        let challenge = Connection::to(&address).await?.demand("/paid/1").await?;
        let line = showing(&hub.pay(&challenge, Amount::from_nanos(1_000_000_000)));
        let (mut unpaid, mut paid) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            unpaid.push(load(&address, pid, connections, "/free/1", "").await?);
            paid.push(load(&address, pid, connections, "/paid/1", &line).await?);
        }
        anyhow::Ok((middle(unpaid), middle(paid), line.len()))
    });
    drop(child.stdin.take());
    child.wait()?;
    let (unpaid, paid, credential_bytes) = measured?;
    Ok(json!({
        "connections": connections,
        "credential_bytes": credential_bytes,
        "unpaid": { "requests_per_second": unpaid.requests_per_second.round(), "cpu_us": round(unpaid.cpu_us) },
        "paid": { "requests_per_second": paid.requests_per_second.round(), "cpu_us": round(paid.cpu_us) },
        "ratio": round(paid.cpu_us / unpaid.cpu_us),
    }))
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn middle(mut seen: Vec<Seen>) -> Seen {
    seen.sort_by(|one, other| one.cpu_us.total_cmp(&other.cpu_us));
    seen.get(seen.len() / 2).copied().unwrap_or(Seen { requests_per_second: 0.0, cpu_us: 0.0 })
}

/// Asks over all connections for the span.
async fn load(address: &str, pid: u32, connections: usize, path: &'static str, headers: &str) -> anyhow::Result<Seen> {
    let mut asking = Vec::new();
    for _ in 0..connections {
        asking.push(Connection::to(address).await?);
    }
    let (before, start) = (cpu_seconds_of(pid)?, Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for mut connection in asking {
        let headers = headers.to_owned();
        tasks.spawn(async move {
            let mut count = 0_u32;
            while start.elapsed() < SPAN {
                let answer = connection.get(path, &headers).await?;
                ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0.0;
    while let Some(done) = tasks.join_next().await {
        count += f64::from(done??);
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds_of(pid)? - before);
    Ok(Seen { requests_per_second: count / seconds, cpu_us: cpu * 1e6 / count })
}
