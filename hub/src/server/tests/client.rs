//! A hub in a temporary directory, and a client that is just enough to speak to it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use weir_protocol::act::{Act, Certificate, Deposit, Policy, Register, SignedAct};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::ChannelTerms;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::id::{AccountId, HubId, LaneId, Reference};
use weir_protocol::keys::SecretKey;
use weir_protocol::payment::{Frame, Head, Payment, Run, next_state};
use weir_protocol::reject::Reject;
use weir_protocol::wire::{
    ALPN, Attach, Done, KeyScope, LaneReply, LaneRequest, MAX_MESSAGE, Nonce, Opening, Reply, ReplyMessage, Request,
    RequestMessage, VERSION, Welcome, decode, decode_length, encode, hello_digest,
};

use crate::clock::wall_ms;
use crate::pipeline::Handle;
use crate::pipeline::recover::{Settings, start};
use crate::server::limits::Limits;
use crate::server::{DepositAddress, Options, Server};

pub(super) const UNIT: u64 = 1_000_000_000;

pub(super) fn eur() -> Currency {
    "EUR".parse().unwrap()
}

pub(super) fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32]).unwrap()
}

pub(super) fn account(seed: u8) -> AccountId {
    AccountId(key(seed).public())
}

pub(super) fn units(units: u64) -> Amount {
    Amount::from_nanos(units * UNIT)
}

/// A hub with open registration.
pub(super) struct Hub {
    pub(super) handle: Handle,
    pub(super) server: Server,
    pub(super) id: HubId,
    directory: TempDir,
    deposits: std::sync::atomic::AtomicU64,
}

impl Hub {
    pub(super) fn start() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        Self::at(TempDir::new().unwrap(), limits)
    }

    fn at(directory: TempDir, limits: Limits) -> Self {
        let identity = key(0xd1);
        let id = HubId(identity.public());
        let not_before = Time(1_000);
        let certificate = Certificate { key: key(0xd2).public(), not_before, not_after: Time(u64::MAX) };
        let signature = identity.sign(&Act::Certificate(certificate).digest(&id));
        let handle = start(Settings {
            data: directory.path().to_owned(),
            anchor: None,
            accept_rollback: None,
            shards: 2,
            segment_bytes: 1 << 20,
            policy: Policy {
                open_registration: true,
                refund_days: 90,
                payment_max: Amount::ZERO,
                payout_min: units(1),
                fee_basis_points: 0,
                fee_per_payment: Amount::ZERO,
                fee_minimum: Amount::ZERO,
                approvals: 0,
                currencies: vec![eur()],
            },
            hub: id,
            key: key(0xd2),
            certificate: SignedCertificate { certificate, signature },
            secret: [9; 32],
        });
        let handle = handle.unwrap();
        let address =
            DepositAddress { iban: "DE89370400440532013000".into(), name: "Hub".into(), bic: "COBADEFFXXX".into() };
        let options = Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            reset_key: [3; 32],
            name: "Test hub".into(),
            bank: BTreeMap::from([(eur(), address)]),
            limits,
        };
        let server = Server::bind(handle.clone(), options).unwrap();
        let running = server.clone();
        tokio::spawn(async move { running.run().await });
        Self { handle, server, id, directory, deposits: 0.into() }
    }

    pub(super) async fn restart(self) -> Self {
        self.server.shutdown().await;
        let handle = self.handle;
        tokio::task::spawn_blocking(move || handle.stop()).await.unwrap();
        drop(self.server);
        Self::at(self.directory, Limits::default())
    }

    pub(super) async fn deposit(&self, to: AccountId, amount: Amount) {
        let count = self.deposits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let deposit = Deposit {
            account: Some(to),
            currency: eur(),
            amount,
            connector: "sandbox".into(),
            bank_reference: format!("entry {count}"),
        };
        self.handle.order(Act::Deposit(deposit)).await.unwrap();
    }
}

/// An endpoint that takes any certificate.
pub(super) fn client_endpoint() -> Endpoint {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any { algorithms }))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    endpoint
}

/// One connection.
pub(super) struct Client {
    _endpoint: Endpoint,
    pub(super) quinn: Connection,
    pub(super) control: Option<(SendStream, RecvStream)>,
    pub(super) spki: Vec<u8>,
    pub(super) nonce: Nonce,
    pub(super) welcome: Option<Welcome>,
    pub(super) hub: HubId,
    next: u64,
}

impl Client {
    /// After the TLS handshake, before anything is said.
    pub(super) async fn silent(hub: &Hub) -> Self {
        let endpoint = client_endpoint();
        let quinn = endpoint.connect(hub.server.local_addr(), "weir").unwrap().await.unwrap();
        let identity = quinn.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
        let parsed = ParsedCertificate::try_from(identity.first().unwrap()).unwrap();
        let spki = parsed.subject_public_key_info().as_ref().to_vec();
        let nonce = Nonce::ZERO;
        Self { _endpoint: endpoint, quinn, control: None, spki, nonce, welcome: None, hub: hub.id, next: 0 }
    }

    /// After the welcome, which was checked.
    pub(super) async fn connect(hub: &Hub) -> Self {
        let mut client = Self::silent(hub).await;
        let (mut send, mut recv) = client.quinn.open_bi().await.unwrap();
        send.write_all(&encode(&Opening::Control { version: VERSION })).await.unwrap();
        let welcome: Welcome = read(&mut recv).await.unwrap();
        welcome.check(&hub.id, &client.spki, Time(wall_ms())).unwrap();
        client.nonce = welcome.nonce;
        client.welcome = Some(welcome);
        client.control = Some((send, recv));
        client
    }

    /// With an account that is registered and whose key is proven.
    pub(super) async fn registered(hub: &Hub, seed: u8) -> Self {
        let mut client = Self::connect(hub).await;
        client.act(register(hub, seed, 1)).await.unwrap();
        client.prove(KeyScope::Account(account(seed)), &key(seed)).await.unwrap();
        client
    }

    pub(super) async fn raw(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        let (send, _) = self.control.as_mut().unwrap();
        send.write_all(&[&length, body].concat()).await.unwrap();
    }

    pub(super) async fn reply(&mut self) -> ReplyMessage {
        read(&mut self.control.as_mut().unwrap().1).await.unwrap()
    }

    pub(super) async fn ask(&mut self, request: Request) -> Result<Reply, Reject> {
        self.next += 1;
        let message = RequestMessage { id: self.next, request };
        self.control.as_mut().unwrap().0.write_all(&encode(&message)).await.unwrap();
        let reply = self.reply().await;
        assert_eq!(reply.id, self.next);
        reply.reply
    }

    pub(super) async fn act(&mut self, signed: SignedAct) -> Result<Done, Reject> {
        match self.ask(Request::Act(signed)).await? {
            Reply::Done(done) => Ok(*done),
            other => panic!("not an answer to an act: {other:?}"),
        }
    }

    pub(super) async fn prove(&mut self, scope: KeyScope, key: &SecretKey) -> Result<(), Reject> {
        let digest = hello_digest(&self.hub, &key.public(), &scope, &self.spki, &self.nonce);
        let request = Request::Prove { scope, key: key.public(), signature: key.sign(&digest) };
        self.ask(request).await.map(|reply| assert_eq!(reply, Reply::Proven))
    }

    pub(super) async fn open(&self, opening: &Opening) -> (SendStream, RecvStream) {
        let (mut send, recv) = self.quinn.open_bi().await.unwrap();
        send.write_all(&encode(opening)).await.unwrap();
        (send, recv)
    }

    /// An attached lane stream.
    pub(super) async fn attach(&self, lane: LaneId, key: SecretKey) -> Payer {
        let (send, mut recv) = self.open(&Opening::Lane(Attach { lane, void_through: 0 })).await;
        let head = match read(&mut recv).await.unwrap() {
            LaneReply::Attached(attached) => attached.head,
            other => panic!("not attached: {other:?}"),
        };
        Payer { lane, key, head, send, recv }
    }
}

pub(super) fn register(hub: &Hub, seed: u8, number: u64) -> SignedAct {
    let register = Register {
        number,
        account: account(seed),
        name: format!("Account {seed}"),
        iban: "DE89370400440532013000".into(),
    };
    Act::Register(register).sign(&hub.id, &key(seed))
}

/// Terms of a channel of one euro a unit; the channel's key is that of `seed + 100`.
pub(super) fn terms(hub: &Hub, seed: u8, capacity: Amount) -> ChannelTerms {
    let now = Time(wall_ms());
    ChannelTerms {
        hub: hub.id,
        account: account(seed),
        scheme: 0,
        key: channel_key(seed).public(),
        currency: eur(),
        capacity,
        opened_at: now,
        expires_at: now.plus_ms(86_400_000),
        renew: false,
        salt: [seed; 32],
    }
}

pub(super) fn channel_key(seed: u8) -> SecretKey {
    key(seed + 100)
}

/// The paying end of a lane's stream.
pub(super) struct Payer {
    pub(super) lane: LaneId,
    pub(super) key: SecretKey,
    pub(super) head: Head,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
}

impl Payer {
    /// The next frame; moves the head.
    pub(super) fn frame(&mut self, payments: &[(AccountId, Amount)]) -> Frame {
        let first = self.head.sequence + 1;
        let payments: Vec<Payment> = payments
            .iter()
            .zip(first..)
            .map(|((payee, amount), sequence)| {
                let mut reference = Reference::ZERO;
                reference.0[..8].copy_from_slice(&sequence.to_le_bytes());
                Payment { payee: *payee, amount: *amount, reference }
            })
            .collect();
        let previous_sequence = self.head.sequence;
        for (payment, sequence) in payments.iter().zip(first..) {
            self.head.state = next_state(&self.head.state, sequence, payment);
            self.head.total = self.head.total.checked_add(payment.amount).unwrap();
            self.head.sequence = sequence;
        }
        let signature = self.key.sign(&self.head.digest(&self.lane));
        let run = Run::new(first, &payments).unwrap();
        Frame { previous_sequence, run, valid_until: Time(0), signature }
    }

    pub(super) async fn send(&mut self, request: &LaneRequest) {
        self.send.write_all(&encode(request)).await.unwrap();
    }

    pub(super) async fn pay(&mut self, payments: &[(AccountId, Amount)]) {
        let frame = self.frame(payments);
        self.send(&LaneRequest::Frame(frame)).await;
    }

    pub(super) async fn reply(&mut self) -> LaneReply {
        read(&mut self.recv).await.unwrap()
    }
}

/// The next message, or `None` at the end or a reset.
pub(super) async fn read<T: Serialize + DeserializeOwned>(recv: &mut RecvStream) -> Option<T> {
    let mut prefix = [0; 4];
    recv.read_exact(&mut prefix).await.ok()?;
    let mut body = vec![0; decode_length(prefix, MAX_MESSAGE).unwrap()];
    recv.read_exact(&mut body).await.ok()?;
    Some(decode(&body).unwrap())
}

/// The code with which the other side reset a stream.
pub(super) async fn reset_code(recv: &mut RecvStream) -> Option<u64> {
    match recv.read_to_end(1 << 20).await {
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => Some(code.into_inner()),
        _ => None,
    }
}

#[derive(Debug)]
struct Any {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
