//! `pay`: one payment, made once however often it is asked for with the same reference.
//!
//! With `--challenge` what is paid is a demand on the web: see [`challenge`].

mod challenge;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use weir_client::protocol::amount::{Amount, Currency};
use weir_client::protocol::id::{AccountId, ChannelId, PaymentId, Reference};
use weir_client::{Client, LaneRecord, LaneStatus, Order, Outcome, Paid, Span};

use super::context::{self, Context, Use, now};
use super::failure::{FAILED, Failure, UNKNOWN, judge_refusal, judge_stopped};
use super::orders::{KeptOrder, Orders};
use super::printer::{self, say};
use super::text::{self, Note, Prefix};
use super::{channels, lanes};

/// How long after the deadline the hub's last word on it is waited for.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(
    after_help = "The reference is the idempotency key: asked again with the same one, nothing is paid twice. It is printed before anything is sent.\nExit codes: 0 paid, 1 refused for good, 3 not sent (a retry is safe), 4 unknown (ask again with the same reference).\n\nExamples:\n  weir pay weir1… 0.05\n  weir pay weir1… 0.000000001 --note 'article 17'\n  weir pay weir1… 2.50 --reference 7d1f… --lane 3f07c1 --deadline 10s\n  weir pay --challenge 'Payment id=…' --max-price 0.10   (a demand on the web: prints the credential to show)\n  weir pay --challenge https://news.example/.weir/claim/…"
)]
pub(super) struct PayArgs {
    /// Who is paid: an account, `weir1…`.
    #[arg(required_unless_present = "challenge")]
    payee: Option<AccountId>,
    /// How much: units of the lane's currency, with at most nine decimal places.
    #[arg(required_unless_present = "challenge")]
    amount: Option<Amount>,
    /// Pay a demand on the web: the value of `WWW-Authenticate: Payment …` or of `PAYMENT-REQUIRED`, the address that a
    /// page shows to claim it, or any other address that answers with a demand.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["payee", "amount", "reference", "note", "currency"])]
    challenge: Option<String>,
    /// With `--challenge`: pay without asking up to this price, and nothing above it.
    #[arg(long, value_name = "AMOUNT", requires = "challenge")]
    max_price: Option<Amount>,
    /// With `--challenge`: do not ask.
    #[arg(long, requires = "challenge")]
    yes: bool,
    /// With `--challenge`: certificates in PEM that are trusted beside the system's.
    #[arg(long, requires = "challenge", value_name = "FILE")]
    cacert: Option<std::path::PathBuf>,
    /// What for: 64 hex digits. The same reference never pays twice; without one, a random one is made.
    #[arg(long, value_name = "HEX", conflicts_with = "note")]
    reference: Option<Reference>,
    /// What for: a text of at most 32 bytes, which the payee reads. It is the reference: the same note never pays twice.
    #[arg(long, value_name = "TEXT")]
    note: Option<Note>,
    /// The channel to pay from: its id, or the first 6 digits or more.
    #[arg(long)]
    channel: Option<Prefix>,
    /// The lane to pay with: its number in the channel, its id, or the first 6 digits or more of it.
    #[arg(long, value_name = "LANE")]
    lane: Option<LaneChoice>,
    /// Only pay from a channel of this currency.
    #[arg(long)]
    currency: Option<Currency>,
    /// The hub takes it within this span or never.
    #[arg(long, default_value = "30s", value_name = "SPAN")]
    deadline: Span,
    /// Only show what would happen.
    #[arg(long)]
    dry_run: bool,
}

/// A lane as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LaneChoice {
    Number(u32),
    Id(Prefix),
}

impl std::str::FromStr for LaneChoice {
    type Err = text::PrefixError;

    fn from_str(text: &str) -> Result<Self, text::PrefixError> {
        // A channel has at most 1,024 lanes, and an id's beginning has six digits or more.
        match text.parse() {
            Ok(number) if text.len() <= 4 => Ok(Self::Number(number)),
            _ => text.parse().map(Self::Id),
        }
    }
}

#[derive(Debug, Serialize)]
struct PaymentReport {
    payment_id: Option<PaymentId>,
    channel: ChannelId,
    lane: u32,
    sequence: Option<u64>,
    amount: Amount,
    currency: Currency,
    payee: AccountId,
    reference: Reference,
    /// The number of the commit that holds it.
    commit: Option<u64>,
    receipt_file: Option<String>,
}

impl PaymentReport {
    /// Not made.
    fn planned(record: &LaneRecord, order: &Order) -> Self {
        Self {
            payment_id: None,
            channel: record.grant.channel,
            lane: record.grant.lane,
            sequence: None,
            amount: order.amount,
            currency: record.terms.currency,
            payee: order.payee,
            reference: order.reference,
            commit: None,
            receipt_file: None,
        }
    }

    fn show(&self) -> String {
        let mut facts = vec![
            ("payment", self.payment_id.map_or_else(|| "not made: dry run".to_owned(), |id| id.to_string())),
            ("amount", format!("{} {}", self.amount, self.currency)),
            ("payee", self.payee.to_string()),
            ("reference", self.reference.to_string()),
        ];
        facts.extend(text::note(&self.reference).map(|note| ("note", note)));
        facts.push(("channel", self.channel.to_string()));
        facts.push(("lane", self.lane.to_string()));
        facts.extend(self.sequence.map(|sequence| ("sequence", sequence.to_string())));
        facts.extend(self.commit.map(|commit| ("commit", commit.to_string())));
        facts.extend(self.receipt_file.clone().map(|file| ("receipt", file)));
        printer::facts(facts)
    }
}

/// Pays.
pub(super) async fn pay(context: &Context, args: &PayArgs) -> Result<(), Failure> {
    let Span::Ms(deadline_ms) = args.deadline else {
        return Err(Failure::usage(anyhow!("`--deadline` is a span of time with an end")));
    };
    if let Some(text) = &args.challenge {
        return challenge::pay(context, args, text, deadline_ms).await;
    }
    let (Some(payee), Some(amount)) = (args.payee, args.amount) else {
        return Err(Failure::usage(anyhow!("who is paid, and how much?")));
    };
    if amount.is_zero() {
        return Err(Failure::usage(anyhow!("nothing cannot be paid: the amount is zero")));
    }
    let reference = match args.reference.or(args.note.map(|Note(reference)| reference)) {
        Some(reference) => reference,
        None => random_reference()?,
    };
    let client = context.client(Use::Alone).await?;
    let order = Order { payee, amount, reference, deadline: None };
    let earlier = earlier(&client, &Orders::of(context.home()), &order)?;
    let choice = Choice { channel: args.channel.clone(), lane: args.lane.clone(), currency: args.currency };
    let dry_run = args.dry_run;
    let (again, retry) = (again(&reference), format!("try again with `--reference {reference}`"));
    let made = make(context, client, Making { order, earlier, choice, deadline_ms, dry_run, again, retry }).await?;
    context.printer.print(&made.report, PaymentReport::show)
}

/// What is to be paid, and with what.
struct Making {
    order: Order,
    earlier: Option<KeptOrder>,
    choice: Choice,
    deadline_ms: u64,
    dry_run: bool,
    /// What to do when the outcome is not known.
    again: String,
    /// What to do when nothing was sent.
    retry: String,
}

/// A payment that was made, now or before; or planned, with `--dry-run`.
struct Made {
    report: PaymentReport,
    paid: Option<Paid>,
}

/// Pays an order, or finds that it was paid before.
async fn make(context: &Context, client: Client, making: Making) -> Result<Made, Failure> {
    let Making { order, earlier, choice, deadline_ms, dry_run, again, retry } = making;
    let (orders, reference) = (Orders::of(context.home()), order.reference);
    let chosen = choose(&client, &choice, (order.payee, order.amount), earlier.as_ref()).await;
    // Without the hub nobody can say what became of an earlier try.
    let record = chosen.map_err(|failure| if earlier.is_some() { unknown(failure, &again) } else { failure })?;
    if dry_run {
        client.shut_down().await;
        return Ok(Made { report: PaymentReport::planned(&record, &order), paid: None });
    }
    say(&format!("reference {reference}"));
    let lane = client.lane(record.id())?;
    if earlier.is_some()
        && let Some(paid) = lane.find(reference).await?
    {
        say("It was paid before: this is the same payment, and nothing was paid now.");
        client.shut_down().await;
        return Ok(Made { report: report(&record, &order, &paid), paid: Some(paid) });
    }
    if let Err(error) = client.connect().await {
        let failure = Failure::from(error);
        return Err(match earlier {
            Some(_) => unknown(failure, &again),
            None => failure.hint(format!("nothing was sent; {retry}")),
        });
    }
    let kept = KeptOrder { reference, lane: record.id(), payee: order.payee, amount: order.amount };
    orders.keep(&kept)?;
    context.unfinished(Some(again.clone()));
    let order = Order { deadline: Some(now().plus_ms(deadline_ms)), ..order };
    let patience = Duration::from_millis(deadline_ms).saturating_add(GRACE);
    let outcome = lane.pay_within(order, patience).await;
    let status = lane.status();
    // Keeps what is to be kept, whatever came of it.
    client.shut_down().await;
    context.unfinished(None);
    match outcome {
        Ok(Outcome::Paid(paid)) => Ok(Made { report: report(&record, &order, &paid), paid: Some(paid) }),
        Ok(Outcome::Refused(refused)) => {
            orders.forget(&reference)?;
            let (hint, _) = judge_refusal(refused.reject);
            let failure = Failure::from(anyhow!("refused for good, nothing was paid: {}", refused.reject));
            let failure = failure.exit_with(FAILED);
            Err(match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
        Ok(Outcome::Unknown(_)) => Err(not_known(&status, &again)),
        Err(error) => Err(error.into()),
    }
}

/// What this reference was used for before: kept by an earlier command, or paid by another program with this home.
fn earlier(client: &Client, orders: &Orders, order: &Order) -> Result<Option<KeptOrder>, Failure> {
    let mut earlier = orders.find(&order.reference)?;
    if earlier.is_none() {
        for record in client.home().lanes()? {
            let Some((group, index)) = client.home().find_paid(&record.id(), &order.reference)? else { continue };
            let payment = group.payment(index).map(|(_, payment)| payment);
            earlier = payment.map(|payment| KeptOrder {
                reference: payment.reference,
                lane: record.id(),
                payee: payment.payee,
                amount: payment.amount,
            });
            break;
        }
    }
    if let Some(kept) = &earlier
        && (kept.payee, kept.amount) != (order.payee, order.amount)
    {
        let error = anyhow!("reference `{}` stands for a payment of {} to {}", kept.reference, kept.amount, kept.payee);
        return Err(Failure::from(error).hint("another payment needs another reference or note"));
    }
    Ok(earlier)
}

/// Which lanes a command may pay with.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    pub(super) channel: Option<Prefix>,
    pub(super) lane: Option<LaneChoice>,
    pub(super) currency: Option<Currency>,
}

/// The lane that pays: the one that was asked before, the one that is named, or the one with most to spend.
pub(super) async fn choose(
    client: &Client,
    args: &Choice,
    (payee, amount): (AccountId, Amount),
    earlier: Option<&KeptOrder>,
) -> Result<LaneRecord, Failure> {
    let mut fitting = lanes::payable(client)?;
    fitting.retain(|record| {
        args.channel.as_ref().is_none_or(|prefix| prefix.fits(&record.grant.channel))
            && args.currency.is_none_or(|currency| currency == record.terms.currency)
            && match &args.lane {
                None => true,
                Some(LaneChoice::Number(number)) => record.grant.lane == *number,
                Some(LaneChoice::Id(prefix)) => prefix.fits(&record.id()),
            }
    });
    if let Some(kept) = earlier {
        return fitting.into_iter().find(|record| record.id() == kept.lane).ok_or_else(|| {
            let error = anyhow!("this reference was given to lane {}, which must answer for it", kept.lane);
            Failure::from(error).hint("leave `--lane`, `--channel` and `--currency` away to ask that lane")
        });
    }
    let named = args.channel.is_some() || args.lane.is_some();
    if fitting.is_empty() {
        let error =
            if named { anyhow!("no lane of this home is meant") } else { anyhow!("this home has nothing to pay with") };
        return Err(
            Failure::from(error).hint("`weir lanes list` shows the lanes, `weir open CAPACITY` opens a channel")
        );
    }
    if args.lane.is_some() && fitting.len() > 1 {
        return Err(
            Failure::from(anyhow!("more than one lane is meant")).hint("name the channel too, or the lane by its id")
        );
    }
    let wrong_payee = |record: &LaneRecord| record.grant.payee.is_some_and(|only| only != payee);
    if args.lane.is_none() {
        fitting.retain(|record| !wrong_payee(record) && record.grant.expires_at > now());
    }
    match fitting.as_slice() {
        [only] => Ok(*only),
        [] => Err(Failure::from(anyhow!("no lane of this home may pay this payee now"))
            .hint("`weir lanes list` shows what each may do")),
        _ => richest(client, fitting, amount).await,
    }
}

/// How well a lane suits: whether it surely has enough left, whether it is for this payee alone, how much is left.
type Suits = (bool, bool, Amount);

/// Of several lanes the one that suits best.
async fn richest(client: &Client, fitting: Vec<LaneRecord>, amount: Amount) -> Result<LaneRecord, Failure> {
    let now = now();
    let own = context::channels(client).await?;
    let mut known = HashMap::new();
    let mut best: Option<(Suits, LaneRecord)> = None;
    for record in fitting {
        let Some(info) = own.iter().find(|info| info.channel == record.grant.channel) else {
            // Somebody else's channel: only its lane's limit is known here.
            if record.terms.account != client.account() {
                consider(&mut best, (false, record.grant.payee.is_some(), record.grant.limit), &record);
            }
            continue;
        };
        if info.closed || info.expires_at <= now {
            continue;
        }
        if let Entry::Vacant(place) = known.entry(info.channel) {
            place.insert(client.lanes(info.channel).await?);
        }
        let lane = known.get(&info.channel).and_then(|lanes| lanes.iter().find(|lane| lane.lane == record.id()));
        let Some(lane) = lane.filter(|lane| !lane.revoked) else { continue };
        // A new period may have begun since the last payment: then more is left than this says, so it is tried last.
        let own_left = record.grant.limit.checked_sub(lane.spent_in_period).unwrap_or(Amount::ZERO);
        let reserved = record.grant.mode == weir_client::protocol::channel::LaneMode::Reserved;
        let left = if reserved { own_left } else { own_left.min(channels::left(info)) };
        if left >= amount || record.grant.period != 0 {
            consider(&mut best, (left >= amount, record.grant.payee.is_some(), left), &record);
        }
    }
    best.map(|(_, record)| record).ok_or_else(|| {
        let error = anyhow!("no channel has {amount} left to spend");
        Failure::from(error)
            .hint("`weir channels` shows what is left; `weir amend` adds to one, `weir open` opens another")
    })
}

fn consider(best: &mut Option<(Suits, LaneRecord)>, suits: Suits, record: &LaneRecord) {
    if best.as_ref().is_none_or(|(held, _)| suits > *held) {
        *best = Some((suits, *record));
    }
}

fn report(record: &LaneRecord, order: &Order, paid: &Paid) -> PaymentReport {
    let receipt_file = match paid.keep_receipt() {
        Ok(path) => Some(std::path::absolute(&path).unwrap_or(path).display().to_string()),
        Err(error) => {
            say(&format!("It is paid, but its receipt could not be written: {error}"));
            say(&format!("hint: `weir receipts {}` tries again", order.reference));
            None
        }
    };
    PaymentReport {
        payment_id: paid.payment_id(),
        sequence: Some(paid.sequence()),
        commit: Some(paid.commit().commit.number),
        receipt_file,
        ..PaymentReport::planned(record, order)
    }
}

/// Why nobody can say yet, and what to do.
fn not_known(status: &LaneStatus, again: &str) -> Failure {
    let text = "nobody can say yet whether it is paid";
    if let Some(stopped) = &status.stopped {
        let (hint, _) = judge_stopped(stopped);
        let failure = Failure::from(anyhow::Error::new(stopped.clone()).context(text));
        let hint = hint.map_or_else(|| again.to_owned(), |hint| format!("{hint}; {again}"));
        return failure.hint(hint).exit_with(UNKNOWN);
    }
    let error = status.failure.clone().map_or_else(|| anyhow!(text), |cause| anyhow::Error::new(cause).context(text));
    unknown(error, again)
}

fn unknown(failure: impl Into<Failure>, again: &str) -> Failure {
    failure.into().hint(again).exit_with(UNKNOWN)
}

fn again(reference: &Reference) -> String {
    format!("it may be paid: the same command with `--reference {reference}` says so, and never pays twice")
}

fn random_reference() -> Result<Reference, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(Reference(bytes))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn lane_is_named_by_number_or_by_the_beginning_of_its_id() {
        assert_eq!("3".parse(), Ok(LaneChoice::Number(3)));
        assert_eq!("1023".parse(), Ok(LaneChoice::Number(1023)));
        assert_eq!("123456".parse::<LaneChoice>().unwrap(), LaneChoice::Id("123456".parse().unwrap()));
        for bad in ["", "12345", "x", "-1"] {
            assert!(bad.parse::<LaneChoice>().is_err(), "{bad}");
        }
    }
}
