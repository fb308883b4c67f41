//! Names: accounts and hubs as bech32m, channels, lanes and payments as hashes, and a hub's address.

use core::fmt;
use core::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bytes::{byte_newtype, hex_display};
use crate::keys::PublicKey;

byte_newtype!(
    /// A channel: the hash of its terms.
    ChannelId, 32
);
hex_display!(ChannelId);

byte_newtype!(
    /// A lane: the hash of its grant, and the state that it starts from.
    LaneId, 32
);
hex_display!(LaneId);

byte_newtype!(
    /// A payment's public id: `H("weir/id", lane_id ‖ sequence)`. Says nothing about its lane.
    PaymentId, 32
);
hex_display!(PaymentId);

byte_newtype!(
    /// What a payment is for: 32 bytes of the payer's choice; the idempotency key of the client.
    Reference, 32
);
hex_display!(Reference);

const ACCOUNT_PREFIX: Hrp = Hrp::parse_unchecked("weir");
const HUB_PREFIX: Hrp = Hrp::parse_unchecked("weirhub");

/// Why a text is not an id or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The checksum, alphabet or length is wrong, or the case is mixed.
    #[error("not a valid id: mistyped, cut short, or of another kind")]
    Bech32,
    /// Another kind of id.
    #[error("an id of another kind: expected one that starts with `{0}1`")]
    Prefix(&'static str),
    /// Not `weir://<hub id>@host:port`.
    #[error("not a hub address: expected `weir://<hub id>@host:port`")]
    Address,
}

fn encode(prefix: Hrp, bytes: &[u8; 32]) -> String {
    // 32 bytes always fit bech32's length limit.
    bech32::encode::<Bech32m>(prefix, bytes).unwrap_or_default()
}

fn decode(prefix: Hrp, name: &'static str, text: &str) -> Result<[u8; 32], IdError> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(IdError::Bech32);
    }
    let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| IdError::Bech32)?;
    if checked.hrp() != prefix {
        return Err(IdError::Prefix(name));
    }
    checked.validate_segwit_padding().map_err(|_| IdError::Bech32)?;
    let mut bytes = [0; 32];
    let mut count = 0_usize;
    for byte in checked.byte_iter() {
        *bytes.get_mut(count).ok_or(IdError::Bech32)? = byte;
        count += 1;
    }
    if count == 32 { Ok(bytes) } else { Err(IdError::Bech32) }
}

macro_rules! bech32_id {
    ($(#[$meta:meta])* $name:ident, $prefix:ident, $text:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub PublicKey);

        impl $name {
            /// The key whose name this is.
            pub const fn key(&self) -> PublicKey {
                self.0
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&encode($prefix, &self.0.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                decode($prefix, $text, text).map(|bytes| Self(PublicKey(bytes)))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    PublicKey::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

bech32_id!(
    /// A participant. The id is the account's first key and only a name.
    AccountId, ACCOUNT_PREFIX, "weir"
);
bech32_id!(
    /// A hub: its identity key.
    HubId, HUB_PREFIX, "weirhub"
);

impl AccountId {
    /// No account: zeros in a preimage.
    pub const ZERO: Self = Self(PublicKey::ZERO);
}

/// `weir://<hub id>@host:port`: where a hub is and who it must prove to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubAddress {
    /// The hub's identity.
    pub hub: HubId,
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hub, host, port } = self;
        if host.contains(':') {
            write!(f, "weir://{hub}@[{host}]:{port}")
        } else {
            write!(f, "weir://{hub}@{host}:{port}")
        }
    }
}

impl FromStr for HubAddress {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let rest = text.strip_prefix("weir://").ok_or(IdError::Address)?;
        let (hub, place) = rest.split_once('@').ok_or(IdError::Address)?;
        let (host, port) = place.rsplit_once(':').ok_or(IdError::Address)?;
        let hub = hub.parse()?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(v6) => v6.parse::<core::net::Ipv6Addr>().map_err(|_| IdError::Address)?.to_string(),
            None => host.to_owned(),
        };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
        let plain = bracketed.is_some() || !host.contains(':');
        if host.is_empty() || host.len() > 253 || !plain || !host.bytes().all(named) {
            return Err(IdError::Address);
        }
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(IdError::Address);
        }
        let port = port.parse().map_err(|_| IdError::Address)?;
        Ok(Self { hub, host, port })
    }
}

impl Serialize for HubAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HubAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn account_id_mistyped_or_of_another_kind_is_refused() {
        let account = AccountId(PublicKey([3; 32]));
        let text = account.to_string();
        assert!(text.starts_with("weir1"));
        assert_eq!(text.parse::<AccountId>().unwrap(), account);
        let hub = HubId(PublicKey([3; 32])).to_string();
        assert_eq!(hub.parse::<AccountId>(), Err(IdError::Prefix("weir")));
        assert!(text.to_uppercase().parse::<AccountId>().is_err());
        assert!(text[..text.len() - 1].parse::<AccountId>().is_err());
    }

    #[test]
    fn address_round_trips_names_and_both_families() {
        let hub = HubId(PublicKey([9; 32]));
        for place in ["localhost:1", "127.0.0.1:65535", "[::1]:4433", "hub.example.org:443"] {
            let text = format!("weir://{hub}@{place}");
            assert_eq!(text.parse::<HubAddress>().unwrap().to_string(), text);
        }
        for bad in ["weir://x@h:1", "http://h:1", "weir://"] {
            assert!(bad.parse::<HubAddress>().is_err());
        }
        for place in ["h", "h:", ":1", "h:65536", "h:-1", "h:+1", "::1:1", "[::g]:1", "h h:1", "[h]:1"] {
            assert!(format!("weir://{hub}@{place}").parse::<HubAddress>().is_err(), "{place}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,200}") {
            let _ = text.parse::<AccountId>();
            let _ = text.parse::<HubAddress>();
        }
    }
}
