//! The key-value service of the floor: decodes, perhaps waits for the disk, answers a constant.

use bytes::Bytes;
use holdfast_proto::EncodedKeyValue;
use holdfast_proto::etcdserverpb::kv_server::Kv;
use holdfast_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, TxnRequest,
    TxnResponse,
};
use holdfast_proto::mvccpb::KeyValue;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::wal::Wal;

const VALUE_BYTES: usize = 512;

/// A service without state.
#[derive(Clone)]
pub(super) struct Nothing {
    core: usize,
    wal: Option<Wal>,
    record: EncodedKeyValue,
}

impl Nothing {
    pub(super) fn new(core: usize, wal: Option<Wal>) -> Self {
        let record = KeyValue {
            key: Bytes::from_static(b"k000000000000000"),
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            value: vec![7; VALUE_BYTES].into(),
            lease: 0,
        };
        Self { core, wal, record: (&record).into() }
    }
}

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: 1 << 60,
        member_id: 1 << 61,
        revision: 1 << 20,
        raft_term: 2,
    })
}

#[tonic::async_trait]
impl Kv for Nothing {
    type RangeStreamStream = futures_util::stream::Empty<Result<RangeStreamResponse, Status>>;

    async fn range(&self, _: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        Ok(Response::new(RangeResponse {
            header: header(),
            kvs: vec![self.record.clone()],
            count: 1,
            ..Default::default()
        }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        if let Some(wal) = &self.wal {
            wal.append(self.core, request.get_ref().encode_to_vec()).await?;
        }
        Ok(Response::new(PutResponse { header: header(), prev_kv: None }))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Ok(Response::new(TxnResponse { header: header(), succeeded: true, ..Default::default() }))
    }

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("the floor does not list"))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("the floor does not delete"))
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("the floor does not compact"))
    }
}
