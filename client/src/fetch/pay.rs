//! Buying: what to show for a request, when to pay, and what its answer means.
//!
//! A [`Payer`] belongs to one home. An [`Attempt`] is one logical request: it is paid for at most once, whatever the server
//! answers. Knows headers and no sockets; [`super::middleware`] sends.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::OwnedMutexGuard;
use tokio::sync::mpsc::UnboundedSender;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::http::problem::PaymentProblem;
use weir_protocol::http::x402::PaymentPayload;
use weir_protocol::http::{Credential, MAX_CREDENTIAL_BYTES, Payload, header};
use weir_protocol::id::{AccountId, Reference};
use weir_protocol::lane::payer::Order;
use weir_protocol::reject::Reject;

use super::budget::{BudgetError, Spend};
use super::demand::{Demand, DemandError, Rules, credential_header};
use super::purse::{Purse, PurseError, Settled, ask};
use super::store::{BeginError, Store};
use super::tail::{Open, drawn, receipts};
use super::wallet::{Purchase, Target, Want};
use crate::connection::now;
use crate::error::HomeError;

/// Longest time that the hub is given to take a payment; the challenge's end comes first.
const PAYMENT_MS: u64 = 30_000;
/// Resources whose requests wait for one payment, at once; more begin anew.
const MAX_FLIGHTS: usize = 4_096;

/// Why a request was not served, or not paid for.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The demand is not one that can be met. Nothing was paid.
    #[error("nothing was paid: {0}")]
    Demand(#[from] DemandError),
    /// A limit is in the way. Nothing was paid.
    #[error("nothing was paid: {0}")]
    Budget(#[from] BudgetError),
    /// The hub or the lane. Nothing was paid.
    #[error("nothing was paid: {0}")]
    Purse(#[source] PurseError),
    /// The hub refused for good. Nothing was paid.
    #[error("the hub refused the payment for good, nothing was paid: {0}")]
    Refused(Reject),
    /// The outcome of a payment is not known. It is never paid again: the same request asks.
    #[error("nobody can say yet whether {amount} {currency} was paid (reference {reference})")]
    Unknown {
        /// The payment's reference.
        reference: Reference,
        /// Its amount.
        amount: Amount,
        /// Of which currency.
        currency: Currency,
    },
    /// It was paid for, and the server demands a payment all the same.
    #[error("{amount} {currency} was paid, and the server does not take it{}", .problem.map(|problem| format!(": {}", problem.title())).unwrap_or_default())]
    NotServed {
        /// The payment's reference.
        reference: Reference,
        /// What was paid.
        amount: Amount,
        /// Of which currency.
        currency: Currency,
        /// Who was paid.
        payee: AccountId,
        /// What the server says is wrong.
        problem: Option<PaymentProblem>,
    },
    /// The caller's own `Authorization` is in the way.
    #[error("the request carries an `Authorization` of its own, and the server takes payments nowhere else")]
    AuthorizationTaken,
    /// The credential is longer than headers may be.
    #[error("the credential is longer than {MAX_CREDENTIAL_BYTES} bytes")]
    TooLong,
    /// The body was sent and cannot be sent again with the payment. Nothing was paid.
    #[error("nothing was paid: the body is a stream longer than {limit} bytes, and it cannot be sent a second time")]
    BodyOnce {
        /// Most bytes of a stream that are kept to be sent again.
        limit: usize,
    },
    /// The home's files.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// No room in the wallet.
    #[error("nothing was paid: {0}")]
    Full(super::wallet::WalletFull),
    /// A task died.
    #[error("internal fault: {0}")]
    Task(String),
}

/// How much is paid at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prepay {
    /// The price.
    #[default]
    Exact,
    /// So many times the price.
    Times(u32),
    /// This amount, or the price when it is more.
    Amount(Amount),
}

impl Prepay {
    fn of(self, price: Amount) -> Amount {
        match self {
            Self::Exact => price,
            Self::Times(times) => Amount::from_nanos(price.nanos().saturating_mul(u64::from(times.max(1)))).max(price),
            Self::Amount(amount) => amount.max(price),
        }
    }
}

/// Habits of a [`Payer`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Whom to pay.
    pub rules: Rules,
    /// How much at once.
    pub prepay: Prepay,
    /// Give up what was paid for and not served, and pay again. A person's word.
    pub pay_again: bool,
    /// Is told of each payment that was made.
    pub told: Option<UnboundedSender<Bought>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { rules: Rules::default(), prepay: Prepay::Exact, pay_again: false, told: None }
    }
}

/// A payment that was made for a request.
#[derive(Debug, Clone)]
pub struct Bought {
    /// For what.
    pub target: Target,
    /// Its reference.
    pub reference: Reference,
    /// What was paid.
    pub amount: Amount,
    /// Of which currency.
    pub currency: Currency,
    /// Who was paid.
    pub payee: AccountId,
    /// Where the receipt is kept.
    pub receipt_file: Option<PathBuf>,
}

/// What a request cost: an extension of the answer.
#[derive(Debug, Clone)]
pub struct Paid {
    /// The payment that was shown.
    pub reference: Reference,
    /// What was paid for this very request; zero when it was served from what was bought before.
    pub paid: Amount,
    /// What the server drew for this answer; none when it does not say.
    pub drawn: Option<Amount>,
    /// What is left of the payment there, as far as is known.
    pub left: Amount,
    /// The answer is metered: it can still cost less.
    pub metered: bool,
    /// Of which currency.
    pub currency: Currency,
    /// Who was paid.
    pub payee: AccountId,
    /// The server's name for itself.
    pub realm: String,
    /// Where the receipt is kept, when it was paid now.
    pub receipt_file: Option<PathBuf>,
    /// What the answer's head took off what was left before it.
    pub(super) taken: Amount,
    /// What the answer's trailers said: drawn, left.
    pub(super) end: Arc<OnceLock<(Amount, Amount)>>,
}

impl Paid {
    /// The same as far as it is known now: of a metered answer that was read to its end, what it came to.
    #[must_use]
    pub fn at_end(&self) -> Self {
        match self.end.get() {
            Some(&(drawn, left)) => Self { drawn: Some(drawn), left, metered: false, ..self.clone() },
            None => self.clone(),
        }
    }
}

/// Buys within a budget. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Payer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    purse: Arc<dyn Purse>,
    store: Store,
    options: Options,
    /// Requests that wait for one payment.
    flights: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// What a request holds of a purchase, until it is dropped.
#[derive(Debug)]
struct Holding {
    store: Store,
    reference: Reference,
    amount: Amount,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.store.wallet(|wallet| wallet.free(&self.reference, self.amount));
    }
}

/// A credential that a request shows.
#[derive(Debug)]
struct Shown {
    purchase: Purchase,
    credential: Credential,
    /// Paid for by this request.
    fresh: bool,
    receipt_file: Option<PathBuf>,
    _holding: Holding,
}

/// One logical request.
#[derive(Debug)]
pub struct Attempt {
    payer: Payer,
    target: Target,
    key: Option<String>,
    since: Time,
    tried: Vec<Reference>,
    shown: Option<Shown>,
}

/// What to do about a 402.
#[derive(Debug)]
pub enum Next {
    /// Send again with what [`Attempt::credential`] puts in.
    Show,
    /// The demand is for others to meet: the answer goes to the caller as it is.
    Pass(DemandError),
}

impl Payer {
    /// Pays with a purse within the limits of a store.
    pub fn new(purse: Arc<dyn Purse>, store: Store, options: Options) -> Self {
        Self { inner: Arc::new(Inner { purse, store, options, flights: Mutex::default() }) }
    }

    /// What was bought, and the budget.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Its habits.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// A logical request, with the key that the caller gave it.
    pub fn attempt(&self, target: Target, key: Option<String>) -> Attempt {
        Attempt { payer: self.clone(), target, key, since: now(), tried: Vec::new(), shown: None }
    }

    /// A balance that has less left than what this costs: time to pay ahead.
    pub(super) fn runs_low(&self, target: &Target, left: Amount) -> bool {
        if self.inner.options.prepay == Prepay::Exact {
            return false;
        }
        let price = self.inner.store.wallet(|wallet| wallet.price(target));
        price.is_some_and(|price| left < price)
    }

    /// Requests that can be served by one payment wait for it together.
    fn flight(&self, target: &Target) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let name = match self.inner.options.prepay {
            Prepay::Exact if target.is_safe() => target.to_string(),
            Prepay::Exact => return None,
            Prepay::Times(_) | Prepay::Amount(_) => target.origin.clone(),
        };
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.len() >= MAX_FLIGHTS {
            flights.retain(|_, one| one.strong_count() > 0);
        }
        if let Some(running) = flights.get(&name).and_then(Weak::upgrade) {
            return Some(running);
        }
        let new = Arc::new(tokio::sync::Mutex::new(()));
        flights.insert(name, Arc::downgrade(&new));
        Some(new)
    }

    /// Finds out what became of a purchase whose outcome is open. True: it is paid.
    async fn settle(&self, open: &Purchase) -> Result<bool, FetchError> {
        let unknown =
            || FetchError::Unknown { reference: open.reference, amount: open.amount, currency: open.currency };
        let order = Order { payee: open.payee, amount: open.amount, reference: open.reference, deadline: None };
        match ask(&*self.inner.purse, open.lane, order).await {
            Ok(Settled::Paid(receipt, _)) => {
                self.blocking(move |store, reference| store.paid(reference, Payload::new(&receipt)), open.reference)
                    .await?;
                Ok(true)
            }
            Ok(Settled::Refused(_)) => {
                self.blocking(Store::unpaid, open.reference).await?;
                Ok(false)
            }
            Ok(Settled::Unknown) => Err(unknown()),
            Err(error) => {
                tracing::warn!(%error, "cannot ask what became of a payment");
                Err(unknown())
            }
        }
    }

    async fn blocking(
        &self,
        write: impl FnOnce(&Store, Reference) -> Result<(), HomeError> + Send + 'static,
        reference: Reference,
    ) -> Result<(), FetchError> {
        let store = self.inner.store.clone();
        let done = tokio::task::spawn_blocking(move || write(&store, reference)).await;
        Ok(done.map_err(|error| FetchError::Task(error.to_string()))??)
    }

    /// Pays a demand once. The payment goes on when the caller goes away, and is kept for the next request.
    async fn buy(
        &self,
        target: &Target,
        key: Option<&str>,
        demand: &Demand,
        alone: Option<OwnedMutexGuard<()>>,
    ) -> Result<Shown, FetchError> {
        let price = demand.price();
        let spend = |amount| Spend { host: target.host().to_owned(), currency: demand.currency(), price, amount };
        let store = &self.inner.store;
        // More at once only as far as the budget goes.
        let wanted = self.inner.options.prepay.of(price);
        let amount = if store.budget(|budget| budget.check(now(), &spend(wanted))).is_ok() { wanted } else { price };
        store.budget(|budget| budget.check(now(), &spend(amount)))?;
        let lane = self.inner.purse.lane_for(demand.currency(), demand.request.recipient, amount).await;
        let lane = lane.map_err(FetchError::Purse)?;
        let at = now();
        let purchase = Purchase {
            reference: demand.challenge.reference(),
            target: target.clone(),
            challenge: demand.challenge.clone(),
            price,
            amount,
            currency: demand.currency(),
            payee: demand.request.recipient,
            hub: demand.request.details.hub,
            lane,
            at,
            period: 0,
            key: key.map(str::to_owned),
            dialects: demand.dialects,
            metered: demand.request.details.metered,
            payload: None,
            left: amount,
            served: false,
        };
        let deadline = demand.expires_at.min(at.plus_ms(PAYMENT_MS));
        let payer = self.clone();
        let task = tokio::spawn(async move {
            let bought = payer.pay(purchase, deadline).await;
            // Those who wait for the same see the payment, also when the caller went away.
            drop(alone);
            bought
        });
        task.await.map_err(|error| FetchError::Task(error.to_string()))?
    }

    async fn pay(&self, purchase: Purchase, deadline: Time) -> Result<Shown, FetchError> {
        let (reference, store) = (purchase.reference, self.inner.store.clone());
        if store.wallet(|wallet| wallet.get(&reference).is_some()) {
            // A server that demands twice with one challenge: it was met, or is being met, once.
            return Err(not_served(&purchase, None));
        }
        let begun = purchase.clone();
        let began = tokio::task::spawn_blocking(move || store.begin(begun, now())).await;
        began.map_err(|error| FetchError::Task(error.to_string()))?.map_err(|error| match error {
            BeginError::Budget(error) => FetchError::Budget(error),
            BeginError::Full(error) => FetchError::Full(error),
            BeginError::Home(error) => FetchError::Home(error),
        })?;
        let holding = Holding { store: self.inner.store.clone(), reference, amount: Amount::ZERO };
        let order = Order { payee: purchase.payee, amount: purchase.amount, reference, deadline: Some(deadline) };
        let unknown = || FetchError::Unknown { reference, amount: purchase.amount, currency: purchase.currency };
        match self.inner.purse.pay(purchase.lane, order).await {
            Ok(Settled::Paid(receipt, receipt_file)) => {
                let payload = Payload::new(&receipt);
                let kept = payload.clone();
                self.blocking(move |store, reference| store.paid(reference, kept), reference).await?;
                if let Some(told) = &self.inner.options.told {
                    // Nobody listens: nothing is lost.
                    let _ = told.send(Bought {
                        target: purchase.target.clone(),
                        reference,
                        amount: purchase.amount,
                        currency: purchase.currency,
                        payee: purchase.payee,
                        receipt_file: receipt_file.clone(),
                    });
                }
                let credential =
                    Credential { challenge: purchase.challenge.clone(), source: None, payload: payload.clone() };
                let purchase = Purchase { payload: Some(payload), ..purchase };
                // From now on the request counts on the price.
                let price = purchase.price;
                self.inner.store.wallet(|wallet| wallet.hold(reference, price));
                drop(holding);
                let holding = Holding { store: self.inner.store.clone(), reference, amount: price };
                Ok(Shown { purchase, credential, fresh: true, receipt_file, _holding: holding })
            }
            Ok(Settled::Refused(reject)) => {
                self.blocking(Store::unpaid, reference).await?;
                Err(FetchError::Refused(reject))
            }
            Ok(Settled::Unknown) => Err(unknown()),
            // The lane did not take the order at all, and signed nothing for it.
            Err(error @ PurseError::Pay(_)) => {
                self.blocking(Store::unpaid, reference).await?;
                Err(FetchError::Purse(error))
            }
            Err(error) => {
                tracing::warn!(%error, "the outcome of a payment is not known");
                Err(unknown())
            }
        }
    }
}

fn not_served(purchase: &Purchase, problem: Option<PaymentProblem>) -> FetchError {
    FetchError::NotServed {
        reference: purchase.reference,
        amount: purchase.amount,
        currency: purchase.currency,
        payee: purchase.payee,
        problem,
    }
}

impl Attempt {
    /// What is requested.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// The key of this logical request.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Gives it a key, when it has none.
    pub fn set_key(&mut self, key: String) {
        self.key.get_or_insert(key);
    }

    /// Whether a credential is shown.
    pub const fn shows(&self) -> bool {
        self.shown.is_some()
    }

    /// Before anything was sent: shows what was bought for this before, or a balance when the price is known.
    pub fn begin(&mut self) {
        self.shown = self.choose(None);
    }

    fn choose(&self, demand: Option<&Demand>) -> Option<Shown> {
        let store = &self.payer.inner.store;
        let max_price = store.budget(super::budget::Budget::per_request);
        let asked = demand.map(Demand::asked);
        let (purchase, holding) = store.wallet(|wallet| {
            let want = Want {
                target: &self.target,
                key: self.key.as_deref(),
                asked: asked.as_ref(),
                max_price,
                since: self.since,
                tried: &self.tried,
            };
            let purchase = wallet.choose(&want)?.clone();
            let known = asked.as_ref().map(|asked| asked.price).or_else(|| wallet.price(&self.target));
            let amount = if purchase.is_balance() { known.unwrap_or(purchase.price) } else { Amount::ZERO };
            wallet.hold(purchase.reference, amount);
            Some((purchase.clone(), Holding { store: store.clone(), reference: purchase.reference, amount }))
        })?;
        let credential = purchase.credential()?;
        Some(Shown { purchase, credential, fresh: false, receipt_file: None, _holding: holding })
    }

    /// Puts in the header that carries the credential; a payment that the caller put in gives way to it. Without one to
    /// show, the request stays as it is.
    pub fn credential(&self, headers: &mut HeaderMap) -> Result<(), FetchError> {
        let Some(shown) = &self.shown else { return Ok(()) };
        for name in [header::PAYMENT_AUTHORIZATION, header::PAYMENT_SIGNATURE] {
            headers.remove(name);
        }
        let is_payment = |value: &HeaderValue| value.to_str().is_ok_and(|text| Credential::from_header(text).is_some());
        if headers.get(header::AUTHORIZATION).is_some_and(is_payment) {
            headers.remove(header::AUTHORIZATION);
        }
        let dialects = shown.purchase.dialects;
        let name = credential_header(&shown.purchase.challenge)?;
        let taken = name == http::header::AUTHORIZATION && headers.contains_key(&name);
        let (name, text) = if dialects.payment && !taken {
            (name, shown.credential.to_header())
        } else if dialects.x402 {
            let mut payload = PaymentPayload::of(&shown.credential).map_err(DemandError::Foreign)?;
            payload.extensions =
                self.key.as_ref().map(|key| serde_json::json!({"payment-identifier": {"info": {"id": key}}}));
            (http::HeaderName::from_static(header::PAYMENT_SIGNATURE), payload.to_header())
        } else {
            return Err(FetchError::AuthorizationTaken);
        };
        if text.len() > MAX_CREDENTIAL_BYTES {
            return Err(FetchError::TooLong);
        }
        let mut value = HeaderValue::from_str(&text).map_err(|_| FetchError::TooLong)?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    }

    /// The server demands a payment: shows what is there, or pays, at most once for this request.
    pub async fn demanded(&mut self, headers: &HeaderMap, problem: Option<PaymentProblem>) -> Result<Next, FetchError> {
        let refused = self.shown.take();
        if let Some(shown) = &refused {
            self.tried.push(shown.purchase.reference);
            if shown.fresh {
                return Err(not_served(&shown.purchase, problem));
            }
        }
        let demand = match Demand::of(headers, self.payer.inner.purse.hub(), &self.payer.inner.options.rules, now()) {
            Ok(demand) => demand,
            Err(error @ (DemandError::Foreign(_) | DemandError::None)) => return Ok(Next::Pass(error)),
            Err(error) => return Err(error.into()),
        };
        let store = &self.payer.inner.store;
        store.wallet(|wallet| wallet.priced(&self.target, demand.price()));
        if let Some(shown) = refused {
            self.not_taken(&shown.purchase, &demand, problem).await?;
        }
        let alone = match self.payer.flight(&self.target) {
            Some(flight) => Some(flight.lock_owned().await),
            None => None,
        };
        // Another process of the home may have bought it.
        self.payer.blocking(|store, _| store.refresh(), demand.challenge.reference()).await?;
        loop {
            self.shown = self.choose(Some(&demand));
            if self.shown.is_some() {
                return Ok(Next::Show);
            }
            let open = store.wallet(|wallet| wallet.unsettled(&self.target).cloned());
            match open {
                Some(open) => drop(self.payer.settle(&open).await?),
                None => break,
            }
        }
        // Waiting for another request's payment takes time.
        if demand.expires_at <= now().plus_ms(super::demand::EXPIRY_MARGIN_MS) {
            return Err(DemandError::Expired.into());
        }
        self.shown = Some(self.payer.buy(&self.target, self.key.as_deref(), &demand, alone).await?);
        Ok(Next::Show)
    }

    /// Whether a 402 is for others to meet, when nothing can be sent again.
    pub fn passes(&self, headers: &HeaderMap) -> Option<DemandError> {
        let inner = &self.payer.inner;
        match Demand::of(headers, inner.purse.hub(), &inner.options.rules, now()) {
            Err(error @ (DemandError::Foreign(_) | DemandError::None)) => Some(error),
            _ => None,
        }
    }

    /// What was bought before is not taken now: whether that is how it should be, or money is at stake.
    async fn not_taken(
        &self,
        purchase: &Purchase,
        demand: &Demand,
        problem: Option<PaymentProblem>,
    ) -> Result<(), FetchError> {
        let used_up = purchase.served && (!purchase.is_balance() || purchase.left < demand.price());
        if used_up {
            return Ok(());
        }
        if purchase.is_balance() && purchase.served && problem == Some(PaymentProblem::PaymentInsufficient) {
            let left = self.payer.inner.store.wallet(|wallet| wallet.short_of(&purchase.reference, demand.price()));
            let left = left.unwrap_or_default();
            return self
                .payer
                .blocking(move |store, reference| store.left(reference, left, false), purchase.reference)
                .await;
        }
        if self.payer.inner.options.pay_again {
            return self.payer.blocking(Store::forget, purchase.reference).await;
        }
        Err(not_served(purchase, problem))
    }

    /// The server answered otherwise than with a demand: what it cost, when something was shown.
    pub async fn answered(&mut self, status: StatusCode, headers: &HeaderMap) -> Option<Paid> {
        let shown = self.shown.take()?;
        let (receipt, response) = receipts(headers);
        let purchase = &shown.purchase;
        let before = self
            .payer
            .inner
            .store
            .wallet(|wallet| wallet.get(&purchase.reference).map_or(purchase.left, |one| one.left));
        let after = |drawn: Amount| before.checked_sub(drawn).unwrap_or_default();
        // A switch to another protocol is the whole answer.
        let served = status.is_success() || status.is_redirection() || status == StatusCode::SWITCHING_PROTOCOLS;
        let (drawn, left, metered) = match (receipt, response) {
            (Some(receipt), _) => {
                // What follows a switch is paid with its most: nothing comes after it.
                let metered = receipt.metered && status != StatusCode::SWITCHING_PROTOCOLS;
                (Some(receipt.drawn), Some(receipt.left), metered)
            }
            (None, Some(response)) => {
                let drawn = drawn(&response);
                (drawn, Some(after(drawn.unwrap_or(purchase.price))), false)
            }
            // A server that says nothing: what it asked for is taken to be drawn.
            (None, None) if served => (None, Some(after(purchase.price)), false),
            (None, None) => (None, None, false),
        };
        if let Some(drawn) = drawn.filter(|drawn| !metered && !drawn.is_zero()) {
            self.payer.inner.store.wallet(|wallet| wallet.priced(&self.target, drawn));
        }
        let left_now = left.map_or(before, |left| left.min(purchase.amount));
        if let Some(left) = left {
            let kept =
                self.payer.blocking(move |store, reference| store.left(reference, left, true), purchase.reference);
            if let Err(error) = kept.await {
                tracing::warn!(%error, "what is left of a payment could not be kept");
            }
        }
        Some(Paid {
            reference: purchase.reference,
            paid: if shown.fresh { purchase.amount } else { Amount::ZERO },
            drawn,
            left: left_now,
            metered,
            currency: purchase.currency,
            payee: purchase.payee,
            realm: purchase.challenge.realm.clone(),
            receipt_file: shown.receipt_file.clone(),
            taken: before.checked_sub(left_now).unwrap_or_default(),
            end: Arc::default(),
        })
    }

    /// The end that a metered answer still has to tell.
    pub(super) fn open(&self, paid: &Paid) -> Option<Open> {
        let open = paid.metered && paid.drawn.is_some();
        open.then(|| Open::new(self.payer.clone(), paid.clone()))
    }

    /// Pays ahead with a demand that nobody waits for, when no balance is left for it and the same seller makes it.
    pub(super) async fn top_up(&mut self, headers: &HeaderMap, paid: &Paid) -> Result<(), FetchError> {
        let inner = &self.payer.inner;
        let demand = Demand::of(headers, inner.purse.hub(), &inner.options.rules, now())?;
        if (demand.request.recipient, &demand.challenge.realm) != (paid.payee, &paid.realm) {
            return Ok(());
        }
        let alone = match self.payer.flight(&self.target) {
            Some(flight) => Some(flight.lock_owned().await),
            None => None,
        };
        let open = inner.store.wallet(|wallet| wallet.unsettled(&self.target).is_some());
        if open || self.choose(Some(&demand)).is_some() {
            return Ok(());
        }
        drop(self.payer.buy(&self.target, None, &demand, alone).await?);
        Ok(())
    }
}

/// How long to wait before the next try of a paid request.
pub(super) fn pause(tries: u32) -> Duration {
    Duration::from_millis(200).saturating_mul(1 << tries.min(4))
}
