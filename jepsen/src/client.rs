//! One connection to one member; every call is a single attempt with a deadline.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use holdfast_jepsen::history::{Change, Operation, Outcome, Seen};

/// How long a request may take before its outcome counts as unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// All keys of a run begin with this.
pub const PREFIX: &[u8] = b"jepsen/";

/// A client of one member.
#[derive(Clone)]
pub struct Client {
    kv: KvClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    cluster: ClusterClient<Channel>,
    /// For watches, whose streams outlive any deadline.
    watch: WatchClient<Channel>,
}

/// What a member says of itself.
#[derive(Clone, Copy, Debug)]
pub struct MemberStatus {
    pub member: u64,
    pub leader: u64,
}

/// A member's hash of the key space, comparable between members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    pub hash: u32,
    pub compact_revision: i64,
    pub hash_revision: i64,
}

impl Client {
    /// A client of the member at `address` (host:port); connects when first used.
    pub fn new(address: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2));
        let with_deadline = endpoint.clone().timeout(REQUEST_TIMEOUT).connect_lazy();
        Ok(Self {
            kv: KvClient::new(with_deadline.clone()),
            maintenance: MaintenanceClient::new(with_deadline.clone()),
            cluster: ClusterClient::new(with_deadline),
            watch: WatchClient::new(endpoint.connect_lazy()),
        })
    }

    /// Sends one request and says what became of it.
    pub async fn perform(&mut self, operation: Operation) -> Outcome {
        let outcome = match operation {
            Operation::Put { key, value } => self.put(key, value).await,
            Operation::CompareAndSet { key, expected, value } => {
                self.compare_and_set(key, expected, value).await
            }
            Operation::Get { key } => self.read(key).await,
        };
        outcome.unwrap_or_else(|status| classify(operation, &status))
    }

    async fn put(&mut self, key: u64, value: u64) -> Result<Outcome, Status> {
        let request = pb::PutRequest { key: name(key), value: text(value), ..Default::default() };
        let answer = self.kv.put(request).await?.into_inner();
        Ok(Outcome::Written { revision: revision(answer.header) })
    }

    async fn compare_and_set(
        &mut self,
        key: u64,
        expected: i64,
        value: u64,
    ) -> Result<Outcome, Status> {
        let guard = pb::Compare {
            result: pb::compare::CompareResult::Equal as i32,
            target: pb::compare::CompareTarget::Mod as i32,
            key: name(key),
            target_union: Some(pb::compare::TargetUnion::ModRevision(expected)),
            ..Default::default()
        };
        let put = pb::PutRequest { key: name(key), value: text(value), ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![guard],
            success: vec![pb::RequestOp {
                request: Some(pb::request_op::Request::RequestPut(put)),
            }],
            failure: Vec::new(),
        };
        let answer = self.kv.txn(request).await?.into_inner();
        let revision = revision(answer.header);
        Ok(if answer.succeeded {
            Outcome::Written { revision }
        } else {
            Outcome::Conflict { revision }
        })
    }

    async fn read(&mut self, key: u64) -> Result<Outcome, Status> {
        let request = pb::RangeRequest { key: name(key), ..Default::default() };
        let answer = self.kv.range(request).await?.into_inner();
        let seen = match answer.kvs.first() {
            None => None,
            Some(record) => {
                let version = record
                    .decode_message()
                    .map_err(|error| Status::internal(format!("undecodable record: {error}")))?;
                Some(Seen { value: number(&version.value)?, mod_revision: version.mod_revision })
            }
        };
        Ok(Outcome::Read { revision: revision(answer.header), seen })
    }

    /// The revision of a linearizable read.
    pub async fn current_revision(&mut self) -> anyhow::Result<i64> {
        let request = pb::RangeRequest { key: name(0), ..Default::default() };
        let answer = self.kv.range(request).await.context("a read to learn the revision")?;
        Ok(revision(answer.into_inner().header))
    }

    /// What the member says of itself.
    pub async fn status(&mut self) -> anyhow::Result<MemberStatus> {
        let answer = self.maintenance.status(pb::StatusRequest {}).await?.into_inner();
        let member = answer.header.context("a status without a header")?.member_id;
        Ok(MemberStatus { member, leader: answer.leader })
    }

    /// Adds a learner that is to be reached at `peer_url`; gives its id.
    pub async fn add_learner(&mut self, peer_url: &str) -> Result<u64, Status> {
        let peer_ur_ls = vec![peer_url.to_owned()];
        let request = pb::MemberAddRequest { peer_ur_ls, is_learner: true };
        let answer = self.cluster.member_add(request).await?.into_inner();
        answer.member.map(|member| member.id).ok_or_else(|| Status::internal("no member"))
    }

    /// Makes a voter of a learner.
    pub async fn promote(&mut self, id: u64) -> Result<(), Status> {
        self.cluster.member_promote(pb::MemberPromoteRequest { id }).await.map(|_| ())
    }

    /// Removes a member.
    pub async fn remove(&mut self, id: u64) -> Result<(), Status> {
        self.cluster.member_remove(pb::MemberRemoveRequest { id }).await.map(|_| ())
    }

    /// The member's hash at `revision`.
    pub async fn hash(&mut self, revision: i64) -> anyhow::Result<Hash> {
        let answer = self.maintenance.hash_kv(pb::HashKvRequest { revision }).await?.into_inner();
        Ok(Hash {
            hash: answer.hash,
            compact_revision: answer.compact_revision,
            hash_revision: answer.hash_revision,
        })
    }

    /// Opens a watch of every key of the run, from `start` on.
    pub async fn watch(
        &mut self,
        start: i64,
    ) -> anyhow::Result<tonic::Streaming<pb::WatchResponse>> {
        let mut range_end = PREFIX.to_vec();
        *range_end.last_mut().context("the prefix is not empty")? += 1;
        let create = pb::WatchCreateRequest {
            key: Bytes::from_static(PREFIX),
            range_end: range_end.into(),
            start_revision: start,
            ..Default::default()
        };
        let request = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
        };
        // The request half stays open: a server may take its end for the end of the watch.
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.send(request).await.context("a channel that was just made")?;
        let requests = tokio_stream::StreamExt::chain(
            tokio_stream::wrappers::ReceiverStream::new(receiver),
            tokio_stream::pending(),
        );
        drop(sender);
        Ok(self.watch.watch(requests).await?.into_inner())
    }
}

/// The changes that a watch answer carries.
pub fn changes(answer: &pb::WatchResponse) -> anyhow::Result<Vec<Change>> {
    answer
        .events
        .iter()
        .map(|event| {
            let event = event.decode_message()?;
            let version = event.kv.context("an event without its key")?;
            let key = std::str::from_utf8(&version.key[PREFIX.len()..])?.parse()?;
            Ok(Change { revision: version.mod_revision, key, value: number(&version.value)? })
        })
        .collect()
}

/// Failures that etcd promises to have left no trace; every other one may have taken effect.
fn classify(operation: Operation, status: &Status) -> Outcome {
    let definite = match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted => true,
        Code::Unknown => status.message() == "etcdserver: too many requests",
        _ => false,
    };
    if definite || matches!(operation, Operation::Get { .. }) {
        Outcome::Failed
    } else {
        Outcome::Unknown
    }
}

fn name(key: u64) -> Bytes {
    let mut name = PREFIX.to_vec();
    name.extend(key.to_string().bytes());
    name.into()
}

fn text(value: u64) -> Bytes {
    value.to_string().into()
}

fn number(value: &[u8]) -> Result<u64, Status> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Status::internal(format!("a value that nobody wrote: {value:?}")))
}

fn revision(header: Option<pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}
