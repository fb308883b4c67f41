//! A request that may be served: what is held for it, what it is answered with, and how it is charged.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::http::crawler::CrawlerPrice;
use weir_protocol::http::x402::PaymentResponse;
use weir_protocol::http::{Challenge, PaymentReceipt, header as names};
use weir_protocol::id::{HubId, PaymentId};

use super::shown::Dialect;
use crate::gate::balance::{CommitError, Count, Counter, Drawn, Reservation};
use crate::gate::meter::Meter;
use crate::gate::price::{Metering, OnAbort, Price, UnitPrice, Usage};
use weir_protocol::hash::sha256;

/// What is held of the balance.
#[derive(Debug)]
pub(super) enum Taken {
    /// So much, until it is committed or dropped.
    New(Reservation),
    /// Nothing: this very request was paid before.
    Again(Drawn),
}

/// What is said about a payment to who paid it.
#[derive(Debug, Clone)]
pub(super) struct Face {
    pub(super) payment_id: PaymentId,
    /// The payment.
    pub(super) paid: Amount,
    pub(super) currency: Currency,
    pub(super) hub: HubId,
    pub(super) challenge_id: Option<String>,
    pub(super) dialect: Dialect,
    /// Whether crawlers' headers are answered.
    pub(super) crawler: bool,
}

impl Face {
    fn write(&self, headers: &mut HeaderMap, drawn: Amount, left: Amount, metered: bool, now: Time) {
        let mut put = |name: &'static str, text: String| {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        let receipt = PaymentReceipt {
            challenge_id: self.challenge_id.clone(),
            drawn,
            left,
            metered,
            ..PaymentReceipt::new(self.payment_id, self.paid, self.currency, now)
        };
        put(names::PAYMENT_RECEIPT, receipt.to_header());
        if self.dialect == Dialect::X402 {
            put(names::PAYMENT_RESPONSE, PaymentResponse::taken(&self.hub, &self.payment_id, drawn).to_header());
        }
        if self.crawler {
            put(names::CRAWLER_CHARGED, CrawlerPrice { currency: self.currency, amount: drawn }.to_string());
        }
    }
}

/// What a request comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// All that is held.
    Most,
    /// What the price makes of it.
    Usage(Usage),
}

/// A request that is charged, durably.
#[derive(Debug, Clone)]
pub struct Settled {
    /// What was drawn.
    pub drawn: Drawn,
    face: Face,
    at: Time,
}

impl Settled {
    /// The same in the payer's dialect: for the answer's head, or where that is gone and said the most, for its trailers.
    pub fn receipt(&self) -> HeaderMap {
        let mut receipt = HeaderMap::new();
        self.face.write(&mut receipt, self.drawn.drawn, self.drawn.left, false, self.at);
        receipt
    }
}

/// A paid request under way. Dropped, it charges nothing.
#[must_use = "dropped, it charges nothing"]
#[derive(Debug)]
pub struct Charge {
    pub(super) taken: Taken,
    pub(super) face: Face,
    pub(super) price: Price,
    pub(super) metering: Option<Metering>,
    /// What else could be reserved when this was.
    pub(super) left: Amount,
    /// The demand that the next such request would meet, where this balance runs low.
    pub(super) next: Option<Challenge>,
    pub(super) on_abort: OnAbort,
    /// The route's name, for metrics and the upstream.
    pub(super) route: std::sync::Arc<str>,
    pub(super) upstream: Option<http::Uri>,
}

impl Charge {
    /// The payment that pays.
    pub const fn payment_id(&self) -> PaymentId {
        self.face.payment_id
    }

    /// What was paid with it.
    pub const fn paid(&self) -> Amount {
        self.face.paid
    }

    /// Of which currency.
    pub const fn currency(&self) -> Currency {
        self.face.currency
    }

    /// The route's name.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// Another upstream than the gate's, where the route names one.
    pub const fn upstream(&self) -> Option<&http::Uri> {
        self.upstream.as_ref()
    }

    /// The most that the request costs; nothing when it was paid before.
    pub const fn most(&self) -> Amount {
        match &self.taken {
            Taken::New(reservation) => reservation.amount(),
            Taken::Again(_) => Amount::ZERO,
        }
    }

    /// Whether this very request was paid before.
    pub const fn is_again(&self) -> bool {
        matches!(self.taken, Taken::Again(_))
    }

    /// Whether what it costs is known only at its end.
    pub const fn is_metered(&self) -> bool {
        self.price.is_metered()
    }

    /// What counts its use.
    pub fn meter(&self) -> Meter {
        Meter::new(&self.price, self.metering.as_ref())
    }

    /// How usage is read, where it is.
    pub const fn metering(&self) -> Option<&Metering> {
        self.metering.as_ref()
    }

    /// The price.
    pub const fn price(&self) -> &Price {
        &self.price
    }

    /// What becomes of it when the client goes away in the middle of the answer.
    pub const fn on_abort(&self) -> OnAbort {
        self.on_abort
    }

    /// Where the units of a route with steps of price are counted.
    fn counter(&self) -> Option<Counter> {
        let Some(UnitPrice::Plain { tiers, .. }) = self.price.units() else { return None };
        if tiers.len() < 2 {
            return None;
        }
        let mut short = [0; 16];
        short.iter_mut().zip(sha256(self.route.as_bytes()).0).for_each(|(to, from)| *to = from);
        Some(Counter(short))
    }

    /// The gate's headers on an answer that is charged for: in the payer's dialect, for no shared cache. Of a metered answer
    /// they say the most; its trailers say what it came to.
    pub fn write_head(&self, headers: &mut HeaderMap, now: Time) {
        let left = match &self.taken {
            Taken::New(_) => self.left,
            Taken::Again(drawn) => drawn.left,
        };
        let metered = self.is_metered() && !self.is_again();
        self.face.write(headers, self.most(), left, metered, now);
        keep_private(headers);
    }

    /// Where the balance runs low: offers the demand that the next such request would meet, so that who pays ahead need not
    /// ask for it (RFC 9110 §11.6.1 allows the header on any answer).
    pub fn write_next(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.next.as_ref().and_then(|next| HeaderValue::try_from(next.to_header()).ok()) {
            headers.append(header::WWW_AUTHENTICATE, value);
        }
    }

    /// Draws what the request comes to, at most what is held. Returns when that is durable; only then may the answer end.
    ///
    /// Steps of price go on where the balance's earlier requests of this route have ended.
    pub async fn commit(self, used: Used, now: Time) -> Result<Settled, CommitError> {
        let counter = self.counter();
        let Self { taken, face, price, .. } = self;
        let drawn = match taken {
            Taken::Again(drawn) => Drawn { drawn: Amount::ZERO, ..drawn },
            Taken::New(reservation) => {
                let held = reservation.amount();
                match (used, counter) {
                    (Used::Most, _) => reservation.commit(held, now).await?,
                    (Used::Usage(usage), None) => reservation.commit(price.charge(&usage, 0).min(held), now).await?,
                    (Used::Usage(usage), Some(counter)) => {
                        let most = match price.units() {
                            Some(UnitPrice::Plain { max, .. }) => *max,
                            Some(UnitPrice::Tokens { .. }) | None => u64::MAX,
                        };
                        // What is beyond the maximum is served for nothing, so it fills no step.
                        let count = Count { counter, units: usage.units.plain.min(most) };
                        let cost = |before| price.charge(&usage, before).min(held);
                        reservation.commit_counted(count, cost, now).await?
                    }
                }
            }
        };
        Ok(Settled { drawn, face, at: now })
    }

    /// Draws nothing. The same as dropping it.
    pub fn release(self) {}
}

/// `Cache-Control: private` on what was paid for, unless the upstream is stricter.
pub fn keep_private(headers: &mut HeaderMap) {
    let stricter = headers.get_all(header::CACHE_CONTROL).iter().any(|value| {
        let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
        text.split(',').any(|word| matches!(word.trim(), "no-store" | "private"))
    });
    if !stricter {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    // A shared cache in front of the gate that heeds only these two.
    headers.remove(HeaderName::from_static("cdn-cache-control"));
    headers.remove(HeaderName::from_static("surrogate-control"));
    headers.remove(header::EXPIRES);
}
