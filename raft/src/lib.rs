//! Replication: openraft wrapped once, with its log, its peers, and what a member does with both.
//!
//! The only crate that names openraft. It promises that an acknowledged write is on the disks of a
//! quorum, that a refused one never happens, and that anything in between is called unknown.

mod apart;
mod apply;
mod barrier;
mod check;
mod checkpoint;
mod claim;
mod config;
mod counts;
mod desk;
mod directory;
mod divergence;
mod entry;
mod error;
mod founding;
mod handover;
pub mod identity;
mod intake;
mod keeper;
mod lease;
mod leave;
mod level;
pub mod limits;
mod log;
mod log_facts;
mod machine;
mod members;
mod node;
mod observe;
mod peer;
mod port;
mod propose;
mod purge;
mod read_index;
mod receive;
mod responder;
mod room;
mod rot;
mod runtime;
mod shared;
mod sole;
mod space;
mod stall;
mod status;
pub mod types;
pub mod wal;
mod work;

pub use check::{Checked, check};
pub use config::{
    ClusterState, Connect, Connection, Discover, InitialCluster, Io, Listen, NodeConfig, Plants,
    Seams, Workers,
};
pub use counts::{LogSize, NodeCounts, PeerCounts};
pub use entry::{Batch, BatchBuilder, LogEntry, Proposal, encode_proposal};
pub use error::{
    LeaseError, MemberError, MemberRefusal, OpenError, ProposeError, ReadBarrierError,
};
pub use founding::{Founded, Founding};
pub use identity::Identity;
pub use node::{Member, Node};
pub use peer::{TcpConnect, TcpListen};
pub use port::{Applied, Port, TimeToLive};
pub use responder::{Dropped, Follow, WriteResponder};
pub use room::reserve_bytes;
pub use runtime::{generator, seed_thread};
pub use status::Status;
