//! Makes evidence: finds the parts of a claim in the journal and puts them together. Whether it holds is not decided here:
//! what is made is checked like a stranger's before it is given away.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use weir_protocol::act::{Act, Register};
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::commit::{SignedCertificate, SignedCommit};
use weir_protocol::evidence::{
    ActEvidence, ActPart, ChannelClaim, ChannelEvidence, Evidence, EvidenceError, HeadGroup, LanePart, PaymentClaim,
    PaymentEvidence, PayoutClaim, PayoutEvidence, PayoutStage, Place, PlacedCommit, Proof, ReceiptClaim,
    ReceiptEvidence, end_to_end_id,
};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, HubId, LaneId, PaymentId};
use weir_protocol::merkle::Tree;
use weir_protocol::payment::payment_id;
use weir_protocol::wire::{ChannelInfo, LaneInfo};

use crate::details::Iban;
use crate::engine::books::Books;
use crate::engine::record::{ActRecord, GroupRecord, Proven, Record};
use crate::engine::said::About;
use crate::engine::windows::Windows;
use crate::pipeline::recover::{index_key, keys_of};
use crate::store::index::Index;
use crate::store::journal::JournalReader;
use crate::store::{Entry, StoreError};

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceFault {
    /// The journal cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such thing.
    #[error("there is no such {0}")]
    Unknown(&'static str),
    /// A commit that it needs is not kept any more.
    #[error("what it needs was pruned from the journal")]
    Pruned,
    /// A commit that cannot be decoded.
    #[error("commit {0} in the journal cannot be read")]
    Damaged(u64),
    /// What was made does not hold: a bug.
    #[error("the evidence that was made does not hold")]
    Wrong(#[from] EvidenceError),
}

/// How commits about something are found.
#[derive(Debug, Clone, Copy)]
pub enum Finder<'a> {
    /// By the read index of a running hub.
    Index(&'a Index),
    /// By reading the journal.
    Scan,
}

/// The inclusion path of leaf `index` among the ids of the first `count` commits.
pub type HistoryPath<'a> = &'a dyn Fn(u64, u64) -> Result<Vec<Hash>, EvidenceFault>;

/// What was given back of a payment, as the books have it now: whether there is a refund to look for.
pub type Refunded<'a> = &'a dyn Fn(&PaymentId) -> Result<Amount, EvidenceFault>;

/// Everything that evidence is made from.
#[derive(Clone, Copy)]
pub struct Archive<'a> {
    /// The hub.
    pub hub: HubId,
    /// The commits.
    pub journal: &'a JournalReader,
    /// How they are found.
    pub finder: Finder<'a>,
    /// Paths in the history.
    pub history: HistoryPath<'a>,
    /// Every certificate of the hub.
    pub certificates: &'a [SignedCertificate],
    /// The newest commit that evidence may rest on.
    pub newest: u64,
}

impl core::fmt::Debug for Archive<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Archive").field("newest", &self.newest).finish_non_exhaustive()
    }
}

/// Every certificate that books know.
pub fn certificates(books: &Books) -> Vec<SignedCertificate> {
    books.certificates().to_vec()
}

/// A payout of a window as the books have it, with everybody's of its plan.
#[derive(Debug, Clone)]
pub struct PayoutFacts {
    /// The window.
    pub window: u64,
    /// The commit of its cut-off.
    pub cutoff: u64,
    /// The currency.
    pub currency: Currency,
    /// The digest of the plan.
    pub plan: Hash,
    /// The plan's payouts, by account.
    pub payouts: Vec<(AccountId, Amount)>,
    /// Where accounts are paid whose newest registration before the plan names another bank account, which still waited.
    pub paid_to: BTreeMap<AccountId, String>,
    /// Whether the bank has been told.
    pub instructed: bool,
}

impl PayoutFacts {
    /// From the books.
    pub fn of(windows: &Windows, window: u64, currency: Currency) -> Option<Self> {
        let cut_off = windows.get(window)?;
        let record = cut_off.plans.get(&currency)?;
        Some(Self {
            window,
            cutoff: cut_off.commit,
            currency,
            plan: record.digest,
            payouts: record.payouts.iter().map(|(account, payout)| (*account, payout.amount)).collect(),
            paid_to: record.paid_to.clone(),
            instructed: record.instructed,
        })
    }
}

impl Archive<'_> {
    fn record(&self, number: u64) -> Result<Record, EvidenceFault> {
        let first = self.journal.first()?.unwrap_or(1);
        match self.journal.read(number)? {
            Some(entry) => decode(&entry),
            None if number < first && number > 0 => Err(EvidenceFault::Pruned),
            None => Err(EvidenceFault::Unknown("commit")),
        }
    }

    /// Each commit about something, from a number on and up to the newest, in order.
    fn each(
        &self,
        about: About,
        from: u64,
        each: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), EvidenceFault> {
        let key = index_key(&about);
        let mut failed = Ok(());
        let mut see = |entry: Entry| {
            if entry.position.number > self.newest {
                return ControlFlow::Break(());
            }
            match decode(&entry) {
                Ok(record) => each(record),
                Err(error) => {
                    failed = Err(error);
                    ControlFlow::Break(())
                }
            }
        };
        match self.finder {
            Finder::Index(index) => index.commits_of(key, from, &mut see)?,
            Finder::Scan => {
                let find = keys_of().find;
                let first = self.journal.first()?.unwrap_or(1);
                self.journal.scan(from.max(first), &mut |entry| {
                    if find(&entry.payload).contains(&key) { see(entry) } else { ControlFlow::Continue(()) }
                })?;
            }
        }
        failed
    }

    /// Puts a file together and checks it.
    fn file(&self, proof: Proof, numbers: &BTreeSet<u64>) -> Result<Evidence, EvidenceFault> {
        let mut numbers = numbers.clone();
        numbers.insert(self.newest);
        let mut commits = Vec::with_capacity(numbers.len());
        let mut certificates: Vec<SignedCertificate> = Vec::new();
        for number in numbers {
            let signed: SignedCommit = self.record(number)?.commit;
            let history = if number == self.newest { Vec::new() } else { (self.history)(number - 1, self.newest - 1)? };
            let time = signed.commit.time;
            let known = self.certificates.iter().filter(|known| known.certificate.not_before <= time);
            let certificate = known.max_by_key(|known| known.certificate.not_before);
            let certificate = certificate.ok_or(EvidenceFault::Unknown("certificate"))?;
            if !certificates.contains(certificate) {
                certificates.push(*certificate);
            }
            commits.push(PlacedCommit { signed, history });
        }
        certificates.sort_by_key(|known| known.certificate.not_before);
        let evidence = Evidence::new(self.hub, certificates, commits, proof);
        evidence.check()?;
        Ok(evidence)
    }

    /// Evidence for one act: item `index` of commit `number`.
    pub fn act(&self, number: u64, index: u32) -> Result<Evidence, EvidenceFault> {
        let proven = self.record(number)?.prove();
        let act = proven.act(index).ok_or(EvidenceFault::Unknown("act"))?;
        let evidence = ActEvidence { key: act.author.map(|author| author.key), part: part(&proven, index)? };
        self.file(Proof::Act(Box::new(evidence)), &BTreeSet::from([number]))
    }

    /// The act at a place, with what explains it.
    pub fn owner(&self, number: u64, index: u32) -> Result<ActRecord, EvidenceFault> {
        let record = self.record(number)?;
        let found = record.acts().find(|(at, _)| *at == index).map(|(_, act)| act.clone());
        found.ok_or(EvidenceFault::Unknown("act"))
    }

    /// Evidence for a channel as its shard has it.
    pub fn channel(&self, info: &ChannelInfo, lanes: &[LaneInfo]) -> Result<Evidence, EvidenceFault> {
        let id = info.channel;
        let (mut open, mut amendment, mut roll, mut request, mut close) = (None, None, None, None, None);
        let mut granted: Vec<(u32, ActPart)> = Vec::new();
        let mut revoked: Vec<(u32, ActPart)> = Vec::new();
        let mut failed = Ok(());
        self.each(About::Channel(id), 0, &mut |record| {
            let wanted: Vec<u32> =
                record.acts().filter(|(_, act)| is_of_channel(act, info)).map(|(index, _)| index).collect();
            let proven = record.prove();
            for index in wanted {
                let made = part(&proven, index);
                let Ok(part) = made else {
                    failed = made.map(drop);
                    return ControlFlow::Break(());
                };
                match &part.act {
                    Act::Open(_) => open = Some(part),
                    Act::Grant(grant) => granted.push((grant.lane, part)),
                    Act::Revoke(revoke) => revoked.push((revoke.lane, part)),
                    Act::Amend(_) => amendment = Some(part),
                    Act::Roll(_) => roll = Some(part),
                    Act::CloseRequest(_) => request = Some(part),
                    Act::Close(_) => close = Some(part),
                    _ => {}
                }
            }
            if close.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failed?;
        let open = open.ok_or(EvidenceFault::Pruned)?;
        if close.is_none() {
            request = None;
        }
        let mut parts = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let number = lane.grant.lane;
            let take =
                |from: &[(u32, ActPart)]| from.iter().find(|(of, _)| *of == number).map(|(_, part)| part.clone());
            let group = self.leading(lane, open.commit)?;
            parts.push(LanePart {
                grant: take(&granted),
                revoke: take(&revoked),
                head: lane.head,
                signature: group.as_ref().map(|(signature, _)| *signature),
                group: group.map(|(_, group)| group),
            });
        }
        let claim = ChannelClaim {
            channel: id,
            account: info.terms.account,
            currency: info.terms.currency,
            capacity: info.capacity,
            expires_at: info.expires_at,
            renew: info.renew,
            amended: amendment.is_some(),
            rolls: info.rolls,
            lanes: u32::try_from(parts.len()).unwrap_or(u32::MAX),
            revoked: u32::try_from(revoked.len()).unwrap_or(u32::MAX),
            spent: info.spent,
            closed: close.is_some(),
            returned: match &close {
                Some(ActPart { act: Act::Close(close), .. }) => close.returned,
                _ => Amount::ZERO,
            },
        };
        let mut numbers: BTreeSet<u64> =
            [Some(&open), amendment.as_ref(), roll.as_ref(), request.as_ref(), close.as_ref()]
                .into_iter()
                .flatten()
                .map(|part| part.commit)
                .collect();
        for lane in &parts {
            numbers.extend(lane.grant.iter().chain(&lane.revoke).map(|part| part.commit));
            numbers.extend(lane.group.iter().map(|group| group.place.commit));
        }
        let evidence = ChannelEvidence { claim, open, amendment, roll, request, close, lanes: parts };
        self.file(Proof::Channel(Box::new(evidence)), &numbers)
    }

    /// The group that led to a lane's head, and the head's signature.
    fn leading(
        &self,
        lane: &LaneInfo,
        opened: u64,
    ) -> Result<Option<(weir_protocol::keys::Signature, HeadGroup)>, EvidenceFault> {
        if lane.head.sequence == 0 {
            return Ok(None);
        }
        let (record, index) = self.group_of(lane.lane, lane.head.sequence, opened)?;
        let proven = record.prove();
        let group = proven.group(index).ok_or(EvidenceFault::Unknown("payment"))?;
        let leaves = proven.receipts.get(index as usize).ok_or(EvidenceFault::Unknown("payment"))?.root;
        Ok(Some((group.signature, HeadGroup { count: group.count(), leaves, place: place(&proven, index)? })))
    }

    /// The commit and the group that hold a sequence of a lane. By the index a few reads, by scanning one pass.
    fn group_of(&self, lane: LaneId, sequence: u64, opened: u64) -> Result<(Record, u32), EvidenceFault> {
        let has = |record: &Record| {
            let holds = |group: &GroupRecord| {
                group.lane == lane && group.first_sequence() <= sequence && sequence <= group.head.sequence
            };
            record.groups().find(|(_, group)| holds(group)).map(|(index, _)| index)
        };
        let mut low = opened;
        if matches!(self.finder, Finder::Index(_)) {
            // Sequences only grow: bisection.
            let mut high = self.newest + 1;
            while low + 1 < high {
                let middle = low + (high - low) / 2;
                let reached = self.first(lane, middle)?.map(|record| (reach(&record, lane), record.header().number));
                match reached {
                    Some((head, number)) if head < sequence => low = number.min(high - 1).max(low + 1),
                    _ => high = middle,
                }
            }
        }
        let mut found = None;
        self.each(About::Lane(lane), low, &mut |record| match has(&record) {
            Some(index) => {
                found = Some((record, index));
                ControlFlow::Break(())
            }
            None if reach(&record, lane) > sequence => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        })?;
        found.ok_or(EvidenceFault::Unknown("payment"))
    }

    fn first(&self, lane: LaneId, from: u64) -> Result<Option<Record>, EvidenceFault> {
        let mut found = None;
        self.each(About::Lane(lane), from, &mut |record| {
            found = Some(record);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The lane's head before a group: that of its last group before it, in an earlier commit or in the same one.
    fn state_before(&self, lane: LaneId, (record, index): (&Record, u32), opened: u64) -> Result<Hash, EvidenceFault> {
        let own = record.groups().filter(|(at, group)| *at < index && group.lane == lane).last();
        if let Some((_, group)) = own {
            return Ok(group.head.state);
        }
        let number = record.header().number;
        let (mut low, mut high) = (opened, number);
        let mut state = None;
        // The largest place from which on something of the lane comes before this commit.
        while matches!(self.finder, Finder::Index(_)) && low + 1 < high {
            let middle = low + (high - low) / 2;
            match self.first(lane, middle)? {
                Some(record) if record.header().number < number && reach(&record, lane) > 0 => low = middle,
                _ => high = middle,
            }
        }
        let mut voided = None;
        self.each(About::Lane(lane), low, &mut |record| {
            if record.header().number >= number {
                return ControlFlow::Break(());
            }
            let last = record.groups().filter(|(_, group)| group.lane == lane).last();
            if let Some((_, group)) = last {
                state = Some(group.head.state);
            } else if reach(&record, lane) > 0 {
                voided = Some(record.header().number);
            }
            ControlFlow::Continue(())
        })?;
        match (state, voided) {
            (Some(state), _) => Ok(state),
            // Only a void was seen: the group that it names came earlier.
            (None, Some(before)) => {
                let record = self.record(before)?;
                let sequence = reach(&record, lane);
                let (record, index) = self.group_of(lane, sequence, opened)?;
                let group = record.groups().find(|(at, _)| *at == index).map(|(_, group)| group.head.state);
                group.ok_or(EvidenceFault::Unknown("payment"))
            }
            (None, None) => Ok(Hash(lane.0)),
        }
    }

    /// Evidence for a payment with its payer's authorisation. `refunded`: what the books say was given back of it.
    pub fn payment(
        &self,
        info: &ChannelInfo,
        lane: &LaneInfo,
        sequence: u64,
        refunded: Refunded<'_>,
    ) -> Result<Evidence, EvidenceFault> {
        let (mut open, mut grant) = (None, None);
        let number = lane.grant.lane;
        let mut failed = Ok(());
        self.each(About::Channel(info.channel), 0, &mut |record| {
            let wanted: Vec<u32> = record
                .acts()
                .filter(|(_, act)| match &act.act {
                    Act::Open(terms) => terms.id() == info.channel,
                    Act::Grant(granted) => granted.id() == lane.lane,
                    _ => false,
                })
                .map(|(index, _)| index)
                .collect();
            let proven = record.prove();
            for index in wanted {
                match part(&proven, index) {
                    Ok(part) if matches!(part.act, Act::Open(_)) => open = Some(part),
                    Ok(part) => grant = Some(part),
                    Err(error) => failed = Err(error),
                }
            }
            let done = open.is_some() && (number == 0 || grant.is_some());
            if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failed?;
        let open = open.ok_or(EvidenceFault::Pruned)?;
        let (record, index) = self.group_of(lane.lane, sequence, open.commit)?;
        let mut state = self.state_before(lane.lane, (&record, index), open.commit)?;
        let proven = record.prove();
        let group = proven.group(index).ok_or(EvidenceFault::Unknown("payment"))?;
        let mut payments: Vec<_> = group.payments().collect();
        let leaf = payments.iter().position(|(at, _)| *at == sequence).ok_or(EvidenceFault::Unknown("payment"))?;
        for (sequence, payment) in payments.drain(..leaf) {
            state = weir_protocol::payment::next_state(&state, sequence, &payment);
        }
        let leaf = u32::try_from(leaf).unwrap_or(u32::MAX);
        let (receipt, refund) = self.receipt_parts(&proven, index, leaf, refunded)?;
        let mut numbers = BTreeSet::from([open.commit, proven.commit().commit.number]);
        numbers.extend(grant.iter().chain(&refund).map(|part| part.commit));
        let evidence = PaymentEvidence {
            claim: PaymentClaim {
                receipt: receipt.claim,
                payer: info.terms.account,
                channel: info.channel,
                lane: number,
                sequence,
            },
            open,
            grant,
            before: state,
            payments,
            head: group.head,
            signature: group.signature,
            leaf: receipt.leaf,
            group: receipt.group,
            refund,
        };
        self.file(Proof::Payment(Box::new(evidence)), &numbers)
    }

    /// Evidence for the payment at a place, without its payer.
    pub fn receipt(
        &self,
        (number, group, leaf): (u64, u32, u32),
        refunded: Refunded<'_>,
    ) -> Result<Evidence, EvidenceFault> {
        let proven = self.record(number)?.prove();
        let (mut evidence, refund) = self.receipt_parts(&proven, group, leaf, refunded)?;
        let mut numbers = BTreeSet::from([number]);
        numbers.extend(refund.iter().map(|part| part.commit));
        evidence.refund = refund;
        self.file(Proof::Receipt(Box::new(evidence)), &numbers)
    }

    /// The lane and the sequence of the payment at a place.
    pub fn sequence(&self, (number, group, leaf): (u64, u32, u32)) -> Result<(LaneId, u64), EvidenceFault> {
        let record = self.record(number)?;
        let found = record.groups().find(|(index, _)| *index == group).map(|(_, group)| group);
        let group = found.ok_or(EvidenceFault::Unknown("payment"))?;
        let payment = group.payments().nth(leaf as usize).ok_or(EvidenceFault::Unknown("payment"))?;
        Ok((group.lane, payment.0))
    }

    /// The payee of the payment at a place.
    pub fn payee(&self, (number, group, leaf): (u64, u32, u32)) -> Result<AccountId, EvidenceFault> {
        let record = self.record(number)?;
        let found = record.groups().find(|(index, _)| *index == group).map(|(_, group)| group);
        let payment = found.and_then(|group| group.payments().nth(leaf as usize));
        payment.map(|(_, payment)| payment.payee).ok_or(EvidenceFault::Unknown("payment"))
    }

    fn receipt_parts(
        &self,
        proven: &Proven,
        index: u32,
        leaf: u32,
        refunded: Refunded<'_>,
    ) -> Result<(ReceiptEvidence, Option<ActPart>), EvidenceFault> {
        let unknown = || EvidenceFault::Unknown("payment");
        let group = proven.group(index).ok_or_else(unknown)?;
        let (sequence, payment) = group.payments().nth(leaf as usize).ok_or_else(unknown)?;
        let leaves = proven.receipts.get(index as usize).ok_or_else(unknown)?.leaves.clone();
        let payment_id = payment_id(&group.lane, sequence);
        let given_back = refunded(&payment_id)?;
        let refund =
            if given_back.is_zero() { None } else { self.refund(&payment_id, given_back, proven, payment.payee)? };
        let claim = ReceiptClaim {
            payment_id,
            payee: payment.payee,
            amount: payment.amount,
            currency: group.currency,
            reference: payment.reference,
            refunded: match refund.as_ref().map(|part| &part.act) {
                Some(Act::Refund(refund)) => refund.refunded_total,
                _ => Amount::ZERO,
            },
        };
        let evidence = ReceiptEvidence {
            claim,
            leaf: Tree::new(leaves).path(leaf as usize).ok_or_else(unknown)?,
            head: group.head.digest(&group.lane),
            group: place(proven, index)?,
            refund: None,
        };
        Ok((evidence, refund))
    }

    /// The newest refund of a payment, up to so much.
    fn refund(
        &self,
        payment: &PaymentId,
        total: Amount,
        paid: &Proven,
        payee: AccountId,
    ) -> Result<Option<ActPart>, EvidenceFault> {
        let mut found = None;
        let from = paid.commit().commit.number;
        self.each(About::Account(payee), from, &mut |record| {
            let refunds = record.acts().filter_map(|(index, act)| match &act.act {
                Act::Refund(refund) if refund.payment_id == *payment => Some((index, refund.refunded_total)),
                _ => None,
            });
            let Some((index, so_far)) = refunds.last() else { return ControlFlow::Continue(()) };
            found = Some(part(&record.prove(), index));
            if so_far >= total { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        found.transpose()
    }

    /// Evidence for a payout.
    pub fn payout(&self, facts: &PayoutFacts, account: AccountId) -> Result<Evidence, EvidenceFault> {
        let at = facts.payouts.iter().position(|(id, _)| *id == account);
        let at = at.ok_or(EvidenceFault::Unknown("payout"))?;
        let amount = facts.payouts.get(at).ok_or(EvidenceFault::Unknown("payout"))?.1;
        let cutoff = self.record(facts.cutoff)?;
        let last = u32::try_from(cutoff.items.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let cutoff = part(&cutoff.prove(), last)?;
        let (plan, instruction) = self.told(facts)?;
        // The newest registration that names the bank account that is paid.
        let paid_to = facts.paid_to.get(&account);
        let mut registration = None;
        let mut outcomes = Vec::new();
        let mut failed = Ok(());
        self.each(About::Account(account), 0, &mut |record| {
            let wanted: Vec<u32> = record
                .acts()
                .filter(|(_, act)| match &act.act {
                    Act::Register(register) => {
                        register.account == account && paid_to.is_none_or(|iban| names(register, iban))
                    }
                    Act::Outcome(outcome) => {
                        (outcome.window, outcome.account, outcome.currency) == (facts.window, account, facts.currency)
                    }
                    _ => false,
                })
                .map(|(index, _)| index)
                .collect();
            if wanted.is_empty() {
                return ControlFlow::Continue(());
            }
            let proven = record.prove();
            for index in wanted {
                match part(&proven, index) {
                    Ok(part) if matches!(part.act, Act::Outcome(_)) => outcomes.push(part),
                    Ok(part) if (part.commit, part.path.index) < (plan.commit, plan.path.index) => {
                        registration = Some(part);
                    }
                    Ok(_) => {}
                    Err(error) => failed = Err(error),
                }
            }
            ControlFlow::Continue(())
        })?;
        failed?;
        let registration = registration.ok_or(EvidenceFault::Pruned)?;
        let leaves = facts
            .payouts
            .iter()
            .map(|(id, amount)| weir_protocol::act::payout_leaf(facts.window, id, facts.currency, *amount));
        let file = if let Act::Plan(plan) = &plan.act { plan.file } else { Hash::ZERO };
        let mut numbers = BTreeSet::from([registration.commit, cutoff.commit, plan.commit]);
        numbers.extend(instruction.iter().chain(&outcomes).map(|part| part.commit));
        let evidence = PayoutEvidence {
            claim: PayoutClaim {
                account,
                window: facts.window,
                amount,
                currency: facts.currency,
                end_to_end_id: end_to_end_id(facts.window, &account),
                stage: stage(instruction.is_some(), &outcomes),
                words: u32::try_from(outcomes.len()).unwrap_or(u32::MAX),
                file,
            },
            registration,
            cutoff,
            plan,
            payout: Tree::new(leaves.collect()).path(at).ok_or(EvidenceFault::Unknown("payout"))?,
            instruction,
            outcomes,
        };
        self.file(Proof::Payout(Box::new(evidence)), &numbers)
    }

    /// The plan and its instruction: they follow the cut-off, and no index has them.
    fn told(&self, facts: &PayoutFacts) -> Result<(ActPart, Option<ActPart>), EvidenceFault> {
        let (mut plan, mut instruction) = (None, None);
        let mut failed = Ok(());
        self.journal.scan(facts.cutoff, &mut |entry| {
            if entry.position.number > self.newest {
                return ControlFlow::Break(());
            }
            let record = match decode(&entry) {
                Ok(record) => record,
                Err(error) => {
                    failed = Err(error);
                    return ControlFlow::Break(());
                }
            };
            let wanted = record.acts().find(|(_, record)| match &record.act {
                Act::Plan(act) => record.act.digest(&self.hub) == facts.plan && act.window == facts.window,
                Act::Instruct(act) => act.plan == facts.plan && act.window == facts.window,
                _ => false,
            });
            if let Some(index) = wanted.map(|(index, _)| index) {
                match part(&record.prove(), index) {
                    Ok(part) if matches!(part.act, Act::Plan(_)) => plan = Some(part),
                    Ok(part) => instruction = Some(part),
                    Err(error) => failed = Err(error),
                }
            }
            let done = plan.is_some() && (instruction.is_some() || !facts.instructed);
            if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failed?;
        Ok((plan.ok_or(EvidenceFault::Unknown("plan"))?, instruction))
    }
}

/// Whether a registration names a bank account.
fn names(register: &Register, iban: &str) -> bool {
    register.iban.parse::<Iban>().is_ok_and(|named| named.as_str() == iban)
}

fn stage(told: bool, outcomes: &[ActPart]) -> PayoutStage {
    match outcomes.last().map(|part| &part.act) {
        Some(Act::Outcome(outcome)) => PayoutStage::after(outcome.outcome),
        _ if told => PayoutStage::Instructed,
        _ => PayoutStage::Planned,
    }
}

fn is_of_channel(record: &ActRecord, info: &ChannelInfo) -> bool {
    let id = info.channel;
    match &record.act {
        Act::Open(terms) => terms.id() == id,
        Act::Grant(act) => act.channel == id,
        Act::Revoke(act) => act.channel == id,
        Act::Amend(act) => act.channel == id,
        Act::Roll(act) => act.channel == id,
        Act::CloseRequest(act) => act.channel == id,
        Act::Close(act) => act.channel == id,
        _ => false,
    }
}

/// How far a lane had come with a commit that concerns it.
fn reach(record: &Record, lane: LaneId) -> u64 {
    let groups = record.groups().filter(|(_, group)| group.lane == lane).map(|(_, group)| group.head.sequence);
    let voids = record.acts().filter_map(|(_, act)| match &act.act {
        Act::Void(void) if void.lane == lane => Some(void.sequence),
        _ => None,
    });
    groups.chain(voids).max().unwrap_or(0)
}

fn decode(entry: &Entry) -> Result<Record, EvidenceFault> {
    Record::decode(&entry.payload).map_err(|_| EvidenceFault::Damaged(entry.position.number))
}

fn place(proven: &Proven, index: u32) -> Result<Place, EvidenceFault> {
    let path = proven.tree.path(index as usize).ok_or(EvidenceFault::Unknown("item"))?;
    Ok(Place { commit: proven.commit().commit.number, path })
}

fn part(proven: &Proven, index: u32) -> Result<ActPart, EvidenceFault> {
    let record = proven.act(index).ok_or(EvidenceFault::Unknown("act"))?;
    let Place { commit, path } = place(proven, index)?;
    let signature = record.author.map(|author| author.signature);
    Ok(ActPart { act: record.act.clone(), signature, commit, blind: record.blind, path })
}
