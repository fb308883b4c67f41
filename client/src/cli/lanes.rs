//! Ways to spend a channel: `lanes list`, `grant`, `revoke`, `recover`, and what delegation needs: `key`, `import`.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde::Serialize;
use weir_client::protocol::amount::{Amount, Time};
use weir_client::protocol::channel::LaneMode;
use weir_client::protocol::id::{AccountId, ChannelId, LaneId};
use weir_client::protocol::keys::PublicKey;
use weir_client::protocol::wire::LaneInfo;
use weir_client::{Client, Error, Grant, Home, LaneRecord, LaneStopped, RecordState, Span};

use super::account::{ActDone, yes};
use super::context::{self, Context, Use, now};
use super::failure::{Failure, judge_stopped};
use super::printer::{self, confirm, say};
use super::text::{self, Prefix, bound_ms, short};

#[derive(Debug, Subcommand)]
pub(super) enum LanesCommand {
    /// List the lanes of a channel, or of all.
    List(ListArgs),
    /// Grant a lane: a key of its own, with a budget of its own.
    Grant(GrantArgs),
    /// End a lane.
    Revoke(RevokeArgs),
    /// Go on with a lane that stopped because somebody else used its key.
    Recover(RecoverArgs),
    /// Make a key for a lane that somebody else will grant to you.
    Key,
    /// Take a lane that somebody else granted to a key of this home.
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this channel's: its id, or the first 6 digits or more.
    channel: Option<Prefix>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir lanes grant 3f07c1 --limit 5.00\n  weir lanes grant 3f07c1 --limit 1.00 --period 1d --payee weir1…\n  weir lanes grant 3f07c1 --limit 5.00 --key 9ac1… --out lane.json   (for somebody who ran `weir lanes key`)"
)]
pub(super) struct GrantArgs {
    /// The channel: its id, or the first 6 digits or more.
    channel: Prefix,
    /// Most that it may spend, in its life or in a period: units of the channel's currency.
    #[arg(long, value_name = "AMOUNT")]
    limit: Amount,
    /// The limit holds anew in each such span, such as `1h` or `1d`.
    #[arg(long, value_name = "SPAN", conflicts_with = "reserved")]
    period: Option<Span>,
    /// Set the limit aside for this lane alone.
    #[arg(long)]
    reserved: bool,
    /// The only account that it may pay.
    #[arg(long, value_name = "ACCOUNT")]
    payee: Option<AccountId>,
    /// When it ends: such as `12h`, `30d`, `never`.
    #[arg(long, default_value = "never", value_name = "SPAN")]
    expires: Span,
    /// Somebody else's lane key, 64 hex digits: they pay with it.
    #[arg(long, value_name = "KEY")]
    key: Option<PublicKey>,
    /// Write what the other needs for `weir lanes import` to this file. It holds no secret.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The channel: its id, or the first 6 digits or more.
    channel: Prefix,
    /// The lane's number in the channel.
    lane: u32,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "First find out who else has the key, and stop them: whatever they sign afterwards fights with this home."
)]
pub(super) struct RecoverArgs {
    /// The lane: its id, or the first 6 digits or more.
    lane: Prefix,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// What `weir lanes grant --out` wrote.
    file: PathBuf,
}

/// A lane, as far as it is known.
#[derive(Debug, Serialize)]
struct LaneView {
    lane_id: LaneId,
    channel: ChannelId,
    lane: u32,
    state: &'static str,
    mode: &'static str,
    /// Null: any.
    payee: Option<AccountId>,
    /// Null: the channel's capacity alone.
    limit: Option<Amount>,
    /// Null: the limit is for life.
    period_s: Option<u32>,
    /// Null: never.
    expires_at_ms: Option<u64>,
    key: PublicKey,
    /// Whether this home can pay with it.
    here: bool,
    /// Null when the hub was not asked.
    spent: Option<Amount>,
    spent_in_period: Option<Amount>,
    sequence: Option<u64>,
}

impl LaneView {
    fn of_record(home: &Home, record: &LaneRecord) -> Self {
        let grant = &record.grant;
        Self {
            lane_id: record.id(),
            channel: grant.channel,
            lane: grant.lane,
            state: match record.state {
                RecordState::Pending => "pending",
                RecordState::Done => "granted",
            },
            mode: if grant.mode == LaneMode::Reserved { "reserved" } else { "shared" },
            payee: grant.payee,
            limit: (grant.limit != Amount::MAX).then_some(grant.limit),
            period_s: (grant.period != 0).then_some(grant.period),
            expires_at_ms: bound_ms(grant.expires_at),
            key: grant.key,
            here: home.has_key(&grant.key),
            spent: None,
            spent_in_period: None,
            sequence: None,
        }
    }

    fn of_info(home: &Home, record: &LaneRecord, info: &LaneInfo, now: Time) -> Self {
        Self {
            state: match info {
                info if info.revoked => "revoked",
                info if info.grant.expires_at <= now => "expired",
                _ => "granted",
            },
            spent: Some(info.head.total),
            spent_in_period: Some(info.spent_in_period),
            sequence: Some(info.head.sequence),
            ..Self::of_record(home, record)
        }
    }

    fn expires(&self) -> String {
        self.expires_at_ms.map_or_else(|| "never".to_owned(), |at| text::time(Time(at)))
    }

    fn limit(&self) -> String {
        match (self.limit, self.period_s) {
            (None, _) => "the channel's".to_owned(),
            (Some(limit), None) => limit.to_string(),
            (Some(limit), Some(period)) => format!("{limit} per {period} s"),
        }
    }

    fn row(&self) -> [String; 9] {
        [
            short(&self.channel),
            self.lane.to_string(),
            short(&self.lane_id),
            self.state.to_owned(),
            self.mode.to_owned(),
            self.limit(),
            self.spent.map_or_else(|| "?".to_owned(), |spent| spent.to_string()),
            self.payee.map_or_else(|| "any".to_owned(), |payee| short(&payee)),
            yes(self.here),
        ]
    }

    fn show(&self) -> String {
        printer::facts([
            ("lane id", self.lane_id.to_string()),
            ("channel", self.channel.to_string()),
            ("lane", self.lane.to_string()),
            ("mode", self.mode.to_owned()),
            ("limit", self.limit()),
            ("payee", self.payee.map_or_else(|| "any".to_owned(), |payee| payee.to_string())),
            ("expires", self.expires()),
            ("key", self.key.to_string()),
            ("pays from here", yes(self.here)),
        ])
    }
}

#[derive(Debug, Serialize)]
struct Lanes {
    lanes: Vec<LaneView>,
}

impl Lanes {
    fn show(&self) -> String {
        let heading = ["CHANNEL", "LANE", "LANE ID", "STATE", "MODE", "LIMIT", "SPENT", "PAYEE", "HERE"];
        printer::table(
            heading,
            self.lanes.iter().map(LaneView::row),
            "no lanes yet: `weir open CAPACITY` opens a channel",
        )
    }
}

pub(super) async fn run(context: &Context, command: &LanesCommand) -> Result<(), Failure> {
    match command {
        LanesCommand::List(args) => list(context, args).await,
        LanesCommand::Grant(args) => grant(context, args).await,
        LanesCommand::Revoke(args) => revoke(context, args).await,
        LanesCommand::Recover(args) => recover(context, args).await,
        LanesCommand::Key => key(context).await,
        LanesCommand::Import(args) => import(context, args).await,
    }
}

async fn list(context: &Context, args: &ListArgs) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let home = client.home();
    let now = now();
    let channels = match &args.channel {
        Some(prefix) => vec![context::channel(&client, prefix).await?],
        None => context::channels(&client).await?,
    };
    let mut lanes = Vec::new();
    for channel in &channels {
        for info in client.lanes(channel.channel).await? {
            let record = LaneRecord { terms: channel.terms, grant: info.grant, state: RecordState::Done };
            lanes.push(LaneView::of_info(home, &record, &info, now));
        }
    }
    // What only this home knows: lanes of others' channels, and those that the hub has not answered.
    let known: Vec<LaneId> = lanes.iter().map(|lane| lane.lane_id).collect();
    let wanted = |record: &LaneRecord| args.channel.as_ref().is_none_or(|prefix| prefix.fits(&record.grant.channel));
    let others = home.lanes()?.into_iter().filter(|record| !known.contains(&record.id()) && wanted(record));
    lanes.extend(others.map(|record| LaneView::of_record(home, &record)));
    client.shut_down().await;
    context.printer.print(&Lanes { lanes }, Lanes::show)
}

async fn grant(context: &Context, args: &GrantArgs) -> Result<(), Failure> {
    let period = match args.period {
        None => 0,
        Some(Span::Ms(ms)) if ms % 1_000 == 0 => u32::try_from(ms / 1_000)
            .map_err(|_| Failure::usage(anyhow!("`--period` is longer than a period can be")))?,
        Some(_) => return Err(Failure::usage(anyhow!("`--period` is a span of time with an end"))),
    };
    if args.limit.is_zero() {
        return Err(Failure::usage(anyhow!("a lane with a limit of nothing pays nothing")));
    }
    let client = context.client(Use::Alone).await?;
    let channel = context::home_channel(client.home(), &args.channel)?;
    let mut wanted = Grant {
        mode: if args.reserved { LaneMode::Reserved } else { LaneMode::Shared },
        payee: args.payee,
        limit: args.limit,
        period,
        expires_at: args.expires.after(now()),
        key: args.key,
    };
    let unanswered = client.home().lanes()?.into_iter().find(|record| {
        let grant = &record.grant;
        record.state == RecordState::Pending
            && grant.channel == channel
            && (grant.mode, grant.payee, grant.limit, grant.period)
                == (wanted.mode, wanted.payee, wanted.limit, wanted.period)
            && args.key.map_or_else(|| client.home().has_key(&grant.key), |key| key == grant.key)
    });
    if let Some(record) = unanswered {
        say(&format!("Finishing the grant of lane {}, which had no answer.", record.grant.lane));
        wanted.expires_at = record.grant.expires_at;
    }
    context.unfinished(Some("the lane may be granted: the same command again finishes it".to_owned()));
    let record = client.grant(channel, wanted).await?;
    context.unfinished(None);
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&record)? + "\n";
        std::fs::write(path, text)
            .with_context(|| format!("the lane is granted, but `{}` cannot be written", path.display()))?;
    }
    let lane = LaneView::of_record(client.home(), &record);
    client.shut_down().await;
    context.printer.print(&lane, LaneView::show)
}

#[derive(Debug, Serialize)]
struct Revoked {
    channel: ChannelId,
    lane: u32,
    #[serde(flatten)]
    done: ActDone,
}

impl Revoked {
    fn show(&self) -> String {
        let mut facts = vec![("channel", self.channel.to_string()), ("revoked lane", self.lane.to_string())];
        facts.extend(self.done.facts());
        printer::facts(facts)
    }
}

async fn revoke(context: &Context, args: &RevokeArgs) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let channel = context::home_channel(client.home(), &args.channel)?;
    let known = client.lanes(channel).await?;
    let Some(info) = known.iter().find(|info| info.grant.lane == args.lane) else {
        return Err(Error::Refused(weir_client::protocol::reject::Reject::UnknownLane).into());
    };
    let mut revoked = Revoked { channel, lane: args.lane, done: ActDone::NONE };
    if info.revoked {
        say("It is revoked already: nothing to do.");
    } else {
        if !args.yes {
            confirm(&format!("Revoke lane {} of {channel} for good?", args.lane))?;
        }
        revoked.done = ActDone::of(&client.hub(), &client.revoke(channel, args.lane).await?);
    }
    client.shut_down().await;
    context.printer.print(&revoked, Revoked::show)
}

#[derive(Debug, Serialize)]
struct RecoverReport {
    lane_id: LaneId,
    /// Whether it had stopped and goes on now.
    recovered: bool,
    /// The last sequence that the hub took.
    sequence: u64,
    /// Spent in the lane's life.
    spent: Amount,
}

impl RecoverReport {
    fn show(&self) -> String {
        printer::facts([
            ("lane id", self.lane_id.to_string()),
            ("recovered", yes(self.recovered)),
            ("sequence", self.sequence.to_string()),
            ("spent", self.spent.to_string()),
        ])
    }
}

async fn recover(context: &Context, args: &RecoverArgs) -> Result<(), Failure> {
    let client = context.client(Use::Alone).await?;
    let record = find(client.home(), &args.lane)?;
    let lane = client.lane(record.id())?;
    let mut status = lane.attach().await?;
    let mut recovered = false;
    if let Some(stopped) = &status.stopped {
        say(&format!("The lane has stopped: {stopped}."));
        if matches!(stopped, LaneStopped::NewerCopy { .. } | LaneStopped::Detached) && !args.yes {
            confirm("Give up, for ever, every sequence that the other can have used, and go on here?")?;
        }
        recovered = lane.recover().await;
        if recovered {
            status = lane.attach().await?;
        }
    } else {
        say("The lane has not stopped: nothing to recover.");
    }
    client.shut_down().await;
    if let Some(stopped) = status.stopped {
        let (hint, exit) = judge_stopped(&stopped);
        let failure = Failure::from(anyhow!("lane still stands: {stopped}")).exit_with(exit);
        return Err(match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        });
    }
    let report = RecoverReport {
        lane_id: record.id(),
        recovered,
        sequence: status.answered.sequence,
        spent: status.answered.total,
    };
    context.printer.print(&report, RecoverReport::show)
}

#[derive(Debug, Serialize)]
struct LaneKey {
    key: PublicKey,
}

async fn key(context: &Context) -> Result<(), Failure> {
    let home = context.open(Use::Alone).await?;
    let key = LaneKey { key: home.new_key()?.public() };
    context.printer.print(&key, |key| printer::facts([("key", key.key.to_string())]))?;
    say("Give the key to the channel's owner: weir lanes grant CHANNEL --limit AMOUNT --key KEY --out lane.json");
    Ok(())
}

async fn import(context: &Context, args: &ImportArgs) -> Result<(), Failure> {
    let shown = args.file.display();
    let text = std::fs::read(&args.file).with_context(|| format!("cannot read `{shown}`"))?;
    let record: LaneRecord = serde_json::from_slice(&text).with_context(|| format!("`{shown}` is not a lane"))?;
    if record.grant.channel != record.terms.id() {
        return Err(anyhow!("`{shown}` is not a lane: its grant is for another channel than its terms").into());
    }
    let home = context.open(Use::Alone).await?;
    if !home.has_key(&record.grant.key) {
        let error = anyhow!("lane is granted to the key `{}`, which this home does not have", record.grant.key);
        return Err(Failure::from(error).hint("`weir lanes key` makes one; the channel's owner grants the lane to it"));
    }
    let record = LaneRecord { state: RecordState::Done, ..record };
    home.keep_lane(&record)?;
    context.printer.print(&LaneView::of_record(&home, &record), LaneView::show)
}

/// A lane of this home, by its id or the beginning of it.
pub(super) fn find(home: &Home, prefix: &Prefix) -> Result<LaneRecord, Failure> {
    let found = prefix.find("lane", home.lanes()?, |record| record.id().to_string());
    found.map_err(|error| Failure::from(error).hint("`weir lanes list` shows the lanes"))
}

/// The lanes of this home that could pay.
pub(super) fn payable(client: &Client) -> Result<Vec<LaneRecord>, Failure> {
    let home = client.home();
    let lanes = home.lanes()?.into_iter();
    Ok(lanes.filter(|record| is_payable(home, record)).collect())
}

/// Whether a lane of this home could pay.
pub(super) fn is_payable(home: &Home, record: &LaneRecord) -> bool {
    record.state == RecordState::Done && home.has_key(&record.grant.key)
}
