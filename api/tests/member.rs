//! One member as a process: its log, its signals, and data directories it must not touch.

mod process;

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
    let status = |port: u16| -> String {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connected");
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer.lines().next().expect("a status").to_owned()
    };
    assert_eq!(status(port), "HTTP/1.1 404 Not Found");
    assert_eq!(status(port + 2), "HTTP/1.1 200 OK");
}
