package differ

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Limits of a random txn. The server's own limit on operations is met by the
// bad-input suite.
const (
	txnDepthMost = 3
	txnOpsMost   = 4
)

func (g *generator) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{Serializable: g.profile.Members == 1 && g.chance(30)}
	r.Key, r.RangeEnd = g.span()
	if g.chance(30) {
		r.Revision = g.pastRevision()
	}
	if g.chance(40) {
		r.Limit = int64(g.IntN(8)) - 1
	}
	if g.chance(40) {
		r.SortOrder = pb.RangeRequest_SortOrder(g.IntN(3))
		r.SortTarget = pb.RangeRequest_SortTarget(g.IntN(5))
	}
	if g.chance(1) {
		r.SortTarget = 7
	}
	if g.chance(1) {
		r.SortOrder = -2
	}
	r.KeysOnly, r.CountOnly = g.chance(10), g.chance(10)
	for _, filter := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if g.chance(6) {
			*filter = g.someRevision()
		}
	}
	return r
}

// streamRequest is a range that RangeStream mostly serves.
func (g *generator) streamRequest() *pb.RangeRequest {
	r := g.rangeRequest()
	if g.chance(90) {
		r.SortOrder, r.SortTarget = pb.RangeRequest_NONE, pb.RangeRequest_KEY
		r.MinModRevision, r.MaxModRevision, r.MinCreateRevision, r.MaxCreateRevision = 0, 0, 0, 0
	}
	return spareStream(r)
}

func (g *generator) putRequest() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.chance(30)}
	switch {
	case g.chance(20):
		r.Lease = g.lease()
	case g.chance(5):
		r.IgnoreLease = true
	}
	if g.chance(5) {
		r.IgnoreValue = true
		if g.chance(90) {
			r.Value = nil
		}
	}
	return r
}

func (g *generator) txnRequest(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.IntN(3) {
		r.Compare = append(r.Compare, g.compare())
	}
	for range g.IntN(txnOpsMost) {
		r.Success = append(r.Success, g.requestOp(depth))
	}
	for range g.IntN(txnOpsMost) {
		r.Failure = append(r.Failure, g.requestOp(depth))
	}
	if g.profile.Members > 1 && len(r.Success)+len(r.Failure) == 0 {
		r.Success = []*pb.RequestOp{g.requestOp(txnDepthMost)}
	}
	return r
}

func (g *generator) requestOp(depth int) *pb.RequestOp {
	switch draw := g.IntN(100); {
	case draw < 40:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.putRequest()}}
	case draw < 70:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}}
	case draw < 85 || depth >= txnDepthMost:
		key, end := g.span()
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: key, RangeEnd: end, PrevKv: g.chance(50)}}}
	case draw < 99:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txnRequest(depth + 1)}}
	default:
		return &pb.RequestOp{}
	}
}

func (g *generator) compare() *pb.Compare {
	c := &pb.Compare{
		Key:    g.key(),
		Result: pb.Compare_CompareResult(g.IntN(4)),
		Target: pb.Compare_CompareTarget(g.IntN(5)),
	}
	if g.chance(30) {
		c.Key, c.RangeEnd = g.span()
	}
	g.fillUnion(c)
	if g.chance(1) {
		c.Result = 8
	}
	if g.chance(1) {
		c.Target = 8
	}
	return c
}

// fillUnion gives the compare a value that is often the right one.
func (g *generator) fillUnion(c *pb.Compare) {
	if g.chance(3) {
		return
	}
	switch c.Target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: g.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.zeroOr(g.someRevision())}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.zeroOr(g.someRevision())}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: g.value()}
	case pb.Compare_LEASE:
		lease := g.zeroOr(g.lease())
		if ordered := c.Result == pb.Compare_GREATER || c.Result == pb.Compare_LESS; ordered && g.profile.OwnLeases {
			lease = 0
		}
		c.TargetUnion = &pb.Compare_Lease{Lease: lease}
	}
}

func (g *generator) zeroOr(v int64) int64 {
	if g.chance(40) {
		return 0
	}
	return v
}

func (g *generator) watchRequest() *pb.WatchCreateRequest {
	r := &pb.WatchCreateRequest{PrevKv: g.chance(50), ProgressNotify: g.chance(20), Fragment: g.chance(20)}
	r.Key, r.RangeEnd = g.span()
	if g.chance(50) {
		r.StartRevision = g.pastRevision()
	}
	if g.chance(10) {
		r.WatchId = int64(g.IntN(12))
	}
	switch draw := g.IntN(100); {
	case draw < 10:
		r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
	case draw < 20:
		r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
	case draw < 22:
		r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE, pb.WatchCreateRequest_NOPUT}
	}
	return r
}
