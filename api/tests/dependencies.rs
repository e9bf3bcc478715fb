//! The arrows of ARCHITECTURE.md, read from `cargo metadata`: which crate may know which.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Each crate's normal dependencies, by package name.
fn dependencies() -> Vec<(String, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let normal = dependencies
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().expect("a name").to_owned());
            (package["name"].as_str().expect("a name").to_owned(), normal.collect())
        })
        .collect()
}

fn dependencies_of(package: &str) -> BTreeSet<String> {
    let all = dependencies();
    all.into_iter().find(|(name, _)| name == package).expect("the package is there").1
}

fn assert_knows_none_of(package: &str, strangers: &[&str]) {
    let known = dependencies_of(package);
    for stranger in strangers {
        let matches: Vec<_> = known.iter().filter(|name| name.starts_with(stranger)).collect();
        assert!(matches.is_empty(), "{package} must not depend on {matches:?}");
    }
}

#[test]
fn store_knows_no_runtime_no_transport_and_no_consensus() {
    assert_knows_none_of(
        "holdfast-store",
        &["tokio", "tonic", "openraft", "hyper", "axum", "holdfast-"],
    );
}

#[test]
fn raft_knows_store_and_proto_but_not_the_server() {
    assert_knows_none_of("holdfast-raft", &["axum", "holdfast-bench", "holdfast-jepsen"]);
    let known = dependencies_of("holdfast-raft");
    assert!(known.contains("holdfast-store") && known.contains("holdfast-proto"), "{known:?}");
    assert!(!known.contains("holdfast"), "raft must not know the server");
}

#[test]
fn only_raft_and_the_simulation_of_it_name_openraft() {
    for (package, known) in dependencies() {
        let names_openraft = known.iter().any(|name| name.starts_with("openraft"));
        assert!(
            !names_openraft || package == "holdfast-raft",
            "{package} must reach openraft through holdfast-raft"
        );
    }
}

#[test]
fn those_who_test_from_outside_link_no_server() {
    for package in ["holdfast-bench", "holdfast-jepsen"] {
        assert_knows_none_of(package, &["holdfast-store", "holdfast-raft", "openraft", "sled"]);
        assert!(!dependencies_of(package).contains("holdfast"), "{package} links the server");
    }
}

#[test]
fn proto_knows_nothing_of_ours() {
    assert_knows_none_of("holdfast-proto", &["holdfast", "openraft", "sled"]);
}
