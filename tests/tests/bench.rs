//! `weir bench` as a user runs it: a hub of its own in both modes, at a hub that runs already, and without any hub.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::tour::path_with_binaries;

/// What every result has (issue and guide: "Measuring a hub").
const FIELDS: &[&str] = &[
    "mode",
    "channels",
    "connections",
    "payments_per_second",
    "latency_us/p50",
    "latency_us/p90",
    "latency_us/p99",
    "latency_us/p999",
    "latency_us/max",
    "hub_cpu_us_per_payment",
    "client_cpu_us_per_payment",
    "commits_per_second",
    "payments_per_commit",
    "journal_bytes_per_payment",
    "hub_rss_bytes",
    "limits/schnorr_verify_us",
    "limits/schnorr_sign_us",
    "limits/sha256_us",
    "limits/fdatasync_us_p50",
    "limits/fdatasync_us_p99",
    "limits/echo_hub_cpu_us",
    "ratios/hub_cpu_to_verify",
    "ratios/hub_cpu_to_floor",
    "ratios/p50_to_floor",
    "audit",
];

/// A command in a folder, with the binaries of this workspace first on the path, undisturbed by the environment.
fn command(program: &str, path: &OsString, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).env("PATH", path).env("HOME", folder).stdin(Stdio::null());
    command
}

fn weir(path: &OsString, folder: &Path, line: &str) -> Output {
    command("weir", path, folder).args(line.split_whitespace()).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_complete(result: &Value) {
    for field in FIELDS {
        let value = result.pointer(&format!("/{field}")).unwrap_or(&Value::Null);
        assert!(!value.is_null(), "`{field}` is missing: {result}");
        assert!(value.as_f64().is_none_or(|number| number > 0.0), "`{field}` is {value}: {result}");
    }
    assert_eq!(result["audit_details"]["missing"], 0);
    assert!(result["audit_details"]["paid"].as_u64() >= result["payments"].as_u64());
}

#[test]
fn bench_with_its_own_hub_measures_both_modes_and_finds_every_payment() {
    let (path, folder) = (path_with_binaries(), tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let short = "bench --spawn --json --seconds 1 --warmup 0 --payees 3 --channels 3 --connections 2";

    let single = json(&weir(&path, folder.path(), &format!("{short} --mode single --lanes 2")));
    assert_complete(&single);
    assert_eq!((&single["mode"], &single["audit"]), (&"single".into(), &"clean".into()));
    assert_eq!((&single["window"], &single["signatures_per_payment"]), (&1.into(), &1.0.into()));

    let adaptive = json(&weir(&path, folder.path(), &format!("{short} --subscribe --window 64")));
    assert_complete(&adaptive);
    assert_eq!((&adaptive["mode"], &adaptive["audit"]), (&"adaptive".into(), &"clean".into()));
    assert_eq!(adaptive["credits"]["complete"], true);
    assert_eq!(adaptive["credits"]["payments"], adaptive["audit_details"]["paid"]);
    assert!(adaptive["signatures_per_payment"].as_f64().unwrap() < 1.0);

    let open = json(&weir(&path, folder.path(), &format!("{short} --rate 200")));
    assert_complete(&open);
    assert!((150.0..250.0).contains(&open["payments_per_second"].as_f64().unwrap()), "{open}");

    let burst = json(&weir(&path, folder.path(), &format!("{short} --burst 500")));
    assert_eq!((&burst["payments"], &burst["audit"]), (&500.into(), &"clean".into()));

    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "nothing is left behind: {left:?}");
}

#[test]
fn bench_at_the_hub_of_a_home_spends_from_channels_that_it_closes() {
    let (path, folder) = (path_with_binaries(), tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let folder = folder.path();
    let mut hub = command("weir-hub", &path, folder);
    let mut hub =
        Killed(hub.args(["dev", "--empty", "--json", "--data", "dev"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(hub.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();

    let home = |line: &str| json(&weir(&path, folder, &format!("{line} --home home --json")));
    home(&format!("init --hub {}", ready["hub"].as_str().unwrap()));
    let registered = command("weir", &path, folder)
        .args(["register", "--home", "home", "--name", "Ada Payer", "--iban", "DE02120300000000202051"])
        .output();
    json(&registered.unwrap());
    home("deposit --sandbox 20.00 --sandbox-dir dev");

    let bench = "bench --channels 3 --connections 2 --payees 2 --seconds 1 --warmup 0 --capacity 1.00 --window 8";
    let refused = weir(&path, folder, &format!("{bench} --home home"));
    assert_eq!(refused.status.code(), Some(2), "nobody is there to confirm");
    for options in ["--yes", "--yes --hub-data dev/hub --subscribe"] {
        let result = home(&format!("{bench} {options}"));
        assert_eq!(result["audit"], "agrees", "{result}");
        assert_eq!(result["audit_details"]["paid_amount"], result["audit_details"]["found_amount"]);
        assert!(result["payments"].as_u64().unwrap() > 0);
        assert_eq!(result["hub_cpu_us_per_payment"].is_null(), !options.contains("--hub-data"));
        assert_eq!(result["credits"].is_null(), !options.contains("--subscribe"));
    }
    let channels = home("channels");
    let open = channels["channels"].as_array().unwrap().iter().filter(|channel| channel["state"] == "open").count();
    assert_eq!(open, 0, "{channels}");
}

#[test]
fn bench_without_a_hub_program_says_how_to_build_it() {
    let (path, folder) = (path_with_binaries(), tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let weir: PathBuf =
        std::env::split_paths(&path).map(|folder| folder.join("weir")).find(|path| path.is_file()).unwrap();
    let alone = folder.path().join("weir");
    // Not copied: a file that another process may still have open for writing cannot be run.
    std::fs::hard_link(weir, &alone).unwrap();
    for arguments in [&["bench", "--spawn"][..], &["bench", "--spawn", "--hub-bin", "nowhere"][..]] {
        let output =
            command(alone.to_str().unwrap(), &"/nowhere".into(), folder.path()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cargo build --release -p weir-hub"), "{said}");
    }
}

/// A process that is killed when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
