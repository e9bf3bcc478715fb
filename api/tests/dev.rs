//! `holdfast dev`: starts, serves, stops, continues, and never leaves a process behind.

mod process;

use std::path::Path;
use std::time::{Duration, Instant};

use process::{PATIENCE, Program, free_ports, get, put};
use rustix::process::Signal;

const MEMBERS: u16 = 3;

fn start(folder: &Path, flags: &[String]) -> (Program, Vec<u32>) {
    let data = format!("--data-dir={}", folder.display());
    let arguments: Vec<String> =
        ["dev".to_owned(), data].into_iter().chain(flags.iter().cloned()).collect();
    let mut program = Program::start(&arguments);
    let lines = program.until("ready after");
    let ids = lines.iter().filter_map(|line| {
        let (_, rest) = line.split_once(" pid ")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    (program, ids.collect())
}

fn is_running(id: u32) -> bool {
    Path::new(&format!("/proc/{id}")).exists()
}

#[test]
fn a_local_cluster_serves_stops_and_continues() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = free_ports(2 * MEMBERS);
    let flags = [format!("--members={MEMBERS}"), format!("--base-port={base}")];
    let endpoint = |member: u16| format!("http://127.0.0.1:{}", base + 2 * member);

    let (mut program, members) = start(folder.path(), &flags);
    assert_eq!(members.len(), usize::from(MEMBERS));
    put(&endpoint(0), "key", "value");
    assert_eq!(get(&endpoint(2), "key").as_deref(), Some(&b"value"[..]));
    program.signal(Signal::TERM);
    let (status, lines) = program.ended();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    assert!(!members.into_iter().any(is_running));

    let (program, members) = start(folder.path(), &[]);
    assert_eq!(get(&endpoint(1), "key").as_deref(), Some(&b"value"[..]));
    program.signal(Signal::KILL);
    let deadline = Instant::now() + PATIENCE;
    while members.iter().copied().any(is_running) {
        assert!(Instant::now() < deadline, "members outlive the process that started them");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_port_in_use_ends_the_whole_cluster_with_its_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = free_ports(2 * MEMBERS);
    let _taken = std::net::TcpListener::bind(("127.0.0.1", base + 2)).expect("bound");
    let arguments = [
        "dev".to_owned(),
        format!("--data-dir={}", folder.path().display()),
        format!("--base-port={base}"),
    ];
    let (status, lines) = Program::start(&arguments).ended();
    assert_eq!(status.code(), Some(1), "{lines:#?}");
    let last = lines.iter().find(|line| line.contains("member m2 ended before it was ready"));
    assert!(last.is_some_and(|line| line.contains("in use")), "{lines:#?}");
}
