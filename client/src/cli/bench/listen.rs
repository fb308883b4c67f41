//! The payee who subscribes: takes every credit, checked against its commit, and notes how late it came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use hdrhistogram::Histogram;
use weir_client::{Client, CreditEvent};

use super::super::context::now;
use super::meter::histogram;

/// The last credits have come when so long nothing came.
const QUIET: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(2);

/// What a subscriber has heard.
#[derive(Debug)]
pub(super) struct Heard {
    credits: AtomicU64,
    nanos: AtomicU64,
    /// Milliseconds from a commit's time to its credits' check: commits have no finer time.
    lag_ms: Mutex<Histogram<u64>>,
    failure: Mutex<Option<String>>,
}

impl Heard {
    /// Begins to listen.
    pub(super) fn listen(client: &Client) -> anyhow::Result<Arc<Self>> {
        let heard = Arc::new(Self {
            credits: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            lag_ms: Mutex::new(histogram()),
            failure: Mutex::default(),
        });
        let mut credits = client.credits()?;
        let told = Arc::clone(&heard);
        // Ends with the runtime: a subscription has no end of its own.
        tokio::spawn(async move {
            loop {
                match credits.next().await {
                    Ok(CreditEvent::Credited(group)) => {
                        let (mut count, mut nanos) = (0, 0);
                        for credit in group.payments() {
                            count += 1;
                            nanos += credit.amount.nanos();
                        }
                        let lag_ms = now().0.saturating_sub(group.commit.commit.time.0).max(1);
                        told.lag_ms.lock().unwrap_or_else(PoisonError::into_inner).saturating_record_n(lag_ms, count);
                        told.nanos.fetch_add(nanos, Ordering::Relaxed);
                        told.credits.fetch_add(count, Ordering::Relaxed);
                    }
                    Ok(CreditEvent::Through(_)) => {}
                    Err(error) => {
                        *told.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                        return;
                    }
                }
            }
        });
        Ok(heard)
    }

    /// Payments heard of.
    pub(super) fn credits(&self) -> u64 {
        self.credits.load(Ordering::Relaxed)
    }

    /// Their sum.
    pub(super) fn nanos(&self) -> u64 {
        self.nanos.load(Ordering::Relaxed)
    }

    /// A quantile of the lag.
    pub(super) fn lag_ms(&self, quantile: f64) -> u64 {
        self.lag_ms.lock().unwrap_or_else(PoisonError::into_inner).value_at_quantile(quantile)
    }

    /// Waits until so many payments were heard of, as long as more come.
    pub(super) async fn wait_for(&self, payments: u64) -> anyhow::Result<()> {
        let (mut last, mut since) = (self.credits(), Instant::now());
        loop {
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(failure) = failure {
                return Err(anyhow!("the payee's subscription ended: {failure}"));
            }
            let credits = self.credits();
            if credits >= payments {
                return Ok(());
            }
            if credits > last {
                (last, since) = (credits, Instant::now());
            }
            anyhow::ensure!(since.elapsed() < QUIET, "the payee has heard of {credits} payments, not of {payments}");
            tokio::time::sleep(LOOK).await;
        }
    }
}
