package goclient

import (
	"fmt"
	"strconv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

// The requests of a kube-apiserver, by the interface that it uses where there
// is one.
var kubernetesCases = []testCase{
	{"kubernetes create, update, delete", caseOptimistic},
	{"kubernetes paged list at a revision", casePagedList},
	{"kubernetes watch cache", caseWatchCache},
	{"kubernetes compaction", caseCompactionElection},
	{"kubernetes leases", caseEventLeases},
}

func (e *env) kubernetes() *kubernetes.Client {
	e.Helper()
	client, err := kubernetes.New(clientv3.Config{Endpoints: e.cluster.Endpoints(), Context: e.ctx})
	e.must(err)
	e.Cleanup(func() { _ = client.Close() })
	return client
}

func caseOptimistic(e *env) {
	k := e.kubernetes().Kubernetes
	key := e.key("pods/a")
	created, err := k.OptimisticPut(e.ctx, key, []byte("1"), 0, kubernetes.PutOptions{})
	e.must(err)
	equal(e, "created", created.Succeeded, true)
	again, err := k.OptimisticPut(e.ctx, key, []byte("x"), 0, kubernetes.PutOptions{})
	e.must(err)
	equal(e, "created twice", again.Succeeded, false)
	updated, err := k.OptimisticPut(e.ctx, key, []byte("2"), created.Revision, kubernetes.PutOptions{GetOnFailure: true})
	e.must(err)
	equal(e, "updated", updated.Succeeded, true)
	stale, err := k.OptimisticPut(e.ctx, key, []byte("3"), created.Revision, kubernetes.PutOptions{GetOnFailure: true})
	e.must(err)
	equal(e, "stale update", stale.Succeeded, false)
	equal(e, "what is there instead", string(stale.KV.Value), "2")
	equal(e, "its revision", stale.KV.ModRevision, updated.Revision)
	got, err := k.Get(e.ctx, key, kubernetes.GetOptions{})
	e.must(err)
	equal(e, "revision", got.KV.ModRevision, updated.Revision)
	old, err := k.Get(e.ctx, key, kubernetes.GetOptions{Revision: created.Revision})
	e.must(err)
	equal(e, "old value", string(old.KV.Value), "1")
	refused, err := k.OptimisticDelete(e.ctx, key, created.Revision, kubernetes.DeleteOptions{GetOnFailure: true})
	e.must(err)
	equal(e, "stale delete", refused.Succeeded, false)
	equal(e, "what is there instead", string(refused.KV.Value), "2")
	deleted, err := k.OptimisticDelete(e.ctx, key, updated.Revision, kubernetes.DeleteOptions{GetOnFailure: true})
	e.must(err)
	equal(e, "deleted", deleted.Succeeded, true)
	equal(e, "revision of the deletion", deleted.Revision, updated.Revision+1)
	missing, err := k.OptimisticPut(e.ctx, key, []byte("4"), updated.Revision, kubernetes.PutOptions{GetOnFailure: true})
	e.must(err)
	equal(e, "update of nothing", missing.Succeeded || missing.KV != nil, false)
}

func casePagedList(e *env) {
	k := e.kubernetes().Kubernetes
	const items = 57
	for i := range items {
		e.put(fmt.Sprintf("pods/%03d", i), "old")
	}
	first, err := k.List(e.ctx, e.key("pods/"), kubernetes.ListOptions{Limit: 10})
	e.must(err)
	equal(e, "count", first.Count, items)
	e.put("pods/020", "new")
	e.delete("pods/030")
	seen, last := len(first.Kvs), first.Kvs[len(first.Kvs)-1].Key
	for more := true; more; {
		page, err := k.List(e.ctx, e.key("pods/"), kubernetes.ListOptions{Limit: 10, Revision: first.Revision, Continue: string(last) + "\x00"})
		e.must(err)
		equal(e, "count of what is left", page.Count, int64(items-seen))
		if page.Revision <= first.Revision {
			e.Fatalf("a page's header says %d, which is not the store's revision", page.Revision)
		}
		for _, kv := range page.Kvs {
			equal(e, "value at the list's revision", string(kv.Value), "old")
		}
		seen, last = seen+len(page.Kvs), page.Kvs[len(page.Kvs)-1].Key
		more = int64(len(page.Kvs)) < page.Count
	}
	equal(e, "items", seen, items)
	count, err := k.Count(e.ctx, e.key("pods/"), kubernetes.CountOptions{})
	e.must(err)
	equal(e, "count now", count, items-1)
	keys := e.get("pods/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	equal(e, "keys", len(keys.Kvs), items-1)
	equal(e, "value of a keys-only read", len(keys.Kvs[0].Value), 0)
	health, err := k.Get(e.ctx, "/registry/health", kubernetes.GetOptions{})
	e.must(err)
	equal(e, "health", health.KV == nil && health.Revision > 0, true)
}

// caseWatchCache does what the cacher does: list, watch from there with prev_kv
// and progress, and ask for progress until a read is as fresh as the store.
func caseWatchCache(e *env) {
	k := e.kubernetes()
	e.put("pods/a", "1")
	e.put("pods/b", "1")
	list, err := k.Kubernetes.List(e.ctx, e.key("pods/"), kubernetes.ListOptions{})
	e.must(err)
	ctx := clientv3.WithRequireLeader(e.ctx)
	watch := k.Watch(ctx, e.key("pods/"), clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithProgressNotify(), clientv3.WithRev(list.Revision+1))
	e.put("pods/a", "2")
	e.delete("pods/b")
	e.put("services/x", "elsewhere")
	now, err := k.Kubernetes.Get(e.ctx, e.key("pods"), kubernetes.GetOptions{})
	e.must(err)
	var events []string
	for fresh := int64(0); fresh < now.Revision; {
		e.must(k.RequestProgress(ctx))
		response := next(e, "event or progress", watch)
		e.must(response.Err())
		for _, event := range response.Events {
			if !event.IsCreate() && event.PrevKv == nil {
				e.Fatalf("no prev_kv in %v", event)
			}
			events = append(events, describe(event))
		}
		fresh = response.Header.Revision
	}
	equal(e, "events before the progress", fmt.Sprint(events), "[PUT a=2 was 1 DELETE b= was 1]")
}

func caseCompactionElection(e *env) {
	const key = "compact_rev_key"
	_, err := e.client.Delete(e.ctx, key)
	e.must(err)
	elect := func(client *clientv3.Client, version, revision int64) (won bool, seen int64, current int64) {
		response, err := client.Txn(e.ctx).If(clientv3.Compare(clientv3.Version(key), "=", version)).
			Then(clientv3.OpPut(key, strconv.FormatInt(revision, 10))).Else(clientv3.OpGet(key)).Commit()
		e.must(err)
		if response.Succeeded {
			return true, version + 1, response.Header.Revision
		}
		return false, response.Responses[0].GetResponseRange().Kvs[0].Version, response.Header.Revision
	}
	won, version, revision := elect(e.client, 0, 0)
	equal(e, "first round", won, true)
	won, _, _ = elect(e.connect(e.cluster.Endpoints()[0]), 0, 0)
	equal(e, "the other apiserver", won, false)
	watch := e.client.Watch(e.ctx, key, clientv3.WithRev(revision))
	next(e, "compaction key", watch)
	old := e.put("k", "1").Header.Revision
	e.put("k", "2")
	at := e.put("k", "3").Header.Revision
	won, version, _ = elect(e.client, version, at)
	equal(e, "second round", won, true)
	equal(e, "version", version, 2)
	_, err = e.client.Compact(e.ctx, at)
	e.must(err)
	equal(e, "announced", string(next(e, "announcement", watch).Events[0].Kv.Value), fmt.Sprint(at))
	_, err = e.client.Get(e.ctx, e.key("k"), clientv3.WithRev(old))
	e.failsWith(err, rpctypes.ErrCompacted)
	_, err = e.client.Compact(e.ctx, at)
	e.failsWith(err, rpctypes.ErrCompacted)
}

func caseEventLeases(e *env) {
	k := e.kubernetes()
	lease, err := k.Grant(e.ctx, 3660)
	e.must(err)
	for i := range 50 {
		created, err := k.Kubernetes.OptimisticPut(e.ctx, e.key(fmt.Sprint("events/", i)), []byte("e"), 0, kubernetes.PutOptions{LeaseID: lease.ID})
		e.must(err)
		equal(e, "created", created.Succeeded, true)
	}
	// masterleases: a new lease takes the key over, the old one runs out harmlessly.
	old := e.grant(2)
	e.put("masterleases/1", "ip", clientv3.WithLease(old))
	e.put("masterleases/1", "ip", clientv3.WithLease(lease.ID))
	e.eventually("expiry", func() bool {
		left, err := e.client.TimeToLive(e.ctx, old)
		return err == nil && left.TTL == -1
	})
	equal(e, "value", e.value("masterleases/1"), "ip")
	left, err := k.TimeToLive(e.ctx, lease.ID, clientv3.WithAttachedKeys())
	e.must(err)
	equal(e, "keys", len(left.Keys), 51)
}
