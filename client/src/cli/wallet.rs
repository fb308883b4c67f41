//! `wallet`: what was bought over HTTP, and what is left of it where.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use weir_client::fetch::{DAY_MS, Purchase, Store};
use weir_client::protocol::amount::{Amount, Currency, Time};
use weir_client::protocol::id::{AccountId, Reference};

use super::context::Context;
use super::failure::Failure;
use super::printer;
use super::text::{plain, time};

#[derive(Debug, Args)]
#[command(
    after_help = "What is left is the server's last word; it may have changed since. `weir receipts` writes the proofs.\n\nExamples:\n  weir wallet\n  weir wallet api.example"
)]
pub(super) struct WalletArgs {
    /// List each payment to this host, as `HOST`, `HOST:PORT` or `http://HOST:PORT`.
    host: Option<String>,
}

/// What was bought of one seller at one origin.
#[derive(Debug, Serialize)]
struct Shelf {
    origin: String,
    realm: String,
    payee: AccountId,
    currency: Currency,
    /// Payments that are kept.
    payments: u64,
    /// What they come to.
    paid: Amount,
    /// What requests can still draw or were not served for yet, as far as is known.
    left: Amount,
    /// Of payments whose outcome is not known: it is paid or it is not.
    unknown: Amount,
    /// Null: none is known to be paid.
    last_paid_at_ms: Option<u64>,
}

/// One payment.
#[derive(Debug, Serialize)]
struct Item {
    reference: Reference,
    at_ms: u64,
    method: String,
    url: String,
    payee: AccountId,
    currency: Currency,
    paid: Amount,
    left: Amount,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Something is left of it, for any request there.
    Balance,
    /// Paid for one request that was not served yet.
    Unserved,
    /// The request that it was paid for was served: shown again for the same, as long as the server takes it.
    Served,
    /// A balance of which nothing is left.
    Spent,
    /// The outcome is not known: the next request there asks.
    Unknown,
}

impl State {
    fn of(purchase: &Purchase) -> Self {
        match (purchase.is_paid(), purchase.is_balance()) {
            (false, _) => Self::Unknown,
            (true, true) if purchase.left.is_zero() => Self::Spent,
            (true, true) => Self::Balance,
            (true, false) if purchase.served => Self::Served,
            (true, false) => Self::Unserved,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Balance => "balance",
            Self::Unserved => "not served yet",
            Self::Served => "served",
            Self::Spent => "spent",
            Self::Unknown => "unknown",
        }
    }
}

/// What can still be had for a payment.
fn left(purchase: &Purchase) -> Amount {
    match State::of(purchase) {
        State::Balance => purchase.left,
        State::Unserved => purchase.amount,
        State::Served | State::Spent | State::Unknown => Amount::ZERO,
    }
}

#[derive(Debug, Serialize)]
struct Shelves {
    origins: Vec<Shelf>,
}

impl Shelves {
    fn of<'a>(purchases: impl Iterator<Item = &'a Purchase>) -> Self {
        let mut all: BTreeMap<_, Shelf> = BTreeMap::new();
        for one in purchases {
            let (origin, realm) = (one.target.origin.clone(), one.challenge.realm.clone());
            let name = (origin.clone(), realm.clone(), one.payee, one.currency);
            let shelf = all.entry(name).or_insert_with(|| Shelf {
                origin,
                realm,
                payee: one.payee,
                currency: one.currency,
                payments: 0,
                paid: Amount::ZERO,
                left: Amount::ZERO,
                unknown: Amount::ZERO,
                last_paid_at_ms: None,
            });
            let sum = |before: Amount, more: Amount| before.checked_add(more).unwrap_or(Amount::MAX);
            if one.is_paid() {
                shelf.payments += 1;
                shelf.paid = sum(shelf.paid, one.amount);
                shelf.left = sum(shelf.left, left(one));
                shelf.last_paid_at_ms = shelf.last_paid_at_ms.max(Some(one.at.0));
            } else {
                shelf.unknown = sum(shelf.unknown, one.amount);
            }
        }
        Self { origins: all.into_values().collect() }
    }

    fn show(&self) -> String {
        let rows = self.origins.iter().map(|shelf| {
            let unknown = if shelf.unknown.is_zero() { String::new() } else { shelf.unknown.to_string() };
            [
                shelf.origin.clone(),
                plain(&shelf.realm),
                shelf.currency.to_string(),
                shelf.payments.to_string(),
                shelf.paid.to_string(),
                shelf.left.to_string(),
                unknown,
                shelf.payee.to_string(),
            ]
        });
        let heading = ["origin", "realm", "currency", "payments", "paid", "left", "unknown", "payee"];
        printer::table(heading, rows, "Nothing was bought over HTTP yet: `weir fetch URL` does.")
    }
}

#[derive(Debug, Serialize)]
struct Items {
    payments: Vec<Item>,
}

impl Items {
    fn of<'a>(purchases: impl Iterator<Item = &'a Purchase>) -> Self {
        let mut payments: Vec<Item> = purchases
            .map(|one| Item {
                reference: one.reference,
                at_ms: one.at.0,
                method: one.target.method.clone(),
                url: format!("{}{}", one.target.origin, one.target.path),
                payee: one.payee,
                currency: one.currency,
                paid: one.amount,
                left: left(one),
                state: State::of(one),
            })
            .collect();
        payments.sort_unstable_by_key(|item| (item.at_ms, item.reference));
        Self { payments }
    }

    fn show(&self) -> String {
        let rows = self.payments.iter().map(|item| {
            [
                time(Time(item.at_ms)),
                format!("{} {}", item.method, plain(&item.url)),
                format!("{} {}", item.paid, item.currency),
                item.left.to_string(),
                item.state.word().to_owned(),
                item.reference.to_string(),
            ]
        });
        printer::table(["time", "request", "paid", "left", "state", "reference"], rows, "Nothing was bought there.")
    }
}

/// Whether an origin is the one that was named.
fn names(named: &str, origin: &str) -> bool {
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let named = named.trim_end_matches('/');
    origin == named || host == named || host.rsplit_once(':').is_some_and(|(name, _)| name == named)
}

/// Lists what is kept in the home. Asks nobody.
pub(super) fn wallet(context: &Context, args: &WalletArgs) -> Result<(), Failure> {
    context.look()?;
    let store = Store::open(context.home(), BTreeMap::new(), DAY_MS)?;
    match &args.host {
        None => {
            let shelves = store.wallet(|wallet| Shelves::of(wallet.purchases()));
            context.printer.print(&shelves, Shelves::show)
        }
        Some(host) => {
            let host = host.to_ascii_lowercase();
            let there = |one: &&Purchase| names(&host, &one.target.origin);
            let items = store.wallet(|wallet| Items::of(wallet.purchases().filter(there)));
            context.printer.print(&items, Items::show)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_named_by_its_host_with_or_without_the_port() {
        let origin = "http://api.example:8080";
        for named in ["api.example", "api.example:8080", "http://api.example:8080", "http://api.example:8080/"] {
            assert!(names(named, origin), "{named}");
        }
        for other in ["example", "api.example:80", "https://api.example:8080", "api", ""] {
            assert!(!names(other, origin), "{other}");
        }
        assert!(names("https://news.example", "https://news.example") && names("news.example", "https://news.example"));
        assert!(names("[::1]", "http://[::1]:8403") && names("[::1]", "http://[::1]"));
    }
}
