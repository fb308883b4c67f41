//! The TLS key of one start, what binds it to the hub, and the QUIC configuration around it.
//!
//! TLS 1.3 only, ALPN `weir/1`, no 0-RTT, no tickets: a resumed session would not show the key that the welcome signs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    ServerConfig, TransportConfig, VarInt,
};
use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use weir_protocol::amount::Time;
use weir_protocol::keys::Signature;
use weir_protocol::wire::ALPN;

use super::limits::Limits;
use crate::clock::wall_ms;
use crate::pipeline::Handle;

/// The binding of the TLS key is signed for this long …
const BINDING_MS: u64 = 24 * 60 * 60 * 1000;
/// … and signed anew when less than this is left.
const BINDING_LEFT_MS: u64 = BINDING_MS / 2;
/// Connections that wait to be looked at.
const MAX_INCOMING: usize = 1_024;
/// Bytes that connections that wait may have sent, in all.
const INCOMING_BUFFER_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes that one of them may have sent.
const INCOMING_BUFFER_EACH_BYTES: u64 = 64 * 1024;

/// The TLS key of this start.
#[derive(Debug)]
pub(super) struct TlsIdentity {
    spki: Vec<u8>,
    binding: Mutex<Option<(Time, Signature)>>,
}

impl TlsIdentity {
    /// A fresh key and certificate, and the configuration with it.
    pub(super) fn generate(limits: &Limits) -> Result<(Self, ServerConfig), String> {
        let generated = rcgen::generate_simple_self_signed(["weir".to_owned()]).map_err(|error| error.to_string())?;
        let certificate = generated.cert.der().clone();
        let parsed = ParsedCertificate::try_from(&certificate).map_err(|error| error.to_string())?;
        let spki = parsed.subject_public_key_info().as_ref().to_vec();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(generated.signing_key.serialize_der()));

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(|error| error.to_string())?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.max_early_data_size = 0;
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});

        let crypto = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(Arc::new(transport(limits)?));
        config.max_incoming(MAX_INCOMING);
        config.incoming_buffer_size(INCOMING_BUFFER_EACH_BYTES);
        config.incoming_buffer_size_total(INCOMING_BUFFER_BYTES);
        Ok((Self { spki, binding: Mutex::new(None) }, config))
    }

    /// The DER SubjectPublicKeyInfo.
    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The signing key's word for the TLS key, and until when it counts: never longer than its certificate.
    pub(super) fn binding(&self, handle: &Handle) -> (Time, Signature) {
        let now = Time(wall_ms());
        let mut binding = self.binding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = binding.filter(|(not_after, _)| now.plus_ms(BINDING_LEFT_MS) < *not_after) {
            return known;
        }
        let not_after = now.plus_ms(BINDING_MS).min(handle.certificate().certificate.not_after);
        let signed = (not_after, handle.sign_tls(&self.spki, not_after));
        *binding = Some(signed);
        signed
    }
}

/// Packets for one acknowledgement.
const ACK_EVERY: u32 = 10;
/// Longest wait for one.
const ACK_DELAY: Duration = Duration::from_millis(2);
/// Largest UDP payload that is tried: a jumbo frame of 9,000 bytes less the headers of IPv6 and UDP.
const PACKET_BYTES_MAX: u16 = 8_952;

fn transport(limits: &Limits) -> Result<TransportConfig, String> {
    let idle = IdleTimeout::try_from(limits.idle_timeout).map_err(|error| error.to_string())?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams_before_proof))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(limits.stream_window))
        .receive_window(VarInt::from_u32(limits.window_before_proof))
        .send_window(u64::from(limits.window_before_proof))
        .datagram_receive_buffer_size(None)
        .ack_frequency_config(Some(fewer_acks()))
        .mtu_discovery_config(Some(larger_packets()))
        .max_idle_timeout(Some(idle));
    Ok(transport)
}

/// Asks the peer to acknowledge every tenth packet rather than every second: a payment's answer acknowledges it anyway.
/// The short delay keeps a small window from waiting.
fn fewer_acks() -> AckFrequencyConfig {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY)).max_ack_delay(Some(ACK_DELAY));
    acks
}

/// Finds out whether the path takes jumbo frames, as within a data centre.
fn larger_packets() -> MtuDiscoveryConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PACKET_BYTES_MAX);
    discovery
}

/// HMAC-SHA-256 with a key that outlives the process: a client of an earlier start is told so at once.
pub(super) struct ResetKey([u8; 32]);

impl ResetKey {
    pub(super) const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Endpoint settings under which a packet of an earlier start's connection is answered with a reset.
    pub(super) fn endpoint_config(self) -> EndpointConfig {
        let mut config = EndpointConfig::new(Arc::new(self));
        // Ids that carry a check would have to be known across starts, too; any id may belong to an earlier start.
        config.cid_generator(|| Box::new(RandomIds));
        config
    }

    fn mac(&self, data: &[u8]) -> [u8; 32] {
        let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let mut out = [0; 32];
        if let Some(suite) = suite.tls13() {
            let tag = suite.hkdf_provider.hmac_sign(&OkmBlock::new(&self.0), data);
            out.copy_from_slice(tag.as_ref());
        }
        out
    }
}

/// Bytes of a connection id.
const CONNECTION_ID_BYTES: usize = 8;

/// Connection ids without meaning.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        if let Err(error) = getrandom::fill(&mut id) {
            // Without random numbers no TLS handshake succeeds either; an id that is taken is asked for again.
            tracing::error!(%error, "no random numbers");
        }
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&self.mac(data));
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let differs = self.mac(data).iter().zip(signature).fold(0, |seen, (a, b)| seen | (a ^ b));
        if signature.len() == 32 && differs == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_key_macs_as_rfc_4231_and_knows_its_own_only() {
        // RFC 4231 has no case with a 32-byte key; this one is from Python's hmac module.
        let key = ResetKey::new([0x0b; 32]);
        let mac = key.mac(b"Hi There");
        assert_eq!(hex::encode(mac), "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7");
        assert!(key.verify(b"Hi There", &mac).is_ok());
        assert!(key.verify(b"Hi there", &mac).is_err());
        assert!(key.verify(b"Hi There", &[]).is_err());
    }
}
