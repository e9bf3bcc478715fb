//! The comparison end to end, with the floor as its only target.

use std::process::Command;

#[test]
fn a_quick_comparison_of_the_floor_keeps_figures_of_every_workload() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["compare", "--quick", "--members=1", "--without=etcd,holdfast", "--note=test"])
        .args([format!("--scratch={}", path("data")), format!("--output={}", path("kept"))])
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let kept = std::fs::read_dir(path("kept")).expect("read").next().expect("a run");
    let kept = kept.expect("read").path();
    assert!(kept.to_string_lossy().ends_with("-test"), "{}", kept.display());
    let csv = std::fs::read_to_string(kept.join("raw.csv")).expect("read");
    // Puts with 1, 64 and 256 clients of both floors, gets of the one without a log.
    assert_eq!(csv.lines().count(), 1 + 3 * 3, "{csv}");
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        assert!(fields[5].parse::<f64>().expect("a rate") > 0.0, "{line}");
        assert_eq!(fields.last(), Some(&"0"), "{line}");
    }
    let summary = std::fs::read_to_string(kept.join("summary.md")).expect("read");
    assert!(summary.contains("| put 64 | floor+wal |"), "{summary}");
}
