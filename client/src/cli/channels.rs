//! Prefunded money: `open`, `amend`, `channels`, `close`.

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use weir_client::protocol::act::Act;
use weir_client::protocol::amount::{Amount, Currency, Time};
use weir_client::protocol::id::ChannelId;
use weir_client::protocol::wire::ChannelInfo;
use weir_client::{ChannelRecord, Client, Opening, RecordState, Span};

use super::account::{ActDone, yes};
use super::context::{self, Context, Use, now};
use super::failure::Failure;
use super::printer::{self, confirm, say};
use super::text::{self, Prefix, bound_ms, short};

#[derive(Debug, Args)]
#[command(
    after_help = "An opening that had no answer is finished by the same command, not made twice.\n\nExamples:\n  weir open 10.00\n  weir open 10.00 --expires 7d --renew"
)]
pub(super) struct OpenArgs {
    /// How much is locked for spending: units of the currency, such as `10` or `0.25`.
    capacity: Amount,
    /// The currency.
    #[arg(long, default_value = "EUR")]
    currency: Currency,
    /// When it ends by itself and what is left comes back: such as `12h`, `30d`, `never`.
    #[arg(long, default_value = "30d", value_name = "SPAN")]
    expires: Span,
    /// Let the hub roll it at a window's end: its books close and it runs on.
    #[arg(long)]
    renew: bool,
    /// Only show what would happen.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Capacity and expiry only grow. What is not named stays as it is.\n\nExample:\n  weir amend 3f07c1 --capacity 25.00 --expires 60d"
)]
pub(super) struct AmendArgs {
    /// The channel: its id, or the first 6 digits or more.
    channel: Prefix,
    /// The new capacity, in all: units of the currency.
    #[arg(long, value_name = "TOTAL")]
    capacity: Option<Amount>,
    /// The new expiry, from now: such as `12h`, `30d`, `never`.
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// Whether the hub may roll it at a window's end.
    #[arg(long, value_name = "true|false")]
    renew: Option<bool>,
    /// Only show what would happen.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Closing is final: what is not spent comes back to the account, and the channel's lanes pay no more.\n\nExample:\n  weir close 3f07c1 --yes"
)]
pub(super) struct CloseArgs {
    /// The channel: its id, or the first 6 digits or more.
    channel: Prefix,
    /// Only show what would happen.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// A channel as it stands at the hub.
#[derive(Debug, Serialize)]
struct ChannelView {
    channel: ChannelId,
    state: &'static str,
    currency: Currency,
    capacity: Amount,
    spent: Amount,
    /// Set aside for reserved lanes and not spent by them.
    reserved: Amount,
    /// What lanes without a reservation can still spend.
    left: Amount,
    /// Null: never.
    expires_at_ms: Option<u64>,
    renew: bool,
    lanes: u32,
    rolls: u64,
    /// Whether this home has the channel's key.
    here: bool,
}

impl ChannelView {
    fn new(client: &Client, info: &ChannelInfo, now: Time) -> Self {
        let state = match info {
            info if info.closed => "closed",
            info if info.expires_at <= now => "expired",
            _ => "open",
        };
        Self {
            channel: info.channel,
            state,
            currency: info.terms.currency,
            capacity: info.capacity,
            spent: info.spent,
            reserved: info.reserved,
            left: if state == "open" { left(info) } else { Amount::ZERO },
            expires_at_ms: bound_ms(info.expires_at),
            renew: info.renew,
            lanes: info.lanes,
            rolls: info.rolls,
            here: client.home().has_key(&info.terms.key),
        }
    }

    /// One that was signed here, and the hub has not answered.
    fn pending(record: &ChannelRecord) -> Self {
        let terms = &record.terms;
        Self {
            channel: terms.id(),
            state: "pending",
            currency: terms.currency,
            capacity: terms.capacity,
            spent: Amount::ZERO,
            reserved: Amount::ZERO,
            left: Amount::ZERO,
            expires_at_ms: bound_ms(terms.expires_at),
            renew: terms.renew,
            lanes: 1,
            rolls: 0,
            here: true,
        }
    }

    fn expires(&self) -> String {
        self.expires_at_ms.map_or_else(|| "never".to_owned(), |at| text::time(Time(at)))
    }

    fn row(&self) -> [String; 9] {
        [
            short(&self.channel),
            self.state.to_owned(),
            self.currency.to_string(),
            self.capacity.to_string(),
            self.spent.to_string(),
            self.left.to_string(),
            self.expires(),
            yes(self.renew),
            self.lanes.to_string(),
        ]
    }
}

/// What lanes without a reservation can still spend.
pub(super) fn left(info: &ChannelInfo) -> Amount {
    let left = info.capacity.checked_sub(info.spent).and_then(|left| left.checked_sub(info.reserved));
    left.unwrap_or(Amount::ZERO)
}

#[derive(Debug, Serialize)]
struct Channels {
    channels: Vec<ChannelView>,
}

impl Channels {
    fn show(&self) -> String {
        let heading = ["CHANNEL", "STATE", "CURRENCY", "CAPACITY", "SPENT", "LEFT", "EXPIRES", "RENEW", "LANES"];
        printer::table(
            heading,
            self.channels.iter().map(ChannelView::row),
            "no channels yet: `weir open CAPACITY` opens one",
        )
    }
}

/// Lists the account's channels.
pub(super) async fn channels(context: &Context) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let infos = client.channels().await?;
    let now = now();
    let mut channels: Vec<ChannelView> = infos.iter().map(|info| ChannelView::new(&client, info, now)).collect();
    let pending = client.home().channels()?.into_iter().filter(|record| record.state == RecordState::Pending);
    channels.extend(
        pending
            .filter(|record| infos.iter().all(|info| info.channel != record.terms.id()))
            .map(|record| ChannelView::pending(&record)),
    );
    client.shut_down().await;
    context.printer.print(&Channels { channels }, Channels::show)
}

#[derive(Debug, Serialize)]
struct Opened {
    /// Null on a dry run.
    channel: Option<ChannelId>,
    lane: u32,
    currency: Currency,
    capacity: Amount,
    /// What stays available; null when the account's balance was not asked for.
    available: Option<Amount>,
    expires_at_ms: Option<u64>,
    renew: bool,
    dry_run: bool,
}

impl Opened {
    fn show(&self) -> String {
        let mut facts = vec![
            ("channel", self.channel.map_or_else(|| "not opened: dry run".to_owned(), |id| id.to_string())),
            ("capacity", format!("{} {}", self.capacity, self.currency)),
            ("expires", self.expires_at_ms.map_or_else(|| "never".to_owned(), |at| text::time(Time(at)))),
            ("renew", yes(self.renew)),
        ];
        facts.extend(self.available.map(|left| ("stays available", format!("{left} {}", self.currency))));
        printer::facts(facts)
    }
}

/// Opens a channel.
pub(super) async fn open(context: &Context, args: &OpenArgs) -> Result<(), Failure> {
    if args.capacity.is_zero() {
        return Err(Failure::usage(anyhow!("a channel of nothing pays nothing")));
    }
    let client = context.client(if args.dry_run { Use::Beside } else { Use::Alone }).await?;
    let mut opening = Opening {
        currency: args.currency,
        capacity: args.capacity,
        expires_at: args.expires.after(now()),
        renew: args.renew,
    };
    let mut opened = Opened {
        channel: None,
        lane: 0,
        currency: opening.currency,
        capacity: opening.capacity,
        available: None,
        expires_at_ms: bound_ms(opening.expires_at),
        renew: opening.renew,
        dry_run: args.dry_run,
    };
    if args.dry_run {
        let info = client.account_info().await?;
        let available = info
            .balances
            .iter()
            .find(|balance| balance.currency == args.currency)
            .map_or(Amount::ZERO, |balance| balance.available);
        client.shut_down().await;
        let Ok(left) = available.checked_sub(args.capacity) else {
            let error = anyhow!("only {available} {} are available", args.currency);
            return Err(Failure::from(error).hint("`weir deposit` says where to send more"));
        };
        opened.available = Some(left);
        return context.printer.print(&opened, Opened::show);
    }
    let unanswered = client.home().channels()?.into_iter().find(|record| {
        let terms = &record.terms;
        record.state == RecordState::Pending
            && (terms.currency, terms.capacity, terms.renew) == (opening.currency, opening.capacity, opening.renew)
    });
    if let Some(record) = unanswered {
        say(&format!("Finishing the opening of {}, which had no answer.", short(&record.terms.id())));
        opening.expires_at = record.terms.expires_at;
    }
    context.unfinished(Some("the channel may be open: the same command again finishes the opening".to_owned()));
    let terms = client.open(opening).await?.channel.terms;
    context.unfinished(None);
    client.shut_down().await;
    opened.channel = Some(terms.id());
    opened.expires_at_ms = bound_ms(terms.expires_at);
    context.printer.print(&opened, Opened::show)?;
    say("Next: weir pay PAYEE AMOUNT");
    Ok(())
}

#[derive(Debug, Serialize)]
struct Amended {
    channel: ChannelId,
    currency: Currency,
    capacity: Amount,
    capacity_before: Amount,
    expires_at_ms: Option<u64>,
    renew: bool,
    dry_run: bool,
    #[serde(flatten)]
    done: ActDone,
}

impl Amended {
    fn show(&self) -> String {
        let mut facts = vec![
            ("channel", self.channel.to_string()),
            ("capacity", format!("{} {}", self.capacity, self.currency)),
            ("before", format!("{} {}", self.capacity_before, self.currency)),
            ("expires", self.expires_at_ms.map_or_else(|| "never".to_owned(), |at| text::time(Time(at)))),
            ("renew", yes(self.renew)),
        ];
        facts.extend(self.done.facts());
        if self.dry_run {
            facts.push(("dry run", "nothing was sent".to_owned()));
        }
        printer::facts(facts)
    }
}

/// Changes a channel.
pub(super) async fn amend(context: &Context, args: &AmendArgs) -> Result<(), Failure> {
    if args.capacity.is_none() && args.expires.is_none() && args.renew.is_none() {
        return Err(Failure::usage(anyhow!("nothing to change: name `--capacity`, `--expires` or `--renew`")));
    }
    let client = context.client(Use::Beside).await?;
    let info = context::channel(&client, &args.channel).await?;
    let capacity = args.capacity.unwrap_or(info.capacity);
    let expires_at = args.expires.map_or(info.expires_at, |span| span.after(now()));
    let renew = args.renew.unwrap_or(info.renew);
    if capacity < info.capacity || expires_at < info.expires_at {
        return Err(weir_client::Error::Refused(weir_client::protocol::reject::Reject::Lower).into());
    }
    let mut amended = Amended {
        channel: info.channel,
        currency: info.terms.currency,
        capacity,
        capacity_before: info.capacity,
        expires_at_ms: bound_ms(expires_at),
        renew,
        dry_run: args.dry_run,
        done: ActDone::NONE,
    };
    if !args.dry_run {
        let done = client.amend(info.channel, capacity, expires_at, renew).await?;
        amended.done = ActDone::of(&client.hub(), &done);
    }
    client.shut_down().await;
    context.printer.print(&amended, Amended::show)
}

#[derive(Debug, Serialize)]
struct Closed {
    channel: ChannelId,
    currency: Currency,
    spent: Amount,
    returned: Amount,
    dry_run: bool,
    #[serde(flatten)]
    done: ActDone,
}

impl Closed {
    fn show(&self) -> String {
        let mut facts = vec![
            ("channel", self.channel.to_string()),
            ("spent", format!("{} {}", self.spent, self.currency)),
            ("returned", format!("{} {}", self.returned, self.currency)),
        ];
        facts.extend(self.done.facts());
        if self.dry_run {
            facts.push(("dry run", "nothing was sent".to_owned()));
        }
        printer::facts(facts)
    }
}

/// Closes a channel for good.
pub(super) async fn close(context: &Context, args: &CloseArgs) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let info = context::channel(&client, &args.channel).await?;
    let unspent = info.capacity.checked_sub(info.spent)?;
    let mut closed = Closed {
        channel: info.channel,
        currency: info.terms.currency,
        spent: info.spent,
        returned: unspent,
        dry_run: args.dry_run,
        done: ActDone::NONE,
    };
    if info.closed {
        say("It is closed already: nothing to do.");
    } else if !args.dry_run {
        if !args.yes {
            confirm(&format!("Close channel {} for good? {unspent} {} come back.", info.channel, info.terms.currency))?;
        }
        let hint = "the channel may be closed: `weir channels` says so; the same command again does nothing twice";
        context.unfinished(Some(hint.to_owned()));
        let done = client.close(info.channel).await?;
        context.unfinished(None);
        if let Act::Close(close) = &done.act {
            (closed.spent, closed.returned) = (close.spent, close.returned);
        }
        closed.done = ActDone::of(&client.hub(), &done);
    }
    client.shut_down().await;
    context.printer.print(&closed, Closed::show)
}
