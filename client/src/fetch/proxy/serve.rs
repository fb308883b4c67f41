//! The proxy's connections: how many there are, and how they end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use reqwest_middleware::ClientWithMiddleware;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{Proxy, ProxyOptions};

/// Connections at once, with what they became; more wait to be accepted.
pub const MAX_CONNECTIONS: u32 = 1_024;
/// How long answers and tunnels may go on when the proxy is told to stop.
pub const DRAIN: Duration = Duration::from_secs(30);
/// Longest wait for a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How far the proxy is with stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// What runs may end.
    Draining,
    /// What still runs is cut off.
    Closed,
}

/// A connection's place among those that are open: kept by what it becomes, too.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    phases: watch::Receiver<Phase>,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Seat {
    /// When the time to drain is over.
    pub(super) async fn closed(mut self) {
        // Without a proxy nobody can say so: it was dropped.
        let _ = self.phases.wait_for(|phase| *phase == Phase::Closed).await;
    }
}

/// Serves until `shutdown` ends, then lets what runs go on for [`DRAIN`] at most. `web` pays: a client with
/// [`PayMiddleware`](crate::fetch::PayMiddleware).
pub async fn serve(
    listener: TcpListener,
    web: ClientWithMiddleware,
    options: ProxyOptions,
    shutdown: impl Future<Output = ()>,
) {
    let proxy = Arc::new(Proxy { web, options });
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    let (phase, phases) = watch::channel(Phase::Open);
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async {
            // Never closed, so it cannot fail.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let stream = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept => match accepted {
                (Ok((stream, _)), Some(permit)) => (stream, permit),
                (Ok(_), None) => break,
                (Err(error), _) => {
                    // Out of descriptors, mostly: others will be given back.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (stream, permit) = stream;
        let seat = Seat { phases: phases.clone(), _permit: Arc::new(permit) };
        tokio::spawn(connection(Arc::clone(&proxy), stream, seat));
    }
    drop(listener);
    phase.send_replace(Phase::Draining);
    // All places free: every connection and tunnel is over.
    if tokio::time::timeout(DRAIN, room.acquire_many(MAX_CONNECTIONS)).await.is_err() {
        tracing::warn!("connections are cut off, as the time to drain is over");
    }
    phase.send_replace(Phase::Closed);
}

async fn connection(proxy: Arc<Proxy>, stream: TcpStream, seat: Seat) {
    let mut phases = seat.phases.clone();
    let service = service_fn(|request| {
        let (proxy, seat) = (Arc::clone(&proxy), seat.clone());
        async move { Ok::<_, Infallible>(proxy.answer(request, seat).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut leaving = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            phase = phases.wait_for(|phase| *phase == Phase::Closed || (!leaving && *phase == Phase::Draining)) => {
                if phase.map_or(Phase::Closed, |phase| *phase) == Phase::Closed {
                    return;
                }
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
