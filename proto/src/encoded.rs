//! A protobuf message that stays in its encoded form.
//!
//! The server keeps key versions as the bytes clients will receive. Wrapping those bytes lets the
//! generated response types carry them as they are: encoding is one copy, nothing is decoded.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{DecodeContext, WireType, encode_key, encode_varint};
use prost::{DecodeError, Message};

use crate::mvccpb::{Event, KeyValue};

/// An encoded `mvccpb.KeyValue`.
pub type EncodedKeyValue = Encoded<KeyValue>;
/// An encoded `mvccpb.Event`.
pub type EncodedEvent = Encoded<Event>;

/// The encoding of one `M`, written to the wire as it is.
pub struct Encoded<M> {
    bytes: Bytes,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Encoded<M> {
    /// Wraps bytes that must be the encoding of an `M`; they are not checked.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, message: PhantomData }
    }

    /// The encoding itself.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The message, or why the bytes are not one.
    pub fn decode_message(&self) -> Result<M, DecodeError> {
        M::decode(self.bytes.clone())
    }
}

impl<M: Message + Default> From<&M> for Encoded<M> {
    fn from(message: &M) -> Self {
        Self::new(message.encode_to_vec().into())
    }
}

impl<M> Default for Encoded<M> {
    fn default() -> Self {
        Self { bytes: Bytes::new(), message: PhantomData }
    }
}

impl<M> Clone for Encoded<M> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), message: PhantomData }
    }
}

impl<M> PartialEq for Encoded<M> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<M> Eq for Encoded<M> {}

impl<M> Hash for Encoded<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl<M: Message + Default + fmt::Debug> fmt::Debug for Encoded<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decode_message() {
            Ok(message) => message.fmt(f),
            Err(_) => write!(f, "Encoded({} bytes)", self.bytes.len()),
        }
    }
}

impl<M: Message + Default> Message for Encoded<M> {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.bytes);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        _context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut bytes = BytesMut::from(std::mem::take(&mut self.bytes));
        encode_key(tag, wire_type, &mut bytes);
        match wire_type {
            WireType::Varint => encode_varint(prost::encoding::decode_varint(buf)?, &mut bytes),
            WireType::SixtyFourBit => copy(8, buf, &mut bytes)?,
            WireType::ThirtyTwoBit => copy(4, buf, &mut bytes)?,
            WireType::LengthDelimited => {
                let length = prost::encoding::decode_varint(buf)?;
                encode_varint(length, &mut bytes);
                let length = usize::try_from(length).map_err(|_| too_short())?;
                copy(length, buf, &mut bytes)?;
            }
            // proto3 has no groups, so neither of these can be part of an `M`.
            WireType::StartGroup | WireType::EndGroup => {
                #[allow(deprecated)]
                return Err(DecodeError::new("a group where none can be"));
            }
        }
        self.bytes = bytes.freeze();
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes = Bytes::new();
    }
}

fn copy(length: usize, buf: &mut impl Buf, into: &mut BytesMut) -> Result<(), DecodeError> {
    if buf.remaining() < length {
        return Err(too_short());
    }
    into.put(buf.take(length));
    Ok(())
}

#[allow(deprecated)]
fn too_short() -> DecodeError {
    DecodeError::new("the message ends within a field")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcdserverpb::RangeResponse;

    #[test]
    fn a_response_with_spliced_records_decodes_to_the_same_records() {
        let version = KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: 2,
            mod_revision: 7,
            version: 3,
            value: Bytes::from_static(b"\0value"),
            lease: 1 << 40,
        };
        let response = RangeResponse { kvs: vec![(&version).into(); 2], ..Default::default() };
        let decoded = RangeResponse::decode(response.encode_to_vec().as_slice()).expect("decodes");
        assert_eq!(decoded, response);
        assert_eq!(decoded.kvs[1].decode_message().expect("decodes"), version);
    }

    #[test]
    fn a_field_cut_short_is_an_error() {
        let mut message = EncodedKeyValue::default();
        assert!(message.merge([0x0a, 0x05, b'a'].as_slice()).is_err());
    }

    #[test]
    fn the_hand_written_fields_are_those_of_the_proto_file() {
        let files = prost_types_fields();
        assert_eq!(
            files,
            ["key=1", "create_revision=2", "mod_revision=3", "version=4", "value=5", "lease=6"]
        );
    }

    /// Names and numbers of `mvccpb.KeyValue`'s fields as the descriptor set has them.
    fn prost_types_fields() -> Vec<String> {
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET)
            .expect("the descriptor set decodes");
        let file = set.file.iter().find(|f| f.package() == "mvccpb").expect("mvcc.proto");
        let message = file.message_type.iter().find(|m| m.name() == "KeyValue").expect("KeyValue");
        message.field.iter().map(|f| format!("{}={}", f.name(), f.number())).collect()
    }
}
