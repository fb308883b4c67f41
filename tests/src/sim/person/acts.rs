//! What a participant wants: channels, lanes, orders, refunds, withdrawals.

use weir_protocol::act::{
    Act, Amend, CloseRequest, Earnings, EarningsUse, Mandate, MandateScheme, Refund, Register, Revoke, Withdraw,
};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::channel::{ChannelTerms, LaneGrant, LaneMode};
use weir_protocol::reject::Reject;

use super::lanes::LaneSide;
use super::{ChannelSide, IBAN, Person};
use crate::note;
use crate::sim::control::{Purpose, Settled};
use crate::sim::cx::Cx;
use crate::sim::log::{Checked, Failure, ensure};
use crate::sim::model::{EUR, Pot};

/// A cent.
const CENT: u64 = 10_000_000;

impl Person {
    /// One or a few wishes.
    pub(super) fn want(&mut self, cx: &mut Cx) -> Checked {
        if !self.registered {
            return Ok(());
        }
        let wish = cx.rng.below(40);
        match wish {
            0 | 1 if self.control.len() < 3 => self.withdraw(cx),
            2..=4 if self.control.len() < 3 => self.refund(cx),
            5 if self.control.len() < 3 && cx.rng.once_in(3) => self.earnings(cx),
            5 if self.control.len() < 3 => self.rename(cx),
            12 if self.control.len() < 3 && cx.rng.once_in(2) => self.mandate(cx),
            6..=11 if self.pays && self.control.len() < 3 => self.want_channel(cx)?,
            _ if self.pays => self.want_payments(cx)?,
            _ => {}
        }
        Ok(())
    }

    fn want_channel(&mut self, cx: &mut Cx) -> Checked {
        let live: Vec<usize> =
            (0..self.channels.len()).filter(|at| self.channels.get(*at).is_some_and(|side| side.open)).collect();
        let wanted = self.channels.iter().filter(|side| !side.gone).count();
        cx.operations += 1;
        if wanted < 2 || (wanted < 3 && cx.rng.once_in(3)) {
            return self.open(cx);
        }
        let Some(at) = cx.rng.pick(&live).copied() else { return Ok(()) };
        match cx.rng.below(12) {
            0 => self.close_channel(cx, at),
            1 | 2 => self.amend(cx, at),
            3 => self.revoke(cx, at),
            _ => self.grant(cx, at)?,
        }
        Ok(())
    }

    fn open(&mut self, cx: &mut Cx) -> Checked {
        let key = cx.key().map_err(|error| Failure(error.to_string()))?;
        let opened_at = if cx.rng.once_in(20) { cx.now().plus_ms(700_000) } else { cx.now() };
        let life = if cx.rng.once_in(4) { cx.rng.range(1_000, 8_000) } else { cx.rng.range(20_000, 2_000_000) };
        let terms = ChannelTerms {
            hub: cx.hub,
            account: self.account,
            scheme: 0,
            key: key.public(),
            currency: EUR,
            capacity: Amount::from_nanos(cx.rng.range(1, 60) * CENT),
            opened_at,
            expires_at: cx.now().plus_ms(life),
            renew: cx.rng.once_in(2),
            salt: cx.rng.bytes(),
        };
        let side = ChannelSide {
            terms,
            key,
            open: false,
            gone: false,
            capacity: terms.capacity.nanos(),
            expires_at: terms.expires_at.0,
            lanes: 1,
            number: 0,
            granting: None,
        };
        self.control.push(Act::Open(terms).sign(&cx.hub, &self.key), Purpose::Open(self.channels.len()));
        self.channels.push(side);
        Ok(())
    }

    fn grant(&mut self, cx: &mut Cx, at: usize) -> Checked {
        let Some(side) = self.channels.get_mut(at) else { return Ok(()) };
        if side.granting.is_some() || side.lanes > 5 {
            return Ok(());
        }
        let key = cx.key().map_err(|error| Failure(error.to_string()))?;
        let reserved = cx.rng.once_in(3);
        let bound = cx.rng.once_in(4);
        let ends = cx.rng.once_in(3);
        let grant = LaneGrant {
            channel: side.terms.id(),
            lane: side.lanes,
            scheme: 0,
            key: key.public(),
            mode: if reserved { LaneMode::Reserved } else { LaneMode::Shared },
            payee: if bound { cx.rng.pick(&cx.destinations.clone()).copied() } else { None },
            limit: Amount::from_nanos(cx.rng.range(1, 12) * CENT),
            period: if reserved || cx.rng.once_in(2) { 0 } else { u32::try_from(cx.rng.range(1, 3)).unwrap_or(1) },
            expires_at: if ends { cx.now().plus_ms(cx.rng.range(500, 9_000)) } else { Time::MAX },
        };
        self.control.push(Act::Grant(grant).sign(&cx.hub, &side.key), Purpose::Grant(at));
        side.granting = Some((grant, key));
        Ok(())
    }

    fn amend(&mut self, cx: &mut Cx, at: usize) {
        let number = self.next_number();
        let Some(side) = self.channels.get_mut(at) else { return };
        side.capacity += cx.rng.below(6) * CENT;
        side.expires_at += cx.rng.below(4) * 5_000;
        let amend = Amend {
            number,
            channel: side.terms.id(),
            capacity: Amount::from_nanos(side.capacity),
            expires_at: Time(side.expires_at),
            renew: cx.rng.once_in(2),
        };
        self.control.push(Act::Amend(amend).sign(&cx.hub, &self.key), Purpose::Amend(at));
    }

    fn revoke(&mut self, cx: &mut Cx, at: usize) {
        let Some(side) = self.channels.get_mut(at) else { return };
        if side.lanes < 2 {
            return;
        }
        side.number += 1;
        let lane = u32::try_from(cx.rng.range(1, u64::from(side.lanes) - 1)).unwrap_or(1);
        let revoke = Revoke { number: side.number, channel: side.terms.id(), lane };
        self.control.push(Act::Revoke(revoke).sign(&cx.hub, &side.key), Purpose::Revoke(at));
    }

    fn close_channel(&mut self, cx: &mut Cx, at: usize) {
        let by_owner = cx.rng.once_in(2);
        let number = if by_owner { self.next_number() } else { 0 };
        let Some(side) = self.channels.get_mut(at) else { return };
        let number = if by_owner {
            number
        } else {
            side.number += 1;
            side.number
        };
        let request = Act::CloseRequest(CloseRequest { number, channel: side.terms.id() });
        let signed = request.sign(&cx.hub, if by_owner { &self.key } else { &side.key });
        self.control.push(signed, Purpose::Close(at));
    }

    fn rename(&mut self, cx: &mut Cx) {
        cx.operations += 1;
        let number = self.next_number();
        let register = Register { number, account: self.account, name: format!("renamed {number}"), iban: IBAN.into() };
        self.control.push(Act::Register(register).sign(&cx.hub, &self.key), Purpose::Register);
    }

    fn withdraw(&mut self, cx: &mut Cx) {
        cx.operations += 1;
        let number = self.next_number();
        // Now and then all of it, so that what the bank takes back later is not there.
        let all = self.mandates > 0 && cx.rng.once_in(4);
        let held = [Pot::Available, Pot::Marked].map(|pot| cx.model.money.of(&self.account, pot));
        let some = cx.rng.below(4) * cx.rng.below(2 * CENT);
        let marked = if all { u64::try_from(held.iter().sum::<i128>()).unwrap_or(some) } else { some };
        let marked = Amount::from_nanos(marked);
        let withdraw = Withdraw { number, account: self.account, currency: EUR, marked };
        self.control.push(Act::Withdraw(withdraw).sign(&cx.hub, &self.key), Purpose::Withdraw);
    }

    fn earnings(&mut self, cx: &mut Cx) {
        cx.operations += 1;
        let number = self.next_number();
        let all = [EarningsUse::PayOut, EarningsUse::Net, EarningsUse::Keep];
        let becomes = cx.rng.pick(&all).copied().unwrap_or_default();
        let earnings = Earnings { number, account: self.account, currency: EUR, becomes };
        self.control.push(Act::Earnings(earnings).sign(&cx.hub, &self.key), Purpose::Earnings);
    }

    /// A new permission to collect, or the end of one that may never have been there.
    fn mandate(&mut self, cx: &mut Cx) {
        cx.operations += 1;
        let number = self.next_number();
        let revoked = self.mandates > 0 && cx.rng.once_in(4);
        if !revoked && !cx.rng.once_in(20) {
            self.mandates += 1;
        }
        let which = if revoked { cx.rng.range(1, self.mandates) } else { self.mandates };
        let mandate = Mandate {
            number,
            account: self.account,
            scheme: if cx.rng.once_in(3) { MandateScheme::B2b } else { MandateScheme::Core },
            mandate_id: format!("M-{}-{which}", self.id.0),
            iban: IBAN.into(),
            signed_at: Time(1),
            revoked,
        };
        self.control.push(Act::Mandate(mandate).sign(&cx.hub, &self.key), Purpose::Mandate);
    }

    fn refund(&mut self, cx: &mut Cx) {
        let places: Vec<_> = self.received.keys().copied().collect();
        let Some(id) = cx.rng.pick(&places).copied() else { return };
        let Some(received) = self.received.get_mut(&id) else { return };
        if received.refunded == received.amount {
            return;
        }
        cx.operations += 1;
        let left = received.amount - received.refunded;
        received.refunded += if cx.rng.once_in(2) { left } else { cx.rng.range(1, left) };
        let refund = Refund {
            chain: received.chain,
            commit: received.commit,
            group: received.group,
            leaf: received.leaf,
            payment_id: id,
            refunded_total: Amount::from_nanos(received.refunded),
        };
        self.control.push(Act::Refund(refund).sign(&cx.hub, &self.key), Purpose::Refund);
    }

    /// An act is answered.
    pub(super) fn settled(&mut self, cx: &mut Cx, settled: Settled) -> Checked {
        let Settled { pending, result } = settled;
        let said = result.as_ref().err().map_or_else(|| "done".to_owned(), ToString::to_string);
        if let Err(reject) = &result {
            cx.reach(format!("act refused: {reject}"));
        }
        note!(cx, "person {}: {}: {said}", self.id.0, super::super::short(&pending.signed.act));
        match (pending.purpose, result) {
            (Purpose::Register, result) => {
                ensure(result.is_ok() || self.registered, || format!("an honest registration: {said}"))?;
                self.registered = true;
            }
            (Purpose::Open(at), Ok(_)) => {
                let Some(side) = self.channels.get_mut(at) else { return Ok(()) };
                side.open = true;
                let zero = side.terms.lane_zero();
                let key = weir_protocol::keys::SecretKey::from_bytes(&side.key.to_bytes())
                    .map_err(|error| Failure(error.to_string()))?;
                let lane = LaneSide::new(cx, self.id, at, &side.terms, zero, key)?;
                self.lanes.push(lane);
            }
            (Purpose::Open(at), Err(_)) => {
                if let Some(side) = self.channels.get_mut(at) {
                    side.gone = true;
                }
            }
            (Purpose::Grant(at), result) => {
                let Some(side) = self.channels.get_mut(at) else { return Ok(()) };
                let Some((grant, key)) = side.granting.take() else { return Ok(()) };
                if result.is_ok() {
                    side.lanes += 1;
                    let lane = LaneSide::new(cx, self.id, at, &side.terms, grant, key)?;
                    self.lanes.push(lane);
                }
            }
            (Purpose::Close(at), result) => {
                if let Some(side) = self.channels.get_mut(at)
                    && (result.is_ok() || result == Err(Reject::Closed))
                {
                    side.open = false;
                    side.gone = true;
                }
            }
            (Purpose::Amend(at), Err(_)) => {
                if let Some(side) = self.channels.get_mut(at) {
                    side.capacity = side.capacity.max(side.terms.capacity.nanos());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn want_payments(&mut self, cx: &mut Cx) -> Checked {
        let live: Vec<usize> = (0..self.lanes.len())
            .filter(|at| self.lanes.get(*at).is_some_and(|lane| !lane.is_over() || cx.rng.once_in(20)))
            .collect();
        let Some(at) = cx.rng.pick(&live).copied() else { return Ok(()) };
        let burst = if cx.rng.once_in(3) { cx.rng.range(1, 12) } else { 1 };
        for _ in 0..burst {
            cx.operations += 1;
            let destinations = cx.destinations.clone();
            let Some(payee) = cx.rng.pick(&destinations).copied() else { return Ok(()) };
            if let Some(lane) = self.lanes.get_mut(at) {
                lane.order(cx, payee)?;
            }
        }
        Ok(())
    }
}
