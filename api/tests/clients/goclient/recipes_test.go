package goclient

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

var recipeCases = []testCase{
	{"session ends with its lease", caseSession},
	{"mutex passes on", caseMutex},
	{"mutex excludes", caseMutexExcludes},
	{"election", caseElection},
	{"stm conserves", caseSTM},
}

// session makes one on a client of a member of its own, round robin.
func (e *env) session(i int, options ...concurrency.SessionOption) *concurrency.Session {
	e.Helper()
	endpoints := e.cluster.Endpoints()
	session, err := concurrency.NewSession(e.connect(endpoints[i%len(endpoints)]), options...)
	e.must(err)
	return session
}

func caseSession(e *env) {
	session := e.session(0, concurrency.WithTTL(5))
	_, err := e.client.Put(e.ctx, e.key("k"), "v", clientv3.WithLease(session.Lease()))
	e.must(err)
	_, err = e.client.Revoke(e.ctx, session.Lease())
	e.must(err)
	select {
	case <-session.Done():
	case <-e.ctx.Done():
		e.Fatal("the session has not noticed that its lease is gone")
	}
	equal(e, "value", e.value("k"), "")
	closed := e.session(1)
	e.must(closed.Close())
	left, err := e.client.TimeToLive(e.ctx, closed.Lease())
	e.must(err)
	equal(e, "time of a closed session's lease", left.TTL, -1)
}

func caseMutex(e *env) {
	first, second := e.session(0), e.session(1)
	a, b := concurrency.NewMutex(first, e.key("m")), concurrency.NewMutex(second, e.key("m"))
	e.must(a.Lock(e.ctx))
	if err := b.TryLock(e.ctx); !errors.Is(err, concurrency.ErrLocked) {
		e.Fatalf("TryLock beside a holder: %v", err)
	}
	taken := make(chan error, 1)
	go func() { taken <- b.Lock(e.ctx) }()
	e.eventually("second waiter", func() bool { return e.get("m/", clientv3.WithPrefix()).Count == 2 })
	select {
	case err := <-taken:
		e.Fatalf("two hold the mutex: %v", err)
	default:
	}
	e.must(first.Close()) // the lease takes the lock along
	e.must(next(e, "lock", taken))
	owner, err := e.client.Txn(e.ctx).If(b.IsOwner()).Commit()
	e.must(err)
	equal(e, "owner", owner.Succeeded, true)
	e.must(b.Unlock(e.ctx))
	equal(e, "keys left", e.get("m/", clientv3.WithPrefix()).Count, 0)
}

func caseMutexExcludes(e *env) {
	const workers, rounds = 6, 8
	e.put("n", "0")
	var wait sync.WaitGroup
	problems := make(chan error, workers)
	for i := range workers {
		session := e.session(i)
		mutex := concurrency.NewMutex(session, e.key("m"))
		wait.Go(func() {
			for range rounds {
				if err := e.incrementUnder(mutex, session.Client()); err != nil {
					problems <- err
					return
				}
			}
		})
	}
	wait.Wait()
	close(problems)
	for err := range problems {
		e.must(err)
	}
	equal(e, "count", e.value("n"), fmt.Sprint(workers*rounds))
}

// incrementUnder reads and writes in two steps, which only the mutex makes safe.
func (e *env) incrementUnder(mutex *concurrency.Mutex, client *clientv3.Client) error {
	if err := mutex.Lock(e.ctx); err != nil {
		return err
	}
	read, err := client.Get(e.ctx, e.key("n"))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(string(read.Kvs[0].Value))
	if err != nil {
		return err
	}
	if _, err := client.Put(e.ctx, e.key("n"), strconv.Itoa(n+1)); err != nil {
		return err
	}
	return mutex.Unlock(e.ctx)
}

func caseElection(e *env) {
	ann := concurrency.NewElection(e.session(0), e.key("office"))
	session := e.session(1)
	bob := concurrency.NewElection(session, e.key("office"))
	if _, err := ann.Leader(e.ctx); !errors.Is(err, concurrency.ErrElectionNoLeader) {
		e.Fatalf("leader before an election: %v", err)
	}
	observed := concurrency.NewElection(e.session(2), e.key("office")).Observe(e.ctx)
	seen := func() string { return string(next(e, "observation", observed).Kvs[0].Value) }
	e.must(ann.Campaign(e.ctx, "ann"))
	equal(e, "leader", seen(), "ann")
	e.must(ann.Proclaim(e.ctx, "ann again"))
	equal(e, "leader", seen(), "ann again")
	won := make(chan error, 1)
	go func() { won <- bob.Campaign(e.ctx, "bob") }()
	e.eventually("second candidate", func() bool { return e.get("office/", clientv3.WithPrefix()).Count == 2 })
	leader, err := bob.Leader(e.ctx)
	e.must(err)
	equal(e, "leader", string(leader.Kvs[0].Value), "ann again")
	e.must(ann.Resign(e.ctx))
	e.must(next(e, "campaign", won))
	equal(e, "leader", seen(), "bob")
	e.must(session.Close())
	e.eventually("no leader", func() bool {
		_, err := ann.Leader(e.ctx)
		return errors.Is(err, concurrency.ErrElectionNoLeader)
	})
}

func caseSTM(e *env) {
	const accounts, workers, transfers = 5, 4, 25
	for i := range accounts {
		e.put(fmt.Sprint(i), "100")
	}
	for _, isolation := range []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.RepeatableReads} {
		var wait sync.WaitGroup
		problems := make(chan error, workers)
		for worker := range workers {
			client := e.connect(e.cluster.Endpoints()[worker%len(e.cluster.Endpoints())])
			wait.Go(func() {
				for i := range transfers {
					from, to := e.key(fmt.Sprint(i%accounts)), e.key(fmt.Sprint((i+1+worker%(accounts-1))%accounts))
					if err := transfer(client, isolation, from, to); err != nil {
						problems <- err
						return
					}
				}
			})
		}
		wait.Wait()
		close(problems)
		for err := range problems {
			e.must(err)
		}
		sum := 0
		for _, kv := range e.get("", clientv3.WithPrefix()).Kvs {
			n, err := strconv.Atoi(string(kv.Value))
			e.must(err)
			sum += n
		}
		equal(e, "sum", sum, 100*accounts)
	}
}

func transfer(client *clientv3.Client, isolation concurrency.Isolation, from, to string) error {
	_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
		a, errA := strconv.Atoi(stm.Get(from))
		b, errB := strconv.Atoi(stm.Get(to))
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		stm.Put(from, strconv.Itoa(a-1))
		stm.Put(to, strconv.Itoa(b+1))
		return nil
	}, concurrency.WithIsolation(isolation))
	return err
}

// failureCases stop and kill members; each leaves the cluster as it was.
var failureCases = []testCase{
	{"a watch outlives kill -9 of its member", caseWatchOutlivesKill},
	{"without a leader", caseNoLeader},
	{"leases outlive a restart of everything", caseLeasesOutliveRestart},
	{"a downgrade is noted until it is called off", caseDowngradeIsKept},
}

func caseWatchOutlivesKill(e *env) {
	const writes = 120
	start := e.put("start", "").Header.Revision + 1
	watch := e.watch("k", clientv3.WithRev(start), clientv3.WithPrevKV())
	go func() {
		for i := 0; i < writes && e.ctx.Err() == nil; {
			// A put that fails may have happened; a conditional one is repeated safely.
			_, err := e.client.Txn(e.ctx).If(clientv3.Compare(clientv3.Version(e.key("k")), "=", i)).
				Then(clientv3.OpPut(e.key("k"), fmt.Sprint(i))).Commit()
			if err == nil {
				i++
			}
		}
	}()
	for i, member := range e.cluster.Members {
		before := i * writes / (len(e.cluster.Members) + 1)
		e.eventually("writes", func() bool { return e.version("k") > int64(before) })
		e.must(member.Kill())
		e.must(member.Start())
	}
	for i, description := range e.events(watch, writes) {
		want := fmt.Sprintf("PUT k=%d", i)
		if i > 0 {
			want += fmt.Sprintf(" was %d", i-1)
		}
		equal(e, "event", description, want)
	}
}

// version is a key's version, or 0 while nobody answers.
func (e *env) version(name string) int64 {
	response, err := e.client.Get(e.ctx, e.key(name))
	if err != nil || len(response.Kvs) == 0 {
		return 0
	}
	return response.Kvs[0].Version
}

func caseNoLeader(e *env) {
	if len(e.cluster.Members) < 3 {
		return // one member is its own leader
	}
	e.put("k", "v")
	alone := e.connect(e.cluster.Endpoints()[0])
	_, err := alone.Get(e.ctx, e.key("k"))
	e.must(err)
	watch := alone.Watch(clientv3.WithRequireLeader(e.ctx), e.key("k"), clientv3.WithCreatedNotify())
	next(e, "created", watch)
	e.must(e.cluster.Members[1].Kill())
	e.must(e.cluster.Members[2].Kill())
	response := next(e, "end of the watch", watch)
	if err := response.Err(); err == nil || err.Error() != "etcdserver: no leader" {
		e.Fatalf("the watch ends with %v", err)
	}
	read, err := alone.Get(e.ctx, e.key("k"), clientv3.WithSerializable())
	e.must(err)
	equal(e, "serializable read", string(read.Kvs[0].Value), "v")
	e.must(e.cluster.Members[1].Spawn())
	e.must(e.cluster.Members[2].Start())
	e.must(e.cluster.Members[1].WaitReady())
	e.eventually("write", func() bool { _, err := alone.Put(e.ctx, e.key("k"), "w"); return err == nil })
}

func caseLeasesOutliveRestart(e *env) {
	lease := e.grant(600)
	e.put("k", "v", clientv3.WithLease(lease))
	short := e.grant(3)
	e.put("short", "v", clientv3.WithLease(short))
	for _, member := range e.cluster.Members {
		e.must(member.Kill())
	}
	for _, member := range e.cluster.Members {
		e.must(member.Spawn())
	}
	for _, member := range e.cluster.Members {
		e.must(member.WaitReady())
	}
	e.eventually("answers", func() bool { return e.version("k") == 1 })
	left, err := e.client.TimeToLive(e.ctx, lease, clientv3.WithAttachedKeys())
	e.must(err)
	equal(e, "granted", left.GrantedTTL, 600)
	equal(e, "keys", len(left.Keys), 1)
	began := time.Now()
	e.eventually("expiry after a restart", func() bool { return e.version("short") == 0 })
	if took := time.Since(began); took > 15*time.Second {
		e.Fatalf("a lease of 3 s expired %s after the restart", took)
	}
	_, err = e.client.Revoke(e.ctx, lease)
	e.must(err)
	equal(e, "value", e.value("k"), "")
}
