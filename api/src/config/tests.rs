//! What settings mean together: etcd's checks, defaults and texts.

use super::*;
use crate::args::{Invocation, parse};
use crate::discovery::RecordSettings;

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
    let log = tempfile::tempdir().expect("a folder");
    let apart = format!("--wal-dir={}", log.path().display());
    let flags = [&flags[..], &[apart.as_str()]].concat();
    assert!(resolve(&flags).is_err(), "the log does not lie there");
    std::fs::create_dir(log.path().join("wal")).expect("made");
    std::fs::write(log.path().join("wal/0"), b"").expect("written");
    let (config, _) = resolve(&flags).expect("it does");
    assert_eq!(config.log_directory.as_deref(), Some(log.path()));
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

#[test]
fn comparisons_between_members_have_flags_and_gates_of_several_generations() {
    let comparisons = |texts: &[&str]| {
        let (config, warnings) = resolve(texts).expect("valid");
        (config.comparisons, warnings.len())
    };
    let off = Comparisons::default();
    let at_start = Comparisons { at_start: true, ..off };
    let minute = Some(Duration::from_secs(60));
    let after_compactions = Comparisons { compacted_every: minute, ..off };
    let newest = Comparisons { newest_every: minute, ..off };
    assert_eq!(comparisons(&[]), (off, 0));
    assert_eq!(comparisons(&["--feature-gates=InitialCorruptCheck=true"]), (at_start, 0));
    assert_eq!(comparisons(&["--experimental-initial-corrupt-check"]), (at_start, 1));
    assert_eq!(comparisons(&["--feature-gates=CompactHashCheck=true"]), (after_compactions, 0));
    assert_eq!(comparisons(&["--experimental-compact-hash-check-enabled"]), (after_compactions, 1));
    let both = Comparisons { at_start: true, ..after_compactions };
    assert_eq!(comparisons(&["--feature-gates=AllAlpha=true"]), (both, 0));
    assert_eq!(comparisons(&["--feature-gates=AllAlpha=true,CompactHashCheck=f"]), (at_start, 0));
    assert_eq!(comparisons(&["--feature-gates=LeaseCheckpoint=true"]), (off, 1));
    assert_eq!(comparisons(&["--corrupt-check-time=1m"]), (newest, 0));
    let error = resolve(&["--compact-hash-check-time=0"]).expect_err("never is no interval");
    assert_eq!(error.to_string(), "--compact-hash-check-time must be >0 (set to 0s)");
}

#[test]
fn gates_that_need_another_one_are_refused_without_it() {
    let needs = "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                 LeaseCheckpoint";
    for gates in ["LeaseCheckpointPersist=true", "AllAlpha=true,LeaseCheckpoint=false"] {
        let error = resolve(&[&format!("--feature-gates={gates}")]).expect_err("refused");
        assert_eq!(error.to_string(), needs, "{gates}");
    }
    for gates in ["LeaseCheckpointPersist=true,LeaseCheckpoint=true", "AllAlpha=true"] {
        resolve(&[&format!("--feature-gates={gates}")]).expect("taken");
    }
}

#[test]
fn discovery_takes_the_place_of_the_initial_cluster() {
    let flags = ["--discovery-token=t", "--discovery-endpoints=a:1,https://b:2,a:1"];
    let (config, warnings) = resolve(&flags).expect("valid");
    let registry = |config: &Config| match &config.discovery {
        Some(Source::Registry(registry)) => registry.clone(),
        other => panic!("{other:?}"),
    };
    let discovery = registry(&config);
    assert_eq!(format!("{:?}", discovery.endpoints), "[a:1, https://b:2]");
    assert_eq!(discovery.dial_timeout, Duration::from_secs(2));
    assert_eq!(discovery.request_timeout, Duration::from_secs(5));
    assert_eq!((discovery.login.clone(), warnings), (None, Vec::new()));
    let server = config.into_server();
    assert!(server.discovery.is_some());
    assert_eq!(server.node.initial_cluster_token, "t");
    let more = ["--discovery-user=u:p:q", "--discovery-cacert=/ca", "--name=n"];
    let (config, _) = resolve(&[&flags[..], &more[..]].concat()).expect("valid");
    let discovery = registry(&config);
    let login = discovery.login.expect("given");
    assert_eq!((login.user.as_str(), login.password.as_str()), ("u", "p:q"));
    assert_eq!(discovery.endpoints[0], crate::discovery::Endpoint::parse("a:1", true).unwrap());
    let (config, warnings) = resolve(&["--discovery-cacert=/ca"]).expect("valid");
    assert!(config.discovery.is_none() && warnings.len() == 1, "{warnings:?}");
}

#[test]
fn a_password_that_goes_over_a_network_in_the_clear_is_warned_about() {
    let warned = |endpoint: &str, more: &[&str]| {
        let endpoints = format!("--discovery-endpoints={endpoint}");
        let flags = ["--discovery-token=t", &endpoints, "--discovery-user=u:p"];
        resolve(&[&flags[..], more].concat()).expect("valid").1
    };
    let expected =
        |shown: &str| vec![format!("--discovery-user: the password goes to {shown} without TLS")];
    assert_eq!(warned("a:1", &[]), expected("a:1"));
    assert_eq!(warned("http://a:1", &[]), expected("http://a:1"));
    assert_eq!(warned("https://a:1,unix:///socket", &[]), Vec::<String>::new());
    assert_eq!(warned("a:1", &["--discovery-cacert=/ca"]), Vec::<String>::new());
}

#[test]
fn discovery_by_dns_keeps_the_token_of_the_initial_cluster() {
    let flags = ["--discovery-srv=d", "--discovery-srv-name=n", "--initial-cluster-token=t"];
    let (config, warnings) = resolve(&flags).expect("valid");
    let (domain, service_name) = ("d".to_owned(), "n".to_owned());
    let mut records = RecordSettings { domain, service_name, trusts_the_system: true };
    let expected = Some(Source::Records(records.clone()));
    assert_eq!((config.discovery.clone(), warnings), (expected, Vec::new()));
    assert_eq!(config.into_server().node.initial_cluster_token, "t");
    let (config, _) =
        resolve(&[&flags[..], &["--peer-trusted-ca-file=a"]].concat()).expect("valid");
    records.trusts_the_system = false;
    assert_eq!(config.discovery, Some(Source::Records(records)));
    let (config, warnings) = resolve(&["--discovery-srv-name=n"]).expect("valid");
    assert!(config.discovery.is_none() && warnings.len() == 1, "{warnings:?}");
    let joining = ["--discovery-srv=d", "--initial-cluster-state=existing"];
    resolve(&joining).expect("the records are the members of the cluster that it joins");
}

#[test]
fn flags_of_discovery_that_contradict_each_other_are_refused() {
    let conflict = "multiple discovery or bootstrap flags are set.";
    let both = "both --discovery-token and --discovery-endpoints must be set";
    for (flags, expected) in [
        (&["--initial-cluster=default=http://localhost:2380"][..], conflict),
        (&["--discovery-srv=d"], conflict),
        (&["--discovery-proxy=http://p:1"], "both v2 discovery settings"),
        (&["--discovery-token="], both),
        (&["--discovery-endpoints="], both),
        (
            &["--discovery-endpoints=a:1,,b:1"],
            "--discovery-endpoints must not contain empty endpoints",
        ),
        (&["--discovery-endpoints=a"], "--discovery-endpoints: "),
        (&["--discovery-cert=/c"], "KeyFile and CertFile must both be present"),
        (&["--discovery-user=u"], "--discovery-user needs a password"),
        (&["--discovery-password=p"], "--discovery-user needs a password"),
        (&["--discovery-request-timeout=0"], "--discovery-request-timeout must be >0"),
        (&["--initial-cluster-state=existing"], "discovery should not be set when joining"),
    ] {
        let valid = ["--discovery-token=t", "--discovery-endpoints=a:1"];
        let error = resolve(&[&valid, flags].concat()).expect_err(expected).to_string();
        assert!(error.starts_with(expected), "{flags:?}: {error}");
    }
}
