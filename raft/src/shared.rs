//! What every part of a node can reach, on every thread.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use holdfast_store::Fatal;
use tokio::sync::watch;

use crate::identity::Identity;
use crate::intake::{Intake, Ticket};
use crate::port::{Mail, Port, PortShared};
use crate::status::StatusCell;

pub(crate) struct Shared {
    pub(crate) identity: Identity,
    /// Drawn at this start; part of every proposal.
    pub(crate) nonce: u64,
    pub(crate) request_timeout: Duration,
    pub(crate) request_bytes_max: usize,
    pub(crate) intake: Intake,
    pub(crate) status: StatusCell,
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
    ) -> Self {
        Self {
            identity,
            nonce,
            request_timeout,
            request_bytes_max,
            intake: Intake::default(),
            status,
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

    /// Delivers answers, each port's as one list.
    pub(crate) fn post(&self, answers: Vec<(Ticket, Mail)>) {
        let mut lists: std::collections::BTreeMap<usize, Vec<Mail>> = Default::default();
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

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }
}
