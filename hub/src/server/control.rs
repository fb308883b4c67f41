//! The control stream: the welcome, then requests in, replies out in any order.

use std::sync::Arc;

use quinn::SendStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use weir_protocol::amount::Time;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{MAX_REQUEST, Reply, ReplyMessage, Request, RequestMessage, VERSION, Welcome, encode};

use super::connection::Peer;
use super::framing::{Broken, Messages, decode_request, is_large};
use super::{acts, code, proofs, reads, statement};
use crate::clock::wall_ms;

/// Bytes of replies that are written at once.
const BATCH_BYTES: usize = 64 * 1024;

/// What the writer does. A reply keeps its permits until it is written, so a peer that does not read is not served.
enum Out {
    /// Boxed: a queue keeps room for many, and mostly holds none.
    Reply(Box<Written>),
    Reset(Reject),
}

struct Written {
    bytes: Vec<u8>,
    permits: Permits,
}

type Permits = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// Serves the control stream after its opening.
pub(super) async fn serve(peer: Arc<Peer>, mut send: SendStream, mut messages: Messages) {
    if send.write_all(&encode(&welcome(&peer))).await.is_err() {
        return;
    }
    let (replies, outgoing) = mpsc::unbounded_channel();
    let reader = read(&peer, &mut messages, replies);
    tokio::join!(reader, write(send, outgoing));
}

fn welcome(peer: &Peer) -> Welcome {
    let shared = &peer.shared;
    let (not_after, signature) = shared.tls.binding(&shared.handle);
    Welcome {
        version: VERSION,
        hub: shared.handle.hub(),
        certificate: shared.handle.certificate(),
        not_after,
        signature,
        nonce: peer.nonce,
        time: Time(wall_ms()),
        newest: shared.newest(),
    }
}

async fn read(peer: &Arc<Peer>, messages: &mut Messages, replies: mpsc::UnboundedSender<Out>) {
    loop {
        let Ok(permit) = Arc::clone(&peer.requests).acquire_owned().await else { return };
        let decoded = match messages.next(MAX_REQUEST).await {
            Ok(Some(body)) => decode_request(body),
            Ok(None) | Err(Broken::Lost) => return,
            Err(Broken::Framing(_)) => None,
        };
        match decoded {
            Some(Ok(message)) => {
                tokio::spawn(answer(Arc::clone(peer), message, permit, replies.clone()));
            }
            Some(Err((id, reject))) => {
                let bytes = encode(&ReplyMessage { id, reply: Err(reject) });
                let _ = replies.send(Out::Reply(Box::new(Written { bytes, permits: (permit, None) })));
            }
            None => {
                messages.stop(Reject::Malformed);
                let _ = replies.send(Out::Reset(Reject::Malformed));
                return;
            }
        }
    }
}

async fn answer(
    peer: Arc<Peer>,
    message: RequestMessage,
    permit: OwnedSemaphorePermit,
    replies: mpsc::UnboundedSender<Out>,
) {
    let mut large = None;
    if is_large(&message.request) {
        large = Arc::clone(&peer.large_requests).acquire_owned().await.ok();
    }
    let reply = reply(&peer, message.request).await;
    let bytes = encode(&ReplyMessage { id: message.id, reply });
    // The writer is gone with the stream.
    let _ = replies.send(Out::Reply(Box::new(Written { bytes, permits: (permit, large) })));
}

async fn reply(peer: &Arc<Peer>, request: Request) -> Result<Reply, Reject> {
    match request {
        Request::Prove { scope, key, signature } => peer.prove(scope, key, signature).await.map(|()| Reply::Proven),
        Request::Act(signed) => acts::act(peer, signed).await,
        Request::Hub => reads::hub(peer).await,
        Request::Account(account) => reads::account(peer, account).await,
        Request::DepositInstructions { account, currency } => {
            reads::deposit_instructions(peer, account, currency).await
        }
        Request::Channels { account, after } => reads::channels(peer, account, after).await,
        Request::Channel(channel) => reads::channel(peer, channel).await,
        Request::Lanes { channel, from } => reads::lanes(peer, channel, from).await,
        Request::History { lane, since } => reads::history(peer, lane, since).await,
        Request::Statement { account, after, skip } => statement::statement(peer, account, after, skip).await,
        Request::Commit { number } => reads::commit(peer, number).await,
        Request::Evidence(subject) => proofs::evidence(peer, subject).await,
        Request::Mandates(account) => reads::mandates(peer, account).await,
        Request::WindowStatement { account, window, form } => proofs::statement(peer, account, window, form).await,
    }
}

async fn write(mut send: SendStream, mut outgoing: mpsc::UnboundedReceiver<Out>) {
    while let Some(first) = outgoing.recv().await {
        // Made anew each time: an idle connection keeps nothing.
        let mut batch = Vec::new();
        let mut held = Vec::new();
        let mut next = Some(first);
        while let Some(out) = next.take() {
            match out {
                Out::Reply(mut written) => {
                    batch.append(&mut written.bytes);
                    held.push(written.permits);
                }
                Out::Reset(reject) => {
                    let _ = send.reset(code(reject));
                    return;
                }
            }
            if batch.len() < BATCH_BYTES {
                next = outgoing.try_recv().ok();
            }
        }
        if send.write_all(&batch).await.is_err() {
            return;
        }
    }
    let _ = send.finish();
}
