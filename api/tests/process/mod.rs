//! What tests of the program as a process share: free ports, lines of output, and a client.

use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::{PutRequest, RangeRequest};
use rustix::process::{Pid, Signal};

/// Generous: other work may share the machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LINES_MAX: usize = 4096;

/// The program, running.
pub struct Program {
    pub child: Child,
    lines: Receiver<String>,
}

impl Program {
    /// Starts it and listens to its stderr (a member) or stdout (a local cluster).
    pub fn start(arguments: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("a pipe");
        let stderr = child.stderr.take().expect("a pipe");
        let (sender, lines) = sync_channel(LINES_MAX);
        for pipe in [Box::new(stdout) as Box<dyn Read + Send>, Box::new(stderr)] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines }
    }

    /// Lines up to the one that contains `text`.
    pub fn until(&mut self, text: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {text:?} came after {seen:#?}");
            };
            let found = line.contains(text);
            seen.push(line);
            if found {
                return seen;
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// How it ends, and the lines not yet read.
    pub fn ended(&mut self) -> (ExitStatus, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                let rest = std::iter::from_fn(|| self.lines.recv_timeout(PATIENCE).ok());
                return (status, rest.collect());
            }
            assert!(Instant::now() < deadline, "the program does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of `count` ports in a row that nobody listens on, different at every call.
pub fn free_ports(count: u16) -> u16 {
    // Below the range from which the system takes ports by itself, apart for each test process.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let window = 10_000 + u16::try_from(std::process::id() % 100).expect("small") * 200;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    std::iter::repeat_with(|| window + NEXT.fetch_add(count, Ordering::Relaxed) % (200 - count))
        .take(50)
        .find(|base| (*base..base + count).all(is_free))
        .expect("some ports are free")
}

/// Runs a request to its end.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

pub fn put(endpoint: &str, key: &'static str, value: &'static str) {
    run(async {
        let mut kv = KvClient::connect(endpoint.to_owned()).await.expect("connected");
        let request = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        kv.put(request).await.expect("put");
    });
}

pub fn get(endpoint: &str, key: &'static str) -> Option<Bytes> {
    run(async {
        let mut kv = KvClient::connect(endpoint.to_owned()).await.expect("connected");
        let request = RangeRequest { key: key.into(), ..Default::default() };
        let answer = kv.range(request).await.expect("get").into_inner();
        answer.kvs.first().map(|record| record.decode_message().expect("a record").value)
    })
}
