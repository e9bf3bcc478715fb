//! bbolt's database file, the form in which etcd keeps its data and hands out snapshots.
//!
//! ```text
//! page 0, 1   meta: magic, version, page size, root bucket, free list, end, txid, checksum
//! page 2 ..   leaf | branch | free list; one that is longer than a page says by how many
//! root bucket: name -> bucket header (root page, sequence) [and a page, where the root is 0]
//! bucket:      a B+ tree; branch pages hold the first key and the number of each child
//! ```
//!
//! [`Writer`] makes such a file from sorted pairs, front to back, in the memory of a few pages.
//! [`Reader`] gives the pairs back in order and trusts nothing: what is wrong with a file is an
//! error that names the page, never a panic, and no page is read twice. Neither changes a file in
//! place. Numbers are little-endian, as on every machine that etcd supports today.

mod format;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use format::BoltError;
pub use reader::{Bucket, Pair, Reader, Source};
pub use writer::{WriteError, Writer};
