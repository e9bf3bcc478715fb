//! The clients: each with one request under way, writing values that nobody else writes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::client::Client;
use holdfast_jepsen::history::{Operation, Outcome, Record};

/// After a request that was not answered, a client waits so long before it tries another member.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// Where members are reached now, by their place in the cluster.
pub type Addresses = Rc<RefCell<Vec<String>>>;

/// What all clients share.
pub struct Shared {
    /// Where members are reached; changes when one is replaced.
    pub addresses: Addresses,
    /// How many keys there are.
    pub keys: u64,
    /// Against which all times are measured.
    pub began: Instant,
    /// Set when clients should finish the request they have under way and stop.
    pub stop: Rc<AtomicBool>,
    /// Every request so far.
    pub records: Rc<RefCell<Vec<Record>>>,
}

/// Runs client `number` until told to stop.
pub async fn run_client(shared: Rc<Shared>, number: usize, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
    let mut addresses = shared.addresses.borrow().clone();
    let mut clients =
        addresses.iter().map(|a| Client::new(a)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut member = number % clients.len();
    let mut known: BTreeMap<u64, i64> = BTreeMap::new();
    let mut writes = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let operation = choose(&mut random, &shared, number, &mut writes, &known);
        let invoked = nanoseconds(&shared);
        let outcome = clients[member].perform(operation).await;
        let completed = nanoseconds(&shared);
        let record = Record { client: number, operation, invoked, completed, outcome };
        shared.records.borrow_mut().push(record);
        remember(&mut known, operation, outcome);
        if outcome.revision().is_none() {
            member = (member + 1) % clients.len();
            let address = shared.addresses.borrow()[member].clone();
            if address != addresses[member] {
                clients[member] = Client::new(&address)?;
                addresses[member] = address;
            }
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }
    Ok(())
}

/// Half plain writes, a quarter guarded ones, a quarter reads.
fn choose(
    random: &mut StdRng,
    shared: &Shared,
    number: usize,
    writes: &mut u64,
    known: &BTreeMap<u64, i64>,
) -> Operation {
    let key = random.random_range(0..shared.keys);
    let kind = random.random_range(0..4);
    if kind == 0 {
        return Operation::Get { key };
    }
    *writes += 1;
    // Unique over all clients, and never 0.
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

fn nanoseconds(shared: &Shared) -> u64 {
    u64::try_from(shared.began.elapsed().as_nanos()).expect("a run lasts less than 500 years")
}
