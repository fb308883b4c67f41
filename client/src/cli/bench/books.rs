//! What the books say at the end: every payment that was acknowledged is there, to the nano, or the run fails.

use tokio::task::block_in_place;
use weir_client::Client;
use weir_client::protocol::amount::Amount;
use weir_client::protocol::id::ChannelId;

use super::super::failure::Failure;
use super::super::printer::say;
use super::meter::Totals;
use super::report::{Audit, Verdict};
use super::spawn::{self, Audited, Spawned};

/// Stops the hub and audits what it leaves behind.
pub(super) fn audited(hub: Spawned, totals: &Totals) -> Result<(Verdict, Audit), Failure> {
    let (binary, data) = (hub.binary.clone(), hub.data());
    let found = block_in_place(|| {
        hub.stop()?;
        spawn::audit(&binary, &data)
    })?;
    Ok(judge(found, totals))
}

/// What an audit says about what was paid. Nothing else earns at a hub of the bench's own, and nothing is refunded: what was
/// paid is what was earned, to the nano.
fn judge(found: Audited, totals: &Totals) -> (Verdict, Audit) {
    let earned = found.sums.get("EUR").map_or("0", |sums| sums.earned.as_str()).to_owned();
    let same = found.payments == totals.paid && earned.parse() == Ok(Amount::from_nanos(totals.sent_nanos));
    let verdict = match found.audit.as_str() {
        "clean" if same => Verdict::Clean,
        "clean" => Verdict::Differs,
        _ => Verdict::Broken,
    };
    let details = Audit {
        paid: totals.paid,
        found: Some(found.payments),
        missing: totals.paid.saturating_sub(found.payments),
        paid_amount: Amount::from_nanos(totals.sent_nanos).to_string(),
        found_amount: earned,
        commits: Some(found.commits),
        first_error: found.first_error,
    };
    (verdict, details)
}

/// Compares what the hub says that the channels have spent with what was paid.
pub(super) async fn compared(
    owner: &Client,
    opened: &[ChannelId],
    totals: &Totals,
) -> Result<(Verdict, Audit), Failure> {
    let mut spent = Amount::ZERO;
    for channel in opened {
        spent = spent.checked_add(owner.channel(*channel).await?.spent)?;
    }
    let paid = Amount::from_nanos(totals.sent_nanos);
    let details = Audit {
        paid: totals.paid,
        found: None,
        missing: 0,
        paid_amount: paid.to_string(),
        found_amount: spent.to_string(),
        commits: None,
        first_error: None,
    };
    Ok((if spent == paid { Verdict::Agrees } else { Verdict::Differs }, details))
}

/// Closes what the home opened. What cannot be closed now is said.
pub(super) async fn close(owner: &Client, opened: &mut Vec<ChannelId>) {
    for channel in opened.drain(..) {
        if let Err(error) = owner.close(channel).await {
            say(&format!("channel {channel} stays open: {error}"));
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn verdict_is_clean_only_if_every_payment_and_every_nano_is_there() {
        let judged = |audit: &str, payments: u64, earned: &str| {
            let found = serde_json::json!({
                "audit": audit, "payments": payments, "commits": 3, "first_error": null,
                "sums": {"EUR": {"earned": earned}},
            });
            let totals = Totals { sent: 5, sent_nanos: 1_000_000_007, paid: 5, frames: 3, groups: 2 };
            let (verdict, details) = judge(serde_json::from_value(found).unwrap(), &totals);
            (verdict, details.missing)
        };
        assert_eq!(judged("clean", 5, "1.000000007"), (Verdict::Clean, 0));
        assert_eq!(judged("clean", 4, "1.000000007"), (Verdict::Differs, 1));
        assert_eq!(judged("clean", 6, "1.000000007"), (Verdict::Differs, 0));
        assert_eq!(judged("clean", 5, "1.000000006"), (Verdict::Differs, 0));
        assert_eq!(judged("broken", 5, "1.000000007"), (Verdict::Broken, 0));
    }
}
