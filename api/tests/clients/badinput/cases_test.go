package badinput

import (
	"bytes"
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"holdfast.dev/clients/wire"
)

// request is one call on one member, with its answer.
type request func(ctx context.Context, c wire.Connection) wire.Outcome

// badCase is a request that a server must refuse, or accept in a way that is
// easy to get wrong.
type badCase struct {
	name string
	send request
}

func rangeOf(r *pb.RangeRequest) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome { return wire.Reply(c.KV.Range(ctx, r)) }
}

func put(r *pb.PutRequest) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome { return wire.Reply(c.KV.Put(ctx, r)) }
}

func deleteRange(r *pb.DeleteRangeRequest) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome { return wire.Reply(c.KV.DeleteRange(ctx, r)) }
}

func txn(r *pb.TxnRequest) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome { return wire.Reply(c.KV.Txn(ctx, r)) }
}

func compact(revision int64, physical bool) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome {
		return wire.Reply(c.KV.Compact(ctx, &pb.CompactionRequest{Revision: revision, Physical: physical}))
	}
}

func grant(id, ttl int64) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome {
		return wire.Reply(c.Lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl}))
	}
}

func revoke(id int64) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome {
		return wire.Reply(c.Lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id}))
	}
}

func timeToLive(id int64) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome {
		return wire.Reply(c.Lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true}))
	}
}

func hashKV(revision int64) request {
	return func(ctx context.Context, c wire.Connection) wire.Outcome {
		response, err := c.Maintenance.HashKV(ctx, &pb.HashKVRequest{Revision: revision})
		return wire.Reply(response, err)
	}
}

var (
	keyA  = []byte("a")
	keyB  = []byte("b")
	keyC  = []byte("c")
	all   = []byte{0}
	large = bytes.Repeat([]byte("v"), 2<<20)
)

func opPut(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: []byte("t")}}}
}

func opPutRequest(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func opRange(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func opDelete(key, end []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: key, RangeEnd: end}}}
}

func opTxn(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

func success(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: ops} }

// many makes n puts of different keys.
func many(n int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for i := range n {
		ops = append(ops, opPut([]byte{'m', byte(i >> 8), byte(i)}))
	}
	return ops
}

func compares(n int) []*pb.Compare {
	var list []*pb.Compare
	for range n {
		list = append(list, &pb.Compare{Key: keyA, Target: pb.Compare_VERSION,
			TargetUnion: &pb.Compare_Version{Version: 0}, Result: pb.Compare_EQUAL})
	}
	return list
}

// The store these cases meet: a at revisions 2 to 6, b at 7, compacted at 4,
// lease 77 granted.
var preparation = []request{
	put(&pb.PutRequest{Key: keyA, Value: []byte("1")}),
	put(&pb.PutRequest{Key: keyA, Value: []byte("2")}),
	put(&pb.PutRequest{Key: keyA, Value: []byte("3")}),
	put(&pb.PutRequest{Key: keyA, Value: []byte("4")}),
	put(&pb.PutRequest{Key: keyA, Value: []byte("5")}),
	put(&pb.PutRequest{Key: keyB, Value: []byte("1")}),
	grant(77, 1000),
	compact(4, true),
}

var rangeCases = []badCase{
	{"range: empty key", rangeOf(&pb.RangeRequest{})},
	{"range: empty key with an end", rangeOf(&pb.RangeRequest{RangeEnd: keyB})},
	{"range: future revision", rangeOf(&pb.RangeRequest{Key: keyA, Revision: 1000})},
	{"range: next revision", rangeOf(&pb.RangeRequest{Key: keyA, Revision: 8})},
	{"range: compacted revision", rangeOf(&pb.RangeRequest{Key: keyA, Revision: 3})},
	{"range: the compacted revision itself", rangeOf(&pb.RangeRequest{Key: keyA, Revision: 4})},
	{"range: negative revision", rangeOf(&pb.RangeRequest{Key: keyA, Revision: -3})},
	{"range: negative limit", rangeOf(&pb.RangeRequest{Key: all, RangeEnd: all, Limit: -1})},
	{"range: end before key", rangeOf(&pb.RangeRequest{Key: keyB, RangeEnd: keyA})},
	{"range: end equals key", rangeOf(&pb.RangeRequest{Key: keyA, RangeEnd: keyA})},
	{"range: unknown sort order", rangeOf(&pb.RangeRequest{Key: keyA, SortOrder: 9})},
	{"range: unknown sort target", rangeOf(&pb.RangeRequest{Key: keyA, SortTarget: 9})},
	{"range: negative sort order", rangeOf(&pb.RangeRequest{Key: keyA, SortOrder: -1})},
	{"range: negative sort target", rangeOf(&pb.RangeRequest{Key: keyA, SortTarget: -1})},
	{"range: compacted revision, serializable", rangeOf(&pb.RangeRequest{Key: keyA, Revision: 3, Serializable: true})},
	{"range: future revision, count only", rangeOf(&pb.RangeRequest{Key: keyA, Revision: 1000, CountOnly: true})},
	{"range: empty key and future revision", rangeOf(&pb.RangeRequest{Revision: 1000})},
	{"range: largest revision", rangeOf(&pb.RangeRequest{Key: keyA, Revision: 1<<63 - 1})},
}

var writeCases = []badCase{
	{"put: empty key", put(&pb.PutRequest{Value: []byte("v")})},
	{"put: oversize value", put(&pb.PutRequest{Key: keyA, Value: large})},
	{"put: oversize key", put(&pb.PutRequest{Key: large})},
	{"put: value past the message limit", put(&pb.PutRequest{Key: keyA, Value: bytes.Repeat(large, 2)})},
	{"put: just under the request limit", put(&pb.PutRequest{Key: keyC, Value: large[:1572864-200]})},
	{"put: just over the request limit", put(&pb.PutRequest{Key: keyC, Value: large[:1572864]})},
	{"put: unknown lease", put(&pb.PutRequest{Key: keyA, Lease: 12345})},
	{"put: negative lease", put(&pb.PutRequest{Key: keyA, Lease: -5})},
	{"put: ignore value with a value", put(&pb.PutRequest{Key: keyA, Value: []byte("v"), IgnoreValue: true})},
	{"put: ignore lease with a lease", put(&pb.PutRequest{Key: keyA, Lease: 77, IgnoreLease: true})},
	{"put: ignore value of a missing key", put(&pb.PutRequest{Key: []byte("none"), IgnoreValue: true})},
	{"put: ignore lease of a missing key", put(&pb.PutRequest{Key: []byte("none"), IgnoreLease: true})},
	{"put: ignore value, unknown lease", put(&pb.PutRequest{Key: keyA, IgnoreValue: true, Lease: 12345})},
	{"put: ignore value of a missing key, unknown lease", put(&pb.PutRequest{Key: []byte("none"), IgnoreValue: true, Lease: 12345})},
	{"delete: empty key", deleteRange(&pb.DeleteRangeRequest{})},
	{"delete: empty key with an end", deleteRange(&pb.DeleteRangeRequest{RangeEnd: keyB})},
	{"delete: missing key", deleteRange(&pb.DeleteRangeRequest{Key: []byte("none"), PrevKv: true})},
	{"delete: end before key", deleteRange(&pb.DeleteRangeRequest{Key: keyB, RangeEnd: keyA, PrevKv: true})},
	{"compact: future revision", compact(1000, false)},
	{"compact: compacted revision", compact(4, false)},
	{"compact: older revision", compact(2, true)},
	{"compact: zero", compact(0, false)},
	{"compact: negative", compact(-1, false)},
	{"hashkv: future revision", hashKV(1000)},
	{"hashkv: compacted revision", hashKV(3)},
	{"hashkv: negative revision", hashKV(-1)},
	{"hashkv: current", hashKV(0)},
}

var leaseCases = []badCase{
	{"lease: grant an id that exists", grant(77, 10)},
	{"lease: ttl too large", grant(78, 9000000001)},
	{"lease: largest ttl", grant(79, 9000000000)},
	{"lease: ttl overflow", grant(80, 1<<63-1)},
	{"lease: ttl zero", grant(81, 0)},
	{"lease: ttl negative", grant(82, -10)},
	{"lease: ttl one", grant(83, 1)},
	{"lease: negative id", grant(-9, 1000)},
	{"lease: revoke unknown", revoke(12345)},
	{"lease: revoke zero", revoke(0)},
	{"lease: time to live of unknown", timeToLive(12345)},
	{"lease: time to live of zero", timeToLive(0)},
	{"lease: keep alive of unknown", keepAlive(12345)},
	{"lease: keep alive of zero", keepAlive(0)},
}
