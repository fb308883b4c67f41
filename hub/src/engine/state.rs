//! All of the hub's state at a commit, rebuilt from records: what recovery starts from, what a snapshot holds, and what an
//! audit recomputes. Judges every item again, by the functions that judged it live.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_protocol::act::{Act, Author, SignedAct};
use weir_protocol::amount::Time;
use weir_protocol::commit::{Commit, MAX_ITEMS, SignedCertificate};
use weir_protocol::id::{AccountId, HubId};
use weir_protocol::merkle::{Frontier, Tree};
use weir_protocol::reject::Reject;

use super::books::{Books, ChannelFacts, Context, Notice, Outcome, author_of};
use super::channel::{Channel, Image as ChannelImage, Owner};
use super::channels::{Channels, Done};
use super::record::{ActRecord, GroupRecord, ItemRecord, Record};
use super::shard::check_payee;

/// Everything at one commit.
#[derive(Debug)]
pub struct State {
    hub: HubId,
    books: Books,
    channels: Channels,
    history: Frontier,
    last: Option<Commit>,
}

/// What a record is checked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The rules and the sums: what recovery needs, the journal's checksums having passed.
    Rules,
    /// Every hash and every signature as well: an audit.
    Everything,
}

/// A record that does not follow from what came before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("commit {commit}: {what}")]
pub struct Broken {
    /// Its number.
    pub commit: u64,
    /// What is wrong.
    pub what: String,
}

/// What a snapshot says before the channels.
#[derive(Serialize, Deserialize)]
struct Image<'a> {
    hub: HubId,
    books: Cow<'a, Books>,
    history: Cow<'a, Frontier>,
    last: Option<Commit>,
    channels: u64,
}

impl State {
    /// Before the first commit.
    pub fn new(hub: HubId) -> Self {
        Self { hub, books: Books::new(hub), channels: Channels::default(), history: Frontier::default(), last: None }
    }

    /// The hub.
    pub const fn hub(&self) -> HubId {
        self.hub
    }

    /// Accounts, money, windows.
    pub const fn books(&self) -> &Books {
        &self.books
    }

    /// Notes every posting from now on, for a report.
    pub fn record_postings(&mut self) {
        self.books.ledger_mut().record();
    }

    /// The postings noted since they were last taken, in order.
    pub fn take_postings(&mut self) -> Vec<super::ledger::Posting> {
        self.books.ledger_mut().take_postings()
    }

    /// Channels.
    pub const fn channels(&self) -> &Channels {
        &self.channels
    }

    /// The last commit.
    pub const fn last(&self) -> Option<&Commit> {
        self.last.as_ref()
    }

    /// The ids of all commits.
    pub const fn history(&self) -> &Frontier {
        &self.history
    }

    /// Takes the state apart, for the committer and the shards.
    pub fn into_parts(self) -> (Books, Channels, Frontier, Option<Commit>) {
        #[cfg(feature = "planted-bugs")]
        let this = {
            let mut this = self;
            if weir_protocol::planted::Bug::VoidForgotten.is_planted() {
                this.channels.forget_voids();
            }
            this
        };
        #[cfg(feature = "planted-bugs")]
        return (this.books, this.channels, this.history, this.last);
        #[cfg(not(feature = "planted-bugs"))]
        (self.books, self.channels, self.history, self.last)
    }

    /// Writes the content of a snapshot: parts, each a length in 8 bytes and that much postcard. The first says everything
    /// but the channels, and how many they are; one for each channel follows, by id. The same state gives the same bytes.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let image = Image {
            hub: self.hub,
            books: Cow::Borrowed(&self.books),
            history: Cow::Borrowed(&self.history),
            last: self.last,
            channels: self.channels.len() as u64,
        };
        let mut buffer = Vec::new();
        write_part(&image, &mut buffer, out)?;
        for channel in self.channels.iter() {
            write_part(&channel.image(), &mut buffer, out)?;
        }
        Ok(())
    }

    /// From the content of a snapshot; `None` when it is not one. Channels are taken over as they are read.
    pub fn read(mut input: impl Read) -> io::Result<Option<Self>> {
        let mut buffer = Vec::new();
        let Some(image) = read_part::<Image<'_>>(&mut buffer, &mut input)? else { return Ok(None) };
        buffer = Vec::new();
        let mut owners: HashMap<AccountId, Arc<Owner>> = HashMap::new();
        let mut failed = None;
        let next = |_| match read_part::<ChannelImage>(&mut buffer, &mut input) {
            Ok(Some(channel)) => {
                let owner = Owner { hub: image.hub, account: channel.account };
                let owner = owners.entry(owner.account).or_insert_with(|| Arc::new(owner));
                Some((channel.id, Channel::from_image(channel, Arc::clone(owner))))
            }
            Ok(None) => {
                failed = Some(Ok(None));
                None
            }
            Err(error) => {
                failed = Some(Err(error));
                None
            }
        };
        let channels: Channels = (0..image.channels).map_while(next).collect();
        if let Some(failed) = failed {
            return failed;
        }
        if input.read(&mut [0])? != 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            hub: image.hub,
            books: image.books.into_owned(),
            channels,
            history: image.history.into_owned(),
            last: image.last,
        }))
    }

    /// The content of a snapshot, in memory.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to memory cannot fail for these types: none has an unknown length.
        let written = self.write(&mut bytes);
        debug_assert!(written.is_ok(), "{written:?}");
        bytes
    }

    /// From the content of a snapshot in memory; `None` when it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::read(bytes).ok().flatten()
    }

    /// Applies the next record. After an error the state must not be used.
    pub fn apply(&mut self, record: &Record, depth: Depth) -> Result<(), Broken> {
        let number = record.header().number;
        self.follow(record, depth).map_err(|what| Broken { commit: number, what })
    }

    fn follow(&mut self, record: &Record, depth: Depth) -> Result<(), String> {
        let header = *record.header();
        let expected = self.last.map_or(0, |last| last.number) + 1;
        if header.hub != self.hub {
            return Err("is of another hub".into());
        }
        if header.number != expected {
            return Err(format!("follows commit {}", expected - 1));
        }
        if self.last.is_some_and(|last| header.time < last.time || header.chain < last.chain) {
            return Err("its time or chain is before its predecessor's".into());
        }
        if header.history != self.history.root() {
            return Err("its history is not the commits before it".into());
        }
        if record.items.is_empty() || record.items.len() > MAX_ITEMS || header.items as usize != record.items.len() {
            return Err("its count of items is wrong".into());
        }
        self.check_chain(record)?;
        let mut hashes = Vec::new();
        for (item, index) in record.items.iter().zip(0_usize..) {
            self.books.ledger_mut().at_item(u32::try_from(index).unwrap_or(u32::MAX));
            let last = index + 1 == record.items.len();
            let applied = match item {
                ItemRecord::Group(group) => self.group(group, header.time, depth),
                ItemRecord::Act(act) => self.act(act, &header, last, depth),
            };
            applied.map_err(|reject| format!("item {index} breaks a rule: {reject}"))?;
            if depth == Depth::Everything {
                hashes.push(item.hash(&self.hub));
            }
        }
        if !self.books.ledger().is_balanced() {
            return Err("its ledger does not balance".into());
        }
        if depth == Depth::Everything {
            self.check_proofs(record, hashes)?;
        }
        self.history.push(header.id());
        self.last = Some(header);
        Ok(())
    }

    /// The first commit of a chain opens with the act that says where it goes on.
    fn check_chain(&self, record: &Record) -> Result<(), String> {
        let new_chain = self.last.is_none_or(|last| last.chain != record.header().chain);
        let opening = match record.items.first() {
            Some(ItemRecord::Act(act)) => match &act.act {
                Act::Chain(chain) => Some(chain),
                _ => None,
            },
            _ => None,
        };
        match (new_chain, opening) {
            (false, None) => Ok(()),
            (true, Some(chain)) => {
                let kept = self
                    .last
                    .map_or((0, 0, weir_protocol::hash::Hash::ZERO), |last| (last.chain, last.number, last.id()));
                if (chain.previous_chain, chain.kept_number, chain.kept_id) == kept {
                    Ok(())
                } else {
                    Err("its chain goes on from another commit".into())
                }
            }
            (true, None) => Err("a chain begins without the act that opens it".into()),
            (false, Some(_)) => Err("a chain is opened twice".into()),
        }
    }

    fn check_proofs(&self, record: &Record, hashes: Vec<weir_protocol::hash::Hash>) -> Result<(), String> {
        let header = record.header();
        if Tree::new(hashes).root() != header.root {
            return Err("its root is not that of its items".into());
        }
        let certificate = self.books.certificate_at(header.time).ok_or("no certificate covers it")?;
        record.commit.check(&self.hub, &certificate.certificate).map_err(|error| error.to_string())?;
        if self.books.ledger().recompute() != *self.books.ledger().sums() {
            return Err("its sums are not those of the balances".into());
        }
        Ok(())
    }

    fn group(&mut self, record: &GroupRecord, time: Time, depth: Depth) -> Result<(), Reject> {
        let (channel, lane, _) = self.channels.lane(&record.lane).ok_or(Reject::UnknownLane)?;
        if channel.closed().is_some() {
            return Err(Reject::Closed);
        }
        if channel.currency() != record.currency {
            return Err(Reject::Currency);
        }
        let payer = self.books.account(&channel.account()).map(|account| account.standing);
        let frozen = payer.is_none_or(|payer| payer.frozen_outgoing);
        let payment_max = payer.unwrap_or_default().payment_max(self.books.policy().payment_max);
        let bounds = channel.bounds(lane, time, frozen, payment_max);
        let key = match depth {
            Depth::Everything => Some(lane.key().parse().map_err(|_| Reject::Signature)?),
            Depth::Rules => None,
        };
        let books = &self.books;
        let group = lane
            .judge_recorded(&record.runs, &record.head, &record.signature, &bounds, key.as_ref(), &mut |payee| {
                check_payee(books.account(payee).map(|account| &account.standing))
            })
            .map_err(|fault| fault.reject)?;
        let effect = self.channels.apply_group(&record.lane, &group, time)?;
        self.books.post(&effect);
        Ok(())
    }

    fn act(&mut self, record: &ActRecord, header: &Commit, last: bool, depth: Depth) -> Result<(), Reject> {
        let act = &record.act;
        let digest = act.digest(&self.hub);
        if matches!(act, Act::Cutoff(_)) && !last {
            return Err(Reject::Malformed);
        }
        if depth == Depth::Everything {
            self.check_author(record)?;
        }
        let key = record.author.map(|author| author.key);
        match act {
            Act::Grant(_) | Act::Revoke(_) | Act::Void(_) | Act::Close(_) | Act::Roll(_) => {
                self.channel_act(act, digest, key, header.time)
            }
            Act::CloseRequest(request) => {
                let channel = self.channels.get(&request.channel).ok_or(Reject::UnknownChannel)?;
                let facts = ChannelFacts::from(channel);
                if key == Some(facts.account.key()) && key != Some(channel.key()) {
                    self.books_act(record, digest, Some(&facts), header)?;
                }
                self.channel_act(act, digest, key, header.time)
            }
            Act::Amend(amend) => {
                let channel = self.channels.get(&amend.channel).ok_or(Reject::UnknownChannel)?;
                let facts = ChannelFacts::from(channel);
                self.books_act(record, digest, Some(&facts), header)
            }
            _ => self.books_act(record, digest, None, header),
        }
    }

    fn channel_act(
        &mut self,
        act: &Act,
        digest: weir_protocol::hash::Hash,
        key: Option<weir_protocol::keys::PublicKey>,
        time: Time,
    ) -> Result<(), Reject> {
        match self.channels.act(act, digest, key, time)? {
            Done::Staged(holds, effect) if holds.at(time) => {
                self.books.post(&effect);
                Ok(())
            }
            Done::Staged(..) => Err(Reject::Expired),
            Done::Again => Err(Reject::Stale),
        }
    }

    fn books_act(
        &mut self,
        record: &ActRecord,
        digest: weir_protocol::hash::Hash,
        channel: Option<&ChannelFacts>,
        header: &Commit,
    ) -> Result<(), Reject> {
        let certificate = match (&record.act, record.author) {
            (Act::Certificate(certificate), Some(author)) => {
                Some(SignedCertificate { certificate: *certificate, signature: author.signature })
            }
            _ => None,
        };
        let context = Context { channel, refund: record.context.as_ref(), certificate: certificate.as_ref() };
        match self.books.act(&record.act, digest, context, (header.number, header.time))? {
            Outcome::Again => Err(Reject::Stale),
            Outcome::Applied(notice) => self.notice(notice.as_ref()),
        }
    }

    fn notice(&mut self, notice: Option<&Notice>) -> Result<(), Reject> {
        match notice {
            Some(Notice::Opened(terms)) => {
                self.channels.open(*terms);
                Ok(())
            }
            Some(Notice::Amended(amend)) => self.channels.amend(amend),
            Some(Notice::Standing(..) | Notice::Policy(_)) | None => Ok(()),
        }
    }

    /// Whether an act is signed by the key that its record names, and that key is its author's.
    fn check_author(&self, record: &ActRecord) -> Result<(), Reject> {
        match (record.act.author(), record.author) {
            (Author::Hub, None) => Ok(()),
            (Author::Identity, Some(author)) if author.key == self.hub.key() => Ok(()),
            (Author::Operator(key), Some(author)) => {
                let signed = author.key == key && key.verify(&record.act.digest(&self.hub), &author.signature);
                if signed { Ok(()) } else { Err(Reject::Unauthenticated) }
            }
            (Author::Hub | Author::Identity, _) | (_, None) => Err(Reject::Unauthenticated),
            (whose, Some(author)) => {
                let channel = match whose {
                    Author::Channel(id) | Author::ChannelOwner(id) | Author::ChannelOrOwner(id) => {
                        Some(self.channels.get(&id).ok_or(Reject::UnknownChannel)?)
                    }
                    _ => None,
                };
                let payee = record.context.as_ref().map(|context| context.payee);
                let signed = SignedAct { act: record.act.clone(), signature: author.signature };
                let (_, key) = author_of(&self.hub, &signed, channel, payee)?;
                if key == author.key { Ok(()) } else { Err(Reject::Unauthenticated) }
            }
        }
    }
}

fn write_part<T: Serialize>(part: &T, buffer: &mut Vec<u8>, out: &mut dyn Write) -> io::Result<()> {
    buffer.clear();
    *buffer = postcard::to_extend(part, core::mem::take(buffer)).map_err(io::Error::other)?;
    out.write_all(&(buffer.len() as u64).to_le_bytes())?;
    out.write_all(buffer)
}

/// `None` when what comes is not a part.
fn read_part<T: for<'a> Deserialize<'a>>(buffer: &mut Vec<u8>, input: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 8];
    let read = input.read_exact(&mut length).and_then(|()| {
        buffer.clear();
        // Memory grows with what there is, not with what was announced.
        input.take(u64::from_le_bytes(length)).read_to_end(buffer)
    });
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
        Ok(read) if read as u64 == u64::from_le_bytes(length) => Ok(postcard::from_bytes(buffer).ok()),
        Ok(_) => Ok(None),
    }
}
