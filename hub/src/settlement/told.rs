//! The payouts that the bank has been told of, found by the ids in its messages: without a table of all of them.

use weir_protocol::amount::{Amount, Currency};
use weir_protocol::evidence::end_to_end_id;
use weir_protocol::id::{AccountId, HubId};
use weir_protocol::keys::PublicKey;

use super::plan::{Part, hub_part, message_id};
use crate::bank::MAX_PAYMENTS;
use crate::engine::books::Books;
use crate::engine::payout::{Payout, PayoutState};

/// A payout that the bank has been told of.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// `MsgId` and `PmtInfId` of its file, as the bank was asked about it.
    pub(super) batch: String,
    pub(super) window: u64,
    pub(super) currency: Currency,
    pub(super) account: AccountId,
    pub(super) amount: Amount,
    /// As the books have it.
    pub(super) payout: Payout,
}

/// The file of a window: `WEIR-<hub>-<window>-<currency>`, and `-<part>` where there are several, and the size of each where it
/// is not the usual one.
struct FileId {
    window: u64,
    currency: Currency,
    part: Option<Part>,
}

fn parse(hub: &HubId, file: &str) -> Option<FileId> {
    let rest = file.strip_prefix("WEIR-")?.strip_prefix(&hub_part(hub))?.strip_prefix('-')?;
    let mut parts = rest.splitn(3, '-');
    let (window, currency, part) = (parts.next()?, parts.next()?, parts.next());
    let part = match part {
        Some(part) => Some(Part::parse(part)?),
        None => None,
    };
    Some(FileId { window: window.parse().ok()?, currency: currency.parse().ok()?, part })
}

/// The payout with an `EndToEndId`, if the bank has been told of it.
pub(super) fn find(books: &Books, end_to_end: &str) -> Option<Told> {
    let (window, prefix) = end_to_end.strip_prefix('W')?.split_once('-')?;
    let window: u64 = window.parse().ok()?;
    let prefix = hex::decode(prefix).ok().filter(|prefix| prefix.len() <= 32)?;
    let (mut low, mut high) = ([0; 32], [0xff; 32]);
    for bound in [&mut low, &mut high] {
        bound.iter_mut().zip(&prefix).for_each(|(to, from)| *to = *from);
    }
    let (low, high) = (AccountId(PublicKey(low)), AccountId(PublicKey(high)));
    let plans = books.windows().get(window)?.plans.iter();
    plans
        .flat_map(|(currency, record)| {
            record.payouts.range(low..=high).map(move |(account, payout)| (*currency, *account, *payout))
        })
        .find(|(_, account, payout)| {
            payout.state != PayoutState::Planned && end_to_end_id(window, account) == end_to_end
        })
        .map(|(currency, account, payout)| Told {
            batch: String::new(),
            window,
            currency,
            account,
            amount: payout.amount,
            payout,
        })
}

/// The payouts of one file that the bank was told of, each with its `EndToEndId`.
pub(super) fn in_file<'a>(books: &'a Books, hub: &HubId, file: &'a str) -> impl Iterator<Item = (String, Told)> + 'a {
    let id = parse(hub, file);
    let found = id.and_then(|id| {
        let record = books.windows().get(id.window)?.plans.get(&id.currency)?;
        Some((id, record))
    });
    found.into_iter().flat_map(move |(FileId { window, currency, part }, record)| {
        let payouts = record.payouts.iter().enumerate();
        payouts
            .filter(move |(index, (_, payout))| {
                payout.state != PayoutState::Planned && part.is_none_or(|part| part.has(*index))
            })
            .map(move |(_, (account, payout))| {
                let told = Told {
                    batch: file.to_owned(),
                    window,
                    currency,
                    account: *account,
                    amount: payout.amount,
                    payout: *payout,
                };
                (end_to_end_id(window, account), told)
            })
    })
}

/// The files of which something is in transit. Without parts: a plan in several files is told by its ids.
pub(super) fn files_in_transit(books: &Books, hub: &HubId, currency: Currency) -> Vec<String> {
    let plans = books.windows().iter().filter_map(|(window, record)| Some((window, record.plans.get(&currency)?)));
    plans
        .filter(|(_, record)| record.payouts.len() <= MAX_PAYMENTS && record.payouts.values().any(Payout::waits))
        .map(|(window, _)| message_id(hub, window, currency, None))
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    #[test]
    fn file_id_of_this_hub_only_is_taken_apart() {
        let hub = HubId(PublicKey([0xab; 32]));
        let file = |text: &str| parse(&hub, text).map(|id| (id.window, id.currency.to_string(), id.part));
        assert_eq!(file("WEIR-ababababab-7-EUR"), Some((7, "EUR".to_owned(), None)));
        let part = |number, per_file| Some((7, "EUR".to_owned(), Some(Part { number, per_file })));
        assert_eq!(file("WEIR-ababababab-7-EUR-2"), part(2, MAX_PAYMENTS));
        assert_eq!(file("WEIR-ababababab-7-EUR-2-5000"), part(2, 5_000));
        for id in ["WEIR-ababababab-7-EUR-2", "WEIR-ababababab-7-EUR-12-1"] {
            let FileId { window, currency, part } = parse(&hub, id).unwrap();
            assert_eq!(message_id(&hub, window, currency, part), id);
        }
        for bad in [
            "",
            "WEIR-ababababab-7",
            "WEIR-acababacab-7-EUR",
            "WEIR-ababababab--EUR",
            "WEIR-ababababab-7-EUR-",
            "WEIR-ababababab-7-EUR-0",
            "WEIR-ababababab-7-EUR-2-0",
            "WEIR-ababababab-7-EUR-2-100000",
            "WEIR-ababababab-7-EUR-2-3-4",
            "WEIR-ababababab-7-EUR-+2",
        ] {
            assert_eq!(file(bad), None, "{bad}");
        }
    }
}
