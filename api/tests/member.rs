//! One member as a process: its log, its signals, and data directories it must not touch.

mod process;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use process::{Program, free_ports, get, put};
use rustix::process::Signal;

const READY: &str = "ready to serve client requests";

fn flags(folder: &Path, port: u16) -> Vec<String> {
    let (client, peer) =
        (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", port + 1));
    vec![
        "--name=m".to_owned(),
        format!("--data-dir={}", folder.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=m={peer}"),
    ]
}

/// Starts a member that must not run, and gives its last words.
fn refused(flags: &[String]) -> String {
    let (status, lines) = Program::start(flags).ended();
    assert_eq!(status.code(), Some(1), "{lines:#?}");
    let line: serde_json::Value =
        serde_json::from_str(lines.last().expect("a reason")).expect("a JSON line");
    assert_eq!(line["level"], "fatal", "{line}");
    line["error"].as_str().expect("an error").to_owned()
}

#[test]
fn a_signal_ends_a_member_cleanly_and_its_log_is_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_ports(2);
    for signal in [Signal::TERM, Signal::INT] {
        let mut member = Program::start(&flags(folder.path(), port));
        let mut lines = member.until(READY);
        // Twice in a row is once, as `timeout` sends it.
        member.signal(signal);
        member.signal(signal);
        let (status, rest) = member.ended();
        assert_eq!(status.code(), Some(0), "{rest:#?}");
        lines.extend(rest);
        for line in &lines {
            let line: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
            for key in ["level", "ts", "caller", "msg"] {
                assert!(line[key].is_string(), "{line}");
            }
            assert_ne!(line["level"], "error", "{line}");
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_ports(2);
    let endpoint = format!("http://127.0.0.1:{port}");
    let mut member = Program::start(&flags(folder.path(), port));
    member.until(READY);
    put(&endpoint, "key", "value");
    member.signal(Signal::KILL);
    member.ended();
    let mut member = Program::start(&flags(folder.path(), port));
    member.until(READY);
    assert_eq!(get(&endpoint, "key").as_deref(), Some(&b"value"[..]));
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_ports(4);
    let mut first = Program::start(&flags(folder.path(), port));
    first.until(READY);
    // The same member as its flags describe it, but listening elsewhere.
    let mut second = flags(folder.path(), port);
    second.push(format!("--listen-client-urls=http://127.0.0.1:{}", port + 2));
    second.push(format!("--listen-peer-urls=http://127.0.0.1:{}", port + 3));
    let error = refused(&second);
    assert!(error.contains("in use"), "{error}");
    assert!(error.contains(&*folder.path().to_string_lossy()), "{error}");
}

#[test]
fn a_data_directory_of_etcd_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("member/wal")).expect("made");
    let error = refused(&flags(folder.path(), free_ports(2)));
    assert!(error.contains("etcd") && error.contains("holdfast util migrate"), "{error}");
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("read")
        .map(|entry| entry.expect("read").file_name())
        .collect();
    assert_eq!(names, ["member"]);
}

#[test]
fn a_log_apart_is_used_and_asked_for() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let port = free_ports(2);
    let endpoint = format!("http://127.0.0.1:{port}");
    let plain = flags(&data, port);
    let apart = [&plain[..], &[format!("--wal-dir={}", log.display())]].concat();
    let mut member = Program::start(&apart);
    member.until(READY);
    put(&endpoint, "key", "value");
    let check = |more: &[String]| {
        let words = ["util", "check", data.to_str().expect("text")].map(str::to_owned);
        Program::start(&[&words[..], more].concat()).ended()
    };
    let by_flag = [format!("--wal-dir={}", log.display())];
    assert!(check(&by_flag).1.concat().contains("in use"));
    member.signal(Signal::KILL);
    member.ended();
    let mode = std::fs::metadata(&log).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(log.join("wal").is_dir() && !data.join("wal").exists());
    let error = refused(&plain);
    assert!(error.contains("--wal-dir"), "{error}");
    let mut member = Program::start(&apart);
    member.until(READY);
    assert_eq!(get(&endpoint, "key").as_deref(), Some(&b"value"[..]));
    member.signal(Signal::TERM);
    member.ended();
    let (status, lines) = check(&by_flag);
    assert!(status.success() && lines.concat().contains("is whole"), "{lines:?}");
    let (status, lines) = check(&[]);
    assert!(!status.success() && lines.concat().contains("--wal-dir"), "{lines:?}");
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_ports(2);
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("bound");
    let error = refused(&flags(folder.path(), port));
    assert!(error.contains(&port.to_string()), "{error}");
}

#[test]
fn http_is_served_apart_from_calls_where_it_has_urls_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_ports(3);
    let mut flags = flags(folder.path(), port);
    flags.push(format!("--listen-client-http-urls=http://127.0.0.1:{}", port + 2));
    let mut member = Program::start(&flags);
    member.until(READY);
    put(&format!("http://127.0.0.1:{port}"), "k", "v");
    assert!(page(port, "/health").starts_with("HTTP/1.1 404 Not Found"));
    assert!(page(port + 2, "/health").starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn a_member_that_compares_itself_with_its_peers_is_live_and_not_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_ports(7);
    let cluster: Vec<_> =
        (0..3).map(|i| format!("m{i}=http://127.0.0.1:{}", port + 2 * i + 1)).collect();
    let flags = |i: u16| {
        let mut flags = flags(&folder.path().join(i.to_string()), port + 2 * i);
        flags.extend([format!("--name=m{i}"), format!("--initial-cluster={}", cluster.join(","))]);
        // How long who does not answer is waited for, at least.
        flags.push("--election-timeout=3000".to_owned());
        flags
    };
    let mut members: Vec<_> = (0..3).map(|i| Program::start(&flags(i))).collect();
    members.iter_mut().for_each(|member| drop(member.until(READY)));
    members[2].signal(Signal::TERM);
    members[2].ended();
    // It will be waited for.
    members[1].signal(Signal::STOP);
    let health = port + 6;
    let comparing = [
        "--feature-gates=InitialCorruptCheck=true".to_owned(),
        format!("--listen-metrics-urls=http://127.0.0.1:{health}"),
    ];
    members[2] = Program::start(&[&flags(2)[..], &comparing].concat());
    members[2].until("starting initial corruption check");
    assert!(page(health, "/livez").starts_with("HTTP/1.1 200 OK"));
    let ready = page(health, "/readyz?verbose");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.contains("[-]clients_served failed: clients are not served yet"), "{ready}");
    let lines = members[2].until(READY).concat();
    assert!(lines.contains("a member is not compared"), "{lines}");
    assert!(lines.contains(r#""compared":2,"members":3"#), "{lines}");
    let ready = page(health, "/readyz?verbose");
    assert!(ready.starts_with("HTTP/1.1 200 OK"), "{ready}");
    assert!(ready.contains("[+]clients_served ok"), "{ready}");
    members[1].signal(Signal::CONT);
}

/// All of the answer to a GET.
fn page(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}
