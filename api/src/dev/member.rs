//! One process of a local cluster: started, watched, stopped.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::plan::Plan;
use super::{DevelopmentError, Event, folder_error};

/// Tells a member who started it, so that it ends when that process does.
const PARENT_VARIABLE: &str = "HOLDFAST_DEV_PARENT";
/// How the variables begin that give a member its flags.
const FLAG_VARIABLES: &[u8] = b"ETCD_";
/// The text in a member's log by which it is known to serve.
const READY: &str = "ready to serve client requests";
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A member's process.
pub(super) struct Member {
    pub(super) name: String,
    child: Child,
    ended: Option<ExitStatus>,
    last_line: Arc<Mutex<String>>,
    copier: Option<JoinHandle<()>>,
}

impl Member {
    /// Starts this program as a member. It gets a process group of its own: Ctrl-C in a terminal
    /// must reach it through us, once.
    pub(super) fn start(
        plan: &Plan,
        number: usize,
        events: SyncSender<Event>,
    ) -> Result<Self, DevelopmentError> {
        let name = Plan::name(number);
        let path = plan.log(number);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(folder_error(&path))?;
        let failed = |source| DevelopmentError::Process { name: name.clone(), source };
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        // What is set for a member of its own would be set for all of these.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(FLAG_VARIABLES) {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(plan.flags(number))
            .envs([(PARENT_VARIABLE, std::process::id().to_string())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
        let last_line = Arc::<Mutex<String>>::default();
        let kept = Arc::clone(&last_line);
        let copier = thread::Builder::new()
            .name(format!("log of {name}"))
            .spawn(move || copy_log(stderr, log, &kept, || drop(events.send(Event::Ready(number)))))
            .map_err(failed)?;
        Ok(Self { name, child, ended: None, last_line, copier: Some(copier) })
    }

    pub(super) fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// How it ended, the first time this is asked after it did.
    pub(super) fn newly_ended(&mut self) -> Result<Option<String>, DevelopmentError> {
        if self.ended.is_some() {
            return Ok(None);
        }
        self.ended = self
            .child
            .try_wait()
            .map_err(|source| DevelopmentError::Process { name: self.name.clone(), source })?;
        Ok(self.ended.map(|status| status.to_string()))
    }

    /// The last line of its log, once it has ended.
    pub(super) fn last_line(&mut self) -> String {
        self.join_copier();
        self.last_line.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn ask_to_stop(&mut self) {
        if self.ended.is_none() {
            // It may have ended by itself a moment ago; the wait that follows finds out.
            let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }

    /// Waits for the end until `deadline`, then kills; says whether that was needed.
    pub(super) fn wait_or_kill(&mut self, deadline: Instant) -> bool {
        let mut killed = false;
        while self.ended.is_none() {
            match self.child.try_wait() {
                Ok(Some(status)) => self.ended = Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL_INTERVAL),
                Ok(None) | Err(_) => {
                    killed = true;
                    let _ = self.child.kill();
                    self.ended = self.child.wait().ok();
                    break;
                }
            }
        }
        self.join_copier();
        killed
    }

    fn join_copier(&mut self) {
        if let Some(copier) = self.copier.take() {
            let _ = copier.join();
        }
    }
}

fn copy_log(stderr: ChildStderr, mut log: File, last_line: &Mutex<String>, ready: impl Fn()) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        // A full disk must not stop the member that writes the line.
        let _ = writeln!(log, "{line}");
        if line.contains(READY) {
            ready();
        }
        *last_line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

/// In a member: asks the system for SIGTERM when the process that started it ends. Does nothing in
/// a process that no local cluster started.
pub fn follow_parent() -> io::Result<()> {
    let Ok(parent) = std::env::var(PARENT_VARIABLE) else { return Ok(()) };
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    // The parent may have ended before the system knew whom to watch.
    let actual = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().to_string());
    if actual.as_deref() == Some(&parent) {
        return Ok(());
    }
    Err(io::Error::other("the process that started this member has ended"))
}
