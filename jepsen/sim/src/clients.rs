//! Clients inside the simulation: they use a member's port, reader and watch hub directly.
//!
//! Time in their records is a counter of observations, exact because one thread runs everything.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use holdfast_jepsen::history::{Change, Operation, Outcome, Record, Seen};
use holdfast_proto::mvccpb;
use holdfast_raft::{Node, Port, ProposeError};
use holdfast_store::command::{
    Change as Write, Command, Compare, CompareResult, CompareTarget, Operation as TxnOperation,
    OperationKind, Put, Range, Txn,
};
use holdfast_store::watch::{Delivery, StreamLimits, Wake, WatchSpec};
use holdfast_store::{Effort, Response, WatchStream};
use prost::Message as _;

use crate::world::{MEMBERS, World};

/// Keys that all clients share.
const KEYS: u64 = 8;
const PREFIX: &str = "k/";
/// After this a client gives a request up; its outcome is unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);
const STREAM_LIMITS: StreamLimits = StreamLimits { fragment_bytes: 1 << 20, queue_bytes: 64 << 10 };

/// What all clients share.
#[derive(Default)]
pub struct Shared {
    /// Set when clients should finish the request they have under way and stop.
    pub stop: Cell<bool>,
    /// Every request so far.
    pub records: RefCell<Vec<Record>>,
    clock: Cell<u64>,
}

impl Shared {
    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }
}

/// Runs client `number` until told to stop.
pub async fn run_client(world: Rc<World>, shared: Rc<Shared>, number: usize) {
    let mut known = BTreeMap::new();
    let mut writes = 0;
    let mut member = number % MEMBERS;
    let mut connection: Option<(u64, Node, Port)> = None;
    while !shared.stop.get() {
        tokio::time::sleep(Duration::from_millis(1 + world.choose(20))).await;
        let Some((boot, node)) = world.node(member) else {
            member = (member + 1) % MEMBERS;
            continue;
        };
        if connection.as_ref().is_none_or(|(held, ..)| *held != boot) {
            let port = node.port();
            connection = Some((boot, node, port));
        }
        let Some((_, node, port)) = &connection else { continue };
        let operation = choose(&world, number, &mut writes, &known);
        let invoked = shared.tick();
        let performed = tokio::time::timeout(REQUEST_TIMEOUT, perform(node, port, operation)).await;
        let outcome = performed.unwrap_or(Outcome::Unknown);
        let completed = shared.tick();
        let record = Record { client: number, operation, invoked, completed, outcome };
        world.trace.note(format_args!("{record:?}"));
        shared.records.borrow_mut().push(record);
        remember(&mut known, operation, outcome);
        if outcome.revision().is_none() {
            member = (member + 1) % MEMBERS;
            connection = None;
        }
    }
}

fn choose(world: &World, number: usize, writes: &mut u64, known: &BTreeMap<u64, i64>) -> Operation {
    let key = world.choose(KEYS);
    let kind = world.choose(4);
    if kind == 0 {
        return Operation::Get { key };
    }
    *writes += 1;
    let value = ((number as u64 + 1) << 40) | *writes;
    match (kind, known.get(&key)) {
        (1, Some(expected)) => Operation::CompareAndSet { key, expected: *expected, value },
        _ => Operation::Put { key, value },
    }
}

fn remember(known: &mut BTreeMap<u64, i64>, operation: Operation, outcome: Outcome) {
    match (operation, outcome) {
        (
            Operation::Put { key, .. } | Operation::CompareAndSet { key, .. },
            Outcome::Written { revision },
        ) => {
            known.insert(key, revision);
        }
        (Operation::Get { key }, Outcome::Read { seen, .. }) => {
            known.insert(key, seen.map_or(0, |seen| seen.mod_revision));
        }
        _ => {}
    }
}

async fn perform(node: &Node, port: &Port, operation: Operation) -> Outcome {
    match operation {
        Operation::Get { key } => read(node, port, key).await,
        Operation::Put { key, value } => propose(port, Write::Put(put(key, value))).await,
        Operation::CompareAndSet { key, expected, value } => {
            let guard = Compare {
                result: CompareResult::Equal as i32,
                key: name(key),
                range_end: Bytes::new(),
                target: Some(CompareTarget::ModRevision(expected)),
            };
            let success = TxnOperation { kind: Some(OperationKind::Put(put(key, value))) };
            let txn = Txn { compare: vec![guard], success: vec![success], failure: Vec::new() };
            propose(port, Write::Txn(txn)).await
        }
    }
}

async fn propose(port: &Port, change: Write) -> Outcome {
    match port.propose(Command::from(change)).await {
        Ok(applied) => {
            let revision = applied.outcome.revision;
            match applied.outcome.result {
                Ok(Response::Txn { succeeded: false, .. }) => Outcome::Conflict { revision },
                Ok(_) => Outcome::Written { revision },
                Err(_) => Outcome::Failed,
            }
        }
        Err(ProposeError::TooManyRequests | ProposeError::TooLarge | ProposeError::NoSpace) => {
            Outcome::Failed
        }
        Err(_) => Outcome::Unknown,
    }
}

async fn read(node: &Node, port: &Port, key: u64) -> Outcome {
    if port.read_barrier().await.is_err() {
        return Outcome::Failed;
    }
    let range = Range { key: name(key), ..Default::default() };
    let Ok((revision, result)) = node.reader().range(&range, Effort::Blocking) else {
        return Outcome::Failed;
    };
    let seen = result.records.first().map(|record| {
        let version = mvccpb::KeyValue::decode(record.clone()).expect("records decode");
        Seen { value: number(&version.value), mod_revision: version.mod_revision }
    });
    Outcome::Read { revision, seen }
}

fn put(key: u64, value: u64) -> Put {
    Put { key: name(key), value: value.to_string().into(), ..Default::default() }
}

fn name(key: u64) -> Bytes {
    format!("{PREFIX}{key}").into()
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Wakes a task when a stream has something new.
#[derive(Default)]
struct Bell(tokio::sync::Notify);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify_one();
    }
}

struct Watch {
    stream: WatchStream,
    bell: Arc<Bell>,
}

impl Watch {
    fn open(node: &Node, start: i64) -> Self {
        let bell = Arc::new(Bell::default());
        let stream = node.hub().open_stream(bell.clone(), STREAM_LIMITS);
        stream.create(WatchSpec {
            key: PREFIX.into(),
            range_end: "k0".into(),
            start_revision: start,
            ..Default::default()
        });
        Self { stream, bell }
    }

    /// What has come by now; waits at most `patience` if that is nothing.
    async fn receive(&self, patience: Duration, into: &mut Vec<Change>) -> anyhow::Result<()> {
        let before = into.len();
        while let Some(delivery) = self.stream.next(1 << 20) {
            match delivery {
                Delivery::Events { events, .. } => {
                    for event in events {
                        into.push(change(&event)?);
                    }
                }
                Delivery::Created { .. } | Delivery::Progress { .. } => {}
                other => bail!("the watch ended: {other:?}"),
            }
        }
        if into.len() == before {
            let _ = tokio::time::timeout(patience, self.bell.0.notified()).await;
        }
        Ok(())
    }
}

fn change(event: &Bytes) -> anyhow::Result<Change> {
    let event = mvccpb::Event::decode(event.clone())?;
    let version = event.kv.context("an event without its key")?;
    let key = number(&version.key[PREFIX.len()..]);
    Ok(Change { revision: version.mod_revision, key, value: number(&version.value) })
}

/// Follows all changes, resuming at another member when one crashes.
pub async fn follow(
    world: Rc<World>,
    shared: Rc<Shared>,
    first: usize,
) -> anyhow::Result<Vec<Change>> {
    let mut received: Vec<Change> = Vec::new();
    let mut member = first;
    while !shared.stop.get() {
        member = (member + 1) % MEMBERS;
        let Some((boot, node)) = world.node(member) else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let start = received.last().map_or(1, |change| change.revision + 1);
        let watch = Watch::open(&node, start);
        while !shared.stop.get() && world.node(member).is_some_and(|(now, _)| now == boot) {
            watch.receive(Duration::from_millis(100), &mut received).await?;
        }
    }
    Ok(received)
}

/// Reads back every change up to `revision` from one member.
pub async fn all_changes(node: &Node, revision: i64) -> anyhow::Result<Vec<Change>> {
    let mut received: Vec<Change> = Vec::new();
    let watch = Watch::open(node, 1);
    for _ in 0..600 {
        watch.receive(Duration::from_millis(100), &mut received).await?;
        if received.last().map_or(1, |change| change.revision) >= revision {
            return Ok(received);
        }
    }
    bail!("a watch from the beginning stops at {:?} of {revision}", received.last())
}
