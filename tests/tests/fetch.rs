//! Paying over HTTP with the real binaries: a real hub, `weir fetch`, `weir pay --challenge`, `weir proxy`, and gates that
//! are honest, that misbehave, or that are `weir gate` itself.

#[path = "../../client/src/fetch/tests/gate.rs"]
mod gate;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_protocol::id::AccountId;
use weir_tests::harness::people::{self, PATIENCE};
use weir_tests::harness::place::{Hub, Place, stderr, stdout};

use crate::HUB;
use crate::tour::path_with_binaries;
use gate::{Gate, Mode};

/// What an article costs: 0.05.
const PRICE: u64 = 50_000_000;

/// A hub, somebody who pays and somebody who is paid.
struct World {
    place: Place,
    hub: Option<Hub>,
    payee: AccountId,
    weir: PathBuf,
}

impl World {
    fn new() -> Self {
        let path = path_with_binaries();
        let weir = std::env::split_paths(&path).map(|folder| folder.join("weir")).find(|path| path.is_file()).unwrap();
        let place = Place::new(HUB);
        let hub = place.run();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let payee = runtime.block_on(async {
            let (payer, _) = people::payer(&place, "payer", &hub.address, 10).await;
            payer.shut_down().await;
            let payee = people::registered(&place, "payee", &hub.address).await;
            let account = payee.account();
            payee.shut_down().await;
            account
        });
        Self { place, hub: Some(hub), payee, weir }
    }

    fn gate(&self, mode: Mode) -> Gate {
        Gate::start(self.hub.as_ref().unwrap().address.hub, self.payee, PRICE, mode)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.weir);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
            command.env_remove(name);
        }
        command.env("WEIR_HOME", self.place.path("payer")).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What the payer's lane has spent, as the hub says.
    fn spent(&self) -> String {
        self.json(&["lanes", "list"])["lanes"][0]["spent"].as_str().unwrap().to_owned()
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a request as it is, and reads the answer to its end.
fn raw(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A peer may reset what it has answered.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A process that says on stdout, in a line of JSON, that it is ready; killed when it is dropped.
struct Running {
    child: Child,
    ready: Value,
    _out: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap(), _out: out }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn fetch_pays_once_and_serves_the_same_page_from_what_it_bought() {
    let world = World::new();
    let gate = world.gate(Mode::Access);
    let report = world.place.path("spent.jsonl");
    let args = ["fetch", &gate.url("/a"), "--report", report.to_str().unwrap()];
    let price = world.json(&["fetch", &gate.url("/a"), "--dry-run"]);
    assert_eq!((price["price"].as_str(), price["payable"].as_bool()), (Some("0.05"), Some(true)));
    for (at, said) in ["paid 0.05 EUR to weir1", "served for what was paid before"].into_iter().enumerate() {
        let output = world.run(&args);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stdout(&output), "article /a\n");
        assert!(stderr(&output).contains(said), "{at}: {}", stderr(&output));
    }
    let lines = std::fs::read_to_string(&report).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines[0]["paid"].as_str(), lines[1]["paid"].as_str()), (Some("0.05"), Some("0")));
    let receipt = lines[0]["receipt_file"].as_str().unwrap();
    let hub = world.hub.as_ref().unwrap().address.hub.to_string();
    let judged =
        world.json(&["verify", receipt, "--hub", &hub, "--payee", &world.payee.to_string(), "--amount", "0.05"]);
    assert_eq!(judged["payment"]["amount"], "0.05");
    assert_eq!((gate.paid(), world.spent().as_str()), (1, "0.05"));

    // Limits, dialects of failure, exit codes.
    let dear = world.run(&["fetch", &gate.url("/b"), "--max-price", "0.049999999"]);
    assert_eq!(dear.status.code(), Some(1));
    assert!(stderr(&dear).contains("above the most for one request"), "{}", stderr(&dear));
    let day = world.run(&["fetch", &gate.url("/b"), "--day-budget", "0.09"]);
    assert_eq!(day.status.code(), Some(1), "what an earlier command spent counts");
    let lying = world.gate(Mode::Never);
    for _ in 0..2 {
        let output = world.run(&["fetch", &lying.url("/a")]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("--pay-again"), "{}", stderr(&output));
    }
    let moved = world.run(&["fetch", &gate.url("/moved"), "-L", "-H", &format!("X-To: {}", lying.url("/free"))]);
    assert_eq!(stdout(&moved), "free\n");
    assert!(!lying.state().requests.last().unwrap().headers.contains_key("authorization"));
    assert_eq!(world.spent(), "0.1", "one for the page, one for the one who lies");
    assert_eq!(world.run(&["fetch", "http://127.0.0.1:1/"]).status.code(), Some(3));
    // What was bought, and what is left of it.
    assert!(world.run(&["fetch", &gate.url("/p"), "--prepay", "3x"]).status.success());
    let kept = world.json(&["wallet"]);
    let shelf = kept["origins"].as_array().unwrap().iter().find(|shelf| shelf["origin"] == gate.url("")).unwrap();
    assert_eq!(
        (shelf["paid"].as_str(), shelf["left"].as_str(), shelf["payments"].as_u64()),
        (Some("0.2"), Some("0.1"), Some(2))
    );
    let states = |host: &str| {
        let each = world.json(&["wallet", host]);
        let states = each["payments"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap().to_owned());
        states.collect::<Vec<_>>()
    };
    assert_eq!(states(&gate.address.to_string()), ["served", "balance"]);
    assert_eq!(states(&lying.address.to_string()), ["unserved"]);
    assert!(states("other.example").is_empty());
    world.hub.unwrap().stop();
    world.place.clean_audit();
}

#[test]
fn fetch_killed_between_payment_and_answer_pays_once() {
    let mut world = World::new();
    let gate = world.gate(Mode::Hang);
    let url = gate.url("/a");
    // Killed when the gate has seen the payment.
    let mut child = world.command(&["fetch", &url]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the payment is shown", || {
        gate.state().requests.iter().any(|request| request.headers.contains_key("authorization"))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    // Killed at any other moment.
    for delay_ms in (0..120).step_by(8) {
        let url = gate.url("/b");
        let mut child = world.command(&["fetch", &url]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    gate.state().mode = Mode::Honest;
    for path in ["/a", "/b"] {
        let output = world.run(&["fetch", &gate.url(path)]);
        assert_eq!(stdout(&output), format!("article {path}\n"), "{}", stderr(&output));
    }
    assert_eq!(world.spent(), "0.1");
    assert_eq!(gate.paid(), 2);
    // Without the hub what was prepaid goes on working, and a new payment fails clearly.
    assert!(world.run(&["fetch", &gate.url("/c"), "--prepay", "3x"]).status.success());
    world.hub.take().unwrap().stop();
    for path in ["/d", "/e"] {
        let output = world.run(&["fetch", &gate.url(path)]);
        assert!(stderr(&output).contains("of what was paid before"), "{}", stderr(&output));
    }
    let output = world.run(&["fetch", &gate.url("/f")]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("nothing was paid"), "{}", stderr(&output));
}

#[test]
fn many_commands_at_once_reach_the_day_budget_and_no_more() {
    let world = World::new();
    let gate = world.gate(Mode::Honest);
    let children: Vec<Child> = (0..8)
        .map(|at| {
            let url = gate.url(&format!("/{at}"));
            let mut command = world.command(&["fetch", &url, "--day-budget", "0.25"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let served = children.into_iter().map(|mut child| child.wait().unwrap().success()).filter(|ok| *ok);
    assert_eq!(served.count(), 5);
    assert_eq!(world.spent(), "0.25");
}

#[test]
fn challenge_is_paid_once_and_the_same_credential_is_printed_again() {
    let world = World::new();
    let gate = world.gate(Mode::Honest);
    let demand = raw(&gate.address.to_string(), "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    let value = |name: &str| demand.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let (challenge, x402) = (value("WWW-Authenticate:"), value("PAYMENT-REQUIRED:"));
    let asks = world.run(&["pay", "--challenge", &challenge]);
    assert_eq!(asks.status.code(), Some(2), "nobody is here to say yes");
    assert_eq!(world.run(&["pay", "--challenge", &challenge, "--max-price", "0.01"]).status.code(), Some(1));
    let paid = world.json(&["pay", "--challenge", &challenge, "--yes"]);
    let again = world.json(&["pay", "--challenge", &x402, "--max-price", "0.05"]);
    assert_eq!(paid["credential"], again["credential"]);
    assert_eq!((paid["payment_id"].clone(), paid["claimed"].as_bool()), (again["payment_id"].clone(), Some(false)));
    assert_eq!(world.spent(), "0.05");
    let credential = paid["credential"].as_str().unwrap();
    let id = paid["challenge_id"].as_str().unwrap();
    let judged = world.json(&["verify", credential, "--challenge-id", id, "--currency", "EUR"]);
    assert_eq!((judged["kind"].as_str(), judged["challenge"]["amount"].as_str()), (Some("credential"), Some("0.05")));
    assert!(world.json(&["verify", paid["x402"].as_str().unwrap()])["valid"].as_bool().unwrap());
    assert_eq!(world.run(&["verify", credential, "--challenge-id", "other"]).status.code(), Some(1));
    let request = format!("GET /a HTTP/1.1\r\nHost: x\r\nAuthorization: {credential}\r\n\r\n");
    assert!(raw(&gate.address.to_string(), &request).ends_with("article /a\n"));
}

#[test]
fn programs_pay_through_the_proxy_and_pages_and_strangers_do_not() {
    let world = World::new();
    let gate = world.gate(Mode::Honest);
    let args = ["proxy", "--listen", "127.0.0.1:0", "--budget", "0.12", "--token", "a-secret-of-tests", "--json"];
    let mut command = world.command(&args);
    command.stderr(Stdio::null());
    let proxy = Running::start(command);
    let at = proxy.ready["listen"].as_str().unwrap().to_owned();
    let auth = "Proxy-Authorization: Bearer a-secret-of-tests\r\n";
    let absolute = |path: &str, more: &str| {
        let request =
            format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{more}\r\n", gate.url(path), gate.address);
        raw(&at, &request)
    };
    assert!(absolute("/a", "").starts_with("HTTP/1.1 407"));
    assert!(absolute("/a", &format!("{auth}Origin: http://evil.example\r\n")).starts_with("HTTP/1.1 403"));
    assert_eq!(gate.state().requests.len(), 0);
    let answer = absolute("/a", auth);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("article /a\n"), "{answer}");
    let headers = gate.state().requests.last().unwrap().headers.clone();
    assert!(headers.contains_key("authorization") && !headers.contains_key("proxy-authorization"));
    // The same as a base URL, a body streamed through it.
    let path = format!("/token/a-secret-of-tests/http/{}/b", gate.address);
    let post = |host: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
    };
    assert!(raw(&at, &post("rebound.example")).starts_with("HTTP/1.1 403"));
    assert!(raw(&at, &post("localhost")).ends_with("article /b\n"));
    assert_eq!(gate.state().requests.last().unwrap().body, 3);
    // The budget is spent: the third is refused, and says why.
    let refused = absolute("/c", auth);
    assert!(refused.starts_with("HTTP/1.1 402") && refused.contains("the budget is 0.12"), "{refused}");
    // A tunnel is blind: what goes through it is not paid.
    let mut stream = TcpStream::connect(&at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let connect = format!("CONNECT {} HTTP/1.1\r\nHost: {}\r\n{auth}\r\n", gate.address, gate.address);
    stream.write_all(connect.as_bytes()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    stream.write_all(b"GET /d HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("HTTP/1.1 402"), "{answer}");
    assert_eq!(world.spent(), "0.1");
    let open = world.run(&["proxy", "--listen", "0.0.0.0:0", "--budget", "1"]);
    assert_eq!(open.status.code(), Some(2));
    // Told to stop, it ends in order.
    let told = Command::new("kill").args(["-INT", &proxy.child.id().to_string()]).status().unwrap();
    assert!(told.success());
    let mut proxy = proxy;
    assert_eq!(proxy.child.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(&at).is_err());
}

#[test]
fn gate_itself_is_paid_by_fetch_and_by_the_payer_of_a_page() {
    let world = World::new();
    // The site behind it answers everything with a line.
    let site = world.gate(Mode::Honest);
    let hub = &world.hub.as_ref().unwrap().address;
    let config = format!(
        "listen = \"127.0.0.1:0\"\nupstream = \"http://{}\"\nrealm = \"127.0.0.1\"\npayee = \"{}\"\nhub = \"{hub}\"\n\n[[route]]\nmatch = \"/free/{{*rest}}\"\nprice = \"0.05\"\ntitle = \"An article\"\n\n[[route]]\nmatch = \"GET /freestream\"\nprice_per_byte = \"0.000001\"\nmax_bytes = 10000\n",
        site.address, world.payee
    );
    let file = world.place.path("gate.toml");
    std::fs::write(&file, config).unwrap();
    let gate = Running::start(world.command(&["gate", "--config", file.to_str().unwrap(), "--json"]));
    let address = gate.ready["address"].as_str().unwrap().to_owned();
    let url = format!("http://{address}/free/a");
    for said in ["paid 0.05 EUR to weir1", "paid before"] {
        let output = world.run(&["fetch", &url]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stdout(&output), "free\n");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    assert_eq!(world.spent(), "0.05");
    let output = world.run(&["fetch", &url, "-X", "POST", "-d", "hello"]);
    assert!(output.status.success(), "{}", stderr(&output));
    for path in ["/free/b", "/free/c", "/free/d"] {
        let output = world.run(&["fetch", &format!("http://{address}{path}"), "--prepay", "0.20"]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(world.spent(), "0.3", "a page, an order, and a balance for three");
    // A person's page names the address that its payment is posted to.
    let page = raw(
        &address,
        &format!("GET /free/e HTTP/1.1\r\nHost: {address}\r\nAccept: text/html\r\nConnection: close\r\n\r\n"),
    );
    let start = page.find("weir pay --challenge ").unwrap();
    let claim = page[start..].split(['\'', '&']).find(|part| part.contains("://")).unwrap();
    let claim = claim.trim_start_matches("#39;").replace("https://", "http://");
    let paid = world.json(&["pay", "--challenge", &claim, "--max-price", "0.05"]);
    assert_eq!(paid["claimed"], true, "{paid}");
    let again = world.json(&["pay", "--challenge", &claim, "--max-price", "0.05"]);
    assert_eq!((again["payment_id"].clone(), again["claimed"].as_bool()), (paid["payment_id"].clone(), Some(true)));
    assert_eq!(world.spent(), "0.35");
    // A stream is paid by its bytes: the trailers say what it came to, and the wallet counts on the rest. With room for one
    // stream of the most, several short ones go one after the other for one payment.
    let url = format!("http://{address}/freestream");
    let before = world.json(&["wallet"])["origins"][0]["left"].as_str().unwrap().to_owned();
    let report = world.place.path("streams.jsonl");
    for _ in 0..3 {
        let output = world.run(&["fetch", &url, "-v", "--report", report.to_str().unwrap()]);
        assert_eq!(stdout(&output), "a stream of 23 bytes...\n", "{}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains("it came to 0.000024 EUR") && said.contains("< trailers\n< payment-receipt: "), "{said}");
    }
    let lines = std::fs::read_to_string(&report).unwrap();
    assert!(lines.lines().all(|line| line.contains("\"drawn\":\"0.000024\"")), "{lines}");
    let after = world.json(&["wallet"])["origins"][0]["left"].as_str().unwrap().to_owned();
    assert_eq!((before.as_str(), after.as_str(), world.spent().as_str()), ("0.05", "0.049928", "0.35"));
}
