//! What the machine can do at best, measured in the same run as the load: signatures, hashes, syncs.
//!
//! CPU time, not wall time, so that other work on the machine disturbs little; for the sync, which waits, wall time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use hdrhistogram::Histogram;
use weir_client::protocol::hash::{Hash, sha256, tag};
use weir_client::protocol::keys::{SecretKey, Signature, VerifyingKey};

use super::process::thread_cpu;

/// Different keys at most: a hub that serves more finds none of them in a cache either.
const KEYS_MAX: usize = 4_096;
/// Size of the file that is written to, as of the hub's journal segments.
const FILE_BYTES: u64 = 64 << 20;
/// Largest append.
const APPEND_BYTES_MAX: u64 = 16 << 20;
/// Appends at least, whatever time they take, up to [`APPEND_PATIENCE`].
const APPENDS: u64 = 200;
const APPEND_PATIENCE: Duration = Duration::from_secs(5);

/// CPU time of something that was done many times.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    count: u64,
    cpu: Duration,
}

impl Cost {
    /// Does it over and over for so long.
    fn measure(&mut self, time: Duration, mut each: impl FnMut()) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let before = thread_cpu();
            for _ in 0..256 {
                each();
            }
            self.cpu += thread_cpu().saturating_sub(before);
            self.count += 256;
        }
    }

    /// Mean, in microseconds; 0 when it was never done.
    pub(super) fn us(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.cpu.as_secs_f64() * 1e6 / self.count as f64 }
    }
}

/// Keys, digests and signatures, as many as there are lanes.
#[derive(Debug)]
struct Signed {
    secret: SecretKey,
    key: VerifyingKey,
    digest: Hash,
    signature: Signature,
}

/// The limits of the processor.
#[derive(Debug)]
pub(super) struct Crypto {
    signed: Vec<Signed>,
    pub(super) verify: Cost,
    pub(super) sign: Cost,
    /// SHA-256 of what a payment adds to a lane's state: tagged, 112 bytes.
    pub(super) hash: Cost,
}

impl Crypto {
    /// With as many keys as a hub with so many lanes has.
    pub(super) fn new(lanes: usize) -> anyhow::Result<Self> {
        let signed = (0..lanes.clamp(1, KEYS_MAX) as u64).map(|number| {
            let seed = sha256(&number.to_le_bytes());
            let secret = SecretKey::from_bytes(&seed.0)?;
            let key = secret.public().parse()?;
            let digest = sha256(&seed.0);
            let signature = secret.sign(&digest);
            anyhow::Ok(Signed { secret, key, digest, signature })
        });
        Ok(Self {
            signed: signed.collect::<Result<_, _>>()?,
            verify: Cost::default(),
            sign: Cost::default(),
            hash: Cost::default(),
        })
    }

    /// Measures each for so long.
    pub(super) fn measure(&mut self, time: Duration) -> anyhow::Result<()> {
        let mut all_good = true;
        let mut signed = self.signed.iter().cycle();
        self.verify.measure(time, || {
            if let Some(Signed { key, digest, signature, .. }) = signed.next() {
                all_good &= std::hint::black_box(key.verify(digest, signature));
            }
        });
        anyhow::ensure!(all_good, "a signature that was just made does not check");
        self.sign.measure(time, || {
            if let Some(Signed { secret, digest, .. }) = signed.next() {
                std::hint::black_box(secret.sign(digest));
            }
        });
        let mut state = [0; 112];
        self.hash.measure(time / 4, || {
            let hash = tag::PAYMENT.hash(&state);
            state.iter_mut().zip(hash.0).for_each(|(to, from)| *to = from);
        });
        Ok(())
    }
}

/// The limit of the disk: append and `fdatasync`, into a file that was written full of zeros before, as the hub's are.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    path: std::path::PathBuf,
    at: u64,
    /// Nanoseconds.
    pub(super) syncs: Histogram<u64>,
    /// Bytes of an append, in the last measurement.
    pub(super) append_bytes: u64,
}

impl Disk {
    /// Makes the file in a folder.
    pub(super) fn new(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(format!("weir-bench-{}.disk", std::process::id()));
        let make = || {
            let file = File::options().create_new(true).write(true).open(&path)?;
            let zeros = vec![0; 1 << 20];
            for at in (0..FILE_BYTES).step_by(zeros.len()) {
                file.write_all_at(&zeros, at)?;
            }
            file.sync_all()?;
            std::io::Result::Ok(file)
        };
        let file = make().with_context(|| format!("cannot write `{}`", path.display()))?;
        let syncs = Histogram::new_with_bounds(1_000, 600_000_000_000, 3).map_err(|error| anyhow!("{error}"))?;
        Ok(Self { file, path, at: 0, syncs, append_bytes: 0 })
    }

    /// Appends so many bytes at a time, for so long.
    pub(super) fn measure(&mut self, append_bytes: u64, time: Duration) -> anyhow::Result<()> {
        let bytes = append_bytes.clamp(1, APPEND_BYTES_MAX);
        self.append_bytes = bytes;
        let mut content = vec![0; bytes as usize];
        fastrand::Rng::with_seed(bytes).fill(&mut content);
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < time || (done < APPENDS && start.elapsed() < APPEND_PATIENCE) {
            if self.at + bytes > FILE_BYTES {
                self.at = 0;
            }
            let before = Instant::now();
            self.file.write_all_at(&content, self.at).and_then(|()| self.file.sync_data()).context("cannot sync")?;
            self.syncs.saturating_record(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
            // Records of the journal begin at multiples of 8.
            self.at += bytes.next_multiple_of(8);
            done += 1;
        }
        Ok(())
    }

    /// A quantile, in microseconds.
    pub(super) fn us(&self, quantile: f64) -> f64 {
        self.syncs.value_at_quantile(quantile) as f64 / 1e3
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // In a folder that is removed, or left behind for a person to remove: nothing depends on it.
        let _ = std::fs::remove_file(&self.path);
    }
}
