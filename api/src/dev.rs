//! `holdfast dev`: a local cluster of real processes, this program once per member.
//!
//! Everything lies under one folder; the same folder continues the cluster. A member that dies is
//! reported and not restarted, so that one can be killed on purpose. When this process ends, in
//! whatever way, its members end too.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::args::Settings;
use crate::signals;

mod member;
mod plan;

use member::Member;
pub use member::follow_parent;
use plan::Plan;

const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// After this long, members that were asked to stop are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// More events than all members and signals together can have under way.
const EVENTS_MAX: usize = 64;

/// Why the cluster did not run, or how it ended badly.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    /// The flags do not describe a cluster.
    #[error("{0}")]
    Plan(String),
    /// The folder cannot be used.
    #[error("{path}: {source}")]
    Folder {
        /// What was read or written.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A process cannot be started or watched.
    #[error("member {name}: {source}")]
    Process {
        /// The member.
        name: String,
        /// The reason.
        source: io::Error,
    },
    /// A member ended before the cluster served.
    #[error("member {name} ended before it was ready ({status}); its last line: {last_line}")]
    NotReady {
        /// The member.
        name: String,
        /// How it ended.
        status: String,
        /// What it said last.
        last_line: String,
    },
    /// Every member has ended by itself.
    #[error("every member has ended; their logs are in {0}")]
    AllEnded(PathBuf),
    /// Members had to be killed.
    #[error("members that did not stop within {STOP_TIMEOUT:?} were killed: {0}")]
    Killed(String),
    /// Signals cannot be handled.
    #[error("signals: {0}")]
    Signals(io::Error),
}

/// What happens while the cluster runs.
#[derive(Debug)]
enum Event {
    /// The member with this number serves clients.
    Ready(usize),
    /// Somebody asked for the end.
    Stop,
}

/// Runs a cluster until a signal asks for its end.
pub fn run(settings: &Settings) -> Result<(), DevelopmentError> {
    let plan = Plan::make(settings)?;
    let (events, incoming) = sync_channel(EVENTS_MAX);
    let stop = events.clone();
    signals::on_stop(move |_| drop(stop.send(Event::Stop))).map_err(DevelopmentError::Signals)?;
    let mut cluster = Cluster::start(&plan, &events)?;
    let ended = cluster.attend(&plan, &incoming);
    let stopped = cluster.stop();
    ended.and(stopped)
}

/// The processes.
struct Cluster {
    members: Vec<Member>,
    folder: PathBuf,
}

impl Cluster {
    fn start(plan: &Plan, events: &SyncSender<Event>) -> Result<Self, DevelopmentError> {
        let mut cluster = Self { members: Vec::new(), folder: plan.folder.clone() };
        for number in 0..plan.members() {
            match Member::start(plan, number, events.clone()) {
                Ok(member) => cluster.members.push(member),
                Err(error) => return cluster.stop().and(Err(error)),
            }
        }
        Ok(cluster)
    }

    /// Until the end is asked for, or nobody is left.
    fn attend(&mut self, plan: &Plan, incoming: &Receiver<Event>) -> Result<(), DevelopmentError> {
        let started = Instant::now();
        let mut waiting: Vec<usize> = (0..self.members.len()).collect();
        announce(plan, &self.members);
        loop {
            match incoming.recv_timeout(POLL_INTERVAL) {
                Ok(Event::Stop) => return Ok(()),
                Ok(Event::Ready(number)) if waiting.contains(&number) => {
                    waiting.retain(|other| *other != number);
                    if waiting.is_empty() {
                        announce_ready(plan, started.elapsed());
                    }
                }
                Ok(Event::Ready(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.look_after(&waiting)?;
        }
    }

    fn look_after(&mut self, waiting: &[usize]) -> Result<(), DevelopmentError> {
        for (number, member) in self.members.iter_mut().enumerate() {
            let Some(status) = member.newly_ended()? else { continue };
            if waiting.contains(&number) {
                return Err(DevelopmentError::NotReady {
                    name: member.name.clone(),
                    status,
                    last_line: member.last_line(),
                });
            }
            say(&format!("member {} ended ({status})", member.name));
        }
        if self.members.iter().all(Member::has_ended) {
            return Err(DevelopmentError::AllEnded(self.folder.clone()));
        }
        Ok(())
    }

    /// Asks all members to stop and waits for them.
    fn stop(&mut self) -> Result<(), DevelopmentError> {
        self.members.iter_mut().for_each(Member::ask_to_stop);
        let deadline = Instant::now() + STOP_TIMEOUT;
        let killed: Vec<String> = self
            .members
            .iter_mut()
            .filter_map(|member| member.wait_or_kill(deadline).then(|| member.name.clone()))
            .collect();
        if killed.is_empty() { Ok(()) } else { Err(DevelopmentError::Killed(killed.join(", "))) }
    }
}

fn announce(plan: &Plan, members: &[Member]) {
    say(&format!("a cluster of {} in {}", plan.members(), plan.folder.display()));
    for (number, member) in members.iter().enumerate() {
        say(&format!(
            "  {}  {}  pid {}  log {}",
            member.name,
            plan.client_url(number),
            member.process_id(),
            plan.log(number).display()
        ));
    }
}

fn announce_ready(plan: &Plan, after: Duration) {
    say(&format!("ready after {:.1} s", after.as_secs_f64()));
    say(&format!("  etcdctl --endpoints={} endpoint status", plan.endpoints()));
    say("Ctrl-C stops it; the same folder continues it");
}

/// One line on stdout. A closed stdout is no reason to stop the cluster.
fn say(line: &str) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{line}");
    let _ = output.flush();
}

fn folder_error(path: &Path) -> impl FnOnce(io::Error) -> DevelopmentError {
    let path = path.to_owned();
    move |source| DevelopmentError::Folder { path, source }
}
