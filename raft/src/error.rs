//! What can go wrong, one sentence each. `api` owns the texts clients see.

use holdfast_store::Fatal;

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the data directory.
    #[error("data directory in use: {0}")]
    DirectoryInUse(String),
    /// The directory was made by etcd.
    #[error(
        "{0} was written by etcd: stop etcd and make a data directory of it with `holdfast util \
         migrate --from {0} --data-dir` and an empty directory"
    )]
    WrittenByEtcd(String),
    /// A directory that is to be filled holds something already.
    #[error("data-dir {0:?} not empty or could not be read")]
    NotEmpty(String),
    /// An import into the directory was begun and not finished.
    #[error(
        "{0} is what a restore or a migration has left that did not end: it is not whole. Remove it, \
         and restore or migrate again"
    )]
    ImportUnfinished(String),
    /// The directory belongs to another member or cluster than the flags describe.
    #[error("{directory} belongs to member {found}, but the flags make this member {expected}")]
    WrongMember {
        /// The directory.
        directory: String,
        /// Member and cluster it was made for.
        found: String,
        /// Member and cluster of the flags.
        expected: String,
    },
    /// The directory's format is newer than this program.
    #[error("{directory} has format {found}, and this program knows none above {known}")]
    NewerFormat {
        /// The directory.
        directory: String,
        /// Its format.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// The log holds entries of a semantics level that this program cannot apply.
    #[error("the log has semantics level {found}, and this program knows none above {known}")]
    NewerLevel {
        /// The level found.
        found: u32,
        /// The highest that is known.
        known: u32,
    },
    /// The cluster knows this member by another data directory.
    #[error("member {0:x} has already been bootstrapped")]
    AlreadyBootstrapped(u64),
    /// The member was removed from its cluster.
    #[error(
        "the member has been permanently removed from the cluster; the data-dir used by this \
         member must be removed"
    )]
    Removed(u64),
    /// `--force-new-cluster` was left in place, and others have joined.
    #[error(
        "--force-new-cluster was given at the last start of this member too, and now it is not the \
         only one of its cluster: drop the flag. To make it a cluster of its own again, start it once \
         without the flag first"
    )]
    ForcedBefore,
    /// This member was being made a cluster of its own when it stopped.
    #[error(
        "making this member a cluster of its own was begun and did not end: start it with \
         --force-new-cluster again"
    )]
    ForceUnfinished,
    /// Its log does not say that this member belongs to its cluster, or no longer.
    #[error(
        "--force-new-cluster: the newest membership in the log of this member does not name member \
         {0:x}: it has not caught up, or is being removed"
    )]
    NotNamed(u64),
    /// Nobody told this member about the cluster that it is to join.
    #[error(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the \
         given URLs ({0})"
    )]
    NoCluster(String),
    /// What was to say who founds the cluster has refused.
    #[error("failed to join discovery cluster ({0})")]
    Discovery(String),
    /// The cluster that this member is to join has other members than the flags say.
    #[error("error validating peerURLs: {0}")]
    OtherCluster(String),
    /// The log is gone that held this member's votes and entries.
    #[error(
        "{0} holds the identity of a member but no log: the votes and entries it has promised are \
         lost, so it must not take part again under that identity"
    )]
    LogMissing(String),
    /// The log lies in a directory of its own, and that is not given.
    #[error(
        "the log of {0} lies in a directory of its own: give it by --wal-dir. If that directory is \
         lost, so are the votes and entries this member has promised"
    )]
    LogApart(String),
    /// The directory given for the log does not hold this member's.
    #[error(
        "{data} holds member {member:x}, but the WAL directory {log} holds no log of it: give the \
         --wal-dir that it was started with. A member whose log is lost has lost the votes and \
         entries it has promised, and must not take part again under that identity"
    )]
    LogLost {
        /// The data directory.
        data: String,
        /// The log's.
        log: String,
        /// Whose data it is.
        member: u64,
    },
    /// The log in the directory given for it is that of another data directory.
    #[error(
        "the log in the WAL directory {log} is not that of the data directory {data}: give the two \
         directories that belong together, or, to begin a new member, two empty ones"
    )]
    LogOfAnother {
        /// The data directory.
        data: String,
        /// The log's.
        log: String,
    },
    /// A directory is given for the log, which lies in the data directory.
    #[error(
        "--wal-dir is {log}, but the log lies in {data}/wal. To move it, while this member is \
         stopped: make {log}, move {data}/wal into it, and copy {data}/identity into it"
    )]
    LogInPlace {
        /// The data directory.
        data: String,
        /// The one given for the log.
        log: String,
    },
    /// The directory given for the log holds etcd's.
    #[error(
        "the WAL directory {0} holds the log of an etcd: give another directory. `holdfast util \
         migrate` makes a data directory of etcd's"
    )]
    LogOfEtcd(String),
    /// The identity is gone under which this member gave its votes and acknowledged its entries.
    #[error("{0} holds a log but no identity of a member: the file `identity` is lost")]
    IdentityMissing(String),
    /// The flags contradict each other.
    #[error("{0}")]
    Misconfigured(String),
    /// The data directory, or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The state or the log cannot be used.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// Why a change of the membership is refused: it certainly does not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberRefusal {
    /// There is no such member, or there is none any more.
    #[error("member not found")]
    NotFound,
    /// There is a member of this id.
    #[error("member ID already exist")]
    IdExists,
    /// Another member is reached at one of the URLs.
    #[error("Peer URLs already exists")]
    PeerUrlExists,
    /// Too few voters would have started.
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// Too few voters would be connected.
    #[error("unhealthy cluster")]
    Unhealthy,
    /// The member to promote votes already.
    #[error("can only promote a learner member")]
    NotLearner,
    /// The learner to promote is too far behind.
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// There are as many learners as there may be.
    #[error("too many learner members in cluster")]
    TooManyLearners,
    /// Too many changes are waiting for each other.
    #[error("too many requests")]
    TooManyRequests,
}

/// Why a change of the membership has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// It does not happen.
    #[error(transparent)]
    Refused(#[from] MemberRefusal),
    /// It may or may not take effect.
    #[error("request timed out")]
    TimedOut,
    /// The member is stopping; it may or may not take effect.
    #[error("server stopped")]
    Stopped,
}

/// Why a proposal has no outcome. Those that may nevertheless take effect say so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Turned away before anything happened: too much is waiting already, or the disk has stalled.
    #[error("too many requests")]
    TooManyRequests,
    /// Turned away before anything happened: it needs room, and there is none.
    #[error("no space")]
    NoSpace,
    /// Turned away: larger than `--max-request-bytes`.
    #[error("request is too large")]
    TooLarge,
    /// Turned away: transactions within transactions, deeper than a log entry can be decoded.
    #[error("transactions are nested too deeply")]
    TooDeep,
    /// It may or may not take effect.
    #[error("request timed out")]
    TimedOut,
    /// It may or may not take effect; a leader was lost while it waited.
    #[error("request timed out, possibly due to previous leader failure")]
    TimedOutLeaderLost,
    /// It may or may not take effect; the leader or the quorum could not be reached.
    #[error("request timed out, possibly due to connection lost")]
    TimedOutConnectionLost,
    /// The member is stopping; it may or may not take effect.
    #[error("server stopped")]
    Stopped,
}

impl ProposeError {
    /// Whether it may take effect all the same.
    pub fn may_take_effect(&self) -> bool {
        match self {
            Self::TooManyRequests | Self::NoSpace | Self::TooLarge | Self::TooDeep => false,
            Self::TimedOut
            | Self::TimedOutLeaderLost
            | Self::TimedOutConnectionLost
            | Self::Stopped => true,
        }
    }
}

/// Why reads cannot be made linearizable now. Nothing depends on it: reads change nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadBarrierError {
    /// No leader confirmed itself in time.
    #[error("request timed out")]
    TimedOut,
    /// The leader changed while the barrier was under way.
    #[error("leader changed")]
    LeaderChanged,
    /// The member is stopping.
    #[error("server stopped")]
    Stopped,
}

/// Why the leader's lease clock did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// No leader answered in time.
    #[error("request timed out")]
    TimedOut,
    /// There is no leader to ask.
    #[error("no leader")]
    NoLeader,
    /// Too many questions are waiting.
    #[error("too many requests")]
    TooManyRequests,
    /// The member is stopping.
    #[error("server stopped")]
    Stopped,
}
