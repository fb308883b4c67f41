//! The hub's front: what clients say to the shards, what the engine says to clients, and what is read from the journal.

use std::sync::Arc;

use weir_hub::engine::record::{ItemRecord, Proven, RefundContext};
use weir_hub::engine::said::{About, Said};
use weir_hub::engine::shard::{Input, StreamId};
use weir_protocol::act::{Act, Refund, SignedAct};
use weir_protocol::id::{AccountId, LaneId};
use weir_protocol::merkle::Tree;
use weir_protocol::payment::payment_id;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{
    ClosedLane, Credit, CreditGroup, CreditMessage, Cursor, HistoryGroup, LaneReply, LaneRequest,
};

use super::{Hub, Subscription, To, Words};
use crate::note;
use crate::sim::cx::Cx;
use crate::sim::log::{Checked, Failure};
use crate::sim::net::{ConnId, Stream, ToClient, ToHub};

impl Hub {
    /// Indexes a durable commit for reading.
    pub(super) fn remember(&mut self, proven: Arc<Proven>) {
        let Some(running) = self.running.as_mut() else { return };
        let at = running.journal.len();
        for (item, index) in proven.record.items.iter().zip(0_u32..) {
            match item {
                ItemRecord::Group(group) => {
                    running.groups_of.entry(group.lane).or_default().push((group.head.sequence, at, index));
                }
                ItemRecord::Act(record) => {
                    running.acts.insert(record.act.digest(&self.id), (at, index));
                    if let Act::Close(close) = &record.act {
                        running.closes.insert(close.channel, (at, index));
                    }
                }
            }
        }
        running.journal.push(proven);
    }

    /// A client's message arrives.
    pub(crate) fn hear(&mut self, cx: &mut Cx, conn: ConnId, message: ToHub) -> Checked {
        match message {
            ToHub::Lane { stream, channel, lane, request } => {
                let proven = cx.net.get(conn).map(|conn| conn.owner) == cx.lane_owner.get(&lane).copied();
                if !proven {
                    let reply = LaneReply::Refused { reject: Reject::Unauthenticated, fault: 0 };
                    cx.tell_client(conn, stream, ToClient::Lane { stream, reply });
                    return Ok(());
                }
                let input = match request {
                    LaneRequest::Attach(attach) => {
                        if let Some(running) = self.running.as_mut() {
                            running.lanes_attached.insert(stream, (conn, lane, channel));
                        }
                        Input::Attach {
                            lane,
                            stream: StreamId(stream),
                            void_through: attach.void_through,
                            reply: To::Lane(conn, stream),
                        }
                    }
                    LaneRequest::Frame(frame) => {
                        // As a decoder does: what has a wrong shape never gets further.
                        if frame.run.check_shape().is_err() {
                            return Ok(());
                        }
                        Input::Frame { lane, stream: StreamId(stream), frame }
                    }
                };
                self.input(cx, &channel.0, input);
            }
            ToHub::LaneGone { stream, channel, lane } => {
                self.input(cx, &channel.0, Input::Gone { lane, stream: StreamId(stream) });
            }
            ToHub::Act { id, signed } => self.hear_act(cx, conn, id, signed),
            ToHub::History { id, lane, since } => {
                let group = self.history(&lane, since).map(Box::new);
                cx.tell_client(conn, 0, ToClient::History { id, group });
            }
            ToHub::Subscribe { stream, account, after } => self.subscribe(cx, conn, stream, account, &after)?,
        }
        Ok(())
    }

    fn hear_act(&mut self, cx: &mut Cx, conn: ConnId, id: u64, signed: Box<SignedAct>) {
        let (door, refund) = match &signed.act {
            Act::Grant(act) => (act.channel.0, None),
            Act::Revoke(act) => (act.channel.0, None),
            Act::Amend(act) => (act.channel.0, None),
            Act::CloseRequest(act) => (act.channel.0, None),
            Act::Register(act) => (*act.account.as_bytes(), None),
            Act::Withdraw(act) => (*act.account.as_bytes(), None),
            Act::Earnings(act) => (*act.account.as_bytes(), None),
            Act::Mandate(act) => (*act.account.as_bytes(), None),
            Act::Open(terms) => (*terms.account.as_bytes(), None),
            Act::Refund(refund) => {
                let Some(context) = self.payment(refund) else {
                    let reject = Reject::UnknownPayment;
                    return cx.tell_client(conn, 0, ToClient::Refused { id, reject });
                };
                (*context.payee.as_bytes(), Some(context))
            }
            _ => ([0; 32], None),
        };
        self.input(cx, &door, Input::Act { signed, refund, reply: To::Request(conn, id) });
    }

    /// The payment that a refund names, from the journal.
    fn payment(&self, refund: &Refund) -> Option<RefundContext> {
        let running = self.running.as_ref()?;
        let proven = running.journal.get(usize::try_from(refund.commit.checked_sub(1)?).ok()?)?;
        let commit = proven.commit().commit;
        let group = proven.group(refund.group)?;
        let (sequence, payment) = group.payments().nth(refund.leaf as usize)?;
        let fits = commit.chain == refund.chain && payment_id(&group.lane, sequence) == refund.payment_id;
        let payer = running.follower.channels().lane(&group.lane).map(|(channel, ..)| channel.account())?;
        fits.then_some(RefundContext {
            lane: group.lane,
            payer,
            payee: payment.payee,
            currency: group.currency,
            paid: payment.amount,
            paid_at: commit.time,
        })
    }

    fn history(&self, lane: &LaneId, since: u64) -> Option<HistoryGroup> {
        let running = self.running.as_ref()?;
        let (_, at, index) = running.groups_of.get(lane)?.iter().find(|(through, ..)| *through > since)?;
        let proven = running.journal.get(*at)?;
        let group = proven.group(*index)?;
        Some(HistoryGroup {
            payments: group.payments().collect(),
            head: group.head,
            signature: group.signature,
            answer: proven.answer(*index)?,
            certificate: self.certificate,
        })
    }

    /// Says what may be said.
    pub(super) fn speak(&mut self, cx: &mut Cx, words: Words) -> Checked {
        for (to, said) in words {
            if let Said::Taken { commit, .. } | Said::Attached { commit, .. } | Said::Done { commit, .. } = &said {
                let header = commit.commit().commit;
                cx.model.shown(header.number, &header.id())?;
            }
            match to {
                To::Lane(conn, stream) => self.speak_lane(cx, conn, stream, &said)?,
                To::Request(conn, id) => self.speak_request(cx, conn, id, &said)?,
                To::Operator => {
                    if let Said::Refused(reject) = said {
                        note!(cx, "operator is refused: {reject}");
                    }
                }
            }
        }
        Ok(())
    }

    fn speak_lane(&mut self, cx: &mut Cx, conn: ConnId, stream: Stream, said: &Said) -> Checked {
        let reply = match said {
            Said::LaneClosed { close, head, signature, path } => {
                let found = self.act_at(|running| running.closes.get(&close.channel).copied());
                let (_, proof) = found.ok_or_else(|| Failure("a close was told before it was durable".into()))?;
                Some(LaneReply::Closed(Box::new(ClosedLane {
                    close: *close,
                    proof: *proof,
                    head: *head,
                    signature: *signature,
                    path: path.clone(),
                })))
            }
            Said::Hangup => {
                cx.cut(conn);
                None
            }
            other => other.lane_reply(),
        };
        if let Some(reply) = reply {
            cx.tell_client(conn, stream, ToClient::Lane { stream, reply });
        }
        Ok(())
    }

    fn speak_request(&mut self, cx: &mut Cx, conn: ConnId, id: u64, said: &Said) -> Checked {
        let message = match said {
            Said::Done { commit, index } => {
                let missing = || Failure("an answer without its act".into());
                let act = commit.act(*index).ok_or_else(missing)?.act.clone();
                let proof = commit.act_proof(*index).ok_or_else(missing)?;
                ToClient::Done { id, act: Box::new(act), proof: Box::new(proof) }
            }
            Said::Again(again) => {
                let found = self.act_at(|running| {
                    let asked = running.acts.get(&again.digest).copied()?;
                    let closed = match again.about {
                        About::Channel(channel) => running.closes.get(&channel).copied(),
                        _ => None,
                    };
                    let is_request = running
                        .journal
                        .get(asked.0)
                        .and_then(|proven| proven.act(asked.1))
                        .is_some_and(|record| matches!(record.act, Act::CloseRequest(_)));
                    if is_request { closed } else { Some(asked) }
                });
                match found {
                    Some((act, proof)) => ToClient::Done { id, act, proof },
                    // The close that answers the request is on its way.
                    None => ToClient::Refused { id, reject: Reject::Busy },
                }
            }
            Said::Refused(reject) => ToClient::Refused { id, reject: *reject },
            other => return Err(Failure(format!("a request is answered with {other:?}"))),
        };
        cx.tell_client(conn, 0, message);
        Ok(())
    }

    fn act_at(
        &self,
        find: impl FnOnce(&super::Running) -> Option<(usize, u32)>,
    ) -> Option<(Box<Act>, Box<weir_protocol::commit::ActProof>)> {
        let running = self.running.as_ref()?;
        let (at, index) = find(running)?;
        let proven = running.journal.get(at)?;
        Some((Box::new(proven.act(index)?.act.clone()), Box::new(proven.act_proof(index)?)))
    }

    /// The hub's end of a connection is gone.
    pub(crate) fn forget(&mut self, cx: &mut Cx, conn: ConnId) {
        let Some(running) = self.running.as_mut() else { return };
        running.subscriptions.retain(|(of, _), _| *of != conn);
        let gone: Vec<_> = running
            .lanes_attached
            .iter()
            .filter(|(_, (of, ..))| *of == conn)
            .map(|(stream, (_, lane, channel))| (*stream, *lane, *channel))
            .collect();
        for (stream, lane, channel) in gone {
            if let Some(running) = self.running.as_mut() {
                running.lanes_attached.remove(&stream);
            }
            self.input(cx, &channel.0, Input::Gone { lane, stream: StreamId(stream) });
        }
    }

    fn subscribe(&mut self, cx: &mut Cx, conn: ConnId, stream: Stream, account: AccountId, after: &Cursor) -> Checked {
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        let after = super::after(after);
        running.subscriptions.insert((conn, stream), Subscription { account, after });
        let from = usize::try_from(after).unwrap_or(usize::MAX);
        let missed: Vec<_> = running.journal.iter().skip(from).cloned().collect();
        for proven in missed {
            self.credit(cx, &proven)?;
        }
        Ok(())
    }

    /// Sends subscribed payees their payments of a commit.
    pub(super) fn credit(&mut self, cx: &mut Cx, proven: &Proven) -> Checked {
        let certificate = self.certificate;
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        let commit = *proven.commit();
        cx.model.shown(commit.commit.number, &commit.commit.id())?;
        for ((conn, stream), subscription) in &mut running.subscriptions {
            if subscription.after + 1 != commit.commit.number {
                continue;
            }
            subscription.after = commit.commit.number;
            let groups = credits(proven, &subscription.account);
            if groups.is_empty() && !cx.rng.once_in(8) {
                continue;
            }
            let mut say = |message| {
                let message = ToClient::Credit { stream: *stream, message: Box::new(message) };
                cx.tell_client(*conn, *stream, message);
            };
            if !groups.is_empty() {
                say(CreditMessage::Commit { commit, certificate });
            }
            for group in groups {
                say(CreditMessage::Group(group));
            }
            say(CreditMessage::Through(Cursor::from(&commit.commit)));
        }
        Ok(())
    }
}

fn credits(proven: &Proven, account: &AccountId) -> Vec<CreditGroup> {
    let mut found = Vec::new();
    for (index, group) in proven.record.groups().filter(|(_, group)| group.pays(account)) {
        let credits: Vec<Credit> = group
            .payments()
            .zip(0_u32..)
            .filter(|((_, payment), _)| payment.payee == *account)
            .map(|((sequence, payment), leaf)| Credit {
                leaf,
                payment_id: payment_id(&group.lane, sequence),
                amount: payment.amount,
                reference: payment.reference,
            })
            .collect();
        let leaves = proven.receipts.get(index as usize).map_or_else(Vec::new, |receipts| receipts.leaves.clone());
        let indices: Vec<u32> = credits.iter().map(|credit| credit.leaf).collect();
        let Some(path) = proven.tree.path(index as usize) else { continue };
        found.push(CreditGroup {
            head: group.head.digest(&group.lane),
            count: group.count(),
            currency: group.currency,
            credits,
            proof: Tree::new(leaves).multiproof(&indices),
            path,
        });
    }
    found
}
