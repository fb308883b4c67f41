//! The file as TOML has it: texts with the places where they stand. What they mean is decided by what reads them.

use core::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

/// A text and where it stands.
pub(super) type Text = Option<Spanned<String>>;
/// A number and where it stands.
pub(super) type Number = Option<Spanned<u64>>;

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the fields are the keys of the file")]
pub(super) struct File {
    pub(super) listen: Text,
    pub(super) mode: Text,
    pub(super) upstream: Text,
    pub(super) realm: Text,
    pub(super) payee: Text,
    pub(super) hub: Text,
    pub(super) currency: Text,
    pub(super) home: Text,
    pub(super) state: Text,
    pub(super) secret_file: Text,
    #[serde(default)]
    pub(super) certificates: Vec<Spanned<String>>,
    pub(super) challenge_ttl: Text,
    pub(super) grace: Text,
    pub(super) refund_unshown_after: Text,
    pub(super) max_in_flight: Number,
    pub(super) cookie: Text,
    #[serde(default)]
    pub(super) cors: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) trust_forwarded: Vec<Spanned<String>>,
    pub(super) metrics: Text,
    pub(super) default: Text,
    pub(super) free_paths: Option<bool>,
    pub(super) ignore_case: Option<bool>,
    #[serde(default)]
    pub(super) hosts: Vec<Spanned<String>>,
    pub(super) quota_visitors: Number,
    pub(super) tls: Option<Spanned<TlsTable>>,
    #[serde(default)]
    pub(super) timeouts: TimeoutsTable,
    pub(super) context: Option<ContextTable>,
    #[serde(default)]
    pub(super) accept: AcceptTable,
    #[serde(default)]
    pub(super) crawlers: CrawlersTable,
    #[serde(default)]
    pub(super) metering: MeteringTable,
    #[serde(default)]
    pub(super) route: Vec<Spanned<RouteTable>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsTable {
    pub(super) certificate: Text,
    pub(super) key: Text,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeoutsTable {
    pub(super) connect: Text,
    pub(super) first_byte: Text,
    pub(super) idle: Text,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContextTable {
    pub(super) secret_file: Text,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceptTable {
    pub(super) payment: Option<bool>,
    pub(super) x402: Option<bool>,
    pub(super) crawler: Option<bool>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CrawlersTable {
    #[serde(default)]
    pub(super) names: Vec<String>,
    #[serde(default)]
    pub(super) not: Vec<String>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MeteringTable {
    pub(super) per: Number,
    pub(super) max: Number,
    pub(super) max_bytes: Number,
    pub(super) unreported: Text,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteTable {
    #[serde(rename = "match")]
    pub(super) matches: Option<Spanned<Matches>>,
    pub(super) host: Text,
    pub(super) upstream: Text,
    pub(super) price: Text,
    pub(super) price_per_byte: Text,
    pub(super) price_per_kb: Text,
    pub(super) bytes: Text,
    pub(super) max_bytes: Number,
    pub(super) unit: Option<Spanned<UnitTable>>,
    pub(super) free: Option<Spanned<Free>>,
    pub(super) access: Text,
    pub(super) on_abort: Text,
    pub(super) crawlers: Option<Spanned<ForCrawlersTable>>,
    pub(super) people: Text,
    pub(super) title: Text,
    pub(super) description: Text,
    pub(super) mime: Text,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnitTable {
    pub(super) from: Text,
    pub(super) price: Text,
    pub(super) input: Text,
    pub(super) cached: Text,
    pub(super) cache_write: Text,
    pub(super) output: Text,
    pub(super) per: Number,
    pub(super) max: Number,
    pub(super) max_input: Number,
    pub(super) max_output: Number,
    pub(super) unreported: Text,
    #[serde(default)]
    pub(super) tiers: Vec<Spanned<TierTable>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TierTable {
    pub(super) up_to: Number,
    pub(super) price: Text,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuotaTable {
    pub(super) requests: Option<Spanned<u32>>,
    pub(super) per: Text,
    pub(super) by: Text,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForCrawlersTable {
    pub(super) price: Text,
    pub(super) deny: Option<bool>,
    pub(super) free: Option<bool>,
}

/// One text, or several.
#[derive(Debug)]
pub(super) struct Matches(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Matches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Matches;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text such as \"GET /articles/{id}\", or a list of such texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Matches, E> {
                Ok(Matches(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Matches, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Matches)
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

/// All is free or nothing, or some requests are.
#[derive(Debug)]
pub(super) enum Free {
    All(bool),
    Quota(QuotaTable),
}

impl<'de> Deserialize<'de> for Free {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AllOrSome;
        impl<'de> Visitor<'de> for AllOrSome {
            type Value = Free;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, or a quota such as { requests = 5, per = \"1d\", by = \"ip\" }")
            }

            fn visit_bool<E>(self, all: bool) -> Result<Free, E> {
                Ok(Free::All(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Free, A::Error> {
                QuotaTable::deserialize(MapAccessDeserializer::new(map)).map(Free::Quota)
            }
        }
        deserializer.deserialize_any(AllOrSome)
    }
}
