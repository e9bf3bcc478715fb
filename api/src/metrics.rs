//! Metrics under etcd's names, types, labels and buckets, and a few of our own.
//!
//! Counters live where things happen: in the store, in the node, and in each connection runtime
//! (`metrics/tally.rs`); they are only read here. What etcd measures and this server has nothing
//! of is left out, so that no panel shows a zero that means "unknown".

pub(crate) mod methods;
mod process;
pub(crate) mod tally;
mod text;

use holdfast_raft::{NodeCounts, PeerCounts};
use holdfast_store::measure::Distribution;

use crate::maintenance::{self, minor_version};
use crate::services::Shared;
use crate::version::HOLDFAST_VERSION;
use methods::CODES;
use tally::{MethodSums, Sums};
use text::{Kind, Text};

/// Everything, as text.
pub(crate) fn render(shared: &Shared) -> String {
    let mut text = Text::default();
    let sums = shared.tallies.sum();
    server(&mut text, shared);
    members(&mut text, shared, &sums);
    alarms(&mut text, shared);
    disk(&mut text, shared);
    mvcc(&mut text, shared, &sums);
    leases(&mut text, shared);
    peers(&mut text, shared);
    calls(&mut text, &sums);
    process::write(&mut text);
    ours(&mut text, shared);
    text.finish()
}

fn server(text: &mut Text, shared: &Shared) {
    let status = shared.node.status();
    let counts = shared.node.counts();
    text.gauge("etcd_server_has_leader", u8::from(status.leader.is_some()));
    text.gauge("etcd_server_is_leader", u8::from(status.is_leader));
    text.gauge("etcd_server_is_learner", u8::from(status.is_learner));
    text.counter("etcd_server_leader_changes_seen_total", counts.leader_changes.get());
    text.gauge("etcd_server_proposals_committed_total", status.committed_index);
    text.gauge("etcd_server_proposals_applied_total", status.applied_index);
    text.gauge("etcd_server_proposals_pending", shared.node.proposals_waiting());
    text.counter("etcd_server_proposals_failed_total", counts.proposals_failed.get());
    text.counter("etcd_server_heartbeat_send_failures_total", counts.heartbeat_failures.get());
    text.counter("etcd_server_slow_apply_total", counts.slow_applies.get());
    text.counter("etcd_server_slow_read_indexes_total", counts.slow_read_indexes.get());
    text.counter("etcd_server_read_indexes_failed_total", counts.read_indexes_failed.get());
    text.gauge("etcd_server_quota_backend_bytes", maintenance::quota_bytes(shared));
    labelled(text, "etcd_server_id", "server_id", &hex(shared.node.identity().member_id));
    labelled(text, "etcd_server_version", "server_version", shared.etcd_version);
    let minor = minor_version(shared.etcd_version);
    let minor = minor.strip_suffix(".0").unwrap_or(&minor);
    labelled(text, "etcd_cluster_version", "cluster_version", minor);
}

/// A gauge that is always 1: what counts is its label.
fn labelled(text: &mut Text, name: &str, label: &str, value: &str) {
    text.family(name, Kind::Gauge);
    text.sample(name, &[(label, value)], 1);
}

fn hex(member: u64) -> String {
    format!("{member:x}")
}

fn members(text: &mut Text, shared: &Shared, sums: &Sums) {
    let local = hex(shared.node.identity().member_id);
    let name = "etcd_network_known_peers";
    text.family(name, Kind::Gauge);
    for member in shared.node.members() {
        text.sample(name, &[("Local", &local), ("Remote", &hex(member.id))], 1);
    }
    let promoted = sums.methods.iter().find(|(m, _)| m.path() == PROMOTE);
    let Some((_, promoted)) = promoted else { return };
    text.counter("etcd_server_learner_promote_successes", promoted.handled[0]);
    let name = "etcd_server_learner_promote_failures";
    text.family(name, Kind::Counter);
    for (code, count) in CODES.iter().zip(promoted.handled).skip(1).filter(|(_, n)| *n > 0) {
        text.sample(name, &[("Reason", code)], count);
    }
}

const PROMOTE: &str = "/etcdserverpb.Cluster/MemberPromote";

fn disk(text: &mut Text, shared: &Shared) {
    let counts = shared.node.counts();
    let mut histogram = |name: &str, measured: &Distribution| {
        text.family(name, Kind::Histogram);
        text.histogram(name, &[], measured);
    };
    histogram("etcd_disk_wal_fsync_duration_seconds", &counts.wal_fsync.distribution());
    histogram("etcd_disk_backend_commit_duration_seconds", &counts.commit.distribution());
    text.gauge("etcd_disk_wal_write_bytes_total", shared.node.log_size().written_bytes);
    text.gauge("etcd_disk_defrag_inflight", 0);
}

fn alarms(text: &mut Text, shared: &Shared) {
    let name = "etcd_debugging_server_alarms";
    text.family(name, Kind::Gauge);
    for alarm in shared.node.reader().alarms() {
        let member = hex(alarm.member);
        text.sample(name, &[("server_id", &member), ("alarm_type", alarm.kind.name())], 1);
    }
}

fn mvcc(text: &mut Text, shared: &Shared, sums: &Sums) {
    let reader = shared.node.reader();
    let counts = reader.counts();
    let sizes = maintenance::sizes(reader);
    text.gauge("etcd_mvcc_db_total_size_in_bytes", sizes.total_bytes);
    text.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", sizes.in_use_bytes);
    text.counter("etcd_mvcc_range_total", sums.ranges + counts.ranges.get());
    text.counter("etcd_mvcc_put_total", counts.puts.get());
    text.counter("etcd_mvcc_delete_total", counts.deletes.get());
    text.counter("etcd_mvcc_txn_total", counts.txns.get());
    text.gauge("etcd_debugging_mvcc_total_put_size_in_bytes", counts.put_bytes.get());
    text.gauge("etcd_debugging_mvcc_keys_total", reader.keys());
    text.gauge("etcd_debugging_mvcc_current_revision", reader.revision());
    text.gauge("etcd_debugging_mvcc_compact_revision", reader.compacted());
    let watch = shared.node.hub().counts();
    text.gauge("etcd_debugging_mvcc_watch_stream_total", watch.streams);
    text.gauge("etcd_debugging_mvcc_watcher_total", watch.watchers);
    text.gauge("etcd_debugging_mvcc_slow_watcher_total", watch.behind);
    text.counter("etcd_debugging_mvcc_events_total", sums.events);
}

fn leases(text: &mut Text, shared: &Shared) {
    let counts = shared.node.reader().counts();
    text.counter("etcd_debugging_lease_granted_total", counts.leases_granted.get());
    text.counter("etcd_debugging_lease_revoked_total", counts.leases_revoked.get());
    let renewed = shared.node.counts().leases_renewed.get();
    text.counter("etcd_debugging_lease_renewed_total", renewed);
    text.counter("etcd_debugging_server_lease_expired_total", counts.leases_expired.get());
}

fn peers(text: &mut Text, shared: &Shared) {
    let me = shared.node.identity().member_id;
    let mut peers = NodeCounts::peers(shared.node.counts());
    peers.retain(|(member, _)| *member != me);
    let mut counter = |name: &str, label: &str, count: fn(&PeerCounts) -> u64| {
        text.family(name, Kind::Counter);
        for (member, counts) in &peers {
            text.sample(name, &[(label, &hex(*member))], count(counts));
        }
    };
    counter("etcd_network_peer_sent_bytes_total", "To", |peer| peer.sent_bytes.get());
    counter("etcd_network_peer_received_bytes_total", "From", |peer| peer.received_bytes.get());
    counter("etcd_network_peer_sent_failures_total", "To", |peer| peer.sent_failures.get());
    let name = "etcd_network_peer_round_trip_time_seconds";
    text.family(name, Kind::Histogram);
    for (member, counts) in &peers {
        text.histogram(name, &[("To", &hex(*member))], &counts.round_trip.distribution());
    }
}

fn calls(text: &mut Text, sums: &Sums) {
    text.counter("etcd_network_client_grpc_sent_bytes_total", sums.sent_bytes);
    text.counter("etcd_network_client_grpc_received_bytes_total", sums.received_bytes);
    of_calls(text, sums, "grpc_server_started_total", |sums| sums.started);
    of_calls(text, sums, "grpc_server_msg_received_total", |sums| sums.received);
    of_calls(text, sums, "grpc_server_msg_sent_total", |sums| sums.sent);
    let name = "grpc_server_handled_total";
    text.family(name, Kind::Counter);
    for (method, sums) in &sums.methods {
        let ((service, method), flow) = (method.names(), method.flow().label());
        for (code, count) in CODES.iter().zip(sums.handled) {
            let labels = [
                ("grpc_code", *code),
                ("grpc_method", method),
                ("grpc_service", service),
                ("grpc_type", flow),
            ];
            text.sample(name, &labels, count);
        }
    }
    if sums.methods.iter().any(|(_, sums)| sums.handling.is_some()) {
        handling(text, sums);
    }
}

fn of_calls(text: &mut Text, sums: &Sums, name: &str, count: fn(&MethodSums) -> u64) {
    text.family(name, Kind::Counter);
    for (method, sums) in &sums.methods {
        let ((service, method), flow) = (method.names(), method.flow().label());
        let labels = [("grpc_method", method), ("grpc_service", service), ("grpc_type", flow)];
        text.sample(name, &labels, count(sums));
    }
}

/// Calls that were never made are left out, as in etcd.
fn handling(text: &mut Text, sums: &Sums) {
    let name = "grpc_server_handling_seconds";
    text.family(name, Kind::Histogram);
    for (method, sums) in &sums.methods {
        let Some(measured) = sums.handling.as_ref().filter(|_| sums.started > 0) else { continue };
        let ((service, method), flow) = (method.names(), method.flow().label());
        let labels = [("grpc_method", method), ("grpc_service", service), ("grpc_type", flow)];
        text.histogram(name, &labels, measured);
    }
}

fn ours(text: &mut Text, shared: &Shared) {
    labelled(text, "holdfast_version", "version", HOLDFAST_VERSION);
    let status = shared.node.status();
    text.gauge("holdfast_raft_term", status.term);
    text.gauge("holdfast_semantics_level", shared.node.reader().level());
    text.gauge("holdfast_disk_stalled", u8::from(status.is_disk_stalled));
    let log = shared.node.log_size();
    text.gauge("holdfast_wal_segments", log.segments);
    text.gauge("holdfast_wal_unflushed_bytes", log.unflushed_bytes);
    text.gauge("holdfast_wal_unflushed_age_seconds", log.unflushed_age.as_secs_f64());
    text.gauge("holdfast_wal_purged_index", status.purged_index);
    let cache = shared.node.reader().cache();
    text.counter("holdfast_block_cache_hits_total", cache.hits);
    text.counter("holdfast_block_cache_misses_total", cache.misses);
    text.gauge("holdfast_block_cache_bytes", cache.bytes);
    text.gauge("holdfast_block_bytes", shared.node.reader().sizes().total_bytes);
}
