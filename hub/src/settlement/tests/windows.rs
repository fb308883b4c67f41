//! Windows with operators: four eyes, aborts, and a crash at every step.

use weir_protocol::act::{Abort, Approval, ApproveIban, CloseRequest, Deposit, Limits, Operator};

use super::*;
use crate::engine::operators::OperatorState;
use crate::engine::record::{ItemRecord, Record};

mod split;

const ADA: u8 = 0x31;
const BEN: u8 = 0x32;
const EVE: u8 = 0x33;

/// A hub with two operators where one approval is needed, and three accounts with something marked for payout.
struct Scene {
    root: tempfile::TempDir,
    approvals: u32,
    payout_min: &'static str,
}

impl Scene {
    async fn new(approvals: u32) -> Self {
        let scene = Self { root: tempfile::tempdir().unwrap(), approvals, payout_min: "0.01" };
        let (handle, settlement) = scene.start();
        // A changed bank account counts at once.
        let zero = Amount::ZERO;
        let limits = Limits { account: None, payment_max: zero, balance_max: zero, day_max: zero, iban_wait_s: 0 };
        handle.order(Act::Limits(limits)).await.unwrap();
        for (by, name, iban) in [
            (3, "One", "DE02120300000000202051"),
            (4, "Two", "DE02500105170137075030"),
            (5, "Three", "DE02100500000054540402"),
        ] {
            register(&handle, by, name, iban).await;
            let deposit = Deposit {
                account: Some(account(by)),
                currency: Currency::EUR,
                amount: "10".parse().unwrap(),
                connector: "test".into(),
                bank_reference: name.into(),
            };
            handle.order(Act::Deposit(deposit)).await.unwrap();
            // The third stays below the minimum.
            let marked = if by == 5 { "0.009" } else { "2.505" };
            mark(&handle, by, 2, marked).await;
        }
        for seed in [ADA, BEN] {
            let act = Operator { number: 0, by: None, key: key(seed).public(), stands: true, name: format!("{seed}") };
            handle.order(Act::Operator(act)).await.unwrap();
        }
        drop(settlement);
        handle.stop();
        scene
    }

    fn start(&self) -> (Handle, Settlement) {
        let handle = start_with(&self.root.path().join("data"), self.approvals, self.payout_min);
        let account = BankAccount { name: "Hub".into(), iban: "DE89370400440532013000".parse().unwrap(), bic: None };
        let settlement = Settlement::open(handle.clone(), &self.root.path().join("bank"), account).unwrap();
        (handle, settlement)
    }

    fn files(&self, directory: &str) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(self.root.path().join("bank").join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
            .filter(|(name, _)| !name.starts_with('.'))
            .collect();
        files.sort();
        files
    }
}

async fn mark(handle: &Handle, by: u8, number: u64, marked: &str) {
    let withdraw = Withdraw { number, account: account(by), currency: Currency::EUR, marked: marked.parse().unwrap() };
    assert!(matches!(act(handle, Act::Withdraw(withdraw), by).await, Said::Done { .. }));
}

async fn number(handle: &Handle, seed: u8) -> u64 {
    let public = key(seed).public();
    handle.read(move |view| view.books.operators().get(&public).unwrap().number()).await.unwrap() + 1
}

async fn planned(handle: &Handle, settlement: &Settlement, by: u8) -> Result<bool, SettlementError> {
    let plan = settlement.proposal(1, Currency::EUR).await?;
    let plan = Plan { number: number(handle, by).await, operator: Some(key(by).public()), ..plan };
    settlement.record(Act::Plan(plan).sign(&handle.hub(), &key(by))).await
}

async fn approved(handle: &Handle, settlement: &Settlement, by: u8) -> Result<bool, SettlementError> {
    let (plan, file) = handle
        .read(|view| {
            let record = view.books.windows().get(1)?.plans.get(&Currency::EUR)?;
            Some((record.digest, record.plan.file))
        })
        .await?
        .unwrap_or((Hash::ZERO, Hash::ZERO));
    let approval = Approval {
        number: number(handle, by).await,
        operator: key(by).public(),
        window: 1,
        currency: Currency::EUR,
        plan,
        file,
    };
    settlement.record(Act::Approval(approval).sign(&handle.hub(), &key(by))).await
}

async fn state(settlement: &Settlement) -> Option<WindowState> {
    settlement.report(1).await.unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn bank_is_told_only_after_another_operator_agreed() {
    let scene = Scene::new(1).await;
    let (handle, settlement) = scene.start();
    assert!(matches!(settlement.run().await, Err(SettlementError::NothingPlanned(1))));
    assert_eq!(settlement.cut_off().await.unwrap(), 1);
    assert_eq!(state(&settlement).await, Some(WindowState::CutOff));
    let report = settlement.report(1).await.unwrap();
    assert_eq!((report.payouts.len(), report.positions.len(), report.skipped.len()), (2, 3, 1));
    assert!(report.skipped[0].missing.is_none(), "less than a cent is no question of the minimum");
    assert_eq!(report.sums[&Currency::EUR].paid_out, "5".parse().unwrap());
    assert!(matches!(settlement.run_window(Some(1), None).await, Ok(1)), "nothing is planned: nothing happens");

    assert!(planned(&handle, &settlement, ADA).await.unwrap());
    assert_eq!(state(&settlement).await, Some(WindowState::Planned));
    assert_eq!((scene.files("staged").len(), scene.files("outbox").len()), (1, 0));
    let refused = settlement.run().await.unwrap_err();
    let few = NotNow::Approvals { given: 0, needed: 1 };
    assert!(matches!(refused, SettlementError::NotNow { window: 1, why } if why == few), "{refused}");
    let own = approved(&handle, &settlement, ADA).await;
    assert!(matches!(own, Err(SettlementError::Refused(Reject::Unauthenticated))), "{own:?}");
    let nobody = Approval {
        number: 1,
        operator: key(EVE).public(),
        window: 1,
        currency: Currency::EUR,
        plan: Hash::ZERO,
        file: Hash::ZERO,
    };
    let nobody = settlement.record(Act::Approval(nobody).sign(&handle.hub(), &key(EVE))).await;
    assert!(matches!(nobody, Err(SettlementError::Refused(Reject::Unauthenticated))));

    assert!(approved(&handle, &settlement, BEN).await.unwrap());
    assert_eq!(state(&settlement).await, Some(WindowState::Approved));
    assert_eq!(scene.files("outbox").len(), 0, "approved is not told");
    let plan = settlement.report(1).await.unwrap().plans.remove(0);
    let names = (plan.operator_name, plan.approval_names);
    assert_eq!(names, (Some(format!("{ADA}")), vec![format!("{BEN}")]), "whose keys these are");
    let staged = scene.files("staged");
    settlement.run().await.unwrap();
    assert_eq!(state(&settlement).await, Some(WindowState::Instructed));
    assert_eq!((scene.files("staged").len(), scene.files("outbox")), (0, staged));
    settlement.run_window(Some(1), None).await.unwrap();
    settlement.resume().await.unwrap();
    assert_eq!(scene.files("outbox").len(), 1);
    audit(&handle);
    handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_who_ends_takes_the_agreement_along() {
    let scene = Scene::new(1).await;
    let (handle, settlement) = scene.start();
    settlement.cut_off().await.unwrap();
    planned(&handle, &settlement, ADA).await.unwrap();
    approved(&handle, &settlement, BEN).await.unwrap();
    let revoke = |number| Operator {
        number,
        by: Some(key(ADA).public()),
        key: key(BEN).public(),
        stands: false,
        name: String::new(),
    };
    let act = Act::Operator(revoke(number(&handle, ADA).await)).sign(&handle.hub(), &key(ADA));
    assert!(handle.order_signed(act.clone()).await.unwrap().is_some());
    assert!(handle.order_signed(act).await.unwrap().is_none(), "the same again gets the same answer");
    assert_eq!(state(&settlement).await, Some(WindowState::Planned));
    assert!(matches!(settlement.run().await, Err(SettlementError::NotNow { .. })));
    // One stands: whoever holds the machine names another.
    let eve = Operator { number: 0, by: None, key: key(EVE).public(), stands: true, name: "Eve".into() };
    handle.order(Act::Operator(eve)).await.unwrap();
    let eve = key(EVE).public();
    let stands = handle.read(move |view| view.books.operators().get(&eve).unwrap().state).await.unwrap();
    assert_eq!(stands, OperatorState::Stands);
    approved(&handle, &settlement, EVE).await.unwrap();
    settlement.run().await.unwrap();
    audit(&handle);
    handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_window_is_planned_again_and_old_words_are_dead() {
    let scene = Scene::new(1).await;
    let (handle, settlement) = scene.start();
    settlement.cut_off().await.unwrap();
    let plan = settlement.proposal(1, Currency::EUR).await.unwrap();
    let plan = Plan { number: 1, operator: Some(key(ADA).public()), ..plan };
    let old_plan = Act::Plan(plan).sign(&handle.hub(), &key(ADA));
    assert!(settlement.record(old_plan.clone()).await.unwrap());
    assert!(!settlement.record(old_plan.clone()).await.unwrap(), "the same plan again changes nothing");
    approved(&handle, &settlement, BEN).await.unwrap();
    let digest = old_plan.act.digest(&handle.hub());
    let abort = Abort {
        number: 2,
        operator: Some(key(ADA).public()),
        window: 1,
        currency: Currency::EUR,
        plan: digest,
        reason: "a mistake".into(),
    };
    assert!(settlement.record(Act::Abort(abort).sign(&handle.hub(), &key(ADA))).await.unwrap());
    assert_eq!(state(&settlement).await, Some(WindowState::CutOff));
    assert_eq!((scene.files("staged").len(), scene.files("outbox").len()), (0, 0));
    let again = settlement.record(old_plan).await;
    assert!(matches!(again, Err(SettlementError::Refused(Reject::Stale))) || again.is_err(), "{again:?}");
    planned(&handle, &settlement, BEN).await.unwrap();
    assert!(matches!(settlement.run().await, Err(SettlementError::NotNow { .. })), "the old approval is gone");
    approved(&handle, &settlement, ADA).await.unwrap();
    settlement.run().await.unwrap();
    assert_eq!(settlement.report(1).await.unwrap().aborted, 1);
    audit(&handle);
    handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_payee_or_file_stops_an_approved_plan() {
    let scene = Scene::new(1).await;
    let (handle, settlement) = scene.start();
    settlement.cut_off().await.unwrap();
    planned(&handle, &settlement, ADA).await.unwrap();
    // A staged file that somebody changed is made again before it is approved: the approval is of the planned bytes.
    let (name, bytes) = scene.files("staged").remove(0);
    std::fs::write(settlement.staged().join(&name), "other").unwrap();
    approved(&handle, &settlement, BEN).await.unwrap();
    assert_eq!(scene.files("staged"), [(name.clone(), bytes.clone())]);
    std::fs::remove_file(settlement.staged().join(&name)).unwrap();
    settlement.resume().await.unwrap();
    assert_eq!(scene.files("staged"), [(name, bytes)], "byte-identical");
    let moved =
        Register { number: 3, account: account(4), name: "Twain".into(), iban: "DE02500105170137075030".into() };
    assert!(matches!(act(&handle, Act::Register(moved), 4).await, Said::Done { .. }));
    let refused = settlement.run().await.unwrap_err();
    assert!(matches!(refused, SettlementError::NotNow { why: NotNow::Details, .. }), "{refused}");
    assert_eq!(scene.files("outbox").len(), 0);
    handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_window_settles_at_once_without_anybody() {
    let scene = Scene::new(2).await;
    let (handle, settlement) = scene.start();
    for by in [3, 4] {
        mark(&handle, by, 3, "0").await;
    }
    let run = settlement.run().await.unwrap();
    assert_eq!((run.window, run.state), (1, Some(WindowState::Settled)));
    assert_eq!(run.skipped.len(), 1, "what is less than a cent is carried over");
    audit(&handle);
    handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn open_window_that_pays_out_only_what_is_forced_waits_for_its_plan() {
    let scene = Scene { payout_min: "5", ..Scene::new(1).await };
    let (handle, settlement) = scene.start();
    let force = |number, window| {
        let act = ForceFinal { number, operator: Some(key(ADA).public()), window, account: Some(account(3)) };
        Act::ForceFinal(act).sign(&handle.hub(), &key(ADA))
    };
    // Without it the window would be empty, and settle when it is cut off.
    assert!(settlement.record(force(1, 1)).await.unwrap());
    assert_eq!(state(&settlement).await, Some(WindowState::CutOff));
    let report = settlement.report(1).await.unwrap();
    assert_eq!((report.payouts.len(), report.payouts[0].account, report.skipped.len()), (1, account(3), 2));
    assert_eq!(report.payouts[0].amount, "2.5".parse().unwrap());
    assert!(!settlement.record(force(1, 1)).await.unwrap(), "the same again changes nothing");
    planned(&handle, &settlement, ADA).await.unwrap();
    let late = settlement.record(force(3, 1)).await.unwrap_err();
    assert!(matches!(late, SettlementError::TooLate(1)), "{late}");
    approved(&handle, &settlement, BEN).await.unwrap();
    settlement.run().await.unwrap();
    assert_eq!(scene.files("outbox").len(), 1);
    // What is left of the two others stays payable, below the minimum.
    let next = settlement.preview().await.unwrap();
    assert_eq!((next.payouts.len(), next.skipped.len()), (0, 3));
    audit(&handle);
    handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn window_cut_off_before_another_was_planned_says_who_paid() {
    let scene = Scene::new(1).await;
    let (handle, settlement) = scene.start();
    settlement.cut_off().await.unwrap();
    mark(&handle, 3, 3, "1").await;
    settlement.cut_off().await.unwrap();
    // One plan pays out all that is payable, from both windows.
    planned(&handle, &settlement, ADA).await.unwrap();
    let first = settlement.report(1).await.unwrap();
    assert_eq!(first.sums[&Currency::EUR].paid_out, "6".parse().unwrap());
    let why = |report: RunReport| -> Vec<String> { report.skipped.into_iter().map(|line| line.why).collect() };
    approved(&handle, &settlement, BEN).await.unwrap();
    settlement.run().await.unwrap();
    settlement.resume().await.unwrap();
    let second = settlement.report(2).await.unwrap();
    assert_eq!((second.state, second.payouts.len()), (Some(WindowState::Settled), 0));
    let why = why(second);
    assert_eq!(why.iter().filter(|why| *why == "it is paid out with window 1").count(), 2, "{why:?}");
    audit(&handle);
    handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_of_the_hub_itself_that_is_outdated_is_made_again() {
    let scene = Scene::new(0).await;
    let (handle, settlement) = scene.start();
    // The hub dies between its plan and the instruction, and a payee moves meanwhile.
    let mut steps = 0;
    let planned = |view: &crate::pipeline::View<'_>| view.books.windows().get(1).map(|window| window.state);
    while handle.read(planned).await.unwrap() != Some(WindowState::Approved) {
        settlement.fuse.light(steps);
        assert!(go_on(&handle, &settlement, true).await.is_err());
        steps += 1;
    }
    let moved = Register { number: 3, account: account(4), name: "Two".into(), iban: "DE02100500000054540402".into() };
    assert!(matches!(act(&handle, Act::Register(moved), 4).await, Said::Done { .. }));
    drop(settlement);
    handle.stop();
    let (handle, settlement) = scene.start();
    settlement.resume().await.unwrap();
    assert_eq!(state(&settlement).await, Some(WindowState::Instructed));
    let text = String::from_utf8(scene.files("outbox").remove(0).1).unwrap();
    assert!(text.contains("DE02100500000054540402") && !text.contains("DE02500105170137075030"));
    assert_eq!(settlement.report(1).await.unwrap().aborted, 1);
    audit(&handle);
    handle.stop();
}

/// Takes the window as far as it goes, from wherever it is: what an operator's script that is run again does.
async fn go_on(handle: &Handle, settlement: &Settlement, alone: bool) -> Result<(), SettlementError> {
    settlement.resume().await?;
    let known = |view: &crate::pipeline::View<'_>| view.books.windows().get(1).map(|window| window.state);
    if handle.read(known).await?.is_none() {
        settlement.cut_off().await?;
    }
    if !alone {
        if handle.read(known).await? == Some(WindowState::CutOff) {
            planned(handle, settlement, ADA).await?;
        }
        if handle.read(known).await? == Some(WindowState::Planned) {
            approved(handle, settlement, BEN).await?;
        }
        settlement.run_window(Some(1), None).await?;
    }
    Ok(())
}

async fn crash_everywhere(approvals: u32) {
    let mut first: Option<Vec<(String, Vec<u8>)>> = None;
    let mut steps = 0;
    loop {
        let scene = Scene::new(approvals).await;
        let (handle, settlement) = scene.start();
        settlement.fuse.light(steps);
        let done = go_on(&handle, &settlement, approvals == 0).await;
        let lasted = done.is_ok();
        assert!(matches!(done, Ok(()) | Err(SettlementError::Broken)), "step {steps}: {done:?}");
        drop(settlement);
        handle.stop();
        // The process is gone; the next one goes on, and a third one finds nothing to do.
        for _ in 0..2 {
            let (handle, settlement) = scene.start();
            go_on(&handle, &settlement, approvals == 0).await.unwrap();
            let report = settlement.report(1).await.unwrap();
            assert_eq!(report.state, Some(WindowState::Instructed), "step {steps}");
            let in_transit = balance(&handle, account(3)).await.in_transit;
            assert_eq!(in_transit, "2.5".parse().unwrap(), "step {steps}");
            audit(&handle);
            handle.stop();
        }
        let outbox = scene.files("outbox");
        assert_eq!((outbox.len(), scene.files("staged").len()), (1, 0), "step {steps}");
        // The time of the cut-off is in the file; everything else is the same whatever happened on the way.
        let text = String::from_utf8(outbox[0].1.clone()).unwrap();
        assert_eq!(text.matches("<CdtTrfTxInf>").count(), 2, "step {steps}");
        let (name, _) = &outbox[0];
        let known = first.get_or_insert_with(|| outbox.clone());
        assert_eq!(name, &known[0].0);
        if lasted {
            break;
        }
        steps += 1;
    }
    assert!(steps > 8, "{steps} steps are too few to be all");
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_at_every_step_of_the_hubs_own_window_tells_the_bank_once() {
    crash_everywhere(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_at_every_step_of_a_window_with_operators_tells_the_bank_once() {
    crash_everywhere(1).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn file_of_a_window_is_the_same_bytes_wherever_the_hub_crashed() {
    let cut = Scene::new(1).await;
    let (handle, settlement) = cut.start();
    settlement.cut_off().await.unwrap();
    drop(settlement);
    handle.stop();
    let mut known: Option<Vec<(String, Vec<u8>)>> = None;
    let mut steps = 0;
    loop {
        let scene = Scene { root: tempfile::tempdir().unwrap(), approvals: 1, payout_min: "0.01" };
        copy(cut.root.path(), scene.root.path());
        let (handle, settlement) = scene.start();
        settlement.fuse.light(steps);
        let lasted = go_on(&handle, &settlement, false).await.is_ok();
        drop(settlement);
        handle.stop();
        let (handle, settlement) = scene.start();
        go_on(&handle, &settlement, false).await.unwrap();
        handle.stop();
        let outbox = scene.files("outbox");
        assert_eq!(outbox.len(), 1, "step {steps}");
        assert_eq!(&outbox, known.get_or_insert_with(|| outbox.clone()), "step {steps}");
        if lasted {
            break;
        }
        steps += 1;
    }
    assert!(steps > 4, "{steps} steps are too few to be all");
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_cut_off_that_was_missed_while_the_hub_was_down_is_made_once() {
    let scene = Scene::new(1).await;
    let (handle, settlement) = scene.start();
    let began = handle.read(|view| view.books.windows().opened_at()).await.unwrap().unwrap();
    // Three times passed, the next is far away.
    let times = [1, 2, 3, 1_000_000_000].map(|after_ms| began.plus_ms(after_ms));
    let next_after = |time: Time| times.into_iter().find(|next| *next > time);
    while handle.now().unwrap() < times[2] {
        tokio::task::yield_now().await;
    }
    drop(settlement);
    handle.stop();
    let (handle, settlement) = scene.start();
    assert_eq!(settlement.cut_off_if_passed(next_after).await.unwrap(), Some(1));
    for _ in 0..3 {
        assert_eq!(settlement.cut_off_if_passed(next_after).await.unwrap(), None);
    }
    drop(settlement);
    handle.stop();
    let (handle, settlement) = scene.start();
    assert_eq!(settlement.cut_off_if_passed(next_after).await.unwrap(), None, "not at the next start either");
    assert_eq!(handle.read(|view| view.books.windows().open()).await.unwrap(), 2);
    audit(&handle);
    handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn close_that_races_a_cut_off_belongs_to_one_window() {
    const ROUNDS: u8 = 25;
    let dir = tempfile::tempdir().unwrap();
    let (handle, settlement, mut sandbox) = bench(dir.path());
    let settlement = std::sync::Arc::new(settlement);
    register(&handle, 3, "Payer", "DE02120300000000202051").await;
    register(&handle, 4, "Payee", "DE02500105170137075030").await;
    transfer(&mut sandbox, "100", 3);
    settlement.poll().await.unwrap();
    let mut earned = Amount::ZERO;
    for round in 1..=ROUNDS {
        let terms = terms(&handle, 3, "2", round);
        assert!(matches!(act(&handle, Act::Open(terms), 3).await, Said::Done { .. }));
        pay(&handle, &terms, &key(30), &["0.123456789"], account(4)).await;
        earned = earned.checked_add("0.123456789".parse().unwrap()).unwrap();
        let request = CloseRequest { number: u64::from(round) + 1, channel: terms.id() };
        let signed = Box::new(Act::CloseRequest(request).sign(&handle.hub(), &key(3)));
        let (closer, shard) = (handle.clone(), handle.shard_of(&terms.id().0));
        let close =
            tokio::spawn(
                async move { closer.request(shard, |reply| Input::Act { signed, refund: None, reply }).await },
            );
        let cutter = settlement.clone();
        let cut = tokio::spawn(async move { cutter.cut_off().await });
        let (closed, cut) = (close.await.unwrap().unwrap(), cut.await.unwrap().unwrap());
        assert!(!matches!(closed, Said::Refused(_)), "{closed:?}");
        assert_eq!(cut, u64::from(round));
    }
    settlement.cut_off().await.unwrap();
    // By the journal: each channel closed once, in a commit that is before a cut-off or ends with it.
    let (mut closes, mut of_window, mut windows) = (Vec::new(), Vec::new(), 0);
    let mut each = |items: Vec<ItemRecord>| {
        let last = items.len() - 1;
        for (at, item) in items.into_iter().enumerate() {
            let ItemRecord::Act(record) = item else { continue };
            match record.act {
                Act::Close(close) => {
                    closes.push(close.channel);
                    of_window.push(windows + 1);
                }
                Act::Cutoff(cutoff) => {
                    assert_eq!(at, last, "nothing of a commit comes after its cut-off");
                    windows += 1;
                    assert_eq!(cutoff.window, windows);
                }
                _ => {}
            }
        }
    };
    handle
        .journal()
        .scan(1, &mut |entry| {
            each(Record::decode(&entry.payload).unwrap().items);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((closes.len(), windows), (usize::from(ROUNDS), u64::from(ROUNDS) + 1));
    assert!(of_window.iter().all(|window| *window <= windows), "each before some cut-off");
    closes.sort();
    closes.dedup();
    assert_eq!(closes.len(), usize::from(ROUNDS), "none twice");
    // And by the books: what was earned is in one window's totals each.
    let totals = handle.read(|view| {
        let windows = view.books.windows().iter();
        let each = windows.filter_map(|(_, window)| window.totals.get(&Currency::EUR));
        each.fold(Amount::ZERO, |sum, totals| sum.checked_add(totals.earned).unwrap())
    });
    assert_eq!(totals.await.unwrap(), earned);
    assert!(audit(&handle).books().ledger().is_balanced());
    handle.stop();
}

async fn iban_in_force(handle: &Handle) -> String {
    handle.read(|view| view.books.account(&account(4)).unwrap().iban.clone()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_bank_account_counts_with_an_operator_only() {
    let scene = Scene::new(1).await;
    let (handle, settlement) = scene.start();
    let (old, new) = ("DE02500105170137075030", "DE02100500000054540402");
    let moved = Register { number: 3, account: account(4), name: "Two".into(), iban: new.into() };
    assert!(matches!(act(&handle, Act::Register(moved), 4).await, Said::Done { .. }));
    settlement.cut_off().await.unwrap();
    assert_eq!(iban_in_force(&handle).await, old, "no wait, and nobody has agreed");
    let agree = |by: u8, number: u64, iban: &str| {
        let act = ApproveIban { number, operator: key(by).public(), account: account(4), iban: iban.into() };
        Act::ApproveIban(act).sign(&handle.hub(), &key(by))
    };
    assert_eq!(handle.order_signed(agree(EVE, 1, new)).await.map(|_| ()), Err(Reject::Unauthenticated));
    assert_eq!(handle.order_signed(agree(ADA, 1, old)).await.map(|_| ()), Err(Reject::Stale), "another one waits");
    let forged = SignedAct { signature: agree(BEN, 1, new).signature, ..agree(ADA, 1, new) };
    assert_eq!(handle.order_signed(forged).await.map(|_| ()), Err(Reject::Unauthenticated));
    assert!(handle.order_signed(agree(ADA, 1, new)).await.unwrap().is_some());
    assert!(handle.order_signed(agree(ADA, 1, new)).await.unwrap().is_none(), "the same again");
    assert_eq!(iban_in_force(&handle).await, old, "not before a cut-off");
    settlement.cut_off().await.unwrap();
    assert_eq!(iban_in_force(&handle).await, new);
    assert_eq!(handle.order_signed(agree(BEN, 1, new)).await.map(|_| ()), Err(Reject::Stale), "nothing waits");
    audit(&handle);
    drop(settlement);
    handle.stop();
    let (handle, _settlement) = scene.start();
    assert_eq!(iban_in_force(&handle).await, new);
    handle.stop();
}
