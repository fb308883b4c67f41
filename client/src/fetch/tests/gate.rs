//! A small gate for tests: real challenges, real checks, balances in memory, and every way to misbehave. Plain threads and
//! HTTP/1.1 by hand, so that it shares nothing with what it tests but the protocol.
#![allow(dead_code, reason = "each of the tests that share it uses another part")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::http::challenge::{ChargeRequest, Details, Resource};
use weir_protocol::http::problem::{PaymentProblem, Problem};
use weir_protocol::http::x402::{PaymentPayload, PaymentRequired, PaymentResponse, ResourceInfo};
use weir_protocol::http::{Challenge, Credential, Expected, PaymentReceipt, Secret};
use weir_protocol::id::{AccountId, HubId, Reference};

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mode {
    /// As a gate should.
    #[default]
    Honest,
    /// Never takes a credential.
    Never,
    /// The second demand asks for more than the first.
    Rise,
    /// Challenges that are over.
    Expired,
    /// Wants receipts of another hub.
    OtherHub,
    /// Names another payee from the second demand on, and takes nothing.
    OtherPayee,
    /// A challenge that cannot be met comes first.
    Two,
    /// Only x402.
    X402,
    /// The credential in a header of its own.
    OwnHeader,
    /// The same resource is free again for what was paid for it.
    Access,
    /// Another payment method only.
    Foreign,
    /// Drops the connection when a credential is shown, before anything is drawn.
    Drop(u32),
    /// Draws, then drops the connection.
    DrawAndDrop(u32),
    /// 503 when a credential is shown.
    Busy(u32),
    /// Keeps a request that shows a credential waiting for ever.
    Hang,
    /// The price is the most; behind the body it says that this was drawn.
    Metered(u64),
    /// The same, and it says that more was taken, and more is left, than ever was.
    Boast(u64),
}

/// A request that was served.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Served {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) reference: Reference,
    pub(crate) key: Option<String>,
    pub(crate) body: usize,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) mode: Mode,
    /// Nanos that a path costs; the others cost `price`.
    pub(crate) prices: HashMap<String, u64>,
    pub(crate) price: u64,
    pub(crate) balances: HashMap<Reference, u64>,
    /// What every receipt that was shown was worth.
    pub(crate) shown: HashMap<Reference, u64>,
    pub(crate) served: Vec<Served>,
    pub(crate) demands: u32,
    pub(crate) requests: Vec<Request>,
    /// Whether served answers offer the next demand.
    pub(crate) offers: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: usize,
}

/// The gate; its threads end with the process.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    hub: HubId,
    payee: AccountId,
    state: Arc<Mutex<State>>,
}

const REALM: &str = "news";

fn secret() -> Secret {
    Secret::from([5; 32])
}

fn now() -> Time {
    Time(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}

impl Gate {
    pub(crate) fn start(hub: HubId, payee: AccountId, price: u64, mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { mode, price, ..State::default() }));
        let gate = Self { address, hub, payee, state };
        let serving = gate.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let gate = serving.clone();
                std::thread::spawn(move || gate.serve(stream));
            }
        });
        gate
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let Some(request) = read(&mut reader) else { return };
        let answer = self.answer(&request);
        let mut stream = stream;
        if let Some(answer) = answer {
            let _ = stream.write_all(&answer);
            if answer.starts_with(b"HTTP/1.1 101") {
                // The other protocol: it says what it is told.
                let _ = std::io::copy(&mut reader, &mut stream);
            }
        }
    }

    fn challenge(&self, state: &State, request: &Request, other: bool) -> Challenge {
        let price = state.prices.get(&request.path).copied().unwrap_or(state.price);
        let rise = if state.mode == Mode::Rise && state.demands > 1 { 7 } else { 0 };
        let wrong = HubId(weir_protocol::keys::PublicKey([3; 32]));
        let hub = if other || state.mode == Mode::OtherHub { wrong } else { self.hub };
        let payee = if state.mode == Mode::OtherPayee && state.demands > 1 {
            AccountId(weir_protocol::keys::PublicKey([4; 32]))
        } else {
            self.payee
        };
        let request = ChargeRequest {
            amount: Amount::from_nanos(price + rise),
            currency: Currency::EUR,
            description: Some("An article".to_owned()),
            details: Details {
                hub,
                issued_at: Some(Time(now().0 - 5_000)),
                metered: matches!(state.mode, Mode::Metered(_) | Mode::Boast(_)),
                resource: Some(Resource::of(&request.method, &request.path)),
                scale: 9,
            },
            recipient: payee,
        };
        let expires = if state.mode == Mode::Expired { now() } else { now().plus_ms(60_000) };
        let mut nonce = [0; 16];
        nonce[..4].copy_from_slice(&state.demands.to_le_bytes());
        nonce[4] = u8::from(other);
        let header = (state.mode == Mode::OwnHeader).then_some("Payment-Authorization");
        Challenge::issue(&secret(), REALM, &request, expires, nonce, header).unwrap()
    }

    fn demand(&self, state: &mut State, request: &Request, problem: PaymentProblem) -> Vec<u8> {
        state.demands += 1;
        if state.mode == Mode::Foreign {
            return http(402, &["WWW-Authenticate: Payment id=\"a\", realm=\"r\", method=\"card\", intent=\"charge\", request=\"e30\"".to_owned()], b"pay by card");
        }
        let challenge = self.challenge(state, request, false);
        let resource = ResourceInfo { url: request.path.clone(), description: None, mime_type: None };
        let required = PaymentRequired::new(&challenge, resource, Some(problem.as_str().to_owned())).unwrap();
        let mut headers = vec![format!("PAYMENT-REQUIRED: {}", required.to_header())];
        if state.mode == Mode::Two {
            let other = self.challenge(state, request, true);
            headers.push(format!("WWW-Authenticate: {}", other.to_header()));
        }
        if state.mode != Mode::X402 {
            headers.push(format!("WWW-Authenticate: {}", challenge.to_header()));
        }
        headers.push("Content-Type: application/problem+json".to_owned());
        let body = serde_json::to_vec(&Problem::new(problem, Some("as a test wants it".to_owned()))).unwrap();
        http(402, &headers, &body)
    }

    /// None: the connection is dropped.
    fn answer(&self, request: &Request) -> Option<Vec<u8>> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.requests.push(request.clone());
        if request.path.starts_with("/free") {
            if request.headers.contains_key("upgrade") {
                return Some(switch(&[]));
            }
            if request.path == "/freestream" {
                return Some(chunked(&[], "a stream of 23 bytes...\n", None));
            }
            return Some(http(200, &[], b"free\n"));
        }
        if request.path.starts_with("/moved") {
            let to = request.headers.get("x-to").cloned().unwrap_or_default();
            return Some(http(302, &[format!("Location: {to}")], b""));
        }
        let own = if state.mode == Mode::OwnHeader { "payment-authorization" } else { "authorization" };
        let shown = request.headers.get(own).and_then(|text| Credential::from_header(text));
        let x402 = request.headers.get("payment-signature");
        let credential = match (shown, x402) {
            (Some(shown), _) => shown.ok(),
            (None, Some(text)) => PaymentPayload::from_header(text).ok().and_then(|payload| payload.credential().ok()),
            (None, None) => return Some(self.demand(state, request, PaymentProblem::PaymentRequired)),
        };
        let Some(credential) = credential else {
            return Some(self.demand(state, request, PaymentProblem::MalformedCredential));
        };
        let expected = Expected { realm: REALM, hub: self.hub, payee: self.payee, currency: Currency::EUR };
        let proven = match credential.prove(&secret(), &expected, |certificate, _| certificate.check(&self.hub).is_ok())
        {
            Ok(proven) => proven,
            Err(error) => return Some(self.demand(state, request, error.into())),
        };
        match &mut state.mode {
            Mode::Never | Mode::OtherPayee => {
                return Some(self.demand(state, request, PaymentProblem::VerificationFailed));
            }
            Mode::Drop(left) if *left > 0 => {
                *left -= 1;
                return None;
            }
            Mode::Busy(left) if *left > 0 => {
                *left -= 1;
                return Some(http(503, &[], b"busy"));
            }
            Mode::Hang => {
                drop(guard);
                loop {
                    std::thread::sleep(Duration::from_secs(60));
                }
            }
            _ => {}
        }
        let price = state.prices.get(&request.path).copied().unwrap_or(state.price);
        let price = if state.mode == Mode::Rise { price + 7 } else { price };
        let served = Served {
            method: request.method.clone(),
            path: request.path.clone(),
            reference: proven.reference,
            key: request.headers.get("idempotency-key").cloned(),
            body: request.body,
        };
        let same = state.served.contains(&served);
        let is_single = proven.amount == proven.asked;
        let own = proven.resource == Resource::of(&request.method, &request.path);
        state.shown.insert(proven.reference, proven.amount.nanos());
        let left = *state.balances.entry(proven.reference).or_insert(proven.amount.nanos());
        let again = same
            && (state.mode == Mode::Access || request.method != "GET" || matches!(state.mode, Mode::DrawAndDrop(_)));
        let drawn = if again { 0 } else { price };
        if (is_single && !own) || left < drawn {
            return Some(self.demand(state, request, PaymentProblem::PaymentInsufficient));
        }
        state.balances.insert(proven.reference, left - drawn);
        if !again {
            state.served.push(served);
        }
        if let Mode::DrawAndDrop(left) = &mut state.mode
            && *left > 0
        {
            *left -= 1;
            return None;
        }
        let mut receipt = PaymentReceipt::new(proven.payment_id, proven.amount, Currency::EUR, now());
        receipt.drawn = Amount::from_nanos(drawn);
        receipt.left = Amount::from_nanos(left - drawn);
        let is_metered = matches!(state.mode, Mode::Metered(_) | Mode::Boast(_));
        let mut headers = Vec::new();
        if !is_metered {
            headers.push(format!("Payment-Receipt: {}", receipt.to_header()));
        }
        if x402.is_some() {
            let response = PaymentResponse::taken(&self.hub, &proven.payment_id, receipt.drawn);
            headers = vec![format!("PAYMENT-RESPONSE: {}", response.to_header())];
        }
        if state.offers {
            headers.push(format!("WWW-Authenticate: {}", self.challenge(state, request, false).to_header()));
            state.demands += 1;
        }
        if request.headers.contains_key("upgrade") {
            return Some(switch(&headers));
        }
        let body = format!("article {}\n", request.path);
        let (Mode::Metered(used) | Mode::Boast(used)) = state.mode else {
            return Some(http(200, &headers, body.as_bytes()));
        };
        let end = if state.mode == Mode::Metered(used) { left - used } else { 1_000_000 };
        state.balances.insert(proven.reference, left - used);
        receipt.metered = true;
        if matches!(state.mode, Mode::Boast(_)) {
            receipt.drawn = Amount::from_nanos(1_000);
        }
        headers.push(format!("Payment-Receipt: {}", receipt.to_header()));
        headers.push("Trailer: payment-receipt".to_owned());
        receipt.metered = false;
        receipt.drawn = Amount::from_nanos(used);
        receipt.left = Amount::from_nanos(end);
        let trailer = format!("Payment-Receipt: {}", receipt.to_header());
        let takes = request.headers.get("te").is_some_and(|te| te == "trailers");
        Some(chunked(&headers, &body, takes.then_some(&*trailer)))
    }

    /// What was taken of all receipts is what was served, and no receipt was drawn beyond its amount.
    pub(crate) fn paid(&self) -> usize {
        self.state().shown.len()
    }
}

/// A switch to another protocol.
fn switch(headers: &[String]) -> Vec<u8> {
    let headers: String = headers.iter().flat_map(|header| [header, "\r\n"]).collect();
    format!("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: echo\r\n{headers}\r\n").into_bytes()
}

/// An answer without a length, with what follows it.
fn chunked(headers: &[String], body: &str, trailer: Option<&str>) -> Vec<u8> {
    let headers: String = headers.iter().flat_map(|header| [header, "\r\n"]).collect();
    let trailer = trailer.map_or_else(String::new, |trailer| format!("{trailer}\r\n"));
    let head = format!("HTTP/1.1 200 x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{headers}\r\n");
    format!("{head}{:x}\r\n{body}\r\n0\r\n{trailer}\r\n", body.len()).into_bytes()
}

fn http(status: u16, headers: &[String], body: &[u8]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = 0;
    if let Some(length) = headers.get("content-length").and_then(|text| text.parse::<u64>().ok()) {
        body = std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()? as usize;
    } else if headers.contains_key("transfer-encoding") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let length = u64::from_str_radix(line.trim(), 16).ok()?;
            std::io::copy(&mut reader.by_ref().take(length + 2), &mut std::io::sink()).ok()?;
            body += length as usize;
            if length == 0 {
                break;
            }
        }
    }
    Some(Request { method, path, headers, body })
}
