//! Wire types: etcd's client API and Holdfast's peer messages, generated from `proto/*.proto`.
//!
//! Promises the published field numbers of etcd's API, and `Bytes` for every `bytes` field.
//! Key versions and events are kept encoded (see [`Encoded`]). Holds no behaviour of the server.

mod encoded;
pub mod mvccpb;

pub use encoded::{Encoded, EncodedEvent, EncodedKeyValue};

/// Generated from `etcd.proto`.
#[allow(clippy::all, missing_docs)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Generated from `auth.proto`.
#[allow(clippy::all, missing_docs)]
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// Generated from `lock.proto`.
#[allow(clippy::all, missing_docs)]
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// Generated from `election.proto`.
#[allow(clippy::all, missing_docs)]
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// Generated from `peer.proto`: what members say to each other.
#[allow(clippy::all, missing_docs)]
pub mod peer {
    tonic::include_proto!("holdfast.peer");
}

/// An encoded `google.protobuf.FileDescriptorSet` of every file above, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
