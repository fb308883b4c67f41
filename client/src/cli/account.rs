//! Who one is at the hub: `init`, `id`, `register`, `balance`.

use clap::Args;
use serde::Serialize;
use weir_client::protocol::amount::{Amount, Currency};
use weir_client::protocol::hash::Hash;
use weir_client::protocol::id::{AccountId, HubAddress, HubId};
use weir_client::protocol::wire::{AccountInfo, Done};
use weir_client::{Home, PlainKeys};

use super::context::{self, Context, Use};
use super::failure::Failure;
use super::printer::{self, say};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weir init --hub weir://weirhub1…@hub.example.org:4433")]
pub(super) struct InitArgs {
    /// The hub's address, as its operator gives it: `weir://<hub id>@host:port`.
    #[arg(long, env = "WEIR_HUB", value_name = "ADDRESS")]
    hub: HubAddress,
    /// Keep the keys under a passphrase: asked on the terminal, or taken from `WEIR_PASSPHRASE`.
    #[arg(long)]
    passphrase: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weir register --name 'Ada Payer' --iban 'DE02 1203 0000 0000 2020 51'")]
pub(super) struct RegisterArgs {
    /// The bank account's owner, as the bank knows them: at most 70 characters that banks take.
    #[arg(long)]
    name: String,
    /// The bank account that payouts go to.
    #[arg(long)]
    iban: String,
}

#[derive(Debug, Serialize)]
struct Identity {
    account: AccountId,
    hub: String,
    home: String,
}

impl Identity {
    fn of(home: &Home) -> Self {
        let folder = std::path::absolute(home.path()).unwrap_or_else(|_| home.path().to_owned());
        Self { account: home.account(), hub: home.hub().to_string(), home: folder.display().to_string() }
    }

    fn show(&self) -> String {
        printer::facts([("account", self.account.to_string()), ("hub", self.hub.clone()), ("home", self.home.clone())])
    }
}

/// What an act led to: its id, which stays the same however often it is sent, and the commit that holds it.
#[derive(Debug, Serialize)]
pub(super) struct ActDone {
    /// The digest that was signed.
    pub(super) act: Option<Hash>,
    /// The commit's number.
    pub(super) commit: Option<u64>,
}

impl ActDone {
    /// Nothing was sent.
    pub(super) const NONE: Self = Self { act: None, commit: None };

    pub(super) fn of(hub: &HubId, done: &Done) -> Self {
        Self { act: Some(done.act.digest(hub)), commit: Some(done.proof.commit.commit.number) }
    }

    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let act = self.act.map(|act| ("act", act.to_string()));
        let commit = self.commit.map(|commit| ("commit", commit.to_string()));
        act.into_iter().chain(commit).collect()
    }
}

/// Makes a home.
pub(super) fn init(context: &Context, args: &InitArgs) -> Result<(), Failure> {
    // Asked before anything is made, so that a passphrase mistyped leaves nothing behind.
    if context.home().join("config.json").exists() {
        return Err(weir_client::HomeError::Exists(context.home().to_owned()).into());
    }
    let sealer = if args.passphrase { context::new_passphrase()? } else { PlainKeys::sealer() };
    let home = Home::create(context.home(), &args.hub, sealer)?;
    context.printer.print(&Identity::of(&home), Identity::show)?;
    say("The keys in this folder are your money: keep a backup (see the guide), and never pay from two copies.");
    say("Next: weir register --name NAME --iban IBAN");
    Ok(())
}

/// Says who one is.
pub(super) fn id(context: &Context) -> Result<(), Failure> {
    context.printer.print(&Identity::of(&context.look()?), Identity::show)
}

#[derive(Debug, Serialize)]
struct Registered {
    account: AccountId,
    name: String,
    iban: String,
    approved: bool,
    #[serde(flatten)]
    done: ActDone,
}

impl Registered {
    fn show(&self) -> String {
        let mut facts = vec![
            ("account", self.account.to_string()),
            ("name", self.name.clone()),
            ("iban", self.iban.clone()),
            ("approved", yes(self.approved)),
        ];
        facts.extend(self.done.facts());
        printer::facts(facts)
    }
}

/// Makes the account known to the hub, or changes its bank details.
pub(super) async fn register(context: &Context, args: &RegisterArgs) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let done = client.register(&args.name, &args.iban).await?;
    let info = client.account_info().await?;
    let registered = Registered {
        account: info.account,
        name: info.name,
        iban: info.iban,
        approved: info.approved,
        done: ActDone::of(&client.hub(), &done),
    };
    client.shut_down().await;
    context.printer.print(&registered, Registered::show)?;
    let asked: String = args.iban.chars().filter(|letter| !letter.is_whitespace()).collect();
    if !registered.iban.eq_ignore_ascii_case(&asked) {
        say(
            "The new bank account waits: until the hub's time for changes is over, payouts go to the old one. If it was \
             not you who changed it, tell the hub's operator.",
        );
    }
    say(if registered.approved {
        "Next: weir deposit (to pay), or weir listen (to be paid)"
    } else {
        "The hub's operator must approve the account before it can pay or be paid."
    });
    Ok(())
}

#[derive(Debug, Serialize)]
struct BalanceReport {
    account: AccountId,
    name: String,
    iban: String,
    approved: bool,
    frozen_incoming: bool,
    frozen_outgoing: bool,
    balances: Vec<Money>,
}

#[derive(Debug, Serialize)]
struct Money {
    currency: Currency,
    available: Amount,
    locked: Amount,
    earned: Amount,
    payable: Amount,
    marked: Amount,
    in_transit: Amount,
    provisional: Amount,
}

impl BalanceReport {
    fn show(&self) -> String {
        let mut facts = vec![
            ("account", self.account.to_string()),
            ("name", self.name.clone()),
            ("iban", self.iban.clone()),
            ("approved", yes(self.approved)),
        ];
        if self.frozen_incoming || self.frozen_outgoing {
            let what = match (self.frozen_incoming, self.frozen_outgoing) {
                (true, true) => "payments to it and by it",
                (true, false) => "payments to it",
                _ => "payments by it",
            };
            facts.push(("frozen", what.to_owned()));
        }
        let rows = self.balances.iter().map(|money| {
            [
                money.currency.to_string(),
                money.available.to_string(),
                money.locked.to_string(),
                money.earned.to_string(),
                money.payable.to_string(),
                money.marked.to_string(),
                money.in_transit.to_string(),
                money.provisional.to_string(),
            ]
        });
        let heading = ["CURRENCY", "AVAILABLE", "LOCKED", "EARNED", "PAYABLE", "MARKED", "IN TRANSIT", "PROVISIONAL"];
        format!("{}\n\n{}", printer::facts(facts), printer::table(heading, rows, "no money yet"))
    }
}

/// Says how much there is, and where.
pub(super) async fn balance(context: &Context) -> Result<(), Failure> {
    let client = context.client(Use::Beside).await?;
    let AccountInfo { account, name, iban, approved, frozen_incoming, frozen_outgoing, balances, .. } =
        client.account_info().await?;
    client.shut_down().await;
    let balances = balances.iter().map(|balance| Money {
        currency: balance.currency,
        available: balance.available,
        locked: balance.locked,
        earned: balance.earned,
        payable: balance.payable,
        marked: balance.marked,
        in_transit: balance.in_transit,
        provisional: balance.provisional,
    });
    let report =
        BalanceReport { account, name, iban, approved, frozen_incoming, frozen_outgoing, balances: balances.collect() };
    context.printer.print(&report, BalanceReport::show)
}

/// As people read it.
pub(super) fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}
