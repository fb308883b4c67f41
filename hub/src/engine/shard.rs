//! A shard: owns the state of its channels, judges what arrives for them, and stages it for the committer.
//!
//! Everything that a shard says goes through the committer in the order in which it was judged, so that nothing is heard
//! before what it depends on is durable. What is staged is never refused afterwards.
//!
//! A channel is *pinned* while the committer decides on something of it (an amendment, a close that its account asks
//! for): payments go on, but no other act of the channel is judged until the decision is back.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_protocol::act::{Act, CloseCause, SignedAct};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId, HubId, LaneId};
use weir_protocol::keys::{PublicKey, VerifyingKey};
use weir_protocol::lane::hub::{Group, Holds, Lane};
use weir_protocol::payment::Frame;
use weir_protocol::reject::Reject;
use weir_protocol::wire::MAX_PAGE;

use super::books::{ChannelFacts, Notice, Standing, author_of};
use super::channel::Channel;
use super::channels::{Channels, Done, Effect};
use super::record::{Authorship, GroupRecord, Receipts, RefundContext};
use super::restriction::{Restriction, Restrictions};
use super::said::{About, Again, Facts, Query, Said};

/// Bad signatures from one stream after which its peer is dropped.
pub const MAX_BAD_SIGNATURES: u32 = 16;

/// A stream, unique in the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What arrives at a shard. `R`: where the answer goes.
#[derive(Debug)]
pub enum Input<R> {
    /// A stream takes a lane over. Its connection has proven the lane's key.
    Attach {
        /// The lane.
        lane: LaneId,
        /// The stream.
        stream: StreamId,
        /// Sequences to give up.
        void_through: u64,
        /// The stream's answers.
        reply: R,
    },
    /// Payments on an attached stream.
    Frame {
        /// The lane.
        lane: LaneId,
        /// The stream.
        stream: StreamId,
        /// The payments.
        frame: Frame,
    },
    /// A stream is gone.
    Gone {
        /// The lane.
        lane: LaneId,
        /// The stream.
        stream: StreamId,
    },
    /// An act of a client.
    Act {
        /// The act.
        signed: Box<SignedAct>,
        /// The payment of a refund.
        refund: Option<RefundContext>,
        /// Where the answer goes.
        reply: R,
    },
    /// The operator closes a channel.
    Close {
        /// The channel.
        channel: ChannelId,
        /// Where the answer goes.
        reply: R,
    },
    /// A question.
    Ask {
        /// What.
        query: Query,
        /// Where the answer goes.
        reply: R,
    },
    /// The books changed.
    Notice(Notice),
    /// The books decided on a pinned channel's act.
    Decided {
        /// The channel.
        channel: ChannelId,
        /// What was taken, if anything.
        taken: Option<Taken<R>>,
    },
    /// From now on this holds as well; then a marker. Sent before the act that brings it is committed.
    Restrict {
        /// What.
        restriction: Restriction,
        /// For the marker.
        token: u64,
    },
    /// The act of that restriction was decided, and its notice is through: what the books said last holds again.
    Lift {
        /// The restriction's.
        token: u64,
    },
}

/// What the books took of a pinned channel.
#[derive(Debug)]
pub enum Taken<R> {
    /// An amendment.
    Amend(weir_protocol::act::Amend),
    /// A close request of the account.
    CloseRequest {
        /// The request.
        signed: Box<SignedAct>,
        /// Who waits for the close.
        reply: R,
    },
}

/// What a shard hands to the committer.
#[derive(Debug)]
pub enum Output<R> {
    /// Payments.
    Group {
        /// As journaled.
        record: Box<GroupRecord>,
        /// Its receipts, hashed.
        receipts: Receipts,
        /// The group as the commit's tree has it.
        item: Hash,
        /// For the ledger.
        effect: Effect,
        /// When the judgement holds.
        holds: Holds,
        /// The stream's answers.
        reply: R,
    },
    /// An act of a channel.
    Act {
        /// The act.
        act: Box<Act>,
        /// Who signed it.
        author: Option<Authorship>,
        /// For the ledger.
        effect: Effect,
        /// When the judgement holds.
        holds: Holds,
        /// Who waits for it.
        reply: Option<R>,
    },
    /// An attach: the void, and the head that the answer shows.
    Attach {
        /// The void.
        act: Box<Act>,
        /// The lane's head.
        head: weir_protocol::payment::Head,
        /// Its signature.
        signature: Option<weir_protocol::keys::Signature>,
        /// The stream's answers.
        reply: R,
    },
    /// An act whose signature holds, for the books to decide on.
    Forward {
        /// The act.
        signed: Box<SignedAct>,
        /// Who signed it.
        author: PublicKey,
        /// The channel that is pinned for it.
        channel: Option<(ChannelId, ChannelFacts)>,
        /// The payment of a refund.
        refund: Option<RefundContext>,
        /// Who waits for it.
        reply: R,
    },
    /// Something that leaves no trace.
    Say {
        /// To whom.
        reply: R,
        /// What.
        said: Said,
    },
    /// Everything before was judged under what the token's message brought.
    Marker(u64),
}

#[derive(Debug)]
struct LaneStream<R> {
    stream: StreamId,
    reply: R,
    /// False after a refusal, until the stream attaches again.
    hears: bool,
    key: VerifyingKey,
    bad_signatures: u32,
}

/// One shard.
#[derive(Debug)]
pub struct Shard<R> {
    hub: HubId,
    payment_max: Amount,
    channels: Channels,
    standings: HashMap<AccountId, Standing>,
    restrictions: Restrictions,
    streams: HashMap<LaneId, LaneStream<R>>,
    pinned: BTreeSet<ChannelId>,
    /// Channels whose close request was taken and not carried out before a restart.
    closing: BTreeSet<ChannelId>,
    queued: BTreeMap<LaneId, Vec<Frame>>,
    out: Vec<Output<R>>,
}

impl<R: Clone> Shard<R> {
    /// A shard with its share of the channels.
    pub fn new(
        hub: HubId,
        payment_max: Amount,
        standings: impl IntoIterator<Item = (AccountId, Standing)>,
        channels: Channels,
    ) -> Self {
        let open = |channel: &&Channel| channel.close_request().is_some() && channel.closed().is_none();
        let closing = channels.iter().filter(open).map(Channel::id).collect();
        Self {
            hub,
            payment_max,
            channels,
            standings: standings.into_iter().collect(),
            restrictions: Restrictions::default(),
            streams: HashMap::new(),
            pinned: BTreeSet::new(),
            closing,
            queued: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    /// Its channels.
    pub const fn channels(&self) -> &Channels {
        &self.channels
    }

    /// When [`handle`](Self::handle) must be called even if nothing arrives.
    pub fn next_wake(&self) -> Option<Time> {
        if self.closing.is_empty() { self.channels.next_expiry() } else { Some(Time(0)) }
    }

    /// Judges what arrived, at one time, in order; frames of a lane that arrived together are judged together.
    pub fn handle(&mut self, inputs: impl IntoIterator<Item = Input<R>>, now: Time) -> Vec<Output<R>> {
        // Before anything else of those channels: what a restart found asked for must not meet another decision.
        self.close_asked(now);
        for input in inputs {
            if let Input::Frame { lane, stream, frame } = input {
                self.queue(lane, stream, frame);
                continue;
            }
            self.judge_queued(now);
            self.take(input, now);
        }
        self.judge_queued(now);
        self.close_due(now);
        core::mem::take(&mut self.out)
    }

    fn take(&mut self, input: Input<R>, now: Time) {
        match input {
            Input::Frame { .. } => {}
            Input::Attach { lane, stream, void_through, reply } => self.attach(lane, stream, void_through, reply, now),
            Input::Gone { lane, stream } => {
                if self.streams.get(&lane).is_some_and(|attached| attached.stream == stream) {
                    self.streams.remove(&lane);
                }
            }
            Input::Act { signed, refund, reply } => self.act(signed, refund, reply, now),
            Input::Close { channel, reply } => self.operator_close(channel, reply, now),
            Input::Ask { query, reply } => {
                let said = self.answer(query, now).map_or_else(Said::Refused, |facts| Said::Facts(Box::new(facts)));
                self.out.push(Output::Say { reply, said });
            }
            Input::Notice(notice) => self.notice(notice),
            Input::Decided { channel, taken } => self.decided(channel, taken, now),
            Input::Restrict { restriction, token } => {
                self.restrictions.stand(token, restriction);
                if restriction == Restriction::CutOff {
                    self.roll_due(now);
                    self.close_due(now);
                }
                self.out.push(Output::Marker(token));
            }
            Input::Lift { token } => self.restrictions.lift(token),
        }
    }

    fn queue(&mut self, lane: LaneId, stream: StreamId, frame: Frame) {
        let heard = self.streams.get(&lane).is_some_and(|attached| attached.stream == stream && attached.hears);
        #[cfg(feature = "planted-bugs")]
        let heard = heard
            || (weir_protocol::planted::Bug::OldStreamNotFenced.is_planted()
                && self.streams.get(&lane).is_some_and(|attached| attached.hears));
        if heard {
            self.queued.entry(lane).or_default().push(frame);
        }
    }

    fn judge_queued(&mut self, now: Time) {
        while let Some((lane, frames)) = self.queued.pop_first() {
            self.judge_lane(lane, frames, now);
        }
    }

    fn judge_lane(&mut self, id: LaneId, frames: Vec<Frame>, now: Time) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some((channel, lane, _)) = self.channels.lane(&id) else { return };
        let currency = channel.currency();
        let taken = if channel.closed().is_some() {
            let fault = weir_protocol::lane::hub::Fault { reject: Reject::Closed, sequence: 0 };
            weir_protocol::lane::hub::Taken { fault: Some(fault), ..Default::default() }
        } else {
            let (standings, restrictions) = (&self.standings, &self.restrictions);
            let standing = |id: &AccountId| Some(restrictions.standing(id, *standings.get(id)?));
            let payer = standing(&channel.account()).unwrap_or_default();
            let payment_max = restrictions.payer_max(&channel.account(), payer, self.payment_max);
            let bounds = channel.bounds(lane, now, payer.frozen_outgoing, payment_max);
            lane.judge(frames, &bounds, &stream.key, &mut |payee| check_payee(standing(payee).as_ref()))
        };
        for group in taken.groups {
            let effect = self.channels.apply_group(&id, &group, now);
            let effect = effect.unwrap_or_else(|reject| unreachable!("a judged group is refused: {reject}"));
            let Group { runs, head, signature, holds, .. } = group;
            let record = Box::new(GroupRecord { lane: id, currency, head, signature, runs });
            let receipts = record.receipts();
            let item = record.item(&receipts);
            self.out.push(Output::Group { record, receipts, item, effect, holds, reply: stream.reply.clone() });
        }
        if let Some(fault) = taken.fault {
            stream.hears = false;
            stream.bad_signatures += taken.bad_signatures;
            let reply = stream.reply.clone();
            let said = Said::Hint { reject: fault.reject, fault: fault.sequence };
            if stream.bad_signatures > MAX_BAD_SIGNATURES {
                self.out.push(Output::Say { reply: reply.clone(), said });
                self.out.push(Output::Say { reply, said: Said::Hangup });
            } else {
                self.out.push(Output::Say { reply, said });
            }
        }
    }

    fn attach(&mut self, id: LaneId, stream: StreamId, void_through: u64, reply: R, now: Time) {
        if let Some(old) = self.streams.get(&id).filter(|old| old.stream != stream) {
            let said = Said::Hint { reject: Reject::Detached, fault: 0 };
            self.out.push(Output::Say { reply: old.reply.clone(), said });
        }
        let bad_signatures =
            self.streams.remove(&id).filter(|old| old.stream == stream).map_or(0, |old| old.bad_signatures);
        match self.void(id, void_through, now) {
            Ok(Attachment::Void { act, head, signature, key }) => {
                let attached = LaneStream { stream, reply: reply.clone(), hears: true, key, bad_signatures };
                self.streams.insert(id, attached);
                self.out.push(Output::Attach { act: Box::new(act), head, signature, reply });
            }
            Ok(Attachment::Closed(said)) => self.out.push(Output::Say { reply, said }),
            Err(reject) => self.out.push(Output::Say { reply, said: Said::Hint { reject, fault: 0 } }),
        }
    }

    fn void(&mut self, id: LaneId, void_through: u64, now: Time) -> Result<Attachment, Reject> {
        let (channel, lane, number) = self.channels.lane(&id).ok_or(Reject::UnknownLane)?;
        let (head, signature) = (*lane.head(), lane.signature().copied());
        if let Some(close) = channel.closed() {
            let path = channel.heads().path(number as usize).ok_or(Reject::UnknownLane)?;
            return Ok(Attachment::Closed(Said::LaneClosed { close: *close, head, signature, path }));
        }
        let key = lane.key().parse().map_err(|_| Reject::UnknownLane)?;
        let act = Act::Void(lane.void(void_through)?);
        let digest = act.digest(&self.hub);
        self.channels.act(&act, digest, None, now)?;
        Ok(Attachment::Void { act, head, signature, key })
    }

    fn act(&mut self, signed: Box<SignedAct>, refund: Option<RefundContext>, reply: R, now: Time) {
        if let Err(unstaged) = self.try_act(signed, refund, &reply, now) {
            self.out.push(Output::Say { reply, said: unstaged.into() });
        }
    }

    fn try_act(
        &mut self,
        signed: Box<SignedAct>,
        refund: Option<RefundContext>,
        reply: &R,
        now: Time,
    ) -> Result<(), Unstaged> {
        let refuse = Unstaged::Refused;
        if !signed.act.within_limits() {
            return Err(refuse(Reject::Malformed));
        }
        let id = match &signed.act {
            Act::Grant(grant) => Some(grant.channel),
            Act::Revoke(revoke) => Some(revoke.channel),
            Act::Amend(amend) => Some(amend.channel),
            Act::CloseRequest(request) => Some(request.channel),
            _ => None,
        };
        let channel = match id {
            Some(id) => Some(self.channels.get(&id).ok_or(refuse(Reject::UnknownChannel))?),
            None => None,
        };
        let payee = refund.map(|context| context.payee);
        let (digest, key) = author_of(&self.hub, &signed, channel, payee).map_err(refuse)?;
        let author = Authorship { key, signature: signed.signature };
        let facts = channel.map(|channel| (channel.id(), ChannelFacts::from(channel)));
        if facts.is_some_and(|(id, _)| self.pinned.contains(&id)) {
            return Err(refuse(Reject::Busy));
        }
        // A key that is both is the channel's: the numbers that it has taken there are the ones that count.
        let by_account = channel.is_some_and(|channel| channel.account().key() == key && channel.key() != key);
        match &signed.act {
            Act::Grant(_) | Act::Revoke(_) => self.stage(signed.act, Some(author), digest, Some(reply.clone()), now),
            Act::CloseRequest(request) if !by_account => {
                let channel = request.channel;
                self.stage(signed.act, Some(author), digest, None, now)?;
                self.close(channel, CloseCause::Request, Some(reply.clone()), now);
                Ok(())
            }
            Act::Amend(_) => {
                // The books judge the number first: one that was taken before gets its answer, closed or not.
                self.forward(signed, key, facts, refund, reply);
                Ok(())
            }
            Act::CloseRequest(_) => {
                if let Some(close) = channel.and_then(Channel::closed) {
                    let again = Again { digest, about: About::Channel(close.channel) };
                    return Err(if close.request == digest { Unstaged::Again(again) } else { refuse(Reject::Closed) });
                }
                self.forward(signed, key, facts, refund, reply);
                Ok(())
            }
            Act::Register(_)
            | Act::Open(_)
            | Act::Refund(_)
            | Act::Withdraw(_)
            | Act::Earnings(_)
            | Act::Mandate(_) => {
                self.forward(signed, key, None, refund, reply);
                Ok(())
            }
            _ => Err(refuse(Reject::Unsupported)),
        }
    }

    fn forward(
        &mut self,
        signed: Box<SignedAct>,
        author: PublicKey,
        channel: Option<(ChannelId, ChannelFacts)>,
        refund: Option<RefundContext>,
        reply: &R,
    ) {
        if let Some((id, _)) = channel {
            self.pinned.insert(id);
        }
        self.out.push(Output::Forward { signed, author, channel, refund, reply: reply.clone() });
    }

    /// Judges and stages an act of a channel.
    fn stage(
        &mut self,
        act: Act,
        author: Option<Authorship>,
        digest: Hash,
        reply: Option<R>,
        now: Time,
    ) -> Result<(), Unstaged> {
        let key = author.map(|author| author.key);
        match self.channels.act(&act, digest, key, now).map_err(Unstaged::Refused)? {
            Done::Staged(holds, effect) => {
                self.out.push(Output::Act { act: Box::new(act), author, effect, holds, reply });
                Ok(())
            }
            Done::Again => Err(Unstaged::Again(Again { digest, about: about(&act) })),
        }
    }

    fn operator_close(&mut self, id: ChannelId, reply: R, now: Time) {
        let refused = match self.channels.get(&id) {
            None => Some(Reject::UnknownChannel),
            Some(channel) if channel.closed().is_some() => Some(Reject::Closed),
            Some(_) if self.pinned.contains(&id) => Some(Reject::Busy),
            Some(_) => None,
        };
        match refused {
            Some(reject) => self.out.push(Output::Say { reply, said: Said::Refused(reject) }),
            None => self.close(id, CloseCause::Operator, Some(reply), now),
        }
    }

    /// Closes an open, unpinned channel: streams on its lanes are told, and hear nothing more.
    fn close(&mut self, id: ChannelId, cause: CloseCause, reply: Option<R>, now: Time) {
        let Ok(close) = self.channels.close(&id, cause) else { return };
        let act = Act::Close(close);
        let digest = act.digest(&self.hub);
        if let Err(unstaged) = self.stage(act, None, digest, reply.clone(), now) {
            if let Some(reply) = reply {
                self.out.push(Output::Say { reply, said: unstaged.into() });
            }
            return;
        }
        self.closing.remove(&id);
        let lanes: Vec<LaneId> =
            self.channels.get(&id).map(|channel| channel.lanes().map(Lane::id).collect()).unwrap_or_default();
        for lane in lanes {
            if let Some(stream) = self.streams.get_mut(&lane).filter(|stream| stream.hears) {
                stream.hears = false;
                let said = Said::Hint { reject: Reject::Closed, fault: 0 };
                self.out.push(Output::Say { reply: stream.reply.clone(), said });
            }
        }
    }

    fn close_asked(&mut self, now: Time) {
        for id in core::mem::take(&mut self.closing) {
            self.close(id, CloseCause::Request, None, now);
        }
    }

    fn close_due(&mut self, now: Time) {
        let expired: Vec<ChannelId> = self.channels.expired(now).filter(|id| !self.pinned.contains(id)).collect();
        for id in expired {
            self.close(id, CloseCause::Expiry, None, now);
        }
    }

    fn roll_due(&mut self, now: Time) {
        let due: Vec<Act> = self
            .channels
            .iter()
            .filter_map(|channel| channel.due_roll(now))
            .filter(|roll| !self.pinned.contains(&roll.channel))
            .map(Act::Roll)
            .collect();
        for act in due {
            let digest = act.digest(&self.hub);
            let staged = self.stage(act, None, digest, None, now);
            assert!(staged.is_ok(), "a roll that is due can be taken");
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Standing(account, standing) => {
                self.standings.insert(account, standing);
            }
            Notice::Opened(terms) => self.channels.open(terms),
            Notice::Amended(amend) => self.amended(&amend),
            Notice::Policy(policy) => self.payment_max = policy.payment_max,
        }
    }

    fn amended(&mut self, amend: &weir_protocol::act::Amend) {
        let amended = self.channels.amend(amend);
        assert!(amended.is_ok(), "a pinned channel can take the amendment that was checked");
    }

    fn decided(&mut self, id: ChannelId, taken: Option<Taken<R>>, now: Time) {
        self.pinned.remove(&id);
        match taken {
            None => {}
            Some(Taken::Amend(amend)) => self.amended(&amend),
            Some(Taken::CloseRequest { signed, reply }) => {
                let digest = signed.act.digest(&self.hub);
                let owner = self.channels.get(&id).map(|channel| channel.account().key());
                let requested = self.channels.act(&signed.act, digest, owner, now);
                assert!(requested.is_ok(), "a pinned channel can take the close request that was checked");
                self.close(id, CloseCause::Request, Some(reply), now);
            }
        }
    }

    fn answer(&self, query: Query, now: Time) -> Result<Facts, Reject> {
        match query {
            Query::Channel(id) => {
                self.channels.get(&id).map(|channel| Facts::Channel(channel.info(now))).ok_or(Reject::UnknownChannel)
            }
            Query::Lane(id) => {
                let (channel, lane, _) = self.channels.lane(&id).ok_or(Reject::UnknownLane)?;
                Ok(Facts::Lane {
                    channel: channel.id(),
                    account: channel.account(),
                    currency: channel.currency(),
                    lane: channel.lane_info(lane),
                })
            }
            Query::Lanes { channel, from } => {
                let channel = self.channels.get(&channel).ok_or(Reject::UnknownChannel)?;
                let lanes = channel.lanes().skip(from as usize).take(MAX_PAGE);
                Ok(Facts::Lanes(lanes.map(|lane| channel.lane_info(lane)).collect()))
            }
            Query::Channels { account: Some(account), after, limit } => {
                let channels = self.channels.of(account, after).take(limit);
                Ok(Facts::Channels(channels.map(|channel| channel.info(now)).collect()))
            }
            Query::Channels { account: None, after, limit } => {
                let channels = self.channels.after(after).take(limit);
                Ok(Facts::Channels(channels.map(|channel| channel.info(now)).collect()))
            }
        }
    }
}

/// Why nothing was staged.
#[derive(Debug, Clone, Copy)]
enum Unstaged {
    Refused(Reject),
    Again(Again),
}

impl From<Unstaged> for Said {
    fn from(unstaged: Unstaged) -> Self {
        match unstaged {
            Unstaged::Refused(reject) => Self::Refused(reject),
            Unstaged::Again(again) => Self::Again(again),
        }
    }
}

enum Attachment {
    Void {
        act: Act,
        head: weir_protocol::payment::Head,
        signature: Option<weir_protocol::keys::Signature>,
        key: VerifyingKey,
    },
    Closed(Said),
}

/// Whether an account can be paid.
pub(super) fn check_payee(standing: Option<&Standing>) -> Result<(), Reject> {
    match standing {
        Some(standing) if !standing.approved => Err(Reject::UnknownPayee),
        Some(standing) if standing.frozen_incoming => Err(Reject::Frozen),
        Some(_) => Ok(()),
        None => Err(Reject::UnknownPayee),
    }
}

/// What an act is indexed under.
pub fn about(act: &Act) -> About {
    match act {
        Act::Grant(act) => About::Channel(act.channel),
        Act::Revoke(act) => About::Channel(act.channel),
        Act::Amend(act) => About::Channel(act.channel),
        Act::CloseRequest(act) => About::Channel(act.channel),
        Act::Close(act) => About::Channel(act.channel),
        Act::Roll(act) => About::Channel(act.channel),
        Act::Open(terms) => About::Channel(terms.id()),
        Act::Void(act) => About::Lane(act.lane),
        Act::Register(act) => About::Account(act.account),
        Act::Approve(act) => About::Account(act.account),
        Act::Freeze(act) => About::Account(act.account),
        Act::Withdraw(act) => About::Account(act.account),
        Act::Earnings(act) => About::Account(act.account),
        Act::Fees(act) => About::Account(act.account),
        Act::Mandate(act) => About::Account(act.account),
        Act::MandateTerms(act) => About::Account(act.account),
        Act::Collect(act) => About::Account(act.account),
        Act::Collected(act) => About::Account(act.account),
        Act::ApproveIban(act) => About::Account(act.account),
        Act::ApproveCollect(act) => About::Account(act.collect.account),
        Act::Outcome(act) => About::Account(act.account),
        Act::Deposit(act) => About::Account(act.account.unwrap_or(AccountId::ZERO)),
        Act::Allocate(act) => About::Account(act.account.unwrap_or(AccountId::ZERO)),
        Act::Limits(act) => About::Account(act.account.unwrap_or(AccountId::ZERO)),
        Act::Chain(_)
        | Act::Certificate(_)
        | Act::Policy(_)
        | Act::Refund(_)
        | Act::Cutoff(_)
        | Act::Plan(_)
        | Act::Instruct(_)
        | Act::Settled(_)
        | Act::Debit(_)
        | Act::Statement(_)
        | Act::Operator(_)
        | Act::Approval(_)
        | Act::Abort(_)
        | Act::ForceFinal(_) => About::Account(AccountId::ZERO),
    }
}
