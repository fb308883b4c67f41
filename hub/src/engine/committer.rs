//! The committer: the one owner of the ledger. Decides what debits an account, orders what shards staged into commits,
//! signs each commit once, and lets answers out only for the token of the durable write.
//!
//! Order of calls: [`begin`](Committer::begin) with a time, any number of [`stage`](Committer::stage) and
//! [`act`](Committer::act), then [`seal`](Committer::seal); the store makes the payload durable;
//! [`Sealed::release`] gives what may be said.

use std::sync::Arc;

use weir_protocol::act::{Act, Author, Chain, SignedAct};
use weir_protocol::amount::Time;
use weir_protocol::commit::{Blind, Commit, MAX_ITEMS, SignedCertificate, SignedCommit};
use weir_protocol::hash::Hash;
use weir_protocol::id::{ChannelId, HubId};
use weir_protocol::keys::{SecretKey, Signature};
use weir_protocol::lane::hub::Holds;
use weir_protocol::merkle::{Frontier, Tree};
use weir_protocol::payment::Head;
use weir_protocol::reject::Reject;

use super::books::{Books, Context, Notice, Outcome};
use super::record::{ActRecord, Authorship, ItemRecord, Proven, Receipts, Record, RefundContext};
use super::said::{Again, Said};
use super::shard::{Input, Output, Taken, about};
use crate::store::{Durable, Position};

/// Payments in a commit from which on it takes no more groups: keeps records, and the wait for them, short.
pub const FULL_PAYMENTS: usize = 65_536;

/// A message to shards.
#[derive(Debug)]
pub enum ToShard<R> {
    /// To the shard of a channel.
    One(ChannelId, Input<R>),
    /// To every shard.
    All(Notice),
}

/// What is said when a commit is durable.
#[derive(Debug)]
enum Pending {
    Said(Said),
    Taken(u32),
    Done(u32),
    Attached(u32, Head, Option<Signature>),
}

#[derive(Debug)]
struct Open<R> {
    time: Time,
    items: Vec<ItemRecord>,
    hashes: Vec<Hash>,
    receipts: Vec<Receipts>,
    pending: Vec<(R, Pending)>,
    payments: usize,
    full: bool,
}

/// Where a chain of commits goes on, and with which keys.
#[derive(Debug)]
pub struct Start {
    /// The hub.
    pub hub: HubId,
    /// The new chain: above every chain seen.
    pub chain: u64,
    /// The last kept commit; `None` before the first.
    pub last: Option<Commit>,
    /// The ids of all kept commits.
    pub history: Frontier,
    /// The books at the last kept commit.
    pub books: Books,
    /// Signs commits.
    pub key: SecretKey,
    /// 32 random bytes, new at every start, never stored.
    pub secret: [u8; 32],
}

/// The committer.
#[derive(Debug)]
pub struct Committer<R> {
    hub: HubId,
    chain: u64,
    number: u64,
    time: Time,
    history: Frontier,
    books: Books,
    key: SecretKey,
    secret: [u8; 32],
    open: Option<Open<R>>,
    #[cfg(feature = "planted-bugs")]
    answered: Option<Sealed<R>>,
}

/// A commit that is signed and not yet durable.
#[derive(Debug)]
#[must_use = "what is sealed must be made durable and released"]
pub struct Sealed<R> {
    /// Where it stands.
    pub position: Position,
    /// For the journal.
    pub payload: Vec<u8>,
    proven: Arc<Proven>,
    pending: Vec<(R, Pending)>,
}

/// What a seal gives.
#[derive(Debug)]
pub enum Seal<R> {
    /// There was nothing but words: they may be said at once, all that they depend on is durable.
    Words(Vec<(R, Said)>),
    /// A commit.
    Commit(Sealed<R>),
}

impl<R> Sealed<R> {
    /// What may be said now that the commit is durable, and the commit for whoever subscribes to credits.
    ///
    /// # Panics
    /// When the token is another commit's: nothing may be said for it.
    pub fn release(self, durable: &Durable) -> (Vec<(R, Said)>, Arc<Proven>) {
        assert!(durable.position() == self.position, "an answer needs the token of its own commit");
        let proven = self.proven;
        let said = say(self.pending, &proven);
        (said, proven)
    }
}

/// What waited for a commit, as it is said.
fn say<R>(pending: Vec<(R, Pending)>, proven: &Arc<Proven>) -> Vec<(R, Said)> {
    let word = |(reply, pending)| {
        let commit = Arc::clone(proven);
        let said = match pending {
            Pending::Said(said) => said,
            Pending::Taken(index) => Said::Taken { commit, index },
            Pending::Done(index) => Said::Done { commit, index },
            Pending::Attached(index, head, signature) => Said::Attached { commit, index, head, signature },
        };
        (reply, said)
    };
    pending.into_iter().map(word).collect()
}

impl<R> Committer<R> {
    /// Goes on after the last kept commit on a new chain.
    pub fn new(start: Start) -> Self {
        Self {
            hub: start.hub,
            chain: start.chain,
            number: start.last.map_or(0, |commit| commit.number) + 1,
            time: start.last.map_or(Time(0), |commit| commit.time),
            history: start.history,
            books: start.books,
            key: start.key,
            secret: start.secret,
            open: None,
            #[cfg(feature = "planted-bugs")]
            answered: None,
        }
    }

    /// The books: durable between a release and the next begin.
    pub const fn books(&self) -> &Books {
        &self.books
    }

    /// The last commit's number; 0 before the first.
    pub const fn last_number(&self) -> u64 {
        self.number - 1
    }

    /// The last commit's time.
    pub const fn last_time(&self) -> Time {
        self.time
    }

    /// The chain that this committer signs.
    pub const fn chain(&self) -> u64 {
        self.chain
    }

    /// Opens a commit at a time, never before its predecessor's; does nothing while one is open. The commit's time.
    pub fn begin(&mut self, now: Time) -> Time {
        let time = self.time.max(now);
        self.open
            .get_or_insert_with(|| Open {
                time,
                items: Vec::new(),
                hashes: Vec::new(),
                receipts: Vec::new(),
                pending: Vec::new(),
                payments: 0,
                full: false,
            })
            .time
    }

    /// Whether the open commit can take another output.
    pub fn has_room(&self) -> bool {
        // A forwarded act stages at most one item.
        self.open
            .as_ref()
            .is_none_or(|open| !open.full && open.items.len() < MAX_ITEMS && open.payments < FULL_PAYMENTS)
    }

    /// Whether an output's judgement holds at the open commit's time. One that does not yet hold waits for the next
    /// commit, and everything of its shard behind it.
    pub fn fits(&self, output: &Output<R>) -> bool {
        let holds = match output {
            Output::Group { holds, .. } | Output::Act { holds, .. } => *holds,
            _ => Holds::ALWAYS,
        };
        self.open.as_ref().is_none_or(|open| {
            assert!(open.time < holds.until, "a commit's time passed what was staged for it");
            holds.from <= open.time
        })
    }

    /// The act that opens a chain, and the hub's certificate: the first commit's first items.
    pub fn open_chain(&mut self, chain: Chain, certificate: Option<&SignedCertificate>) -> Result<(), Reject> {
        self.act(Act::Chain(chain), None, None)?;
        if let Some(signed) = certificate {
            let author = Authorship { key: self.hub.key(), signature: signed.signature };
            self.decide(Act::Certificate(signed.certificate), Some(author), None, None, Some(signed))?;
        }
        Ok(())
    }

    /// An act of the hub or of an operator, in the open commit. An operator's signature has been checked.
    pub fn act(&mut self, act: Act, author: Option<Authorship>, reply: Option<R>) -> Result<Option<Notice>, Reject> {
        let signed = author.map(|author| author.key);
        match (act.author(), signed) {
            (Author::Operator(key), signed) if signed != Some(key) => return Err(Reject::Unauthenticated),
            (Author::Hub, Some(_)) => return Err(Reject::Malformed),
            _ => {}
        }
        let last = matches!(act, Act::Cutoff(_));
        let again = Again { digest: act.digest(&self.hub), about: about(&act) };
        let outcome = self.decide(act, author, None, None, None)?;
        if let Some(open) = self.open.as_mut() {
            let index = open.items.len().checked_sub(1);
            match (reply, &outcome, index) {
                (Some(reply), Outcome::Again, _) => open.pending.push((reply, Pending::Said(Said::Again(again)))),
                (Some(reply), Outcome::Applied(_), Some(index)) => {
                    open.pending.push((reply, Pending::Done(u32::try_from(index).unwrap_or(u32::MAX))));
                }
                _ => {}
            }
            open.full |= last;
        }
        match outcome {
            Outcome::Applied(notice) => Ok(notice),
            Outcome::Again => Ok(None),
        }
    }

    /// Takes what a shard staged into the open commit; what shards must be told.
    pub fn stage(&mut self, output: Output<R>) -> Vec<ToShard<R>> {
        match output {
            Output::Group { record, receipts, item, effect, reply, .. } => {
                self.books.post(&effect);
                let index = self.push(ItemRecord::Group(*record), item, receipts);
                self.say(reply, Pending::Taken(index));
            }
            Output::Act { act, author, effect, reply, .. } => {
                self.books.post(&effect);
                let index = self.push_act(*act, author, None);
                if let Some(reply) = reply {
                    self.say(reply, Pending::Done(index));
                }
            }
            Output::Attach { act, head, signature, reply } => {
                let index = self.push_act(*act, None, None);
                self.say(reply, Pending::Attached(index, head, signature));
            }
            Output::Forward { signed, author, channel, refund, reply } => {
                let author = Authorship { key: author, signature: signed.signature };
                let facts = channel.as_ref().map(|(_, facts)| facts);
                let decided = self.decide(signed.act.clone(), Some(author), facts, refund.as_ref(), None);
                return self.decided(signed, channel.map(|(id, _)| id), decided, reply);
            }
            Output::Say { reply, said } => self.say(reply, Pending::Said(said)),
            Output::Marker(_) => {}
        }
        Vec::new()
    }

    fn decided(
        &mut self,
        signed: Box<SignedAct>,
        channel: Option<ChannelId>,
        decided: Result<Outcome, Reject>,
        reply: R,
    ) -> Vec<ToShard<R>> {
        let mut taken = None;
        let mut messages = Vec::new();
        match decided {
            Ok(Outcome::Applied(notice)) => {
                if let Act::CloseRequest(_) = signed.act {
                    // The answer is the close, which the shard stages.
                    taken = Some(Taken::CloseRequest { signed, reply });
                } else {
                    let index = self.open.as_ref().map_or(0, |open| open.items.len().saturating_sub(1));
                    self.say(reply, Pending::Done(u32::try_from(index).unwrap_or(u32::MAX)));
                    match notice {
                        Some(Notice::Amended(amend)) => taken = Some(Taken::Amend(amend)),
                        Some(Notice::Opened(terms)) => {
                            messages.push(ToShard::One(terms.id(), Input::Notice(Notice::Opened(terms))));
                        }
                        Some(notice) => messages.push(ToShard::All(notice)),
                        None => {}
                    }
                }
            }
            Ok(Outcome::Again) => {
                let again = Again { digest: signed.act.digest(&self.hub), about: about(&signed.act) };
                self.say(reply, Pending::Said(Said::Again(again)));
            }
            Err(reject) => self.say(reply, Pending::Said(Said::Refused(reject))),
        }
        if let Some(channel) = channel {
            messages.push(ToShard::One(channel, Input::Decided { channel, taken }));
        }
        messages
    }

    fn decide(
        &mut self,
        act: Act,
        author: Option<Authorship>,
        channel: Option<&super::books::ChannelFacts>,
        refund: Option<&RefundContext>,
        certificate: Option<&SignedCertificate>,
    ) -> Result<Outcome, Reject> {
        let time = self.begin(self.time);
        let digest = act.digest(&self.hub);
        let context = Context { channel, refund, certificate };
        let outcome = self.books.act(&act, digest, context, (self.number, time))?;
        if matches!(outcome, Outcome::Applied(_)) {
            self.push_act(act, author, refund.copied());
        }
        Ok(outcome)
    }

    /// Says something after everything that is staged; at once when nothing is.
    pub fn say_refused(&mut self, reply: R, reject: Reject) {
        self.begin(self.time);
        self.say(reply, Pending::Said(Said::Refused(reject)));
    }

    fn say(&mut self, reply: R, pending: Pending) {
        if let Some(open) = self.open.as_mut() {
            open.pending.push((reply, pending));
        }
    }

    fn push_act(&mut self, act: Act, author: Option<Authorship>, context: Option<RefundContext>) -> u32 {
        let index = self.open.as_ref().map_or(0, |open| open.items.len());
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let blind = Blind::derive(&self.secret, self.chain, self.number, index);
        let act = ActRecord { blind, act, author, context };
        let hash = act.item(&self.hub);
        self.push(ItemRecord::Act(Box::new(act)), hash, Receipts::NONE)
    }

    fn push(&mut self, item: ItemRecord, hash: Hash, receipts: Receipts) -> u32 {
        let Some(open) = self.open.as_mut() else { unreachable!("an item is staged into an open commit") };
        assert!(open.items.len() < MAX_ITEMS, "a commit holds at most {MAX_ITEMS} items");
        open.hashes.push(hash);
        open.items.push(item);
        open.payments += receipts.leaves.len();
        open.receipts.push(receipts);
        u32::try_from(open.items.len() - 1).unwrap_or(u32::MAX)
    }

    /// Ends the open commit: its tree, its header, the hub's one signature. `None` when none is open.
    pub fn seal(&mut self) -> Option<Seal<R>> {
        #[cfg(feature = "planted-bugs")]
        if let Some(sealed) = self.answered.take() {
            return Some(Seal::Commit(sealed));
        }
        let open = self.open.take()?;
        if open.items.is_empty() {
            let words = open.pending.into_iter().filter_map(|(reply, pending)| match pending {
                Pending::Said(said) => Some((reply, said)),
                Pending::Taken(_) | Pending::Done(_) | Pending::Attached(..) => None,
            });
            return Some(Seal::Words(words.collect()));
        }
        assert!(self.books.ledger().is_balanced(), "invariant 3: what is owed must equal what is at the bank");
        let tree = Tree::new(open.hashes);
        let commit = Commit {
            hub: self.hub,
            chain: self.chain,
            number: self.number,
            time: open.time,
            history: self.history.root(),
            items: u32::try_from(open.items.len()).unwrap_or(u32::MAX),
            root: tree.root(),
        };
        let id = commit.id();
        let signed = SignedCommit { commit, signature: self.key.sign(&id) };
        self.history.push(id);
        self.number += 1;
        self.time = open.time;
        let record = Record { commit: signed, items: open.items };
        let payload = record.encode();
        let position = Position { chain: commit.chain, number: commit.number, id: id.0 };
        let proven = Arc::new(Proven::new(record, tree, open.receipts));
        let sealed = Sealed { position, payload, proven, pending: open.pending };
        #[cfg(feature = "planted-bugs")]
        if weir_protocol::planted::Bug::AnswerBeforeDurable.is_planted() && !sealed.pending.is_empty() {
            let words = say(sealed.pending, &sealed.proven);
            self.answered = Some(Sealed { pending: Vec::new(), ..sealed });
            return Some(Seal::Words(words));
        }
        Some(Seal::Commit(sealed))
    }
}
