//! The hub's side of a lane: whole frames or nothing, one checked signature a group, voids (DESIGN §4.4).
//!
//! Owns one lane's rules. Knows nothing of streams, queues or other lanes: the channel gives the [`Bounds`].

use serde::{Deserialize, Serialize};

use crate::act::Void;
use crate::amount::{Amount, Time};
use crate::channel::{LaneGrant, LaneMode, period_at, period_start};
use crate::hash::Hash;
use crate::id::{AccountId, ChannelId, LaneId};
use crate::keys::{PublicKey, Signature, VerifyingKey};
use crate::payment::{Frame, Head, MAX_PAYMENTS, MAX_SKIP, Payment, Run, next_state};
use crate::reject::Reject;

/// A refusal of a frame: a hint that leaves no trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub reject: Reject,
    /// The sequence at fault, or 0.
    pub sequence: u64,
}

/// What a lane's payments are held against, besides the lane itself.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The time at which everything is judged.
    pub now: Time,
    /// The channel's opening: periods count from it.
    pub opened_at: Time,
    /// The channel's expiry.
    pub expires_at: Time,
    /// What the lane may still spend of the channel's capacity.
    pub headroom: Amount,
    /// From when on that headroom holds: the latest expiry of a reserved lane whose rest it counts.
    pub headroom_from: Time,
    /// Whether the payer may not pay.
    pub frozen: bool,
    /// Most that one payment may be; zero: no bound.
    pub payment_max: Amount,
}

/// The instants between which a judgement holds: `from` ≤ time < `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holds {
    /// Inclusive.
    pub from: Time,
    /// Exclusive.
    pub until: Time,
}

impl Holds {
    /// At any time.
    pub const ALWAYS: Self = Self { from: Time(0), until: Time::MAX };

    /// Both judgements at once.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    /// Whether the judgement holds at a time.
    pub fn at(&self, time: Time) -> bool {
        self.from <= time && time < self.until
    }
}

/// A lane as the hub keeps it: small, because every channel has one. What lane 0 does not need lies apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    id: LaneId,
    key: PublicKey,
    head: Head,
    /// Zeros before the first payment.
    signature: Signature,
    void_through: u64,
    /// None: as lane 0, bounded by its channel alone.
    granted: Option<Box<Granted>>,
    revoked: bool,
}

/// What a grant says beyond lane 0's, and how much of its period is spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Granted {
    lane: u32,
    scheme: u8,
    mode: LaneMode,
    payee: Option<AccountId>,
    limit: Amount,
    period: u32,
    expires_at: Time,
    /// The period of the last payment.
    current: u64,
    /// The total when that period began.
    base: Amount,
}

/// How far frames have brought a lane, before their signature is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    head: Head,
    period: u64,
    period_base: Amount,
    headroom: Amount,
    holds: Holds,
}

/// Payments that the lane takes under one checked signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The payments, frame by frame.
    pub runs: Vec<Run>,
    /// The head that they lead to, and whose signature was checked.
    pub head: Head,
    /// That signature.
    pub signature: Signature,
    /// When the judgement holds.
    pub holds: Holds,
    tip: Tip,
}

/// What became of queued frames.
#[derive(Debug, Default)]
pub struct Taken {
    /// What passed, in order. Apply each with [`Lane::apply`].
    pub groups: Vec<Group>,
    /// The refusal that ended it. Whatever was queued behind is dropped.
    pub fault: Option<Fault>,
    /// Signatures that were checked and found wrong.
    pub bad_signatures: u32,
}

impl Lane {
    /// A lane without payments.
    pub fn new(grant: LaneGrant) -> Self {
        let id = grant.id();
        let as_lane_zero = LaneGrant { channel: grant.channel, key: grant.key, ..LaneGrant::LANE_ZERO };
        let granted = (grant != as_lane_zero).then(|| {
            Box::new(Granted {
                lane: grant.lane,
                scheme: grant.scheme,
                mode: grant.mode,
                payee: grant.payee,
                limit: grant.limit,
                period: grant.period,
                expires_at: grant.expires_at,
                current: 0,
                base: Amount::ZERO,
            })
        });
        Self {
            id,
            key: grant.key,
            head: Head::empty(&id),
            signature: Signature([0; 64]),
            void_through: 0,
            granted,
            revoked: false,
        }
    }

    /// Its id.
    pub const fn id(&self) -> LaneId {
        self.id
    }

    /// The key that signs its heads.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// As granted. `channel`: the lane's.
    pub fn grant(&self, channel: ChannelId) -> LaneGrant {
        let zero = LaneGrant { channel, key: self.key, ..LaneGrant::LANE_ZERO };
        self.granted.as_ref().map_or(zero, |granted| LaneGrant {
            lane: granted.lane,
            scheme: granted.scheme,
            mode: granted.mode,
            payee: granted.payee,
            limit: granted.limit,
            period: granted.period,
            expires_at: granted.expires_at,
            ..zero
        })
    }

    /// How it takes part in its channel's capacity.
    pub fn mode(&self) -> LaneMode {
        self.granted.as_ref().map_or(LaneMode::Shared, |granted| granted.mode)
    }

    /// Most it may spend: in its life, or in a period.
    pub fn limit(&self) -> Amount {
        self.granted.as_ref().map_or(Amount::MAX, |granted| granted.limit)
    }

    /// No payment is taken from this time on.
    pub fn expires_at(&self) -> Time {
        self.granted.as_ref().map_or(Time::MAX, |granted| granted.expires_at)
    }

    /// The only payee, or any.
    fn payee(&self) -> Option<&AccountId> {
        self.granted.as_ref().and_then(|granted| granted.payee.as_ref())
    }

    /// Seconds of a period; 0 when the limit is for life.
    fn period(&self) -> u32 {
        self.granted.as_ref().map_or(0, |granted| granted.period)
    }

    /// The period of the last payment, and the total when it began.
    fn spent_before(&self) -> (u64, Amount) {
        self.granted.as_ref().map_or((0, Amount::ZERO), |granted| (granted.current, granted.base))
    }

    /// Its head.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The lane key's signature over the head; none before the first payment.
    pub const fn signature(&self) -> Option<&Signature> {
        // Sequences are above 0, so a lane with a payment has a head above 0.
        if self.head.sequence == 0 { None } else { Some(&self.signature) }
    }

    /// The highest sequence that was voided.
    pub const fn void_through(&self) -> u64 {
        self.void_through
    }

    /// Whether it was revoked.
    pub const fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// Spent in the period of the last payment; the total when there are no periods.
    pub fn spent_in_period(&self) -> Amount {
        self.head.total.checked_sub(self.spent_before().1).unwrap_or(Amount::ZERO)
    }

    /// Whether nothing more can be spent at this time.
    pub fn has_ended(&self, time: Time) -> bool {
        self.revoked || time >= self.expires_at()
    }

    /// What the lane takes of its channel's capacity: its limit while it is reserved and live, else its total.
    pub fn claim(&self, time: Time) -> Amount {
        match self.mode() {
            LaneMode::Reserved if !self.has_ended(time) => self.limit(),
            LaneMode::Shared | LaneMode::Reserved | LaneMode::Direct => self.head.total,
        }
    }

    /// Nothing at or below this sequence can be taken any more.
    fn floor(&self) -> u64 {
        self.head.sequence.max(self.void_through)
    }

    /// The highest sequence that a frame may start with, or a void reach.
    pub fn ceiling(&self) -> u64 {
        self.floor().saturating_add(MAX_SKIP)
    }

    /// Where frames start from.
    pub fn tip(&self, bounds: &Bounds) -> Tip {
        let holds = Holds { from: bounds.headroom_from, until: Time::MAX };
        let (period, period_base) = self.spent_before();
        Tip { head: self.head, period, period_base, headroom: bounds.headroom, holds }
    }

    /// The rules that need no signature, for one frame on top of what came before. Order is the documented precedence.
    pub fn advance(
        &self,
        tip: &Tip,
        frame: &Frame,
        bounds: &Bounds,
        payee: &mut dyn FnMut(&AccountId) -> Result<(), Reject>,
    ) -> Result<Tip, Fault> {
        let first = frame.run.first_sequence();
        let fault = |reject| Fault { reject, sequence: first };
        if frame.previous_sequence != tip.head.sequence {
            return Err(fault(Reject::Conflict));
        }
        let floor = tip.head.sequence.max(self.void_through);
        if first <= floor || first > floor.saturating_add(MAX_SKIP) {
            return Err(fault(Reject::Sequence));
        }
        self.follow(tip, &frame.run, frame.valid_until, bounds, payee)
    }

    /// What [`advance`](Self::advance) checks behind the order of sequences; a recorded group is judged by it again.
    fn follow(
        &self,
        tip: &Tip,
        run: &Run,
        valid_until: Time,
        bounds: &Bounds,
        payee: &mut dyn FnMut(&AccountId) -> Result<(), Reject>,
    ) -> Result<Tip, Fault> {
        // What no payment of this lane could pass is no single payment's fault.
        let fault = |reject| Fault { reject, sequence: 0 };
        if self.revoked {
            return Err(fault(Reject::Revoked));
        }
        let end = self.expires_at().min(bounds.expires_at);
        if bounds.now >= end {
            return Err(fault(Reject::Expired));
        }
        if bounds.frozen {
            return Err(fault(Reject::Frozen));
        }
        let deadline = if valid_until.0 == 0 { Time::MAX } else { valid_until };
        if bounds.now >= deadline {
            return Err(Fault { reject: Reject::Expired, sequence: run.first_sequence() });
        }
        let mut until = end.min(deadline);
        let mut next = *tip;
        let seconds = self.period();
        let period = period_at(seconds, bounds.opened_at, bounds.now);
        if seconds != 0 {
            if period > next.period {
                next.period = period;
                next.period_base = next.head.total;
            }
            until = until.min(period_start(seconds, bounds.opened_at, period.saturating_add(1)));
            let from = period_start(seconds, bounds.opened_at, period);
            next.holds = next.holds.and(Holds { from: if period == 0 { Time(0) } else { from }, until });
        }
        next.holds = next.holds.and(Holds { from: Time(0), until });
        let limit = self.limit();
        // Once a payee, not once a payment.
        let payees: Vec<Result<(), Reject>> = run.payees().iter().map(payee).collect();
        for (sequence, place, payment) in run.indexed() {
            let refused = |reject| Fault { reject, sequence };
            let payee = payees.get(place).copied().unwrap_or(Err(Reject::UnknownPayee));
            self.check_payment(&payment, bounds, payee).map_err(refused)?;
            let total = next.head.total.checked_add(payment.amount).map_err(|_| refused(Reject::Overflow))?;
            let spent = total.checked_sub(next.period_base).map_err(|_| refused(Reject::Overflow))?;
            if spent > limit {
                return Err(refused(Reject::Limit));
            }
            next.headroom = next.headroom.checked_sub(payment.amount).map_err(|_| refused(Reject::Capacity))?;
            next.head.state = next_state(&next.head.state, sequence, &payment);
            next.head.sequence = sequence;
            next.head.total = total;
        }
        next.head.valid_until = valid_until;
        Ok(next)
    }

    fn check_payment(&self, payment: &Payment, bounds: &Bounds, payee: Result<(), Reject>) -> Result<(), Reject> {
        if payment.amount.is_zero() {
            return Err(Reject::Zero);
        }
        if self.payee().is_some_and(|only| *only != payment.payee) {
            return Err(Reject::WrongPayee);
        }
        payee?;
        if !bounds.payment_max.is_zero() && payment.amount > bounds.payment_max {
            return Err(Reject::TooLarge);
        }
        Ok(())
    }

    /// Judges queued frames in order: the cheap rules first, then the newest signature of each group's worth; a bad one
    /// steps back frame by frame to the newest good one, and what follows is dropped. Changes nothing.
    pub fn judge(
        &self,
        frames: Vec<Frame>,
        bounds: &Bounds,
        key: &VerifyingKey,
        payee: &mut dyn FnMut(&AccountId) -> Result<(), Reject>,
    ) -> Taken {
        let mut taken = Taken::default();
        let mut passed: Vec<(Frame, Tip)> = Vec::with_capacity(frames.len());
        let mut tip = self.tip(bounds);
        for frame in frames {
            match self.advance(&tip, &frame, bounds, payee) {
                Ok(next) => {
                    tip = next;
                    passed.push((frame, next));
                }
                Err(fault) => {
                    taken.fault = Some(fault);
                    break;
                }
            }
        }
        let mut passed = passed.into_iter().peekable();
        while passed.peek().is_some() {
            let mut chunk: Vec<(Frame, Tip)> = Vec::new();
            let mut count = 0;
            while let Some(next) = passed.next_if(|(frame, _)| count + frame.run.len() <= MAX_PAYMENTS) {
                count += next.0.run.len();
                chunk.push(next);
            }
            if let Some(fault) = self.close_group(chunk, key, &mut taken) {
                taken.fault = Some(fault);
                break;
            }
        }
        taken
    }

    /// Turns frames into a group under the newest good signature among them; the fault of what had to be dropped.
    fn close_group(&self, mut chunk: Vec<(Frame, Tip)>, key: &VerifyingKey, taken: &mut Taken) -> Option<Fault> {
        let mut fault = None;
        #[cfg(feature = "planted-bugs")]
        let mut dropped: Vec<(Frame, Tip)> = Vec::new();
        while let Some((frame, tip)) = chunk.last() {
            if key.verify(&tip.head.digest(&self.id), &frame.signature) {
                let (tip, signature) = (*tip, frame.signature);
                #[cfg(feature = "planted-bugs")]
                if crate::planted::Bug::StepBackOffByOne.is_planted() {
                    chunk.extend(dropped.pop());
                }
                let runs = chunk.into_iter().map(|(frame, _)| frame.run).collect();
                taken.groups.push(Group { runs, head: tip.head, signature, holds: tip.holds, tip });
                return fault;
            }
            taken.bad_signatures += 1;
            fault = Some(Fault { reject: Reject::Signature, sequence: frame.run.first_sequence() });
            #[cfg(feature = "planted-bugs")]
            dropped.extend(chunk.last().cloned());
            chunk.pop();
        }
        fault
    }

    /// Judges a recorded group again, for recovery and audit: the same rules at the commit's time, and the head that
    /// the record names. `key`: check the signature too.
    pub fn judge_recorded(
        &self,
        runs: &[Run],
        head: &Head,
        signature: &Signature,
        bounds: &Bounds,
        key: Option<&VerifyingKey>,
        payee: &mut dyn FnMut(&AccountId) -> Result<(), Reject>,
    ) -> Result<Group, Fault> {
        let mut tip = self.tip(bounds);
        let mut count = 0;
        for run in runs {
            let first = run.first_sequence();
            let floor = tip.head.sequence.max(self.void_through);
            count += run.len();
            if run.check_shape().is_err() || count > MAX_PAYMENTS {
                return Err(Fault { reject: Reject::Malformed, sequence: first });
            }
            if first <= floor || first > floor.saturating_add(MAX_SKIP) {
                return Err(Fault { reject: Reject::Sequence, sequence: first });
            }
            tip = self.follow(&tip, run, head.valid_until, bounds, payee)?;
        }
        if tip.head != *head || runs.is_empty() {
            return Err(Fault { reject: Reject::Conflict, sequence: head.sequence });
        }
        if key.is_some_and(|key| !key.verify(&head.digest(&self.id), signature)) {
            return Err(Fault { reject: Reject::Signature, sequence: head.sequence });
        }
        Ok(Group { runs: runs.to_vec(), head: *head, signature: *signature, holds: tip.holds, tip })
    }

    /// Takes a judged group.
    pub fn apply(&mut self, group: &Group) {
        assert!(
            group.head.sequence > self.floor() && group.head.total > self.head.total,
            "a group must move a lane on"
        );
        self.head = group.head;
        self.signature = group.signature;
        if let Some(granted) = self.granted.as_mut() {
            granted.current = group.tip.period;
            granted.base = group.tip.period_base;
        }
    }

    /// The void that an attach commits: never less than what was voided before. Changes nothing.
    ///
    /// Reaching more than 2^32 above the head and the last void is refused.
    pub fn void(&self, void_through: u64) -> Result<Void, Reject> {
        if void_through > self.ceiling() {
            return Err(Reject::Sequence);
        }
        Ok(Void {
            lane: self.id,
            head: self.head_digest(),
            sequence: self.head.sequence,
            total: self.head.total,
            void_through: void_through.max(self.void_through),
        })
    }

    /// Gives up sequences for ever. The void must be of this very head.
    pub fn apply_void(&mut self, void: &Void) -> Result<(), Reject> {
        let mine = self.void(void.void_through)?;
        if mine != *void {
            return Err(Reject::Conflict);
        }
        self.void_through = void.void_through;
        Ok(())
    }

    /// The planted bug of that name.
    #[cfg(feature = "planted-bugs")]
    pub fn forget_voids(&mut self) {
        self.void_through = 0;
    }

    /// Ends the lane.
    pub fn revoke(&mut self) {
        self.revoked = true;
    }

    /// The head as it is signed.
    pub fn head_digest(&self) -> Hash {
        self.head.digest(&self.id)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use crate::id::Reference;
    use crate::keys::SecretKey;

    const PAYEE: AccountId = AccountId(PublicKey([9; 32]));

    struct Rig {
        key: SecretKey,
        lane: Lane,
        bounds: Bounds,
    }

    fn rig(change: impl FnOnce(&mut LaneGrant)) -> Rig {
        let key = SecretKey::from_bytes(&[1; 32]).unwrap();
        let mut grant = LaneGrant {
            channel: ChannelId([2; 32]),
            lane: 1,
            scheme: 0,
            key: key.public(),
            mode: LaneMode::Shared,
            payee: None,
            limit: Amount::from_nanos(1_000),
            period: 0,
            expires_at: Time(1_000_000),
        };
        change(&mut grant);
        let bounds = Bounds {
            now: Time(100_000),
            opened_at: Time(0),
            expires_at: Time(900_000),
            headroom: Amount::from_nanos(500),
            headroom_from: Time(0),
            frozen: false,
            payment_max: Amount::from_nanos(100),
        };
        Rig { key, lane: Lane::new(grant), bounds }
    }

    fn pay(nanos: u64) -> Payment {
        Payment { payee: PAYEE, amount: Amount::from_nanos(nanos), reference: Reference([3; 32]) }
    }

    impl Rig {
        /// Frames that follow each other, correctly signed.
        fn frames(&self, start: &Head, runs: &[(u64, &[Payment])]) -> Vec<Frame> {
            let mut head = *start;
            runs.iter()
                .map(|(first, payments)| {
                    let previous_sequence = head.sequence;
                    for (payment, sequence) in payments.iter().zip(*first..) {
                        head.state = next_state(&head.state, sequence, payment);
                        head.sequence = sequence;
                        head.total = Amount::from_nanos(head.total.nanos().wrapping_add(payment.amount.nanos()));
                    }
                    let signature = self.key.sign(&head.digest(&self.lane.id()));
                    Frame {
                        previous_sequence,
                        run: Run::new(*first, payments).unwrap(),
                        valid_until: Time(0),
                        signature,
                    }
                })
                .collect()
        }

        fn judge(&self, frames: Vec<Frame>) -> Taken {
            let key = self.key.public().parse().unwrap();
            self.lane.judge(frames, &self.bounds, &key, &mut |payee| {
                if *payee == PAYEE { Ok(()) } else { Err(Reject::UnknownPayee) }
            })
        }

        fn refusal(&self, runs: &[(u64, &[Payment])]) -> (Reject, u64) {
            let fault = self.judge(self.frames(self.lane.head(), runs)).fault.unwrap();
            (fault.reject, fault.sequence)
        }
    }

    #[test]
    fn lane_gives_its_grant_back_whatever_it_grants() {
        let change: [fn(&mut LaneGrant); 3] = [
            |_| (),
            |grant| (grant.mode, grant.payee, grant.period) = (LaneMode::Reserved, Some(PAYEE), 60),
            |grant| *grant = LaneGrant { channel: grant.channel, key: grant.key, ..LaneGrant::LANE_ZERO },
        ];
        for change in change {
            let mut expected = None;
            let lane = rig(|grant| {
                change(grant);
                expected = Some(*grant);
            })
            .lane;
            assert_eq!(Some(lane.grant(ChannelId([2; 32]))), expected);
            assert_eq!(lane.id(), expected.unwrap().id());
        }
    }

    #[test]
    fn lane_is_kept_in_few_bytes() {
        // A hub keeps one for each channel (issue 3, g).
        assert!(size_of::<Lane>() <= 208, "{}", size_of::<Lane>());
    }

    #[test]
    fn frames_in_a_row_become_one_group_under_the_newest_signature() {
        let mut rig = rig(|_| ());
        let frames = rig.frames(rig.lane.head(), &[(1, &[pay(1), pay(2)]), (7, &[pay(3)])]);
        let newest = frames[1].signature;
        let taken = rig.judge(frames);
        assert!(taken.fault.is_none());
        assert_eq!(taken.groups.len(), 1);
        assert_eq!(taken.groups[0].signature, newest);
        rig.lane.apply(&taken.groups[0]);
        assert_eq!((rig.lane.head().sequence, rig.lane.head().total), (7, Amount::from_nanos(6)));
    }

    #[test]
    fn bad_signature_steps_back_to_the_newest_good_one_and_drops_the_rest() {
        for bad in 0..4_usize {
            let rig = rig(|_| ());
            let one = [pay(1)];
            let runs: Vec<(u64, &[Payment])> = (1..=4).map(|first| (first, &one[..])).collect();
            let mut frames = rig.frames(rig.lane.head(), &runs);
            for frame in &mut frames[bad..] {
                frame.signature.0[5] ^= 1;
            }
            let taken = rig.judge(frames);
            let kept = taken.groups.first().map_or(0, |group| group.head.sequence);
            assert_eq!(kept, bad as u64);
            let fault = taken.fault.unwrap();
            assert_eq!((fault.reject, fault.sequence), (Reject::Signature, bad as u64 + 1));
            assert_eq!(taken.bad_signatures, 4 - bad as u32);
        }
    }

    #[test]
    fn bad_signature_under_a_newer_good_one_is_never_looked_at() {
        let rig = rig(|_| ());
        let mut frames = rig.frames(rig.lane.head(), &[(1, &[pay(1)]), (2, &[pay(1)])]);
        frames[0].signature.0[0] ^= 1;
        let taken = rig.judge(frames);
        assert!(taken.fault.is_none());
        assert_eq!(taken.bad_signatures, 0);
        assert_eq!(taken.groups[0].head.sequence, 2);
    }

    #[test]
    fn each_cheap_rule_names_its_refusal_and_the_sequence_at_fault() {
        let other = Payment { payee: AccountId(PublicKey([8; 32])), ..pay(1) };
        let plain = rig(|_| ());
        assert_eq!(plain.refusal(&[(1, &[pay(1), pay(0)])]), (Reject::Zero, 2));
        assert_eq!(plain.refusal(&[(1, &[other])]), (Reject::UnknownPayee, 1));
        assert_eq!(plain.refusal(&[(1, &[pay(101)])]), (Reject::TooLarge, 1));
        assert_eq!(plain.refusal(&[(0, &[pay(1)])]), (Reject::Sequence, 0));
        assert_eq!(plain.refusal(&[(MAX_SKIP + 1, &[pay(1)])]), (Reject::Sequence, MAX_SKIP + 1));
        assert!(plain.judge(plain.frames(plain.lane.head(), &[(MAX_SKIP, &[pay(1)])])).fault.is_none());
        assert_eq!(plain.refusal(&[(1, &[pay(100); 6])]), (Reject::Capacity, 6));
        assert_eq!(
            rig(|grant| grant.limit = Amount::from_nanos(199)).refusal(&[(1, &[pay(100); 2])]),
            (Reject::Limit, 2)
        );
        assert_eq!(rig(|grant| grant.payee = Some(other.payee)).refusal(&[(1, &[pay(1)])]), (Reject::WrongPayee, 1));
        assert_eq!(rig(|grant| grant.expires_at = Time(100_000)).refusal(&[(1, &[pay(1)])]), (Reject::Expired, 0));
        let mut late = rig(|_| ());
        late.bounds.expires_at = late.bounds.now;
        assert_eq!(late.refusal(&[(1, &[pay(1)])]), (Reject::Expired, 0));
        let mut frozen = rig(|_| ());
        frozen.bounds.frozen = true;
        assert_eq!(frozen.refusal(&[(1, &[pay(1)])]), (Reject::Frozen, 0));
        let mut revoked = rig(|_| ());
        revoked.lane.revoke();
        assert_eq!(revoked.refusal(&[(1, &[pay(1)])]), (Reject::Revoked, 0));
    }

    #[test]
    fn void_gives_up_a_range_and_never_shrinks() {
        let mut rig = rig(|_| ());
        let first = rig.lane.void(10).unwrap();
        rig.lane.apply_void(&first).unwrap();
        assert_eq!(rig.refusal(&[(10, &[pay(1)])]), (Reject::Sequence, 10));
        assert_eq!(rig.lane.void(3).unwrap().void_through, 10);
        assert_eq!(rig.lane.void(10 + MAX_SKIP + 1), Err(Reject::Sequence));
        let taken = rig.judge(rig.frames(rig.lane.head(), &[(11, &[pay(1)])]));
        rig.lane.apply(&taken.groups[0]);
        assert_eq!(rig.lane.apply_void(&first), Err(Reject::Conflict), "a void of an older head");
    }

    #[test]
    fn period_gives_the_limit_anew_and_bounds_the_judgement() {
        let mut rig = rig(|grant| {
            grant.period = 60;
            grant.limit = Amount::from_nanos(100);
        });
        let first = rig.judge(rig.frames(rig.lane.head(), &[(1, &[pay(100)])]));
        assert_eq!(first.groups[0].holds, Holds { from: Time(60_000), until: Time(120_000) });
        rig.lane.apply(&first.groups[0]);
        assert_eq!(rig.refusal(&[(2, &[pay(1)])]), (Reject::Limit, 2));
        rig.bounds.now = Time(120_000);
        let second = rig.judge(rig.frames(rig.lane.head(), &[(2, &[pay(100)])]));
        assert!(second.fault.is_none());
    }

    #[test]
    fn more_than_a_groups_worth_becomes_several_groups_of_whole_frames() {
        let mut rig = rig(|_| ());
        rig.bounds.headroom = Amount::from_nanos(10_000);
        let mut grant = rig.lane.grant(ChannelId([2; 32]));
        grant.limit = Amount::from_nanos(10_000);
        rig.lane = Lane::new(grant);
        let many = vec![pay(1); 600];
        let taken = rig.judge(rig.frames(rig.lane.head(), &[(1, &many), (601, &many), (1_201, &many)]));
        assert!(taken.fault.is_none());
        assert_eq!(taken.groups.iter().map(|group| group.head.sequence).collect::<Vec<_>>(), [600, 1_200, 1_800]);
        for group in &taken.groups {
            let again = rig.lane.judge_recorded(
                &group.runs,
                &group.head,
                &group.signature,
                &rig.bounds,
                Some(&rig.key.public().parse().unwrap()),
                &mut |_| Ok(()),
            );
            assert_eq!(again.unwrap().head, group.head);
            rig.lane.apply(group);
        }
    }
}
