//! An honest participant: pays and is paid, by the payer's state machine and the books of its own home.
//!
//! Its home outlives its process: keys, marks, paid groups, acts on their way, and what its callers were told.

mod acts;
mod credits;
mod lanes;

use std::collections::BTreeMap;

use weir_protocol::act::{Act, Register};
use weir_protocol::channel::{ChannelTerms, LaneGrant};
use weir_protocol::id::{AccountId, PaymentId};
use weir_protocol::keys::SecretKey;
use weir_protocol::lane::payer::HubProofs;
use weir_protocol::wire::Cursor;

use super::control::{Control, Purpose};
use super::cx::Cx;
use super::log::{Checked, Failure};
use super::net::{ActorId, ConnId, Stream, ToClient};
use crate::note;

pub(crate) use lanes::LaneSide;

/// A bank account that everybody here uses.
const IBAN: &str = "DE89370400440532013000";

/// A channel as its owner keeps it.
#[derive(Debug)]
struct ChannelSide {
    terms: ChannelTerms,
    key: SecretKey,
    open: bool,
    gone: bool,
    capacity: u64,
    expires_at: u64,
    lanes: u32,
    number: u64,
    /// A grant that waits, with its lane's key.
    granting: Option<(LaneGrant, SecretKey)>,
}

/// A payment received.
#[derive(Debug, Clone, Copy)]
struct Received {
    chain: u64,
    commit: u64,
    group: u32,
    leaf: u32,
    amount: u64,
    refunded: u64,
}

/// A participant.
#[derive(Debug)]
pub(crate) struct Person {
    id: ActorId,
    /// Its account.
    pub(crate) account: AccountId,
    key: SecretKey,
    pays: bool,
    number: u64,
    mandates: u64,
    registered: bool,
    control: Control,
    channels: Vec<ChannelSide>,
    lanes: Vec<LaneSide>,
    received: BTreeMap<PaymentId, Received>,
    cursor: Cursor,
    // What a crash of the process loses:
    life: u64,
    up: bool,
    conn: Option<ConnId>,
    connecting: Option<ConnId>,
    proofs: HubProofs,
    credit_stream: Stream,
    credit_commit: Option<weir_protocol::commit::SignedCommit>,
    histories: BTreeMap<u64, usize>,
}

impl Person {
    /// Somebody with a fresh account key.
    pub(crate) fn new(cx: &mut Cx, id: ActorId, pays: bool) -> Checked<Self> {
        let key = cx.key().map_err(|error| Failure(error.to_string()))?;
        let account = AccountId(key.public());
        cx.destinations.push(account);
        Ok(Self {
            id,
            account,
            key,
            pays,
            number: 0,
            mandates: 0,
            registered: false,
            control: Control::default(),
            channels: Vec::new(),
            lanes: Vec::new(),
            received: BTreeMap::new(),
            cursor: Cursor::default(),
            life: 0,
            up: true,
            conn: None,
            connecting: None,
            proofs: HubProofs::new(cx.hub),
            credit_stream: 0,
            credit_commit: None,
            histories: BTreeMap::new(),
        })
    }

    /// Does what there is to do; how long until it should be called again, in microseconds.
    pub(crate) fn wake(&mut self, cx: &mut Cx) -> Checked<u64> {
        if !self.up {
            self.up = true;
            note!(cx, "person {} starts again", self.id.0);
            self.restart(cx)?;
        }
        if self.conn.is_none() && self.connecting.is_none() {
            self.connecting = Some(cx.connect(self.id));
        }
        if !self.registered && !self.control.has(Purpose::Register) {
            let number = self.next_number();
            let name = format!("person {}", self.id.0);
            let register = Act::Register(Register { number, account: self.account, name, iban: IBAN.into() });
            self.control.push(register.sign(&cx.hub, &self.key), Purpose::Register);
        }
        if cx.busy() && (cx.hub_up || cx.rng.once_in(30)) {
            self.want(cx)?;
        }
        self.pump(cx)?;
        Ok(if cx.calm {
            cx.rng.range(10_000, 100_000)
        } else if cx.hub_up {
            cx.rng.range(2_000, cx.mood.wishes_us)
        } else {
            cx.rng.range(200_000, 3_000_000)
        })
    }

    fn pump(&mut self, cx: &mut Cx) -> Checked {
        if let Some(conn) = self.conn {
            self.control.pump(cx, conn);
        }
        for lane in 0..self.lanes.len() {
            self.drive(cx, lane)?;
        }
        Ok(())
    }

    const fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// The process dies.
    pub(crate) fn crash(&mut self, cx: &mut Cx) {
        if !self.up {
            return;
        }
        note!(cx, "person {} crashes", self.id.0);
        self.up = false;
        self.life += 1;
        for conn in self.conn.take().into_iter().chain(self.connecting.take()) {
            cx.close(conn);
        }
        self.control.lost();
        self.histories.clear();
        self.credit_commit = None;
        for lane in &mut self.lanes {
            lane.crash();
        }
    }

    /// A connection is there.
    pub(crate) fn connected(&mut self, cx: &mut Cx, conn: ConnId) -> Checked {
        if !self.up || self.connecting != Some(conn) {
            cx.close(conn);
            return Ok(());
        }
        self.connecting = None;
        self.conn = Some(conn);
        self.admit(cx)?;
        self.subscribe(cx, conn);
        self.pump(cx)
    }

    fn admit(&mut self, cx: &Cx) -> Checked {
        use weir_protocol::lane::payer::CommitCheck as _;
        self.proofs.admit(&cx.certificate).map_err(|error| Failure(format!("the certificate: {error}")))
    }

    /// A connection is gone, or never came.
    pub(crate) fn gone(&mut self, cx: &mut Cx, conn: ConnId) {
        if self.connecting == Some(conn) {
            self.connecting = None;
        }
        if self.conn != Some(conn) {
            return;
        }
        note!(cx, "person {} loses its connection", self.id.0);
        self.conn = None;
        self.control.lost();
        self.histories.clear();
        self.credit_commit = None;
        for lane in &mut self.lanes {
            lane.lost();
        }
    }

    fn hang_up(&mut self, cx: &mut Cx) {
        if let Some(conn) = self.conn {
            cx.close(conn);
            self.gone(cx, conn);
        }
    }

    /// A message of the hub.
    pub(crate) fn hear(&mut self, cx: &mut Cx, conn: ConnId, message: ToClient) -> Checked {
        if !self.up || self.conn != Some(conn) {
            return Ok(());
        }
        match message {
            ToClient::Lane { stream, reply } => {
                if let Some(lane) = self.lanes.iter().position(|lane| lane.stream() == Some(stream)) {
                    self.lane_reply(cx, lane, reply)?;
                }
            }
            ToClient::History { id, group } => {
                if let Some(lane) = self.histories.remove(&id) {
                    self.lane_history(cx, lane, group.map(|group| *group))?;
                }
            }
            ToClient::Done { id, act, proof } => {
                if let Some(settled) = self.control.done(cx, id, *act, &proof)? {
                    self.settled(cx, settled)?;
                }
            }
            ToClient::Refused { id, reject } => {
                if let Some(settled) = self.control.refused(cx, id, reject) {
                    self.settled(cx, settled)?;
                }
            }
            ToClient::Credit { stream, message } => {
                if stream == self.credit_stream {
                    self.credit(cx, *message)?;
                }
            }
        }
        self.pump(cx)
    }

    /// What still waits for an answer, in words; nothing when everything is at rest.
    pub(crate) fn waits_for(&self) -> Option<String> {
        let orders: usize = self.lanes.iter().map(LaneSide::unanswered).sum();
        let acts = self.control.len();
        (orders + acts > 0).then(|| format!("person {}: {orders} orders, {acts} acts", self.id.0))
    }
}
