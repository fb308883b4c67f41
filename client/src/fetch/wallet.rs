//! What was bought over HTTP, by origin, and what is known to be left of it.
//!
//! Pure. A [`Purchase`] begins before its payment is signed, is completed by the receipt, and is then a credential that can
//! be shown: once for its own resource when the price was paid, request by request when more was. Only the gate knows what
//! is left; what stands here is its last word. Must not pay, and must not keep files.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::http::{Challenge, Credential, Payload};
use weir_protocol::id::{AccountId, HubId, LaneId, Reference};

/// Most purchases that are kept. Those that are used up make room; what is not is never dropped.
pub const MAX_PURCHASES: usize = 4_096;
/// Most resources whose price is remembered.
const MAX_PRICES: usize = 4_096;

/// A request as the wallet sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// `scheme://host:port`, as the URL standard writes it: the default port is left out.
    pub origin: String,
    /// The method, in capitals.
    pub method: String,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// Whether the method asks and changes nothing (RFC 9110 §9.2.1): then requests may share one payment.
    pub fn is_safe(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE")
    }

    /// Whether what was bought for the other is bought for this: `HEAD` is told what `GET` is told, for one payment.
    pub fn shares(&self, other: &Self) -> bool {
        let reads = |method: &str| matches!(method, "GET" | "HEAD");
        let same = self.method == other.method || (reads(&self.method) && reads(&other.method));
        same && self.origin == other.origin && self.path == other.path
    }

    /// Whether it may be sent twice by itself (RFC 9110 §9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self.method.as_str(), "PUT" | "DELETE")
    }

    /// The host and port of the origin: what limits for a host count.
    pub fn host(&self) -> &str {
        self.origin.split_once("://").map_or(self.origin.as_str(), |(_, host)| host)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}{}", self.method, self.origin, self.path)
    }
}

/// One payment for something on the web.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    /// The payment's reference, derived from the challenge.
    pub reference: Reference,
    /// What it was paid for.
    pub target: Target,
    /// The challenge, as it came.
    pub challenge: Challenge,
    /// What the challenge asked for.
    pub price: Amount,
    /// What is paid: the price, or more.
    pub amount: Amount,
    /// Of which currency.
    pub currency: Currency,
    /// Who is paid.
    pub payee: AccountId,
    /// The hub.
    pub hub: HubId,
    /// The lane that it was given to: no other lane knows of it.
    pub lane: LaneId,
    /// When it began.
    pub at: Time,
    /// The budget's period that it counts for.
    pub period: u64,
    /// The key of the logical request, where the method needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether the challenge was offered in the scheme `Payment`, in x402, or both.
    pub dialects: Dialects,
    /// The most that the request can cost: what is not used stays.
    #[serde(default)]
    pub metered: bool,
    /// The proof; none before the outcome is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// What is left at the gate, as far as is known.
    pub left: Amount,
    /// Whether the gate has ever taken it.
    #[serde(default)]
    pub served: bool,
}

/// How a demand was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dialects {
    /// `WWW-Authenticate: Payment`.
    pub payment: bool,
    /// `PAYMENT-REQUIRED`.
    pub x402: bool,
}

impl Purchase {
    /// Whether it is drawn down by many requests: more was paid than was asked, or the amount was the most.
    pub fn is_balance(&self) -> bool {
        self.metered || self.amount > self.price
    }

    /// Whether it was paid.
    pub const fn is_paid(&self) -> bool {
        self.payload.is_some()
    }

    /// What is shown; none before it is paid.
    pub fn credential(&self) -> Option<Credential> {
        let payload = self.payload.clone()?;
        Some(Credential { challenge: self.challenge.clone(), source: None, payload })
    }

    /// Used up: losing it costs nothing but another look at the same page.
    fn is_spent(&self) -> bool {
        self.is_paid() && self.served && (!self.is_balance() || self.left.is_zero())
    }
}

/// What is asked for, once its demand is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The price.
    pub price: Amount,
    /// The currency.
    pub currency: Currency,
    /// The payee.
    pub payee: AccountId,
    /// The hub.
    pub hub: HubId,
    /// The realm.
    pub realm: &'a str,
}

/// What a credential is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// The request.
    pub target: &'a Target,
    /// The key of the logical request.
    pub key: Option<&'a str>,
    /// Its demand, when it is known.
    pub asked: Option<&'a Asked<'a>>,
    /// The most that is drawn.
    pub max_price: Option<Amount>,
    /// When the request began: what another one bought since is for this one too.
    pub since: Time,
    /// What this request has shown already.
    pub tried: &'a [Reference],
}

/// What was bought, and what requests hold of it now.
#[derive(Debug, Clone, Default)]
pub struct Wallet {
    purchases: BTreeMap<Reference, Purchase>,
    /// By origin.
    origins: HashMap<String, BTreeSet<Reference>>,
    /// Held by requests of this process that run: how many, and how much.
    running: HashMap<Reference, (u32, Amount)>,
    /// What resources cost when they were last asked for.
    prices: HashMap<Target, Amount>,
}

/// The wallet holds as many purchases as it can, and each still has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_PURCHASES} purchases are kept already, and something is left of each")]
pub struct WalletFull;

impl Wallet {
    /// The same without purchases, which are told again: what requests of this process hold stays.
    pub(super) fn restarted(&mut self) -> Self {
        let (running, prices) = (std::mem::take(&mut self.running), std::mem::take(&mut self.prices));
        Self { running, prices, ..Self::default() }
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.purchases.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.purchases.is_empty()
    }

    /// All of them.
    pub fn purchases(&self) -> impl Iterator<Item = &Purchase> {
        self.purchases.values()
    }

    /// One of them.
    pub fn get(&self, reference: &Reference) -> Option<&Purchase> {
        self.purchases.get(reference)
    }

    /// The one that has to go before another fits: used up, and begun first.
    pub fn crowded(&self) -> Result<Option<Reference>, WalletFull> {
        if self.purchases.len() < MAX_PURCHASES {
            return Ok(None);
        }
        let spent = self.purchases.values().filter(|one| one.is_spent() && !self.running.contains_key(&one.reference));
        spent.min_by_key(|one| one.at).map(|one| Some(one.reference)).ok_or(WalletFull)
    }

    /// Keeps a purchase, begun or paid.
    pub fn keep(&mut self, purchase: Purchase) {
        self.origins.entry(purchase.target.origin.clone()).or_default().insert(purchase.reference);
        self.purchases.insert(purchase.reference, purchase);
    }

    /// It is paid, and this proves it.
    pub fn paid(&mut self, reference: &Reference, payload: Payload) {
        if let Some(purchase) = self.purchases.get_mut(reference) {
            purchase.payload = Some(payload);
        }
    }

    /// The gate has taken it, and says what is left.
    pub fn drawn(&mut self, reference: &Reference, left: Amount) {
        if let Some(purchase) = self.purchases.get_mut(reference) {
            purchase.left = left.min(purchase.amount);
            purchase.served = true;
        }
    }

    /// The gate says that less than this is left.
    pub fn short_of(&mut self, reference: &Reference, price: Amount) -> Option<Amount> {
        let purchase = self.purchases.get_mut(reference)?;
        purchase.left = purchase.left.min(price.checked_sub(Amount::from_nanos(1)).unwrap_or_default());
        Some(purchase.left)
    }

    /// Forgets one.
    pub fn remove(&mut self, reference: &Reference) -> Option<Purchase> {
        let gone = self.purchases.remove(reference)?;
        if let Some(of_origin) = self.origins.get_mut(&gone.target.origin) {
            of_origin.remove(reference);
            if of_origin.is_empty() {
                self.origins.remove(&gone.target.origin);
            }
        }
        Some(gone)
    }

    /// A request shows it: nobody else counts on this part of it until [`Wallet::free`].
    pub fn hold(&mut self, reference: Reference, amount: Amount) {
        let (count, held) = self.running.entry(reference).or_default();
        *count += 1;
        *held = held.checked_add(amount).unwrap_or(Amount::MAX);
    }

    /// The request was answered, or given up.
    pub fn free(&mut self, reference: &Reference, amount: Amount) {
        let Some((count, held)) = self.running.get_mut(reference) else { return };
        *count = count.saturating_sub(1);
        *held = held.checked_sub(amount).unwrap_or_default();
        if *count == 0 {
            self.running.remove(reference);
        }
    }

    /// What a resource cost when it was last asked for.
    pub fn price(&self, target: &Target) -> Option<Amount> {
        self.prices.get(target).copied()
    }

    /// Remembers what a resource costs.
    pub fn priced(&mut self, target: &Target, price: Amount) {
        if self.prices.len() >= MAX_PRICES && !self.prices.contains_key(target) {
            self.prices.clear();
        }
        self.prices.insert(target.clone(), price);
    }

    /// What to show for a request, before its demand is known (`asked` is none) or when it is.
    ///
    /// First what was bought for this very resource: for a method that only asks, whatever was shown before, since an
    /// access window may be open and the gate says when it is not; for others, only what no request has used, or what was
    /// bought under the same key. Once there is a demand, what was taken before the request began is no answer to it. Then a balance of the origin with enough left beside what runs; before the demand is
    /// known, only for a resource whose price is. Nothing above `max_price` is drawn.
    pub fn choose(&self, want: &Want<'_>) -> Option<&Purchase> {
        let Want { target, key, asked, max_price, since, tried } = *want;
        let of_origin = || {
            let references = self.origins.get(&target.origin).into_iter().flatten();
            let references = references.filter(|one| !tried.contains(one));
            let paid = references.filter_map(|one| self.purchases.get(one)).filter(|one| one.is_paid());
            paid.filter(|one| asked.is_none_or(|asked| one.fits(asked)))
        };
        let own = of_origin()
            .filter(|one| !one.is_balance() && one.target.shares(target))
            .filter(|one| asked.is_none_or(|asked| one.amount >= asked.price))
            .filter(|one| {
                let idle = !self.running.contains_key(&one.reference);
                let again = asked.is_none() || !one.served || one.at >= since;
                again && (target.is_safe() || (idle && !one.served) || (key.is_some() && one.key.as_deref() == key))
            })
            .max_by_key(|one| (!one.served, one.at));
        if own.is_some() {
            return own;
        }
        let price = asked.map(|asked| asked.price).or_else(|| self.price(target));
        let own_price = |one: &Purchase| one.target.shares(target).then_some(one.price);
        of_origin()
            .filter(|one| one.is_balance())
            .filter(|one| {
                let Some(price) = price.or_else(|| own_price(one)) else { return false };
                let held = self.running.get(&one.reference).map_or(Amount::ZERO, |(_, held)| *held);
                let enough = one.left.checked_sub(held).is_ok_and(|free| free >= price && !free.is_zero());
                enough && max_price.is_none_or(|most| price <= most)
            })
            // The one with least left first, so that few remainders lie about.
            .min_by_key(|one| (one.left, one.at))
    }

    /// A purchase for this resource, or a balance of its origin, whose outcome nobody knows: it comes before any further
    /// payment there.
    pub fn unsettled(&self, target: &Target) -> Option<&Purchase> {
        let references = self.origins.get(&target.origin)?.iter();
        references
            .filter_map(|one| self.purchases.get(one))
            .filter(|one| one.target.shares(target) || one.is_balance())
            .find(|one| !one.is_paid() && !self.running.contains_key(&one.reference))
    }
}

impl Purchase {
    fn fits(&self, asked: &Asked<'_>) -> bool {
        (self.currency, self.payee, self.hub) == (asked.currency, asked.payee, asked.hub)
            && self.challenge.realm == asked.realm
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use weir_protocol::keys::PublicKey;

    pub(crate) fn target(method: &str, path: &str) -> Target {
        Target { origin: "http://news.example".to_owned(), method: method.to_owned(), path: path.to_owned() }
    }

    pub(crate) fn purchase(byte: u8, target: Target, price: u64, amount: u64) -> Purchase {
        Purchase {
            reference: Reference([byte; 32]),
            target,
            challenge: Challenge {
                id: format!("id{byte}"),
                realm: "news".to_owned(),
                method: "weir".to_owned(),
                intent: "charge".to_owned(),
                request: String::new(),
                expires: None,
                digest: None,
                header: None,
                opaque: None,
            },
            price: Amount::from_nanos(price),
            amount: Amount::from_nanos(amount),
            currency: Currency::EUR,
            payee: AccountId(PublicKey([9; 32])),
            hub: HubId(PublicKey([8; 32])),
            lane: LaneId([7; 32]),
            at: Time(u64::from(byte)),
            period: 0,
            key: None,
            dialects: Dialects { payment: true, x402: true },
            metered: false,
            payload: None,
            left: Amount::from_nanos(amount),
            served: false,
        }
    }

    pub(crate) fn payload(amount: u64) -> Payload {
        Payload { amount: Amount::from_nanos(amount), certificate: String::new(), receipt: String::new() }
    }

    pub(crate) fn paid(byte: u8, target: Target, price: u64, amount: u64) -> Purchase {
        Purchase { payload: Some(payload(amount)), ..purchase(byte, target, price, amount) }
    }

    fn asked(price: u64) -> Asked<'static> {
        let (payee, hub) = (AccountId(PublicKey([9; 32])), HubId(PublicKey([8; 32])));
        Asked { price: Amount::from_nanos(price), currency: Currency::EUR, payee, hub, realm: "news" }
    }

    const LATE: Time = Time(1_000);

    fn chosen(wallet: &Wallet, target: &Target, asked: Option<&Asked<'_>>) -> Option<u8> {
        let want = Want { target, key: None, asked, max_price: None, since: LATE, tried: &[] };
        wallet.choose(&want).map(|one| one.reference.0[0])
    }

    fn want(target: &Target) -> Want<'_> {
        Want { target, key: None, asked: None, max_price: None, since: LATE, tried: &[] }
    }

    #[test]
    fn own_resource_is_shown_first_then_a_balance_with_enough_beside_what_runs() {
        let mut wallet = Wallet::default();
        let (a, b) = (target("GET", "/a"), target("GET", "/b"));
        wallet.keep(purchase(1, a.clone(), 5, 5));
        assert_eq!(chosen(&wallet, &a, None), None, "not paid");
        wallet.paid(&Reference([1; 32]), payload(5));
        wallet.keep(paid(2, b.clone(), 5, 20));
        assert_eq!(chosen(&wallet, &a, None), Some(1));
        assert_eq!(chosen(&wallet, &b, None), Some(2));
        let other = target("GET", "/c");
        assert_eq!(chosen(&wallet, &other, None), None, "its price is not known");
        assert_eq!(chosen(&wallet, &other, Some(&asked(20))), Some(2));
        assert_eq!(chosen(&wallet, &other, Some(&asked(21))), None);
        wallet.priced(&other, Amount::from_nanos(20));
        assert_eq!(chosen(&wallet, &other, None), Some(2));
        assert!(wallet.choose(&Want { max_price: Some(Amount::from_nanos(19)), ..want(&other) }).is_none());
        assert!(wallet.choose(&Want { tried: &[Reference([2; 32])], ..want(&other) }).is_none());
        wallet.hold(Reference([2; 32]), Amount::from_nanos(1));
        assert_eq!(chosen(&wallet, &other, None), None);
        wallet.free(&Reference([2; 32]), Amount::from_nanos(1));
        assert_eq!(chosen(&wallet, &other, None), Some(2));
        for foreign in [
            Asked { realm: "other", ..asked(5) },
            Asked { payee: AccountId(PublicKey([1; 32])), ..asked(5) },
            Asked { hub: HubId(PublicKey([1; 32])), ..asked(5) },
            Asked { currency: "USD".parse().unwrap(), ..asked(5) },
        ] {
            assert_eq!(chosen(&wallet, &b, Some(&foreign)), None);
        }
        let elsewhere = Target { origin: "https://news.example".to_owned(), ..b };
        assert_eq!(chosen(&wallet, &elsewhere, Some(&asked(1))), None, "another origin");
    }

    #[test]
    fn single_use_purchase_is_shared_by_methods_that_ask_and_by_no_other() {
        let mut wallet = Wallet::default();
        let (get, post) = (target("GET", "/a"), target("POST", "/a"));
        wallet.keep(paid(1, get.clone(), 5, 5));
        wallet.keep(Purchase { key: Some("k".to_owned()), ..paid(2, post.clone(), 5, 5) });
        wallet.hold(Reference([1; 32]), Amount::ZERO);
        wallet.hold(Reference([2; 32]), Amount::ZERO);
        assert_eq!(chosen(&wallet, &get, None), Some(1));
        assert_eq!(chosen(&wallet, &post, None), None);
        assert!(wallet.choose(&Want { key: Some("k"), ..want(&post) }).is_some());
        wallet.free(&Reference([2; 32]), Amount::ZERO);
        assert_eq!(chosen(&wallet, &post, None), Some(2), "paid, never taken");
        wallet.drawn(&Reference([2; 32]), Amount::ZERO);
        wallet.drawn(&Reference([1; 32]), Amount::ZERO);
        assert_eq!(chosen(&wallet, &post, None), None);
        assert_eq!(chosen(&wallet, &get, None), Some(1), "an access window may be open");
        assert_eq!(chosen(&wallet, &target("HEAD", "/a"), None), Some(1), "one payment opens both");
        assert_eq!(chosen(&wallet, &target("OPTIONS", "/a"), None), None);
        assert_eq!(chosen(&wallet, &target("HEAD", "/b"), None), None);
        assert_eq!(chosen(&wallet, &get, Some(&asked(5))), None, "the gate has said that it is not");
        let asked = asked(5);
        let shared = Want { asked: Some(&asked), since: Time(1), ..want(&get) };
        assert!(wallet.choose(&shared).is_some(), "bought by another request since this one began");
        assert!(wallet.choose(&Want { tried: &[Reference([1; 32])], ..shared }).is_none());
    }

    #[test]
    fn unsettled_purchase_is_found_until_it_is_paid_or_gone() {
        let mut wallet = Wallet::default();
        let get = target("GET", "/a");
        wallet.keep(purchase(1, get.clone(), 5, 5));
        assert!(wallet.unsettled(&get).is_some());
        wallet.hold(Reference([1; 32]), Amount::ZERO);
        assert!(wallet.unsettled(&get).is_none(), "a request of this process is about it");
        wallet.free(&Reference([1; 32]), Amount::ZERO);
        assert!(wallet.unsettled(&target("GET", "/b")).is_none());
        wallet.paid(&Reference([1; 32]), payload(5));
        assert!(wallet.unsettled(&get).is_none());
        assert!(wallet.remove(&Reference([1; 32])).is_some() && wallet.is_empty());
    }

    #[test]
    fn full_wallet_drops_what_is_used_up_and_nothing_else() {
        let mut wallet = Wallet::default();
        for at in 0..MAX_PURCHASES {
            let mut one = paid(1, target("GET", &format!("/{at}")), 5, 5);
            one.reference.0[..8].copy_from_slice(&(at as u64).to_le_bytes());
            assert_eq!(wallet.crowded(), Ok(None));
            wallet.keep(one);
        }
        assert_eq!(wallet.crowded(), Err(WalletFull));
        let used = *wallet.purchases.keys().nth(77).unwrap();
        wallet.drawn(&used, Amount::ZERO);
        assert_eq!(wallet.crowded(), Ok(Some(used)));
        wallet.hold(used, Amount::ZERO);
        assert_eq!(wallet.crowded(), Err(WalletFull));
    }

    proptest! {
        /// Whatever runs at once, no more is counted on than the gate said was left.
        #[test]
        fn requests_that_run_never_count_on_more_than_is_left(
            balances in proptest::collection::vec(1_u64..100, 1..4),
            steps in proptest::collection::vec((any::<bool>(), 1_u64..40, 0_usize..8), 0..60),
        ) {
            let mut wallet = Wallet::default();
            for (at, amount) in balances.iter().enumerate() {
                wallet.keep(paid(at as u8 + 1, target("GET", "/a"), 1, amount + 1));
            }
            let mut running: Vec<(Reference, u64)> = Vec::new();
            for (begin, price, at) in steps {
                if begin {
                    let asked = asked(price);
                    let found = wallet.choose(&Want { asked: Some(&asked), ..want(&target("GET", "/b")) });
                    let found = found.map(|one| one.reference);
                    let fits = wallet.purchases().any(|one| {
                        let held: u64 = running.iter().filter(|(on, _)| *on == one.reference).map(|(_, held)| held).sum();
                        one.left.nanos() >= held + price
                    });
                    prop_assert_eq!(found.is_some(), fits);
                    if let Some(reference) = found {
                        wallet.hold(reference, Amount::from_nanos(price));
                        running.push((reference, price));
                    }
                } else if !running.is_empty() {
                    let (reference, price) = running.remove(at % running.len());
                    let left = wallet.get(&reference).unwrap().left.nanos() - price;
                    wallet.free(&reference, Amount::from_nanos(price));
                    wallet.drawn(&reference, Amount::from_nanos(left));
                }
            }
        }
    }
}
