//! Every error that a client can see: its gRPC code and its text, in one table.
//!
//! Clients compare code and text byte by byte, so both are part of the interface. Two codes are
//! odd on purpose: etcd answers "too many requests" and "not enough started members" as `Unknown`.
//! Nothing else in this crate writes an error text of etcd's.

use std::borrow::Cow;
use std::fmt;

use holdfast_raft::{LeaseError, MemberError, MemberRefusal, ProposeError, ReadBarrierError};
use holdfast_store::Rejected;
use holdfast_store::auth::AuthRefusal;
use tonic::Code;

macro_rules! errors {
    ($($variant:ident, $code:ident, $text:literal;)*) => {
        /// What a client is told instead of an answer.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Error {
            $(#[doc = $text] $variant,)*
            /// An error that is not one of etcd's own: gRPC's, or of this server.
            Other(Code, Cow<'static, str>),
        }

        impl Error {
            /// The gRPC status code.
            pub fn code(&self) -> Code {
                match self {
                    $(Self::$variant => Code::$code,)*
                    Self::Other(code, _) => *code,
                }
            }

            /// The gRPC status message.
            pub fn text(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(_, text) => text,
                }
            }

            #[cfg(test)]
            fn table() -> Vec<Error> {
                vec![$(Self::$variant),*]
            }
        }
    };
}

errors! {
    WatchCanceled, Cancelled, "etcdserver: watch canceled";
    EmptyKey, InvalidArgument, "etcdserver: key is not provided";
    KeyNotFound, InvalidArgument, "etcdserver: key not found";
    ValueProvided, InvalidArgument, "etcdserver: value is provided";
    LeaseProvided, InvalidArgument, "etcdserver: lease is provided";
    TooManyOps, InvalidArgument, "etcdserver: too many operations in txn request";
    DuplicateKey, InvalidArgument, "etcdserver: duplicate key given in txn request";
    InvalidClientApiVersion, InvalidArgument, "etcdserver: invalid client api version";
    InvalidSortOption, InvalidArgument, "etcdserver: invalid sort option";
    MemberBadUrls, InvalidArgument, "etcdserver: given member URLs are invalid";
    RequestTooLarge, InvalidArgument, "etcdserver: request is too large";
    WrongDowngradeVersionFormat, InvalidArgument,
        "etcdserver: wrong downgrade target version format";
    InvalidDowngradeTargetVersion, InvalidArgument,
        "etcdserver: invalid downgrade target version";
    UserEmpty, InvalidArgument, "etcdserver: user name is empty";
    RoleEmpty, InvalidArgument, "etcdserver: role name is empty";
    AuthenticationFailed, InvalidArgument,
        "etcdserver: authentication failed, invalid user ID or password";
    PermissionNotGiven, InvalidArgument, "etcdserver: permission not given";
    InvalidAuthManagement, InvalidArgument, "etcdserver: invalid auth management";
    AuthOldRevision, InvalidArgument, "etcdserver: revision of auth store is old";
    PermissionDenied, PermissionDenied, "etcdserver: permission denied";
    InvalidAuthToken, Unauthenticated, "etcdserver: invalid auth token";
    RootUserMissing, FailedPrecondition, "etcdserver: root user does not exist";
    RootRoleMissing, FailedPrecondition, "etcdserver: root user does not have root role";
    UserExists, FailedPrecondition, "etcdserver: user name already exists";
    UserNotFound, FailedPrecondition, "etcdserver: user name not found";
    RoleExists, FailedPrecondition, "etcdserver: role name already exists";
    RoleNotFound, FailedPrecondition, "etcdserver: role name not found";
    RoleNotGranted, FailedPrecondition, "etcdserver: role is not granted to the user";
    PermissionNotGranted, FailedPrecondition, "etcdserver: permission is not granted to the role";
    AuthNotEnabled, FailedPrecondition, "etcdserver: authentication is not enabled";
    LeaseNotFound, NotFound, "etcdserver: requested lease not found";
    MemberNotFound, NotFound, "etcdserver: member not found";
    UnknownMethod, Unknown, "etcdserver: unknown method";
    TooManyRequests, Unknown, "etcdserver: too many requests";
    MemberNotEnoughStarted, Unknown,
        "etcdserver: re-configuration failed due to not enough started members";
    NoSpace, ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    LeaseExists, FailedPrecondition, "etcdserver: lease already exists";
    MemberExists, FailedPrecondition, "etcdserver: member ID already exist";
    PeerUrlExists, FailedPrecondition, "etcdserver: Peer URLs already exists";
    MemberNotLearner, FailedPrecondition, "etcdserver: can only promote a learner member";
    LearnerNotReady, FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners, FailedPrecondition, "etcdserver: too many learner members in cluster";
    NotLeader, FailedPrecondition, "etcdserver: not leader";
    NotSupportedForLearner, FailedPrecondition, "etcdserver: rpc not supported for learner";
    BadLeaderTransferee, FailedPrecondition, "etcdserver: bad leader transferee";
    DowngradeInProcess, FailedPrecondition,
        "etcdserver: cluster has a downgrade job in progress";
    Compacted, OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FutureRevision, OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    LeaseTtlTooLarge, OutOfRange, "etcdserver: too large lease TTL";
    NoLeader, Unavailable, "etcdserver: no leader";
    LeaderChanged, Unavailable, "etcdserver: leader changed";
    Stopped, Unavailable, "etcdserver: server stopped";
    Timeout, Unavailable, "etcdserver: request timed out";
    TimeoutDueToLeaderFail, Unavailable,
        "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutDueToConnectionLost, Unavailable,
        "etcdserver: request timed out, possibly due to connection lost";
    Unhealthy, Unavailable, "etcdserver: unhealthy cluster";
    Corrupt, DataLoss, "etcdserver: corrupt cluster";
}

/// Why a watcher was not made, in the words of `cancel_reason`.
pub mod cancel_reason {
    /// The id is in use on this stream.
    pub const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
    /// The range holds no key.
    pub const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
    /// A negative start revision. Clients see the text of an unwrapped error here.
    pub const START_COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
    /// The next four are whole errors of Go's gRPC.
    pub const PERMISSION_DENIED: &str =
        "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    /// Nobody has said who watches.
    pub const USER_EMPTY: &str =
        "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    /// The rules have changed since the client was authenticated.
    pub const AUTH_OLD_REVISION: &str =
        "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old";
    /// A token that nobody knows.
    pub const INVALID_AUTH_TOKEN: &str =
        "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
}

/// The text with which `Status.errors` says that there is no leader.
pub const STATUS_NO_LEADER: &str = "etcdserver: no leader";

impl Error {
    /// A method or service that this server does not have.
    pub fn unimplemented(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Other(Code::Unimplemented, text.into())
    }

    /// An error that has no code in etcd.
    pub fn unknown(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Other(Code::Unknown, text.into())
    }

    /// A call that breaks gRPC's own rules.
    pub fn internal(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Other(Code::Internal, text.into())
    }

    /// A transaction whose entry in the log could not be decoded any more.
    pub fn txn_too_deep() -> Self {
        let text = "etcdserver: transactions are nested too deeply in txn request";
        Self::Other(Code::InvalidArgument, text.into())
    }

    /// A password for a user that has none, or a hash of one that is no hash.
    pub fn no_password_user() -> Self {
        let text = "auth: authentication failed, password was given for no password user";
        Self::Other(Code::Unknown, text.into())
    }

    /// A token is asked for where they can only be verified.
    pub fn verify_only_key() -> Self {
        let text = "auth: token signing attempted with verify-only key";
        Self::Other(Code::Unknown, text.into())
    }

    /// A password that bcrypt would cut.
    pub fn password_too_long() -> Self {
        Self::Other(Code::Unknown, "bcrypt: password length exceeds 72 bytes".into())
    }

    /// A message above the receive limit.
    pub fn message_too_large(length: usize, limit: usize) -> Self {
        let text = format!("grpc: received message larger than max ({length} vs. {limit})");
        Self::Other(Code::ResourceExhausted, text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Error {}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Compacted => Self::Compacted,
            Rejected::FutureRevision => Self::FutureRevision,
            Rejected::LeaseNotFound => Self::LeaseNotFound,
            Rejected::LeaseExists => Self::LeaseExists,
            Rejected::KeyNotFound => Self::KeyNotFound,
            // Only a leader's own expiry is decided in a term; a client never sees its answer.
            Rejected::ExpiryOutdated => Self::LeaseNotFound,
            Rejected::NoSpace => Self::NoSpace,
            Rejected::DowngradeInProcess => Self::DowngradeInProcess,
            Rejected::Corrupt => Self::Corrupt,
            Rejected::Auth(refusal) => refusal.into(),
        }
    }
}

impl From<AuthRefusal> for Error {
    fn from(refusal: AuthRefusal) -> Self {
        match refusal {
            AuthRefusal::UserEmpty => Self::UserEmpty,
            AuthRefusal::OldRevision => Self::AuthOldRevision,
            AuthRefusal::PermissionDenied => Self::PermissionDenied,
            AuthRefusal::UserExists => Self::UserExists,
            AuthRefusal::UserNotFound => Self::UserNotFound,
            AuthRefusal::RoleExists => Self::RoleExists,
            AuthRefusal::RoleNotFound => Self::RoleNotFound,
            AuthRefusal::RoleEmpty => Self::RoleEmpty,
            AuthRefusal::RoleNotGranted => Self::RoleNotGranted,
            AuthRefusal::PermissionNotGiven => Self::PermissionNotGiven,
            AuthRefusal::PermissionNotGranted => Self::PermissionNotGranted,
            AuthRefusal::InvalidManagement => Self::InvalidAuthManagement,
            AuthRefusal::NotEnabled => Self::AuthNotEnabled,
            AuthRefusal::RootUserMissing => Self::RootUserMissing,
            AuthRefusal::RootRoleMissing => Self::RootRoleMissing,
            AuthRefusal::AuthenticationFailed => Self::AuthenticationFailed,
        }
    }
}

impl From<ProposeError> for Error {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::TooManyRequests => Self::TooManyRequests,
            ProposeError::NoSpace => Self::NoSpace,
            ProposeError::TooLarge => Self::RequestTooLarge,
            ProposeError::TooDeep => Self::txn_too_deep(),
            ProposeError::TimedOut => Self::Timeout,
            ProposeError::TimedOutLeaderLost => Self::TimeoutDueToLeaderFail,
            ProposeError::TimedOutConnectionLost => Self::TimeoutDueToConnectionLost,
            ProposeError::Stopped => Self::Stopped,
        }
    }
}

impl From<ReadBarrierError> for Error {
    fn from(error: ReadBarrierError) -> Self {
        match error {
            ReadBarrierError::TimedOut => Self::Timeout,
            ReadBarrierError::LeaderChanged => Self::LeaderChanged,
            ReadBarrierError::Stopped => Self::Stopped,
        }
    }
}

impl From<MemberError> for Error {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::Refused(MemberRefusal::NotFound) => Self::MemberNotFound,
            MemberError::Refused(MemberRefusal::IdExists) => Self::MemberExists,
            MemberError::Refused(MemberRefusal::PeerUrlExists) => Self::PeerUrlExists,
            MemberError::Refused(MemberRefusal::NotEnoughStarted) => Self::MemberNotEnoughStarted,
            MemberError::Refused(MemberRefusal::Unhealthy) => Self::Unhealthy,
            MemberError::Refused(MemberRefusal::NotLearner) => Self::MemberNotLearner,
            MemberError::Refused(MemberRefusal::LearnerNotReady) => Self::LearnerNotReady,
            MemberError::Refused(MemberRefusal::TooManyLearners) => Self::TooManyLearners,
            MemberError::Refused(MemberRefusal::TooManyRequests) => Self::TooManyRequests,
            MemberError::TimedOut => Self::Timeout,
            MemberError::Stopped => Self::Stopped,
        }
    }
}

impl From<LeaseError> for Error {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::TimedOut => Self::Timeout,
            LeaseError::NoLeader => Self::NoLeader,
            LeaseError::TooManyRequests => Self::TooManyRequests,
            LeaseError::Stopped => Self::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out a second time, as clients have it.
    const AS_CLIENTS_HAVE_THEM: [(i32, &str); 57] = [
        (1, "watch canceled"),
        (3, "key is not provided"),
        (3, "key not found"),
        (3, "value is provided"),
        (3, "lease is provided"),
        (3, "too many operations in txn request"),
        (3, "duplicate key given in txn request"),
        (3, "invalid client api version"),
        (3, "invalid sort option"),
        (3, "given member URLs are invalid"),
        (3, "request is too large"),
        (3, "wrong downgrade target version format"),
        (3, "invalid downgrade target version"),
        (3, "user name is empty"),
        (3, "role name is empty"),
        (3, "authentication failed, invalid user ID or password"),
        (3, "permission not given"),
        (3, "invalid auth management"),
        (3, "revision of auth store is old"),
        (7, "permission denied"),
        (16, "invalid auth token"),
        (9, "root user does not exist"),
        (9, "root user does not have root role"),
        (9, "user name already exists"),
        (9, "user name not found"),
        (9, "role name already exists"),
        (9, "role name not found"),
        (9, "role is not granted to the user"),
        (9, "permission is not granted to the role"),
        (9, "authentication is not enabled"),
        (5, "requested lease not found"),
        (5, "member not found"),
        (2, "unknown method"),
        (2, "too many requests"),
        (2, "re-configuration failed due to not enough started members"),
        (8, "mvcc: database space exceeded"),
        (9, "lease already exists"),
        (9, "member ID already exist"),
        (9, "Peer URLs already exists"),
        (9, "can only promote a learner member"),
        (9, "can only promote a learner member which is in sync with leader"),
        (9, "too many learner members in cluster"),
        (9, "not leader"),
        (9, "rpc not supported for learner"),
        (9, "bad leader transferee"),
        (9, "cluster has a downgrade job in progress"),
        (11, "mvcc: required revision has been compacted"),
        (11, "mvcc: required revision is a future revision"),
        (11, "too large lease TTL"),
        (14, "no leader"),
        (14, "leader changed"),
        (14, "server stopped"),
        (14, "request timed out"),
        (14, "request timed out, possibly due to previous leader failure"),
        (14, "request timed out, possibly due to connection lost"),
        (14, "unhealthy cluster"),
        (15, "corrupt cluster"),
    ];

    #[test]
    fn codes_and_texts_are_those_that_clients_compare_with() {
        let table: Vec<_> =
            Error::table().iter().map(|e| (e.code() as i32, e.text().to_owned())).collect();
        let expected: Vec<_> = AS_CLIENTS_HAVE_THEM
            .iter()
            .map(|(code, text)| (*code, format!("etcdserver: {text}")))
            .collect();
        assert_eq!(table, expected);
    }

    #[test]
    fn an_unknown_outcome_is_never_reported_as_a_refusal() {
        for unknown in [
            ProposeError::TimedOut,
            ProposeError::TimedOutLeaderLost,
            ProposeError::TimedOutConnectionLost,
            ProposeError::Stopped,
        ] {
            assert_eq!(Error::from(unknown).code(), Code::Unavailable);
        }
        assert_eq!(Error::from(ProposeError::TooLarge).code(), Code::InvalidArgument);
    }
}
