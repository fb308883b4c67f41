//! The bank's files in every order, broken, repeated, interrupted: what the ledger makes of them.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::fmt::Write as _;
use std::path::PathBuf;

use weir_protocol::act::{Deposit, Withdraw};
use weir_protocol::amount::Amount;

use super::heard::Signed;
use super::reconcile::{BreakKind, CurrencyReport};
use super::resolve::{Decision, Party, ResolveError};
use super::tests::{account, act, audit, register, start};
use super::*;
use crate::bank::CreditorReference;
use crate::engine::ledger::Place;

const IBAN: &str = "DE89370400440532013000";
const OTHER: &str = "DE02120300000000202051";

struct Bank {
    dir: tempfile::TempDir,
    handle: Handle,
    settlement: Settlement,
    files: u32,
}

/// A booked entry as XML.
struct Ntry {
    reference: String,
    /// Cents, with the account's sign.
    cents: i64,
    inside: String,
}

fn money(cents: i64) -> String {
    format!("{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

fn side(cents: i64) -> &'static str {
    if cents < 0 { "DBIT" } else { "CRDT" }
}

fn ntry(reference: &str, cents: i64, inside: &str) -> Ntry {
    Ntry { reference: reference.to_owned(), cents, inside: inside.to_owned() }
}

fn of(reference: &str, cents: i64, end_to_end: &str, more: &str) -> Ntry {
    let inside =
        format!("<NtryDtls><TxDtls><Refs><EndToEndId>{end_to_end}</EndToEndId></Refs>{more}</TxDtls></NtryDtls>");
    ntry(reference, cents, &inside)
}

fn from_account(reference: &str, cents: i64, by: u8) -> Ntry {
    let rf = CreditorReference::from_id(account(by).as_bytes());
    of(
        reference,
        cents,
        "NOTPROVIDED",
        &format!("<RmtInf><Strd><CdtrRefInf><Ref>{rf}</Ref></CdtrRefInf></Strd></RmtInf>"),
    )
}

fn entries(list: &[Ntry]) -> String {
    let mut text = String::new();
    for Ntry { reference, cents, inside } in list {
        write!(
            text,
            "<Ntry><Amt Ccy=\"EUR\">{}</Amt><CdtDbtInd>{}</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>2026-11-20</Dt>\
             </BookgDt><AcctSvcrRef>{reference}</AcctSvcrRef>{inside}</Ntry>",
            money(*cents),
            side(*cents)
        )
        .unwrap();
    }
    text
}

fn notification(id: &str, list: &[Ntry]) -> String {
    format!(
        "<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:camt.054.001.08\"><BkToCstmrDbtCdtNtfctn><GrpHdr><MsgId>{id}</MsgId>\
         </GrpHdr><Ntfctn><Id>{id}</Id><Acct><Id><IBAN>{IBAN}</IBAN></Id></Acct>{}</Ntfctn></BkToCstmrDbtCdtNtfctn>\
         </Document>",
        entries(list)
    )
}

fn balance(code: &str, cents: i64) -> String {
    format!(
        "<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy=\"EUR\">{}</Amt><CdtDbtInd>{}</CdtDbtInd>\
         <Dt><Dt>2026-11-20</Dt></Dt></Bal>",
        money(cents),
        side(cents)
    )
}

/// A statement that begins with `opening` and adds up.
fn statement(number: u32, opening: i64, list: &[Ntry]) -> String {
    let closing = opening + list.iter().map(|entry| entry.cents).sum::<i64>();
    format!(
        "<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:camt.053.001.08\"><BkToCstmrStmt><GrpHdr><MsgId>M{number}</MsgId>\
         </GrpHdr><Stmt><Id>S{number}</Id><ElctrncSeqNb>{number}</ElctrncSeqNb><Acct><Id><IBAN>{IBAN}</IBAN></Id></Acct>{}{}{}\
         </Stmt></BkToCstmrStmt></Document>",
        balance("OPBD", opening),
        balance("CLBD", closing),
        entries(list)
    )
}

fn status_report(id: &str, file: &str, words: &[(String, bool)]) -> String {
    let mut list = String::new();
    for (end_to_end, refused) in words {
        let word = if *refused { "RJCT" } else { "ACSC" };
        let why = if *refused { "<StsRsnInf><Rsn><Cd>AC04</Cd></Rsn></StsRsnInf>" } else { "" };
        write!(
            list,
            "<TxInfAndSts><OrgnlEndToEndId>{end_to_end}</OrgnlEndToEndId><TxSts>{word}</TxSts>{why}</TxInfAndSts>"
        )
        .unwrap();
    }
    format!(
        "<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:pain.002.001.10\"><CstmrPmtStsRpt><GrpHdr><MsgId>{id}</MsgId>\
         </GrpHdr><OrgnlGrpInfAndSts><OrgnlMsgId>{file}</OrgnlMsgId><OrgnlMsgNmId>pain.001.001.09</OrgnlMsgNmId>\
         <GrpSts>PART</GrpSts></OrgnlGrpInfAndSts><OrgnlPmtInfAndSts><OrgnlPmtInfId>{file}</OrgnlPmtInfId>\
         <PmtInfSts>PART</PmtInfSts>{list}</OrgnlPmtInfAndSts></CstmrPmtStsRpt></Document>"
    )
}

impl Bank {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let handle = start(&dir.path().join("data"));
        let settlement = Self::settle(&dir.path().join("bank"), &handle);
        Self { dir, handle, settlement, files: 0 }
    }

    fn settle(root: &Path, handle: &Handle) -> Settlement {
        std::fs::create_dir_all(root).unwrap();
        let own = BankAccount { name: "Weir".into(), iban: IBAN.parse().unwrap(), bic: None };
        Settlement::open(handle.clone(), root, own).unwrap()
    }

    async fn with_accounts(of: impl IntoIterator<Item = u8>) -> Self {
        let bank = Self::open();
        for by in of {
            register(&bank.handle, by, &format!("Account {by}"), OTHER).await;
        }
        bank
    }

    fn put(&mut self, text: &str) -> PathBuf {
        self.files += 1;
        let path = self.settlement.spool().inbox().join(format!("{:04}.xml", self.files));
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn bring(&mut self, text: &str) -> InboxReport {
        self.put(text);
        self.settlement.poll().await.unwrap()
    }

    async fn read(&self, place: Place) -> String {
        self.handle.read(move |view| view.books.ledger().read(Currency::EUR, &place)).await.unwrap().to_string()
    }

    async fn report(&self) -> CurrencyReport {
        self.settlement.reconcile().await.unwrap().currencies.remove("EUR").unwrap()
    }

    async fn kinds(&self) -> Vec<BreakKind> {
        self.report().await.breaks.iter().map(|one| one.kind).collect()
    }

    async fn alarms(&self) -> Vec<String> {
        self.settlement.reconcile().await.unwrap().alarms
    }

    /// Everybody withdraws; the window's file and what it pays, by account.
    async fn pay_out(&self, by: &[u8], amount: &str) -> (String, Vec<(u8, String)>) {
        for seed in by {
            let marked = amount.parse().unwrap();
            let withdraw = Withdraw { number: 2, account: account(*seed), currency: Currency::EUR, marked };
            act(&self.handle, Act::Withdraw(withdraw), *seed).await;
        }
        let run = self.settlement.run().await.unwrap();
        assert_eq!(run.payouts.len(), by.len());
        let file = run.files[0].strip_suffix(".pain001.xml").unwrap().to_owned();
        let ids = by.iter().map(|seed| (*seed, end_to_end_id(run.window, &account(*seed)))).collect();
        (file, ids)
    }
}

/// Every sequence of different words: confirmed, refused, booked, booked back.
fn orders() -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    let mut from = 0;
    while from < all.len() {
        for word in 0..4 {
            let mut longer: Vec<usize> = all[from].clone();
            if !longer.contains(&word) {
                longer.push(word);
                all.push(longer);
            }
        }
        from += 1;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_bank_in_every_order_and_repeated_come_to_the_same_end_for_each_payout() {
    let orders = orders();
    let seeds: Vec<u8> = (10..10 + u8::try_from(orders.len()).unwrap()).collect();
    let mut bank = Bank::with_accounts(seeds.iter().copied()).await;
    let deposits: Vec<Ntry> = seeds.iter().map(|by| from_account(&format!("IN-{by}"), 500, *by)).collect();
    assert_eq!(bank.bring(&notification("N0", &deposits)).await.deposits, orders.len() as u64);
    let (file, payouts) = bank.pay_out(&seeds, "5").await;
    for step in 0..4 {
        let now = |wanted: usize| {
            let all = orders.iter().zip(&payouts);
            all.filter(move |(order, _)| order.get(step) == Some(&wanted)).map(|(_, (by, id))| (*by, id.clone()))
        };
        let words: Vec<(String, bool)> =
            now(0).map(|(_, id)| (id, false)).chain(now(1).map(|(_, id)| (id, true))).collect();
        let debits = now(2).map(|(by, id)| of(&format!("OUT-{by}"), -500, &id, ""));
        let returned = "<RtrInf><Rsn><Cd>MD07</Cd></Rsn></RtrInf>";
        let list: Vec<Ntry> =
            debits.chain(now(3).map(|(by, id)| of(&format!("BACK-{by}"), 500, &id, returned))).collect();
        // Each twice: the same file, and the same entries in another one.
        for message in [format!("A{step}"), format!("B{step}")] {
            let report = status_report(&message, &file, &words);
            bank.put(&report);
            bank.put(&report);
            let booked = notification(&message, &list);
            bank.put(&booked);
            bank.put(&booked);
            let done = bank.settlement.poll().await.unwrap();
            assert_eq!((done.rejected, done.waiting, done.suspense, done.unexplained), (0, 0, 0, 0), "{done:?}");
            assert_eq!(done.repeated, 2);
        }
    }
    for (order, (by, _)) in orders.iter().zip(&payouts) {
        let has = |word| order.contains(&word);
        let (payable, in_transit) = match (has(2), has(3)) {
            (true, false) => ("0", "0"),
            (true, true) => ("5", "0"),
            (false, true) => ("5", "5"),
            (false, false) if has(1) && !has(0) => ("5", "0"),
            (false, false) => ("0", "5"),
        };
        let id = account(*by);
        let found = (bank.read(Place::Payable(id)).await, bank.read(Place::InTransit(id)).await);
        assert_eq!(found, (payable.to_owned(), in_transit.to_owned()), "{order:?}");
    }
    let (debits, returns): (usize, usize) = orders
        .iter()
        .fold((0, 0), |(d, r), order| (d + usize::from(order.contains(&2)), r + usize::from(order.contains(&3))));
    assert_eq!(bank.read(Place::Cash).await, (5 * (orders.len() - debits + returns)).to_string());
    assert_eq!(bank.read(Place::Unexplained).await, "0");
    assert!(audit(&bank.handle).books().ledger().is_balanced());
    bank.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_is_wrong_anywhere_posts_nothing_and_raises_an_alarm() {
    let mut bank = Bank::with_accounts([3]).await;
    let good = statement(1, 0, &[from_account("A", 1000, 3), from_account("B", 500, 3)]);
    let sums = good.replacen("15.00", "15.01", 1);
    let details = good.replacen("</EndToEndId></Refs>", "</EndToEndId></Refs><Amt Ccy=\"EUR\">9.99</Amt>", 1);
    let other = good.replace(IBAN, OTHER);
    let dollars = good.replace("EUR", "USD");
    let second = good.replace("</Stmt>", "</Stmt><Stmt><Id>X</Id></Stmt>");
    let no_balance = good.replacen("OPBD", "OPAV", 1);
    let cut = good[..good.len() - 9].to_owned();
    for bad in
        [&sums, &details, &other, &dollars, &second, &no_balance, &cut, &String::from("not a file"), &String::new()]
    {
        let report = bank.bring(bad).await;
        assert_eq!((report.rejected, report.files), (1, 0), "{bad}");
        assert_eq!(bank.read(Place::Cash).await, "0", "{bad}");
    }
    let rejected = std::fs::read_dir(bank.settlement.spool().rejected_dir()).unwrap().count();
    assert_eq!(rejected, 18, "each with its reason beside it");
    assert_eq!(bank.alarms().await.len(), 9);
    let mut kinds = bank.kinds().await;
    kinds.sort();
    assert_eq!(kinds.iter().filter(|kind| **kind == BreakKind::Currency).count(), 1);
    let breaks = bank.report().await.breaks;
    assert!(matches!(
        bank.settlement.resolve(&breaks[0].id, Decision::Accept(" ".into()), false).await,
        Err(ResolveError::NoReason(_))
    ));
    for one in &breaks {
        bank.settlement.resolve(&one.id, Decision::Accept("sent by mistake".into()), false).await.unwrap();
    }
    assert_eq!(bank.alarms().await.len(), 0);
    assert_eq!(bank.bring(&good).await.deposits, 2);
    assert_eq!(bank.read(Place::Cash).await, "15");
    bank.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_a_crash_interrupted_goes_on_where_it_was() {
    let mut bank = Bank::with_accounts([3]).await;
    let list: Vec<Ntry> = (0..50).map(|number| from_account(&format!("E{number}"), 100, 3)).collect();
    let text = statement(1, 0, &list);
    // What a hub had posted of it when it was killed.
    for number in [0, 1, 2, 17] {
        let deposit = Deposit {
            account: Some(account(3)),
            currency: Currency::EUR,
            amount: "1".parse().unwrap(),
            connector: IBAN.into(),
            bank_reference: format!("E{number}"),
        };
        bank.handle.order(Act::Deposit(deposit)).await.unwrap();
    }
    let report = bank.bring(&text).await;
    assert_eq!((report.files, report.deposits), (1, 46));
    assert_eq!(bank.read(Place::Cash).await, "50");
    // Killed after the last act and before the file was moved: nothing heard is known.
    std::fs::remove_file(bank.dir.path().join("bank/heard.json")).unwrap();
    let again = Bank::settle(&bank.dir.path().join("bank"), &bank.handle);
    std::fs::write(again.spool().inbox().join("again.xml"), &text).unwrap();
    let report = again.poll().await.unwrap();
    assert_eq!((report.files, report.deposits, report.suspense), (1, 0, 0));
    assert_eq!(bank.read(Place::Cash).await, "50");
    let agreed = again.reconcile().await.unwrap();
    assert!(agreed.healthy, "{agreed:?}");
    assert_eq!(agreed.currencies["EUR"].difference, Some(Signed(0)));
    bank.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn entry_of_nobody_waits_until_it_is_allocated_once() {
    let mut bank = Bank::with_accounts([3]).await;
    let stranger = of("X-1", 700, "NOTPROVIDED", "<RmtInf><Ustrd>thank you</Ustrd></RmtInf>");
    let own_debit = ntry("X-2", -200, "<AddtlNtryInf>rent</AddtlNtryInf>");
    let report = bank.bring(&statement(1, 0, &[from_account("A", 1000, 3), stranger, own_debit])).await;
    assert_eq!((report.deposits, report.suspense, report.unexplained), (1, 1, 1));
    let one = bank.report().await;
    assert_eq!((one.bank, one.cash, one.difference), (Some(Signed(15_000_000_000)), one.cash, Some(Signed(0))));
    assert_eq!((one.suspense.to_string(), one.unexplained.to_string()), ("7".into(), "2".into()));
    assert_eq!(bank.kinds().await, [BreakKind::UnmatchedBank, BreakKind::UnmatchedBank]);
    assert_eq!(bank.alarms().await.len(), 1, "money that left for nobody knows whom");
    let list = bank.settlement.suspense().await.unwrap().entries;
    let waiting = list.iter().find(|row| row.direction == "in").unwrap();
    assert!(waiting.about.contains("thank you"));
    let to = Decision::Allocate(Party::Account(account(3)));
    let planned = bank.settlement.resolve(&waiting.entry[..8], to.clone(), true).await.unwrap();
    assert_eq!((planned.commit, planned.amount.to_string()), (None, "7".to_owned()));
    let accept = Decision::Accept("whatever".into());
    assert!(matches!(bank.settlement.resolve("X-1", accept, false).await, Err(ResolveError::Money(_))));
    let nobody = Decision::Allocate(Party::Account(account(99)));
    assert!(bank.settlement.resolve("X-1", nobody, false).await.is_err());
    assert!(bank.settlement.resolve("X-1", to.clone(), false).await.unwrap().commit.is_some());
    assert!(matches!(bank.settlement.resolve("X-1", to, false).await, Err(ResolveError::Unknown(_))));
    assert_eq!(bank.read(Place::Available(account(3))).await, "17");
    bank.settlement.resolve("X-2", Decision::Allocate(Party::Hub), false).await.unwrap();
    assert_eq!((bank.read(Place::Unexplained).await, bank.read(Place::Shortfall).await), ("0".into(), "2".into()));
    // The hub sends money of its own to make it good.
    bank.bring(&statement(2, 1500, &[of("X-3", 300, "NOTPROVIDED", "")])).await;
    bank.settlement.resolve("X-3", Decision::Allocate(Party::Hub), false).await.unwrap();
    assert_eq!((bank.read(Place::Shortfall).await, bank.read(Place::Fees).await), ("0".into(), "1".into()));
    assert!(bank.alarms().await.is_empty());
    bank.handle.stop();
}

/// Somebody whom the hub does not know sends 7.
fn from_a_stranger() -> Ntry {
    let sender = format!(
        "<RltdPties><Dbtr><Nm>A Stranger</Nm></Dbtr><DbtrAcct><Id><IBAN>{OTHER}</IBAN></Id></DbtrAcct></RltdPties>"
    );
    of("X-1", 700, "NOTPROVIDED", &sender)
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_was_sent_back_by_hand_is_gone_once_both_entries_are_the_hubs_in_either_order() {
    for order in [["X-1", "X-2"], ["X-2", "X-1"]] {
        let mut bank = Bank::open();
        bank.bring(&statement(1, 0, &[from_a_stranger()])).await;
        let waiting = bank.settlement.suspense().await.unwrap().entries.remove(0);
        assert!(waiting.about.contains(OTHER) && waiting.about.contains("A Stranger"), "{}", waiting.about);
        bank.bring(&statement(2, 700, &[of("X-2", -700, "NOTPROVIDED", "")])).await;
        assert_eq!((bank.read(Place::Suspense).await, bank.read(Place::Unexplained).await), ("7".into(), "7".into()));
        assert_eq!(bank.alarms().await.len(), 1, "until somebody says what left");
        for entry in order {
            let to_hub = Decision::Allocate(Party::Hub);
            bank.settlement.resolve(entry, to_hub.clone(), false).await.unwrap();
            let again = bank.settlement.resolve(entry, to_hub, false).await;
            assert!(matches!(again, Err(ResolveError::Unknown(_))), "once");
        }
        for place in [Place::Suspense, Place::Unexplained, Place::Shortfall, Place::Fees, Place::Cash] {
            assert_eq!(bank.read(place).await, "0", "{place:?} after {order:?}");
        }
        assert!(bank.alarms().await.is_empty() && bank.kinds().await.is_empty());
        audit(&bank.handle);
        bank.handle.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_goes_back_through_an_account_of_its_sender_is_a_payout_like_others() {
    // The account is in the sender's name, with the sender's IBAN.
    let mut bank = Bank::with_accounts([5]).await;
    bank.bring(&statement(1, 0, &[from_a_stranger()])).await;
    bank.settlement.resolve("X-1", Decision::Allocate(Party::Account(account(5))), false).await.unwrap();
    let (file, ids) = bank.pay_out(&[5], "7").await;
    assert_eq!(bank.read(Place::Suspense).await, "0");
    bank.bring(&status_report("R-1", &file, &[(ids[0].1.clone(), true)])).await;
    assert_eq!(bank.read(Place::Payable(account(5))).await, "7", "refused: the account has it, and nobody else");
    let again = bank.settlement.run().await.unwrap();
    let end_to_end_id = again.payouts[0].end_to_end_id.clone();
    assert_ne!(end_to_end_id, ids[0].1);
    bank.bring(&statement(2, 700, &[of("X-2", -700, &end_to_end_id, "")])).await;
    assert_eq!((bank.read(Place::Cash).await, bank.read(Place::Payable(account(5))).await), ("0".into(), "0".into()));
    assert!(bank.alarms().await.is_empty() && bank.kinds().await.is_empty());
    audit(&bank.handle);
    bank.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn charges_are_borne_by_the_hub_and_the_rest_of_what_it_owes_is_shown() {
    let mut bank = Bank::with_accounts([3, 4]).await;
    bank.bring(&statement(1, 0, &[from_account("A", 1000, 3), from_account("B", 1000, 4)])).await;
    let (_, payouts) = bank.pay_out(&[3, 4], "10").await;
    let code = "<BkTxCd><Domn><Cd>ACMT</Cd><Fmly><Cd>MDOP</Cd><SubFmlyCd>CHRG</SubFmlyCd></Fmly></Domn></BkTxCd>";
    let on_top = "<Amt Ccy=\"EUR\">10.50</Amt><Chrgs><Rcrd><Amt Ccy=\"EUR\">0.50</Amt></Rcrd></Chrgs>";
    let less = "<Amt Ccy=\"EUR\">7.00</Amt><Chrgs><TtlChrgsAndTaxAmt Ccy=\"EUR\">3.00</TtlChrgsAndTaxAmt></Chrgs>\
                <RtrInf><Rsn><Cd>AC04</Cd></Rsn></RtrInf>";
    let list = [
        ntry("C-1", -135, code),
        of("C-2", -1050, &payouts[0].1, on_top),
        of("C-3", -1000, &payouts[1].1, ""),
        of("C-4", 700, &payouts[1].1, less),
    ];
    // First those that leave something to take charges from.
    let report = bank.bring(&notification("N", &list)).await;
    assert_eq!((report.settled, report.returned, report.charges, report.unexplained), (2, 1, 3, 0), "{report:?}");
    assert_eq!(bank.read(Place::Shortfall).await, "4.85");
    assert_eq!(bank.read(Place::Payable(account(4))).await, "10");
    assert_eq!(bank.read(Place::Cash).await, "5.15");
    assert_eq!(bank.kinds().await.iter().filter(|kind| **kind == BreakKind::Expected).count(), 4);
    let one = bank.report().await;
    assert_eq!((one.difference, one.unexplained_difference), (Some(Signed(14_850_000_000)), Signed(0)));
    let statement = statement(2, 2000, &list);
    let report = bank.bring(&statement).await;
    assert_eq!((report.settled, report.returned, report.charges), (0, 0, 0));
    assert_eq!(bank.kinds().await, [BreakKind::Returned]);
    assert_eq!(bank.report().await.difference, Some(Signed(0)));
    assert_eq!(bank.alarms().await.len(), 1, "what the hub owes");
    bank.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_for_a_whole_file_books_each_of_its_payouts() {
    for named in [true, false] {
        let mut bank = Bank::with_accounts([3, 4]).await;
        bank.bring(&statement(1, 0, &[from_account("A", 1000, 3), from_account("B", 1000, 4)])).await;
        let (file, payouts) = bank.pay_out(&[3, 4], "10").await;
        let batch = format!("<NtryDtls><Btch><PmtInfId>{file}</PmtInfId><NbOfTxs>2</NbOfTxs></Btch></NtryDtls>");
        let line = ntry("ALL", -2000, if named { &batch } else { "" });
        assert_eq!(bank.bring(&statement(2, 2000, &[line])).await.settled, 2);
        assert_eq!(bank.read(Place::Cash).await, "0");
        // The same line taken apart, in another message.
        let mut parts = String::new();
        for (_, id) in &payouts {
            let detail = "<Amt Ccy=\"EUR\">10.00</Amt>";
            write!(parts, "<TxDtls><Refs><EndToEndId>{id}</EndToEndId></Refs>{detail}</TxDtls>").unwrap();
        }
        let apart = ntry("ALL", -2000, &format!("<NtryDtls>{parts}</NtryDtls>"));
        let report = bank.bring(&notification("N", &[apart])).await;
        assert_eq!((report.settled, report.unexplained), (0, 0), "{report:?}");
        assert_eq!(bank.read(Place::Unexplained).await, "0");
        assert_eq!(bank.alarms().await, Vec::<String>::new());
        bank.handle.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_that_were_not_ordered_and_second_bookings_are_told_apart() {
    let mut bank = Bank::with_accounts([3, 4, 5]).await;
    let all = [3, 4, 5];
    let list: Vec<Ntry> = all.iter().map(|by| from_account(&format!("IN-{by}"), 3000, *by)).collect();
    bank.bring(&statement(1, 0, &list)).await;
    let (_, payouts) = bank.pay_out(&all, "10").await;
    let id = |at: usize| payouts[at].1.as_str();
    let list = [
        of("O-1", -1100, id(0), ""),
        of("O-2", -900, id(1), ""),
        of("O-3", -1000, id(2), ""),
        of("O-4", -1000, id(2), ""),
        of("O-5", 1000, id(2), ""),
        of("O-6", 1000, id(2), "<RtrInf><Rsn><Cd>AC04</Cd></Rsn></RtrInf>"),
    ];
    bank.bring(&statement(2, 9000, &list)).await;
    let mut kinds = bank.kinds().await;
    kinds.sort();
    let expected = [
        BreakKind::Expected,
        BreakKind::Over,
        BreakKind::Under,
        BreakKind::Duplicate,
        BreakKind::Duplicate,
        BreakKind::Returned,
    ];
    assert_eq!(kinds, expected);
    assert_eq!(bank.report().await.difference, Some(Signed(0)));
    assert_eq!(bank.read(Place::Payable(account(5))).await, "10", "once");
    bank.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_statement_is_named_until_it_comes_whatever_the_order() {
    let mut bank = Bank::with_accounts([3]).await;
    let day = |number: u32| [from_account(&format!("D{number}"), 100, 3)];
    bank.bring(&statement(1, 0, &day(1))).await;
    bank.bring(&statement(4, 300, &day(4))).await;
    let one = bank.report().await;
    assert_eq!((one.breaks[0].kind, one.difference), (BreakKind::Missing, Some(Signed(2_000_000_000))));
    assert_eq!(one.breaks[0].what, "statements 2 to 3 are missing");
    assert_eq!(one.unexplained_difference, Signed(0));
    assert_eq!(bank.alarms().await.len(), 1);
    bank.bring(&statement(3, 200, &day(3))).await;
    assert_eq!(bank.report().await.breaks[0].what, "statement 2 is missing");
    bank.bring(&statement(2, 100, &day(2))).await;
    assert!(bank.alarms().await.is_empty());
    let one = bank.report().await;
    assert_eq!((one.difference, one.statement.unwrap().sequence), (Some(Signed(0)), 4));
    bank.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn statement_beyond_its_age_and_an_opening_balance_of_before_raise_alarms() {
    let mut bank = Bank::with_accounts([3]).await;
    bank.bring(&statement(1, 5000, &[from_account("A", 100, 3)])).await;
    assert_eq!(bank.kinds().await, [BreakKind::Missing]);
    bank.settlement.resolve("opening-EUR", Decision::Allocate(Party::Hub), false).await.unwrap();
    assert_eq!((bank.report().await.difference, bank.read(Place::Fees).await), (Some(Signed(0)), "50".into()));
    assert!(bank.settlement.resolve("opening-EUR", Decision::Allocate(Party::Hub), false).await.is_err());
    assert!(bank.alarms().await.is_empty());
    let heard = bank.settlement.heard.lock().await.clone();
    let closed = heard.statements[0].closed_at_ms;
    for (age, alarms) in [(1000, 0), (1001, 1)] {
        let heard = heard.clone();
        let report =
            bank.handle.read(move |view| reconcile::reconcile(view.books, &heard, closed + age, 1000)).await.unwrap();
        assert_eq!(report.alarms.len(), alarms, "{age}");
        assert_eq!(report.healthy, alarms == 0);
    }
    bank.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn debit_that_the_ledger_cannot_bear_yet_waits_for_the_deposit() {
    let mut bank = Bank::with_accounts([3]).await;
    assert_eq!(bank.bring(&statement(2, 1000, &[ntry("Y", -400, "")])).await.waiting, 1);
    assert_eq!(bank.settlement.poll().await.unwrap().waiting, 1);
    assert_eq!(bank.alarms().await.len(), 1);
    bank.bring(&statement(1, 0, &[from_account("A", 1000, 3)])).await;
    assert_eq!(bank.settlement.poll().await.unwrap().unexplained, 1);
    assert_eq!(bank.read(Place::Cash).await, "6");
    assert_eq!(bank.report().await.difference, Some(Signed(0)));
    bank.handle.stop();
}

/// A small generator: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_posted_whole_or_not_at_all() {
    let bank = Bank::with_accounts([3]).await;
    let mut numbers = Numbers(7);
    let mut cash = 0_i128;
    let (mut taken, mut refused) = (0, 0);
    for round in 0..200_u32 {
        let list: Vec<Ntry> = (0..3).map(|at| from_account(&format!("R{round}-{at}"), 100 + at, 3)).collect();
        let mut bytes = statement(round + 1, 0, &list).into_bytes();
        for _ in 0..numbers.below(3) {
            let at = numbers.below(bytes.len());
            match numbers.below(4) {
                0 => bytes[at] = b'0' + u8::try_from(numbers.below(10)).unwrap(),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b'x'),
                _ => bytes[at] ^= 1,
            }
        }
        let read = crate::bank::StatementFile::read(bytes.as_slice());
        let path = bank.settlement.spool().inbox().join("f.xml");
        std::fs::write(&path, &bytes).unwrap();
        let report = bank.settlement.poll().await.unwrap();
        if report.files == 1 {
            let file = read.unwrap();
            let cents: rust_decimal::Decimal = file
                .statements
                .iter()
                .map(|s| s.closing.as_ref().unwrap().amount - s.opening.as_ref().unwrap().amount)
                .sum();
            cash += i128::from(Amount::from_decimal(cents).unwrap().nanos());
            taken += 1;
        } else {
            assert_eq!(report.rejected, 1, "{report:?}");
            refused += 1;
        }
        assert_eq!(bank.report().await.cash, Signed(cash), "round {round}: {}", String::from_utf8_lossy(&bytes));
    }
    assert!(taken > 20 && refused > 20, "{taken} taken, {refused} refused");
    bank.handle.stop();
}

fn debits() -> collect::Debits {
    collect::Debits { creditor_id: Some("DE98ZZZ09999999999".parse().unwrap()), ..collect::Debits::default() }
}

/// Account 3 has a mandate that its operator accepted, of which so much counts at once.
async fn accept_mandate(handle: &Handle, scheme: weir_protocol::act::MandateScheme, at_once: &str) {
    use weir_protocol::act::{Mandate, MandateScheme, MandateTerms};
    let mandate = Mandate {
        number: 2,
        account: account(3),
        scheme,
        mandate_id: "M-1".into(),
        iban: OTHER.into(),
        signed_at: weir_protocol::amount::Time(1_700_000_000_000),
        revoked: false,
    };
    act(handle, Act::Mandate(mandate), 3).await;
    let provisional_days = if scheme == MandateScheme::Core { 56 } else { 0 };
    let (mandate_id, at_once) = ("M-1".to_owned(), at_once.parse().unwrap());
    let terms = MandateTerms { account: account(3), mandate_id, accepted: true, at_once, provisional_days };
    handle.order(Act::MandateTerms(terms)).await.unwrap();
}

fn wish(amount: &str) -> collect::Wish {
    collect::Wish { account: account(3), amount: amount.parse().unwrap(), due: None }
}

/// Of account 3: available and provisional.
async fn topped_up(bank: &Bank) -> (String, String) {
    (bank.read(Place::Available(account(3))).await, bank.read(Place::Provisional(account(3))).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_debit_booked_returned_and_repeated_in_every_order_moves_money_once() {
    use weir_protocol::act::MandateScheme;
    for (scheme, at_once, booked) in [
        (MandateScheme::Core, "0", ("0", "50")),
        (MandateScheme::Core, "20", ("20", "30")),
        (MandateScheme::B2b, "0", ("50", "0")),
    ] {
        for order in [&[0][..], &[0, 0], &[0, 1], &[0, 1, 0, 1], &[1], &[1, 1], &[1, 0], &[1, 0, 1, 0], &[0, 0, 1, 1]] {
            let mut bank = Bank::with_accounts([3, 4]).await;
            bank.settlement = Bank::settle(&bank.dir.path().join("bank"), &bank.handle).with_debits(debits());
            bank.bring(&notification("F", &[from_account("IN-4", 10_000, 4)])).await;
            accept_mandate(&bank.handle, scheme, at_once).await;
            let told = bank.settlement.collect(wish("50"), false).await.unwrap();
            let id = told.end_to_end_id.as_str();
            let returned = "<RtrInf><Rsn><Cd>MD06</Cd></Rsn></RtrInf>";
            for (at, word) in order.iter().enumerate() {
                let entry = if *word == 0 { of("B-1", 5000, id, "") } else { of("B-2", -5000, id, returned) };
                bank.bring(&notification(&format!("N{at}"), &[entry])).await;
            }
            let has = |word: usize| order.contains(&word);
            let (expected, cash, unexplained) = match (has(0), has(1)) {
                (true, false) => (booked, "150", "0"),
                (false, _) => (("0", "0"), "50", "50"),
                (true, true) => (("0", "0"), "100", "0"),
            };
            let found = topped_up(&bank).await;
            assert_eq!(found, (expected.0.to_owned(), expected.1.to_owned()), "{scheme:?} {order:?}");
            assert_eq!(bank.read(Place::Cash).await, cash, "{order:?}");
            assert_eq!(bank.read(Place::Unexplained).await, unexplained, "{order:?}");
            let frozen = bank.handle.read(|view| view.books.account(&account(3)).unwrap().standing.frozen_outgoing);
            assert!(!frozen.await.unwrap(), "nothing was spent");
            audit(&bank.handle);
            bank.handle.stop();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_debit_taken_back_after_it_was_spent_freezes_its_account_and_is_listed() {
    let mut bank = Bank::with_accounts([3, 4]).await;
    bank.settlement = Bank::settle(&bank.dir.path().join("bank"), &bank.handle).with_debits(debits());
    bank.bring(&notification("F", &[from_account("IN-4", 10_000, 4)])).await;
    accept_mandate(&bank.handle, weir_protocol::act::MandateScheme::Core, "20").await;
    let told = bank.settlement.collect(wish("50"), false).await.unwrap();
    bank.bring(&notification("N1", &[of("B-1", 5000, &told.end_to_end_id, "")])).await;
    let marked = "15".parse().unwrap();
    let withdraw = Withdraw { number: 3, account: account(3), currency: Currency::EUR, marked };
    act(&bank.handle, Act::Withdraw(withdraw), 3).await;
    // Provisional money cannot be marked.
    let marked = "21".parse().unwrap();
    let beyond = Withdraw { number: 4, account: account(3), currency: Currency::EUR, marked };
    act(&bank.handle, Act::Withdraw(beyond), 3).await;
    assert_eq!(bank.read(Place::Marked(account(3))).await, "15");
    // What it took on top is the hub's.
    let back =
        "<AmtDtls><InstdAmt><Amt Ccy=\"EUR\">50.00</Amt></InstdAmt></AmtDtls><RtrInf><Rsn><Cd>MD06</Cd></Rsn></RtrInf>";
    bank.bring(&notification("N2", &[of("B-2", -5000, &told.end_to_end_id, back)])).await;
    assert_eq!(topped_up(&bank).await, ("0".to_owned(), "0".to_owned()));
    assert_eq!(bank.read(Place::Unexplained).await, "15");
    let frozen = bank.handle.read(|view| view.books.account(&account(3)).unwrap().standing.frozen_outgoing);
    assert!(frozen.await.unwrap());
    assert!(bank.kinds().await.contains(&BreakKind::Returned));
    assert!(bank.settlement.collect(wish("10"), false).await.is_err(), "nothing more is collected from it");
    // The hub bears it, once.
    let list = bank.settlement.suspense().await.unwrap();
    assert_eq!(list.entries.len(), 1);
    let entry = list.entries[0].entry.clone();
    bank.settlement.resolve(&entry, Decision::Allocate(Party::Hub), false).await.unwrap();
    assert_eq!(bank.read(Place::Unexplained).await, "0");
    assert_eq!(bank.read(Place::Shortfall).await, "15");
    audit(&bank.handle);
    bank.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_debit_is_told_once_wherever_the_hub_dies() {
    let mut whole = 0;
    for steps in 0..20 {
        let mut bank = Bank::with_accounts([3]).await;
        let root = bank.dir.path().join("bank");
        bank.settlement = Bank::settle(&root, &bank.handle).with_debits(debits());
        accept_mandate(&bank.handle, weir_protocol::act::MandateScheme::Core, "0").await;
        bank.settlement.fuse.light(steps);
        let died = bank.settlement.collect(wish("50"), false).await.is_err();
        bank.settlement = Bank::settle(&root, &bank.handle).with_debits(debits());
        bank.settlement.resume().await.unwrap();
        let out = |bank: &Bank| std::fs::read_dir(bank.settlement.spool().outbox()).unwrap().count();
        let told = bank.handle.read(|view| view.books.collections().next() > 1).await.unwrap();
        assert_eq!(out(&bank), usize::from(told), "{steps}");
        assert_eq!(std::fs::read_dir(bank.settlement.staged()).unwrap().count(), 0, "{steps}");
        let row = bank.settlement.collect(wish("50"), false).await.unwrap();
        assert_eq!((row.collection, out(&bank)), (1, 1), "{steps}");
        let bytes = std::fs::read(bank.settlement.spool().outbox().join(&row.file)).unwrap();
        crate::bank::inspect_collections(bytes.as_slice()).unwrap();
        bank.handle.stop();
        whole += usize::from(!died);
    }
    assert!((1..15).contains(&whole), "{whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_debit_without_identifier_mandate_or_time_is_refused() {
    use collect::DebitError;
    let mut bank = Bank::with_accounts([3]).await;
    let root = bank.dir.path().join("bank");
    assert!(matches!(bank.settlement.collect(wish("50"), false).await, Err(DebitError::NoCreditorId)));
    bank.settlement = Bank::settle(&root, &bank.handle).with_debits(debits());
    assert!(matches!(bank.settlement.collect(wish("50"), true).await, Err(DebitError::NoMandate(_))));
    assert!(matches!(bank.settlement.collect(wish("0.001"), true).await, Err(DebitError::Amount(_))));
    accept_mandate(&bank.handle, weir_protocol::act::MandateScheme::Core, "0").await;
    let planned = bank.settlement.collect(wish("50"), true).await.unwrap();
    assert_eq!((planned.state.as_str(), planned.collection), ("planned", 1));
    assert!(planned.due.is_target_day());
    let today = crate::bank::Date::from_unix_ms(crate::clock::wall_ms()).unwrap();
    let soon = collect::Wish { due: Some(today.plus_days(13).unwrap()), ..wish("50") };
    assert!(matches!(bank.settlement.collect(soon, true).await, Err(DebitError::Due { .. })));
    let closed = (15..23).map(|days| today.plus_days(days).unwrap()).find(|day| !day.is_target_day()).unwrap();
    let closed = collect::Wish { due: Some(closed), ..wish("50") };
    let refused = bank.settlement.collect(closed, true).await;
    assert!(matches!(refused, Err(DebitError::Closed { .. } | DebitError::Due { .. })), "{refused:?}");
    assert_eq!(bank.handle.read(|view| view.books.collections().next()).await.unwrap(), 1, "nothing was told");
    bank.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_debit_goes_through_the_sandbox_bank_to_the_account_and_the_statement_agrees() {
    use crate::bank::{SandboxBank, SandboxOptions};
    let mut bank = Bank::with_accounts([3]).await;
    bank.settlement = Bank::settle(&bank.dir.path().join("bank"), &bank.handle).with_debits(debits());
    let mut sandbox = SandboxBank::open(SandboxOptions {
        dir: bank.dir.path().join("sandbox"),
        outbox: bank.settlement.spool().outbox().to_owned(),
        inbox: bank.settlement.spool().inbox().to_owned(),
        name: "Weir".into(),
        iban: IBAN.parse().unwrap(),
        currency: crate::bank::Currency::EUR,
        rejects: std::collections::BTreeMap::default(),
        batch_booking: false,
    })
    .unwrap();
    accept_mandate(&bank.handle, weir_protocol::act::MandateScheme::Core, "20").await;
    let told = bank.settlement.collect(wish("50"), false).await.unwrap();
    assert_eq!(told.sequence, crate::bank::Sequence::First);
    sandbox.run_once(crate::clock::wall_ms()).unwrap();
    bank.settlement.poll().await.unwrap();
    assert_eq!(topped_up(&bank).await, ("20".to_owned(), "30".to_owned()));
    sandbox.end_of_day(crate::clock::wall_ms()).unwrap();
    bank.settlement.poll().await.unwrap();
    assert_eq!(topped_up(&bank).await, ("20".to_owned(), "30".to_owned()));
    let report = bank.report().await;
    assert_eq!((report.difference, report.breaks_total), (Some(Signed(0)), 0), "{:?}", report.breaks);
    let next = bank.settlement.collect(wish("60"), false).await.unwrap();
    assert_eq!((next.collection, next.sequence), (2, crate::bank::Sequence::Recurring));
    audit(&bank.handle);
    bank.handle.stop();
}

/// The files of the bank's own tests come from its writer alone; these from settlement, as it sends them.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_file_is_written_for_the_schema_check_by_direct_debits_too() {
    use crate::bank::{CollectionFile, Date};
    use weir_protocol::act::MandateScheme;
    let keep = std::env::var_os("WEIR_SCHEMA_FILES").map(std::path::PathBuf::from);
    for (scheme, word) in [(MandateScheme::Core, "CORE"), (MandateScheme::B2b, "B2B")] {
        let mut bank = Bank::with_accounts([3]).await;
        bank.settlement = Bank::settle(&bank.dir.path().join("bank"), &bank.handle).with_debits(debits());
        accept_mandate(&bank.handle, scheme, "0").await;
        for (amount, sequence) in [("0.01", "FRST"), ("999999999.99", "RCUR")] {
            let told = bank.settlement.collect(wish(amount), false).await.unwrap();
            let path = bank.settlement.spool().outbox().join(&told.file);
            let bytes = std::fs::read(&path).unwrap();
            if let Some(dir) = &keep {
                std::fs::copy(&path, dir.join(format!("settled-{word}-{}.xml", told.collection))).unwrap();
            }
            // What schemas do not see.
            crate::bank::inspect_collections(bytes.as_slice()).unwrap();
            let file = CollectionFile::read(bytes.as_slice()).unwrap();
            let [batch] = file.batches.as_slice() else { panic!("{file:?}") };
            let [order] = batch.orders.as_slice() else { panic!("{file:?}") };
            assert_eq!((batch.scheme.as_str(), batch.sequence.as_str()), (word, sequence));
            assert_eq!(batch.creditor_id.as_deref(), Some("DE98ZZZ09999999999"));
            assert_eq!((order.mandate_id.as_str(), order.debtor_iban.as_str()), ("M-1", OTHER));
            let created = Date::from_iso(&file.created).unwrap();
            assert!(order.signed_on <= created);
            assert!(batch.collection_date >= created.plus_days(14).unwrap(), "the account is told as early");
            assert!(batch.collection_date.is_target_day());
        }
        bank.handle.stop();
    }
}

/// Plans, agrees and tells as far as that was not done.
async fn plan_agree_and_tell(settlement: &Settlement) -> Result<collect::CollectionRow, collect::DebitError> {
    use weir_protocol::act::{ApproveCollect, Collect};
    let handle = &settlement.handle;
    let sign = async |by: u8, collect: &Collect| {
        let operator = super::tests::key(by).public();
        let last = handle.read(move |view| view.books.operators().get(&operator).unwrap().number()).await.unwrap();
        let act = ApproveCollect { number: last + 1, operator, approved: true, collect: collect.clone() };
        Act::ApproveCollect(act).sign(&handle.hub(), &super::tests::key(by))
    };
    let proposal = settlement.propose_collection(wish("50")).await?;
    let number = proposal.row.collection;
    if let Some(collect) = &proposal.collect {
        settlement.record_collection(sign(21, collect).await).await?;
    }
    if proposal.row.state == "planned" {
        let planned = settlement.planned_collection(number).await?;
        if planned.row.approved_by.is_empty() {
            let refused = settlement.run_collection(number, false).await;
            assert!(refused.is_err(), "nobody else has agreed");
            settlement.record_collection(sign(22, planned.collect.as_ref().unwrap()).await).await?;
        }
    }
    settlement.run_collection(number, false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_debit_that_operators_agree_to_is_told_once_wherever_the_hub_dies() {
    use weir_protocol::act::Operator;
    let mut whole = 0;
    for steps in 0..24 {
        let mut bank = Bank::with_accounts([3]).await;
        let root = bank.dir.path().join("bank");
        bank.settlement = Bank::settle(&root, &bank.handle).with_debits(debits());
        accept_mandate(&bank.handle, weir_protocol::act::MandateScheme::Core, "0").await;
        for by in [21, 22] {
            let (key, name) = (super::tests::key(by).public(), "Somebody".to_owned());
            bank.handle.order(Act::Operator(Operator { number: 0, by: None, key, stands: true, name })).await.unwrap();
        }
        let policy = bank.handle.read(|view| view.books.policy().clone()).await.unwrap();
        bank.handle.order(Act::Policy(weir_protocol::act::Policy { approvals: 1, ..policy })).await.unwrap();
        let alone = bank.settlement.collect(wish("50"), false).await;
        assert!(matches!(alone, Err(collect::DebitError::NotNow { .. })), "{alone:?}");
        bank.settlement.fuse.light(steps);
        let died = plan_agree_and_tell(&bank.settlement).await.is_err();
        bank.settlement = Bank::settle(&root, &bank.handle).with_debits(debits());
        bank.settlement.resume().await.unwrap();
        let out = |bank: &Bank| std::fs::read_dir(bank.settlement.spool().outbox()).unwrap().count();
        let told = bank.handle.read(|view| view.books.collections().get(1).is_some()).await.unwrap();
        assert_eq!(out(&bank), usize::from(told), "{steps}");
        let row = plan_agree_and_tell(&bank.settlement).await.unwrap();
        assert_eq!((row.collection, row.state.as_str(), out(&bank)), (1, "told", 1), "{steps}");
        assert_eq!(std::fs::read_dir(bank.settlement.staged()).unwrap().count(), 0, "{steps}");
        audit(&bank.handle);
        bank.handle.stop();
        whole += usize::from(!died);
    }
    assert!((1..18).contains(&whole), "{whole}");
}
