//! What every part of a node can reach, on every thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use holdfast_store::{Fatal, Reader};
use tokio::sync::watch;

use crate::counts::NodeCounts;
use crate::error::ProposeError;
use crate::identity::{Identity, Own};
use crate::intake::{Intake, Ticket};
use crate::port::{Mail, Port, PortShared};
use crate::room::Gauge;
use crate::sole::SoleMember;
use crate::status::StatusCell;
use crate::types::StoredMembership;

pub(crate) struct Shared {
    pub(crate) identity: Own,
    /// Drawn at this start; part of every proposal.
    pub(crate) nonce: u64,
    pub(crate) request_timeout: Duration,
    pub(crate) request_bytes_max: usize,
    pub(crate) intake: Intake,
    pub(crate) status: StatusCell,
    pub(crate) reader: Reader,
    pub(crate) gauge: Gauge,
    pub(crate) sole: Arc<SoleMember>,
    pub(crate) counts: Arc<NodeCounts>,
    membership: Mutex<Arc<StoredMembership>>,
    applied_membership: Mutex<Arc<StoredMembership>>,
    /// The index of the newest checkpoint installed, 0 for none.
    checkpoint: watch::Sender<u64>,
    incarnations: Mutex<BTreeMap<u64, u64>>,
    /// Whether this member is known to have been removed.
    dismissed: watch::Sender<bool>,
    stopped: AtomicBool,
    ports: Mutex<Vec<Weak<PortShared>>>,
    failure: watch::Sender<Option<Fatal>>,
}

impl Shared {
    pub(crate) fn new(
        identity: Identity,
        nonce: u64,
        request_timeout: Duration,
        request_bytes_max: usize,
        status: StatusCell,
        reader: Reader,
        gauge: Gauge,
    ) -> Self {
        Self {
            identity: identity.into(),
            nonce,
            request_timeout,
            request_bytes_max,
            intake: Intake::default(),
            status,
            reader,
            gauge,
            sole: Arc::new(SoleMember::new(identity.member_id)),
            counts: Arc::default(),
            membership: Mutex::default(),
            applied_membership: Mutex::default(),
            checkpoint: watch::Sender::new(0),
            incarnations: Mutex::default(),
            dismissed: watch::Sender::new(false),
            stopped: AtomicBool::new(false),
            ports: Mutex::default(),
            failure: watch::Sender::new(None),
        }
    }

    /// A port for the calling runtime.
    pub(crate) fn open_port(self: &Arc<Self>) -> Port {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        // Numbers are not used again: late answers to a closed port must find nobody.
        let (port, weak) = Port::open(ports.len(), self.clone());
        ports.push(weak);
        port
    }

    fn port(&self, number: usize) -> Option<Arc<PortShared>> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.get(number).and_then(Weak::upgrade)
    }

    /// How many proposals of this member wait for their outcome.
    pub(crate) fn proposals_waiting(&self) -> usize {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ports.iter().filter_map(Weak::upgrade).map(|port| port.proposals_waiting()).sum()
    }

    /// Delivers answers, each port's as one list.
    pub(crate) fn post(&self, answers: Vec<(Ticket, Mail)>) {
        let mut lists: BTreeMap<usize, Vec<Mail>> = BTreeMap::new();
        for (ticket, mail) in answers {
            lists.entry(ticket.port()).or_default().push(mail);
        }
        for (number, list) in lists {
            self.post_to(number, list);
        }
    }

    /// Delivers a list to one port; a port that is gone has nobody waiting.
    pub(crate) fn post_to(&self, number: usize, list: Vec<Mail>) {
        if let Some(port) = self.port(number) {
            port.post(list);
        }
    }

    /// Tells those who wait for entries that a checkpoint has skipped: their fate is unknown.
    pub(crate) fn post_skipped(&self, tickets: Vec<Ticket>) {
        let answer = |ticket| (ticket, Mail::Proposal(ticket, Err(ProposeError::TimedOut)));
        self.post(tickets.into_iter().map(answer).collect());
    }

    /// Entries at or below `index` were replaced by a checkpoint.
    pub(crate) fn checkpoint_installed(&self, index: u64) {
        self.checkpoint.send_replace(index);
    }

    /// Tells of every checkpoint installed.
    pub(crate) fn checkpoints(&self) -> watch::Receiver<u64> {
        self.checkpoint.subscribe()
    }

    /// The level to stamp on entries.
    pub(crate) fn level(&self) -> u32 {
        self.reader.level()
    }

    /// The membership in force, committed or not.
    pub(crate) fn membership(&self) -> Arc<StoredMembership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_membership(&self, membership: Arc<StoredMembership>) {
        *self.membership.lock().unwrap_or_else(PoisonError::into_inner) = membership;
    }

    /// The membership that is applied, and so committed.
    pub(crate) fn applied_membership(&self) -> Arc<StoredMembership> {
        self.applied_membership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_applied_membership(&self, membership: StoredMembership) {
        let membership = Arc::new(membership);
        *self.applied_membership.lock().unwrap_or_else(PoisonError::into_inner) = membership;
    }

    /// Whether a member has been removed, and so is refused for ever.
    pub(crate) fn is_removed(&self, member: u64) -> bool {
        self.reader.removed_members().contains(&member)
    }

    /// This member has been removed.
    pub(crate) fn dismiss(&self) {
        self.dismissed.send_replace(true);
    }

    /// Tells whether this member has been removed.
    pub(crate) fn dismissed(&self) -> watch::Receiver<bool> {
        self.dismissed.subscribe()
    }

    /// Where a member is reached.
    pub(crate) fn peer_urls(&self, member: u64) -> Option<Vec<String>> {
        self.membership().get_node(&member).map(|node| node.peer_urls.clone())
    }

    /// Wakes every port, to find the intake closed.
    pub(crate) fn wake_ports(&self) {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for port in ports.iter().filter_map(Weak::upgrade) {
            port.ring();
        }
    }

    /// Records why this member cannot go on; the first reason stands.
    pub(crate) fn fail(&self, fatal: Fatal) {
        self.failure.send_if_modified(|known| {
            if known.is_some() {
                return false;
            }
            tracing::error!(reason = %fatal, "this member cannot go on");
            *known = Some(fatal);
            true
        });
    }

    /// Why this member cannot go on, once that is so.
    pub(crate) async fn failure(&self) -> Fatal {
        let mut failure = self.failure.subscribe();
        let known = failure.wait_for(Option::is_some).await.expect("the sender is in self");
        known.clone().expect("waited for")
    }

    /// From now on nothing is taken in, and whatever stops has been asked to.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.sole.lost();
        self.intake.close();
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Takes over what the members have published.
    pub(crate) fn look_at_members(&self) {
        let members = self.reader.members();
        let incarnations = members.iter().map(|m| (m.member, m.incarnation)).collect();
        *self.incarnations.lock().unwrap_or_else(PoisonError::into_inner) = incarnations;
    }

    /// The incarnation that the cluster has committed for a member.
    pub(crate) fn committed_incarnation(&self, member: u64) -> Option<u64> {
        let known = self.incarnations.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&member).copied()
    }
}
