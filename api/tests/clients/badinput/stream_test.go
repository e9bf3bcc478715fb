package badinput

import (
	"context"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"

	"holdfast.dev/clients/wire"
)

// keepAlive sends one renewal and takes the first answer.
func keepAlive(id int64) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome {
		stream, err := c.Lease.LeaseKeepAlive(ctx)
		if err != nil {
			return wire.Outcome{Err: err}
		}
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			return wire.Outcome{Err: err}
		}
		return wire.Reply(stream.Recv())
	}
}

// watch creates one watch and takes the first answers, at most n.
func watch(n int, requests ...*pb.WatchRequest) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		stream, err := c.Watch.Watch(ctx)
		if err != nil {
			return wire.Outcome{Err: err}
		}
		for _, r := range requests {
			if err := stream.Send(r); err != nil {
				return wire.Outcome{Err: err}
			}
		}
		// The answers are kept in one message, so that they are compared as one.
		kept := &pb.TxnResponse{}
		for range n {
			response, err := stream.Recv()
			if err != nil {
				return wire.Outcome{Err: err}
			}
			kept.ProtoReflect().SetUnknown(append(kept.ProtoReflect().GetUnknown(), pack(response)...))
		}
		return wire.Outcome{Response: kept}
	}
}

func create(r *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
}

func cancelOf(id int64) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
}

var watchCases = []badCase{
	{"watch: negative start revision", watch(1, create(&pb.WatchCreateRequest{Key: keyA, StartRevision: -1}))},
	{"watch: empty range", watch(1, create(&pb.WatchCreateRequest{Key: keyB, RangeEnd: keyA}))},
	{"watch: end equals key", watch(1, create(&pb.WatchCreateRequest{Key: keyB, RangeEnd: keyB}))},
	{"watch: compacted revision", watch(2, create(&pb.WatchCreateRequest{Key: keyA, StartRevision: 2}))},
	{"watch: the compacted revision itself", watch(2, create(&pb.WatchCreateRequest{Key: keyA, StartRevision: 4, PrevKv: true}))},
	{"watch: duplicate id", watch(2, create(&pb.WatchCreateRequest{Key: keyA, WatchId: 5}), create(&pb.WatchCreateRequest{Key: keyB, WatchId: 5}))},
	{"watch: automatic ids pass a taken one", watch(3, create(&pb.WatchCreateRequest{Key: keyA, WatchId: 1}),
		create(&pb.WatchCreateRequest{Key: keyA}), create(&pb.WatchCreateRequest{Key: keyA}))},
	{"watch: negative id", watch(1, create(&pb.WatchCreateRequest{Key: keyA, WatchId: -7}))},
	{"watch: empty key", watch(1, create(&pb.WatchCreateRequest{}))},
	{"watch: unknown filter", watch(1, create(&pb.WatchCreateRequest{Key: keyA, Filters: []pb.WatchCreateRequest_FilterType{9}}))},
	{"watch: cancel of an unknown id is silent", watch(1, cancelOf(99), create(&pb.WatchCreateRequest{Key: keyA}))},
	{"watch: cancel", watch(2, create(&pb.WatchCreateRequest{Key: keyA, WatchId: 3}), cancelOf(3))},
	{"watch: request with no union is ignored", watch(1, &pb.WatchRequest{}, create(&pb.WatchCreateRequest{Key: keyA}))},
	{"watch: future revision", watch(1, create(&pb.WatchCreateRequest{Key: keyA, StartRevision: 1 << 40}))},
}

// streamed asks RangeStream and merges its chunks.
func streamed(r *pb.RangeRequest) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome {
		stream, err := c.KV.RangeStream(ctx, r)
		if err != nil {
			return wire.Outcome{Err: err}
		}
		merged := &pb.RangeResponse{}
		for {
			chunk, err := stream.Recv()
			if err == io.EOF {
				return wire.Outcome{Response: merged}
			}
			if err != nil {
				return wire.Outcome{Err: err}
			}
			wire.MergeChunk(merged, chunk.RangeResponse)
		}
	}
}

var rangeStreamCases = []badCase{
	{"range stream: everything", streamed(&pb.RangeRequest{Key: all, RangeEnd: all, Limit: 3})},
	{"range stream: empty key", streamed(&pb.RangeRequest{})},
	{"range stream: future revision", streamed(&pb.RangeRequest{Key: keyA, Revision: 1000})},
	{"range stream: compacted revision", streamed(&pb.RangeRequest{Key: keyA, Revision: 2})},
	{"range stream: descending", streamed(&pb.RangeRequest{Key: keyA, SortOrder: pb.RangeRequest_DESCEND})},
	{"range stream: ascending by key", streamed(&pb.RangeRequest{Key: keyA, SortOrder: pb.RangeRequest_ASCEND})},
	{"range stream: by value", streamed(&pb.RangeRequest{Key: keyA, SortTarget: pb.RangeRequest_VALUE})},
	{"range stream: filter", streamed(&pb.RangeRequest{Key: keyA, MinModRevision: 3})},
	{"range stream: unknown sort order", streamed(&pb.RangeRequest{Key: keyA, SortOrder: 9})},
	{"range stream: count only", streamed(&pb.RangeRequest{Key: all, RangeEnd: all, CountOnly: true})},
	{"range stream: negative limit", streamed(&pb.RangeRequest{Key: keyA, RangeEnd: keyC, Limit: -1, KeysOnly: true})},
}

// withMetadata sends a plain read with one more header.
func withMetadata(key, value string) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome {
		return rangeOf(&pb.RangeRequest{Key: keyA})(metadata.AppendToOutgoingContext(ctx, key, value), c)
	}
}

var metadataCases = []badCase{
	{"metadata: hasleader", withMetadata("hasleader", "true")},
	{"metadata: hasleader with another word", withMetadata("hasleader", "maybe")},
	{"metadata: a token while auth is off", withMetadata("token", "nonsense")},
	{"metadata: authorization while auth is off", withMetadata("authorization", "Bearer nonsense")},
	{"metadata: client api version", withMetadata("client-api-version", "3.7")},
	{"metadata: empty client api version", withMetadata("client-api-version", "")},
}
