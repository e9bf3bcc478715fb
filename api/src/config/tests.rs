//! What settings mean together: etcd's checks, defaults and texts.

use super::*;
use crate::args::{Invocation, parse};

fn resolve(arguments: &[&str]) -> Result<(Config, Vec<String>), ConfigError> {
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    match parse(&arguments, []) {
        Ok(Invocation::Serve(settings)) => Config::resolve(&settings),
        other => panic!("{arguments:?} gave {other:?}"),
    }
}

#[test]
fn the_defaults_are_etcds() {
    let (config, warnings) = resolve(&[]).expect("valid");
    assert_eq!(config.name, "default");
    assert!(config.data_directory.is_absolute());
    assert!(config.data_directory.ends_with("default.etcd"));
    assert_eq!(config.listen_client, [ListenUrl::parse("http://localhost:2379").unwrap()]);
    assert_eq!(config.listen_peer, [ListenUrl::parse("http://localhost:2380").unwrap()]);
    assert!(config.client_tls.is_empty() && config.peer_tls.is_empty());
    assert!(config.listen_metrics.is_empty());
    assert_eq!(config.advertise_client_urls, ["http://localhost:2379"]);
    assert_eq!(config.initial_cluster, Cluster::parse("default=http://localhost:2380").unwrap());
    assert!(!config.joins_existing);
    assert_eq!(config.initial_cluster_token, "etcd-cluster");
    assert_eq!(config.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(config.election_timeout, Duration::from_millis(1000));
    assert_eq!(config.snapshot_count, 10_000);
    assert_eq!(config.snapshot_catchup_entries, 5_000);
    assert!(config.pre_vote);
    assert_eq!(config.quota_bytes, Some(2 << 30));
    assert_eq!(config.block_cache_bytes, 64 << 20);
    assert_eq!(config.max_request_bytes, 1_572_864);
    assert_eq!(config.max_txn_ops, 128);
    assert_eq!(config.max_concurrent_streams, u32::MAX);
    assert_eq!(config.keepalive_interval, Duration::from_secs(7200));
    assert_eq!(config.keepalive_timeout, Duration::from_secs(20));
    assert_eq!(config.watch_progress_interval, Duration::from_secs(600));
    assert!(!config.unsafe_no_fsync);
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn retention_is_hours_or_a_duration_or_revisions() {
    let hour = Duration::from_secs(3600);
    let rows: &[(&[&str], Option<Retention>)] = &[
        (&[], None),
        (&["--auto-compaction-retention=0"], None),
        (&["--auto-compaction-retention=1"], Some(Retention::Period(hour))),
        (&["--auto-compaction-retention=30m"], Some(Retention::Period(hour / 2))),
        (&["--auto-compaction-mode=revision"], None),
        (
            &["--auto-compaction-mode=revision", "--auto-compaction-retention=1000"],
            Some(Retention::Revisions(1000)),
        ),
    ];
    for (flags, expected) in rows {
        let (config, _) = resolve(flags).expect("valid");
        assert_eq!(config.auto_compaction, *expected, "{flags:?}");
    }
}

#[test]
fn a_named_member_alone_is_its_own_initial_cluster() {
    let flags = ["--name=m1", "--initial-advertise-peer-urls=http://10.0.0.1:1"];
    let (config, _) = resolve(&flags).expect("valid");
    assert_eq!(config.initial_cluster, Cluster::parse("m1=http://10.0.0.1:1").unwrap());
    assert!(config.data_directory.ends_with("m1.etcd"));
}

#[test]
fn settings_that_do_not_fit_are_refused_in_etcds_words() {
    let table: &[(&[&str], &str)] = &[
        (
            &["--election-timeout=400"],
            "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            &["--election-timeout=60000"],
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            &["--listen-client-urls=http://127.0.0.1:1"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--name=b", "--initial-cluster=a=http://localhost:2380"],
            "couldn't find local name \"b\" in the initial cluster configuration",
        ),
        (
            &["--initial-cluster=default=http://localhost:1"],
            "--initial-cluster has default=http://localhost:1 but \
             --initial-advertise-peer-urls=http://localhost:2380",
        ),
        (
            &["--listen-peer-urls=http://example.com:1"],
            "--listen-peer-urls: expected IP in URL for binding (http://example.com:1)",
        ),
        (
            &["--listen-peer-urls=https://127.0.0.1:1"],
            "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
        ),
        (
            &["--listen-metrics-urls=https://127.0.0.1:1"],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url \
             https://127.0.0.1:1 with HTTPS scheme",
        ),
        (&["--cert-file=/c"], "KeyFile and CertFile must both be present[key: , cert: /c]"),
        (
            &["--peer-cert-allowed-cn=a,b", "--peer-cert-allowed-hostname=h"],
            "AllowedCN and AllowedHostname are mutually exclusive (cn=\"a,b\", hostname=\"h\")",
        ),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (&["--cipher-suites=X"], "unexpected TLS cipher suite \"X\""),
        (
            &["--watch-progress-notify-interval=10ms"],
            "--watch-progress-notify-interval[10ms] is too short, and should be at least 100ms",
        ),
    ];
    for (flags, expected) in table {
        let error = resolve(flags).expect_err("refused").to_string();
        assert_eq!(&error, expected, "{flags:?}");
    }
}

#[test]
fn a_member_with_data_no_longer_reads_its_initial_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = format!("--data-dir={}", folder.path().display());
    let flags = [data.as_str(), "--name=b", "--initial-cluster=a=http://localhost:2380"];
    assert!(resolve(&flags).is_err());
    std::fs::create_dir(folder.path().join("wal")).expect("made");
    assert!(resolve(&flags).is_err(), "an empty log is no member");
    std::fs::write(folder.path().join("wal/0"), b"").expect("written");
    assert!(resolve(&flags).is_ok());
}

#[test]
fn the_quota_has_a_default_and_an_off_switch() {
    assert_eq!(quota(0), Some(2 << 30));
    assert_eq!(quota(7), Some(7));
    assert_eq!(quota(-1), None);
    let (_, warnings) = resolve(&["--quota-backend-bytes=8589934593"]).expect("valid");
    assert_eq!(warnings.len(), 1);
}

#[test]
fn members_are_not_let_in_by_public_authorities() {
    let url = "--listen-peer-urls=https://127.0.0.1:2380";
    let pair = ["--peer-cert-file=c", "--peer-key-file=k"];
    let given = |more: &[&'static str]| resolve(&[&[url], more].concat());
    let asks = "--peer-client-cert-auth";
    for refused in [
        &[pair[0], pair[1], asks][..],
        &["--peer-auto-tls", "--peer-trusted-ca-file=a"],
        &["--peer-auto-tls", asks],
    ] {
        let reason = given(refused).expect_err("refused").to_string();
        assert!(reason.contains("--peer-trusted-ca-file"), "{reason}");
    }
    for taken in [
        &[pair[0], pair[1], asks, "--peer-trusted-ca-file=a"][..],
        &[pair[0], pair[1], asks, "--peer-cert-allowed-cn=m"],
        &["--peer-auto-tls"],
    ] {
        given(taken).expect("taken");
    }
    let clients =
        ["--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://a:1"];
    let clients = [&clients[..], &["--cert-file=c", "--key-file=k", "--client-cert-auth"]].concat();
    let warned = |warnings: &[String]| warnings.iter().any(|text| text.contains("authorities"));
    assert!(warned(&resolve(&clients).expect("taken").1));
    let trusting = [&clients[..], &["--trusted-ca-file=a"]].concat();
    assert!(!warned(&resolve(&trusting).expect("taken").1));
}
