package languages

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// goCase is one feature of etcd's own Go client; the package goclient has the
// details, by plain text and mostly without users.
type goCase struct {
	name string
	run  func(g *goClient)
}

var goCases = []goCase{
	{"keys", goKeys}, {"transactions", goTransactions}, {"watch", goWatch}, {"watch progress", goProgress},
	{"leases", goLeases}, {"locks", goLocks}, {"elections", goElections}, {"cluster", goCluster},
	{"watch resumes", goResumes},
}

var goLoginCases = []goCase{{"wrong password", goWrongPassword}, {"forbidden", goForbidden}, {"no login", goNoLogin}}

var goNamedCases = []goCase{{"a certificate is a login", goCertificate}}

// goClient is what a case has.
type goClient struct {
	*testing.T
	access *access
	client *clientv3.Client
	ctx    context.Context
}

func TestGoClient(t *testing.T) {
	for _, setting := range settings {
		t.Run(setting.name, func(t *testing.T) {
			t.Parallel()
			a := open(t, setting)
			cases := goCases
			if setting.users {
				cases = slices.Concat(goLoginCases, cases)
			}
			if setting.users && setting.tls {
				cases = slices.Concat(goNamedCases, cases)
			}
			for _, each := range cases {
				t.Run(each.name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					each.run(&goClient{T: t, access: a, client: a.login(t), ctx: clientv3.WithRequireLeader(ctx)})
				})
			}
		})
	}
}

// login is a client in the user's name, where there is one.
func (a *access) login(t *testing.T) *clientv3.Client {
	t.Helper()
	if a.users {
		return a.client(t, userName, userPassword)
	}
	return a.client(t, "", "")
}

func (g *goClient) put(key, value string, options ...clientv3.OpOption) *clientv3.PutResponse {
	g.Helper()
	response, err := g.client.Put(g.ctx, "app/go/"+key, value, options...)
	must(g.T, err)
	return response
}

func (g *goClient) count(key string, options ...clientv3.OpOption) int64 {
	g.Helper()
	response, err := g.client.Get(g.ctx, "app/go/"+key, options...)
	must(g.T, err)
	return response.Count
}

func (g *goClient) watch(key string, options ...clientv3.OpOption) clientv3.WatchChan {
	g.Helper()
	events := g.client.Watch(g.ctx, "app/go/"+key, append(options, clientv3.WithCreatedNotify())...)
	if created := <-events; !created.Created {
		g.Fatalf("watch: %v", created.Err())
	}
	return events
}

// event is the next one's key.
func (g *goClient) event(events clientv3.WatchChan) string {
	g.Helper()
	for response := range events {
		must(g.T, response.Err())
		for _, event := range response.Events {
			return string(event.Kv.Key)
		}
	}
	g.Fatalf("the watch has ended: %v", g.ctx.Err())
	return ""
}

func same[T comparable](g *goClient, got, want T) {
	g.Helper()
	if got != want {
		g.Fatalf("got %v, want %v", got, want)
	}
}

func goKeys(g *goClient) {
	g.put("keys/a", "1")
	same(g, string(g.put("keys/a", "2", clientv3.WithPrevKV()).PrevKv.Value), "1")
	g.put("keys/b", "")
	same(g, g.count("keys/", clientv3.WithPrefix(), clientv3.WithCountOnly()), 2)
	deleted, err := g.client.Delete(g.ctx, "app/go/keys/", clientv3.WithPrefix())
	must(g.T, err)
	same(g, deleted.Deleted, 2)
}

func goTransactions(g *goClient) {
	response, err := g.client.Txn(g.ctx).If(clientv3.Compare(clientv3.CreateRevision("app/go/txn"), "=", 0)).
		Then(clientv3.OpPut("app/go/txn", "1"), clientv3.OpGet("app/go/txn")).Else(clientv3.OpDelete("app/go/txn")).Commit()
	must(g.T, err)
	same(g, response.Succeeded, true)
	same(g, response.Responses[1].GetResponseRange().Count, 1)
}

func goWatch(g *goClient) {
	events := g.watch("watch/", clientv3.WithPrefix())
	revision := g.put("watch/1", "").Header.Revision
	same(g, g.event(events), "app/go/watch/1")
	past := g.client.Watch(g.ctx, "app/go/watch/1", clientv3.WithRev(revision))
	same(g, g.event(past), "app/go/watch/1")
}

func goProgress(g *goClient) {
	revision := g.put("elsewhere", "").Header.Revision
	for response := range g.watch("quiet", clientv3.WithProgressNotify()) {
		if response.IsProgressNotify() && response.Header.Revision >= revision {
			return
		}
	}
	g.Fatal("no progress came")
}

func goLeases(g *goClient) {
	kept, err := g.client.Grant(g.ctx, 4)
	must(g.T, err)
	lost, err := g.client.Grant(g.ctx, 4)
	must(g.T, err)
	alive, err := g.client.KeepAlive(g.ctx, kept.ID)
	must(g.T, err)
	g.put("kept", "", clientv3.WithLease(kept.ID))
	gone := g.watch("lost", clientv3.WithFilterPut())
	g.put("lost", "", clientv3.WithLease(lost.ID))
	same(g, g.event(gone), "app/go/lost")
	same(g, (<-alive).TTL, 4)
	same(g, g.count("kept"), 1)
	_, err = g.client.Revoke(g.ctx, kept.ID)
	must(g.T, err)
	same(g, g.count("kept"), 0)
}

func (g *goClient) session() *concurrency.Session {
	g.Helper()
	session, err := concurrency.NewSession(g.client, concurrency.WithContext(g.ctx))
	must(g.T, err)
	return session
}

func goLocks(g *goClient) {
	first, second := concurrency.NewMutex(g.session(), "app/go/lock"), concurrency.NewMutex(g.session(), "app/go/lock")
	must(g.T, first.Lock(g.ctx))
	if err := second.TryLock(g.ctx); !errors.Is(err, concurrency.ErrLocked) {
		g.Fatalf("got %v, want %v", err, concurrency.ErrLocked)
	}
	must(g.T, first.Unlock(g.ctx))
	must(g.T, second.Lock(g.ctx))
}

func goElections(g *goClient) {
	first, second := concurrency.NewElection(g.session(), "app/go/election"), concurrency.NewElection(g.session(), "app/go/election")
	must(g.T, first.Campaign(g.ctx, "first"))
	must(g.T, first.Resign(g.ctx))
	must(g.T, second.Campaign(g.ctx, "second"))
	leader, err := first.Leader(g.ctx)
	must(g.T, err)
	same(g, string(leader.Kvs[0].Value), "second")
}

func goCluster(g *goClient) {
	members, err := g.client.MemberList(g.ctx)
	must(g.T, err)
	same(g, len(members.Members), len(g.access.cluster.Members))
	for _, member := range g.access.cluster.Members {
		status, err := g.client.Status(g.ctx, member.ClientURL())
		must(g.T, err)
		same(g, status.Leader != 0, true)
	}
	// As clients do that follow the members.
	must(g.T, g.client.Sync(g.ctx))
	g.put("after", "")
}

// The client finds another member, or waits, and logs in again if it must.
func goResumes(g *goClient) {
	g.client.SetEndpoints(g.access.cluster.Members[0].ClientURL())
	events := g.watch("resume/", clientv3.WithPrefix())
	g.put("resume/1", "")
	same(g, g.event(events), "app/go/resume/1")
	must(g.T, g.access.cluster.Members[0].Kill())
	must(g.T, g.access.cluster.Members[0].Start())
	for {
		if _, err := g.client.Put(g.ctx, "app/go/resume/2", ""); err == nil {
			break
		}
		must(g.T, g.ctx.Err())
		time.Sleep(20 * time.Millisecond)
	}
	same(g, g.event(events), "app/go/resume/2")
}

func goWrongPassword(g *goClient) {
	if _, err := clientv3.New(g.access.config(g.T, userName, "wrong")); err == nil || err.Error() != rpctypes.ErrAuthFailed.Error() {
		g.Fatalf("got %v, want %v", err, rpctypes.ErrAuthFailed)
	}
}

func (g *goClient) refused(err, want error) {
	g.Helper()
	if err == nil || err.Error() != want.Error() {
		g.Fatalf("got %v, want %v", err, want)
	}
}

func goForbidden(g *goClient) {
	_, err := g.client.Put(g.ctx, "root-only", "")
	g.refused(err, rpctypes.ErrPermissionDenied)
	_, err = g.client.UserAdd(g.ctx, "x", "y")
	g.refused(err, rpctypes.ErrPermissionDenied)
	_, err = g.access.client(g.T, "root", rootPassword).Put(g.ctx, "root-only", "")
	must(g.T, err)
}

// A certificate without a name is nobody's, or in etcd's words of a user that
// there is not.
func goNoLogin(g *goClient) {
	_, err := g.access.client(g.T, "", "").Put(g.ctx, "app/go/keys", "")
	if !g.access.tls || err == nil || err.Error() != rpctypes.ErrPermissionDenied.Error() {
		g.refused(err, rpctypes.ErrUserEmpty)
	}
}

func goCertificate(g *goClient) {
	named, err := clientv3.New(g.access.config(g.T, "", ""))
	must(g.T, err)
	defer named.Close()
	_, err = named.Put(g.ctx, "app/go/by-certificate", "")
	must(g.T, err)
	_, err = named.Put(g.ctx, "root-only", "")
	g.refused(err, rpctypes.ErrPermissionDenied)
}
