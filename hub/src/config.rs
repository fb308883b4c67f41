//! The hub's settings: flag over environment over file over default, each with its origin, unknown keys refused.
//!
//! [`KEYS`] is the one table: it makes `DATA/hub.toml`, the names of the environment's variables, and `config show`. All
//! of it is checked before any data is opened.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_protocol::act::{Limits, MAX_CURRENCIES, MAX_PROVISIONAL_DAYS, Policy};
use weir_protocol::amount::{Amount, Currency};

use crate::bank::MAX_PAYMENTS;
use crate::details::{Bic, Iban};
use crate::schedule::Schedule;
use crate::server::limits::{Rate, RateLimits};
use crate::settlement::collect::Debits;

/// The file in the data directory.
pub const FILE: &str = "hub.toml";
/// Environment variables are this, then the key in capitals with `_` for `.`.
pub const ENVIRONMENT_PREFIX: &str = "WEIR_HUB_";
/// Shards at most: each is a thread.
pub const SHARDS_MAX: usize = 64;

/// The largest rate, a second and at once: what nobody reaches.
pub const RATE_MAX: u64 = 1_000_000;
/// The most approvals that can be asked for.
pub const APPROVALS_MAX: u64 = 16;
/// The largest journal segment, in MiB.
pub const SEGMENT_MIB_MAX: u64 = 16 << 10;

/// What a value looks like in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A string; amounts too, so that no digit is lost.
    Text,
    /// A whole number.
    Whole,
    /// A list of strings; elsewhere separated by commas.
    List,
}

/// A setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name, with its section.
    pub name: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// What it is when nobody sets it; empty: not set.
    pub default: &'static str,
    /// What it is for, as the file's comment.
    pub about: &'static str,
}

const fn key(name: &'static str, shape: Shape, default: &'static str, about: &'static str) -> Key {
    Key { name, shape, default, about }
}

/// Every setting there is, section by section.
pub const KEYS: &[Key] = &[
    key("name", Shape::Text, "Weir hub", "What the operator calls this hub."),
    key("listen", Shape::Text, "127.0.0.1:4433", "Where clients connect (UDP). Port 0: any free port."),
    key("public_host", Shape::Text, "", "The host in the hub's address, when it is not the one it listens on."),
    key(
        "anchor",
        Shape::Text,
        "",
        "A file on another disk that notes the newest commit and so reveals an old copy of this directory. A relative \
         path begins here.",
    ),
    key("shards", Shape::Whole, "0", "Threads that judge payments. 0: one for each core but one."),
    key("journal.segment_mib", Shape::Whole, "64", "Size of a journal segment."),
    key("snapshot.interval_s", Shape::Whole, "600", "How often the state is written beside the journal. 0: never."),
    key(
        "rates.registrations",
        Shape::Text,
        "1/20",
        "Registrations of one address: so many a second in the long run / at once after a pause.",
    ),
    key("rates.attaches", Shape::Text, "50/1100", "The same for attaches of an account's lanes."),
    key("rates.grants", Shape::Text, "20/1100", "The same for grants and revocations of an account."),
    key("rates.acts", Shape::Text, "500/2000", "The same for other acts of one address."),
    key("rates.proofs", Shape::Text, "200/4096", "The same for proofs of keys from one address."),
    key(
        "policy.registration",
        Shape::Text,
        "approved",
        "`approved`: an account waits for the operator. `open`: it does not.",
    ),
    key("policy.refund_days", Shape::Whole, "90", "Days in which a payee may refund a payment."),
    key("policy.payment_max", Shape::Text, "0", "Most that one payment may be. 0: no bound."),
    key("policy.payout_min", Shape::Text, "0.01", "Least that is paid out; less is carried over."),
    key(
        "policy.fee_basis_points",
        Shape::Whole,
        "0",
        "The hub's fee, in hundredths of a percent of what an account earned in a window.",
    ),
    key("policy.fee_per_payment", Shape::Text, "0", "Besides, for each payment that it received in the window."),
    key(
        "policy.fee_minimum",
        Shape::Text,
        "0",
        "The fee is at least this in a window in which something was earned, and never more than was earned.",
    ),
    key(
        "policy.approvals",
        Shape::Whole,
        "1",
        "How many operators besides the planner must approve before the bank is told. 0: the hub pays out by itself.",
    ),
    key("policy.currencies", Shape::List, "EUR", "Currencies served: those that the bank connector pays out."),
    key(
        "settlement.cutoff",
        Shape::Text,
        "",
        "When windows are cut off, as cron says it: minute, hour, day of the month, month, day of the week. Not set: on \
         demand only.",
    ),
    key("settlement.time_zone", Shape::Text, "UTC", "The time zone of `settlement.cutoff`, such as `Europe/Berlin`."),
    key(
        "limits.balance_max",
        Shape::Text,
        "0",
        "Most that a deposit may bring an account's available and locked money to. 0: no bound.",
    ),
    key("limits.day_max", Shape::Text, "0", "Most that an account may lock in channels on one day (UTC). 0: no bound."),
    key(
        "limits.iban_wait_s",
        Shape::Whole,
        "259200",
        "Seconds that a changed bank account of an approved account waits until payouts go there.",
    ),
    key(
        "channels.idle_close",
        Shape::Text,
        "0",
        "After how long without a sign of life a channel is closed: days or hours, such as `90d`. `0`: never.",
    ),
    key(
        "bank.name",
        Shape::Text,
        "",
        "Owner of the hub's bank account, as the bank knows it. Not set: the hub's name.",
    ),
    key("bank.iban", Shape::Text, "", "The hub's bank account. Without it nothing is paid out."),
    key("bank.bic", Shape::Text, "", "Its bank, where that bank wants to be named."),
    key(
        "bank.creditor_id",
        Shape::Text,
        "",
        "The SEPA creditor identifier under which the hub collects by direct debit. Not set: it does not.",
    ),
    key("bank.directory", Shape::Text, "bank", "Where `inbox` and `outbox` are. A relative path begins here."),
    key("bank.poll_ms", Shape::Whole, "1000", "How often `inbox` is looked at."),
    key(
        "bank.max_payments_per_file",
        Shape::Whole,
        "100000",
        "Most payments in one file for the bank. What is planned already stays as it is.",
    ),
    key(
        "bank.statement_max_age",
        Shape::Text,
        "5d",
        "How old the bank's newest statement may be before `status` fails: days or hours, such as `5d` or `36h`. `0`: as old \
         as it wants.",
    ),
    key(
        "debit.lead_days",
        Shape::Whole,
        "14",
        "How many days before a direct debit is due its account is told of it (SEPA: 14, unless another term was agreed).",
    ),
    key(
        "debit.at_once",
        Shape::Text,
        "0",
        "Of what was collected under CORE and can still be taken back, so much of an account's counts as available at once. \
         Set when a mandate is accepted.",
    ),
    key(
        "debit.provisional_days",
        Shape::Whole,
        "56",
        "For how many days after its booking the rest stays provisional. Set when a mandate is accepted.",
    ),
];

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag(&'static str),
    /// The environment.
    Environment(String),
    /// The file.
    File(PathBuf),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why the settings cannot be used. Misuse family.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("`{}` is not valid TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<toml::de::Error>,
    },
    /// A key that does not exist.
    #[error("unknown key `{name}` in `{}`", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        name: String,
    },
    /// A value of another kind.
    #[error("`{name}` in `{}` must be {expected}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The key.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A value that makes no sense.
    #[error("`{name}` cannot be `{value}` ({source_of_value}): {what}")]
    Value {
        /// The key.
        name: &'static str,
        /// The value.
        value: String,
        /// Where it comes from.
        source_of_value: Source,
        /// Why not.
        what: String,
    },
}

impl ConfigError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { .. } => Some("`weir-hub config show` lists every key".into()),
            Self::Shape { expected, .. } if expected.contains("string") => {
                Some("write amounts as strings, such as \"0.01\": a number would lose digits".into())
            }
            _ => None,
        }
    }
}

/// The hub's bank account and how files get to its bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BankConfig {
    /// The account's owner.
    pub name: String,
    /// The account; `None`: nothing can be paid out.
    pub iban: Option<Iban>,
    /// Its bank.
    pub bic: Option<Bic>,
    /// Direct debits.
    pub debits: Debits,
    /// Holds `inbox` and `outbox`.
    pub directory: PathBuf,
    /// How often `inbox` is looked at.
    pub poll: Duration,
    /// How old the newest statement may be; zero: as old as it wants.
    pub statement_max_age: Duration,
    /// Most payments in one file for the bank.
    pub max_payments_per_file: usize,
}

/// Settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What the operator calls the hub.
    pub name: String,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The host in the hub's address, if not the one it listens on.
    pub public_host: Option<String>,
    /// The anchor's file.
    pub anchor: Option<PathBuf>,
    /// Threads that judge.
    pub shards: usize,
    /// Bytes of a journal segment.
    pub segment_bytes: u64,
    /// How often a snapshot is written; `None`: never.
    pub snapshot_interval: Option<Duration>,
    /// How often peers may do what costs the hub something.
    pub rates: RateLimits,
    /// The rules.
    pub policy: Policy,
    /// When windows are cut off; `None`: on demand only.
    pub cutoff: Option<Schedule>,
    /// Bounds for everybody who has none of its own.
    pub limits: Limits,
    /// After how long a channel is closed of which nothing is heard; `None`: never.
    pub idle_close: Option<Duration>,
    /// The bank.
    pub bank: BankConfig,
}

/// What the command line sets: key, flag, value.
pub type Flags = Vec<(&'static str, &'static str, String)>;

/// A value and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub name: &'static str,
    /// The value as text; empty: not set.
    pub value: String,
    /// Its origin.
    pub source: Source,
}

/// Every setting with its origin, in the order of [`KEYS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    data: PathBuf,
    settings: Vec<Setting>,
}

/// The name of a key's environment variable.
pub fn variable(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

impl Settings {
    /// Gathers the settings of a data directory. `environment`: looks a variable up.
    pub fn gather(
        data: &Path,
        flags: &Flags,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let path = data.join(FILE);
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => read(&path, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let settings = KEYS.iter().map(|key| {
            let flag = flags.iter().find(|(name, _, _)| *name == key.name);
            let variable = variable(key.name);
            let (value, source) = if let Some((_, flag, value)) = flag {
                (value.clone(), Source::Flag(flag))
            } else if let Some(value) = environment(&variable) {
                (value, Source::Environment(variable))
            } else if let Some(value) = file.get(key.name) {
                (value.clone(), Source::File(path.clone()))
            } else {
                (key.default.to_owned(), Source::Default)
            };
            Setting { name: key.name, value, source }
        });
        Ok(Self { data: data.to_owned(), settings: settings.collect() })
    }

    /// Each setting.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter()
    }

    /// Checks everything.
    pub fn resolve(&self) -> Result<Config, ConfigError> {
        let name = self.take("name", Ok)?;
        let bank_name: Option<String> = self.optional("bank.name", Ok)?;
        Ok(Config {
            listen: self
                .take("listen", |text| parse(&text, "expected an address and a port, such as `127.0.0.1:4433`"))?,
            public_host: self.optional("public_host", Ok)?,
            anchor: self.anchor()?,
            shards: self.take("shards", |text| whole(&text, 0..=SHARDS_MAX as u64).map(shards))?,
            segment_bytes: self.take("journal.segment_mib", |text| Ok(whole(&text, 1..=SEGMENT_MIB_MAX)? << 20))?,
            idle_close: self
                .take("channels.idle_close", |text| age(&text).map(|age| Some(age).filter(|age| !age.is_zero())))?,
            snapshot_interval: self.take("snapshot.interval_s", |text| {
                let seconds = whole(&text, 0..=u64::from(u32::MAX))?;
                Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
            })?,
            rates: RateLimits {
                registrations: self.take("rates.registrations", |text| rate(&text))?,
                attaches: self.take("rates.attaches", |text| rate(&text))?,
                grants: self.take("rates.grants", |text| rate(&text))?,
                acts: self.take("rates.acts", |text| rate(&text))?,
                proofs: self.take("rates.proofs", |text| rate(&text))?,
                ..RateLimits::default()
            },
            policy: self.policy()?,
            cutoff: self.cutoff()?,
            limits: self.limits()?,
            bank: BankConfig {
                name: bank_name.unwrap_or_else(|| name.clone()),
                iban: self.optional("bank.iban", |text| text.parse().map_err(|error| format!("{error}")))?,
                bic: self.optional("bank.bic", |text| text.parse().map_err(|error| format!("{error}")))?,
                debits: self.debits()?,
                directory: self.take("bank.directory", |text| Ok(self.data.join(text)))?,
                poll: self.take("bank.poll_ms", |text| whole(&text, 10..=86_400_000).map(Duration::from_millis))?,
                max_payments_per_file: self
                    .take("bank.max_payments_per_file", |text| whole(&text, 1..=MAX_PAYMENTS as u64))
                    .map(|count| usize::try_from(count).unwrap_or(MAX_PAYMENTS))?,
                statement_max_age: self.take("bank.statement_max_age", |text| age(&text))?,
            },
            name,
        })
    }

    fn policy(&self) -> Result<Policy, ConfigError> {
        let amount = |text: String| text.parse::<Amount>().map_err(|error| error.to_string());
        Ok(Policy {
            open_registration: self.take("policy.registration", |text| match text.as_str() {
                "open" => Ok(true),
                "approved" => Ok(false),
                _ => Err("expected `approved` or `open`".into()),
            })?,
            refund_days: self.take("policy.refund_days", |text| Ok(whole(&text, 0..=36_500)? as u32))?,
            payment_max: self.take("policy.payment_max", amount)?,
            payout_min: self.take("policy.payout_min", amount)?,
            fee_basis_points: self.take("policy.fee_basis_points", |text| Ok(whole(&text, 0..=10_000)? as u32))?,
            fee_per_payment: self.take("policy.fee_per_payment", amount)?,
            fee_minimum: self.take("policy.fee_minimum", amount)?,
            approvals: self.take("policy.approvals", |text| Ok(whole(&text, 0..=APPROVALS_MAX)? as u32))?,
            currencies: self.take("policy.currencies", |text| currencies(&text))?,
        })
    }

    fn debits(&self) -> Result<Debits, ConfigError> {
        let days = |text: String, range| Ok(whole(&text, range)? as u32);
        Ok(Debits {
            creditor_id: self.optional("bank.creditor_id", |text| text.parse().map_err(|error| format!("{error}")))?,
            lead_days: self.take("debit.lead_days", |text| days(text, 1..=300))?,
            at_once: self.take("debit.at_once", |text| text.parse().map_err(|error| format!("{error}")))?,
            provisional_days: self
                .take("debit.provisional_days", |text| days(text, 0..=u64::from(MAX_PROVISIONAL_DAYS)))?,
        })
    }

    fn cutoff(&self) -> Result<Option<Schedule>, ConfigError> {
        let zone = self.setting("settlement.time_zone")?.value.clone();
        self.take("settlement.time_zone", |zone| Schedule::new("* * * * *", &zone).map_err(|error| error.to_string()))?;
        self.optional("settlement.cutoff", |text| Schedule::new(&text, &zone).map_err(|error| error.to_string()))
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        let amount = |text: String| text.parse::<Amount>().map_err(|error| error.to_string());
        Ok(Limits {
            account: None,
            payment_max: Amount::ZERO,
            balance_max: self.take("limits.balance_max", amount)?,
            day_max: self.take("limits.day_max", amount)?,
            iban_wait_s: self.take("limits.iban_wait_s", |text| Ok(whole(&text, 0..=31_536_000)? as u32))?,
        })
    }

    /// An anchor inside the data directory would be copied along with it and reveal nothing.
    fn anchor(&self) -> Result<Option<PathBuf>, ConfigError> {
        let from_here = matches!(self.setting("anchor")?.source, Source::File(_));
        self.optional("anchor", |text| {
            let path = if from_here { self.data.join(&text) } else { PathBuf::from(&text) };
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let inside = match (parent.canonicalize(), self.data.canonicalize()) {
                (Ok(parent), Ok(data)) => parent.starts_with(data),
                _ => path.starts_with(&self.data),
            };
            if inside {
                return Err("an anchor inside the data directory is copied along with it and reveals nothing".into());
            }
            if !parent.is_dir() {
                return Err(format!("there is no directory `{}`", parent.display()));
            }
            Ok(path)
        })
    }

    fn setting(&self, name: &'static str) -> Result<&Setting, ConfigError> {
        self.settings.iter().find(|setting| setting.name == name).ok_or_else(|| ConfigError::Value {
            name,
            value: String::new(),
            source_of_value: Source::Default,
            what: "no such key".into(),
        })
    }

    fn take<T>(&self, name: &'static str, read: impl FnOnce(String) -> Result<T, String>) -> Result<T, ConfigError> {
        let setting = self.setting(name)?;
        let wrong = |what| ConfigError::Value {
            name,
            value: setting.value.clone(),
            source_of_value: setting.source.clone(),
            what,
        };
        if setting.value.is_empty() {
            return Err(wrong("it must not be empty".into()));
        }
        read(setting.value.clone()).map_err(wrong)
    }

    fn optional<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(String) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        if self.setting(name)?.value.is_empty() { Ok(None) } else { self.take(name, read).map(Some) }
    }
}

fn parse<T: std::str::FromStr>(text: &str, expected: &str) -> Result<T, String> {
    text.parse().map_err(|_| expected.to_owned())
}

fn whole(text: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("expected a whole number from {} to {}", range.start(), range.end()))
}

/// `5d`, `36h` or `0`.
pub fn age(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number of days or hours, such as `5d` or `36h`, or `0`".to_owned();
    let (digits, seconds) = match text.strip_suffix('d') {
        Some(days) => (days, 86_400),
        None => match text.strip_suffix('h') {
            Some(hours) => (hours, 3_600),
            None if text == "0" => (text, 0),
            None => return Err(expected()),
        },
    };
    let number: u64 = digits.parse().ok().filter(|number| *number <= 100_000).ok_or_else(expected)?;
    Ok(Duration::from_secs(number * seconds))
}

/// `PER_SECOND/AT_ONCE`.
fn rate(text: &str) -> Result<Rate, String> {
    let (per_second, burst) =
        text.split_once('/').ok_or("expected a number a second and a number at once, such as `50/1100`")?;
    let number = |text: &str| Ok::<_, String>(whole(text.trim(), 1..=RATE_MAX)? as u32);
    Ok(Rate { per_second: number(per_second)?, burst: number(burst)? })
}

/// Threads that move bytes: half the cores. Signature checks, which shards do, are the larger part.
pub fn io_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 16))
}

fn shards(configured: u64) -> usize {
    match usize::try_from(configured).unwrap_or(SHARDS_MAX) {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1)).clamp(1, 16),
        shards => shards,
    }
}

fn currencies(text: &str) -> Result<Vec<Currency>, String> {
    let mut list: Vec<Currency> = Vec::new();
    for code in text.split(',').map(str::trim) {
        let currency: Currency = code.parse().map_err(|error| format!("{error}"))?;
        if currency != Currency::EUR {
            return Err(format!("no bank connector pays out {currency}; `EUR` is served"));
        }
        if list.contains(&currency) {
            return Err(format!("{currency} is named twice"));
        }
        list.push(currency);
    }
    if list.len() > MAX_CURRENCIES { Err(format!("at most {MAX_CURRENCIES}")) } else { Ok(list) }
}

/// The file's values as text, by key.
fn read(path: &Path, text: &str) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let table: toml::Table =
        text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    let mut values = BTreeMap::new();
    flatten(path, "", &table, &mut values)?;
    Ok(values)
}

fn flatten(
    path: &Path,
    section: &str,
    table: &toml::Table,
    values: &mut BTreeMap<&'static str, String>,
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let name = format!("{section}{name}");
        let known = KEYS.iter().find(|key| key.name == name);
        let prefix = format!("{name}.");
        match (known, value) {
            (Some(key), value) => {
                values.insert(key.name, as_text(path, key, value)?);
            }
            (None, toml::Value::Table(inner)) if KEYS.iter().any(|key| key.name.starts_with(&prefix)) => {
                flatten(path, &prefix, inner, values)?;
            }
            (None, _) => return Err(ConfigError::Unknown { path: path.to_owned(), name }),
        }
    }
    Ok(())
}

fn as_text(path: &Path, key: &Key, value: &toml::Value) -> Result<String, ConfigError> {
    let wrong = |expected| ConfigError::Shape { path: path.to_owned(), name: key.name, expected };
    match (key.shape, value) {
        (Shape::Text, toml::Value::String(text)) => Ok(text.clone()),
        (Shape::Whole, toml::Value::Integer(number)) => Ok(number.to_string()),
        (Shape::List, toml::Value::Array(list)) => {
            let items: Option<Vec<&str>> = list.iter().map(toml::Value::as_str).collect();
            items.map(|items| items.join(",")).ok_or_else(|| wrong("a list of strings"))
        }
        (Shape::Text, _) => Err(wrong("a string")),
        (Shape::Whole, _) => Err(wrong("a whole number")),
        (Shape::List, _) => Err(wrong("a list of strings")),
    }
}

/// The commented file of a new hub. What `set` names is written out, the rest stands as a comment with its default.
pub fn template(set: &BTreeMap<&'static str, String>) -> String {
    let mut text = String::from(
        "# Settings of this hub. A flag or an environment variable (WEIR_HUB_ and the key in capitals, `.` as `_`) goes\n\
         # before this file; `weir-hub config show` says where each value comes from. Unknown keys are refused.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (in_section, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if in_section != section {
            section = in_section;
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[{section}]\n");
        }
        let value = set.get(key.name);
        let mark = if value.is_some() { "" } else { "# " };
        let value = value.map_or(key.default, String::as_str);
        let shown = match key.shape {
            Shape::Text => toml::Value::from(value).to_string(),
            Shape::Whole => value.to_owned(),
            Shape::List => toml::Value::from(value.split(',').map(str::trim).collect::<Vec<_>>()).to_string(),
        };
        let _ = write!(text, "\n# {}\n{mark}{name} = {shown}\n", key.about);
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn age_is_in_days_or_hours() {
        let hours = |text| age(text).map(|age| age.as_secs() / 3600);
        assert_eq!((hours("5d"), hours("36h"), hours("0")), (Ok(120), Ok(36), Ok(0)));
        assert_eq!(hours("100000d"), Ok(2_400_000));
        for bad in ["", "5", "d", "-1d", "1.5d", "100001d", "5 d", "1w"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }

    fn with_file(text: &str) -> (tempfile::TempDir, Result<Settings, ConfigError>) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), text).unwrap();
        let settings = Settings::gather(directory.path(), &Vec::new(), |_| None);
        (directory, settings)
    }

    fn resolve(text: &str) -> Result<Config, ConfigError> {
        let (_directory, settings) = with_file(text);
        settings?.resolve()
    }

    #[test]
    fn flag_goes_before_environment_before_file_before_default() {
        let (directory, _) = with_file("listen = \"127.0.0.1:1\"\n[policy]\nrefund_days = 7\n");
        let environment = |name: &str| match name {
            "WEIR_HUB_LISTEN" => Some("127.0.0.1:2".to_owned()),
            "WEIR_HUB_POLICY_FEE_BASIS_POINTS" => Some("25".to_owned()),
            _ => None,
        };
        let gather = |flags: &Flags| Settings::gather(directory.path(), flags, environment).unwrap();
        let settings = gather(&Vec::new());
        let config = settings.resolve().unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!((config.policy.refund_days, config.policy.fee_basis_points), (7, 25));
        assert_eq!(config.policy.payout_min, Amount::from_nanos(10_000_000));
        let source = |settings: &Settings, name: &str| {
            settings.iter().find(|setting| setting.name == name).unwrap().source.to_string()
        };
        assert_eq!(source(&settings, "listen"), "environment WEIR_HUB_LISTEN");
        assert!(source(&settings, "policy.refund_days").starts_with("file "));
        assert_eq!(source(&settings, "name"), "default");
        let settings = gather(&vec![("listen", "--listen", "127.0.0.1:3".into())]);
        assert_eq!(settings.resolve().unwrap().listen.port(), 3);
        assert_eq!(source(&settings, "listen"), "flag --listen");
    }

    #[test]
    fn unknown_keys_and_other_kinds_of_values_are_refused() {
        for unknown in ["nmae = \"x\"", "[policy]\nfee = 1", "[police]\n", "policy = 3", "[journal.deep]\nx = 1"] {
            assert!(matches!(resolve(unknown), Err(ConfigError::Unknown { .. })), "{unknown}");
        }
        for shape in ["name = 1", "shards = \"1\"", "[policy]\npayout_min = 0.01", "[policy]\ncurrencies = \"EUR\""] {
            assert!(matches!(resolve(shape), Err(ConfigError::Shape { .. })), "{shape}");
        }
        assert!(matches!(resolve("name ="), Err(ConfigError::Syntax { .. })));
    }

    #[test]
    fn values_are_checked_on_both_sides_of_their_bounds() {
        let good = [
            "[policy]\napprovals = 16",
            "[settlement]\ncutoff = \"0 2 * * MON-FRI\"",
            "shards = 64",
            "[policy]\nfee_basis_points = 10000",
            "[journal]\nsegment_mib = 1",
            "[bank]\npoll_ms = 10",
            "[bank]\nmax_payments_per_file = 1",
            "[bank]\nmax_payments_per_file = 100000",
        ];
        for text in good {
            assert!(resolve(text).is_ok(), "{text}");
        }
        let bad = [
            "shards = 65",
            "shards = -1",
            "listen = \"here\"",
            "name = \"\"",
            "[policy]\nfee_basis_points = 10001",
            "[policy]\nregistration = \"closed\"",
            "[policy]\napprovals = 17",
            "[settlement]\ncutoff = \"61 * * * *\"",
            "[settlement]\ncutoff = \"0 2 * * * UTC\"",
            "[settlement]\ntime_zone = \"Nowhere\"",
            "[policy]\npayout_min = \"-1\"",
            "[policy]\ncurrencies = [\"USD\"]",
            "[policy]\ncurrencies = [\"EUR\", \"EUR\"]",
            "[policy]\ncurrencies = []",
            "[bank]\niban = \"DE00370400440532013000\"",
            "[bank]\nbic = \"X\"",
            "[bank]\npoll_ms = 9",
            "[bank]\nmax_payments_per_file = 0",
            "[bank]\nmax_payments_per_file = 100001",
            "[journal]\nsegment_mib = 0",
        ];
        for text in bad {
            assert!(matches!(resolve(text), Err(ConfigError::Value { .. })), "{text}");
        }
    }

    #[test]
    fn rates_are_two_numbers_and_default_to_the_servers() {
        assert_eq!(resolve("").unwrap().rates, RateLimits::default());
        let rates = resolve("[rates]\nattaches = \"1000000 / 1\"").unwrap().rates;
        assert_eq!(rates.attaches, Rate { per_second: 1_000_000, burst: 1 });
        for bad in ["1", "0/1", "1/0", "1000001/1", "1/1000001", "1/2/3", "/", "-1/1"] {
            assert!(matches!(resolve(&format!("[rates]\nacts = \"{bad}\"")), Err(ConfigError::Value { .. })), "{bad}");
        }
    }

    #[test]
    fn segments_are_within_what_the_journal_takes() {
        use crate::store::journal::{SEGMENT_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
        assert_eq!(SEGMENT_MIB_MAX << 20, SEGMENT_BYTES_MAX);
        const { assert!(SEGMENT_BYTES_MIN <= 1 << 20) };
        assert_eq!(resolve("").unwrap().segment_bytes, SEGMENT_BYTES);
    }

    #[test]
    fn anchor_inside_the_data_directory_is_refused() {
        assert!(resolve("anchor = \"anchor\"").is_err());
        assert!(resolve("anchor = \"./../nowhere/anchor\"").is_err());
        let config = resolve("anchor = \"../weir.anchor\"").unwrap();
        assert!(config.anchor.unwrap().ends_with("../weir.anchor"));
    }

    #[test]
    fn template_is_all_defaults_and_keeps_what_was_set() {
        let plain = resolve(&template(&BTreeMap::new())).unwrap();
        assert_eq!(plain, Config { bank: plain.bank.clone(), ..resolve("").unwrap() });
        let set = BTreeMap::from([("name", "A \"hub\"".to_owned()), ("policy.currencies", "EUR".to_owned())]);
        let text = template(&set);
        assert_eq!(resolve(&text).unwrap().name, "A \"hub\"");
        for key in KEYS {
            assert!(text.contains(key.about), "{}", key.name);
        }
    }
}
