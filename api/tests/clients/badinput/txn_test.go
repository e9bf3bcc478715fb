package badinput

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// compareOn is one comparison of key a's value with "5", with odd enums.
func compareOn(result pb.Compare_CompareResult, target pb.Compare_CompareTarget) request {
	return txn(&pb.TxnRequest{
		Compare: []*pb.Compare{{Key: keyA, Result: result, Target: target,
			TargetUnion: &pb.Compare_Value{Value: []byte("5")}}},
		Success: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: keyA})},
		Failure: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: keyB})},
	})
}

// withoutUnion compares a target that the request leaves unset.
func withoutUnion(target pb.Compare_CompareTarget) request {
	return txn(&pb.TxnRequest{
		Compare: []*pb.Compare{{Key: keyA, Result: pb.Compare_GREATER, Target: target}},
		Success: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: keyA})},
		Failure: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: keyB})},
	})
}

var txnCases = []badCase{
	{"txn: nothing at all", txn(&pb.TxnRequest{})},
	{"txn: 128 operations", txn(success(many(128)...))},
	{"txn: 129 operations", txn(success(many(129)...))},
	{"txn: 129 failure operations", txn(&pb.TxnRequest{Failure: many(129)})},
	{"txn: 129 compares", txn(&pb.TxnRequest{Compare: compares(129)})},
	{"txn: 128 compares", txn(&pb.TxnRequest{Compare: compares(128)})},
	{"txn: nested operations over the limit", txn(success(append(many(100), opTxn(success(many(29)...)))...))},
	{"txn: nested operations within the limit", txn(success(append(many(60), opTxn(success(opPut(keyC))))...))},
	{"txn: oversize", txn(success(opPutRequest(&pb.PutRequest{Key: keyA, Value: large})))},
	{"txn: duplicate key", txn(success(opPut(keyA), opPut(keyA)))},
	{"txn: duplicate key in failure", txn(&pb.TxnRequest{Failure: []*pb.RequestOp{opPut(keyA), opPut(keyA)}})},
	{"txn: put in a deleted range", txn(success(opDelete(keyA, keyC), opPut(keyB)))},
	{"txn: deleted key put", txn(success(opPut(keyB), opDelete(keyB, nil)))},
	{"txn: put at a deleted range's end", txn(success(opDelete(keyA, keyB), opPut(keyB)))},
	{"txn: overlapping deletes", txn(success(opDelete([]byte("x"), nil), opDelete([]byte("w"), []byte("z"))))},
	{"txn: duplicate key in a nested txn", txn(success(opPut(keyA), opTxn(success(opPut(keyA)))))},
	{"txn: put nested under a delete", txn(success(opDelete(keyA, keyC), opTxn(success(opPut(keyB)))))},
	{"txn: same put in both nested branches", txn(success(opTxn(&pb.TxnRequest{
		Success: []*pb.RequestOp{opPut(keyC)}, Failure: []*pb.RequestOp{opPut(keyC)}})))},
	{"txn: same put in two nested txns", txn(success(opTxn(success(opPut(keyC))), opTxn(success(opPut(keyC)))))},
	{"txn: open-ended delete over a put", txn(success(opDelete(keyA, all), opPut([]byte("z"))))},
	{"txn: empty operation", txn(success(&pb.RequestOp{}))},
	{"txn: empty operation in failure", txn(&pb.TxnRequest{Failure: []*pb.RequestOp{{}}})},
	{"txn: range without request", txn(success(&pb.RequestOp{Request: &pb.RequestOp_RequestRange{}}))},
	{"txn: range with an empty key", txn(success(opRange(&pb.RangeRequest{})))},
	{"txn: put with an empty key", txn(success(opPut(nil)))},
	{"txn: delete with an empty key", txn(success(opDelete(nil, nil)))},
	{"txn: compare with an empty key", txn(&pb.TxnRequest{Compare: []*pb.Compare{{}}})},
	{"txn: unknown compare result", compareOn(9, pb.Compare_VALUE)},
	{"txn: unknown compare target", compareOn(pb.Compare_EQUAL, 9)},
	{"txn: target that is not the union's", compareOn(pb.Compare_EQUAL, pb.Compare_VERSION)},
	{"txn: no version given", withoutUnion(pb.Compare_VERSION)},
	{"txn: no create revision given", withoutUnion(pb.Compare_CREATE)},
	{"txn: no mod revision given", withoutUnion(pb.Compare_MOD)},
	{"txn: no value given", withoutUnion(pb.Compare_VALUE)},
	{"txn: no lease given", withoutUnion(pb.Compare_LEASE)},
	{"txn: range at a future revision", txn(success(opRange(&pb.RangeRequest{Key: keyA, Revision: 1000})))},
	{"txn: range at a compacted revision", txn(success(opRange(&pb.RangeRequest{Key: keyA, Revision: 2})))},
	{"txn: range at a negative revision", txn(success(opRange(&pb.RangeRequest{Key: keyA, Revision: -1})))},
	{"txn: put and range at a future revision", txn(success(opPut(keyA), opRange(&pb.RangeRequest{Key: keyA, Revision: 1000})))},
	{"txn: put and range at a negative revision", txn(success(opPut(keyA), opRange(&pb.RangeRequest{Key: keyA, Revision: -1})))},
	{"txn: unknown sort order", txn(success(opRange(&pb.RangeRequest{Key: keyA, SortOrder: 9})))},
	{"txn: unknown sort target in failure", txn(&pb.TxnRequest{Failure: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: keyA, SortTarget: 9})}})},
	{"txn: put with an unknown lease", txn(success(opPut(keyC), opPutRequest(&pb.PutRequest{Key: keyA, Lease: 12345})))},
	{"txn: unknown lease in the branch not taken", txn(&pb.TxnRequest{
		Success: []*pb.RequestOp{opPut(keyC)}, Failure: []*pb.RequestOp{opPutRequest(&pb.PutRequest{Key: keyA, Lease: 12345})}})},
	{"txn: ignore value of a missing key", txn(success(opPut(keyC), opPutRequest(&pb.PutRequest{Key: []byte("none"), IgnoreValue: true})))},
	{"txn: ignore lease with a lease", txn(success(opPutRequest(&pb.PutRequest{Key: keyA, Lease: 77, IgnoreLease: true})))},
	{"txn: ignore value with a value", txn(success(opPutRequest(&pb.PutRequest{Key: keyA, Value: []byte("v"), IgnoreValue: true})))},
	{"txn: empty nested txn", txn(success(opTxn(&pb.TxnRequest{})))},
	{"txn: nested txn without request", txn(success(&pb.RequestOp{Request: &pb.RequestOp_RequestTxn{}}))},
	{"txn: deep nesting", txn(deep(40))},
	{"txn: bad operation deep in a nested txn", txn(success(opTxn(success(opTxn(success(opRange(&pb.RangeRequest{})))))))},
}

// deep nests a put n txns deep.
func deep(n int) *pb.TxnRequest {
	request := success(opPut(keyC))
	for range n {
		request = success(opTxn(request))
	}
	return request
}
