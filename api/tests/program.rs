//! The program as a process: exit codes and texts for what it is told wrong, and its versions.

use std::process::{Command, Output};

fn holdfast(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(folder.path())
        .output()
        .expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn the_first_line_of_the_version_is_etcds() {
    let output = holdfast(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "etcd Version: 3.6.13");
    assert!(lines[1].starts_with("Holdfast Version: "), "{text}");
    assert!(lines[2].starts_with("Git SHA: "), "{text}");
}

#[test]
fn help_names_the_flags_and_succeeds() {
    for flag in ["-h", "--help", "-help"] {
        let output = holdfast(&[flag], &[]);
        assert_eq!(output.status.code(), Some(0), "{flag}");
        assert!(stdout(&output).contains("--listen-client-urls 'http://localhost:2379'"));
    }
    let output = holdfast(&["dev", "-h"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("--members '3'"));
}

#[test]
fn a_wrong_command_line_exits_with_2_and_the_usage() {
    for (arguments, expected) in [
        (&["--nonsense"][..], "flag provided but not defined: -nonsense\n"),
        (&["--name"], "flag needs an argument: -name\n"),
        (&["dev", "--nonsense"], "flag provided but not defined: -nonsense\n"),
    ] {
        let output = holdfast(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.starts_with(expected) && text.contains("Usage:"), "{text}");
    }
}

#[test]
fn a_wrong_configuration_exits_with_1_and_one_fatal_line() {
    for (arguments, variables, expected) in [
        (&["x"][..], &[][..], "\"x\" is not a valid flag"),
        (&["--election-timeout=400"], &[], "--election-timeout[400ms] should be at least"),
        (&["--cert-file=/x"], &[], "KeyFile and CertFile must both be present"),
        (
            &["--name=a"],
            &[("ETCD_NAME", "b")],
            "conflicting environment variable is shadowed by corresponding command-line flag",
        ),
        (&[], &[("ETCD_MAX_TXN_OPS", "abc")], "for ETCD_MAX_TXN_OPS: parse error"),
        (&["--log-outputs=/nonexistent/x"], &[], "open sink \"/nonexistent/x\""),
    ] {
        let output = holdfast(arguments, variables);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let text = stderr(&output);
        let line: serde_json::Value = serde_json::from_str(text.trim()).expect("one JSON line");
        assert_eq!(line["level"], "fatal", "{text}");
        let error = line["error"].as_str().expect("an error");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_impossible_local_cluster_exits_with_1() {
    let output = holdfast(&["dev", "--members=0"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--members=0"), "{}", stderr(&output));
}
