//! Protobuf's JSON mapping, as etcd's gateway has it: names as in the .proto files, nothing that is
//! zero, 64-bit numbers as text. What arrives may have names in camel case, and fields and words
//! that nobody knows are passed over.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::Code;

use super::Refusal;
use crate::status::Error;

const PRINTED: SerializeOptions = SerializeOptions::new()
    .use_proto_field_name(true)
    .skip_default_fields(true)
    .stringify_64_bit_integers(true);
const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);

/// Reads a body to its end, and refuses one of more than `text_limit` bytes as a message that is
/// longer than `limit`. What cannot be used any more is not kept.
pub(super) async fn receive(
    mut body: hyper::body::Incoming,
    text_limit: usize,
    limit: usize,
) -> Result<BytesMut, Refusal> {
    let mut text = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(frame) = frame else {
            return Err(Refusal::new(Code::Cancelled, "context canceled"));
        };
        let data = frame.into_data().unwrap_or_default();
        length += data.len();
        if length <= text_limit {
            text.extend_from_slice(&data);
        } else {
            text = BytesMut::new();
        }
    }
    if length > text_limit {
        return Err(Error::message_too_large(length, limit).into());
    }
    Ok(text)
}

/// The framed message of the first value in a text; what comes after it is not looked at.
pub(super) fn to_protobuf(text: &[u8], input: &MessageDescriptor) -> Result<Bytes, Refusal> {
    if text.trim_ascii().is_empty() {
        return Ok(super::framed(&[]));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let message = DynamicMessage::deserialize_with_options(input.clone(), &mut json, &READ);
    let message = message.map_err(|error| {
        let text = if error.is_eof() { "unexpected EOF".into() } else { format!("proto: {error}") };
        Refusal::new(Code::InvalidArgument, text)
    })?;
    Ok(super::framed(&message.encode_to_vec()))
}

/// A message as JSON.
pub(super) fn to_json(message: Bytes, output: MessageDescriptor) -> Result<Bytes, Refusal> {
    let mut text = Vec::with_capacity(message.len() * 2);
    print(message, output, &mut text)?;
    Ok(text.into())
}

/// A message of a stream as one line.
pub(super) fn to_line(message: Bytes, output: MessageDescriptor) -> Result<Bytes, Refusal> {
    let mut line = Vec::with_capacity(message.len() * 2);
    line.extend_from_slice(br#"{"result":"#);
    print(message, output, &mut line)?;
    line.extend_from_slice(b"}\n");
    Ok(line.into())
}

fn print(message: Bytes, output: MessageDescriptor, into: &mut Vec<u8>) -> Result<(), Refusal> {
    let message = DynamicMessage::decode(output, message)
        .map_err(|error| Error::internal(error.to_string()))?;
    message
        .serialize_with_options(&mut serde_json::Serializer::new(into), &PRINTED)
        .map_err(|error| Error::internal(error.to_string()).into())
}

#[cfg(test)]
mod tests {
    use holdfast_proto::etcdserverpb::{
        RangeRequest, RangeResponse, TxnRequest, compare, request_op,
    };
    use holdfast_proto::{EncodedKeyValue, mvccpb::KeyValue};

    use super::super::routes;
    use super::*;
    use crate::rpc;

    fn read<M: prost::Message + Default>(path: &str, text: &str) -> Result<M, Refusal> {
        let method = routes::find(path).expect("a path");
        let framed = to_protobuf(text.as_bytes(), &method.input())?;
        Ok(M::decode(framed.slice(rpc::PREFIX..)).expect("a message"))
    }

    #[test]
    fn names_numbers_bytes_and_words_are_read_in_all_their_forms() {
        let expected = RangeRequest {
            key: Bytes::from_static(b"\xfb\xef\xbe\xff"),
            limit: 1 << 53,
            sort_order: 2,
            keys_only: true,
            ..RangeRequest::default()
        };
        for text in [
            r#"{"key":"++++/w==","limit":"9007199254740992","sort_order":"DESCEND","keys_only":true}"#,
            r#"{"key":"----_w","limit":9007199254740992,"sortOrder":2,"keysOnly":true}"#,
            r#" {"key":"++++/w","limit":9007199254740992,"sort_order":2,"keys_only":true,"x":[{}],
                "sort_target":"NOBODY","range_end":null} and what follows"#,
        ] {
            assert_eq!(read("/v3/kv/range", text), Ok(expected.clone()), "{text}");
        }
        assert_eq!(read("/v3/kv/range", " \n"), Ok(RangeRequest::default()));
    }

    #[test]
    fn a_zero_within_a_choice_is_a_choice() {
        let text = r#"{"compare":[{"version":"0"}],"success":[{"request_range":{}}]}"#;
        let txn: TxnRequest = read("/v3/kv/txn", text).expect("a transaction");
        assert_eq!(txn.compare[0].target_union, Some(compare::TargetUnion::Version(0)));
        let range = request_op::Request::RequestRange(RangeRequest::default());
        assert_eq!(txn.success[0].request, Some(range));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let deep = format!(r#"{{"x":{}"#, "[".repeat(100_000));
        for text in [
            "[]",
            "5",
            r#"{"key":5}"#,
            r#"{"key":"*"}"#,
            r#"{"limit":1.5}"#,
            r#"{"limit":"x"}"#,
            r#"{"limit":99999999999999999999}"#,
            r#"{"keys_only":"true"}"#,
            r#"{"key":["YQ=="]}"#,
            "{bad",
            deep.as_str(),
        ] {
            let refusal = read::<RangeRequest>("/v3/kv/range", text).expect_err(text);
            assert_eq!(refusal.to_json()["code"], 3, "{text}");
        }
        let cut = read::<RangeRequest>("/v3/kv/range", r#"{"key":"#).expect_err("cut short");
        assert_eq!(cut, Refusal::new(Code::InvalidArgument, "unexpected EOF"));
    }

    #[test]
    fn answers_are_printed_as_etcd_prints_them() {
        let kv = KeyValue {
            key: Bytes::from_static(b"foo"),
            mod_revision: 1 << 60,
            ..KeyValue::default()
        };
        let response = RangeResponse {
            kvs: vec![EncodedKeyValue::from(&kv)],
            count: 1,
            ..RangeResponse::default()
        };
        let output = routes::find("/v3/kv/range").expect("a path").output();
        let line = to_line(response.encode_to_vec().into(), output).expect("a message");
        let expected = concat!(
            r#"{"result":{"kvs":[{"key":"Zm9v","mod_revision":"1152921504606846976"}],"count":"1"}}"#,
            "\n"
        );
        assert_eq!(line, expected);
    }
}
