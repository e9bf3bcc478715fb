//! The calls that are counted: those that etcd counts, in its words.

use holdfast_store::measure::Bounds;

/// How a call's messages flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// One each way.
    Unary,
    /// Many answers.
    ServerStream,
    /// Many each way.
    Both,
}

impl Flow {
    /// As a label has it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::Both => "bidi_stream",
        }
    }
}

/// A call, by its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method(usize);

/// One row of the table.
struct Row {
    path: &'static str,
    flow: Flow,
}

impl Method {
    /// The call of a path; none if it is not one that is counted.
    pub(crate) fn of(path: &str) -> Option<Self> {
        TABLE.iter().position(|row| row.path == path).map(Self)
    }

    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..COUNT).map(Self)
    }

    /// Below [`COUNT`].
    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// As in a request's path.
    pub(crate) fn path(self) -> &'static str {
        TABLE[self.0].path
    }

    /// How its messages flow.
    pub(crate) fn flow(self) -> Flow {
        TABLE[self.0].flow
    }

    /// Its service and its name.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        let path = self.path().trim_start_matches('/');
        path.split_once('/').expect("every path of the table has a service and a name")
    }
}

/// How many calls there are.
pub(crate) const COUNT: usize = TABLE.len();

/// The buckets of how long calls take, which are those of Prometheus' own libraries.
pub(crate) const HANDLING: Bounds = Bounds::Listed(&[
    5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
]);

const fn unary(path: &'static str) -> Row {
    Row { path, flow: Flow::Unary }
}

/// The most frequent come first: the table is searched from its beginning.
const TABLE: [Row; 45] = [
    unary("/etcdserverpb.KV/Range"),
    unary("/etcdserverpb.KV/Txn"),
    unary("/etcdserverpb.KV/Put"),
    Row { path: "/etcdserverpb.KV/RangeStream", flow: Flow::ServerStream },
    unary("/etcdserverpb.KV/DeleteRange"),
    unary("/etcdserverpb.KV/Compact"),
    Row { path: "/etcdserverpb.Watch/Watch", flow: Flow::Both },
    unary("/etcdserverpb.Lease/LeaseGrant"),
    Row { path: "/etcdserverpb.Lease/LeaseKeepAlive", flow: Flow::Both },
    unary("/etcdserverpb.Lease/LeaseLeases"),
    unary("/etcdserverpb.Lease/LeaseRevoke"),
    unary("/etcdserverpb.Lease/LeaseTimeToLive"),
    unary("/etcdserverpb.Auth/AuthDisable"),
    unary("/etcdserverpb.Auth/AuthEnable"),
    unary("/etcdserverpb.Auth/AuthStatus"),
    unary("/etcdserverpb.Auth/Authenticate"),
    unary("/etcdserverpb.Auth/RoleAdd"),
    unary("/etcdserverpb.Auth/RoleDelete"),
    unary("/etcdserverpb.Auth/RoleGet"),
    unary("/etcdserverpb.Auth/RoleGrantPermission"),
    unary("/etcdserverpb.Auth/RoleList"),
    unary("/etcdserverpb.Auth/RoleRevokePermission"),
    unary("/etcdserverpb.Auth/UserAdd"),
    unary("/etcdserverpb.Auth/UserChangePassword"),
    unary("/etcdserverpb.Auth/UserDelete"),
    unary("/etcdserverpb.Auth/UserGet"),
    unary("/etcdserverpb.Auth/UserGrantRole"),
    unary("/etcdserverpb.Auth/UserList"),
    unary("/etcdserverpb.Auth/UserRevokeRole"),
    unary("/etcdserverpb.Cluster/MemberAdd"),
    unary("/etcdserverpb.Cluster/MemberList"),
    unary("/etcdserverpb.Cluster/MemberPromote"),
    unary("/etcdserverpb.Cluster/MemberRemove"),
    unary("/etcdserverpb.Cluster/MemberUpdate"),
    unary("/etcdserverpb.Maintenance/Alarm"),
    unary("/etcdserverpb.Maintenance/Defragment"),
    unary("/etcdserverpb.Maintenance/Downgrade"),
    unary("/etcdserverpb.Maintenance/Hash"),
    unary("/etcdserverpb.Maintenance/HashKV"),
    unary("/etcdserverpb.Maintenance/MoveLeader"),
    Row { path: "/etcdserverpb.Maintenance/Snapshot", flow: Flow::ServerStream },
    unary("/etcdserverpb.Maintenance/Status"),
    unary("/grpc.health.v1.Health/Check"),
    unary("/grpc.health.v1.Health/List"),
    Row { path: "/grpc.health.v1.Health/Watch", flow: Flow::ServerStream },
];

/// The codes of gRPC by number, as labels have them.
pub(crate) const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_found_once_and_taken_apart() {
        for method in Method::all() {
            assert_eq!(Method::of(method.path()), Some(method));
            let (service, name) = method.names();
            assert_eq!(format!("/{service}/{name}"), method.path());
        }
        assert_eq!(Method::of("/etcdserverpb.KV/Fetch"), None);
    }
}
