package goclient

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"holdfast.dev/clients/cluster"
)

// selector is a series that an expression of the etcd mixin names: its family,
// and labels that the expression filters or groups by. A label without a value
// must be there.
type selector struct {
	family string
	labels []string
}

var (
	unary      = `grpc_type="unary"`
	watching   = []string{`grpc_service="etcdserverpb.Watch"`, `grpc_type="bidi_stream"`}
	keepsAlive = []string{`grpc_service="etcdserverpb.Lease"`, `grpc_type="bidi_stream"`}
	roundTrips = selector{"etcd_network_peer_round_trip_time_seconds", []string{"To"}}
	fsyncs     = selector{"etcd_disk_wal_fsync_duration_seconds", nil}
	commits    = selector{"etcd_disk_backend_commit_duration_seconds", nil}
	hasLeader  = selector{"etcd_server_has_leader", nil}
	elections  = selector{"etcd_server_leader_changes_seen_total", nil}
	failed     = selector{"etcd_server_proposals_failed_total", nil}
	size       = selector{"etcd_mvcc_db_total_size_in_bytes", nil}
)

// mixin are the alerts and the panels of the dashboard, with what they are made
// of. `up` is the scraper's own. The last two are no part of the mixin, but what
// operators add to it.
var mixin = map[string][]selector{
	"alert: etcdMembersDown":               {{"etcd_network_peer_sent_failures_total", []string{"To"}}},
	"alert: etcdNoLeader":                  {hasLeader},
	"alert: etcdHighNumberOfLeaderChanges": {elections},
	"alert: etcdHighNumberOfFailedGRPCRequests": {
		{"grpc_server_handled_total", []string{`grpc_code="FailedPrecondition"`, "grpc_service", "grpc_method", "grpc_type"}},
	},
	"alert: etcdGRPCRequestsSlow":               {{"grpc_server_handling_seconds", []string{unary, "grpc_service", "grpc_method"}}},
	"alert: etcdMemberCommunicationSlow":        {roundTrips},
	"alert: etcdHighNumberOfFailedProposals":    {failed},
	"alert: etcdHighFsyncDurations":             {fsyncs},
	"alert: etcdHighCommitDurations":            {commits},
	"alert: etcdDatabaseQuotaLowSpace":          {size, {"etcd_server_quota_backend_bytes", nil}},
	"alert: etcdExcessiveDatabaseGrowth":        {size},
	"alert: etcdDatabaseHighFragmentationRatio": {size, {"etcd_mvcc_db_total_size_in_use_in_bytes", nil}},

	"panel: Up": {hasLeader},
	"panel: RPC rate": {
		{"grpc_server_started_total", []string{unary}}, {"grpc_server_handled_total", []string{unary, `grpc_code="OK"`}},
	},
	"panel: Active streams": {
		{"grpc_server_started_total", watching}, {"grpc_server_handled_total", watching},
		{"grpc_server_started_total", keepsAlive}, {"grpc_server_handled_total", keepsAlive},
	},
	"panel: DB size":            {size},
	"panel: Disk sync duration": {fsyncs, commits},
	"panel: Memory":             {{"process_resident_memory_bytes", nil}},
	"panel: Client traffic in":  {{"etcd_network_client_grpc_received_bytes_total", nil}},
	"panel: Client traffic out": {{"etcd_network_client_grpc_sent_bytes_total", nil}},
	"panel: Peer traffic in":    {{"etcd_network_peer_received_bytes_total", []string{"From"}}},
	"panel: Peer traffic out":   {{"etcd_network_peer_sent_bytes_total", []string{"To"}}},
	"panel: Raft proposals": {
		failed, {"etcd_server_proposals_pending", nil},
		{"etcd_server_proposals_committed_total", nil}, {"etcd_server_proposals_applied_total", nil},
	},
	"panel: Total leader elections per day": {elections},
	"panel: Peer round trip time":           {roundTrips},

	"alarms":   {{"etcd_debugging_server_alarms", []string{`alarm_type="NOSPACE"`, "server_id"}}},
	"versions": {{"etcd_server_version", []string{"server_version"}}, {"etcd_cluster_version", []string{"cluster_version"}}},
}

// served says whether a sample of a member answers a selector.
func (s selector) served(families map[string]*family) bool {
	found := families[s.family]
	if found == nil {
		return false
	}
	for labels := range found.samples {
		has := func(label string) bool {
			return slices.ContainsFunc(strings.Split(labels, ","), func(given string) bool {
				name, _, _ := strings.Cut(given, "=")
				return given == label || name == label
			})
		}
		if !slices.ContainsFunc(s.labels, func(label string) bool { return !has(label) }) {
			return true
		}
	}
	return false
}

// TestMixin has three members do what makes a series of every kind, one of them
// stopped, and finds what the mixin's rules and panels ask for.
func TestMixin(t *testing.T) {
	c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: 3, Args: []string{"--metrics=extensive"}})
	e := newEnv(t, c)
	client := e.connect(c.Endpoints()[0])
	lease, err := client.Grant(e.ctx, 100)
	e.must(err)
	_, err = client.KeepAliveOnce(e.ctx, lease.ID)
	e.must(err)
	_, err = client.Put(e.ctx, "k", "v", clientv3.WithLease(lease.ID))
	e.must(err)
	_, err = client.MoveLeader(e.ctx, 1)
	if err == nil {
		t.Fatal("leadership went to nobody")
	}
	if _, err = client.Put(e.ctx, "k", "v", clientv3.WithLease(99)); err == nil {
		t.Fatal("a key hangs on no lease")
	}
	_, err = client.UserAdd(e.ctx, "", "")
	if err == nil {
		t.Fatal("a user has no name")
	}
	if _, err = client.AuthEnable(e.ctx); err == nil {
		t.Fatal("there is no root")
	}
	watched := clientv3.NewWatcher(client)
	for response := range watched.Watch(e.ctx, "k", clientv3.WithRev(1)) {
		e.must(response.Err())
		break
	}
	e.must(watched.Close())
	_, err = etcdserverpb.NewMaintenanceClient(client.ActiveConnection()).Alarm(e.ctx, &etcdserverpb.AlarmRequest{
		Action: etcdserverpb.AlarmRequest_ACTIVATE, Alarm: etcdserverpb.AlarmType_NOSPACE, MemberID: 7,
	})
	e.must(err)
	c.Members[2].Kill()
	missing := map[string]selector{}
	for deadline := time.Now().Add(caseTimeout); ; time.Sleep(200 * time.Millisecond) {
		clear(missing)
		first, second := scrape(e, c.Members[0].ClientURL()+"/metrics"), scrape(e, c.Members[1].ClientURL()+"/metrics")
		for rule, selectors := range mixin {
			for _, s := range selectors {
				if !s.served(first) && !s.served(second) {
					missing[rule] = s
				}
			}
		}
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	for _, rule := range slices.Sorted(maps.Keys(missing)) {
		t.Errorf("%s: no series of %s with %q", rule, missing[rule].family, missing[rule].labels)
	}
}
