//! The layout that `hub/README.md` promises: which part may know which, and what is absent where.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Inside the hub: each part, and the parts that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("details", &[]),
    ("keys", &[]),
    ("store", &[]),
    ("bank", &["details"]),
    ("engine", &["details", "store"]),
    ("pipeline", &["clock", "engine", "store"]),
    ("schedule", &[]),
    ("settlement", &["bank", "clock", "engine", "pipeline", "details", "schedule"]),
    ("report", &["bank", "details", "engine", "pipeline", "store"]),
    ("server", &["bank", "clock", "engine", "pipeline", "report", "store", "details"]),
    ("audit", &["engine", "pipeline", "store", "keys"]),
    ("config", &["bank", "details", "keys", "schedule", "server", "settlement"]),
    (
        "admin",
        &[
            "audit",
            "bank",
            "clock",
            "config",
            "details",
            "engine",
            "keys",
            "pipeline",
            "schedule",
            "settlement",
            "store",
        ],
    ),
];

/// Parts that put the others together, and may use all of them.
const TOPS: &[&str] = &["cli", "dev", "run", "main", "lib"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// A file without its comments and its tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    path.components().any(|part| part.as_os_str() == "tests") || stem == "tests" || stem.ends_with("_tests")
}

#[test]
fn crates_depend_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("weir-protocol", &[][..]),
        ("weir-client", &["weir-protocol"][..]),
        ("weir-hub", &["weir-client", "weir-protocol"][..]),
        ("weir-tests", &["weir-client", "weir-hub", "weir-protocol"][..]),
    ]);
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        seen.insert(name.to_owned());
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let product = dependency["kind"].is_null();
            if on.starts_with("weir-") && product {
                assert!(allowed[name].contains(&on), "{name} must not depend on {on}");
            }
        }
    }
    assert_eq!(seen.len(), allowed.len(), "a crate that this test does not know");
}

#[test]
fn parts_of_the_hub_use_each_other_one_way() {
    let hub = root().join("hub/src");
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for path in sources(&hub).into_iter().filter(|path| !is_test(path)) {
        let relative = path.strip_prefix(&hub).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let part = first.trim_end_matches(".rs");
        if TOPS.contains(&part) {
            continue;
        }
        let allowed = arrows.get(part).unwrap_or_else(|| panic!("`{part}` is a part that this test does not know"));
        let code = code(&path);
        for piece in code.split("crate::").skip(1) {
            let used: String = piece.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let own = used == part || used.is_empty();
            assert!(own || allowed.contains(&used.as_str()), "{} uses `{used}`", relative.display());
        }
        assert!(!code.contains("weir_client"), "{}: only `dev` plays a user", relative.display());
    }
}

#[test]
fn pure_parts_touch_neither_clock_nor_disk_nor_network() {
    let banned = [
        "std::fs",
        "std::net",
        "std::thread",
        "SystemTime",
        "Instant::",
        "tokio",
        "quinn",
        "getrandom",
        "rand::",
        "println!",
        "f32",
        "f64",
    ];
    for place in ["protocol/src", "hub/src/engine", "hub/src/details"] {
        for path in sources(&root().join(place)) {
            let code = code(&path);
            for word in banned {
                assert!(!code.contains(word), "{} must not use `{word}`", path.display());
            }
        }
    }
}

#[test]
fn money_is_never_a_float() {
    for place in ["hub/src/settlement", "hub/src/bank", "client/src"] {
        for path in sources(&root().join(place)).into_iter().filter(|path| !is_test(path)) {
            // What is measured there is time and bytes; amounts are `Amount` there, too.
            if path.components().any(|part| part.as_os_str() == "bench") {
                continue;
            }
            let code = code(&path);
            let float = code.contains("f64") || code.contains("f32");
            let shows_progress = code.contains("// progress");
            assert!(!float || shows_progress, "{} uses a float", path.display());
        }
    }
}
