//! Being paid over HTTP: `gate`, `gate check`, `gate doctor`, and what its operator asks and does: `gate status`,
//! `gate balances`, `gate refund`, `gate reload`.

mod doctor;
mod operate;
mod refund;
mod run;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use weir_client::Span;
use weir_client::gate::check::{self, Explanation, Outcome, Question, Report};
use weir_client::gate::config::GateConfig;
use weir_client::gate::price::{Units, Usage};
use weir_client::protocol::amount::Currency;

use super::failure::Failure;
use super::printer::{self, Printer};

pub(super) use doctor::{DoctorArgs, doctor};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  weir gate --config gate.toml\n  weir gate check --config gate.toml --request 'GET /articles/1'\n  weir gate doctor --url https://news.example/articles/1"
)]
pub(super) struct GateArgs {
    #[command(subcommand)]
    pub(super) command: Option<GateCommand>,
    /// The configuration of the gate to run.
    #[arg(long, value_name = "FILE", default_value = "gate.toml")]
    pub(super) config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum GateCommand {
    /// Check a configuration, show what each route costs, or what one request would cost.
    Check(CheckArgs),
    /// Buy from a running gate as a payer does, and say which line is wrong.
    Doctor(DoctorArgs),
    /// Show how the gate is: sums, store, prices, certificate, credits.
    Status(operate::StatusArgs),
    /// List balances: what was paid, drawn, is left, is being refunded.
    Balances(operate::BalancesArgs),
    /// Give back what is left of payments.
    Refund(refund::RefundArgs),
    /// Have the running gate read its prices anew.
    Reload(operate::ReloadArgs),
}

/// Any of the gate's verbs but `doctor`, which pays from a home.
pub(super) fn gate(printer: Printer, args: GateArgs) -> Result<(), Failure> {
    let command = match args.command {
        Some(GateCommand::Check(args)) => return check(printer, &args),
        command => command,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match command {
            None => run::run(printer, &args.config).await,
            Some(GateCommand::Status(args)) => operate::status(printer, &args).await,
            Some(GateCommand::Balances(args)) => operate::balances(printer, &args).await,
            Some(GateCommand::Refund(args)) => refund::refund(printer, &args).await,
            Some(GateCommand::Reload(args)) => operate::reload(printer, &args).await,
            Some(GateCommand::Check(_) | GateCommand::Doctor(_)) => Ok(()),
        }
    });
    runtime.shutdown_background();
    done
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir gate check --config gate.toml\n  weir gate check --request 'GET /articles/1' -H 'user-agent: GPTBot'\n  weir gate check --request 'POST /v1/chat/completions' --units input=1200,output=300"
)]
pub(super) struct CheckArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "gate.toml")]
    config: PathBuf,
    /// Say what this request would cost: a method and a path or URL.
    #[arg(long, value_name = "REQUEST")]
    request: Option<Question>,
    /// A header of the request.
    #[arg(long, short = 'H', value_name = "NAME: VALUE", requires = "request")]
    header: Vec<Header>,
    /// The bytes of the answer's body.
    #[arg(long, value_name = "N", requires = "request")]
    bytes: Option<u64>,
    /// The bytes of the request's body.
    #[arg(long, value_name = "N", requires = "request")]
    request_bytes: Option<u64>,
    /// The units that the upstream reports: a number, or tokens by kind (input, cached, cache_write, output).
    #[arg(long, value_name = "N|KIND=N,…", requires = "request")]
    units: Option<UnitsText>,
}

/// A header of a request.
#[derive(Debug, Clone)]
struct Header(http::HeaderName, http::HeaderValue);

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "expected `name: value`";
        let (name, value) = text.split_once(':').ok_or(wrong)?;
        Ok(Self(name.trim().parse().map_err(|_| wrong)?, value.trim().parse().map_err(|_| wrong)?))
    }
}

/// Units on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UnitsText(Units);

impl FromStr for UnitsText {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "expected a number, or such as `input=1200,output=300`";
        if let Ok(count) = text.parse() {
            return Ok(Self(Units::plain(count)));
        }
        let mut units = Units::default();
        for part in text.split(',') {
            let (kind, count) = part.split_once('=').ok_or(wrong)?;
            let place = match kind.trim() {
                "input" => &mut units.input,
                "cached" => &mut units.cached,
                "cache_write" => &mut units.cache_write,
                "output" => &mut units.output,
                _ => return Err(wrong),
            };
            *place = count.trim().parse().map_err(|_| wrong)?;
        }
        Ok(Self(units))
    }
}

/// Checks a configuration, or asks it about a request.
pub(super) fn check(printer: Printer, args: &CheckArgs) -> Result<(), Failure> {
    let config = match GateConfig::load(&args.config) {
        Ok(config) => config,
        Err(errors) => {
            printer.print(&check::failed(&args.config, &errors), show_report)?;
            return Err(Failure::said());
        }
    };
    let Some(question) = &args.request else {
        return printer.print(&check::check(&config), show_report);
    };
    let mut headers = http::HeaderMap::new();
    for Header(name, value) in &args.header {
        headers.append(name, value.clone());
    }
    let used = used(args);
    let told = check::explain(&config.table, config.settings.currency, question, &headers, used.as_ref());
    if question.host.is_empty() && headers.get("host").is_none() && !config.table.hosts().is_empty() {
        let error = anyhow!("the configuration names hosts, and the request names none");
        return Err(Failure::usage(error).hint("name one: `--request 'GET https://news.example/articles/1'`"));
    }
    printer.print(&told, show_explanation)
}

fn used(args: &CheckArgs) -> Option<Usage> {
    let asked = args.bytes.is_some() || args.request_bytes.is_some() || args.units.is_some();
    asked.then(|| Usage {
        request_bytes: args.request_bytes.unwrap_or(0),
        response_bytes: args.bytes.unwrap_or(0),
        units: args.units.map_or(Units::default(), |UnitsText(units)| units),
    })
}

fn show_report(report: &Report) -> String {
    let mut lines = Vec::new();
    for (kind, notes) in [("error", &report.errors), ("warning", &report.warnings)] {
        for note in notes {
            // The text of an error names its line.
            let line = note.line.filter(|_| kind == "warning").map(|line| format!("line {line}: ")).unwrap_or_default();
            lines.push(format!("{kind}: {line}{}", note.text));
            lines.extend(note.hint.as_ref().map(|hint| format!("  hint: {hint}")));
        }
    }
    if report.ok {
        let rows = report.routes.iter().map(|route| {
            let access = route.access_ms.map_or_else(|| "once".to_owned(), |ms| Span::Ms(ms).to_string());
            let crawlers = if route.crawlers == route.people { "the same".to_owned() } else { route.crawlers.clone() };
            let quota = route.quota.clone().unwrap_or_default();
            [route.line.to_string(), route.matches(), route.people.clone(), crawlers, access, quota]
        });
        let heading = ["line", "request", "people", "crawlers", "opens for", "free first"];
        lines.push(printer::table(heading, rows, "No routes."));
        lines.push(format!("All else: {}.", report.default.as_deref().unwrap_or_default()));
    }
    lines.join("\n")
}

fn show_explanation(told: &Explanation) -> String {
    let amount =
        |name, amount: Option<_>, currency: Currency| amount.map(|amount| (name, format!("{amount} {currency}")));
    let outcome = match told.outcome {
        Outcome::Free => "free",
        Outcome::Priced => "priced",
        Outcome::Denied => "denied",
        Outcome::Malformed => "refused with 400",
    };
    let mut facts = vec![("request", told.request.clone()), ("outcome", outcome.to_owned()), ("why", told.why.clone())];
    facts.extend(told.line.map(|line| ("line", line.to_string())));
    facts.extend(amount("known before", told.fixed, told.currency));
    facts.extend(amount("at most", told.most, told.currency));
    facts.extend(amount("this use", told.charge, told.currency));
    facts.extend(told.resource.as_ref().map(|resource| ("opens", resource.clone())));
    facts.extend(told.access_ms.map(|ms| ("for", Span::Ms(ms).to_string())));
    facts.extend(told.quota.as_ref().map(|quota| ("free first", quota.clone())));
    printer::facts(facts)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn units_are_a_number_or_tokens_by_kind() {
        assert_eq!("12".parse(), Ok(UnitsText(Units::plain(12))));
        let tokens = Units { input: 1, cached: 2, cache_write: 3, output: 4, plain: 0 };
        assert_eq!("input=1,cached=2, cache_write=3,output=4".parse(), Ok(UnitsText(tokens)));
        for bad in ["", "-1", "input", "input=", "tokens=3", "1,2"] {
            assert!(bad.parse::<UnitsText>().is_err(), "{bad}");
        }
    }

    #[test]
    fn header_is_a_name_and_a_value() {
        let header: Header = "User-Agent:  GPTBot".parse().unwrap();
        assert_eq!((header.0.as_str(), header.1.to_str().unwrap()), ("user-agent", "GPTBot"));
        for bad in ["", "user-agent", "user agent: x", "x: a\nb"] {
            assert!(bad.parse::<Header>().is_err(), "{bad}");
        }
    }
}
