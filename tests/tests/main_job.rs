//! `weir-hub dev`: the main job in one command, and the town that stays.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use weir_client::{Client, Home, Order, Outcome, PlainKeys};
use weir_protocol::id::{AccountId, HubAddress};
use weir_tests::harness::orders::reference;
use weir_tests::harness::people;

use crate::HUB;
use crate::tour::path_with_binaries;

fn dev(args: &[&str]) -> Command {
    let mut command = Command::new(HUB);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command.arg("dev").args(args).stdin(Stdio::null());
    command
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// A page of this machine's, over a plain connection.
async fn fetch_page(url: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let host = url.strip_prefix("http://").unwrap().trim_end_matches('/');
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

#[test]
fn main_job_runs_once_and_its_books_are_clean() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("town");
    let output = dev(&["--once", "--seed", "1", "--json", "--data", dir.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["payments"].as_u64().unwrap() >= 20_000, "{report}");
    assert!(report["channels"].as_u64().unwrap() >= 8, "{report}");
    assert!(report["lanes"].as_u64().unwrap() >= 8 + 2, "three of one channel: {report}");
    assert!(report["commits"].as_u64().unwrap() > 0 && report["elapsed_ms"].as_u64().unwrap() > 0, "{report}");
    assert!(report["payouts"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["audit"], "clean");
    let web = |name: &str| text(&report["web"][name]).parse::<weir_protocol::amount::Amount>().unwrap();
    assert_eq!(web("article"), "0.05".parse().unwrap());
    assert_eq!(web("drawn").checked_add(web("left")).unwrap(), web("prepaid"));
    assert!(!web("drawn").is_zero(), "{report}");
    let bank_file = std::fs::read_to_string(text(&report["bank_file"])).unwrap();
    assert!(bank_file.contains("pain.001.001.09"));
    assert!(bank_file.contains(&format!("<NbOfTxs>{}</NbOfTxs>", report["payouts"])), "{bank_file}");
    // Another process finds the same.
    let data = dir.join("hub");
    let audit = Command::new(HUB).args(["audit", "--json", "--data"]).arg(&data).output().unwrap();
    let audit: Value = serde_json::from_slice(&audit.stdout).unwrap();
    assert_eq!((&audit["audit"], &audit["commits"]), (&Value::from("clean"), &report["commits"]));
    let books = weir_tests::harness::books::Books::read(&data);
    assert_eq!(report["payments"], books.by_id.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn town_that_stays_says_where_everything_is_and_its_people_can_pay() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("town");
    let mut child =
        dev(&["--json", "--data", dir.to_str().unwrap()]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let address: HubAddress = text(&ready["hub"]).parse().unwrap();
    assert_eq!(Path::new(text(&ready["data"])), dir);
    for folder in ["inbox", "outbox"] {
        assert!(Path::new(text(&ready[folder])).is_dir(), "{ready}");
    }
    let people = |kind: &str| -> Vec<(PathBuf, AccountId)> {
        let rows = ready[kind].as_array().unwrap();
        rows.iter().map(|row| (text(&row["home"]).into(), text(&row["account"]).parse().unwrap())).collect()
    };
    let (payees, payers) = (people("payees"), people("payers"));
    assert!(payees.len() >= 2 && payers.len() >= 2);
    for (home, account) in payees.iter().chain(&payers) {
        let home = Home::open(home, PlainKeys::sealer()).unwrap();
        assert_eq!((home.account(), home.hub()), (*account, &address));
    }

    let article = text(&ready["article_url"]);
    assert!(article.contains("article") && text(&ready["api_url"]).ends_with("/v1/chat/completions"), "{ready}");
    let path = path_with_binaries();
    let weir = std::env::split_paths(&path).map(|folder| folder.join("weir")).find(|path| path.is_file()).unwrap();
    let fetch = |args: &[&str]| {
        let home = payers[1].0.to_str().unwrap();
        Command::new(&weir).args(["--home", home, "fetch", "--json"]).args(args).arg(article).output().unwrap()
    };
    let quoted: Value = serde_json::from_slice(&fetch(&["--dry-run"]).stdout).unwrap();
    assert_eq!((&quoted["status"], &quoted["price"]), (&Value::from(402), &Value::from("0.05")), "{quoted}");
    let page = dir.join("article.html");
    let bought = fetch(&["--output", page.to_str().unwrap()]);
    assert!(bought.status.success(), "{}", String::from_utf8_lossy(&bought.stderr));
    assert!(std::fs::read_to_string(&page).unwrap().contains("<h1>"));
    let debugger = fetch_page(text(&ready["debugger_url"])).await;
    let one = debugger.split("<article").find(|one| one.contains("weir/") && one.contains("Payment-Receipt")).unwrap();
    for kind in ["challenge", "payment", "receipt", "credential", "answer", "draw"] {
        assert!(one.contains(&format!("class=\"{kind}\"")), "no {kind}: {one}");
    }

    let client = Client::start(Home::open(&payers[0].0, PlainKeys::sealer()).unwrap()).unwrap();
    let lane = match client.home().lanes().unwrap().first() {
        Some(lane) => *lane,
        None => people::opened(&client, people::euro(1)).await,
    };
    let amount = "0.05".parse().unwrap();
    let order = Order { payee: payees[0].1, amount, reference: reference(9, 9), deadline: None };
    let Ok(Outcome::Paid(paid)) = client.lane(lane.id()).unwrap().pay(order).await else { panic!("not paid") };
    paid.receipt().unwrap().check().unwrap();
    client.shut_down().await;

    let told = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert!(child.wait().unwrap().success());
    let audit = Command::new(HUB).args(["audit", "--json", "--data"]).arg(dir.join("hub")).output().unwrap();
    let audit: Value = serde_json::from_slice(&audit.stdout).unwrap();
    assert_eq!(audit["audit"], "clean");
}
