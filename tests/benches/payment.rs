//! What a payment costs the hub at one signature per payment, beside the limits measured in the same run: raw Schnorr
//! verify, and append + fdatasync on the same file system. Ratios are what counts: the machine may be shared.
//!
//! The pipeline runs in this process without QUIC; frames are built and signed before the clock starts.
//! `cargo bench -p weir-tests --bench payment [-- PAYMENTS]`
#![expect(clippy::print_stdout, reason = "the result of a benchmark")]

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use tokio::sync::mpsc;
use weir_hub::clock::wall_ms;
use weir_hub::engine::said::Said;
use weir_hub::engine::shard::{Input, StreamId};
use weir_hub::pipeline::recover::{self, Settings};
use weir_hub::pipeline::{Handle, ReplyTo};
use weir_protocol::act::{Act, Certificate, Deposit, Policy, Register};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::ChannelTerms;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, HubId, Reference};
use weir_protocol::keys::SecretKey;
use weir_protocol::payment::{Frame, Head, Payment, Run, next_state};

const CHANNELS: u64 = 100;
const IBAN: &str = "DE89370400440532013000";

fn key(number: u64) -> anyhow::Result<SecretKey> {
    let mut bytes = [7; 32];
    bytes.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    SecretKey::from_bytes(&bytes).context("a key of the benchmark")
}

/// CPU time of this process: user and system, in seconds (Linux counts ticks of 10 ms).
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    Ok((ticks(11) + ticks(12)) / 100.0)
}

fn start(data: &Path) -> anyhow::Result<Handle> {
    let hub = HubId(key(1)?.public());
    let certificate = Certificate { key: key(2)?.public(), not_before: Time(0), not_after: Time::MAX };
    let signature = key(1)?.sign(&Act::Certificate(certificate).digest(&hub));
    Ok(recover::start(Settings {
        data: data.to_owned(),
        anchor: None,
        accept_rollback: None,
        shards: 1,
        segment_bytes: 64 << 20,
        policy: Policy {
            open_registration: true,
            refund_days: 90,
            payment_max: Amount::ZERO,
            payout_min: Amount::from_nanos(10_000_000),
            fee_basis_points: 0,
            currencies: vec![Currency::EUR],
        },
        hub,
        key: key(2)?,
        certificate: SignedCertificate { certificate, signature },
        secret: [9; 32],
    })?)
}

async fn act(handle: &Handle, act: Act, by: &SecretKey) -> anyhow::Result<()> {
    let shard = match &act {
        Act::Open(terms) => handle.shard_of(&terms.id().0),
        _ => 0,
    };
    let signed = Box::new(act.sign(&handle.hub(), by));
    match handle.request(shard, |reply| Input::Act { signed, refund: None, reply }).await? {
        Said::Done { .. } => Ok(()),
        other => bail!("refused: {other:?}"),
    }
}

async fn prepare(handle: &Handle) -> anyhow::Result<Vec<(ChannelTerms, SecretKey)>> {
    let payer = key(10)?;
    let account = AccountId(payer.public());
    let register = |account, name: &str| Register { number: 1, account, name: name.into(), iban: IBAN.into() };
    act(handle, Act::Register(register(account, "Payer")), &payer).await?;
    let payee = key(11)?;
    act(handle, Act::Register(register(AccountId(payee.public()), "Payee")), &payee).await?;
    let deposit = Deposit {
        account: Some(account),
        currency: Currency::EUR,
        amount: "1000000".parse()?,
        connector: IBAN.into(),
        bank_reference: "1".into(),
    };
    handle.order(Act::Deposit(deposit)).await?;
    let mut channels = Vec::new();
    for number in 0..CHANNELS {
        let lane_key = key(1000 + number)?;
        let terms = ChannelTerms {
            hub: handle.hub(),
            account,
            scheme: 0,
            key: lane_key.public(),
            currency: Currency::EUR,
            capacity: "1000".parse()?,
            opened_at: Time(wall_ms()),
            expires_at: Time(wall_ms() + 86_400_000),
            renew: false,
            salt: [1; 32],
        };
        act(handle, Act::Open(terms), &payer).await?;
        channels.push((terms, lane_key));
    }
    Ok(channels)
}

/// Frames of one payment each, signed ahead.
fn frames(channels: &[(ChannelTerms, SecretKey)], each: u64) -> anyhow::Result<Vec<Vec<Frame>>> {
    let payee = AccountId(key(11)?.public());
    channels
        .iter()
        .map(|(terms, lane_key)| {
            let lane = terms.lane_zero().id();
            let mut head = Head::empty(&lane);
            (1..=each)
                .map(|sequence| {
                    let payment =
                        Payment { payee, amount: Amount::from_nanos(sequence), reference: Reference([3; 32]) };
                    head.state = next_state(&head.state, sequence, &payment);
                    head.total = head.total.checked_add(payment.amount)?;
                    head.sequence = sequence;
                    let run = Run::new(sequence, &[payment]).context("a run")?;
                    let signature = lane_key.sign(&head.digest(&lane));
                    Ok(Frame { previous_sequence: sequence - 1, run, valid_until: Time(0), signature })
                })
                .collect()
        })
        .collect()
}

/// Pays everything, one payment in flight a channel, so that no two share a signature check.
async fn pay(handle: &Handle, channels: &[(ChannelTerms, SecretKey)], frames: Vec<Vec<Frame>>) -> anyhow::Result<()> {
    let mut tasks = Vec::new();
    for (((terms, _), frames), stream) in channels.iter().zip(frames).zip(0..) {
        let (handle, lane) = (handle.clone(), terms.lane_zero().id());
        let shard = handle.shard_of(&terms.id().0);
        let stream = StreamId(stream);
        tasks.push(tokio::spawn(async move {
            let (queue, mut answers) = mpsc::unbounded_channel();
            let reply = ReplyTo::new(0, queue);
            handle.send(shard, Input::Attach { lane, stream, void_through: 0, reply }).await?;
            answers.recv().await.context("no answer")?;
            for frame in frames {
                handle.send(shard, Input::Frame { lane, stream, frame }).await?;
                let (_, said) = answers.recv().await.context("no answer")?;
                ensure!(matches!(said, Said::Taken { .. }), "refused: {said:?}");
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Microseconds per call, the median of several rounds.
fn measure(rounds: u32, calls: u32, mut call: impl FnMut()) -> f64 {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let begin = Instant::now();
            (0..calls).for_each(|_| call());
            begin.elapsed()
        })
        .collect();
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    median.as_secs_f64() * 1e6 / f64::from(calls)
}

fn append_us(dir: &Path) -> anyhow::Result<f64> {
    let path = dir.join("append");
    let mut file = std::fs::File::create(&path)?;
    file.write_all(&vec![0; 8 << 20])?;
    file.sync_all()?;
    let mut file = std::fs::File::options().write(true).open(&path)?;
    let block = [1; 4096];
    let mut failed = None;
    let us = measure(51, 4, || {
        if let Err(error) = file.write_all(&block).and_then(|()| file.sync_data()) {
            failed = Some(error);
        }
    });
    failed.map_or(Ok(us), |error| Err(error.into()))
}

fn main() -> anyhow::Result<()> {
    let payments: u64 = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(20_000);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let signer = key(5)?;
    let digest = Hash([4; 32]);
    let signature = signer.sign(&digest);
    let parsed = signer.public().parse().context("a key")?;
    let verify_us = measure(21, 200, || assert!(parsed.verify(&digest, &signature), "a good signature"));
    let sign_us = measure(21, 200, || assert!(!signer.sign(&digest).is_zero(), "a signature"));
    let append_us = append_us(dir.path())?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let result = runtime.block_on(async {
        let handle = start(&dir.path().join("data"))?;
        let channels = prepare(&handle).await?;
        let each = payments.div_ceil(CHANNELS);
        let frames = frames(&channels, each)?;
        let (cpu, begin) = (cpu_seconds()?, Instant::now());
        pay(&handle, &channels, frames).await?;
        let (cpu, wall) = (cpu_seconds()? - cpu, begin.elapsed());
        let commits = handle.read(|view| view.newest.map_or(0, |newest| newest.record.header().number)).await?;
        handle.stop();
        let paid = each * CHANNELS;
        #[expect(clippy::cast_precision_loss, reason = "a benchmark's count is far below 2^52")]
        let count = paid as f64;
        let hub_us = cpu * 1e6 / count;
        anyhow::Ok(json!({
            "payments": paid,
            "commits": commits,
            "payments_per_second": (count / wall.as_secs_f64()).round(),
            "hub_cpu_us_per_payment": hub_us,
            "limits": {"schnorr_verify_us": verify_us, "schnorr_sign_us": sign_us, "append_fdatasync_us_p50": append_us},
            "ratios": {"hub_cpu_to_verify": hub_us / verify_us},
        }))
    })?;
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}
