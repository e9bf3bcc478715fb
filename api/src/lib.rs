//! Holdfast's client side: etcd's gRPC services, the HTTP endpoints, and the server that runs them.
//!
//! A library beside its own binary, so that tests can start a server within their process. Knows
//! the wire; leaves replication to `holdfast-raft` and state to `holdfast-store`.

pub mod acceptor;
pub mod access;
pub mod admit;
pub mod alarm;
pub mod args;
pub mod auth;
pub mod bell;
pub mod bolt;
pub mod cluster;
pub mod compactor;
pub mod config;
pub mod convert;
pub mod dev;
pub mod discovery;
pub(crate) mod doors;
pub mod downgrade;
pub mod exit;
pub mod gateway;
pub mod grpc_health;
pub mod header;
pub mod http;
pub mod kv;
pub mod leader;
pub mod lease;
pub mod logging;
pub mod maintenance;
mod metrics;
pub mod net;
pub mod peers;
pub mod pool;
pub mod program;
pub mod recipes;
pub mod reflection;
pub mod rejection;
pub mod router;
pub mod rpc;
pub mod server;
pub mod services;
pub mod signals;
pub mod snapshot;
pub mod status;
pub mod systemd;
pub mod takeover;
pub mod throttle;
pub mod tls;
pub mod traces;
pub mod turns;
pub mod util;
pub mod version;
pub mod watch;
