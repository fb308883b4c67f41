//! What a window pays out, and the files that say so to the bank. Pure: the same plan gives the same bytes.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};
use weir_protocol::act::Plan;
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::evidence::end_to_end_id;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, HubId};
use weir_protocol::keys::PublicKey;
use weir_protocol::merkle;

use super::side::side_by_side;
use super::{BankAccount, SettlementError};
use crate::bank::{
    Currency as BankCurrency, Date, Debtor, Iban, MAX_PAYMENTS, Payment, Remittance, TransferHeader, write_transfers,
};
use crate::engine::books::Books;
use crate::engine::windows::Windows;

/// One payout with what the bank needs.
#[derive(Debug, Clone)]
struct DraftPayout {
    account: AccountId,
    amount: Amount,
    name: String,
    iban: String,
}

/// A window's payouts in one currency, and everything that their files say.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    hub: HubId,
    window: u64,
    currency: Currency,
    created_ms: u64,
    account: BankAccount,
    /// Most payments in one file.
    per_file: usize,
    /// By account.
    payouts: Vec<DraftPayout>,
}

/// A file of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlanFile {
    pub(super) name: String,
    pub(super) sha256: Hash,
}

/// The files of a plan, in their order, or why there are none.
pub(super) type Written = Result<Vec<PlanFile>, SettlementError>;

/// Writes one file into an output.
pub(super) type WriteFile<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<(), SettlementError>;

/// Behind a file's id.
const FILE_END: &str = ".pain001.xml";

/// The part of the hub's id in what the bank sees.
pub(super) fn hub_part(hub: &HubId) -> String {
    hex::encode(hub.as_bytes().get(..5).unwrap_or_default())
}

/// Which of several files of a plan one is, and the most payments that each of them has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// From 1.
    pub(super) number: usize,
    pub(super) per_file: usize,
}

impl Part {
    /// From what stands behind the id of the plan's only file: `2`, or `2-5000` where the size is not the usual one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
            text.parse::<usize>().ok().filter(|_| plain)
        };
        let (part, per_file) = match text.split_once('-') {
            Some((part, per_file)) => (part, number(per_file).filter(|per_file| *per_file < MAX_PAYMENTS)?),
            None => (text, MAX_PAYMENTS),
        };
        Some(Self { number: number(part)?, per_file })
    }

    /// Whether a plan's payout with this place among all of them is in the file.
    pub(super) const fn has(self, index: usize) -> bool {
        index / self.per_file + 1 == self.number
    }
}

/// `MsgId` and `PmtInfId` of a file. `part`: which it is where there are several. It says by itself which payouts are in it,
/// also when the setting is another by the time the bank answers.
pub(super) fn message_id(hub: &HubId, window: u64, currency: Currency, part: Option<Part>) -> String {
    let hub = hub_part(hub);
    let part = match part {
        None => String::new(),
        Some(Part { number, per_file: MAX_PAYMENTS }) => format!("-{number}"),
        Some(Part { number, per_file }) => format!("-{number}-{per_file}"),
    };
    format!("WEIR-{hub}-{window}-{currency}{part}")
}

/// The ids of a plan's files, in their order.
fn message_ids(hub: &HubId, window: u64, currency: Currency, payouts: usize, per_file: usize) -> Vec<String> {
    let count = payouts.div_ceil(per_file);
    let part = |number| (count > 1).then_some(Part { number, per_file });
    (1..=count).map(|number| message_id(hub, window, currency, part(number))).collect()
}

/// The names of a plan's files, in their order.
pub(super) fn file_names(hub: &HubId, window: u64, currency: Currency, payouts: usize, per_file: usize) -> Vec<String> {
    message_ids(hub, window, currency, payouts, per_file).iter().map(|id| file_name(id)).collect()
}

fn file_name(id: &str) -> String {
    format!("{id}{FILE_END}")
}

/// Whether a file's name is one that a window's plan in a currency could have.
pub(super) fn is_file_of(name: &str, hub: &HubId, window: u64, currency: Currency) -> bool {
    let rest = name.strip_prefix(&message_id(hub, window, currency, None));
    rest.and_then(|rest| rest.strip_suffix(FILE_END))
        .is_some_and(|part| part.is_empty() || part.strip_prefix('-').is_some_and(|part| Part::parse(part).is_some()))
}

/// What a plan's `file` is of these.
pub(super) fn file_root(files: &[PlanFile]) -> Hash {
    merkle::root(&files.iter().map(|file| file.sha256).collect::<Vec<Hash>>())
}

/// What a window would pay out now. `None` when the window was not cut off.
pub(super) fn draft(
    books: &Books,
    hub: &HubId,
    window: u64,
    currency: Currency,
    (account, per_file): (&BankAccount, usize),
) -> Option<Draft> {
    books.windows().get(window)?;
    assemble(books, hub, (window, currency), (account, per_file), books.payouts(window, currency).into_iter())
}

/// What a window's plan pays out, with the names and bank accounts as they are now.
pub(super) fn planned(
    books: &Books,
    hub: &HubId,
    window: u64,
    currency: Currency,
    (account, per_file): (&BankAccount, usize),
) -> Option<Draft> {
    let record = books.windows().get(window)?.plans.get(&currency)?;
    let payouts = record.payouts.iter().map(|(id, payout)| (*id, payout.amount));
    assemble(books, hub, (window, currency), (account, per_file), payouts)
}

fn assemble(
    books: &Books,
    hub: &HubId,
    (window, currency): (u64, Currency),
    (account, per_file): (&BankAccount, usize),
    payouts: impl Iterator<Item = (AccountId, Amount)>,
) -> Option<Draft> {
    let created_ms = books.windows().get(window)?.time.0;
    let payouts = payouts
        .filter_map(|(id, amount)| {
            let details = books.account(&id)?;
            Some(DraftPayout { account: id, amount, name: details.name.clone(), iban: details.iban.clone() })
        })
        .collect();
    Some(Draft { hub: *hub, window, currency, created_ms, account: account.clone(), per_file, payouts })
}

impl Draft {
    /// Whether there is nothing to pay out.
    pub(super) const fn is_empty(&self) -> bool {
        self.payouts.is_empty()
    }

    /// The act that fixes this, with the root of its files.
    pub(super) fn plan(&self, by: Option<(PublicKey, u64)>, file: Hash) -> Plan {
        let total = self.payouts.iter().try_fold(Amount::ZERO, |sum, payout| sum.checked_add(payout.amount));
        let payouts = self.payouts.iter().map(|payout| (&payout.account, &payout.amount));
        Plan {
            number: by.map_or(0, |(_, number)| number),
            operator: by.map(|(key, _)| key),
            window: self.window,
            currency: self.currency,
            payouts: u32::try_from(self.payouts.len()).unwrap_or(u32::MAX),
            total: total.unwrap_or(Amount::MAX),
            root: Windows::plan_root(self.window, self.currency, payouts),
            file,
        }
    }

    /// The names of the files, in their order.
    pub(super) fn names(&self) -> Vec<String> {
        self.ids().iter().map(|id| file_name(id)).collect()
    }

    /// Whether a file's name is one that a plan of the window could have.
    pub(super) fn is_file(&self, name: &str) -> bool {
        is_file_of(name, &self.hub, self.window, self.currency)
    }

    fn ids(&self) -> Vec<String> {
        message_ids(&self.hub, self.window, self.currency, self.payouts.len(), self.per_file)
    }

    /// Writes every file into what `into` gives for its name, several at the same time; what they are, in their order.
    pub(super) fn write(&self, into: impl Fn(&str, WriteFile<'_>) -> Result<(), SettlementError> + Sync) -> Written {
        let ids = self.ids();
        let parts: Vec<(&String, &[DraftPayout])> = ids.iter().zip(self.payouts.chunks(self.per_file)).collect();
        side_by_side(parts.len(), |at| {
            let (id, payouts) = parts.get(at).ok_or(SettlementError::Broken)?;
            let name = file_name(id);
            let mut sha256 = Hash::ZERO;
            into(&name, &mut |out| {
                let mut hashing = Hashing { hash: Sha256::new(), out };
                self.write_file(id, payouts, &mut hashing)?;
                sha256 = Hash(hashing.hash.finalize().into());
                Ok(())
            })?;
            Ok(PlanFile { name, sha256 })
        })
    }

    /// What the files would be.
    pub(super) fn hash(&self) -> Written {
        self.write(|_, write| write(&mut io::sink()))
    }

    fn write_file(&self, id: &str, payouts: &[DraftPayout], out: &mut dyn Write) -> Result<(), SettlementError> {
        let currency: BankCurrency = self.currency.as_str().parse()?;
        let header = TransferHeader {
            message_id: id.to_owned(),
            batch_id: id.to_owned(),
            created_ms: self.created_ms,
            debtor: Debtor { name: self.account.name.clone(), iban: self.account.iban, bic: self.account.bic.clone() },
            execution_date: Date::from_unix_ms(self.created_ms)?.target_day_from()?,
            currency,
        };
        let ibans = payouts.iter().map(|payout| payout.iban.parse::<Iban>()).collect::<Result<Vec<Iban>, _>>()?;
        let remittance = format!("Weir payout window {}", self.window);
        let payments = || {
            payouts.iter().zip(&ibans).map(|(payout, iban)| Payment {
                end_to_end_id: end_to_end_id(self.window, &payout.account),
                amount: payout.amount.to_decimal(),
                creditor_name: payout.name.clone(),
                creditor_iban: *iban,
                remittance: Remittance::Text(remittance.clone()),
            })
        };
        write_transfers(out, &header, payments)?;
        Ok(())
    }
}

/// Hashes what goes through.
struct Hashing<'a> {
    hash: Sha256,
    out: &'a mut dyn Write,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_part_and_by_a_size_that_is_not_usual() {
        let hub = HubId(PublicKey([0xab; 32]));
        let names = |payouts, per_file| file_names(&hub, 7, Currency::EUR, payouts, per_file);
        let name = |end: &str| format!("WEIR-ababababab-7-EUR{end}.pain001.xml");
        assert_eq!(names(MAX_PAYMENTS, MAX_PAYMENTS), [name("")]);
        assert_eq!(names(MAX_PAYMENTS + 1, MAX_PAYMENTS), [name("-1"), name("-2")]);
        assert_eq!(names(5_000, 5_000), [name("")]);
        assert_eq!(names(5_001, 5_000), [name("-1-5000"), name("-2-5000")]);
        for name in names(5_001, 5_000).iter().chain(&names(MAX_PAYMENTS + 1, MAX_PAYMENTS)) {
            assert!(is_file_of(name, &hub, 7, Currency::EUR), "{name}");
            assert!(!is_file_of(name, &hub, 70, Currency::EUR), "{name}");
        }
        let part = Part { number: 2, per_file: 5_000 };
        assert_eq!([4_999, 5_000, 9_999, 10_000].map(|index| part.has(index)), [false, true, true, false]);
        // 35 characters, for any number of payouts that fits a plan of a million, up to window 9,999.
        for per_file in [1, 9, 10, 99_999, MAX_PAYMENTS] {
            let part = (1_000_000_usize.div_ceil(per_file) > 1)
                .then_some(Part { number: 1_000_000_usize.div_ceil(per_file), per_file });
            assert!(message_id(&hub, 9_999, Currency::EUR, part).len() <= 35);
        }
    }
}
