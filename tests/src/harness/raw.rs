//! A client that is just enough to speak to a hub, and free to speak wrongly.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_hub::clock::wall_ms;
use weir_protocol::act::{Act, SignedAct};
use weir_protocol::amount::Time;
use weir_protocol::id::{HubAddress, HubId, LaneId};
use weir_protocol::keys::SecretKey;
use weir_protocol::payment::{Frame, Head, Payment, Run, next_state};
use weir_protocol::reject::Reject;
use weir_protocol::wire::{
    Attach, Attached, Done, KeyScope, LaneReply, LaneRequest, MAX_MESSAGE, Nonce, Opening, Reply, ReplyMessage,
    Request, RequestMessage, VERSION, Welcome, decode, decode_length, encode, hello_digest,
};

/// Longest wait for an answer that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
#[derive(Debug)]
pub struct Raw {
    _endpoint: Endpoint,
    /// The connection.
    pub quinn: Connection,
    /// The hub's TLS key.
    pub spki: Vec<u8>,
    /// The nonce of the welcome; zeros before it.
    pub nonce: Nonce,
    /// The hub.
    pub hub: HubId,
    control: Option<(SendStream, RecvStream)>,
    next: u64,
}

impl Raw {
    /// After the TLS handshake, before anything is said.
    pub async fn silent(address: &HubAddress) -> Self {
        let endpoint = endpoint(quinn::TransportConfig::default());
        let place: SocketAddr = format!("{}:{}", address.host, address.port).parse().unwrap();
        let quinn = endpoint.connect(place, "weir").unwrap().await.unwrap();
        let identity = quinn.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
        let parsed = ParsedCertificate::try_from(identity.first().unwrap()).unwrap();
        let spki = parsed.subject_public_key_info().as_ref().to_vec();
        Self { _endpoint: endpoint, quinn, spki, nonce: Nonce::ZERO, hub: address.hub, control: None, next: 0 }
    }

    /// After the welcome, which was checked.
    pub async fn connect(address: &HubAddress) -> Self {
        let mut raw = Self::silent(address).await;
        let (mut send, mut recv) = raw.quinn.open_bi().await.unwrap();
        send.write_all(&encode(&Opening::Control { version: VERSION })).await.unwrap();
        let welcome: Welcome = read(&mut recv).await.unwrap();
        welcome.check(&address.hub, &raw.spki, Time(wall_ms())).unwrap();
        raw.nonce = welcome.nonce;
        raw.control = Some((send, recv));
        raw
    }

    /// The control stream.
    pub fn control(&mut self) -> &mut (SendStream, RecvStream) {
        self.control.as_mut().unwrap()
    }

    /// A body on the control stream, with its length.
    pub async fn body(&mut self, body: &[u8]) {
        self.control().0.write_all(&framed(body)).await.unwrap();
    }

    /// The next reply.
    pub async fn reply(&mut self) -> ReplyMessage {
        read(&mut self.control().1).await.unwrap()
    }

    /// Asks, and waits; one request at a time.
    pub async fn ask(&mut self, request: Request) -> Result<Reply, Reject> {
        self.next += 1;
        let id = self.next;
        self.control().0.write_all(&encode(&RequestMessage { id, request })).await.unwrap();
        let reply = self.reply().await;
        assert_eq!(reply.id, id);
        reply.reply
    }

    /// Sends an act.
    pub async fn act(&mut self, signed: SignedAct) -> Result<Done, Reject> {
        match self.ask(Request::Act(signed)).await? {
            Reply::Done(done) => Ok(*done),
            other => panic!("not an answer to an act: {other:?}"),
        }
    }

    /// Signs and sends an act.
    pub async fn sign(&mut self, act: Act, key: &SecretKey) -> Result<Done, Reject> {
        let signed = act.sign(&self.hub, key);
        self.act(signed).await
    }

    /// Proves a key.
    pub async fn prove(&mut self, scope: KeyScope, key: &SecretKey) -> Result<(), Reject> {
        let digest = hello_digest(&self.hub, &key.public(), &scope, &self.spki, &self.nonce);
        let request = Request::Prove { scope, key: key.public(), signature: key.sign(&digest) };
        self.ask(request).await.map(|reply| assert_eq!(reply, Reply::Proven))
    }

    /// A new stream with its first message.
    pub async fn open(&self, opening: &Opening) -> (SendStream, RecvStream) {
        let (mut send, recv) = self.quinn.open_bi().await.unwrap();
        send.write_all(&encode(opening)).await.unwrap();
        (send, recv)
    }

    /// An attached lane; its key must have been proven on this connection.
    pub async fn attach(&self, lane: LaneId, key: SecretKey) -> Spender {
        let (send, mut recv) = self.open(&Opening::Lane(Attach { lane, void_through: 0 })).await;
        let attached = match read(&mut recv).await.unwrap() {
            LaneReply::Attached(attached) => attached,
            other => panic!("not attached: {other:?}"),
        };
        Spender { lane, key, head: attached.head, void_through: attached.void.void_through, send, recv }
    }
}

/// A client's end that takes any certificate.
fn endpoint(transport: quinn::TransportConfig) -> Endpoint {
    let mut config = weir_client::quic_config().unwrap();
    config.transport_config(Arc::new(transport));
    let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

/// A connection that says nothing, ever, and keeps itself alive.
pub async fn idle(place: SocketAddr) -> anyhow::Result<(Endpoint, Connection)> {
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(8)));
    let endpoint = endpoint(transport);
    let connection = endpoint.connect(place, "weir")?.await?;
    Ok((endpoint, connection))
}

/// The paying end of a lane's stream.
#[derive(Debug)]
pub struct Spender {
    /// The lane.
    pub lane: LaneId,
    /// Its key.
    pub key: SecretKey,
    /// The head that the hub has.
    pub head: Head,
    /// What the hub has given up.
    pub void_through: u64,
    /// To the hub.
    pub send: SendStream,
    /// From it.
    pub recv: RecvStream,
}

/// How a frame is made, before it is signed.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The head that it follows.
    pub previous_sequence: u64,
    /// Sequence of the first payment.
    pub first_sequence: u64,
    /// The payments.
    pub payments: Vec<Payment>,
    /// Its deadline.
    pub valid_until: Time,
}

impl Spender {
    /// The next frame as it should be.
    pub fn draft(&self, payments: &[Payment]) -> Draft {
        Draft {
            previous_sequence: self.head.sequence,
            first_sequence: self.head.sequence.max(self.void_through) + 1,
            payments: payments.to_vec(),
            valid_until: Time(0),
        }
    }

    /// The head that a draft leads to; totals wrap, so that overflows can be signed too.
    pub fn led_to(&self, draft: &Draft) -> Head {
        let mut head = self.head;
        for (payment, step) in draft.payments.iter().zip(0..) {
            let sequence = draft.first_sequence.wrapping_add(step);
            head.state = next_state(&head.state, sequence, payment);
            head.total =
                weir_protocol::amount::Amount::from_nanos(head.total.nanos().wrapping_add(payment.amount.nanos()));
            head.sequence = sequence;
        }
        head.valid_until = draft.valid_until;
        head
    }

    /// A frame with the right signature.
    pub fn frame(&self, draft: &Draft) -> Frame {
        let run = Run::new(draft.first_sequence, &draft.payments).unwrap();
        let signature = self.key.sign(&self.led_to(draft).digest(&self.lane));
        Frame { previous_sequence: draft.previous_sequence, run, valid_until: draft.valid_until, signature }
    }

    /// Sends a request.
    pub async fn request(&mut self, request: &LaneRequest) {
        self.send.write_all(&encode(request)).await.unwrap();
    }

    /// Pays, and moves on.
    pub async fn pay(&mut self, payments: &[Payment]) -> Frame {
        let draft = self.draft(payments);
        let frame = self.frame(&draft);
        self.request(&LaneRequest::Frame(frame.clone())).await;
        match self.reply().await {
            LaneReply::Taken(answer) => assert_eq!(answer.through_sequence, self.led_to(&draft).sequence),
            other => panic!("not taken: {other:?}"),
        }
        self.head = self.led_to(&draft);
        frame
    }

    /// Attaches again on this stream; the hub's head must be the one that this side has.
    pub async fn attach(&mut self, void_through: u64) -> Box<Attached> {
        self.request(&LaneRequest::Attach(Attach { lane: self.lane, void_through })).await;
        match self.reply().await {
            LaneReply::Attached(attached) => {
                assert_eq!(attached.head, self.head, "nothing was taken meanwhile");
                self.void_through = attached.void.void_through;
                attached
            }
            other => panic!("not attached: {other:?}"),
        }
    }

    /// The next reply.
    pub async fn reply(&mut self) -> LaneReply {
        read(&mut self.recv).await.unwrap()
    }
}

/// A body with its length in front.
pub fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

/// The next message, or `None` at the end or a reset.
pub async fn read<T: Serialize + DeserializeOwned>(recv: &mut RecvStream) -> Option<T> {
    let message = async {
        let mut prefix = [0; 4];
        recv.read_exact(&mut prefix).await.ok()?;
        let mut body = vec![0; decode_length(prefix, MAX_MESSAGE).unwrap()];
        recv.read_exact(&mut body).await.ok()?;
        Some(decode(&body).unwrap())
    };
    tokio::time::timeout(PATIENCE, message).await.unwrap()
}

/// The code with which the other side reset a stream.
pub async fn reset_code(recv: &mut RecvStream) -> Option<u64> {
    match tokio::time::timeout(PATIENCE, recv.read_to_end(1 << 20)).await.unwrap() {
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => Some(code.into_inner()),
        _ => None,
    }
}
