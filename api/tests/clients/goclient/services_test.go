package goclient

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	electionpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lockpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"holdfast.dev/clients/cluster"
)

// The services that etcd makes of its others, and gRPC's health.
var serviceCases = []testCase{
	{"lock service passes on", caseLockService},
	{"lock service: who goes away leaves the queue", caseLockCanceled},
	{"lock service: who goes away at once leaves nothing behind", caseLockHasty},
	{"lock service queues up with the client's mutex", caseLockBesideMutex},
	{"lock service: leases", caseLockLeases},
	{"election service", caseElectionService},
	{"election service: a lease that ends in the queue", caseCampaignLeaseEnds},
	{"election service: observe", caseObserveService},
	{"election service: not leader, no leader, no key", caseElectionRefusals},
	{"grpc health", caseHealth},
}

// connection is one to member i, round robin.
func (e *env) connection(i int) *grpc.ClientConn {
	endpoints := e.cluster.Endpoints()
	return e.connect(endpoints[i%len(endpoints)]).ActiveConnection()
}

func (e *env) refused(err error, code codes.Code, text string) {
	e.Helper()
	if status.Code(err) != code || status.Convert(err).Message() != text {
		e.Fatalf("got %v, want %v: %s", err, code, text)
	}
}

func (e *env) waiting(name string, count int64) {
	e.Helper()
	e.eventually(fmt.Sprintf("queue of %d", count), func() bool {
		return e.get(name+"/", clientv3.WithPrefix()).Count == count
	})
}

func caseLockService(e *env) {
	first, second := lockpb.NewLockClient(e.connection(0)), lockpb.NewLockClient(e.connection(1))
	name := []byte(e.key("m"))
	a, b := e.grant(1000), e.grant(1000)
	held, err := first.Lock(e.ctx, &lockpb.LockRequest{Name: name, Lease: int64(a)})
	e.must(err)
	equal(e, "key", string(held.Key), fmt.Sprintf("%s/%x", name, int64(a)))
	kv := e.get(fmt.Sprintf("m/%x", int64(a))).Kvs[0]
	equal(e, "revision in the header", held.Header.Revision, kv.CreateRevision)
	equal(e, "lease of the key", clientv3.LeaseID(kv.Lease), a)
	again, err := first.Lock(e.ctx, &lockpb.LockRequest{Name: name, Lease: int64(a)})
	e.must(err)
	equal(e, "the same lease again", string(again.Key), string(held.Key))
	passed := make(chan *lockpb.LockResponse, 1)
	go func() {
		response, err := second.Lock(e.ctx, &lockpb.LockRequest{Name: name, Lease: int64(b)})
		if err != nil {
			e.Error(err)
		}
		passed <- response
	}()
	e.waiting("m", 2)
	unlocked, err := second.Unlock(e.ctx, &lockpb.UnlockRequest{Key: held.Key})
	e.must(err)
	response := next(e, "second holder", passed)
	equal(e, "second key", string(response.Key), fmt.Sprintf("%s/%x", name, int64(b)))
	if response.Header.Revision < unlocked.Header.Revision {
		e.Fatalf("locked at %d, before the unlock at %d", response.Header.Revision, unlocked.Header.Revision)
	}
	_, err = first.Unlock(e.ctx, &lockpb.UnlockRequest{Key: response.Key})
	e.must(err)
	equal(e, "left in the queue", e.get("m/", clientv3.WithPrefix()).Count, 0)
	_, err = first.Unlock(e.ctx, &lockpb.UnlockRequest{Key: response.Key})
	e.must(err)
}

func caseLockCanceled(e *env) {
	client := lockpb.NewLockClient(e.connection(0))
	name := []byte(e.key("m"))
	_, err := client.Lock(e.ctx, &lockpb.LockRequest{Name: name, Lease: int64(e.grant(1000))})
	e.must(err)
	ctx, cancel := context.WithCancel(e.ctx)
	ended := make(chan error, 1)
	lease := int64(e.grant(1000))
	go func() {
		_, err := client.Lock(ctx, &lockpb.LockRequest{Name: name, Lease: lease})
		ended <- err
	}()
	e.waiting("m", 2)
	cancel()
	e.refused(next(e, "end of the wait", ended), codes.Canceled, "context canceled")
	e.waiting("m", 1)
}

func caseLockHasty(e *env) {
	client := lockpb.NewLockClient(e.connection(0))
	name := []byte(e.key("m"))
	held, err := client.Lock(e.ctx, &lockpb.LockRequest{Name: name, Lease: int64(e.grant(1000))})
	e.must(err)
	lease := int64(e.grant(1000))
	for i := range 30 {
		ctx, cancel := context.WithTimeout(e.ctx, time.Duration(i)*100*time.Microsecond)
		_, err := client.Lock(ctx, &lockpb.LockRequest{Name: name, Lease: lease})
		cancel()
		equal(e, "end", status.Code(err), codes.DeadlineExceeded)
	}
	if cluster.Target(e.T).IsEtcd() {
		// etcd leaves the key of a call that ends before its transaction does.
		return
	}
	_, err = client.Unlock(e.ctx, &lockpb.UnlockRequest{Key: held.Key})
	e.must(err)
	_, err = client.Lock(e.ctx, &lockpb.LockRequest{Name: name, Lease: int64(e.grant(1000))})
	e.must(err)
}

func caseLockBesideMutex(e *env) {
	mutex := concurrency.NewMutex(e.session(0), e.key("m"))
	e.must(mutex.Lock(e.ctx))
	client := lockpb.NewLockClient(e.connection(1))
	passed := make(chan error, 1)
	go func() {
		_, err := client.Lock(e.ctx, &lockpb.LockRequest{Name: []byte(e.key("m")), Lease: int64(e.grant(1000))})
		passed <- err
	}()
	e.waiting("m", 2)
	e.must(mutex.Unlock(e.ctx))
	e.must(next(e, "lock", passed))
}

func caseLockLeases(e *env) {
	client := lockpb.NewLockClient(e.connection(0))
	held, err := client.Lock(e.ctx, &lockpb.LockRequest{Name: []byte(e.key("own"))})
	e.must(err)
	kv := e.get("own/", clientv3.WithPrefix()).Kvs[0]
	equal(e, "key", string(held.Key), fmt.Sprintf("%s/%x", e.key("own"), kv.Lease))
	left, err := e.client.TimeToLive(e.ctx, clientv3.LeaseID(kv.Lease))
	e.must(err)
	equal(e, "time of a lease of its own", left.GrantedTTL, 60)
	_, err = client.Lock(e.ctx, &lockpb.LockRequest{Name: []byte(e.key("gone")), Lease: 0x7654321})
	e.refused(err, codes.Unknown, "etcdserver: requested lease not found")
	_, err = client.Unlock(e.ctx, &lockpb.UnlockRequest{})
	e.refused(err, codes.Unknown, "etcdserver: key is not provided")
	negative, err := pb.NewLeaseClient(e.connection(0)).LeaseGrant(e.ctx, &pb.LeaseGrantRequest{TTL: 1000, ID: -255 - int64(len(e.cluster.Endpoints()))})
	e.must(err)
	odd, err := client.Lock(e.ctx, &lockpb.LockRequest{Name: []byte(e.key("odd")), Lease: negative.ID})
	e.must(err)
	equal(e, "key of a negative lease", string(odd.Key), fmt.Sprintf("%s/%x", e.key("odd"), negative.ID))
	// A lease that ends while it waits.
	lease := e.grant(1000)
	ended := make(chan error, 1)
	go func() {
		_, err := client.Lock(e.ctx, &lockpb.LockRequest{Name: []byte(e.key("own")), Lease: int64(lease)})
		ended <- err
	}()
	e.waiting("own", 2)
	_, err = e.client.Revoke(e.ctx, lease)
	e.must(err)
	_, err = client.Unlock(e.ctx, &lockpb.UnlockRequest{Key: held.Key})
	e.must(err)
	e.refused(next(e, "end of the wait", ended), codes.Unknown, "mutex: session is expired")
}

func caseElectionService(e *env) {
	first, second := electionpb.NewElectionClient(e.connection(0)), electionpb.NewElectionClient(e.connection(1))
	name := []byte(e.key("office"))
	ann, err := first.Campaign(e.ctx, &electionpb.CampaignRequest{Name: name, Lease: int64(e.grant(1000)), Value: []byte("ann")})
	e.must(err)
	equal(e, "name", string(ann.Leader.Name), string(name))
	equal(e, "revision", ann.Leader.Rev, ann.Header.Revision)
	equal(e, "key", string(ann.Leader.Key), fmt.Sprintf("%s/%x", name, ann.Leader.Lease))
	leader := func() string {
		e.Helper()
		response, err := second.Leader(e.ctx, &electionpb.LeaderRequest{Name: name})
		e.must(err)
		return string(response.Kv.Value)
	}
	equal(e, "leader", leader(), "ann")
	_, err = second.Proclaim(e.ctx, &electionpb.ProclaimRequest{Leader: ann.Leader, Value: []byte("ann again")})
	e.must(err)
	equal(e, "leader", leader(), "ann again")
	// Another value for the place that a lease has.
	again, err := first.Campaign(e.ctx, &electionpb.CampaignRequest{Name: name, Lease: ann.Leader.Lease, Value: []byte("ann")})
	e.must(err)
	equal(e, "place", again.Leader.Rev, ann.Leader.Rev)
	equal(e, "leader", leader(), "ann")
	won := make(chan *electionpb.CampaignResponse, 1)
	go func() {
		bob, err := second.Campaign(e.ctx, &electionpb.CampaignRequest{Name: name, Value: []byte("bob")})
		if err != nil {
			e.Error(err)
		}
		won <- bob
	}()
	e.waiting("office", 2)
	_, err = first.Resign(e.ctx, &electionpb.ResignRequest{Leader: ann.Leader})
	e.must(err)
	bob := next(e, "second campaign", won)
	equal(e, "leader", leader(), "bob")
	_, err = first.Proclaim(e.ctx, &electionpb.ProclaimRequest{Leader: ann.Leader, Value: []byte("ann")})
	e.refused(err, codes.Unknown, "election: not leader")
	_, err = first.Resign(e.ctx, &electionpb.ResignRequest{Leader: ann.Leader})
	e.must(err)
	equal(e, "leader", leader(), "bob")
	_, err = second.Resign(e.ctx, &electionpb.ResignRequest{Leader: bob.Leader})
	e.must(err)
}

func caseCampaignLeaseEnds(e *env) {
	client := electionpb.NewElectionClient(e.connection(0))
	name := []byte(e.key("office"))
	ann, err := client.Campaign(e.ctx, &electionpb.CampaignRequest{Name: name, Value: []byte("ann")})
	e.must(err)
	lease := e.grant(1000)
	ended := make(chan error, 1)
	go func() {
		_, err := client.Campaign(e.ctx, &electionpb.CampaignRequest{Name: name, Lease: int64(lease), Value: []byte("bob")})
		ended <- err
	}()
	e.waiting("office", 2)
	_, err = e.client.Revoke(e.ctx, lease)
	e.must(err)
	_, err = client.Resign(e.ctx, &electionpb.ResignRequest{Leader: ann.Leader})
	e.must(err)
	err = next(e, "end of the wait", ended)
	if cluster.Target(e.T).IsEtcd() {
		// A leader without a key.
		e.must(err)
		return
	}
	e.refused(err, codes.Unknown, "election: not leader")
}

func caseObserveService(e *env) {
	client := electionpb.NewElectionClient(e.connection(0))
	name := []byte(e.key("office"))
	stream, err := electionpb.NewElectionClient(e.connection(2)).Observe(e.ctx, &electionpb.LeaderRequest{Name: name})
	e.must(err)
	seen := func(want string) {
		e.Helper()
		response, err := stream.Recv()
		e.must(err)
		equal(e, "observed", string(response.Kv.Value), want)
		equal(e, "has a header", response.Header.ClusterId != 0, true)
	}
	ann, err := client.Campaign(e.ctx, &electionpb.CampaignRequest{Name: name, Value: []byte("ann")})
	e.must(err)
	seen("ann")
	_, err = client.Proclaim(e.ctx, &electionpb.ProclaimRequest{Leader: ann.Leader, Value: []byte("ann again")})
	e.must(err)
	seen("ann again")
	_, err = client.Resign(e.ctx, &electionpb.ResignRequest{Leader: ann.Leader})
	e.must(err)
	_, err = client.Campaign(e.ctx, &electionpb.CampaignRequest{Name: name, Value: []byte("bob")})
	e.must(err)
	seen("bob")
	late, err := client.Observe(e.ctx, &electionpb.LeaderRequest{Name: name})
	e.must(err)
	response, err := late.Recv()
	e.must(err)
	equal(e, "observed late", string(response.Kv.Value), "bob")
}

func caseElectionRefusals(e *env) {
	client := electionpb.NewElectionClient(e.connection(0))
	_, err := client.Leader(e.ctx, &electionpb.LeaderRequest{Name: []byte(e.key("nobody"))})
	e.refused(err, codes.Unknown, "election: no leader")
	_, err = client.Proclaim(e.ctx, &electionpb.ProclaimRequest{})
	e.refused(err, codes.Unknown, `"leader" field must be provided`)
	_, err = client.Resign(e.ctx, &electionpb.ResignRequest{})
	e.refused(err, codes.Unknown, `"leader" field must be provided`)
	_, err = client.Campaign(e.ctx, &electionpb.CampaignRequest{Name: []byte(e.key("n")), Lease: 0x7654321})
	e.refused(err, codes.Unknown, "etcdserver: requested lease not found")
}

func caseHealth(e *env) {
	client := healthpb.NewHealthClient(e.connection(0))
	response, err := client.Check(e.ctx, &healthpb.HealthCheckRequest{})
	e.must(err)
	equal(e, "health", response.Status, healthpb.HealthCheckResponse_SERVING)
	_, err = client.Check(e.ctx, &healthpb.HealthCheckRequest{Service: "etcdserverpb.KV"})
	e.refused(err, codes.NotFound, "unknown service")
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": healthpb.HealthCheckResponse_SERVING, "other": healthpb.HealthCheckResponse_SERVICE_UNKNOWN,
	} {
		stream, err := client.Watch(e.ctx, &healthpb.HealthCheckRequest{Service: service})
		e.must(err)
		first, err := stream.Recv()
		e.must(err)
		equal(e, "watched", first.Status, want)
	}
}
