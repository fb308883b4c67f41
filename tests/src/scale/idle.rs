//! What an idle connection costs the side that serves: a hub's, authenticated and with its control stream, beside that of
//! a bare quinn server with the hub's transport settings, each in a process of its own.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use weir_client::Connection;
use weir_protocol::id::{AccountId, HubAddress};
use weir_protocol::keys::SecretKey;
use weir_protocol::wire::KeyScope;

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

/// Holds `few`, then `many` idle connections to a hub and to a bare server. `binary`: the hub's command line.
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
        let (held, piped) = (Stdio::piped(), Stdio::piped());
        let mut child = Command::new(binary).args(["echo", "--json"]).stdin(held).stdout(piped).spawn()?;
        let out = child.stdout.take().context("no output")?;
        let mut line = String::new();
        std::io::BufReader::new(out).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line)?;
        Ok(Self { child, address: ready["address"].as_str().context("no address")?.parse()? })
    }
}
