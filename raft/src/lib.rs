//! Replication: openraft wrapped once, with its log, its peers, and what a member does with both.
//!
//! The only crate that names openraft. It promises that an acknowledged write is on the disks of a
//! quorum, that a refused one never happens, and that anything in between is called unknown.

#![allow(dead_code)]

mod config;
mod entry;
mod error;
pub mod identity;
mod intake;
pub mod limits;
mod node;
mod port;
mod responder;
mod runtime;
mod shared;
mod status;
pub mod types;

pub use config::{ClusterState, Connect, Connection, Io, Listen, NodeConfig, Seams, Workers};
pub use entry::{Batch, BatchBuilder, LogEntry, Proposal, encode_proposal};
pub use error::{LeaseError, OpenError, ProposeError, ReadBarrierError};
pub use identity::Identity;
pub use node::{Member, Node};
pub use port::{Applied, Port, TimeToLive};
pub use responder::{Dropped, WriteResponder};
pub use runtime::{generator, seed_thread};
pub use status::Status;
