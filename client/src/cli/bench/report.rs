//! The result: one JSON object, or a table for people. Every figure stands beside its limit where it has one.

use serde::Serialize;

use super::super::printer;
use super::options::Mode;

/// SHA-256 of a payment at the hub at least: state, id, leaf, and its node of the tree.
pub(super) const HUB_HASHES: f64 = 4.0;
/// The same at the client: the state.
pub(super) const CLIENT_HASHES: f64 = 1.0;
/// Bytes of a payment that no encoding makes smaller: its reference is random.
pub(super) const REFERENCE_BYTES: f64 = 32.0;

/// The result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) mode: Mode,
    pub(super) channels: usize,
    pub(super) lanes: usize,
    pub(super) connections: usize,
    pub(super) payees: usize,
    /// Payments of a lane that waited for outcomes, in a closed loop.
    pub(super) window: Option<usize>,
    /// Payments due a second, in an open loop.
    pub(super) rate: Option<u32>,
    /// Payments given at once.
    pub(super) burst: Option<u32>,
    pub(super) spawned: bool,
    /// Measured time, without warm-up and without what lies between slices.
    pub(super) seconds: f64,
    pub(super) slices: u32,
    /// Payments in the measured time.
    pub(super) payments: u64,
    pub(super) payments_per_second: f64,
    pub(super) frames_per_payment: f64,
    /// Of those that the hub had to check: one a group.
    pub(super) signatures_per_payment: f64,
    pub(super) latency_us: Latency,
    pub(super) hub_cpu_us_per_payment: Option<f64>,
    pub(super) client_cpu_us_per_payment: Option<f64>,
    /// CPU seconds a second.
    pub(super) hub_cores: Option<f64>,
    pub(super) client_cores: Option<f64>,
    pub(super) commits_per_second: Option<f64>,
    pub(super) payments_per_commit: Option<f64>,
    pub(super) journal_bytes_per_payment: Option<f64>,
    pub(super) journal_bytes_per_commit: Option<f64>,
    pub(super) hub_rss_bytes: Option<u64>,
    pub(super) hub_rss_start_bytes: Option<u64>,
    pub(super) client_rss_bytes: Option<u64>,
    /// What the subscribed payee heard; null without one.
    pub(super) credits: Option<Credits>,
    pub(super) limits: Limits,
    pub(super) ratios: Ratios,
    pub(super) audit: Verdict,
    pub(super) audit_details: Audit,
}

/// From giving an order, or from when it was due, to the checked proof.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Latency {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
}

/// Credits of a subscribed payee.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Credits {
    /// In the whole run.
    pub(super) payments: u64,
    /// In the measured time.
    pub(super) per_second: f64,
    /// From the commit's time to the check.
    pub(super) lag_ms_p50: u64,
    pub(super) lag_ms_p99: u64,
    pub(super) lag_ms_max: u64,
    /// Whether number and sum are those of what was paid.
    pub(super) complete: bool,
}

/// Raw limits, measured in the same run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Limits {
    pub(super) schnorr_verify_us: f64,
    pub(super) schnorr_sign_us: f64,
    pub(super) sha256_us: f64,
    pub(super) fdatasync_us_p50: f64,
    pub(super) fdatasync_us_p99: f64,
    /// Bytes that were appended before each sync.
    pub(super) append_bytes: u64,
    /// Bare quinn, per message: the answering side's CPU, the asking side's.
    pub(super) echo_hub_cpu_us: Option<f64>,
    pub(super) echo_client_cpu_us: Option<f64>,
    /// Bytes of its messages: those of a frame and of an answer.
    pub(super) echo_bytes_up: u64,
    pub(super) echo_bytes_down: u64,
    /// The least CPU that a payment can cost the hub. Single: verify + echo. Adaptive: verify × signatures per payment +
    /// echo × frames per payment + 4 hashes.
    pub(super) hub_floor_us: Option<f64>,
    /// The same for the client: (sign + echo) × frames per payment + verify × commits × connections per payment; adaptive:
    /// + 1 hash.
    pub(super) client_floor_us: Option<f64>,
    /// Payments a second if all cores did nothing but that.
    pub(super) payments_per_second: Option<f64>,
    /// fdatasync p50 + verify + 2 signs.
    pub(super) latency_floor_us: f64,
    pub(super) cores: usize,
}

/// Results ÷ limits.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Ratios {
    pub(super) hub_cpu_to_verify: Option<f64>,
    pub(super) hub_cpu_to_floor: Option<f64>,
    pub(super) client_cpu_to_floor: Option<f64>,
    pub(super) payments_per_second_to_limit: Option<f64>,
    pub(super) p50_to_floor: f64,
    pub(super) p90_to_floor: f64,
    pub(super) p99_to_fdatasync_p99: f64,
    pub(super) p999_to_fdatasync_p99: f64,
    pub(super) max_to_fdatasync_p99: f64,
    /// Commits a second × fdatasync p50: the share of time in which the disk is being synced.
    pub(super) commits_to_fdatasync: Option<f64>,
    /// ÷ 32 bytes, the random reference of each payment.
    pub(super) journal_bytes_to_reference: Option<f64>,
}

/// What the books say at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// Audited from the journal: all follows, and every payment is there, to the nano.
    Clean,
    /// The hub of a home says that its channels have spent what was paid, to the nano. Its journal was not read.
    Agrees,
    /// The audit found what does not follow.
    Broken,
    /// A payment that was acknowledged is not there, or one too many is.
    Differs,
}

/// The same in numbers.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Audit {
    /// Payments that the client saw proven, in the whole run.
    pub(super) paid: u64,
    /// Payments in the journal; null where it was not read.
    pub(super) found: Option<u64>,
    /// Those that were acknowledged and are not there.
    pub(super) missing: u64,
    /// Sums, in units.
    pub(super) paid_amount: String,
    pub(super) found_amount: String,
    pub(super) commits: Option<u64>,
    pub(super) first_error: Option<serde_json::Value>,
}

impl Verdict {
    pub(super) const fn is_good(self) -> bool {
        matches!(self, Self::Clean | Self::Agrees)
    }
}

/// To three decimal places: more would be noise.
pub(super) fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl Report {
    /// The table for people.
    pub(super) fn show(&self) -> String {
        let limits = &self.limits;
        let ratios = &self.ratios;
        let us = |value: f64| format!("{value:.1} µs");
        let maybe = |value: Option<f64>, show: &dyn Fn(f64) -> String| value.map_or("?".to_owned(), show);
        let ratio = |value: Option<f64>| maybe(value, &|value| format!("{value:.2}"));
        let some = |value: f64| ratio(Some(value));
        let bytes = |value: f64| format!("{value:.1} B");
        let plain = |value: f64| format!("{value:.1}");
        let row = |name: &str, value: String, limit: String, ratio: String| [name.to_owned(), value, limit, ratio];
        let none = String::new;
        let sync99 = format!("fdatasync p99 {}", us(limits.fdatasync_us_p99));
        let latency = |value: u64| format!("{value} µs");
        let mut rows = vec![
            row(
                "payments/s",
                format!("{:.0}", self.payments_per_second),
                maybe(limits.payments_per_second, &|value| format!("{value:.0} on {} cores", limits.cores)),
                ratio(ratios.payments_per_second_to_limit),
            ),
            row(
                "latency p50",
                latency(self.latency_us.p50),
                format!("sync + verify + 2 signs {}", us(limits.latency_floor_us)),
                some(ratios.p50_to_floor),
            ),
            row("latency p90", latency(self.latency_us.p90), "the same".to_owned(), some(ratios.p90_to_floor)),
            row("latency p99", latency(self.latency_us.p99), sync99, some(ratios.p99_to_fdatasync_p99)),
            row(
                "latency p99.9",
                latency(self.latency_us.p999),
                "the same".to_owned(),
                some(ratios.p999_to_fdatasync_p99),
            ),
            row("latency max", latency(self.latency_us.max), "the same".to_owned(), some(ratios.max_to_fdatasync_p99)),
            row(
                "hub CPU/payment",
                maybe(self.hub_cpu_us_per_payment, &us),
                format!("verify {}", us(limits.schnorr_verify_us)),
                ratio(ratios.hub_cpu_to_verify),
            ),
            row("", none(), format!("floor {}", maybe(limits.hub_floor_us, &us)), ratio(ratios.hub_cpu_to_floor)),
            row(
                "client CPU/payment",
                maybe(self.client_cpu_us_per_payment, &us),
                format!("floor {}", maybe(limits.client_floor_us, &us)),
                ratio(ratios.client_cpu_to_floor),
            ),
            row("payments/signature", plain(1.0 / self.signatures_per_payment.max(f64::MIN_POSITIVE)), none(), none()),
            row("payments/commit", maybe(self.payments_per_commit, &plain), none(), none()),
            row(
                "commits/s",
                maybe(self.commits_per_second, &plain),
                format!("fdatasync p50 {}", us(limits.fdatasync_us_p50)),
                ratio(ratios.commits_to_fdatasync),
            ),
            row(
                "journal/payment",
                maybe(self.journal_bytes_per_payment, &bytes),
                "reference 32 B".to_owned(),
                ratio(ratios.journal_bytes_to_reference),
            ),
        ];
        let mib = |bytes: Option<u64>| bytes.map_or("?".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        rows.push(row(
            "hub RSS",
            mib(self.hub_rss_bytes),
            format!("at the start {}", mib(self.hub_rss_start_bytes)),
            none(),
        ));
        if let Some(credits) = &self.credits {
            let complete = if credits.complete { "all heard" } else { "INCOMPLETE" };
            rows.push(row("credits/s", format!("{:.0}", credits.per_second), complete.to_owned(), none()));
            let lag =
                format!("p50 {} ms, p99 {} ms, max {} ms", credits.lag_ms_p50, credits.lag_ms_p99, credits.lag_ms_max);
            rows.push(row("credit lag", lag, none(), none()));
        }
        let table = printer::table(["RESULT", "VALUE", "LIMIT IN THIS RUN", "RATIO"], rows, "");
        format!("{}\n\n{table}\n\n{}", self.heading(), self.show_audit())
    }

    fn heading(&self) -> String {
        let mode = match self.mode {
            Mode::Single => "one signature per payment",
            Mode::Adaptive => "adaptive signatures",
        };
        let pace = match (self.rate, self.burst) {
            (Some(rate), _) => format!("{rate} payments due a second"),
            (None, Some(burst)) => format!("{burst} payments at once"),
            (None, None) => format!("{} in flight a lane", self.window.unwrap_or_default()),
        };
        format!(
            "{mode}, {pace}: {} channels × {} lanes on {} connections to {} payees, {:.1} s",
            self.channels, self.lanes, self.connections, self.payees, self.seconds
        )
    }

    fn show_audit(&self) -> String {
        let audit = &self.audit_details;
        match self.audit {
            Verdict::Clean => format!(
                "audit: clean; {} payments over {} EUR, every one in the journal's {} commits",
                audit.paid,
                audit.paid_amount,
                audit.commits.unwrap_or_default()
            ),
            Verdict::Agrees => {
                format!(
                    "audit: the hub's channels have spent {} EUR, as paid; its journal was not read",
                    audit.paid_amount
                )
            }
            Verdict::Broken => {
                format!("audit: BROKEN: {}", audit.first_error.as_ref().map_or_else(String::new, ToString::to_string))
            }
            Verdict::Differs => format!(
                "audit: DIFFERS: paid {} over {} EUR, found {} over {} EUR",
                audit.paid,
                audit.paid_amount,
                audit.found.map_or("?".to_owned(), |found| found.to_string()),
                audit.found_amount
            ),
        }
    }
}
