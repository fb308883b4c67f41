//! The hub itself: `hub` shows its rules, and takes a new host and port when it moved.

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use weir_client::protocol::amount::{Amount, Currency, Time};
use weir_client::protocol::id::{HubAddress, HubId};

use super::account::yes;
use super::context::{Context, Use};
use super::failure::Failure;
use super::printer;
use super::text;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weir hub --moved-to weir://weirhub1…@new.example.org:4433")]
pub(super) struct HubArgs {
    /// The hub's new address; it must be the same hub.
    #[arg(long, value_name = "ADDRESS")]
    moved_to: Option<HubAddress>,
}

#[derive(Debug, Serialize)]
struct HubReport {
    hub: HubId,
    address: String,
    time_ms: u64,
    newest_commit: u64,
    open_registration: bool,
    currencies: Vec<Currency>,
    /// Hundredths of a percent of what a payee earned.
    fee_basis_points: u32,
    /// Besides, for each payment that it received.
    fee_per_payment: Amount,
    /// At least this in a window in which it earned something.
    fee_minimum: Amount,
    /// Null: no bound.
    payment_max: Option<Amount>,
    payout_min: Amount,
    refund_days: u32,
}

impl HubReport {
    fn show(&self) -> String {
        let currencies: Vec<_> = self.currencies.iter().map(Currency::to_string).collect();
        printer::facts([
            ("hub", self.hub.to_string()),
            ("address", self.address.clone()),
            ("time", text::time(Time(self.time_ms))),
            ("newest commit", self.newest_commit.to_string()),
            ("open registration", yes(self.open_registration)),
            ("currencies", currencies.join(", ")),
            (
                "fee",
                format!(
                    "{} hundredths of a percent of what is earned, {} a payment, at least {} a window",
                    self.fee_basis_points, self.fee_per_payment, self.fee_minimum
                ),
            ),
            ("largest payment", self.payment_max.map_or_else(|| "no bound".to_owned(), |amount| amount.to_string())),
            ("smallest payout", self.payout_min.to_string()),
            ("refunds", format!("within {} days", self.refund_days)),
        ])
    }
}

/// Shows the hub, at its new place when it moved.
pub(super) async fn hub(context: &Context, args: &HubArgs) -> Result<(), Failure> {
    if let Some(address) = &args.moved_to {
        let mut home = context.open(Use::Alone).await?;
        if address.hub != home.hub().hub {
            let error = anyhow!("`{}` is another hub than this home's, {}", address.hub, home.hub().hub);
            return Err(
                Failure::from(error).hint("another hub needs another home: `weir --home DIR init --hub ADDRESS`")
            );
        }
        home.set_hub_place(&address.host, address.port)?;
    }
    let client = context.client(Use::Beside).await?;
    let info = client.hub_info().await?;
    let report = HubReport {
        hub: client.hub(),
        address: client.home().hub().to_string(),
        time_ms: info.time.0,
        newest_commit: info.newest.number,
        open_registration: info.policy.open_registration,
        currencies: info.policy.currencies,
        fee_basis_points: info.policy.fee_basis_points,
        fee_per_payment: info.policy.fee_per_payment,
        fee_minimum: info.policy.fee_minimum,
        payment_max: (!info.policy.payment_max.is_zero()).then_some(info.policy.payment_max),
        payout_min: info.policy.payout_min,
        refund_days: info.policy.refund_days,
    };
    client.shut_down().await;
    context.printer.print(&report, HubReport::show)
}
