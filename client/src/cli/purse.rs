//! What `fetch` and `proxy` pay with: the home, held only while something is paid, so that several commands can run beside
//! each other; and the options that both take.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;
use weir_client::fetch::{
    DAY_MS, FetchError, Later, Limits, Options, Paid, Payer, Prepay, Purse, PurseError, Rules, Settled, Store, Target,
    settle,
};
use weir_client::protocol::amount::{Amount, Currency};
use weir_client::protocol::id::{AccountId, HubId, LaneId, Reference};
use weir_client::protocol::lane::payer::Order;
use weir_client::{Client, Error};

use super::context::{Context, Opener, now};
use super::failure::{FAILED, Failure, UNKNOWN};
use super::lanes;
use super::pay::{Choice, LaneChoice, choose};
use super::text::Prefix;

/// Options of what is paid with.
#[derive(Debug, Args)]
pub(super) struct PurseArgs {
    /// The most that a host is paid in a day (UTC), by all commands of this home.
    #[arg(long, value_name = "AMOUNT", env = "WEIR_HOST_BUDGET")]
    host_budget: Option<Amount>,
    /// The most that is paid in a day (UTC), by all commands of this home.
    #[arg(long, value_name = "AMOUNT", env = "WEIR_DAY_BUDGET")]
    day_budget: Option<Amount>,
    /// Pay more at once, and draw it request by request: so many times the price, as `20x`, or an amount.
    #[arg(long, value_name = "AMOUNT")]
    prepay: Option<PrepayChoice>,
    /// Pay only this account; may be given more than once.
    #[arg(long = "payee", value_name = "ACCOUNT")]
    payees: Vec<AccountId>,
    /// The channel to pay from: its id, or the first 6 digits or more.
    #[arg(long)]
    channel: Option<Prefix>,
    /// The lane to pay with: its number in the channel, its id, or the first 6 digits or more of it.
    #[arg(long, value_name = "LANE")]
    lane: Option<LaneChoice>,
    /// The currency of all amounts here [default: that of the lanes of this home].
    #[arg(long)]
    currency: Option<Currency>,
    /// Give up what was paid for and not served, and pay again.
    #[arg(long)]
    pay_again: bool,
    /// Certificates in PEM that are trusted beside the system's.
    #[arg(long, value_name = "FILE")]
    pub(super) cacert: Option<PathBuf>,
    /// Append a line of JSON for each request to this file.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
}

/// `20x` or an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PrepayChoice(Prepay);

impl FromStr for PrepayChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(times) = text.strip_suffix('x') {
            let times: u32 = times.parse().map_err(|_| "not a number of times, such as `20x`".to_owned())?;
            return if times == 0 { Err("zero times is nothing".to_owned()) } else { Ok(Self(Prepay::Times(times))) };
        }
        text.parse().map(|amount| Self(Prepay::Amount(amount))).map_err(|error| format!("{error}"))
    }
}

/// What a payer is made of.
pub(super) struct Made {
    pub(super) payer: Payer,
    pub(super) purse: Arc<HomePurse>,
    pub(super) currency: Currency,
}

/// A payer on the home, within limits. The home is not held before something is paid, and `rest` after it.
pub(super) fn payer(
    context: &Context,
    args: &PurseArgs,
    max_price: Option<Amount>,
    budget: Option<Amount>,
    told: Option<tokio::sync::mpsc::UnboundedSender<weir_client::fetch::Bought>>,
    rest: Duration,
) -> Result<Made, Failure> {
    let home = context.look()?;
    let all: BTreeSet<Currency> = home.lanes()?.iter().map(|record| record.terms.currency).collect();
    let currency = match (args.currency, all.iter().next(), all.len()) {
        (Some(currency), _, _) => currency,
        (None, Some(only), 1) => *only,
        (None, None, _) => {
            let error = anyhow!("this home has nothing to pay with");
            return Err(Failure::from(error).hint("`weir open CAPACITY` opens a channel"));
        }
        (None, Some(_), _) => {
            return Err(Failure::usage(anyhow!("lanes of several currencies: name one with `--currency`")));
        }
    };
    let limits =
        Limits { per_request: max_price, per_host: args.host_budget, per_period: args.day_budget, in_all: budget };
    let store = Store::open(context.home(), BTreeMap::from([(currency, limits)]), DAY_MS)?;
    let choice = Choice { channel: args.channel.clone(), lane: args.lane.clone(), currency: Some(currency) };
    let purse =
        Arc::new(HomePurse { hub: home.hub().hub, opener: context.opener(), choice, rest, held: Arc::default() });
    let options = Options {
        rules: Rules { payees: args.payees.clone() },
        prepay: args.prepay.map_or(Prepay::Exact, |PrepayChoice(prepay)| prepay),
        pay_again: args.pay_again,
        told,
    };
    let payer = Payer::new(Arc::clone(&purse) as Arc<dyn Purse>, store, options);
    Ok(Made { payer, purse, currency })
}

/// The client that `--cacert` and `--timeout` describe.
pub(super) fn web(cacert: Option<&PathBuf>, timeout: Option<Duration>) -> Result<reqwest::Client, Failure> {
    Ok(weir_client::fetch::client(roots(cacert)?.as_deref(), timeout)?)
}

/// The certificates that `--cacert` names.
pub(super) fn roots(cacert: Option<&PathBuf>) -> Result<Option<Vec<u8>>, Failure> {
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()));
    Ok(cacert.map(read).transpose()?)
}

/// Pays from a home that is opened when it is needed, and left a little after.
#[derive(Debug)]
pub(super) struct HomePurse {
    hub: HubId,
    opener: Opener,
    choice: Choice,
    rest: Duration,
    held: Arc<tokio::sync::Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    client: Option<Client>,
    /// Payments that run.
    running: u64,
    /// Payments that began: tells whether one did since.
    begun: u64,
}

impl HomePurse {
    async fn enter(&self) -> Result<Client, PurseError> {
        let mut held = self.held.lock().await;
        if held.client.is_none() {
            let home = self.opener.open_alone().await.map_err(Error::Home)?;
            held.client = Some(Client::start(home)?);
        }
        held.running += 1;
        held.begun += 1;
        held.client.clone().ok_or_else(|| PurseError::NoLane("the home was left".to_owned()))
    }

    async fn leave(&self) {
        let mut held = self.held.lock().await;
        held.running = held.running.saturating_sub(1);
        let (begun, rest, all) = (held.begun, self.rest, Arc::clone(&self.held));
        tokio::spawn(async move {
            tokio::time::sleep(rest).await;
            let mut held = all.lock().await;
            if held.running == 0
                && held.begun == begun
                && let Some(client) = held.client.take()
            {
                client.shut_down().await;
            }
        });
    }

    /// Leaves the home now, when nothing is being paid.
    pub(super) async fn close(&self) {
        let client = self.held.lock().await.client.take();
        if let Some(client) = client {
            client.shut_down().await;
        }
    }
}

impl Purse for HomePurse {
    fn hub(&self) -> HubId {
        self.hub
    }

    fn lane_for(&self, currency: Currency, payee: AccountId, amount: Amount) -> Later<'_, Result<LaneId, PurseError>> {
        Box::pin(async move {
            let client = self.enter().await?;
            let found = async {
                client.connect().await?;
                let choice = Choice { currency: Some(currency), ..self.choice.clone() };
                let record = choose(&client, &choice, (payee, amount), None).await;
                Ok(record.map_err(|failure| PurseError::NoLane(failure.told()))?.id())
            }
            .await;
            self.leave().await;
            found
        })
    }

    fn pay(&self, lane: LaneId, order: Order) -> Later<'_, Result<Settled, PurseError>> {
        Box::pin(async move {
            let client = self.enter().await?;
            let settled = async { settle(&client.lane(lane)?, order).await }.await;
            self.leave().await;
            settled
        })
    }
}

/// A line of a report.
#[derive(Debug, Serialize)]
pub(super) struct ReportLine {
    time_ms: u64,
    method: String,
    url: String,
    /// Null: there was no answer.
    status: Option<u16>,
    /// Paid for this request; zero when it was served from what was bought before; null when nothing was shown.
    paid: Option<Amount>,
    /// What the server drew for it; null when it did not say.
    drawn: Option<Amount>,
    /// What is left of that payment there.
    left: Option<Amount>,
    currency: Option<Currency>,
    payee: Option<AccountId>,
    reference: Option<Reference>,
    receipt_file: Option<String>,
    error: Option<String>,
}

impl ReportLine {
    pub(super) fn new(target: &Target, status: Option<u16>, paid: Option<&Paid>, error: Option<String>) -> Self {
        Self {
            time_ms: now().0,
            method: target.method.clone(),
            url: format!("{}{}", target.origin, target.path),
            status,
            paid: paid.map(|paid| paid.paid),
            drawn: paid.and_then(|paid| paid.drawn),
            left: paid.map(|paid| paid.left),
            currency: paid.map(|paid| paid.currency),
            payee: paid.map(|paid| paid.payee),
            reference: paid.map(|paid| paid.reference),
            receipt_file: paid.and_then(receipt_file),
            error,
        }
    }
}

/// Where lines of JSON go.
#[derive(Debug)]
pub(super) struct Report(Option<std::fs::File>);

impl Report {
    pub(super) fn open(path: Option<&PathBuf>) -> Result<Self, Failure> {
        let open = |path: &PathBuf| {
            let opened = std::fs::File::options().create(true).append(true).open(path);
            opened.with_context(|| format!("cannot write the report `{}`", path.display()))
        };
        Ok(Self(path.map(open).transpose()?))
    }

    pub(super) fn write(&mut self, line: &ReportLine) -> Result<(), Failure> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        file.write_all(&text).context("the report cannot be written")?;
        Ok(())
    }
}

fn receipt_file(paid: &Paid) -> Option<String> {
    let path = paid.receipt_file.as_ref()?;
    Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string())
}

/// What a request cost, as one line of talk.
pub(super) fn told(paid: &Paid, host: &str) -> String {
    let Paid { currency, left, payee, .. } = paid;
    let left = format!("{left} {currency} left at {host}");
    if !paid.paid.is_zero() {
        let receipt = receipt_file(paid).map_or_else(String::new, |path| format!(" (receipt {path})"));
        return format!("paid {} {currency} to {payee}{receipt}, {left}", paid.paid);
    }
    match paid.drawn {
        Some(most) if paid.metered => format!("draws at most {most} {currency} of what was paid before, {left}"),
        Some(drawn) if !drawn.is_zero() => format!("drew {drawn} {currency} of what was paid before, {left}"),
        _ => format!("served for what was paid before, {left}"),
    }
}

/// What a metered answer came to, as one line of talk.
pub(super) fn told_at_end(paid: &Paid, host: &str) -> Option<String> {
    let Paid { currency, left, .. } = paid;
    paid.drawn.map(|drawn| format!("it came to {drawn} {currency}, {left} {currency} left at {host}"))
}

/// How a request failed, with what to do.
pub(super) fn failed(error: reqwest_middleware::Error) -> Failure {
    let error = match error {
        reqwest_middleware::Error::Middleware(error) => match error.downcast::<FetchError>() {
            Ok(error) => error,
            Err(error) => return error.into(),
        },
        // Whatever was paid is kept, and shown again.
        reqwest_middleware::Error::Reqwest(error) => {
            return Failure::from(error).exit_with(super::failure::RETRY);
        }
    };
    let hint = match &error {
        FetchError::Purse(PurseError::Client(cause)) => {
            return Failure::from(anyhow::Error::new(cause.clone()).context("nothing was paid"));
        }
        FetchError::Purse(PurseError::Pay(cause)) => {
            return Failure::from(anyhow::Error::new(cause.clone()).context("nothing was paid"));
        }
        FetchError::Unknown { .. } => {
            return Failure::from(error)
                .hint("it may be paid: the same command again asks, and never pays twice")
                .exit_with(UNKNOWN);
        }
        FetchError::NotServed { reference, payee, .. } => Some(format!(
            "it is not paid a second time: the same command shows the payment again. `weir receipts {reference}` writes \
             the receipt to show to {payee}; `--pay-again` gives the payment up"
        )),
        FetchError::Budget(_) => {
            Some("`--max-price`, `--budget`, `--day-budget` and `--host-budget` set the limits".to_owned())
        }
        FetchError::Refused(reject) => super::failure::judge_refusal(*reject).0,
        _ => None,
    };
    let failure = Failure::from(error).exit_with(FAILED);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Whether the home has a lane at all: said before anything is sent.
pub(super) fn check_lanes(context: &Context) -> Result<(), Failure> {
    let home = context.look()?;
    if home.lanes()?.iter().any(|record| lanes::is_payable(&home, record)) {
        return Ok(());
    }
    Err(Failure::from(anyhow!("this home has nothing to pay with")).hint("`weir open CAPACITY` opens a channel"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn prepaying_is_so_many_times_the_price_or_an_amount() {
        assert_eq!("20x".parse(), Ok(PrepayChoice(Prepay::Times(20))));
        let amount = "0.50".parse().unwrap();
        assert_eq!("0.50".parse(), Ok(PrepayChoice(Prepay::Amount(amount))));
        for bad in ["0x", "x", "-1", "20 x", ""] {
            assert!(bad.parse::<PrepayChoice>().is_err(), "{bad}");
        }
    }
}
