package differ

import (
	"bytes"
	"cmp"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// This file is the whole list of what is not compared.
//
// In the generator (generate.go):
//   - A lease id that the server picks is compared only for equality with
//     others, never by order, since servers pick as they like.
//   - Leases of a stream outlive it, except those of an expire operation: the
//     instant of an expiry is not defined, and other operations would see it or
//     not. Expire grants, waits until both sides have deleted the key, and goes
//     on.
//   - A txn that deletes an open-ended range puts nothing with ignore_value or
//     ignore_lease: etcd does not see that the range holds the key, and panics
//     when it is gone (spareEtcd).
//   - A range stream names no sort target without an order: etcd sorts each
//     chunk and takes the next from the last key, and so skips and repeats keys
//     (spareStream).
//   - Sizes, quota, alarms, auth and membership are not in the streams: sizes
//     are a server's own, the others have suites of their own.
//   - Against a target of several members, reads are linearizable, and an
//     operation that reads a member's own state is preceded by a linearizable
//     read there: a serializable answer may be old by definition.
//
//   - Beside Debian's etcd 3.4.23, what it does not have or does otherwise than
//     every supported etcd (debianHas, each with its reason).
//
// In the player (player.go, watches.go):
//   - How events are grouped into watch responses, and the revision in their
//     headers: both depend on when a watcher catches up. That a revision is
//     never split, and that the header is not below the events, is checked.
//   - A compaction, a cancellation and a restart wait until all events are
//     delivered: otherwise how many come before is not defined.
//   - A watch that may still be catching up is canceled before a compaction:
//     whether the compaction overtakes it is a race in etcd as well.
//   - A stream on which a watch was canceled for a compaction is ended: etcd
//     keeps such a watch's id taken and answers no progress request on that
//     stream any more, which no client can want.
//   - A manual progress request is repeated until it is answered: a server may
//     stay silent while a watcher catches up. It is not sent while a watcher
//     waits for a future revision, when the answer is silence.
//   - No compaction at a revision that changed one key twice, deletion first
//     (spareCompaction): etcd keeps the deletion, drops the put, and panics when
//     it reads the key.
//   - No compaction at revision 0 (spareCompaction): etcd keeps a hash of it, and
//     answers every later HashKV of the latest revision with that.
//   - HashKV is asked at revisions above the compacted one only (hashDefined):
//     at and below it, etcd answers with what it kept of a compaction, once the
//     compaction has finished in its own time.
//   - The hash of HashKV is not compared once the server has picked a lease id,
//     which is part of the hashed records.
//
// In wire.Normalize: cluster ids, member ids and terms by shape.
//
// Below, by what they do to a response: ties, instants, and orders that no
// server promises.

// spareEtcd takes ignore_value and ignore_lease out of a txn that etcd might
// die of.
func spareEtcd(txn *pb.TxnRequest) *pb.TxnRequest {
	openEnded := false
	eachOp(txn, func(op *pb.RequestOp) {
		if r := op.GetRequestDeleteRange(); r != nil && bytes.Equal(r.RangeEnd, []byte{0}) {
			openEnded = true
		}
	})
	if openEnded {
		eachOp(txn, func(op *pb.RequestOp) {
			if r := op.GetRequestPut(); r != nil {
				r.IgnoreValue, r.IgnoreLease = false, false
			}
		})
	}
	return txn
}

// hashDefined says whether etcd's answer to a HashKV depends on the operations
// alone.
func hashDefined(s scene, request *pb.HashKVRequest) bool {
	revision := s.revision(request.Revision)
	return request.Revision == 0 || revision > s.compacted && revision > 0
}

// spareCompaction says whether etcd survives a compaction at a revision, and can
// be asked for hashes afterwards.
func spareCompaction(history []*mvccpb.Event, revision int64) bool {
	if revision == 0 {
		return false
	}
	seen := map[string]bool{}
	for _, event := range eventsOf(history, revision) {
		if seen[string(event.Kv.Key)] {
			return false
		}
		seen[string(event.Kv.Key)] = true
	}
	return true
}

// spareStream takes away a sort target that etcd trips over.
func spareStream(r *pb.RangeRequest) *pb.RangeRequest {
	if r.SortOrder == pb.RangeRequest_NONE {
		r.SortTarget = pb.RangeRequest_KEY
	}
	return r
}

func eachOp(txn *pb.TxnRequest, visit func(*pb.RequestOp)) {
	for _, op := range slices.Concat(txn.Success, txn.Failure) {
		visit(op)
		if nested := op.GetRequestTxn(); nested != nil {
			eachOp(nested, visit)
		}
	}
}

// debianHas says whether etcd 3.4.23 can be asked.
func debianHas(o Operation) bool {
	switch o.Kind {
	case RangeStream: // came with 3.7
		return false
	case HashKV: // has no hash_revision, and hashes what 3.5.15 does not
		return false
	case Progress: // may overtake events, and was mended in 3.4.31
		return false
	case Watch: // a start that is compacted or negative is answered otherwise
		start := o.Request.(*pb.WatchCreateRequest).StartRevision
		return start == 0 || start >= atCurrent && start < atCurrent+offsetMost
	case Txn:
		has, mayMissRevision, mayMissKey := true, false, false
		eachOp(o.Request.(*pb.TxnRequest), func(op *pb.RequestOp) {
			if r := op.GetRequestRange(); r != nil {
				has = has && debianKnows(r)
				mayMissRevision = mayMissRevision || r.Revision != 0
			}
			if r := op.GetRequestPut(); r != nil {
				has = has && debianAgrees(r)
				mayMissKey = mayMissKey || r.Lease != 0 || r.IgnoreValue || r.IgnoreLease
			}
		})
		return has && !(mayMissRevision && mayMissKey) // of several errors, 3.4 names another
	case Range:
		return debianKnows(o.Request.(*pb.RangeRequest))
	case Put:
		return debianAgrees(o.Request.(*pb.PutRequest))
	}
	return true
}

// debianKnows: 3.4 accepts sort values that no enum has, or dies of them.
func debianKnows(r *pb.RangeRequest) bool {
	_, order := pb.RangeRequest_SortOrder_name[int32(r.SortOrder)]
	_, target := pb.RangeRequest_SortTarget_name[int32(r.SortTarget)]
	return order && target
}

// debianAgrees: of a missing key and a missing lease, 3.4 names the other.
func debianAgrees(r *pb.PutRequest) bool { return r.Lease == 0 || !r.IgnoreValue && !r.IgnoreLease }

// comparable makes of a response, in place, what is compared. The request tells which
// freedom the server had.
func comparable(kind Kind, request, response proto.Message) {
	switch r := response.(type) {
	case *pb.RangeResponse:
		blurRange(request.(*pb.RangeRequest), r)
	case *pb.TxnResponse:
		blurTxn(request.(*pb.TxnRequest), r)
	case *pb.LeaseTimeToLiveResponse:
		blurTimeToLive(r)
	case *pb.LeaseLeasesResponse:
		// etcd sorts by expiry, and expiries are instants.
		slices.SortFunc(r.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	}
}

func blurTxn(request *pb.TxnRequest, response *pb.TxnResponse) {
	branch := request.Failure
	if response.Succeeded {
		branch = request.Success
	}
	if len(branch) != len(response.Responses) {
		return // shows as a difference by itself
	}
	for i, op := range branch {
		if r := response.Responses[i].GetResponseRange(); r != nil && op.GetRequestRange() != nil {
			blurRange(op.GetRequestRange(), r)
		}
		if r := response.Responses[i].GetResponseTxn(); r != nil && op.GetRequestTxn() != nil {
			blurTxn(op.GetRequestTxn(), r)
		}
	}
}

// blurRange makes sets of ties in a sort: etcd's sort is not stable. Of the
// tie group at which a limit cut, only the sort value is kept, since any of its
// members may have been left out.
//
// keys_only answers carry no lease: etcd 3.6 returns it and 3.7 does not.
func blurRange(request *pb.RangeRequest, response *pb.RangeResponse) {
	if request.KeysOnly {
		for _, kv := range response.Kvs {
			kv.Lease = 0
		}
	}
	if request.SortTarget == pb.RangeRequest_KEY || len(response.Kvs) == 0 {
		return
	}
	kvs, target := response.Kvs, request.SortTarget
	// Without an order and without a filter, etcd takes the first keys and sorts these.
	cut := response.More && (request.SortOrder != pb.RangeRequest_NONE || isFiltered(request))
	for start := 0; start < len(kvs); {
		end := start + 1
		for end < len(kvs) && sameSortValue(target, kvs[start], kvs[end]) {
			end++
		}
		if group := kvs[start:end]; end == len(kvs) && cut {
			for i, kv := range group {
				group[i] = onlySortValue(target, kv)
			}
		} else {
			slices.SortFunc(group, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
		}
		start = end
	}
}

func isFiltered(r *pb.RangeRequest) bool {
	return r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
}

func sameSortValue(target pb.RangeRequest_SortTarget, a, b *mvccpb.KeyValue) bool {
	return proto.Equal(onlySortValue(target, a), onlySortValue(target, b))
}

func onlySortValue(target pb.RangeRequest_SortTarget, kv *mvccpb.KeyValue) *mvccpb.KeyValue {
	switch target {
	case pb.RangeRequest_VERSION:
		return &mvccpb.KeyValue{Version: kv.Version}
	case pb.RangeRequest_CREATE:
		return &mvccpb.KeyValue{CreateRevision: kv.CreateRevision}
	case pb.RangeRequest_MOD:
		return &mvccpb.KeyValue{ModRevision: kv.ModRevision}
	case pb.RangeRequest_VALUE:
		return &mvccpb.KeyValue{Value: kv.Value}
	default:
		return kv
	}
}

// remainingMost is how long a stream may take: a remaining time this near to
// the granted one is of the same class.
const remainingMost = 900

// blurTimeToLive turns a remaining time into its class: as good as granted, or
// what it says. The attached keys come in any order, from a map in etcd.
func blurTimeToLive(response *pb.LeaseTimeToLiveResponse) {
	if response.TTL >= 0 && response.TTL <= response.GrantedTTL && response.GrantedTTL-response.TTL < remainingMost {
		response.TTL = response.GrantedTTL
	}
	slices.SortFunc(response.Keys, bytes.Compare)
}
