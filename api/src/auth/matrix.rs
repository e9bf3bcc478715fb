//! Which calls are for root, and which for anybody with a name, by path alone.
//!
//! Calls that depend on what they ask for are judged where they are answered: reads, writes, leases,
//! watches, alarms, and the Auth service. Of the services that administer a cluster everything else
//! is for root, so that a method that is added later is guarded from its first day.

use holdfast_store::auth::Access;

/// What a call needs before its handler runs.
pub fn required(path: &str) -> Option<Access<'static>> {
    let (service, method) = path.trim_start_matches('/').split_once('/')?;
    match (service, method) {
        ("etcdserverpb.KV", "Compact") => Some(Access::Administer),
        ("etcdserverpb.Cluster", "MemberList") => Some(Access::Authenticated),
        ("etcdserverpb.Maintenance", "Status") => Some(Access::Authenticated),
        // Listing is for anybody, the rest for root: see `alarm`.
        ("etcdserverpb.Maintenance", "Alarm") => None,
        ("etcdserverpb.Cluster" | "etcdserverpb.Maintenance", _) => Some(Access::Administer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_administers_a_cluster_is_for_root_unless_it_is_known_to_be_harmless() {
        for method in ["Defragment", "Hash", "HashKV", "Snapshot", "MoveLeader", "Downgrade", "New"]
        {
            let path = format!("/etcdserverpb.Maintenance/{method}");
            assert!(matches!(required(&path), Some(Access::Administer)), "{path}");
        }
        for method in ["MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote", "New"] {
            let path = format!("/etcdserverpb.Cluster/{method}");
            assert!(matches!(required(&path), Some(Access::Administer)), "{path}");
        }
        assert!(matches!(required("/etcdserverpb.KV/Compact"), Some(Access::Administer)));
        for path in ["/etcdserverpb.Maintenance/Status", "/etcdserverpb.Cluster/MemberList"] {
            assert!(matches!(required(path), Some(Access::Authenticated)), "{path}");
        }
    }

    #[test]
    fn what_depends_on_the_request_is_left_to_its_handler() {
        for path in [
            "/etcdserverpb.KV/Range",
            "/etcdserverpb.KV/Txn",
            "/etcdserverpb.Watch/Watch",
            "/etcdserverpb.Lease/LeaseLeases",
            "/etcdserverpb.Auth/AuthEnable",
            "/etcdserverpb.Maintenance/Alarm",
        ] {
            assert!(required(path).is_none(), "{path}");
        }
    }
}
