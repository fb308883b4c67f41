//! One connection: the keys that its peer has proven, what they entitle it to, and its streams.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::{Notify, Semaphore};
use weir_protocol::id::{AccountId, ChannelId, LaneId};
use weir_protocol::keys::{PublicKey, Signature};
use weir_protocol::reject::Reject;
use weir_protocol::wire::{KeyScope, MAX_REQUEST, Nonce, Opening, decode, hello_digest};

use super::answers::Answers;
use super::framing::{Broken, Messages, reset};
use super::rates::{Kind, Who};
use super::{Shared, code, control, credit, lane};
use crate::engine::said::{Facts, Query};

/// Whose a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneOwner {
    pub(super) channel: ChannelId,
    pub(super) account: AccountId,
}

/// The keys that were proven.
#[derive(Debug, Default)]
struct Keys {
    accounts: HashSet<AccountId>,
    channels: HashMap<ChannelId, AccountId>,
    lanes: HashMap<LaneId, LaneOwner>,
}

/// What a proof that holds shows.
enum Shown {
    Account(AccountId),
    Channel(ChannelId, AccountId),
    Lane(LaneId, LaneOwner),
}

/// The other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) shared: Arc<Shared>,
    pub(super) quinn: Connection,
    pub(super) nonce: Nonce,
    /// As it is counted.
    pub(super) address: IpAddr,
    /// Requests that may still be taken.
    pub(super) requests: Arc<Semaphore>,
    /// Those with large replies.
    pub(super) large_requests: Arc<Semaphore>,
    has_control: AtomicBool,
    /// From the first lane on.
    answers: OnceLock<Answers>,
    keys: Mutex<Keys>,
    /// Streams that the peer may have open; none have been given beyond what every connection has.
    room: Mutex<u32>,
    bad_proofs: AtomicU32,
    /// Streams that are open.
    streams: AtomicUsize,
    is_vouched: AtomicBool,
    vouched: Notify,
    /// Wakes attaches that came before the proof of their lane's key.
    proven: Notify,
}

/// Serves a connection until it ends.
pub(super) async fn serve(shared: Arc<Shared>, quinn: Connection, address: IpAddr) {
    let mut nonce = Nonce::ZERO;
    if getrandom::fill(&mut nonce.0).is_err() {
        quinn.close(code(Reject::Stopped), b"");
        return;
    }
    let limits = shared.limits;
    let peer = Arc::new(Peer {
        shared,
        quinn,
        nonce,
        address,
        requests: Arc::new(Semaphore::new(limits.requests)),
        large_requests: Arc::new(Semaphore::new(limits.large_requests)),
        has_control: AtomicBool::new(false),
        answers: OnceLock::new(),
        keys: Mutex::new(Keys::default()),
        room: Mutex::new(limits.streams_before_proof),
        bad_proofs: AtomicU32::new(0),
        streams: AtomicUsize::new(0),
        is_vouched: AtomicBool::new(false),
        vouched: Notify::new(),
        proven: Notify::new(),
    });
    tokio::spawn(Arc::clone(&peer).end_unless_vouched());
    while let Ok((send, recv)) = peer.quinn.accept_bi().await {
        let open = OpenStream::new(&peer);
        peer.make_room();
        tokio::spawn(serve_stream(open, send, recv));
    }
}

/// A stream, as it is counted while somebody holds this.
pub(super) struct OpenStream(Arc<Peer>);

impl OpenStream {
    fn new(peer: &Arc<Peer>) -> Self {
        peer.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(peer))
    }

    fn peer(&self) -> Arc<Peer> {
        Arc::clone(&self.0)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Hears what a stream is to be, and leaves it to a task of its own: this one's memory, enough for any kind, goes.
async fn serve_stream(open: OpenStream, mut send: SendStream, recv: RecvStream) {
    let peer = open.peer();
    let mut messages = Messages::new(recv);
    let opening = match messages.next(MAX_REQUEST).await {
        Ok(Some(body)) => decode::<Opening>(body).map_err(|_| Reject::Malformed),
        Ok(None) | Err(Broken::Framing(_)) => Err(Reject::Malformed),
        Err(Broken::Lost) => return,
    };
    match opening {
        Ok(Opening::Control { version }) if version > 0 && !peer.has_control.swap(true, Ordering::Relaxed) => {
            tokio::spawn(counted(open, control::serve(peer, send, messages)));
        }
        Ok(Opening::Control { .. }) => reset(&mut send, &mut messages, Reject::Unsupported),
        Ok(Opening::Lane(attach)) => {
            tokio::spawn(counted(open, lane::serve(peer, attach, send, messages)));
        }
        Ok(Opening::Credit(subscribe)) => {
            tokio::spawn(counted(open, credit::serve(peer, subscribe, send, messages)));
        }
        Err(reject) => reset(&mut send, &mut messages, reject),
    }
}

async fn counted(open: OpenStream, serves: impl Future<Output = ()>) {
    serves.await;
    drop(open);
}

impl Peer {
    /// Ends a connection whose peer shows no key and no act in time.
    async fn end_unless_vouched(self: Arc<Self>) {
        tokio::select! {
            () = tokio::time::sleep(self.shared.limits.proof_timeout) => {
                if !self.is_vouched.load(Ordering::Relaxed) {
                    self.quinn.close(code(Reject::Unauthenticated), b"");
                }
            }
            () = self.vouched.notified() => {}
            _ = self.quinn.closed() => {}
        }
    }

    /// The way out of all its lanes.
    pub(super) fn answers(&self) -> &Answers {
        self.answers.get_or_init(|| Answers::start(Arc::clone(&self.shared), self.quinn.clone()))
    }

    /// The peer has shown that it is somebody: its time is no longer counted.
    pub(super) fn vouch(&self) {
        if !self.is_vouched.swap(true, Ordering::Relaxed) {
            self.vouched.notify_one();
        }
    }

    /// Checks a proof of a key, and gives the connection what a proven one has.
    pub(super) async fn prove(&self, scope: KeyScope, key: PublicKey, signature: Signature) -> Result<(), Reject> {
        self.shared.rates.take(Kind::Proof, Who::Address(self.address))?;
        let proven = match self.expected(scope, key).await {
            Ok(shown) => self.check(scope, key, signature).await.map(|()| shown),
            Err(reject) => Err(reject),
        };
        match proven {
            Ok(shown) => {
                self.keep(&shown)?;
                self.widen();
                self.vouch();
                self.proven.notify_waiters();
                self.make_room();
                Ok(())
            }
            Err(Reject::Unauthenticated) => {
                if self.bad_proofs.fetch_add(1, Ordering::Relaxed) >= self.shared.limits.bad_proofs {
                    self.quinn.close(code(Reject::Unauthenticated), b"");
                }
                Err(Reject::Unauthenticated)
            }
            Err(reject) => Err(reject),
        }
    }

    /// Whether the key is the one in force for the scope. What does not exist is refused like a wrong key, so that nobody
    /// learns what exists.
    async fn expected(&self, scope: KeyScope, key: PublicKey) -> Result<Shown, Reject> {
        let handle = &self.shared.handle;
        let (known, shown) = match scope {
            KeyScope::Account(account) => (account.key(), Shown::Account(account)),
            KeyScope::Channel(channel) => {
                match handle.ask(handle.shard_of(&channel.0), Query::Channel(channel)).await {
                    Ok(Facts::Channel(info)) => (info.terms.key, Shown::Channel(channel, info.terms.account)),
                    Ok(_) | Err(Reject::UnknownChannel) => return Err(Reject::Unauthenticated),
                    Err(reject) => return Err(reject),
                }
            }
            KeyScope::Lane(id) => match handle.ask_lane(id).await {
                Ok(Facts::Lane { channel, account, lane, .. }) => {
                    (lane.grant.key, Shown::Lane(id, LaneOwner { channel, account }))
                }
                Ok(_) | Err(Reject::UnknownLane) => return Err(Reject::Unauthenticated),
                Err(reject) => return Err(reject),
            },
        };
        if known == key { Ok(shown) } else { Err(Reject::Unauthenticated) }
    }

    /// The signature, away from the tasks that move bytes.
    async fn check(&self, scope: KeyScope, key: PublicKey, signature: Signature) -> Result<(), Reject> {
        let digest = hello_digest(&self.shared.handle.hub(), &key, &scope, self.shared.tls.spki(), &self.nonce);
        let verified = tokio::task::spawn_blocking(move || key.verify(&digest, &signature)).await;
        if verified.map_err(|_| Reject::Stopped)? { Ok(()) } else { Err(Reject::Unauthenticated) }
    }

    fn keep(&self, shown: &Shown) -> Result<(), Reject> {
        let mut keys = self.keys();
        if keys.accounts.len() + keys.channels.len() + keys.lanes.len() >= self.shared.limits.keys {
            return Err(Reject::Busy);
        }
        match shown {
            Shown::Account(account) => {
                keys.accounts.insert(*account);
            }
            Shown::Channel(channel, account) => {
                keys.channels.insert(*channel, *account);
            }
            Shown::Lane(lane, owner) => {
                keys.lanes.insert(*lane, *owner);
            }
        }
        Ok(())
    }

    /// The limits of a peer that has proven a key.
    fn widen(&self) {
        let limits = &self.shared.limits;
        self.quinn.set_receive_window(VarInt::from_u32(limits.window));
        self.quinn.set_send_window(u64::from(limits.window));
    }

    /// Lets a peer that has proven a key have twice as many streams once it uses half of those that it may have. QUIC
    /// keeps memory for each stream that may come: most connections never need more than they begin with.
    fn make_room(&self) {
        let most = self.shared.limits.streams;
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = self.streams.load(Ordering::Relaxed).saturating_mul(2);
        if needed < *room as usize || *room >= most || self.check_any().is_err() {
            return;
        }
        while needed >= *room as usize && *room < most {
            *room = room.saturating_mul(2).min(most);
        }
        self.quinn.set_max_concurrent_bi_streams(VarInt::from_u32(*room));
    }

    /// Whether the account's key was proven.
    pub(super) fn check_account(&self, account: &AccountId) -> Result<(), Reject> {
        if self.keys().accounts.contains(account) { Ok(()) } else { Err(Reject::Unauthenticated) }
    }

    /// Whether the account's or the channel's key was proven.
    pub(super) fn check_channel(&self, channel: &ChannelId, account: &AccountId) -> Result<(), Reject> {
        let keys = self.keys();
        let entitled = keys.accounts.contains(account) || keys.channels.contains_key(channel);
        if entitled { Ok(()) } else { Err(Reject::Unauthenticated) }
    }

    /// Whether the account's, the channel's, or one of the channel's lanes' keys was proven.
    pub(super) fn check_channel_or_lane(&self, channel: &ChannelId, account: &AccountId) -> Result<(), Reject> {
        self.check_channel(channel, account).or_else(|reject| {
            let has_lane = self.keys().lanes.values().any(|owner| owner.channel == *channel);
            if has_lane { Ok(()) } else { Err(reject) }
        })
    }

    /// Whether the account's, the channel's or the lane's key was proven.
    pub(super) fn check_lane(&self, lane: &LaneId, owner: &LaneOwner) -> Result<(), Reject> {
        self.check_channel(&owner.channel, &owner.account).or_else(|_| self.lane(lane).map(drop))
    }

    /// Whose the lane is, if the lane's own key was proven.
    pub(super) fn lane(&self, lane: &LaneId) -> Result<LaneOwner, Reject> {
        self.keys().lanes.get(lane).copied().ok_or(Reject::Unauthenticated)
    }

    /// The same for an attach, which may have overtaken the proof that was sent before it: waits a little.
    pub(super) async fn attaching_lane(&self, lane: &LaneId) -> Result<LaneOwner, Reject> {
        let proven = async {
            loop {
                let more = self.proven.notified();
                tokio::pin!(more);
                // Before looking, so that a proof in between is not missed.
                more.as_mut().enable();
                if let Ok(owner) = self.lane(lane) {
                    return owner;
                }
                more.await;
            }
        };
        let limit = self.shared.limits.proof_wait;
        tokio::time::timeout(limit, proven).await.map_err(|_| Reject::Unauthenticated)
    }

    /// Whether any key was proven at all: before, nothing is asked of a shard on the peer's behalf.
    pub(super) fn check_any(&self) -> Result<(), Reject> {
        let keys = self.keys();
        let none = keys.accounts.is_empty() && keys.channels.is_empty() && keys.lanes.is_empty();
        if none { Err(Reject::Unauthenticated) } else { Ok(()) }
    }

    /// Who is counted for an act of a channel: its account if that is known, else the address.
    pub(super) fn counted_for(&self, channel: &ChannelId) -> Who {
        let keys = self.keys();
        let by_lane = || keys.lanes.values().find(|owner| owner.channel == *channel).map(|owner| owner.account);
        let account = keys.channels.get(channel).copied().or_else(by_lane);
        account.map_or(Who::Address(self.address), Who::Account)
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
