//! Every bound on what peers may use, with its default and why (FACTS: QUIC and TLS).

use std::time::Duration;

/// What peers may use of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all; first packets beyond are ignored.
    pub connections_max: usize,
    /// Connections of one address (IPv6: of one /64).
    pub connections_per_address: usize,
    /// Handshakes in flight; first packets beyond are ignored.
    pub handshakes_max: usize,
    /// Handshakes in flight from which on a peer must first show that its address is its own.
    pub handshakes_before_retry: usize,
    /// For one handshake.
    pub handshake_timeout: Duration,
    /// From the handshake to the first proven key or taken act.
    pub proof_timeout: Duration,
    /// How long an attach waits for the proof of its lane's key: both may come in one flight, and streams have no order.
    pub proof_wait: Duration,
    /// Silence after which a connection ends. Keeping it alive is the client's business.
    pub idle_timeout: Duration,
    /// Streams of a connection without a proven key.
    pub streams_before_proof: u32,
    /// Streams of a connection with one. Given in steps, as they are used: QUIC keeps memory for each that may come.
    pub streams: u32,
    /// Bytes that wait in one stream.
    pub stream_window: u32,
    /// Bytes that wait in a connection without a proven key, either way.
    pub window_before_proof: u32,
    /// Bytes that wait in a connection with one, either way.
    pub window: u32,
    /// Requests in flight on a connection; beyond, its control stream is not read.
    pub requests: usize,
    /// Those among them whose replies can be large.
    pub large_requests: usize,
    /// Keys proven on one connection.
    pub keys: usize,
    /// Bad proofs after which a connection ends.
    pub bad_proofs: u32,
    /// Frames of a lane's stream without an answer; beyond, the stream is not read.
    pub frames: usize,
    /// Payments of a lane's stream without an answer; beyond, the stream is not read.
    pub payments: usize,
    /// How long a lane's stream waits for answers before it is given up.
    pub answer_timeout: Duration,
    /// Reads of the journal at one time, for all peers.
    pub journal_reads: usize,
    /// How often.
    pub rates: RateLimits,
}

/// How often something may be done; each per account, or per address where no account is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Attaches.
    pub attaches: Rate,
    /// Grants and revocations.
    pub grants: Rate,
    /// Registrations, per address in any case.
    pub registrations: Rate,
    /// Other acts, per address in any case.
    pub acts: Rate,
    /// Proofs of keys, per address.
    pub proofs: Rate,
    /// Reads of the journal, per address.
    pub journal_reads: Rate,
    /// Accounts and addresses that are remembered per kind.
    pub remembered: usize,
}

/// A rate with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address: 1_024,
            handshakes_max: 1_024,
            handshakes_before_retry: 128,
            handshake_timeout: Duration::from_secs(3),
            proof_timeout: Duration::from_secs(3),
            proof_wait: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(30),
            streams_before_proof: 16,
            streams: 256,
            stream_window: 64 * 1024,
            window_before_proof: 256 * 1024,
            window: 4 * 1024 * 1024,
            requests: 64,
            large_requests: 4,
            keys: 4_096,
            bad_proofs: 16,
            frames: 1_024,
            payments: 65_536,
            answer_timeout: Duration::from_secs(30),
            journal_reads: 8,
            rates: RateLimits::default(),
        }
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            attaches: Rate { per_second: 50, burst: 1_100 },
            grants: Rate { per_second: 20, burst: 1_100 },
            registrations: Rate { per_second: 1, burst: 20 },
            acts: Rate { per_second: 500, burst: 2_000 },
            proofs: Rate { per_second: 200, burst: 4_096 },
            journal_reads: Rate { per_second: 200, burst: 1_000 },
            remembered: 65_536,
        }
    }
}
