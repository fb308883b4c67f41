//! What the hub proves and tells of this account: `evidence`, `statement`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use weir_client::protocol::amount::Currency;
use weir_client::protocol::id::{PaymentId, Reference};
use weir_client::protocol::reject::Reject;
use weir_client::protocol::wire::{Cursor, EvidenceSubject, StatementForm, StatementItem};
use weir_client::{Client, Error};

use super::context::{self, Context, Use};
use super::failure::Failure;
use super::history::walk;
use super::printer::{self, say};
use super::text::Prefix;

#[derive(Debug, Subcommand)]
pub(super) enum EvidenceCommand {
    /// What was spent of a channel, by whose signatures, and how it was closed.
    Channel {
        #[command(flatten)]
        to: Output,
        /// The channel: its id, or the first 6 digits or more.
        channel: Prefix,
    },
    /// A payment that this home made, or that this account received.
    #[command(
        after_help = "A payment that was made is proven with its authorisation; one that was received as its payee can show it.\n\nExamples:\n  weir evidence payment 7d1f… -o payment.json   (its reference, 64 hex digits)\n  weir evidence payment 73d6… -o payment.json   (the id of a payment received)"
    )]
    Payment {
        #[command(flatten)]
        to: Output,
        /// The payment's reference, or the id of one that was received: 64 hex digits.
        payment: Reference,
    },
    /// A payout to this account's bank account.
    Payout {
        #[command(flatten)]
        to: Output,
        /// The window; `weir statement` shows it.
        #[arg(long, value_name = "N")]
        window: u64,
        /// The currency.
        #[arg(long, default_value = "EUR")]
        currency: Currency,
    },
    /// One act by itself: a line of a statement.
    Act {
        #[command(flatten)]
        to: Output,
        /// Its place, as the statement shows it.
        #[arg(value_name = "COMMIT:ITEM")]
        place: Place,
    },
}

/// Where a file goes.
#[derive(Debug, Clone, Args)]
pub(super) struct Output {
    /// Write it to this file instead of stdout.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// An act's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    commit: u64,
    item: u32,
}

impl core::str::FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "expected COMMIT:ITEM, such as `17:0`";
        let (commit, item) = text.split_once(':').ok_or(wrong)?;
        Ok(Self { commit: commit.parse().map_err(|_| wrong)?, item: item.parse().map_err(|_| wrong)? })
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir statement --format html -o statement.html\n  weir statement --window 3 --format csv"
)]
pub(super) struct StatementArgs {
    #[command(flatten)]
    to: Output,
    /// The window [default: the one that was cut off last].
    #[arg(long, value_name = "N")]
    window: Option<u64>,
    /// The form.
    #[arg(long, value_enum, default_value_t = Form::Json)]
    format: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Json,
    Csv,
    Html,
}

/// A file that was written.
#[derive(Debug, Serialize)]
struct Written {
    file: String,
    kind: &'static str,
    proven: Vec<String>,
    not_proven: Vec<String>,
}

impl Written {
    fn show(&self) -> String {
        let mut facts = vec![("file", self.file.clone()), ("kind", self.kind.to_owned())];
        facts.extend(self.proven.iter().map(|sentence| ("proven", sentence.clone())));
        facts.extend(self.not_proven.iter().map(|sentence| ("not proven", sentence.clone())));
        printer::facts(facts)
    }
}

/// Asks for evidence, checks it, and keeps it.
pub(super) async fn evidence(context: &Context, command: &EvidenceCommand) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let (to, subject) = match command {
        EvidenceCommand::Channel { to, channel } => {
            (to, EvidenceSubject::Channel(context::channel(&client, channel).await?.channel))
        }
        EvidenceCommand::Payment { to, payment } => (to, payment_of(&client, payment).await?),
        EvidenceCommand::Payout { to, window, currency } => {
            (to, EvidenceSubject::Payout { account: client.account(), window: *window, currency: *currency })
        }
        EvidenceCommand::Act { to, place } => {
            (to, EvidenceSubject::Act { account: client.account(), commit: place.commit, item: place.item })
        }
    };
    let evidence = client.evidence(subject).await?;
    client.shut_down().await;
    let verdict = evidence.check()?;
    let bytes = evidence.to_json()?;
    let Some(path) = &to.output else { return printer::raw(&bytes).map(drop) };
    write(path, &bytes)?;
    let written = Written {
        file: path.display().to_string(),
        kind: verdict.kind,
        proven: verdict.proven,
        not_proven: verdict.open,
    };
    context.printer.print(&written, Written::show)
}

/// The payment that this home made with a reference, or that this account received with it or under it as its id.
async fn payment_of(client: &Client, payment: &Reference) -> Result<EvidenceSubject, Failure> {
    for record in client.home().lanes()? {
        let lane = record.id();
        if let Some((group, index)) = client.home().find_paid(&lane, payment)?
            && let Some((sequence, _)) = group.payment(index)
        {
            return Ok(EvidenceSubject::Payment { lane, sequence });
        }
    }
    let id = PaymentId(payment.0);
    let mut found = None;
    walk(client, Cursor::default(), |entry| {
        if let StatementItem::Earned { group, leaf, payment_id, reference, .. } = &entry.what
            && (*payment_id == id || reference == payment)
        {
            found = Some(EvidenceSubject::Receipt { commit: entry.at.number, group: *group, leaf: *leaf });
        }
    })
    .await?;
    found.ok_or_else(|| {
        let error =
            anyhow!("this home made no payment with the reference `{payment}`, and received none with it or that id");
        Failure::from(error).hint("`weir history --json` shows references and ids in full")
    })
}

/// Asks for a statement.
pub(super) async fn statement(context: &Context, args: &StatementArgs) -> Result<(), Failure> {
    let form = match args.format {
        Form::Json => StatementForm::Json,
        Form::Csv => StatementForm::Csv,
        Form::Html => StatementForm::Html,
    };
    let client = context.client(Use::Beside).await?;
    let mut text = client.window_statement(args.window, form).await.map_err(|error| match (&error, args.window) {
        (Error::Refused(Reject::UnknownPayment), Some(window)) => {
            Failure::from(anyhow!("there is no window {window}")).hint("without `--window` it is the one cut off last")
        }
        _ => Failure::from(error),
    })?;
    client.shut_down().await;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let Some(path) = &args.to.output else { return printer::raw(text.as_bytes()).map(drop) };
    write(path, text.as_bytes())?;
    say(&format!("The statement is in `{}`.", path.display()));
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    Ok(std::fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_a_commit_and_an_item() {
        assert_eq!("17:0".parse(), Ok(Place { commit: 17, item: 0 }));
        for bad in ["", "17", "17:", ":1", "17:0:1", "-1:0", "17:99999999999"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
