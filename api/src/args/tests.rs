//! The command line and the environment, case by case; the texts are Go's and etcd's.

use std::time::Duration;

use super::*;

fn arguments(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn settings(texts: &[&str], variables: &[(&str, &str)]) -> Settings {
    match parse(&arguments(texts), owned(variables)) {
        Ok(Invocation::Serve(settings)) => settings,
        other => panic!("{texts:?} gave {other:?}"),
    }
}

fn failure(texts: &[&str], variables: &[(&str, &str)]) -> ArgumentError {
    parse(&arguments(texts), owned(variables)).expect_err("refused")
}

fn owned(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn every_go_form_sets_the_flag() {
    for texts in [
        &["-name", "x"][..],
        &["--name", "x"],
        &["-name=x"],
        &["--name=x"],
        &["--name=y", "--name=x"],
        &["--name=x", "--"],
    ] {
        assert_eq!(settings(texts, &[]).text("name"), "x", "{texts:?}");
    }
    assert_eq!(settings(&["--name="], &[]).text("name"), "");
    assert_eq!(
        settings(&["--initial-cluster-token=a=b"], &[]).text("initial-cluster-token"),
        "a=b"
    );
    assert_eq!(settings(&["--name", "-x"], &[]).text("name"), "-x");
}

#[test]
fn booleans_need_no_value_and_take_gos_spellings() {
    for (texts, expected) in [
        (&["--unsafe-no-fsync"][..], true),
        (&["--unsafe-no-fsync=T"], true),
        (&["--unsafe-no-fsync=0"], false),
        (&[], false),
        (&["--unsafe-no-fsync", "--name", "x"], true),
    ] {
        assert_eq!(settings(texts, &[]).boolean("unsafe-no-fsync"), expected, "{texts:?}");
    }
}

#[test]
fn a_wrong_command_line_fails_with_gos_text() {
    for (texts, expected) in [
        (&["-foo"][..], "flag provided but not defined: -foo"),
        (&["--foo=3"], "flag provided but not defined: -foo"),
        (&["--name"], "flag needs an argument: -name"),
        (&["---x"], "bad flag syntax: ---x"),
        (&["--=x"], "bad flag syntax: --=x"),
        (&["--max-txn-ops=abc"], "invalid value \"abc\" for flag -max-txn-ops: parse error"),
        (&["--max-txn-ops=-1"], "invalid value \"-1\" for flag -max-txn-ops: parse error"),
        (
            &["--max-request-bytes=4294967296"],
            "invalid value \"4294967296\" for flag -max-request-bytes: value out of range",
        ),
        (&["--pre-vote=maybe"], "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        (
            &["--initial-cluster-state=foo"],
            "invalid value \"foo\" for flag -initial-cluster-state: invalid value, \
             must be one of new, existing",
        ),
        (
            &["--listen-client-urls=ftp://127.0.0.1:3379"],
            "invalid value \"ftp://127.0.0.1:3379\" for flag -listen-client-urls: \
             URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:3379",
        ),
        (
            &["--initial-cluster=foo"],
            "invalid value \"foo\" for flag -initial-cluster: empty URL given for \"foo\"",
        ),
        (
            &["--feature-gates=Foo=true"],
            "invalid value \"Foo=true\" for flag -feature-gates: unrecognized feature gate: Foo",
        ),
        (
            &["--watch-progress-notify-interval=5"],
            "invalid value \"5\" for flag -watch-progress-notify-interval: parse error",
        ),
    ] {
        assert_eq!(failure(texts, &[]), ArgumentError::Usage(expected.to_owned()), "{texts:?}");
    }
}

#[test]
fn anything_that_is_no_flag_is_refused() {
    let expected = ArgumentError::Refused("\"x\" is not a valid flag".to_owned());
    for texts in [&["x"][..], &["--name=a", "x"], &["--unsafe-no-fsync", "x"], &["--", "x"]] {
        assert_eq!(failure(texts, &[]), expected, "{texts:?}");
    }
}

#[test]
fn help_and_version_win_over_everything_after_them() {
    for texts in [&["-h"][..], &["--help"], &["--name=a", "-help", "--unknown"]] {
        assert!(matches!(parse(&arguments(texts), []), Ok(Invocation::Help)), "{texts:?}");
    }
    for texts in [&["--version"][..], &["-version=true", "--cert-file=x"]] {
        assert!(matches!(parse(&arguments(texts), []), Ok(Invocation::Version)), "{texts:?}");
    }
    assert!(matches!(parse(&arguments(&["dev", "--help"]), []), Ok(Invocation::DevelopmentHelp)));
}

#[test]
fn the_environment_sets_flags() {
    let variables = [
        ("ETCD_NAME", "m1"),
        ("ETCD_MAX_TXN_OPS", "7"),
        ("ETCD_UNSAFE_NO_FSYNC", "true"),
        ("ETCD_INITIAL_CLUSTER_TOKEN", ""),
        ("HOME", "/"),
    ];
    let settings = settings(&[], &variables);
    assert_eq!(settings.text("name"), "m1");
    assert_eq!(settings.source("name"), Source::Environment);
    assert_eq!(settings.unsigned("max-txn-ops"), 7);
    assert!(settings.boolean("unsafe-no-fsync"));
    assert_eq!(settings.text("initial-cluster-token"), "etcd-cluster");
    assert!(settings.warnings().is_empty());
}

#[test]
fn a_flag_and_its_variable_together_are_refused() {
    let error = failure(&["--name=a"], &[("ETCD_NAME", "x")]);
    assert_eq!(
        error,
        ArgumentError::Refused(
            "conflicting environment variable is shadowed by corresponding command-line flag \
             (either unset environment variable or disable flag): ETCD_NAME"
                .to_owned()
        )
    );
}

#[test]
fn a_wrong_variable_names_itself_and_an_unknown_one_is_warned_about() {
    assert_eq!(
        failure(&[], &[("ETCD_MAX_TXN_OPS", "abc")]),
        ArgumentError::Refused(
            "invalid value \"abc\" for ETCD_MAX_TXN_OPS: parse error".to_owned()
        )
    );
    let settings = settings(&[], &[("ETCD_FOO", "y"), ("ETCD_VERIFY", "all")]);
    assert_eq!(settings.warnings(), ["unrecognized environment variable ETCD_FOO=y"]);
}

#[test]
fn flags_without_effect_are_accepted_with_one_warning_each() {
    let texts = [
        "--experimental-enable-lease-checkpoint=true",
        "--backend-batch-limit=5",
        "--v",
        "--enable-pprof=false",
    ];
    let settings = settings(&texts, &[]);
    let flags: Vec<&str> =
        settings.warnings().iter().map(|text| text.split(' ').next().unwrap_or("")).collect();
    assert_eq!(flags, ["--backend-batch-limit", "--experimental-enable-lease-checkpoint", "--v"]);
}

#[test]
fn an_experimental_name_is_the_flag_it_became() {
    let old = settings(&["--experimental-watch-progress-notify-interval=5s"], &[]);
    assert_eq!(old.duration("watch-progress-notify-interval"), Duration::from_secs(5));
    assert_eq!(old.warnings().len(), 1);
    let both = settings(
        &["--experimental-snapshot-catchup-entries=1", "--snapshot-catchup-entries=2"],
        &[],
    );
    assert_eq!(both.unsigned("snapshot-catchup-entries"), 2);
}

#[test]
fn what_is_unsafe_to_ignore_is_refused_unless_it_says_the_default() {
    let error = failure(&["--discovery=http://example.com/t"], &[]).to_string();
    assert!(error.starts_with("--discovery cannot be honoured"), "{error}");
    let way_out = "give --initial-cluster or --discovery-token with --discovery-endpoints";
    assert!(error.ends_with(way_out), "{error}");
    let by_variable = settings(&[], &[("ETCD_DISCOVERY_TOKEN", "t")]);
    assert_eq!(by_variable.text("discovery-token"), "t");
    let settings = settings(&["--force-new-cluster", "--auth-token=simple"], &[]);
    assert!(settings.warnings().is_empty());
    assert!(matches!(
        failure(&[], &[("ETCD_DISCOVERY", "http://example.com/t")]),
        ArgumentError::Refused(_)
    ));
}

#[test]
fn kubeadms_flags_without_tls_are_accepted() {
    let texts = [
        "--name=n",
        "--feature-gates=InitialCorruptCheck=true",
        "--listen-client-urls=http://127.0.0.1:2379,http://10.0.0.1:2379",
        "--advertise-client-urls=http://10.0.0.1:2379",
        "--listen-peer-urls=http://10.0.0.1:2380",
        "--initial-advertise-peer-urls=http://10.0.0.1:2380",
        "--data-dir=/var/lib/etcd",
        "--snapshot-count=10000",
        "--listen-metrics-urls=http://127.0.0.1:2381",
        "--watch-progress-notify-interval=5s",
        "--initial-cluster=n=http://10.0.0.1:2380",
        "--initial-cluster-state=existing",
    ];
    let settings = settings(&texts, &[]);
    assert_eq!(settings.list("listen-client-urls").len(), 2);
}

/// Every flag of etcd 3.4.23, 3.5, 3.6.16 and 3.7.3, as their own programs list them.
const FLAGS_OF_ETCD: &str = "
    advertise-client-urls auth-token auth-token-ttl auto-compaction-mode
    auto-compaction-retention auto-tls backend-batch-interval backend-batch-limit
    backend-bbolt-freelist-type bcrypt-cost bootstrap-defrag-threshold-megabytes cert-file
    cipher-suites client-cert-allowed-hostname client-cert-auth client-cert-file client-crl-file
    client-key-file compact-hash-check-time compaction-batch-limit compaction-sleep-interval
    config-file corrupt-check-time cors data-dir debug discovery discovery-cacert discovery-cert
    discovery-dial-timeout discovery-endpoints discovery-fallback
    discovery-insecure-skip-tls-verify discovery-insecure-transport discovery-keepalive-time
    discovery-keepalive-timeout discovery-key discovery-password discovery-proxy
    discovery-request-timeout discovery-srv discovery-srv-name discovery-token discovery-user
    distributed-tracing-address distributed-tracing-instance-id distributed-tracing-sampling-rate
    distributed-tracing-service-name downgrade-check-time election-timeout
    enable-distributed-tracing enable-grpc-gateway enable-log-rotation enable-pprof enable-v2
    experimental-backend-bbolt-freelist-type experimental-bootstrap-defrag-threshold-megabytes
    experimental-compact-hash-check-enabled experimental-compact-hash-check-time
    experimental-compaction-batch-limit experimental-compaction-sleep-interval
    experimental-corrupt-check-time experimental-distributed-tracing-address
    experimental-distributed-tracing-instance-id experimental-distributed-tracing-sampling-rate
    experimental-distributed-tracing-service-name experimental-downgrade-check-time
    experimental-enable-distributed-tracing experimental-enable-lease-checkpoint
    experimental-enable-lease-checkpoint-persist experimental-enable-v2v3
    experimental-initial-corrupt-check experimental-max-learners experimental-memory-mlock
    experimental-peer-skip-client-san-verification experimental-snapshot-catchup-entries
    experimental-stop-grpc-service-on-defrag experimental-txn-mode-write-with-shared-buffer
    experimental-wait-cluster-ready-timeout experimental-warning-apply-duration
    experimental-warning-unary-request-duration experimental-watch-progress-notify-interval
    feature-gates force-new-cluster grpc-keepalive-interval grpc-keepalive-min-time
    grpc-keepalive-timeout heartbeat-interval host-whitelist initial-advertise-peer-urls
    initial-cluster initial-cluster-state initial-cluster-token initial-election-tick-advance
    key-file listen-client-http-urls listen-client-urls listen-metrics-urls listen-peer-urls
    log-format log-level log-outputs log-package-levels log-rotation-config-json logger
    max-concurrent-streams max-learners max-request-bytes max-snapshots max-txn-ops max-wals
    memory-mlock metrics name peer-auto-tls peer-cert-allowed-cn peer-cert-allowed-hostname
    peer-cert-file peer-client-cert-auth peer-client-cert-file peer-client-key-file peer-crl-file
    peer-key-file peer-skip-client-san-verification peer-trusted-ca-file pre-vote proxy
    proxy-dial-timeout proxy-failure-wait proxy-read-timeout proxy-refresh-interval
    proxy-write-timeout quota-backend-bytes raft-read-timeout raft-write-timeout
    self-signed-cert-validity snapshot-catchup-entries snapshot-count socket-reuse-address
    socket-reuse-port strict-reconfig-check tls-max-version tls-min-version trusted-ca-file
    unsafe-no-fsync v2-deprecation version wait-cluster-ready-timeout wal-dir
    warning-apply-duration warning-unary-request-duration watch-progress-notify-interval
";

#[test]
fn every_flag_of_etcd_since_3_4_has_a_row() {
    let flags = FLAGS_OF_ETCD.split_whitespace();
    let missing: Vec<&str> =
        flags.filter(|name| table::find(table::SERVER, name).is_none()).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_row_is_sound() {
    let mut names = std::collections::BTreeSet::new();
    for flag in table::SERVER {
        assert!(names.insert(flag.name), "{} has two rows", flag.name);
        let default = value::normal_form(flag.kind, flag.default);
        assert_eq!(default.as_deref(), Ok(flag.default), "the default of {}", flag.name);
        if let Effect::Alias(new) = flag.effect {
            let target = table::find(table::SERVER, new).expect("an alias has a target");
            assert_eq!((target.kind, target.default), (flag.kind, flag.default), "{}", flag.name);
        }
    }
}

#[test]
fn durations_are_read_as_go_reads_them() {
    for (text, expected) in [
        ("0", Some(0)),
        ("5s", Some(5_000)),
        ("1h30m", Some(5_400_000)),
        ("1.5s", Some(1_500)),
        ("2h0m0s", Some(7_200_000)),
        ("100ms", Some(100)),
        (".5s", Some(500)),
        ("5", None),
        ("", None),
        ("s", None),
        ("-1s", None),
        ("1d", None),
        ("1s2", None),
    ] {
        let read = parse_duration(text).ok().map(|duration| duration.as_millis());
        assert_eq!(read, expected, "{text:?}");
    }
}

#[test]
fn a_file_takes_the_place_of_flags_and_variables() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("etcd.yml");
    std::fs::write(&path, "name: from-file\nbogus: 1\nenable-v2: true\n").expect("written");
    let path = path.to_str().expect("readable").to_owned();
    let flag = format!("--config-file={path}");
    let by_flag = settings(&["--name=a", &flag], &[("ETCD_NAME", "b"), ("ETCD_MAX_TXN_OPS", "7")]);
    let by_variable = settings(&[], &[("ETCD_CONFIG_FILE", &path), ("ETCD_NAME", "b")]);
    for settings in [by_flag, by_variable] {
        assert_eq!(settings.text("name"), "from-file");
        assert_eq!(settings.source("name"), Source::File);
        assert_eq!(settings.unsigned("max-txn-ops"), 128);
        assert!(settings.warnings().iter().any(|warning| warning.contains("bogus")));
        assert!(settings.warnings().iter().any(|warning| warning.contains("--enable-v2")));
    }
    let error = failure(&["--config-file=/nonexistent"], &[]).to_string();
    assert!(error.starts_with("open /nonexistent: "), "{error}");
}
