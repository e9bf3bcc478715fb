//! The servers under measurement: started as processes with equal flags, stopped, started again.

use std::fs::OpenOptions;
use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::client;
use crate::process::{self, Memory};

const READY_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Real etcd.
    Etcd,
    /// This project's server.
    Holdfast,
    /// A server that does nothing.
    Floor,
    /// A server that appends to one file and waits for the disk.
    FloorWithWal,
}

impl Kind {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Holdfast => "holdfast",
            Self::Floor => "floor",
            Self::FloorWithWal => "floor+wal",
        }
    }
}

/// A program and how to start it.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is.
    pub kind: Kind,
    /// Its binary.
    pub program: PathBuf,
    /// Flags beyond those that every member gets.
    pub flags: Vec<String>,
}

/// Running members. Dropping it kills them and removes their data.
pub struct Cluster {
    target: Target,
    members: Vec<Member>,
    folder: TempDir,
}

struct Member {
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
}

impl Member {
    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }
}

impl Cluster {
    /// Starts `size` members and waits until each serves.
    pub fn start(target: &Target, size: usize, scratch: &Path) -> Result<Self> {
        let mut cluster = Self::plan(target, size, scratch)?;
        cluster.launch()?;
        Ok(cluster)
    }

    /// A cluster of `size` members, none of which runs yet.
    pub fn plan(target: &Target, size: usize, scratch: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(target.kind.name()).tempdir_in(scratch)?;
        let ports = free_ports(2 * size)?;
        let members = ports
            .chunks(2)
            .map(|pair| Member { client_port: pair[0], peer_port: pair[1], child: None })
            .collect();
        Ok(Self { target: target.clone(), members, folder })
    }

    /// Starts all members; returns how long it took until all served.
    pub fn launch(&mut self) -> Result<Duration> {
        self.launch_some(0..self.members.len())
    }

    /// Starts members that are stopped; returns how long it took until they served, which means
    /// that they answered a linearizable read.
    pub fn launch_some(&mut self, numbers: Range<usize>) -> Result<Duration> {
        let started = Instant::now();
        for number in numbers.clone() {
            let child = self.spawn(number)?;
            self.members[number].child = Some(child);
        }
        let runtime = client::runtime()?;
        for number in numbers {
            let endpoint = self.members[number].endpoint();
            let deadline = Instant::now() + READY_TIMEOUT;
            let ready = client::until_ready(&endpoint, deadline, || self.check_alive());
            runtime.block_on(ready).with_context(|| {
                format!("{} did not start; its log:\n{}", self.target.kind.name(), self.log_tail())
            })?;
        }
        Ok(started.elapsed())
    }

    /// Asks all members to stop and waits for them.
    pub fn stop(&mut self) -> Result<()> {
        for member in &self.members {
            if let Some(child) = &member.child {
                rustix::process::kill_process(Pid::from_child(child), Signal::TERM)?;
            }
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        for member in &mut self.members {
            let Some(child) = &mut member.child else { continue };
            while child.try_wait()?.is_none() {
                ensure!(Instant::now() < deadline, "a member does not stop");
                std::thread::sleep(POLL_INTERVAL);
            }
            member.child = None;
        }
        Ok(())
    }

    /// Client URLs of all members that run.
    pub fn endpoints(&self) -> Vec<String> {
        let running = self.members.iter().filter(|member| member.child.is_some());
        running.map(Member::endpoint).collect()
    }

    /// Process ids of all members.
    pub fn processes(&self) -> Vec<u32> {
        self.members.iter().filter_map(|member| Some(member.child.as_ref()?.id())).collect()
    }

    /// Memory of all members together.
    pub fn memory(&self) -> Result<Memory> {
        process::memory(&self.processes())
    }

    fn check_alive(&mut self) -> Result<()> {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            if let Some(status) = child.try_wait()? {
                bail!("a member ended ({status})");
            }
        }
        Ok(())
    }

    fn spawn(&self, number: usize) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(number))?;
        let mut command = Command::new(&self.target.program);
        match self.target.kind {
            Kind::Floor | Kind::FloorWithWal => self.floor_arguments(number, &mut command),
            Kind::Etcd | Kind::Holdfast => self.member_arguments(number, &mut command),
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.target.program.display()))
    }

    fn floor_arguments(&self, number: usize, command: &mut Command) {
        command.arg("floor").arg(format!("--port={}", self.members[number].client_port));
        if self.target.kind == Kind::FloorWithWal {
            command.arg("--wal").arg(self.folder.path().join(format!("wal{number}")));
        }
    }

    fn member_arguments(&self, number: usize, command: &mut Command) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(other, member)| format!("m{other}={}", url(member.peer_port)))
            .collect();
        let member = &self.members[number];
        command
            .arg(format!("--name=m{number}"))
            .arg(format!("--data-dir={}", self.folder.path().join(format!("m{number}")).display()))
            .arg(format!("--listen-client-urls={}", url(member.client_port)))
            .arg(format!("--advertise-client-urls={}", url(member.client_port)))
            .arg(format!("--listen-peer-urls={}", url(member.peer_port)))
            .arg(format!("--initial-advertise-peer-urls={}", url(member.peer_port)))
            .arg(format!("--initial-cluster={}", cluster.join(",")))
            .arg("--log-level=warn")
            .args(&self.target.flags);
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("m{number}.log"))
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log(0)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            // Whoever has ended already cannot be killed, and need not be.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports nobody listens on now. All are held until all are found, so that they differ.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<io::Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Holdfast's binary: the one given, or the one beside this program.
pub fn holdfast_binary(given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("holdfast"),
    };
    if !path.is_file() {
        bail!("{}: no such file; cargo build --release -p holdfast makes it", path.display());
    }
    Ok(path)
}

/// The folder for data: the one given, or a place under the system's folder for temporary files.
pub fn scratch_folder(given: Option<&Path>) -> Result<PathBuf> {
    let path = given.map_or_else(|| std::env::temp_dir().join("holdfast-bench"), Path::to_owned);
    std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}
