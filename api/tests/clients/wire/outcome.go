package wire

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Outcome is a response or an error, whichever came.
type Outcome struct {
	Response proto.Message
	Err      error
}

// Reply makes an outcome of a call's two results.
func Reply[T proto.Message](response T, err error) Outcome {
	if err != nil {
		return Outcome{Err: err}
	}
	return Outcome{Response: response}
}

// String is the whole outcome as text, of which two are compared.
func (o Outcome) String() string {
	if o.Err != nil {
		return ErrorText(o.Err)
	}
	return prototext.MarshalOptions{Multiline: true}.Format(o.Response)
}

// ErrorText is a gRPC error's code and exact message.
func ErrorText(err error) string {
	s, ok := status.FromError(err)
	if !ok {
		return fmt.Sprintf("not a gRPC status: %v", err)
	}
	return fmt.Sprintf("error %s (%d): %q", s.Code(), s.Code(), s.Message())
}

// Same says whether two outcomes are equal, bytes and presence of fields
// included. Both must have been normalized.
func Same(a, b Outcome) bool {
	if (a.Err == nil) != (b.Err == nil) {
		return false
	}
	if a.Err != nil {
		return ErrorText(a.Err) == ErrorText(b.Err)
	}
	return proto.Equal(a.Response, b.Response)
}

// LeaseNames translates one side's lease ids into names that both sides share.
type LeaseNames func(id int64) int64

// Normalize replaces, in place, what two servers are free to choose: cluster
// and member ids and terms become 1 where they are set, lease ids get the
// shared names. Revisions stay.
func Normalize(message proto.Message, leases LeaseNames) {
	if message == nil || !message.ProtoReflect().IsValid() {
		return
	}
	normalizeOne(message, leases)
	message.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Message() == nil || field.IsMap() {
			return true
		}
		if !field.IsList() {
			Normalize(value.Message().Interface(), leases)
			return true
		}
		for i := range value.List().Len() {
			Normalize(value.List().Get(i).Message().Interface(), leases)
		}
		return true
	})
}

func normalizeOne(message proto.Message, leases LeaseNames) {
	switch m := message.(type) {
	case *pb.ResponseHeader:
		m.ClusterId, m.MemberId, m.RaftTerm = shape(m.ClusterId), shape(m.MemberId), shape(m.RaftTerm)
	case *mvccpb.KeyValue:
		m.Lease = leases(m.Lease)
	case *pb.LeaseGrantResponse:
		m.ID = leases(m.ID)
	case *pb.LeaseKeepAliveResponse:
		m.ID = leases(m.ID)
	case *pb.LeaseTimeToLiveResponse:
		m.ID = leases(m.ID)
	case *pb.LeaseStatus:
		m.ID = leases(m.ID)
	}
}

// shape keeps only whether a number is set.
func shape(n uint64) uint64 { return min(n, 1) }

// SameLeases is for servers whose lease ids the client chose.
func SameLeases(id int64) int64 { return id }

// MergeChunk adds one chunk of a range stream to what came before: lists grow,
// the fields that only the last chunk carries are taken over.
func MergeChunk(into, chunk *pb.RangeResponse) {
	proto.Merge(into, chunk)
}
