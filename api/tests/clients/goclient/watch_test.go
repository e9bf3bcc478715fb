package goclient

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var watchCases = []testCase{
	{"watch delivers in order with prev_kv", caseWatchOrder},
	{"watch from the past", caseWatchPast},
	{"watch from a compacted revision", caseWatchCompacted},
	{"watch from the future", caseWatchFuture},
	{"watch filters", caseWatchFilters},
	{"watch keeps a revision whole", caseWatchAtomic},
	{"watch fragments", caseWatchFragments},
	{"watch cancels", caseWatchCancel},
	{"watch progress by request", caseProgressRequest},
	{"watch progress by time", caseProgressNotify},
	{"many watchers see the same", caseManyWatchers},
}

// event is what a test compares of one.
func describe(event *clientv3.Event) string {
	text := fmt.Sprintf("%s %s=%s", event.Type, event.Kv.Key[strings.LastIndex(string(event.Kv.Key), "/")+1:], event.Kv.Value)
	if event.PrevKv != nil {
		text += fmt.Sprintf(" was %s", event.PrevKv.Value)
	}
	return text
}

// events takes n events from a watch.
func (e *env) events(from clientv3.WatchChan, n int) (descriptions []string) {
	e.Helper()
	for len(descriptions) < n {
		response := next(e, "events", from)
		e.must(response.Err())
		for _, event := range response.Events {
			descriptions = append(descriptions, describe(event))
			if event.Kv.ModRevision > response.Header.Revision {
				e.Fatalf("an event of %d in a response of %d", event.Kv.ModRevision, response.Header.Revision)
			}
		}
	}
	return descriptions
}

func (e *env) watch(name string, options ...clientv3.OpOption) clientv3.WatchChan {
	return e.client.Watch(e.ctx, e.key(name), options...)
}

func (e *env) delete(name string, options ...clientv3.OpOption) {
	e.Helper()
	_, err := e.client.Delete(e.ctx, e.key(name), options...)
	e.must(err)
}

func caseWatchOrder(e *env) {
	start := e.put("start", "").Header.Revision + 1
	var watches []clientv3.WatchChan
	e.each(func(_ string, client *clientv3.Client) {
		watches = append(watches, client.Watch(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(start)))
	})
	e.put("a", "1")
	e.put("a", "2")
	e.delete("a")
	e.delete("a") // changes nothing, tells nothing
	e.put("a", "3")
	_, err := e.client.Txn(e.ctx).Then(clientv3.OpPut(e.key("b"), "x"), clientv3.OpPut(e.key("c"), "y"), clientv3.OpDelete(e.key("a"))).Commit()
	e.must(err)
	want := "[PUT a=1 PUT a=2 was 1 DELETE a= was 2 PUT a=3 PUT b=x PUT c=y DELETE a= was 3]"
	for _, watch := range watches {
		equal(e, "events", fmt.Sprint(e.events(watch, 7)), want)
	}
}

func caseWatchPast(e *env) {
	first := e.put("k", "0").Header.Revision
	for i := range 2500 { // more than a server sends in one piece
		e.put("k", fmt.Sprint(i+1))
	}
	got := e.events(e.watch("k", clientv3.WithRev(first)), 2501)
	for i, description := range got {
		equal(e, "event", description, fmt.Sprintf("PUT k=%d", i))
	}
	got = e.events(e.watch("k", clientv3.WithRev(first+2490), clientv3.WithPrevKV()), 11)
	equal(e, "first", got[0], "PUT k=2490 was 2489")
}

func caseWatchCompacted(e *env) {
	e.client = e.connect(e.cluster.Endpoints()[0]) // the others learn of a compaction a moment later
	first := e.put("k", "1").Header.Revision
	e.put("k", "2")
	at := e.put("k", "3").Header.Revision
	_, err := e.client.Compact(e.ctx, at)
	e.must(err)
	response := next(e, "compacted", e.watch("k", clientv3.WithRev(first)))
	equal(e, "canceled", response.Canceled, true)
	equal(e, "compact revision", response.CompactRevision, at)
	e.failsWith(response.Err(), rpctypes.ErrCompacted)
	equal(e, "event", e.events(e.watch("k", clientv3.WithRev(at)), 1)[0], "PUT k=3")
}

func caseWatchFuture(e *env) {
	now := e.put("k", "0").Header.Revision
	watch := e.watch("k", clientv3.WithRev(now+3))
	e.put("k", "too early")
	e.put("k", "too early")
	e.put("k", "on time")
	equal(e, "event", e.events(watch, 1)[0], "PUT k=on time")
}

func caseWatchFilters(e *env) {
	now := e.put("k", "0").Header.Revision + 1
	puts := e.watch("k", clientv3.WithRev(now), clientv3.WithFilterDelete())
	deletes := e.watch("k", clientv3.WithRev(now), clientv3.WithFilterPut())
	e.put("k", "1")
	e.delete("k")
	e.put("k", "2")
	e.delete("k")
	equal(e, "puts", fmt.Sprint(e.events(puts, 2)), "[PUT k=1 PUT k=2]")
	equal(e, "deletes", fmt.Sprint(e.events(deletes, 2)), "[DELETE k= DELETE k=]")
}

func caseWatchAtomic(e *env) {
	start := e.put("start", "").Header.Revision + 1
	live := e.watch("", clientv3.WithPrefix(), clientv3.WithRev(start))
	var ops []clientv3.Op
	for i := range 100 {
		ops = append(ops, clientv3.OpPut(e.key(fmt.Sprintf("%03d", i)), strings.Repeat("v", 10_000)))
	}
	for range 5 {
		_, err := e.client.Txn(e.ctx).Then(ops...).Commit()
		e.must(err)
	}
	for _, watch := range []clientv3.WatchChan{live, e.watch("", clientv3.WithPrefix(), clientv3.WithRev(start))} {
		for seen := 0; seen < 500; {
			response := next(e, "events", watch)
			e.must(response.Err())
			equal(e, "events beyond whole revisions", len(response.Events)%100, 0)
			seen += len(response.Events)
		}
	}
}

func caseWatchFragments(e *env) {
	start := e.put("start", "").Header.Revision + 1
	for i := range 10 {
		e.put(fmt.Sprint(i), strings.Repeat("v", 1<<20))
	}
	// clientv3 joins fragments, so that only their sum can be seen.
	watch := e.watch("", clientv3.WithPrefix(), clientv3.WithRev(start), clientv3.WithFragment())
	equal(e, "events", len(e.events(watch, 10)), 10)
	e.delete("", clientv3.WithPrefix())
}

func caseWatchCancel(e *env) {
	now := e.put("k", "0").Header.Revision + 1
	ctx, cancel := context.WithCancel(e.ctx)
	ended := e.client.Watch(ctx, e.key("k"), clientv3.WithRev(now))
	stays := e.watch("k", clientv3.WithRev(now))
	e.put("k", "1")
	equal(e, "before", e.events(ended, 1)[0], "PUT k=1")
	cancel()
	for range ended { // drained until it is closed
	}
	e.put("k", "2")
	equal(e, "after", fmt.Sprint(e.events(stays, 2)), "[PUT k=1 PUT k=2]")
}

func caseProgressRequest(e *env) {
	ctx := clientv3.WithRequireLeader(e.ctx)
	client := e.connect(e.cluster.Endpoints()[0])
	watch := client.Watch(ctx, e.key("k"), clientv3.WithCreatedNotify())
	created := next(e, "created", watch)
	equal(e, "created", created.Created, true)
	var last int64
	for i := range 5 {
		last = e.put("k", fmt.Sprint(i)).Header.Revision
	}
	other := e.put("other", "moves the revision").Header.Revision
	_, err := client.Get(e.ctx, e.key("k")) // this member has applied it all
	e.must(err)
	var seen int64
	for deadline := time.Now().Add(20 * time.Second); ; {
		e.must(client.RequestProgress(ctx))
		response := next(e, "progress", watch)
		if len(response.Events) > 0 {
			seen = response.Events[len(response.Events)-1].Kv.ModRevision
			continue
		}
		equal(e, "progress notification", response.IsProgressNotify(), true)
		if response.Header.Revision >= last && seen < last {
			e.Fatalf("progress at %d overtakes the event of %d", response.Header.Revision, last)
		}
		if response.Header.Revision >= other {
			return
		}
		if time.Now().After(deadline) {
			e.Fatalf("progress stays at %d, below %d", response.Header.Revision, other)
		}
	}
}

func caseProgressNotify(e *env) {
	watch := e.watch("k", clientv3.WithProgressNotify())
	now := e.put("other", "1").Header.Revision
	for {
		response := next(e, "progress", watch)
		e.must(response.Err())
		equal(e, "events", len(response.Events), 0)
		if response.IsProgressNotify() && response.Header.Revision >= now {
			return
		}
	}
}

func caseManyWatchers(e *env) {
	const watchers, writes = 50, 200
	start := e.put("start", "").Header.Revision + 1
	var watches []clientv3.WatchChan
	clients := []*clientv3.Client{}
	e.each(func(_ string, client *clientv3.Client) { clients = append(clients, client) })
	for i := range watchers {
		// Half of them come late and catch up.
		if i == watchers/2 {
			for write := range writes / 2 {
				e.put("k", fmt.Sprint(write))
			}
		}
		watches = append(watches, clients[i%len(clients)].Watch(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithRev(start), clientv3.WithPrevKV()))
	}
	for write := range writes / 2 {
		e.put("k", fmt.Sprint(writes/2+write))
	}
	want := fmt.Sprint(e.events(watches[0], writes))
	for _, watch := range watches[1:] {
		equal(e, "events", fmt.Sprint(e.events(watch, writes)), want)
	}
}
