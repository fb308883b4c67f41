//! A payer as a process of its own, that can be killed. It pays a [`Series`] with many calls at once, and prints a line for
//! each acknowledged payment; whoever started it keeps them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::task::JoinSet;
use weir_client::{Client, Home, Outcome, PayError, PlainKeys};
use weir_protocol::id::{AccountId, LaneId, PaymentId};
use weir_protocol::receipt::ReceiptFile;

use super::orders::Series;

/// Exit code of a payer whose lane stopped.
pub const STOPPED: u8 = 3;
/// Exit code of a payer whose home another process holds.
pub const HOME_HELD: u8 = 4;

/// What a payer is told.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its home.
    pub home: PathBuf,
    /// The lane to pay with.
    pub lane: LaneId,
    /// What to pay.
    pub series: Series,
    /// The first payment of the series.
    pub first: u64,
    /// One past the last.
    pub end: u64,
    /// Calls at once.
    pub window: usize,
}

impl Task {
    fn args(&self) -> Vec<String> {
        let payees: Vec<String> = self.series.payees.iter().map(ToString::to_string).collect();
        let numbers = [self.series.seed, self.first, self.end, self.window as u64];
        let mut args = vec![self.home.display().to_string(), self.lane.to_string(), payees.join(",")];
        args.extend(numbers.iter().map(ToString::to_string));
        args
    }

    /// From a process's arguments.
    pub fn from_args(args: &[String]) -> Self {
        let [home, lane, payees, seed, first, end, window] = args else { panic!("seven arguments, not {args:?}") };
        let payees: Vec<AccountId> = payees.split(',').map(|payee| payee.parse().unwrap()).collect();
        Self {
            home: home.into(),
            lane: lane.parse().unwrap(),
            series: Series { seed: seed.parse().unwrap(), payees },
            first: first.parse().unwrap(),
            end: end.parse().unwrap(),
            window: window.parse().unwrap(),
        }
    }
}

/// An acknowledged payment, as a payer printed it.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// Its number in the series.
    pub index: u64,
    /// Its receipt, as JSON.
    pub receipt: String,
}

impl Acknowledged {
    /// The receipt, checked.
    pub fn checked(&self) -> ReceiptFile {
        let receipt: ReceiptFile = serde_json::from_str(&self.receipt).unwrap();
        receipt.check().unwrap();
        receipt
    }

    /// The payment's id, read without checking anything.
    pub fn payment_id(&self) -> PaymentId {
        let receipt: serde_json::Value = serde_json::from_str(&self.receipt).unwrap();
        receipt["receipt"]["payment_id"].as_str().unwrap().parse().unwrap()
    }
}

/// A payer's process.
#[derive(Debug)]
pub struct Payer {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Payer {
    /// Starts one; every payment that it acknowledges goes to `acknowledged`. Only whole lines count: a line that a kill
    /// cut off was acknowledged to nobody.
    pub fn start(binary: &str, task: &Task, acknowledged: mpsc::Sender<Acknowledged>) -> Self {
        let mut command = Command::new(binary);
        let mut child = command.args(task.args()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
                let (index, receipt) = line.trim_end().split_once(' ').unwrap();
                let one = Acknowledged { index: index.parse().unwrap(), receipt: receipt.to_owned() };
                // The test may have ended.
                let _ = acknowledged.send(one);
                line.clear();
            }
        });
        Self { child, reader: Some(reader) }
    }

    /// `kill -9`; everything that it printed has been read.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
    }

    /// Tells it to begin nothing new, and waits for it.
    pub fn finish(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.wait()
    }

    /// Waits until it ends by itself; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        // Closing its input would tell it to finish: the handle stays with the child while we wait.
        let input = self.child.stdin.take();
        let status = self.child.wait().unwrap();
        drop(input);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status.code()
    }
}

impl Drop for Payer {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The payer's process itself.
#[expect(clippy::print_stderr, reason = "it is a process of its own")]
pub fn main(task: &Task) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    match runtime.block_on(pay(task)) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            eprintln!("payer: {why}");
            ExitCode::from(code)
        }
    }
}

async fn pay(task: &Task) -> Result<(), (u8, String)> {
    let home = open(&task.home)?;
    let client = Client::start(home).map_err(|error| (1, error.to_string()))?;
    let lane = client.lane(task.lane).map_err(|error| (1, error.to_string()))?;
    let (told, mut told_to_stop) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Ends when the other side closes.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = told.send(());
    });
    let mut stopping = false;
    let mut next = task.first;
    let mut calls = JoinSet::new();
    loop {
        while !stopping && next < task.end && calls.len() < task.window {
            let (lane, order, index) = (lane.clone(), task.series.order(next), next);
            calls.spawn(async move { (index, lane.pay(order).await) });
            next += 1;
        }
        tokio::select! {
            called = calls.join_next() => match called {
                None => break,
                Some(called) => acknowledge(called.unwrap())?,
            },
            _ = &mut told_to_stop, if !stopping => stopping = true,
        }
    }
    client.shut_down().await;
    Ok(())
}

fn open(home: &Path) -> Result<Home, (u8, String)> {
    Home::open(home, PlainKeys::sealer()).map_err(|error| match error {
        weir_client::HomeError::Locked(_) => (HOME_HELD, error.to_string()),
        _ => (1, error.to_string()),
    })
}

fn acknowledge((index, outcome): (u64, Result<Outcome, PayError>)) -> Result<(), (u8, String)> {
    match outcome {
        Ok(Outcome::Paid(paid)) => {
            let receipt = paid.receipt().map_err(|error| (1, error.to_string()))?;
            let line = format!("{index} {}\n", serde_json::to_string(&receipt).unwrap());
            let mut out = std::io::stdout().lock();
            let wrote = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            wrote.map_err(|error| (1, error.to_string()))
        }
        Ok(Outcome::Refused(refused)) => Err((1, format!("payment {index} was refused: {}", refused.reject))),
        Ok(Outcome::Unknown(_)) => Err((1, format!("payment {index} is unknown"))),
        Err(error @ PayError::Stopped(_)) => Err((STOPPED, error.to_string())),
        Err(error) => Err((1, error.to_string())),
    }
}
