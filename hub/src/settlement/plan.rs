//! What a window pays out, and the files that say so to the bank. Pure: the same plan gives the same bytes.

use std::io::{self, Write};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest as _, Sha256};
use weir_protocol::act::Plan;
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::evidence::end_to_end_id;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, HubId};
use weir_protocol::keys::PublicKey;
use weir_protocol::merkle;

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

/// Most files that are written at the same time: each takes about 20 MB meanwhile, mostly to find identifiers that are used
/// twice.
const MAX_WRITERS: usize = 4;

/// The part of the hub's id in what the bank sees.
pub(super) fn hub_part(hub: &HubId) -> String {
    hex::encode(hub.as_bytes().get(..5).unwrap_or_default())
}

/// `MsgId` and `PmtInfId` of a file. `part`: its number where there are several, from 1.
pub(super) fn message_id(hub: &HubId, window: u64, currency: Currency, part: Option<usize>) -> String {
    let hub = hub_part(hub);
    let part = part.map_or_else(String::new, |part| format!("-{part}"));
    format!("WEIR-{hub}-{window}-{currency}{part}")
}

/// How many files so many payouts take.
const fn parts(payouts: usize) -> usize {
    payouts.div_ceil(MAX_PAYMENTS)
}

/// The number of the file in which a payout is; none where there is one file.
const fn part_of(index: usize, parts: usize) -> Option<usize> {
    if parts > 1 { Some(index / MAX_PAYMENTS + 1) } else { None }
}

/// The names of a plan's files, in their order.
pub(super) fn file_names(hub: &HubId, window: u64, currency: Currency, payouts: usize) -> Vec<String> {
    let parts = parts(payouts);
    let name = |part| format!("{}.pain001.xml", message_id(hub, window, currency, part_of(part * MAX_PAYMENTS, parts)));
    (0..parts).map(name).collect()
}

/// Whether a file's name is one that a window's plan in a currency could have.
pub(super) fn is_file_of(name: &str, hub: &HubId, window: u64, currency: Currency) -> bool {
    let rest = name.strip_prefix(&message_id(hub, window, currency, None));
    rest.and_then(|rest| rest.strip_suffix(".pain001.xml")).is_some_and(|part| {
        part.is_empty() || part.strip_prefix('-').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    })
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
    account: &BankAccount,
) -> Option<Draft> {
    books.windows().get(window)?;
    assemble(books, hub, (window, currency), account, books.payouts(window, currency).into_iter())
}

/// What a window's plan pays out, with the names and bank accounts as they are now.
pub(super) fn planned(
    books: &Books,
    hub: &HubId,
    window: u64,
    currency: Currency,
    account: &BankAccount,
) -> Option<Draft> {
    let record = books.windows().get(window)?.plans.get(&currency)?;
    let payouts = record.payouts.iter().map(|(id, payout)| (*id, payout.amount));
    assemble(books, hub, (window, currency), account, payouts)
}

fn assemble(
    books: &Books,
    hub: &HubId,
    (window, currency): (u64, Currency),
    account: &BankAccount,
    payouts: impl Iterator<Item = (AccountId, Amount)>,
) -> Option<Draft> {
    let created_ms = books.windows().get(window)?.time.0;
    let payouts = payouts
        .filter_map(|(id, amount)| {
            let details = books.account(&id)?;
            Some(DraftPayout { account: id, amount, name: details.name.clone(), iban: details.iban.clone() })
        })
        .collect();
    Some(Draft { hub: *hub, window, currency, created_ms, account: account.clone(), payouts })
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

    /// Writes every file into what `into` gives for its name, several at the same time; what they are, in their order.
    pub(super) fn write(&self, into: impl Fn(&str, WriteFile<'_>) -> Result<(), SettlementError> + Sync) -> Written {
        let names = file_names(&self.hub, self.window, self.currency, self.payouts.len());
        let parts: Vec<_> = names.iter().zip(self.payouts.chunks(MAX_PAYMENTS)).collect();
        let one = |part: usize, name: &str, payouts: &[DraftPayout]| -> Result<PlanFile, SettlementError> {
            let id = message_id(&self.hub, self.window, self.currency, part_of(part * MAX_PAYMENTS, names.len()));
            let mut sha256 = Hash::ZERO;
            into(name, &mut |out| {
                let mut hashing = Hashing { hash: Sha256::new(), out };
                self.write_file(&id, payouts, &mut hashing)?;
                sha256 = Hash(hashing.hash.finalize().into());
                Ok(())
            })?;
            Ok(PlanFile { name: name.to_owned(), sha256 })
        };
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let part = next.fetch_add(1, Ordering::Relaxed);
                let Some((name, payouts)) = parts.get(part) else { return Ok(done) };
                match one(part, name, payouts) {
                    Ok(file) => done.push((part, file)),
                    Err(error) => {
                        // Without one of them the others are worth nothing.
                        next.store(parts.len(), Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_WRITERS).min(parts.len());
        let mut files: Vec<(usize, PlanFile)> = thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut files: Result<Vec<_>, SettlementError> = work();
            for other in others {
                let more = other.join().unwrap_or(Err(SettlementError::Broken));
                files = files.and_then(|mut files| {
                    files.extend(more?);
                    Ok(files)
                });
            }
            files
        })?;
        files.sort_by_key(|(part, _)| *part);
        Ok(files.into_iter().map(|(_, file)| file).collect())
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
