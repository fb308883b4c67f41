//! Evidence for a channel: who opened it, what its keys authorised, what the hub made of it.

use serde::{Deserialize, Serialize};

use super::{ActPart, Checked, EvidenceError, Place, Verdict, expect_act, order};
use crate::act::{Act, CloseCause};
use crate::amount::{Amount, Currency, Time};
use crate::commit::group_item;
use crate::hash::Hash;
use crate::id::{AccountId, ChannelId};
use crate::keys::{PublicKey, Signature};
use crate::merkle;
use crate::payment::Head;

/// What is claimed of a channel. Everything in it follows from the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelClaim {
    /// The channel.
    pub channel: ChannelId,
    /// Who opened it.
    pub account: AccountId,
    /// Its currency.
    pub currency: Currency,
    /// Locked for it in all.
    pub capacity: Amount,
    /// When it ends by itself.
    pub expires_at: Time,
    /// Whether it may roll.
    pub renew: bool,
    /// Whether it was amended.
    pub amended: bool,
    /// How often it rolled.
    pub rolls: u64,
    /// How many lanes it has.
    pub lanes: u32,
    /// How many of them were revoked.
    pub revoked: u32,
    /// Spent by all lanes, in its whole life.
    pub spent: Amount,
    /// Whether it is closed.
    pub closed: bool,
    /// Given back at the close; zero while it is open.
    pub returned: Amount,
}

/// The parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelEvidence {
    /// What is claimed.
    pub claim: ChannelClaim,
    /// The opening.
    pub open: ActPart,
    /// The newest amendment.
    pub amendment: Option<ActPart>,
    /// The newest roll.
    pub roll: Option<ActPart>,
    /// The payer's request to close.
    pub request: Option<ActPart>,
    /// The close.
    pub close: Option<ActPart>,
    /// Every lane ever granted, by number.
    pub lanes: Vec<LanePart>,
}

/// A lane: how it came to be and how far it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanePart {
    /// The grant; none for lane 0.
    pub grant: Option<ActPart>,
    /// The revocation.
    pub revoke: Option<ActPart>,
    /// The newest head.
    pub head: Head,
    /// The lane key's signature over it; none before the first payment.
    pub signature: Option<Signature>,
    /// The group that led to it; none before the first payment.
    pub group: Option<HeadGroup>,
}

/// The group of payments that led to a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadGroup {
    /// Payments in it.
    pub count: u32,
    /// Root of their leaves.
    pub leaves: Hash,
    /// Where it is.
    pub place: Place,
}

impl ChannelEvidence {
    pub(super) fn check(&self, checked: &Checked<'_>) -> Result<Verdict, EvidenceError> {
        let claim = &self.claim;
        let terms = expect_act!(self.open, Open, "open")?;
        let (account, id) = (terms.account.key(), terms.id());
        if terms.hub != *checked.hub {
            return Err(EvidenceError::Content("the channel was opened at another hub"));
        }
        checked.act(&self.open, &[account], "open")?;
        let mut state = (terms.capacity, terms.expires_at, terms.renew);
        let mut last = order(&self.open);
        let mut rolls = 0;
        let mut changes: Vec<(&ActPart, bool)> = self.amendment.iter().map(|part| (part, true)).collect();
        changes.extend(self.roll.iter().map(|part| (part, false)));
        changes.sort_by_key(|(part, _)| order(part));
        for (part, is_amendment) in changes {
            if order(part) <= last {
                return Err(EvidenceError::Content("the acts of the channel are not in order"));
            }
            last = order(part);
            if is_amendment {
                let amend = expect_act!(part, Amend, "amendment")?;
                checked.act(part, &[account], "amendment")?;
                is_of(amend.channel, id)?;
                state = (amend.capacity, amend.expires_at, amend.renew);
            } else {
                let roll = expect_act!(part, Roll, "roll")?;
                checked.act(part, &[], "roll")?;
                is_of(roll.channel, id)?;
                rolls = roll.roll;
                state.1 = roll.expires_at;
                // Before the newest amendment there may have been others.
                let is_settled = self.amendment.as_ref().is_none_or(|amended| order(amended) < order(part));
                if is_settled && roll.capacity != state.0 {
                    return Err(EvidenceError::Content("the roll names another capacity than the channel's"));
                }
            }
        }
        let until = self.close.as_ref().map_or((u64::MAX, u32::MAX), order);
        if last >= until {
            return Err(EvidenceError::Content("an act of the channel comes after its close"));
        }
        let revoked = u32::try_from(self.lanes.iter().filter(|lane| lane.revoke.is_some()).count()).unwrap_or(u32::MAX);
        let (spent, heads, newest) = self.lanes(checked, &terms.key, id, until)?;
        let expected = ChannelClaim {
            channel: id,
            account: terms.account,
            currency: terms.currency,
            capacity: state.0,
            expires_at: state.1,
            renew: state.2,
            amended: self.amendment.is_some(),
            rolls,
            lanes: u32::try_from(self.lanes.len()).unwrap_or(u32::MAX),
            revoked,
            spent,
            closed: self.close.is_some(),
            returned: if self.close.is_some() { left(state.0, spent)? } else { Amount::ZERO },
        };
        if *claim != expected || spent > state.0 {
            return Err(EvidenceError::Content("the parts give another channel than is claimed"));
        }
        self.closing(checked, account, terms.key, &merkle::root(&heads))?;
        Ok(self.verdict(self.close.as_ref().map_or(newest.max(last.0), |close| close.commit)))
    }

    /// What the lanes spent, their heads, and the newest commit among theirs.
    fn lanes(
        &self,
        checked: &Checked<'_>,
        key: &PublicKey,
        id: ChannelId,
        until: (u64, u32),
    ) -> Result<(Amount, Vec<Hash>, u64), EvidenceError> {
        let terms = expect_act!(self.open, Open, "open")?;
        let (mut spent, mut heads, mut newest) = (Amount::ZERO, Vec::new(), 0);
        for (lane, number) in self.lanes.iter().zip(0_u32..) {
            let grant = match (&lane.grant, number) {
                (None, 0) => terms.lane_zero(),
                (Some(part), 1..) => {
                    let grant = expect_act!(part, Grant, "grant")?;
                    checked.act(part, &[*key], "grant")?;
                    is_of(grant.channel, id)?;
                    if grant.lane != number || order(part) >= until {
                        return Err(EvidenceError::Content("the lanes are not those of the channel, by number"));
                    }
                    *grant
                }
                _ => return Err(EvidenceError::Content("the lanes are not those of the channel, by number")),
            };
            if let Some(part) = &lane.revoke {
                let revoke = expect_act!(part, Revoke, "revoke")?;
                checked.act(part, &[*key], "revoke")?;
                is_of(revoke.channel, id)?;
                if revoke.lane != number || order(part) >= until {
                    return Err(EvidenceError::Content("a revocation is of another lane"));
                }
                newest = newest.max(part.commit);
            }
            let lane_id = grant.id();
            let digest = lane.head.digest(&lane_id);
            match (&lane.signature, &lane.group) {
                (None, None) if lane.head == Head::empty(&lane_id) => {}
                (Some(signature), Some(group)) => {
                    if !grant.key.verify(&digest, signature) {
                        return Err(EvidenceError::Signature("head"));
                    }
                    let item = group_item(&digest, group.count, &group.leaves);
                    checked.item(&item, &group.place, "group")?;
                    if (group.place.commit, group.place.path.index) >= until {
                        return Err(EvidenceError::Content("a payment comes after the close"));
                    }
                    newest = newest.max(group.place.commit);
                }
                _ => return Err(EvidenceError::Signature("head")),
            }
            let sum = spent.checked_add(lane.head.total);
            spent = sum.map_err(|_| EvidenceError::Content("the lanes' totals overflow"))?;
            heads.push(digest);
        }
        if heads.is_empty() {
            return Err(EvidenceError::Content("lane 0 is missing"));
        }
        Ok((spent, heads, newest))
    }

    /// The close and the request that led to it.
    fn closing(
        &self,
        checked: &Checked<'_>,
        account: PublicKey,
        key: PublicKey,
        root: &Hash,
    ) -> Result<(), EvidenceError> {
        let Some(part) = &self.close else {
            let alone = self.request.is_none();
            return if alone { Ok(()) } else { Err(EvidenceError::Content("a request to close without a close")) };
        };
        let close = expect_act!(part, Close, "close")?;
        checked.act(part, &[], "close")?;
        let claim = &self.claim;
        is_of(close.channel, claim.channel)?;
        if close.root != *root || close.spent != claim.spent || close.returned != claim.returned {
            return Err(EvidenceError::Content("the close is over other heads or amounts"));
        }
        let asked = match &self.request {
            None => Hash::ZERO,
            Some(request) => {
                let act = expect_act!(request, CloseRequest, "request")?;
                checked.act(request, &[key, account], "request")?;
                is_of(act.channel, claim.channel)?;
                if order(request) >= order(part) {
                    return Err(EvidenceError::Content("the request comes after the close"));
                }
                request.act.digest(checked.hub)
            }
        };
        if close.request != asked || (close.cause == CloseCause::Request) != self.request.is_some() {
            return Err(EvidenceError::Content("the close is of another cause"));
        }
        Ok(())
    }

    fn verdict(&self, commit: u64) -> Verdict {
        let claim = &self.claim;
        let currency = claim.currency;
        let mut verdict = Verdict::new("channel", commit);
        verdict.fact("channel", claim.channel);
        verdict.fact("account", claim.account);
        verdict.fact("capacity", format!("{} {currency}", claim.capacity));
        verdict.fact("spent", format!("{} {currency}", claim.spent));
        verdict.fact("lanes", self.lanes.len());
        verdict.fact("state", if claim.closed { "closed" } else { "open" });
        verdict.proven(format!(
            "The account's own key signed the opening of the channel; its capacity is {} {currency}.",
            claim.capacity
        ));
        verdict.proven(format!(
            "Its lane keys ({} of them) signed heads with totals of {} {currency} in all, and the hub took the payments \
             that lead to each of them.",
            self.lanes.len(),
            claim.spent
        ));
        if claim.closed {
            verdict.fact("returned", format!("{} {currency}", claim.returned));
            verdict.proven(format!(
                "The hub closed the channel in commit {commit} over exactly these heads: {} {currency} spent, {} {currency} \
                 given back. It can take nothing more.",
                claim.spent, claim.returned
            ));
        } else {
            verdict.open("That nothing more was paid: the channel is open.");
            verdict.open("That it has no more lanes, and no newer amendment.");
        }
        verdict.open("Who was paid, and for what: single payments have evidence of their own.");
        verdict
    }
}

fn is_of(channel: ChannelId, id: ChannelId) -> Result<(), EvidenceError> {
    if channel == id { Ok(()) } else { Err(EvidenceError::Content("an act is of another channel")) }
}

fn left(capacity: Amount, spent: Amount) -> Result<Amount, EvidenceError> {
    capacity.checked_sub(spent).map_err(|_| EvidenceError::Content("more was spent than the channel had"))
}
