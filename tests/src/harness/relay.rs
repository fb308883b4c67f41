//! A UDP relay that delays every packet: round trips can be counted where everything is on one machine. It keeps order and
//! loses nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;
use weir_protocol::id::HubAddress;

/// Longest packet.
const PACKET_BYTES: usize = 65_536;

/// A relay before a hub. It ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: HubAddress,
    delay_us: Arc<AtomicU64>,
    tasks: tokio::task::JoinHandle<()>,
}

/// A packet and when to send it on.
type Delayed = (Instant, Vec<u8>);

impl Relay {
    /// Before this hub, without delay.
    pub async fn new(hub: &HubAddress) -> Self {
        let place = format!("{}:{}", hub.host, hub.port).parse().unwrap();
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let port = socket.local_addr().unwrap().port();
        let delay_us = Arc::new(AtomicU64::new(0));
        let tasks = tokio::spawn(from_clients(socket, place, Arc::clone(&delay_us)));
        let address = HubAddress { hub: hub.hub, host: "127.0.0.1".to_owned(), port };
        Self { address, delay_us, tasks }
    }

    /// Where clients connect.
    pub const fn address(&self) -> &HubAddress {
        &self.address
    }

    /// How long packets take from now on, there and back.
    pub fn set_round_trip(&self, round_trip: Duration) {
        let micros = u64::try_from(round_trip.as_micros() / 2).unwrap();
        self.delay_us.store(micros, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

async fn from_clients(socket: Arc<UdpSocket>, hub: SocketAddr, delay_us: Arc<AtomicU64>) {
    let mut clients: HashMap<SocketAddr, mpsc::UnboundedSender<Delayed>> = HashMap::new();
    // Their tasks end with this one.
    let mut tasks = tokio::task::JoinSet::new();
    let mut packet = vec![0; PACKET_BYTES];
    loop {
        // A client that is gone makes the next read fail; others go on.
        let Ok((length, client)) = socket.recv_from(&mut packet).await else { continue };
        if let Entry::Vacant(place) = clients.entry(client) {
            let upstream = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            upstream.connect(hub).await.unwrap();
            let (there, due_there) = mpsc::unbounded_channel();
            let (back, due_back) = mpsc::unbounded_channel();
            tasks.spawn(send_when_due(due_there, Arc::clone(&upstream), None));
            tasks.spawn(send_when_due(due_back, Arc::clone(&socket), Some(client)));
            tasks.spawn(from_hub(upstream, back, Arc::clone(&delay_us)));
            place.insert(there);
        }
        let due = (due_at(&delay_us), packet.get(..length).unwrap_or_default().to_vec());
        // The queue lives as long as this task.
        let _ = clients.get(&client).map(|queue| queue.send(due));
    }
}

async fn from_hub(upstream: Arc<UdpSocket>, back: mpsc::UnboundedSender<Delayed>, delay_us: Arc<AtomicU64>) {
    let mut packet = vec![0; PACKET_BYTES];
    loop {
        let Ok(length) = upstream.recv(&mut packet).await else { continue };
        if back.send((due_at(&delay_us), packet.get(..length).unwrap_or_default().to_vec())).is_err() {
            return;
        }
    }
}

fn due_at(delay_us: &AtomicU64) -> Instant {
    Instant::now() + Duration::from_micros(delay_us.load(Ordering::Relaxed))
}

async fn send_when_due(mut due: mpsc::UnboundedReceiver<Delayed>, socket: Arc<UdpSocket>, to: Option<SocketAddr>) {
    while let Some((at, packet)) = due.recv().await {
        tokio::time::sleep_until(at).await;
        // A packet to whoever is gone is lost, as on any network.
        let _ = match to {
            Some(client) => socket.send_to(&packet, client).await,
            None => socket.send(&packet).await,
        };
    }
}
