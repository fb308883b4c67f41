//! What an idle connection costs the side that serves: a hub's, authenticated and with its control stream, beside that of
//! a bare quinn server with the hub's transport settings, each in a process of its own.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, ServerConfig, TransportConfig, VarInt};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use weir_client::Connection;
use weir_hub::server::limits::Limits;
use weir_protocol::id::{AccountId, HubAddress};
use weir_protocol::keys::SecretKey;
use weir_protocol::wire::{ALPN, KeyScope};

use super::memory_of;
use crate::harness::place::Place;
use crate::harness::raw;

/// Connections before the first look: whatever a process allocates once is there by then.
const BEFORE: usize = 50;
/// Connections that are being made at one time.
const AT_ONCE: usize = 16;
/// From the last connection until memory is looked at: handshakes and proofs are over.
const SETTLE: Duration = Duration::from_secs(3);

/// Resident bytes of one side for each connection, between two numbers of them.
#[derive(Debug, Clone, Copy)]
pub struct Slope {
    /// From the first look to the smaller number.
    pub small: i64,
    /// From there to the larger one.
    pub large: i64,
}

/// A hub's connections beside bare ones.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// The hub's.
    pub hub: Slope,
    /// A bare server's.
    pub bare: Slope,
}

impl Idle {
    /// What a hub keeps beyond QUIC, at the larger number.
    pub const fn more_bytes(&self) -> i64 {
        self.hub.large - self.bare.large
    }

    /// As JSON.
    pub fn json(&self, few: usize, many: usize) -> Value {
        json!({
            "connections": [few, many],
            "hub_bytes_per_connection": [self.hub.small, self.hub.large],
            "bare_bytes_per_connection": [self.bare.small, self.bare.large],
            "more_bytes_per_connection": self.more_bytes(),
        })
    }
}

/// Holds `few`, then `many` idle connections to a hub and to a bare server. `binary`: the hub's command line, and
/// `bare` as a command.
pub async fn cost(binary: &str, few: usize, many: usize) -> anyhow::Result<Idle> {
    let place = Place::new(binary);
    let hub = place.run();
    let address = hub.address.clone();
    let connect = move |_| {
        let address = address.clone();
        async move { authenticated(&address).await }
    };
    let of_hub = slope(hub.pid(), few, many, connect).await?;
    hub.stop();

    let mut bare = Bare::start(binary)?;
    let place = bare.address;
    let of_bare = slope(bare.child.id(), few, many, move |_| async move { raw::idle(place).await }).await?;
    bare.child.kill()?;
    bare.child.wait()?;
    Ok(Idle { hub: of_hub, bare: of_bare })
}

/// A connection of the real client that has proven an account's key.
async fn authenticated(address: &HubAddress) -> anyhow::Result<Connection> {
    let connection = Connection::connect(address).await?;
    let key = SecretKey::from_bytes(&[3; 32])?;
    connection.prove(KeyScope::Account(AccountId(key.public())), &key).await?;
    Ok(connection)
}

async fn slope<C, F>(pid: u32, few: usize, many: usize, connect: impl Fn(usize) -> F) -> anyhow::Result<Slope>
where
    C: Send + 'static,
    F: Future<Output = anyhow::Result<C>> + Send + 'static,
{
    let mut held = Vec::new();
    let mut looks = Vec::new();
    for count in [BEFORE, few, many] {
        while held.len() < count {
            let mut making: JoinSet<anyhow::Result<C>> = JoinSet::new();
            for number in held.len()..count.min(held.len() + AT_ONCE) {
                making.spawn(connect(number));
            }
            while let Some(made) = making.join_next().await {
                held.push(made??);
            }
        }
        tokio::time::sleep(SETTLE).await;
        looks.push(memory_of(pid, "VmRSS")?);
    }
    let &[before, small, large] = looks.as_slice() else { unreachable!("three looks") };
    ensure!(BEFORE < few && few < many, "more than {BEFORE} connections, then more again");
    let each = |from: u64, to: u64, count: usize| -> anyhow::Result<i64> {
        Ok((i64::try_from(to)? - i64::try_from(from)?) / i64::try_from(count)?)
    };
    Ok(Slope { small: each(before, small, few - BEFORE)?, large: each(small, large, many - few)? })
}

struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    fn start(binary: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(binary).arg("bare").stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("no output")?;
        let mut line = String::new();
        std::io::BufReader::new(out).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }
}

/// Serves QUIC and nothing else, with the hub's settings; says where, and ends when it is killed.
pub async fn serve_bare() -> anyhow::Result<()> {
    let generated = rcgen::generate_simple_self_signed(["weir".to_owned()])?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(generated.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![generated.cert.der().clone()], key.into())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = 0;
    tls.send_tls13_tickets = 0;
    let limits = Limits::default();
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams_before_proof))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(limits.stream_window))
        .receive_window(VarInt::from_u32(limits.window_before_proof))
        .send_window(u64::from(limits.window_before_proof))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(limits.idle_timeout.try_into()?));
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let mut out = std::io::stdout();
    std::io::Write::write_all(&mut out, format!("{}\n", endpoint.local_addr()?).as_bytes())?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                connection.closed().await;
            }
        });
    }
    Ok(())
}
