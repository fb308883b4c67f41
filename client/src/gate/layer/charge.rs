//! What a handler knows of its payment, and how it is charged exactly once: by the handler, at the answer's end, or never.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use tokio::sync::Mutex;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::PaymentId;

use crate::connection::now;
use crate::gate::balance::{CommitError, Drawn};
use crate::gate::desk::{self, Settled, Used};
use crate::gate::price::{OnAbort, Units, Usage};

/// Who paid for a request, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The payment's public id.
    pub payment_id: PaymentId,
    /// What was paid with it, in units of the currency. Requests draw from it.
    pub paid: Amount,
    /// The most that this request costs; nothing when it was paid before.
    pub most: Amount,
    /// Of which currency.
    pub currency: Currency,
    /// Whether this very request was paid before: a retry, or a page that is read again.
    pub again: bool,
    /// Whether the price hangs on the units that are counted.
    pub metered: bool,
    /// The route's name.
    pub route: Arc<str>,
}

/// Why nothing is drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChargeError {
    /// The answer has ended without being charged for.
    #[error("the answer has ended, and nothing was charged for it")]
    Ended,
    /// The store.
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// The charge of one request; clones are handles to the same one. The handler finds it in the request's extensions.
///
/// Unless the handler commits by itself, the request is charged when its answer ends well.
#[derive(Clone)]
pub struct Charge(Arc<Shared>);

struct Shared {
    payment: Option<Payment>,
    on_abort: OnAbort,
    units: AtomicU64,
    stage: Mutex<Stage>,
}

type Drawing = Pin<Box<dyn Future<Output = Result<Settled, CommitError>> + Send>>;

enum Stage {
    /// Nothing to charge.
    Free,
    /// It is held.
    Held(Box<desk::Charge>),
    /// On its way to the disk. Who waits for it may go: the next one waits on, and it counts without anybody.
    Drawing(Drawing),
    /// It was drawn, or the store failed.
    Done(Result<Settled, CommitError>),
    /// It was given back.
    Ended,
}

impl Charge {
    pub(super) fn free() -> Self {
        Self::new(None, OnAbort::Release, Stage::Free)
    }

    pub(super) fn paid(charge: Box<desk::Charge>) -> Self {
        let payment = Payment {
            payment_id: charge.payment_id(),
            paid: charge.paid(),
            most: charge.most(),
            currency: charge.currency(),
            again: charge.is_again(),
            metered: charge.is_metered(),
            route: charge.route().into(),
        };
        let on_abort = charge.on_abort();
        Self::new(Some(payment), on_abort, Stage::Held(charge))
    }

    fn new(payment: Option<Payment>, on_abort: OnAbort, stage: Stage) -> Self {
        Self(Arc::new(Shared { payment, on_abort, units: AtomicU64::new(0), stage: Mutex::new(stage) }))
    }

    /// Who paid; none: the request is free.
    pub fn payment(&self) -> Option<&Payment> {
        self.0.payment.as_ref()
    }

    /// Whether the request costs nothing.
    pub fn is_free(&self) -> bool {
        self.0.payment.is_none()
    }

    /// So many units were used so far: what counts is the last number that was said when the answer ends, at most the
    /// most that the price reserves. Without any, a metered request costs its base price. Fixed prices do not heed it.
    pub fn set_units(&self, units: u64) {
        self.0.units.store(units, Ordering::Release);
    }

    /// So many more were used.
    pub fn add_units(&self, units: u64) {
        let add = |before: u64| Some(before.saturating_add(units));
        let _ = self.0.units.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }

    /// How many were said.
    pub fn units(&self) -> u64 {
        self.0.units.load(Ordering::Acquire)
    }

    /// Charges now, for so many units; what was drawn. Returns when that is durable, and nothing gives it back: not an error
    /// that is answered afterwards, nor a client that has gone. For what cannot be undone, commit before it is done.
    ///
    /// Committed once, further calls draw nothing and say the same. Fixed prices do not heed the units.
    pub async fn commit(&self, units: u64) -> Result<Drawn, ChargeError> {
        if self.is_free() {
            return Ok(Drawn { drawn: Amount::ZERO, until: Time(0), left: Amount::ZERO });
        }
        let usage = Usage { units: Units::plain(units), ..Usage::default() };
        let settled = self.settle(Used::Usage(usage)).await?;
        Ok(settled.drawn)
    }

    async fn settle(&self, used: Used) -> Result<Settled, ChargeError> {
        let mut stage = self.0.stage.lock().await;
        loop {
            match &mut *stage {
                Stage::Held(_) => {
                    let Stage::Held(charge) = std::mem::replace(&mut *stage, Stage::Ended) else { continue };
                    *stage = Stage::Drawing(Box::pin(charge.commit(used, now())));
                }
                Stage::Drawing(drawing) => {
                    let done = drawing.await;
                    *stage = Stage::Done(done);
                }
                Stage::Done(done) => return Ok(done.clone()?),
                Stage::Free | Stage::Ended => return Err(ChargeError::Ended),
            }
        }
    }

    fn counted(&self) -> Used {
        Used::Usage(Usage { units: Units::plain(self.units()), ..Usage::default() })
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge").field("payment", &self.0.payment).field("units", &self.units()).finish_non_exhaustive()
    }
}

/// Owns the end of one exchange. Dropped before it was settled, it gives back what is held, whatever handles are left.
pub(super) struct Guard {
    charge: Charge,
    /// A good answer has begun: only the client can make it end early from now on.
    answers: bool,
    /// The head said the most, and the trailers say what it came to.
    open: bool,
}

impl Guard {
    pub(super) const fn new(charge: Charge) -> Self {
        Self { charge, answers: false, open: false }
    }

    pub(super) fn is_paid(&self) -> bool {
        !self.charge.is_free()
    }

    /// The head of a good answer goes out; `open`: it said the most.
    pub(super) const fn answers(&mut self, open: bool) {
        self.answers = true;
        self.open = open;
    }

    /// The answer failed by itself: that is nobody's to pay.
    pub(super) const fn failed(&mut self) {
        self.answers = false;
    }

    /// Charges for what was counted, or this.
    pub(super) async fn settle(&self, used: Option<Used>) -> Result<Settled, ChargeError> {
        self.charge.settle(used.unwrap_or_else(|| self.charge.counted())).await
    }

    /// The same, to be kept beside it.
    pub(super) fn settling(&self) -> Pin<Box<dyn Future<Output = Result<Settled, ChargeError>> + Send>> {
        let charge = self.charge.clone();
        Box::pin(async move {
            let used = charge.counted();
            charge.settle(used).await
        })
    }

    /// What follows the body: the receipt only where the head said the most.
    pub(super) fn trailers(&self, trailers: Option<HeaderMap>, settled: &Settled) -> Option<HeaderMap> {
        if !self.open {
            return trailers;
        }
        let mut all = trailers.unwrap_or_default();
        all.extend(settled.receipt());
        Some(all)
    }

    /// Writes what is known of the charge before the body; whether its end has more to say.
    pub(super) async fn write_head(&self, headers: &mut HeaderMap) -> Result<bool, ChargeError> {
        let mut stage = self.charge.0.stage.lock().await;
        loop {
            match &mut *stage {
                Stage::Held(charge) => {
                    charge.write_head(headers, now());
                    charge.write_next(headers);
                    return Ok(charge.is_metered() && !charge.is_again());
                }
                Stage::Drawing(drawing) => {
                    let done = drawing.await;
                    *stage = Stage::Done(done);
                }
                Stage::Done(done) => {
                    headers.extend(done.clone()?.receipt());
                    return Ok(false);
                }
                Stage::Free | Stage::Ended => return Err(ChargeError::Ended),
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Locked, it is being drawn: that counts.
        let Ok(mut stage) = self.charge.0.stage.try_lock() else { return };
        if !matches!(*stage, Stage::Held(_)) {
            return;
        }
        let Stage::Held(charge) = std::mem::replace(&mut *stage, Stage::Ended) else { return };
        if self.answers && self.charge.0.on_abort == OnAbort::Charge && !std::thread::panicking() {
            let drawing = charge.commit(self.charge.counted(), now());
            // Outside a runtime the process is ending: what a crash leaves undone stays undone.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    if let Err(error) = drawing.await {
                        tracing::error!(%error, "an answer that its client broke off is not charged for");
                    }
                });
            }
        }
    }
}
