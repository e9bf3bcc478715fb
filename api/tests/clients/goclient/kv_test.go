package goclient

import (
	"errors"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

var kvCases = []testCase{
	{"what one member acknowledged every member reads", caseReadYourWrites},
	{"reads at revisions", caseRevisions},
	{"txn branches and nesting", caseTxn},
	{"txn compares over a range", caseRangeCompare},
	{"range stream equals range", caseRangeStream},
	{"range stream refusals", caseRangeStreamRefusals},
	{"large values and large lists", caseLarge},
}

func caseReadYourWrites(e *env) {
	for round := range 20 {
		e.each2(round, func(writer, reader *clientv3.Client) {
			value := fmt.Sprint("round ", round)
			written, err := writer.Put(e.ctx, e.key("k"), value)
			e.must(err)
			read, err := reader.Get(e.ctx, e.key("k"))
			e.must(err)
			equal(e, "value", string(read.Kvs[0].Value), value)
			equal(e, "mod revision", read.Kvs[0].ModRevision, written.Header.Revision)
			equal(e, "version", read.Kvs[0].Version, int64(round+1))
			if read.Header.Revision < written.Header.Revision {
				e.Fatalf("read at %d after a write at %d", read.Header.Revision, written.Header.Revision)
			}
		})
	}
}

// each2 gives a writer and a reader, of different members where there are
// several.
func (e *env) each2(round int, f func(writer, reader *clientv3.Client)) {
	endpoints := e.cluster.Endpoints()
	writer, reader := e.connect(endpoints[round%len(endpoints)]), e.connect(endpoints[(round+1)%len(endpoints)])
	defer writer.Close()
	defer reader.Close()
	f(writer, reader)
}

func caseRevisions(e *env) {
	first := e.put("r", "one").Header.Revision
	e.put("r", "two")
	e.put("r", "three")
	equal(e, "old value", string(e.get("r", clientv3.WithRev(first)).Kvs[0].Value), "one")
	_, err := e.client.Get(e.ctx, e.key("r"), clientv3.WithRev(first+1000))
	e.failsWith(err, rpctypes.ErrFutureRev)
	_, err = e.client.Compact(e.ctx, first+1, clientv3.WithCompactPhysical())
	e.must(err)
	_, err = e.client.Get(e.ctx, e.key("r"), clientv3.WithRev(first))
	e.failsWith(err, rpctypes.ErrCompacted)
	equal(e, "value at the compacted revision", string(e.get("r", clientv3.WithRev(first+1)).Kvs[0].Value), "two")
	_, err = e.client.Compact(e.ctx, first)
	e.failsWith(err, rpctypes.ErrCompacted)
	_, err = e.client.Compact(e.ctx, first+1000)
	e.failsWith(err, rpctypes.ErrFutureRev)
	before := e.get("r").Header.Revision
	equal(e, "revision after reads", e.get("r").Header.Revision, before)
}

func caseTxn(e *env) {
	e.put("a", "1")
	k := e.key
	nested := clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.Value(k("a")), "=", "1")}, // the state before the whole txn
		[]clientv3.Op{clientv3.OpGet(k("a")), clientv3.OpPut(k("c"), "inner")},
		[]clientv3.Op{clientv3.OpPut(k("c"), "wrong")},
	)
	response, err := e.client.Txn(e.ctx).
		If(clientv3.Compare(clientv3.Version(k("a")), "=", 1), clientv3.Compare(clientv3.CreateRevision(k("none")), "=", 0)).
		Then(clientv3.OpPut(k("a"), "2"), clientv3.OpPut(k("b"), "2", clientv3.WithPrevKV()), nested, clientv3.OpGet(k("c"))).
		Else(clientv3.OpGet(k("a"))).Commit()
	e.must(err)
	equal(e, "succeeded", response.Succeeded, true)
	equal(e, "responses", len(response.Responses), 4)
	inner := response.Responses[2].GetResponseTxn()
	equal(e, "inner succeeded", inner.Succeeded, true)
	equal(e, "read of an earlier put", string(inner.Responses[0].GetResponseRange().Kvs[0].Value), "2")
	equal(e, "read of the inner put", string(response.Responses[3].GetResponseRange().Kvs[0].Value), "inner")
	all := e.get("", clientv3.WithPrefix())
	for _, kv := range all.Kvs {
		equal(e, "revision of "+string(kv.Key), kv.ModRevision, response.Header.Revision)
	}
	failed, err := e.client.Txn(e.ctx).If(clientv3.Compare(clientv3.ModRevision(k("a")), "=", 1)).
		Then(clientv3.OpPut(k("a"), "3")).Else(clientv3.OpGet(k("a"))).Commit()
	e.must(err)
	equal(e, "succeeded", failed.Succeeded, false)
	equal(e, "revision of a txn that wrote nothing", failed.Header.Revision, response.Header.Revision)
	equal(e, "else read", string(failed.Responses[0].GetResponseRange().Kvs[0].Value), "2")
}

func caseRangeCompare(e *env) {
	e.put("x/1", "same")
	e.put("x/2", "same")
	holds := func(cmp clientv3.Cmp) bool {
		response, err := e.client.Txn(e.ctx).If(cmp).Then(clientv3.OpGet(e.key("x/1"))).Commit()
		e.must(err)
		return response.Succeeded
	}
	prefix := e.key("x/")
	equal(e, "all values are same", holds(clientv3.Compare(clientv3.Value(prefix).WithPrefix(), "=", "same")), true)
	equal(e, "all versions are 1", holds(clientv3.Compare(clientv3.Version(prefix).WithPrefix(), "=", 1)), true)
	e.put("x/2", "other")
	equal(e, "all values are same", holds(clientv3.Compare(clientv3.Value(prefix).WithPrefix(), "=", "same")), false)
	equal(e, "an empty range has no value", holds(clientv3.Compare(clientv3.Value(e.key("y/")).WithPrefix(), "!=", "v")), false)
	equal(e, "an empty range has version 0", holds(clientv3.Compare(clientv3.Version(e.key("y/")).WithPrefix(), "=", 0)), true)
	equal(e, "no lease", holds(clientv3.Compare(clientv3.LeaseValue(e.key("x/1")), "=", clientv3.NoLease)), true)
}

func caseRangeStream(e *env) {
	for i := range 1500 {
		e.put(fmt.Sprintf("s/%04d", i), strings.Repeat("v", i*2))
	}
	old := e.get("s/").Header.Revision
	e.put("s/0003", "later")
	for name, options := range map[string][]clientv3.OpOption{
		"all": {}, "limit": {clientv3.WithLimit(700)}, "at a revision": {clientv3.WithRev(old)},
		"keys only": {clientv3.WithKeysOnly()}, "count only": {clientv3.WithCountOnly()},
		"serializable": {clientv3.WithSerializable(), clientv3.WithLimit(5)},
	} {
		options = append(options, clientv3.WithPrefix())
		stream, err := e.client.GetStream(e.ctx, e.key("s/"), options...)
		e.must(err)
		merged, err := clientv3.GetStreamToGetResponse(stream)
		e.must(err)
		whole := e.get("s/", options...)
		for _, header := range []*clientv3.GetResponse{merged, whole} {
			header.Header.MemberId, header.Header.RaftTerm = 0, 0
		}
		if !proto.Equal((*pb.RangeResponse)(merged), (*pb.RangeResponse)(whole)) {
			e.Fatalf("%s: the stream has %d keys, count %d, more %t, header %v; the range %d, %d, %t, %v", name,
				len(merged.Kvs), merged.Count, merged.More, merged.Header, len(whole.Kvs), whole.Count, whole.More, whole.Header)
		}
	}
}

func caseRangeStreamRefusals(e *env) {
	revision := e.put("k", "v").Header.Revision
	refusal := func(options ...clientv3.OpOption) error {
		stream, err := e.client.GetStream(e.ctx, e.key("k"), options...)
		if err == nil {
			_, err = clientv3.GetStreamToGetResponse(stream)
		}
		return err
	}
	e.failsWith(refusal(clientv3.WithRev(revision+1000)), rpctypes.ErrFutureRev)
	for _, option := range []clientv3.OpOption{clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithMinModRev(1)} {
		err := refusal(option)
		var etcdError rpctypes.EtcdError
		if status.Code(err) != codes.Unimplemented && !(errors.As(err, &etcdError) && etcdError.Code() == codes.Unimplemented) {
			e.Fatalf("got %v, want Unimplemented", err)
		}
	}
}

func caseLarge(e *env) {
	const values, size = 30, 1 << 20
	for i := range values {
		e.put(fmt.Sprintf("large/%02d", i), strings.Repeat(string(rune('a'+i%26)), size))
	}
	response := e.get("large/", clientv3.WithPrefix())
	equal(e, "keys", len(response.Kvs), values)
	for i, kv := range response.Kvs {
		equal(e, "size", len(kv.Value), size)
		equal(e, "first byte", kv.Value[0], byte('a'+i%26))
		equal(e, "last byte", kv.Value[size-1], byte('a'+i%26))
	}
	_, err := e.client.Put(e.ctx, e.key("too large"), strings.Repeat("x", 1<<21-1000))
	e.failsWith(err, rpctypes.ErrRequestTooLarge)
	_, err = e.client.Delete(e.ctx, e.key("large/"), clientv3.WithPrefix())
	e.must(err)
}
