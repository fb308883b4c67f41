//! The bank beside a hub: the sandbox bank on the hub's own directories. Money arrives only as files in the inbox.

use std::collections::BTreeMap;

use weir_hub::bank::{Currency, IncomingTransfer, Remittance, SandboxBank, SandboxOptions, Spool};
use weir_hub::clock::wall_ms;
use weir_protocol::amount::Amount;

use super::place::{HUB_IBAN, HUB_NAME, Place};

/// Opens the bank of a place, or founds it.
fn open(place: &Place) -> SandboxBank {
    let spool = Spool::open(&place.data().join("bank")).unwrap();
    SandboxBank::open(SandboxOptions {
        dir: place.path("sandbox"),
        outbox: spool.outbox().to_owned(),
        inbox: spool.inbox().to_owned(),
        name: HUB_NAME.to_owned(),
        iban: HUB_IBAN.parse().unwrap(),
        currency: Currency::EUR,
        rejects: BTreeMap::new(),
        batch_booking: false,
    })
    .unwrap()
}

/// Somebody sends money to the hub under a creditor reference.
pub fn transfer(place: &Place, reference: &str, amount: Amount) {
    let transfer = IncomingTransfer {
        amount: amount.to_decimal(),
        debtor_name: "Somebody".to_owned(),
        debtor_iban: PERSON_IBAN.parse().unwrap(),
        remittance: Remittance::Reference(reference.parse().unwrap()),
    };
    open(place).receive_transfer(&transfer, wall_ms()).unwrap();
}

/// The bank account of everybody.
pub const PERSON_IBAN: &str = "DE02120300000000202051";
