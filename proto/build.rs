//! Compiles the .proto files with protox, so that no protoc is needed.
//!
//! `bytes` fields become `bytes::Bytes`. Key versions and events stay encoded ([`Encoded`] in the
//! crate): the server splices them into responses without decoding them.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 7] = [
    "mvcc.proto",
    "auth.proto",
    "etcd.proto",
    "lock.proto",
    "election.proto",
    "health.proto",
    "peer.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".mvccpb.KeyValue", "crate::EncodedKeyValue")
        .extern_path(".mvccpb.Event", "crate::EncodedEvent")
        .compile_fds(descriptors)?;
    Ok(())
}
