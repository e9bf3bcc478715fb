//! Records: what one change of one key leaves behind, in the bytes that clients receive.
//!
//! A record keeps the encoding of its `mvccpb.KeyValue`, so that answers and events splice it and
//! never encode it again. The encoding is canonical: fields in ascending order, zero fields left
//! out, exactly as Go's protobuf writes it; hashes over records depend on that.
//!
//! ```text
//! KeyValue { 1: key bytes, 2: create_revision, 3: mod_revision, 4: version, 5: value bytes, 6: lease }
//! a put:       all six            a tombstone:  { key, mod_revision } only
//! ```
//!
//! This module knows the field numbers and nothing else of the API. It trusts its input: records
//! are made here, and what comes back from disk was checked before.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use crate::{Fatal, Revision};

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it happened.
    pub revision: Revision,
    /// Which key it changed.
    pub key: Bytes,
    /// A write or a deletion.
    pub kind: RecordKind,
    /// The `mvccpb.KeyValue` encoding.
    pub bytes: Bytes,
}

/// What a record did, with the facts that the key index keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A write.
    Put {
        /// The main revision that began this life of the key.
        create_revision: i64,
        /// How many writes this life has seen; 1 for the first.
        version: i64,
        /// The lease attached, 0 for none.
        lease: i64,
    },
    /// A deletion.
    Tombstone,
}

/// A record without its bytes: what the index and watchers need to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// When it happened.
    pub revision: Revision,
    /// Which key it changed.
    pub key: Bytes,
    /// A write or a deletion.
    pub kind: RecordKind,
    /// The length of the record's encoding.
    pub length: u32,
}

impl Record {
    /// The record of a write.
    pub fn put(
        revision: Revision,
        key: Bytes,
        value: &[u8],
        create_revision: i64,
        version: i64,
        lease: i64,
    ) -> Self {
        let bytes = encode_put(&key, value, create_revision, revision.main, version, lease);
        Self { revision, key, kind: RecordKind::Put { create_revision, version, lease }, bytes }
    }

    /// The record of a deletion.
    pub fn tombstone(revision: Revision, key: Bytes) -> Self {
        let bytes = encode_tombstone(&key, revision.main);
        Self { revision, key, kind: RecordKind::Tombstone, bytes }
    }

    /// The record without its bytes.
    pub fn header(&self) -> RecordHeader {
        let length = u32::try_from(self.bytes.len()).expect("a record is bounded by a request");
        RecordHeader { revision: self.revision, key: self.key.clone(), kind: self.kind, length }
    }
}

const KEY: u32 = 1;
const CREATE_REVISION: u32 = 2;
const MOD_REVISION: u32 = 3;
const VERSION: u32 = 4;
const VALUE: u32 = 5;
const LEASE: u32 = 6;

const WIRE_VARINT: u64 = 0;
const WIRE_LENGTH: u64 = 2;

/// The encoding of a write. Field numbers are below 16, so every tag is one byte.
pub fn encode_put(
    key: &[u8],
    value: &[u8],
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: i64,
) -> Bytes {
    let length = put_length(key.len(), value.len(), create_revision, mod_revision, version, lease);
    let mut out = BytesMut::with_capacity(length);
    write_bytes(&mut out, KEY, key);
    write_int(&mut out, CREATE_REVISION, create_revision);
    write_int(&mut out, MOD_REVISION, mod_revision);
    write_int(&mut out, VERSION, version);
    write_bytes(&mut out, VALUE, value);
    write_int(&mut out, LEASE, lease);
    debug_assert_eq!(out.len(), length);
    out.freeze()
}

/// The encoding of a deletion.
pub fn encode_tombstone(key: &[u8], mod_revision: i64) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes_length(key.len()) + int_length(mod_revision));
    write_tombstone(&mut out, key, mod_revision);
    out.freeze()
}

/// Appends the encoding of a deletion.
pub(crate) fn write_tombstone(out: &mut BytesMut, key: &[u8], mod_revision: i64) {
    write_bytes(out, KEY, key);
    write_int(out, MOD_REVISION, mod_revision);
}

/// The key inside a record's encoding, whose first field it is.
pub(crate) fn key_within(record: &Bytes, key_length: usize) -> Bytes {
    let prefix = 1 + encoded_len_varint(key_length as u64);
    record.slice(prefix..prefix + key_length)
}

/// The length of [`encode_put`] for a key and a value of these lengths.
pub fn put_length(
    key: usize,
    value: usize,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: i64,
) -> usize {
    bytes_length(key)
        + int_length(create_revision)
        + int_length(mod_revision)
        + int_length(version)
        + bytes_length(value)
        + int_length(lease)
}

/// A record's encoding, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Field 1.
    pub key: Bytes,
    /// Field 2.
    pub create_revision: i64,
    /// Field 3.
    pub mod_revision: i64,
    /// Field 4.
    pub version: i64,
    /// Field 5.
    pub value: Bytes,
    /// Field 6.
    pub lease: i64,
}

impl Fields {
    /// Takes a record's encoding apart; the byte fields share its memory.
    pub fn parse(record: &Bytes) -> Result<Self, Fatal> {
        let mut fields = Self::default();
        let mut rest = record.clone();
        while !rest.is_empty() {
            let tag = decode_varint(&mut rest).map_err(malformed)?;
            match tag & 7 {
                WIRE_VARINT => {
                    let number = decode_varint(&mut rest).map_err(malformed)? as i64;
                    fields.take_int((tag >> 3) as u32, number)?;
                }
                WIRE_LENGTH => {
                    let length = decode_varint(&mut rest).map_err(malformed)?;
                    if length > rest.len() as u64 {
                        return Err(malformed("a field longer than the record"));
                    }
                    let bytes = rest.split_to(length as usize);
                    fields.take_bytes((tag >> 3) as u32, bytes)?;
                }
                _ => return Err(malformed("an unknown wire type")),
            }
        }
        Ok(fields)
    }

    fn take_int(&mut self, field: u32, number: i64) -> Result<(), Fatal> {
        match field {
            CREATE_REVISION => self.create_revision = number,
            MOD_REVISION => self.mod_revision = number,
            VERSION => self.version = number,
            LEASE => self.lease = number,
            _ => return Err(malformed("an unknown field")),
        }
        Ok(())
    }

    fn take_bytes(&mut self, field: u32, bytes: Bytes) -> Result<(), Fatal> {
        match field {
            KEY => self.key = bytes,
            VALUE => self.value = bytes,
            _ => return Err(malformed("an unknown field")),
        }
        Ok(())
    }
}

/// The value inside a record's encoding, without a copy.
pub fn value_of(record: &Bytes) -> Result<Bytes, Fatal> {
    Fields::parse(record).map(|fields| fields.value)
}

/// The same record with another lease.
pub fn with_lease(record: &Bytes, lease: i64) -> Result<Bytes, Fatal> {
    let f = Fields::parse(record)?;
    Ok(encode_put(&f.key, &f.value, f.create_revision, f.mod_revision, f.version, lease))
}

/// The same record without its value, as `keys_only` answers it.
pub fn without_value(record: &Bytes) -> Result<Bytes, Fatal> {
    let f = Fields::parse(record)?;
    Ok(encode_put(&f.key, &[], f.create_revision, f.mod_revision, f.version, f.lease))
}

fn malformed(what: impl std::fmt::Display) -> Fatal {
    Fatal::new(format_args!("a stored record is malformed: {what}"))
}

fn write_int(out: &mut BytesMut, field: u32, number: i64) {
    if number != 0 {
        out.put_u8((field << 3) as u8 | WIRE_VARINT as u8);
        encode_varint(number as u64, out);
    }
}

fn write_bytes(out: &mut BytesMut, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.put_u8((field << 3) as u8 | WIRE_LENGTH as u8);
        encode_varint(bytes.len() as u64, out);
        out.put_slice(bytes);
    }
}

fn int_length(number: i64) -> usize {
    if number == 0 { 0 } else { 1 + encoded_len_varint(number as u64) }
}

fn bytes_length(length: usize) -> usize {
    if length == 0 { 0 } else { 1 + encoded_len_varint(length as u64) + length }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wire type as a protobuf library sees it, to hold the hand-written encoding against.
    #[derive(Clone, PartialEq, prost::Message)]
    struct KeyValue {
        #[prost(bytes = "bytes", tag = "1")]
        key: Bytes,
        #[prost(int64, tag = "2")]
        create_revision: i64,
        #[prost(int64, tag = "3")]
        mod_revision: i64,
        #[prost(int64, tag = "4")]
        version: i64,
        #[prost(bytes = "bytes", tag = "5")]
        value: Bytes,
        #[prost(int64, tag = "6")]
        lease: i64,
    }

    proptest::proptest! {
        #[test]
        fn equals_what_a_protobuf_library_writes(
            key in proptest::collection::vec(0u8.., 0..300),
            value in proptest::collection::vec(0u8.., 0..300),
            numbers in proptest::array::uniform4(proptest::prop_oneof![0i64..200, i64::MIN..=i64::MAX]),
        ) {
            use prost::Message;
            let [create_revision, mod_revision, version, lease] = numbers;
            let (key, value) = (Bytes::from(key), Bytes::from(value));
            let ours = encode_put(&key, &value, create_revision, mod_revision, version, lease);
            let theirs = KeyValue {
                key: key.clone(), create_revision, mod_revision, version, value: value.clone(), lease,
            };
            assert_eq!(ours, theirs.encode_to_vec());
            let fields = Fields::parse(&ours).unwrap();
            let expected = Fields { key, create_revision, mod_revision, version, value, lease };
            assert_eq!(fields, expected);
        }
    }

    #[test]
    fn tombstones_hold_key_and_mod_revision_only() {
        let record = Record::tombstone(Revision::new(9, 1), Bytes::from_static(b"k"));
        assert_eq!(&record.bytes[..], [0x0a, 1, b'k', 0x18, 9]);
    }

    #[test]
    fn splices_change_one_field() {
        let key = Bytes::from_static(b"k");
        let record = Record::put(Revision::new(7, 0), key, b"value", 5, 2, 11);
        assert_eq!(value_of(&record.bytes).unwrap(), "value");
        assert_eq!(with_lease(&record.bytes, 0).unwrap(), encode_put(b"k", b"value", 5, 7, 2, 0));
        assert_eq!(without_value(&record.bytes).unwrap(), encode_put(b"k", b"", 5, 7, 2, 11));
    }

    #[test]
    fn damage_is_an_error() {
        let record = Record::put(Revision::new(7, 0), Bytes::from_static(b"k"), b"value", 5, 2, 0);
        let cut = record.bytes.slice(..record.bytes.len() - 1);
        assert!(Fields::parse(&cut).is_err());
    }
}
