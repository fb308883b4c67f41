//! The operator and its bank. It works from the durable books alone, so a crash loses nothing but time; the bank confirms,
//! returns, repeats itself and names wrong amounts.

mod debits;

use weir_hub::engine::operators::OperatorRecord;
use weir_hub::engine::windows::{NotNow, Window, WindowState, Windows};
use weir_protocol::act::{
    Abort, Act, Allocate, Approval, Approve, Cutoff, Debit, DebitCause, Deposit, FeeSchedule, Fees, ForceFinal, Freeze,
    Instruct, Operator as OperatorAct, Outcome, PayoutOutcome, Plan, Policy, Settled,
};
use weir_protocol::amount::Amount;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId};
use weir_protocol::keys::{PublicKey, SecretKey};

use super::cx::Cx;
use super::hub::Hub;
use super::model::EUR;

/// The operator.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    /// What the bank's statements show.
    statement: Vec<Deposit>,
    cut_off_at_end: bool,
}

/// The rules at the start.
pub(crate) fn first_policy() -> Policy {
    Policy {
        open_registration: false,
        refund_days: 1,
        payment_max: Amount::ZERO,
        payout_min: Amount::from_nanos(10_000_000),
        fee_basis_points: 7,
        fee_per_payment: Amount::ZERO,
        fee_minimum: Amount::ZERO,
        approvals: 0,
        currencies: vec![EUR],
    }
}

impl Operator {
    /// Does what there is to do; how long until the next look, in microseconds.
    pub(crate) fn wake(&mut self, cx: &mut Cx, hub: &mut Hub) -> u64 {
        if hub.is_running() {
            self.approve(cx, hub);
            self.post(cx, hub);
            if cx.busy() {
                self.meddle(cx, hub);
            }
            operators(cx, hub);
            debits::debits(cx, hub);
            if !cx.calm || cx.rng.once_in(2) {
                windows(cx, hub);
            }
        }
        if cx.calm { cx.rng.range(20_000, 100_000) } else { cx.rng.range(2_000, cx.mood.looks_us) }
    }

    fn approve(&mut self, cx: &mut Cx, hub: &mut Hub) {
        let Some(books) = hub.durable() else { return };
        let waiting: Vec<AccountId> =
            books.accounts().filter(|(_, account)| !account.standing.approved).map(|(id, _)| *id).collect();
        for account in waiting {
            let number = self.statement.len();
            self.statement.push(Deposit {
                account: Some(account),
                currency: EUR,
                amount: Amount::from_nanos(cx.rng.range(1, 3_000_000_000)),
                connector: "sandbox".into(),
                bank_reference: format!("entry {number}"),
            });
            hub.order(cx, Act::Approve(Approve { account }));
        }
    }

    /// Posts what the statement shows and the books do not have; now and then what they have.
    fn post(&mut self, cx: &mut Cx, hub: &mut Hub) {
        for deposit in &self.statement {
            let name = format!("{}/{}", deposit.connector, deposit.bank_reference);
            let known = cx.model.deposits.contains(&name);
            if (!known && cx.rng.once_in(3)) || (cx.busy() && cx.rng.once_in(100)) {
                hub.order(cx, Act::Deposit(deposit.clone()));
            }
        }
    }

    fn meddle(&mut self, cx: &mut Cx, hub: &mut Hub) {
        let accounts: Vec<AccountId> = cx.model.accounts.keys().copied().collect();
        let Some(account) = cx.rng.pick(&accounts).copied() else { return };
        if !cx.rng.once_in(cx.mood.meddling) {
            return;
        }
        match cx.rng.below(14) {
            0 | 1 => {
                cx.operations += 1;
                let number = self.statement.len();
                let to = if cx.rng.once_in(6) { None } else { Some(account) };
                self.statement.push(Deposit {
                    account: to,
                    currency: EUR,
                    amount: Amount::from_nanos(cx.rng.range(1, 900_000_000)),
                    connector: "sandbox".into(),
                    bank_reference: format!("entry {number}"),
                });
            }
            2 | 3 => {
                cx.operations += 1;
                let freeze = Freeze {
                    account,
                    incoming: cx.rng.once_in(3),
                    outgoing: cx.rng.once_in(3),
                    reason: "a look".into(),
                };
                hub.order(cx, Act::Freeze(freeze));
                if cx.rng.once_in(2) {
                    hub.order(cx, Act::Approve(Approve { account }));
                }
                if cx.rng.once_in(2) {
                    let freeze = Freeze { account, incoming: cx.rng.once_in(2), outgoing: true, reason: String::new() };
                    hub.order(cx, Act::Freeze(freeze));
                }
            }
            4 => {
                cx.operations += 1;
                let policy = Policy {
                    payment_max: Amount::from_nanos(cx.rng.below(3) * 8_000_000),
                    fee_basis_points: u32::try_from(cx.rng.below(400)).unwrap_or(0),
                    payout_min: Amount::from_nanos(cx.rng.below(5) * 10_000_000),
                    refund_days: u32::try_from(cx.rng.below(3)).unwrap_or(1),
                    fee_per_payment: Amount::from_nanos(cx.rng.below(3) * 1_000),
                    fee_minimum: Amount::from_nanos(cx.rng.below(3) * 2_000_000),
                    approvals: u32::try_from(cx.rng.below(3)).unwrap_or(0),
                    ..first_policy()
                };
                hub.order(cx, Act::Policy(policy));
            }
            7..=9 => {
                let frozen = cx.model.accounts.iter().filter(|(_, held)| held.frozen_incoming || held.frozen_outgoing);
                let frozen: Vec<AccountId> = frozen.map(|(id, _)| *id).collect();
                for account in frozen {
                    cx.operations += 1;
                    let reason = "all is well".into();
                    hub.order(cx, Act::Freeze(Freeze { account, incoming: false, outgoing: false, reason }));
                }
            }
            5 => {
                let channels: Vec<ChannelId> = cx.model.channels.keys().copied().collect();
                if let Some(channel) = cx.rng.pick(&channels).copied() {
                    cx.operations += 1;
                    hub.close_channel(cx, channel);
                }
            }
            10 => {
                cx.operations += 1;
                let debit = Debit {
                    cause: if cx.rng.once_in(2) { DebitCause::Charge } else { DebitCause::Unknown },
                    currency: EUR,
                    amount: Amount::from_nanos(cx.rng.range(1, 90_000_000)),
                    connector: "sandbox".into(),
                    bank_reference: format!("debit {}", cx.rng.below(40)),
                };
                hub.order(cx, Act::Debit(debit));
            }
            11 => {
                let Some(books) = hub.durable() else { return };
                let waiting: Vec<_> = books.unmatched().values().cloned().collect();
                if let Some(entry) = cx.rng.pick(&waiting).cloned() {
                    cx.operations += 1;
                    let allocate = Allocate {
                        account: cx.rng.once_in(2).then_some(account),
                        incoming: entry.incoming,
                        currency: entry.currency,
                        amount: entry.amount,
                        connector: entry.connector,
                        bank_reference: entry.bank_reference,
                    };
                    hub.order(cx, Act::Allocate(allocate));
                }
            }
            6 => {
                if let Some(books) = hub.durable() {
                    cx.operations += 1;
                    let window = books.windows().open();
                    hub.order(cx, Act::Cutoff(Cutoff { window }));
                }
            }
            12 => {
                cx.operations += 1;
                let schedule = FeeSchedule {
                    basis_points: u32::try_from(cx.rng.below(10_001)).unwrap_or(0),
                    per_payment: Amount::from_nanos(cx.rng.below(2_000_000)),
                    minimum: Amount::from_nanos(cx.rng.below(5) * 1_000_000),
                };
                let own = cx.rng.once_in(2);
                say(cx, hub, &|_| false, |key, number| {
                    Act::Fees(Fees { number, operator: Some(key), account, own, schedule })
                });
            }
            13 if cx.rng.once_in(3) => {
                cx.operations += 1;
                let ended = key(u8::try_from(cx.rng.below(u64::from(OPERATORS))).unwrap_or(0)).public();
                say(cx, hub, &|_| false, |by, number| {
                    Act::Operator(OperatorAct { number, by: Some(by), key: ended, stands: false, name: String::new() })
                });
            }
            _ => {}
        }
    }

    /// The end: everybody is released, channels are closed, the last window is cut off. True when all is settled.
    pub(crate) fn finish(&mut self, cx: &mut Cx, hub: &mut Hub) -> bool {
        if !hub.is_running() || !hub.is_idle() {
            return false;
        }
        let frozen: Vec<AccountId> = cx
            .model
            .accounts
            .iter()
            .filter(|(_, account)| account.frozen_incoming || account.frozen_outgoing)
            .map(|(id, _)| *id)
            .collect();
        let open: Vec<ChannelId> =
            cx.model.channels.iter().filter(|(_, channel)| !channel.closed).map(|(id, _)| *id).collect();
        for account in &frozen {
            let freeze = Freeze { account: *account, incoming: false, outgoing: false, reason: "done".into() };
            hub.order(cx, Act::Freeze(freeze));
        }
        for channel in &open {
            hub.close_channel(cx, *channel);
        }
        if !frozen.is_empty() || !open.is_empty() {
            return false;
        }
        let Some(books) = hub.durable() else { return false };
        if !self.cut_off_at_end {
            let window = books.windows().open();
            hub.order(cx, Act::Cutoff(Cutoff { window }));
            self.cut_off_at_end = true;
            return false;
        }
        let settled = |(_, window): (u64, &Window)| window.state == WindowState::Settled;
        books.windows().iter().all(settled)
    }
}

/// A key of an operator: there are three.
fn key(number: u8) -> SecretKey {
    match SecretKey::from_bytes(&[0x51 + number; 32]) {
        Ok(key) => key,
        Err(error) => unreachable!("{error:?}"),
    }
}

const OPERATORS: u8 = 3;

/// Signs something as one of those who stand, not `but`.
fn say(cx: &mut Cx, hub: &mut Hub, but: &dyn Fn(&PublicKey) -> bool, make: impl FnOnce(PublicKey, u64) -> Act) {
    let Some(books) = hub.durable() else { return };
    let able: Vec<(SecretKey, u64)> = (0..OPERATORS)
        .map(key)
        .filter(|key| books.operators().stands(&key.public()) && !but(&key.public()))
        .map(|key| {
            let number = books.operators().get(&key.public()).map_or(0, OperatorRecord::number);
            (key, number + 1)
        })
        .collect();
    let at = usize::try_from(cx.rng.below(able.len().max(1) as u64)).unwrap_or(0);
    let Some((key, number)) = able.get(at) else { return };
    let signed = make(key.public(), *number).sign(&cx.hub, key);
    hub.order_signed(cx, signed, key.public());
}

/// Sees to it that three operators stand; a missing one is named again.
fn operators(cx: &mut Cx, hub: &mut Hub) {
    let Some(books) = hub.durable() else { return };
    let standing = books.operators().standing();
    let missing = (0..OPERATORS).map(|number| key(number).public()).find(|key| !books.operators().stands(key));
    let Some(key) = missing.filter(|_| !cx.busy() || cx.rng.once_in(3)) else { return };
    let name = "somebody".to_owned();
    if standing < 2 || (cx.busy() && cx.rng.once_in(8)) {
        hub.order(cx, Act::Operator(OperatorAct { number: 0, by: None, key, stands: true, name }));
    } else {
        say(cx, hub, &|_| false, |by, number| {
            Act::Operator(OperatorAct { number, by: Some(by), key, stands: true, name })
        });
    }
}

/// Takes a window one step further.
fn windows(cx: &mut Cx, hub: &mut Hub) {
    let Some(books) = hub.durable() else { return };
    let approvals = books.policy().approvals;
    let open: Vec<(u64, Window)> = books
        .windows()
        .iter()
        .filter(|(_, window)| window.state != WindowState::Settled || cx.rng.once_in(12))
        .map(|(number, window)| (number, window.clone()))
        .collect();
    let Some((number, window)) = cx.rng.pick(&open).cloned() else { return };
    let due = books.payouts(number, EUR);
    let may = books.may_instruct(number, EUR).map(|record| record.digest);
    let meddles = cx.busy() && cx.rng.once_in(6);
    match window.plans.get(&EUR) {
        None if due.is_empty() => hub.order(cx, Act::Settled(Settled { window: number })),
        None if meddles => {
            let account = cx.rng.once_in(2).then(|| due.keys().next().copied()).flatten();
            say(cx, hub, &|_| false, |key, signed| {
                Act::ForceFinal(ForceFinal { number: signed, operator: Some(key), window: number, account })
            });
        }
        None => {
            let total = due.values().map(|amount| amount.nanos()).sum();
            let plan = Plan {
                number: 0,
                operator: None,
                window: number,
                currency: EUR,
                payouts: u32::try_from(due.len()).unwrap_or(0),
                total: Amount::from_nanos(total),
                root: Windows::plan_root(number, EUR, &due),
                file: Hash([7; 32]),
            };
            if approvals == 0 && cx.rng.once_in(2) {
                hub.order(cx, Act::Plan(plan));
            } else {
                say(cx, hub, &|_| false, |key, number| Act::Plan(Plan { number, operator: Some(key), ..plan }));
            }
        }
        Some(plan) if !plan.instructed => {
            let (digest, file) = (plan.digest, plan.plan.file);
            let (planner, agreed) = (plan.plan.operator, plan.approvals.clone());
            let reason = "another look".to_owned();
            match may {
                Err(NotNow::Approvals { .. }) if !meddles => {
                    let honest = !cx.busy() || !cx.rng.once_in(4);
                    say(cx, hub, &|key| honest && (planner == Some(*key) || agreed.contains(key)), |key, signed| {
                        Act::Approval(Approval {
                            number: signed,
                            operator: key,
                            window: number,
                            currency: EUR,
                            plan: digest,
                            file: if honest { file } else { Hash::ZERO },
                        })
                    });
                }
                Ok(_) => hub.order(cx, Act::Instruct(Instruct { window: number, currency: EUR, plan: digest })),
                // Also when it may not: then it is refused.
                Err(_) if meddles && cx.rng.once_in(2) => {
                    hub.order(cx, Act::Instruct(Instruct { window: number, currency: EUR, plan: digest }));
                }
                Err(_) => say(cx, hub, &|_| false, |key, signed| {
                    Act::Abort(Abort {
                        number: signed,
                        operator: Some(key),
                        window: number,
                        currency: EUR,
                        plan: digest,
                        reason,
                    })
                }),
            }
        }
        Some(plan) => {
            let all: Vec<_> = plan.payouts.iter().collect();
            let waiting: Vec<_> = all.iter().filter(|(_, payout)| payout.in_transit).copied().collect();
            let lies = cx.busy() && cx.rng.once_in(4);
            let from = if lies { &all } else { &waiting };
            let act = match cx.rng.pick(from).copied() {
                Some((account, payout)) => {
                    let refused = cx.rng.once_in(4) && !payout.words.refused && !payout.words.confirmed;
                    let outcome = match cx.rng.below(4) {
                        0 if lies => PayoutOutcome::Returned,
                        1 if lies => PayoutOutcome::Confirmed,
                        _ if refused => PayoutOutcome::Refused,
                        _ => PayoutOutcome::Settled,
                    };
                    let wrong = u64::from(lies && cx.rng.once_in(3));
                    Act::Outcome(Outcome {
                        window: number,
                        account: *account,
                        currency: EUR,
                        amount: Amount::from_nanos(payout.amount.nanos() + wrong),
                        outcome,
                        reference: "- bank".into(),
                    })
                }
                None if cx.busy() && cx.rng.once_in(8) => {
                    Act::Instruct(Instruct { window: number, currency: EUR, plan: plan.digest })
                }
                None if window.state == WindowState::Instructed => Act::Settled(Settled { window: number }),
                None => return,
            };
            hub.order(cx, act);
        }
    }
}
