//! Regenerates every test vector of `protocol/vectors` from the crate and compares it with the file, so that a change of
//! a signed or encoded byte cannot pass unseen. `WEIR_BLESS=1` writes the files instead.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed test should say where")]

mod vectors {
    pub(crate) mod acts;
    pub(crate) mod basics;
    pub(crate) mod credits;
    pub(crate) mod evidence;
    pub(crate) mod handshake;
    pub(crate) mod http;
    pub(crate) mod layout;
    pub(crate) mod malformed;
    pub(crate) mod messages;
    pub(crate) mod proofs;
    pub(crate) mod receipts;
    pub(crate) mod rejects;
    pub(crate) mod trees;
    pub(crate) mod world;
}

use std::path::PathBuf;

use serde_json::{Value, json};
use vectors::world::World;
use vectors::{
    acts, basics, credits, evidence, handshake, http, malformed, messages, proofs, receipts, rejects, trees,
};

/// Most bytes of all files together.
const MAX_TOTAL: u64 = 900_000;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn compare(file: &str, about: &str, cases: &[Value]) {
    let made = json!({ "about": about, "cases": cases });
    let path = folder().join(file);
    if std::env::var_os("WEIR_BLESS").is_some() {
        // One case a line: a change shows as the cases that it touches.
        let lines: Vec<String> = cases.iter().map(Value::to_string).collect();
        let text = format!("{{\"about\": {},\n\"cases\": [\n{}\n]}}\n", json!(about), lines.join(",\n"));
        std::fs::write(&path, text).unwrap();
        return;
    }
    let text = std::fs::read_to_string(&path).expect("a vector file is missing: WEIR_BLESS=1 writes it");
    let kept: Value = serde_json::from_str(&text).unwrap();
    let kept_cases = kept.get("cases").and_then(Value::as_array).unwrap();
    for (made, kept) in made.get("cases").and_then(Value::as_array).unwrap().iter().zip(kept_cases) {
        assert_eq!(made, kept, "{file}: `{}` changed", made.get("name").unwrap());
    }
    assert_eq!(made, kept, "{file}: cases were added, removed or renamed");
}

#[test]
fn keys_and_signatures_match() {
    compare("keys.json", "Keys from fixed secrets, and signatures over 32-byte digests.", &basics::keys(&World::new()));
}

#[test]
fn ids_match() {
    compare("ids.json", "Ids, hub addresses, amounts and currencies as text.", &basics::ids(&World::new()));
}

#[test]
fn hashes_match() {
    compare("hashes.json", "Every tag, and every preimage of fixed width.", &basics::hashes(&World::new()));
}

#[test]
fn acts_match() {
    compare("acts.json", "Every act: preimage, digest, encoding, item of a commit.", &acts::cases(&World::new()));
}

#[test]
fn trees_match() {
    compare("trees.json", "Merkle trees, inclusion paths, multiproofs, consistency.", &trees::cases());
}

#[test]
fn proofs_match() {
    compare("commits.json", "Commits, histories, heads, answers and act proofs.", &proofs::cases(&World::new()));
}

#[test]
fn receipts_match() {
    compare("receipts.json", "Receipts, right and wrong, and receipt files.", &receipts::cases(&World::new()));
}

#[test]
fn credits_match() {
    compare("credits.json", "Groups of credits as a payee checks them.", &credits::cases(&World::new()));
}

#[test]
fn evidence_matches() {
    compare("evidence.json", "Evidence files of every kind, and changes that must be refused.", &evidence::cases());
}

#[test]
fn handshake_matches() {
    compare("handshake.json", "Certificates, the hub's welcome, proofs of keys.", &handshake::cases(&World::new()));
}

#[test]
fn http_matches() {
    compare("http.json", "Challenges, credentials and answers in HTTP, right and wrong.", &http::cases(&World::new()));
}

#[test]
fn messages_match() {
    compare("messages.json", "Every message, encoded with its length.", &messages::cases(&World::new()));
}

#[test]
fn malformed_bytes_match() {
    compare("malformed.json", "Bytes that must be refused as malformed.", &malformed::cases(&World::new()));
}

#[test]
fn rejects_match() {
    compare("rejects.json", "Every refusal, and wrong inputs that lead to it.", &rejects::cases(&World::new()));
}

#[test]
fn vector_files_stay_small() {
    let total: u64 = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(total < MAX_TOTAL, "{total} bytes");
}
