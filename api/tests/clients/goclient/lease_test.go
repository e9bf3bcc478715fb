package goclient

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var leaseCases = []testCase{
	{"lease grant, keys, revoke", caseLeaseLife},
	{"lease ids and times", caseLeaseBounds},
	{"lease expiry deletes with an event", caseLeaseExpiry},
	{"lease kept alive through every member", caseKeepAlive},
	{"a key changes its lease", caseLeaseMoves},
}

func (e *env) grant(ttl int64) clientv3.LeaseID {
	e.Helper()
	granted, err := e.client.Grant(e.ctx, ttl)
	e.must(err)
	equal(e, "granted ttl", granted.TTL, ttl)
	return granted.ID
}

func caseLeaseLife(e *env) {
	lease := e.grant(1000)
	start := e.put("a", "1", clientv3.WithLease(lease)).Header.Revision
	e.put("b", "1", clientv3.WithLease(lease))
	e.each(func(endpoint string, client *clientv3.Client) {
		_, err := client.Get(e.ctx, e.key("a")) // the member has applied the puts
		e.must(err)
		left, err := client.TimeToLive(e.ctx, lease, clientv3.WithAttachedKeys())
		e.must(err)
		equal(e, endpoint+": granted", left.GrantedTTL, 1000)
		equal(e, endpoint+": keys", len(left.Keys), 2)
		if left.TTL < 900 || left.TTL > 1000 {
			e.Fatalf("%s: %d s are left of 1000", endpoint, left.TTL)
		}
		list, err := client.Leases(e.ctx)
		e.must(err)
		found := false
		for _, listed := range list.Leases {
			found = found || listed.ID == lease
		}
		equal(e, endpoint+": listed", found, true)
	})
	equal(e, "lease of a key", clientv3.LeaseID(e.get("a").Kvs[0].Lease), lease)
	watch := e.watch("", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(start+2))
	_, err := e.client.Revoke(e.ctx, lease)
	e.must(err)
	response := next(e, "deletions", watch)
	equal(e, "deletions in one revision", len(response.Events), 2)
	equal(e, "first", describe(response.Events[0]), "DELETE a= was 1")
	equal(e, "second", describe(response.Events[1]), "DELETE b= was 1")
	_, err = e.client.Revoke(e.ctx, lease)
	e.failsWith(err, rpctypes.ErrLeaseNotFound)
	_, err = e.client.KeepAliveOnce(e.ctx, lease)
	e.failsWith(err, rpctypes.ErrLeaseNotFound)
	_, err = e.client.Put(e.ctx, e.key("a"), "v", clientv3.WithLease(lease))
	e.failsWith(err, rpctypes.ErrLeaseNotFound)
	gone, err := e.client.TimeToLive(e.ctx, lease)
	e.must(err)
	equal(e, "time of a lease that is gone", gone.TTL, -1)
}

func caseLeaseBounds(e *env) {
	short, err := e.client.Grant(e.ctx, 1)
	e.must(err)
	equal(e, "smallest ttl", short.TTL, 2)
	_, err = e.client.Grant(e.ctx, 9_000_000_001)
	e.failsWith(err, rpctypes.ErrLeaseTTLTooLarge)
	before := e.get("k").Header.Revision
	empty := e.grant(500)
	_, err = e.client.Revoke(e.ctx, empty)
	e.must(err)
	equal(e, "revision after a lease without keys", e.get("k").Header.Revision, before)
}

func caseLeaseExpiry(e *env) {
	const ttl = 2
	lease := e.grant(ttl)
	granted := time.Now()
	start := e.put("a", "1", clientv3.WithLease(lease)).Header.Revision
	e.put("b", "2", clientv3.WithLease(lease))
	watch := e.watch("", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(start+2))
	response := next(e, "expiry", watch)
	equal(e, "deletions", fmt.Sprint(describe(response.Events[0]), ", ", describe(response.Events[1])), "DELETE a= was 1, DELETE b= was 2")
	if lived := time.Since(granted); lived < (ttl-1)*time.Second || lived > (ttl+4)*time.Second {
		e.Fatalf("a lease of %d s lived %s", ttl, lived)
	}
	equal(e, "keys left", e.get("", clientv3.WithPrefix()).Count, 0)
}

func caseKeepAlive(e *env) {
	lease := e.grant(3)
	e.put("k", "kept", clientv3.WithLease(lease))
	e.each(func(endpoint string, client *clientv3.Client) {
		renewed, err := client.KeepAliveOnce(e.ctx, lease)
		e.must(err)
		equal(e, endpoint+": ttl", renewed.TTL, 3)
	})
	for _, endpoint := range e.cluster.Endpoints() {
		ctx, stop := context.WithCancel(e.ctx)
		renewals, err := e.connect(endpoint).KeepAlive(ctx, lease)
		e.must(err)
		for range 4 { // one a second: longer than the lease would live
			equal(e, endpoint+": ttl", next(e, "renewal", renewals).TTL, 3)
		}
		stop()
		equal(e, "value", e.value("k"), "kept")
	}
	e.eventually("expiry without renewals", func() bool { return e.value("k") == "" })
}

func caseLeaseMoves(e *env) {
	first, second := e.grant(1000), e.grant(1000)
	e.put("k", "1", clientv3.WithLease(first))
	e.put("k", "2", clientv3.WithLease(second))
	_, err := e.client.Revoke(e.ctx, first)
	e.must(err)
	equal(e, "value", e.value("k"), "2")
	e.put("k", "3", clientv3.WithIgnoreLease())
	equal(e, "lease", clientv3.LeaseID(e.get("k").Kvs[0].Lease), second)
	e.put("k", "4")
	_, err = e.client.Revoke(e.ctx, second)
	e.must(err)
	equal(e, "value", e.value("k"), "4")
}
