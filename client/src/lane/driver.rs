//! The task behind a lane: it moves messages, files and waits for the payer's machine, and decides nothing about payments.
//!
//! A frame is signed whenever the stream can take one; orders that arrive meanwhile join the next. No timer is involved. It
//! reads and writes the stream itself: between a caller and the connection there is one task.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};
use weir_protocol::amount::Time;
use weir_protocol::commit::SignedCommit;
use weir_protocol::id::{LaneId, Reference};
use weir_protocol::keys::SecretKey;
use weir_protocol::lane::payer::{Event, LaneSpec, Order, PaidGroup, Payer, Resume, Stop, SubmitError, Ticket};
use weir_protocol::reject::{Reaction, Reject};
use weir_protocol::wire::{HistoryGroup, KeyScope, LaneReply, MAX_MESSAGE, Opening, Reply, Request, encode};

use super::waiters::{Outcomes, SinkId, Waiter, Waiters};
use super::{BatchOutcome, LaneOptions, LaneStatus, Refused};
use crate::client::{Backoff, Inner};
use crate::connection::{Connection, now};
use crate::error::{Error, HomeError, HubEvidence, InfraError, LaneStopped, MisuseError, PayError};
use crate::framing::{Reader, Writer};
use crate::home::{Driving, PaidLog};

/// Orders that wait in the machine before the task takes no more from its queue.
const MOST_QUEUED: usize = 32 * 1024;
/// A hub that is connected and answers nothing for so long is given up, and connected to again.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// Commands taken from the queue at once.
const COMMANDS: usize = 1024;

/// A payment by its place in its group.
type Place = (Arc<PaidGroup>, usize);

/// What callers ask of the task.
#[derive(Debug)]
pub(super) enum Command {
    Pay(Order, oneshot::Sender<Word>),
    PayMany(Outcomes, Vec<(u64, Order)>),
    Find(Reference, oneshot::Sender<Result<Option<Place>, HomeError>>),
    Groups(usize, usize, oneshot::Sender<Result<Vec<PaidGroup>, HomeError>>),
    Attach(oneshot::Sender<Result<LaneStatus, Error>>),
    Recover(oneshot::Sender<bool>),
}

/// What a waiter hears, but for payments of a batch, which hear of their group together.
#[derive(Debug)]
pub(super) enum Word {
    Paid(Arc<PaidGroup>, usize),
    Refused(Refused),
    Unknown,
    Failed(PayError),
}

#[derive(Debug)]
struct Stream {
    connection: Arc<Connection>,
    /// The proof of the lane's key, while its answer is on its way.
    proof: Option<JoinHandle<Result<(), Error>>>,
    /// Whether the proof and the attach went in one flight.
    together: bool,
    writer: Writer,
    reader: Reader,
    opened: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(proof) = &self.proof {
            proof.abort();
        }
    }
}

type HistoryPage = Result<Result<Option<HistoryGroup>, Reject>, InfraError>;

#[derive(Debug)]
pub(super) struct Driver {
    id: LaneId,
    client: Arc<Inner>,
    key: Arc<SecretKey>,
    payer: Payer,
    log: PaidLog,
    commands: mpsc::Receiver<Command>,
    waiters: Waiters,
    attaching: Vec<oneshot::Sender<Result<LaneStatus, Error>>>,
    stream: Option<Stream>,
    connecting: Option<JoinHandle<Result<Stream, Error>>>,
    history: Option<JoinHandle<HistoryPage>>,
    /// A mark that is being made durable, while frames below the one before go out.
    reserving: Option<JoinHandle<(u64, Result<(), HomeError>)>>,
    /// Looks up at a time; not moved when the time moves away, so that it costs nothing while answers come.
    alarm: Option<Pin<Box<Sleep>>>,
    backoff: Backoff,
    connect_at: Instant,
    /// Since when the hub owes a reply.
    owed_since: Option<Instant>,
    stopped: Option<LaneStopped>,
    failure: Option<Error>,
    status: watch::Sender<LaneStatus>,
    /// Last, so that it goes when everything else is gone.
    _driving: Driving,
}

/// Why the task looks up from its wait.
enum Wake {
    Commands(usize),
    Arrived(Result<(), InfraError>),
    Written(Result<(), InfraError>),
    Connected(Box<Result<Stream, Error>>),
    Proven(Result<(), Error>),
    History(Box<HistoryPage>),
    Reserved(Option<(u64, Result<(), HomeError>)>),
    Timer,
    ShutDown,
}

impl Driver {
    pub(super) fn new(
        client: Arc<Inner>,
        id: LaneId,
        options: LaneOptions,
        commands: mpsc::Receiver<Command>,
    ) -> Result<(Self, watch::Receiver<LaneStatus>), Error> {
        let record = client.home.lane(&id)?;
        if record.terms.hub != client.home.hub().hub {
            return Err(MisuseError::OtherHub.into());
        }
        let driving = client.home.drive(id)?;
        let key = client.home.key(&record.grant.key)?;
        let log = client.home.log(&record)?;
        let mark = client.home.mark(&id)?;
        let head = *log.head();
        if mark < head.sequence {
            let path = client.home.path().join("lanes").join(id.to_string()).join("mark");
            let cause = format!("it is {mark}, and the lane has paid up to {}", head.sequence);
            return Err(HomeError::Damaged { path, cause }.into());
        }
        let spec = LaneSpec::new(&record.terms, &record.grant);
        let payer = Payer::new(spec, Resume { mark, head }, options.limits).map_err(|cause| HomeError::Damaged {
            path: client.home.path().to_owned(),
            cause: format!("lane's key: {cause}"),
        })?;
        let (status, watched) = watch::channel(LaneStatus {
            open: false,
            closed: false,
            answered: head,
            queued: 0,
            in_flight: 0,
            kept: log.counts().1,
            stopped: None,
            failure: None,
            ended: false,
        });
        let driver = Self {
            id,
            client,
            key: Arc::new(key),
            payer,
            log,
            commands,
            waiters: Waiters::default(),
            attaching: Vec::new(),
            stream: None,
            connecting: None,
            history: None,
            reserving: None,
            alarm: None,
            backoff: Backoff::new(),
            connect_at: Instant::now(),
            owed_since: None,
            stopped: None,
            failure: None,
            status,
            _driving: driving,
        };
        Ok((driver, watched))
    }

    pub(super) async fn run(mut self) {
        let mut shut = self.client.shut();
        let mut buffer = Vec::new();
        loop {
            self.pump().await;
            self.report();
            match self.wait(&mut buffer, &mut shut).await {
                Wake::Commands(0) | Wake::ShutDown => break,
                Wake::Commands(_) => buffer.drain(..).for_each(|command| self.command(command)),
                Wake::Arrived(Ok(())) => self.replies().await,
                Wake::Arrived(Err(error)) | Wake::Written(Err(error)) => self.lose_stream(Error::Infra(error)),
                Wake::Connected(stream) => self.connected(*stream),
                Wake::Proven(Err(error)) => self.not_proven(error),
                Wake::History(page) => self.page(*page),
                Wake::Reserved(stored) => self.reserved(stored),
                Wake::Written(Ok(())) | Wake::Proven(Ok(())) | Wake::Timer => {}
            }
        }
        // Nobody may drive this lane again while its mark is still being written, and nobody open the home while a task
        // still holds it.
        finished(&mut self.reserving).await;
        if let Some(connecting) = &self.connecting {
            connecting.abort();
        }
        finished(&mut self.connecting).await;
        let status = self.status.clone();
        self.end();
        status.send_modify(|status| status.ended = true);
    }

    // ---- one turn ---------------------------------------------------------------------------------------------------

    /// Does whatever can be done without waiting for anybody.
    async fn pump(&mut self) {
        loop {
            let at = now();
            self.payer.expire(at);
            self.tell();
            if self.stopped.is_some() && !self.payer.is_stopped() && !self.waiters.is_empty() {
                self.abandon();
            }
            self.reserve();
            if let Some(stream) = &self.stream
                && self.history.is_none()
                && let Some(since) = self.payer.poll_history(at)
            {
                self.history = Some(tokio::spawn(read_history(Arc::clone(&stream.connection), self.id, since)));
            }
            self.connect();
            let Some(stream) = &mut self.stream else { return };
            if self.owed_since.is_some_and(|since| since.elapsed() >= REPLY_TIMEOUT) {
                return self.lose_connection(Error::Infra(InfraError::Timeout));
            }
            if stream.writer.is_full() {
                return;
            }
            let message = if stream.opened {
                self.payer.poll_message(at, &self.key)
            } else {
                self.payer.poll_attach(at).map(|attach| encode(&Opening::Lane(attach)))
            };
            let Some(message) = message else { return };
            stream.opened = true;
            self.owed_since.get_or_insert_with(Instant::now);
            if let Err(error) = stream.writer.send(message).await {
                return self.lose_stream(Error::Infra(error));
            }
        }
    }

    async fn wait(&mut self, buffer: &mut Vec<Command>, shut: &mut watch::Receiver<bool>) -> Wake {
        let takes_more = self.payer.queued() < MOST_QUEUED;
        let has_alarm = self.set_alarm();
        let (reader, writer, proof) = match &mut self.stream {
            Some(Stream { reader, writer, proof, .. }) => (
                Some(reader),
                Some(writer).filter(|writer| writer.is_full()),
                Some(proof).filter(|proof| proof.is_some()),
            ),
            None => (None, None, None),
        };
        tokio::select! {
            biased;
            _ = shut.wait_for(|shut| *shut) => Wake::ShutDown,
            arrived = async { match reader { Some(reader) => reader.more().await, None => std::future::pending().await } } => {
                Wake::Arrived(arrived)
            }
            proven = async { match proof { Some(proof) => finished(proof).await, None => std::future::pending().await } } => {
                Wake::Proven(proven.unwrap_or(Err(Error::Infra(InfraError::Lost))))
            }
            count = self.commands.recv_many(buffer, COMMANDS), if takes_more => Wake::Commands(count),
            written = async { match writer { Some(writer) => writer.flush().await, None => std::future::pending().await } } => {
                Wake::Written(written)
            }
            stored = finished(&mut self.reserving), if self.reserving.is_some() => Wake::Reserved(stored),
            page = finished(&mut self.history), if self.history.is_some() => {
                Wake::History(Box::new(page.unwrap_or(Err(InfraError::Lost))))
            }
            stream = finished(&mut self.connecting), if self.connecting.is_some() => {
                Wake::Connected(Box::new(stream.unwrap_or(Err(Error::Infra(InfraError::Lost)))))
            }
            () = async { if let Some(alarm) = &mut self.alarm { alarm.await } }, if has_alarm => Wake::Timer,
        }
    }

    /// Makes sure that the task looks up in time; it may be too early. `false`: there is nothing to look up for.
    fn set_alarm(&mut self) -> bool {
        let Some(at) = self.wake_at() else { return false };
        match &mut self.alarm {
            Some(alarm) if !alarm.is_elapsed() && alarm.deadline() <= at => {}
            Some(alarm) => alarm.as_mut().reset(at),
            None => self.alarm = Some(Box::pin(tokio::time::sleep_until(at))),
        }
        true
    }

    /// When to look up without anything happening: the machine's own waits, and the next try to connect.
    fn wake_at(&self) -> Option<Instant> {
        let machine = self.payer.wake_at().map(|Time(at)| {
            // At least a millisecond, so that a wait that is over does not spin.
            Instant::now() + Duration::from_millis(at.saturating_sub(now().0).max(1))
        });
        let connect = (self.wants_connection() && self.connecting.is_none()).then_some(self.connect_at);
        let owed = self.owed_since.filter(|_| self.stream.is_some()).map(|since| since + REPLY_TIMEOUT);
        machine.into_iter().chain(connect).chain(owed).min()
    }

    fn wants_connection(&self) -> bool {
        let asked = self.payer.wants_connection() || (!self.attaching.is_empty() && self.payer.is_down());
        asked && self.stream.is_none() && self.stopped.is_none()
    }

    fn report(&mut self) {
        let status = LaneStatus {
            open: self.payer.is_open(),
            closed: self.payer.is_closed(),
            answered: *self.payer.answered(),
            queued: self.payer.queued(),
            in_flight: self.payer.in_flight(),
            kept: self.log.counts().1,
            stopped: self.stopped.clone(),
            failure: self.failure.clone(),
            ended: false,
        };
        if status.open || status.closed || status.stopped.is_some() {
            for caller in self.attaching.drain(..) {
                // A caller that went away meanwhile wants no answer.
                let _ = caller.send(Ok(status.clone()));
            }
        }
        self.status.send_replace(status);
    }

    // ---- commands ---------------------------------------------------------------------------------------------------

    fn command(&mut self, command: Command) {
        match command {
            Command::Pay(order, caller) => {
                let known = self.log.may_have(std::iter::once(&order.reference));
                self.pay(order, Waiter::One(caller), known.contains(&true));
            }
            Command::PayMany(outcomes, orders) => {
                let sink = self.waiters.owe(&outcomes, orders.len());
                let known = self.log.may_have(orders.iter().map(|(_, order)| &order.reference));
                self.payer.announce(orders.iter().map(|(_, order)| &order.reference));
                for ((tag, order), known) in orders.into_iter().zip(known) {
                    self.pay(order, Waiter::Many { sink, tag }, known);
                }
            }
            Command::Find(reference, answer) => drop(answer.send(self.log.find(&reference))),
            Command::Groups(from, count, answer) => {
                let numbers = (from..self.log.counts().0).take(count);
                drop(answer.send(numbers.map(|number| self.log.group(number)).collect()));
            }
            Command::Attach(answer) => self.attaching.push(answer),
            Command::Recover(answer) => {
                // A lane that the hub did not know may be known by now.
                let unknown = !self.payer.is_stopped() && matches!(self.stopped, Some(LaneStopped::Attach(_)));
                let recovers = self.payer.recover() || unknown;
                if recovers {
                    self.stopped = None;
                    self.connect_at = Instant::now();
                }
                // A caller that went away meanwhile wants no answer.
                let _ = answer.send(recovers);
            }
        }
    }

    fn pay(&mut self, order: Order, waiter: Waiter, known: bool) {
        // What was answered is in the log before anything more is submitted: `pump` has told everything by now.
        if known {
            match self.log.find(&order.reference) {
                Ok(None) => {}
                Ok(Some((group, index))) => {
                    let paid = group.payment(index).map(|(_, payment)| (payment.payee, payment.amount));
                    let word = if paid == Some((order.payee, order.amount)) {
                        Word::Paid(group, index)
                    } else {
                        Word::Failed(PayError::Order(SubmitError::ReferenceTaken))
                    };
                    return self.say(waiter, word);
                }
                Err(error) => {
                    let stopped = LaneStopped::Home(error);
                    return self.say(waiter, Word::Failed(PayError::Stopped(stopped)));
                }
            }
        }
        // A stopped machine still says what it knows of an order; any other stop ends here.
        if let Some(stopped) = self.stopped.as_ref().filter(|_| !self.payer.is_stopped()) {
            let error = PayError::Stopped(stopped.clone());
            return self.say(waiter, Word::Failed(error));
        }
        match self.payer.submit(order) {
            Ok(ticket) => self.waiters.insert(ticket, waiter),
            Err(SubmitError::Stopped) => {
                let stopped = self.stopped.clone().unwrap_or(LaneStopped::Detached);
                self.say(waiter, Word::Failed(PayError::Stopped(stopped)));
            }
            Err(error) => self.say(waiter, Word::Failed(PayError::Order(error))),
        }
    }

    // ---- what the machine says --------------------------------------------------------------------------------------

    fn tell(&mut self) {
        while let Some(event) = self.payer.poll_event() {
            match event {
                Event::Paid { group, tickets } => self.paid(&group, &tickets),
                Event::Refused { ticket, reject, proof } => {
                    self.answer(ticket, || Word::Refused(Refused { reject, proof: proof.clone() }));
                }
                Event::Unknown { ticket } => self.answer(ticket, || Word::Unknown),
                Event::Unsent { ticket } => {
                    let stopped = self.stopped.clone().unwrap_or(LaneStopped::Detached);
                    self.answer(ticket, || Word::Failed(PayError::Stopped(stopped.clone())));
                }
                Event::ReferenceTaken { ticket } => {
                    self.answer(ticket, || Word::Failed(PayError::Order(SubmitError::ReferenceTaken)));
                }
                Event::Stopped(stop) => self.stop(stop),
                Event::ClosedLane(_) => tracing::info!(lane = %self.id, "the channel is closed"),
            }
        }
    }

    fn paid(&mut self, group: &Arc<PaidGroup>, tickets: &[Option<Ticket>]) {
        // A log that cannot be written would forget what was paid: the callers hear of this group, and no more is taken.
        if self.stopped.is_none()
            && let Err(error) = self.log.append(group)
        {
            tracing::error!(lane = %self.id, %error, "a paid group could not be kept, the lane stops");
            self.fail(error);
        }
        let mut batches: Vec<(SinkId, Vec<(usize, u64)>)> = Vec::new();
        for (index, ticket) in tickets.iter().enumerate() {
            let Some(ticket) = ticket else { continue };
            let (waiter, others) = self.waiters.take(*ticket);
            for waiter in waiter.into_iter().chain(others) {
                let Waiter::Many { sink, tag } = waiter else {
                    self.say(waiter, Word::Paid(Arc::clone(group), index));
                    continue;
                };
                if let Some((_, payments)) = batches.iter_mut().find(|(other, _)| *other == sink) {
                    payments.push((index, tag));
                } else {
                    let mut payments = Vec::with_capacity(tickets.len() - index);
                    payments.push((index, tag));
                    batches.push((sink, payments));
                }
            }
        }
        for (sink, payments) in batches {
            self.waiters.tell(sink, BatchOutcome::Paid { group: Arc::clone(group), payments });
        }
    }

    fn answer(&mut self, ticket: Ticket, word: impl Fn() -> Word) {
        let (waiter, others) = self.waiters.take(ticket);
        for waiter in waiter.into_iter().chain(others) {
            self.say(waiter, word());
        }
    }

    /// Tells one waiter. Whoever went away meanwhile wants no answer.
    fn say(&mut self, waiter: Waiter, word: Word) {
        match waiter {
            Waiter::One(caller) => {
                let _ = caller.send(word);
            }
            Waiter::Many { sink, tag } => {
                let outcome = match word {
                    Word::Paid(group, index) => BatchOutcome::Paid { group, payments: vec![(index, tag)] },
                    Word::Refused(refused) => BatchOutcome::Refused { tag, refused },
                    Word::Unknown => BatchOutcome::Unknown { tag },
                    Word::Failed(error) => BatchOutcome::Failed { tag, error },
                };
                self.waiters.tell(sink, outcome);
            }
        }
    }

    fn stop(&mut self, stop: Stop) {
        let stopped = match stop {
            Stop::Detached => LaneStopped::Detached,
            Stop::NewerCopy { head, .. } => LaneStopped::NewerCopy { sequence: head.sequence },
            Stop::Attach(reject) => LaneStopped::Attach(reject),
            Stop::Evidence(evidence) => {
                let what = evidence.contradiction.to_string();
                let file = match self.client.evidence(&HubEvidence::Lane(evidence), String::new()) {
                    Error::Evidence { file, .. } => file,
                    _ => None,
                };
                LaneStopped::Evidence { what, file }
            }
        };
        tracing::error!(lane = %self.id, %stopped, "the lane has stopped");
        self.stopped = Some(stopped);
        self.stream = None;
        self.history = None;
        self.connecting = None;
    }

    /// The home's files failed: nothing more is signed. Everybody who waits hears that the outcome is unknown.
    fn fail(&mut self, error: HomeError) {
        self.halt(LaneStopped::Home(error));
    }

    /// Stops for a reason that the machine does not know of.
    fn halt(&mut self, stopped: LaneStopped) {
        self.stopped = Some(stopped);
        self.stream = None;
        self.history = None;
        self.connecting = None;
        self.payer.connection_lost();
    }

    fn abandon(&mut self) {
        for ticket in self.waiters.tickets() {
            self.answer(ticket, || Word::Unknown);
        }
    }

    // ---- disk -------------------------------------------------------------------------------------------------------

    fn reserve(&mut self) {
        let Some(mark) = self.payer.poll_reserve() else { return };
        let (home, id) = (self.client.home.clone(), self.id);
        self.reserving = Some(tokio::task::spawn_blocking(move || (mark, home.set_mark(&id, mark))));
    }

    fn reserved(&mut self, stored: Option<(u64, Result<(), HomeError>)>) {
        match stored {
            Some((mark, Ok(()))) => self.payer.reserved(mark),
            Some((_, Err(error))) => {
                tracing::error!(lane = %self.id, %error, "sequences could not be reserved, the lane stops");
                self.fail(error);
            }
            None => {
                tracing::error!(lane = %self.id, "sequences could not be reserved: the runtime is going down");
                self.halt(LaneStopped::ShutDown);
            }
        }
    }

    // ---- network ----------------------------------------------------------------------------------------------------

    fn connect(&mut self) {
        if !self.wants_connection() || self.connecting.is_some() || Instant::now() < self.connect_at {
            return;
        }
        self.connecting = Some(tokio::spawn(open(Arc::clone(&self.client), self.id, Arc::clone(&self.key))));
    }

    fn connected(&mut self, stream: Result<Stream, Error>) {
        match stream {
            Ok(stream) => {
                self.failure = None;
                self.owed_since = None;
                self.stream = Some(stream);
                self.payer.connected();
            }
            Err(error) => {
                tracing::debug!(lane = %self.id, %error, "no connection for the lane, it is tried again");
                for caller in self.attaching.drain(..) {
                    let _ = caller.send(Err(error.clone()));
                }
                match &error {
                    // The hub runs on an old copy of its data: paying there would lose money.
                    Error::Evidence { what, file } => {
                        self.halt(LaneStopped::Evidence { what: what.clone(), file: file.clone() });
                    }
                    // It does not know the lane or its key.
                    Error::Refused(reject) if reject.reaction() != Reaction::Retry => {
                        self.halt(LaneStopped::Attach(*reject));
                    }
                    Error::Home(cause) => self.halt(LaneStopped::Home(cause.clone())),
                    _ => {}
                }
                self.failure = Some(error);
                self.connect_at = Instant::now() + self.backoff.wait();
            }
        }
    }

    /// The hub did not take the proof of the lane's key: nothing comes of the attach that was sent behind it.
    fn not_proven(&mut self, error: Error) {
        if let Some(stream) = &self.stream {
            give_up_silent(&stream.connection, &error);
        }
        self.stream = None;
        self.history = None;
        self.payer.connection_lost();
        self.connected(Err(error));
    }

    fn lose_stream(&mut self, error: Error) {
        tracing::debug!(lane = %self.id, %error, "the lane's stream is gone");
        self.failure = Some(error);
        self.stream = None;
        self.history = None;
        self.payer.connection_lost();
        self.connect_at = Instant::now() + self.backoff.wait();
    }

    /// The hub broke the protocol or answers nothing: a new connection, on which every key is proven again.
    fn lose_connection(&mut self, error: Error) {
        if let Some(stream) = &self.stream {
            stream.connection.close();
        }
        self.lose_stream(error);
    }

    /// Takes every reply that is here.
    async fn replies(&mut self) {
        while let Some(stream) = &mut self.stream {
            match stream.reader.next() {
                Ok(Some(reply)) => self.reply(reply).await,
                Ok(None) => return,
                Err(error) => return self.lose_connection(Error::Infra(error)),
            }
        }
    }

    async fn reply(&mut self, reply: LaneReply) {
        let Some(stream) = &self.stream else { return };
        if stream.together && matches!(reply, LaneReply::Refused { reject: Reject::Unauthenticated, .. }) {
            // The attach came too long before its proof, which may have been lost and sent again.
            return self.lose_stream(Error::Refused(Reject::Unauthenticated));
        }
        if let Some(commit) = commit_of(&reply) {
            self.client.fetch_certificate(&stream.connection, commit).await;
        }
        if matches!(reply, LaneReply::Attached(_) | LaneReply::Taken(_)) {
            self.backoff = Backoff::new();
        }
        let mut proofs = self.client.proofs.clone();
        if let Err(error) = self.payer.handle_reply(reply, now(), &mut proofs) {
            tracing::warn!(lane = %self.id, %error, "the lane's stream is given up");
            self.lose_connection(Error::Infra(InfraError::UnexpectedReply));
        }
        // A contradiction ends what the stream still holds.
        self.tell();
        self.owed_since = (self.payer.in_flight() > 0).then(Instant::now);
    }

    fn page(&mut self, page: HistoryPage) {
        let page = match page {
            Ok(page) => page,
            Err(error) => return self.lose_connection(Error::Infra(error)),
        };
        // Kept for receipts; the machine checks it too.
        if let Ok(Some(group)) = &page
            && let Err(error) = self.client.admit(&group.certificate)
        {
            tracing::warn!(lane = %self.id, %error, "a certificate in the lane's history is not used");
        }
        let mut proofs = self.client.proofs.clone();
        if let Err(error) = self.payer.handle_history(page, now(), &mut proofs) {
            tracing::warn!(lane = %self.id, %error, "the lane's history cannot be read");
            self.lose_connection(Error::Infra(InfraError::UnexpectedReply));
        }
    }

    fn end(mut self) {
        self.tell();
        self.stopped.get_or_insert(LaneStopped::ShutDown);
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Pay(_, caller) => {
                    self.say(Waiter::One(caller), Word::Failed(PayError::Stopped(LaneStopped::ShutDown)));
                }
                Command::PayMany(outcomes, orders) => {
                    let sink = self.waiters.owe(&outcomes, orders.len());
                    for (tag, _) in orders {
                        let error = PayError::Stopped(LaneStopped::ShutDown);
                        self.say(Waiter::Many { sink, tag }, Word::Failed(error));
                    }
                }
                // Their callers hear that the task is gone.
                Command::Find(..) | Command::Groups(..) | Command::Attach(_) | Command::Recover(_) => {}
            }
        }
        self.abandon();
        if let Err(error) = self.log.sync() {
            tracing::warn!(lane = %self.id, %error, "the log of paid groups could not be synced");
        }
    }
}

/// The commit that a reply hangs from.
fn commit_of(reply: &LaneReply) -> Option<&SignedCommit> {
    match reply {
        LaneReply::Attached(attached) => Some(&attached.proof.commit),
        LaneReply::Taken(answer) => Some(&answer.commit),
        LaneReply::Closed(closed) => Some(&closed.proof.commit),
        LaneReply::Refused { .. } => None,
    }
}

/// Waits for a task and forgets it when it is done. `None` when there is none, or it died. Cancel-safe.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let Some(running) = task else { return None };
    let result = running.await.ok();
    *task = None;
    result
}

async fn read_history(connection: Arc<Connection>, lane: LaneId, since: u64) -> HistoryPage {
    match connection.request(Request::History { lane, since }).await? {
        Ok(Reply::History(page)) => Ok(Ok(page.map(|page| *page))),
        Ok(_) => Err(InfraError::UnexpectedReply),
        Err(reject) => Ok(Err(reject)),
    }
}

/// Ends a connection whose hub does not answer.
fn give_up_silent(connection: &Connection, error: &Error) {
    if let Error::Infra(InfraError::Timeout) = error {
        connection.close();
    }
}

/// A connection on which the proof of the lane's key is on its way, and a stream. What is sent on the stream follows the
/// proof in the same flight.
async fn open(client: Arc<Inner>, lane: LaneId, key: Arc<SecretKey>) -> Result<Stream, Error> {
    let connection = client.connection().await?;
    let scope = KeyScope::Lane(lane);
    let mut proof = None;
    if !connection.has_proven(&scope) {
        let (sent, on_its_way) = oneshot::channel();
        let proving = Arc::clone(&connection);
        proof = Some(tokio::spawn(async move { proving.prove_and_tell(scope, &key, sent).await }));
        // Nothing is ever said there: it ends when the proof is written, or could not be.
        let _ = on_its_way.await;
    }
    let together = proof.is_some();
    let (send, recv) = tokio::select! {
        biased;
        opened = connection.open_stream() => opened?,
        Some(Err(error)) = finished(&mut proof), if together => {
            give_up_silent(&connection, &error);
            return Err(error);
        }
    };
    let (writer, reader) = (Writer::new(send), Reader::new(recv, MAX_MESSAGE));
    Ok(Stream { connection, proof, together, writer, reader, opened: false })
}
