//! A credit stream: what pays one account, from a cursor on, first from the journal and then as it becomes durable.
//!
//! A subscriber that is too slow for the live feed is served from the journal again; it holds up nobody.

use std::ops::ControlFlow;
use std::sync::Arc;

use quinn::SendStream;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use weir_protocol::amount::Time;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::id::AccountId;
use weir_protocol::merkle::Tree;
use weir_protocol::payment::payment_id;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{Credit, CreditGroup, CreditMessage, Cursor, Subscribe, encode};

use super::connection::Peer;
use super::framing::{Messages, append};
use super::{Shared, code, lookup};
use crate::engine::record::Proven;
use crate::engine::said::About;
use crate::pipeline::recover::index_key;
use crate::store::Entry;

/// Bytes of credits after which a page from the journal ends, at the end of a commit.
const PAGE_BYTES: usize = 256 * 1024;

/// Why a subscription ends.
enum End {
    /// The peer is gone, or wants nothing more.
    Lost,
    /// It is refused.
    Refused(Reject),
}

impl From<Reject> for End {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

/// Serves a credit stream after its opening.
pub(super) async fn serve(peer: Arc<Peer>, subscribe: Subscribe, mut send: SendStream, mut messages: Messages) {
    let mut feed = Feed { shared: Arc::clone(&peer.shared), account: subscribe.account, after: subscribe.after };
    let ended = tokio::select! {
        ended = run(&peer, &mut feed, &mut send) => ended,
        // The peer has nothing to say; a stream that it resets is one that it does not want.
        () = messages.drain() => End::Lost,
    };
    match ended {
        End::Refused(reject) => {
            let refused = encode(&CreditMessage::Refused(reject));
            if send.write_all(&refused).await.is_ok() {
                let _ = send.finish();
                let _ = send.stopped().await;
            }
        }
        End::Lost => {
            let _ = send.reset(code(Reject::Stopped));
        }
    }
}

async fn run(peer: &Peer, feed: &mut Feed, send: &mut SendStream) -> End {
    if let Err(reject) = peer.check_account(&feed.account) {
        return End::Refused(reject);
    }
    match feed.serve(send).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

struct Feed {
    shared: Arc<Shared>,
    account: AccountId,
    /// Everything up to here was sent.
    after: Cursor,
}

impl Feed {
    async fn serve(&mut self, send: &mut SendStream) -> Result<core::convert::Infallible, End> {
        let after = self.after;
        lookup::blocking(&self.shared, move |shared| lookup::check_cursor(shared, after)).await?;
        loop {
            let mut live = self.shared.handle.commits();
            self.catch_up(send).await?;
            self.follow(&mut live, send).await?;
        }
    }

    /// Sends what the journal has, through the newest commit at some moment after the call.
    async fn catch_up(&mut self, send: &mut SendStream) -> Result<(), End> {
        // Asked once: later, certificates are at hand.
        self.shared.certificate_at(Time(0)).await?;
        loop {
            let (account, after) = (self.account, self.after);
            let page = lookup::blocking(&self.shared, move |shared| page(shared, account, after)).await?;
            if page.after != self.after || !page.bytes.is_empty() || page.is_last {
                self.send(page.bytes, page.after, send).await?;
            }
            if page.is_last {
                return Ok(());
            }
        }
    }

    /// Sends what becomes durable, until it has to be read from the journal.
    async fn follow(&mut self, live: &mut Receiver<Arc<Proven>>, send: &mut SendStream) -> Result<(), End> {
        loop {
            let commit = match live.recv().await {
                Ok(commit) => commit,
                Err(RecvError::Lagged(_)) => return Ok(()),
                Err(RecvError::Closed) => return Err(Reject::Stopped.into()),
            };
            let place = Cursor::from(&commit.commit().commit);
            if place.number <= self.after.number {
                continue;
            }
            if !pays(&commit, &self.account) {
                continue;
            }
            let certificate = self.shared.certificate_at(commit.commit().commit.time).await?;
            let bytes = credits(&commit, &self.account, certificate);
            self.send(bytes, place, send).await?;
        }
    }

    /// Sends credits, and that everything up to a place was sent.
    async fn send(&mut self, mut bytes: Vec<u8>, through: Cursor, send: &mut SendStream) -> Result<(), End> {
        append(&CreditMessage::Through(through), &mut bytes);
        send.write_all(&bytes).await.map_err(|_| End::Lost)?;
        self.after = through;
        Ok(())
    }
}

struct Page {
    bytes: Vec<u8>,
    after: Cursor,
    is_last: bool,
}

/// Credits from the journal, in whole commits.
fn page(shared: &Shared, account: AccountId, after: Cursor) -> Result<Page, Reject> {
    let newest = shared.newest();
    let mut page = Page { bytes: Vec::new(), after, is_last: true };
    let mut failed = None;
    let each = &mut |entry: Entry| {
        if entry.position.number > newest.number {
            return ControlFlow::Break(());
        }
        if page.bytes.len() >= PAGE_BYTES {
            page.is_last = false;
            return ControlFlow::Break(());
        }
        match lookup::decode(&entry) {
            Err(reject) => failed = Some(reject),
            Ok(record) if record.groups().any(|(_, group)| group.pays(&account)) => {
                let commit = record.prove();
                match shared.known_certificate_at(commit.commit().commit.time) {
                    Ok(certificate) => page.bytes.append(&mut credits(&commit, &account, certificate)),
                    Err(reject) => failed = Some(reject),
                }
                page.after = lookup::cursor(entry.position);
            }
            Ok(_) => page.after = lookup::cursor(entry.position),
        }
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let read = shared.handle.index().commits_of(index_key(&About::Account(account)), after.number + 1, each);
    read.map_err(|error| lookup::refused(&error))?;
    if let Some(reject) = failed {
        return Err(reject);
    }
    if page.is_last {
        page.after = newest;
    }
    Ok(page)
}

fn pays(commit: &Proven, account: &AccountId) -> bool {
    commit.record.groups().any(|(_, group)| group.pays(account))
}

/// A commit's messages to one payee.
fn credits(commit: &Proven, account: &AccountId, certificate: SignedCertificate) -> Vec<u8> {
    let mut bytes = encode(&CreditMessage::Commit { commit: *commit.commit(), certificate });
    for (index, group) in commit.record.groups() {
        if !group.pays(account) {
            continue;
        }
        let (Some(receipts), Some(path)) = (commit.receipts.get(index as usize), commit.tree.path(index as usize))
        else {
            continue;
        };
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
        let proof = if credits.len() == receipts.leaves.len() {
            Vec::new()
        } else {
            let indices: Vec<u32> = credits.iter().map(|credit| credit.leaf).collect();
            Tree::new(receipts.leaves.clone()).multiproof(&indices)
        };
        let credited = CreditGroup {
            head: group.head.digest(&group.lane),
            count: group.count(),
            currency: group.currency,
            credits,
            proof,
            path,
        };
        append(&CreditMessage::Group(credited), &mut bytes);
    }
    bytes
}
