package goclient

import (
	"bufio"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast.dev/clients/cluster"
)

// series are the families that the etcd mixin's alerts and dashboard name, and
// those that operators look at beside them: type, and names of labels.
var series = map[string]struct {
	kind   string
	labels string
}{
	"etcd_cluster_version":                          {"gauge", "cluster_version"},
	"etcd_debugging_lease_granted_total":            {"counter", ""},
	"etcd_debugging_lease_renewed_total":            {"counter", ""},
	"etcd_debugging_lease_revoked_total":            {"counter", ""},
	"etcd_debugging_mvcc_compact_revision":          {"gauge", ""},
	"etcd_debugging_mvcc_current_revision":          {"gauge", ""},
	"etcd_debugging_mvcc_events_total":              {"counter", ""},
	"etcd_debugging_mvcc_keys_total":                {"gauge", ""},
	"etcd_debugging_mvcc_slow_watcher_total":        {"gauge", ""},
	"etcd_debugging_mvcc_total_put_size_in_bytes":   {"gauge", ""},
	"etcd_debugging_mvcc_watch_stream_total":        {"gauge", ""},
	"etcd_debugging_mvcc_watcher_total":             {"gauge", ""},
	"etcd_debugging_server_lease_expired_total":     {"counter", ""},
	"etcd_disk_backend_commit_duration_seconds":     {"histogram", "le"},
	"etcd_disk_wal_fsync_duration_seconds":          {"histogram", "le"},
	"etcd_disk_wal_write_bytes_total":               {"gauge", ""},
	"etcd_mvcc_db_total_size_in_bytes":              {"gauge", ""},
	"etcd_mvcc_db_total_size_in_use_in_bytes":       {"gauge", ""},
	"etcd_mvcc_delete_total":                        {"counter", ""},
	"etcd_mvcc_put_total":                           {"counter", ""},
	"etcd_mvcc_range_total":                         {"counter", ""},
	"etcd_mvcc_txn_total":                           {"counter", ""},
	"etcd_network_client_grpc_received_bytes_total": {"counter", ""},
	"etcd_network_client_grpc_sent_bytes_total":     {"counter", ""},
	"etcd_network_peer_received_bytes_total":        {"counter", "From"},
	"etcd_network_peer_round_trip_time_seconds":     {"histogram", "To,le"},
	"etcd_network_peer_sent_bytes_total":            {"counter", "To"},
	"etcd_server_has_leader":                        {"gauge", ""},
	"etcd_server_heartbeat_send_failures_total":     {"counter", ""},
	"etcd_server_id":                                {"gauge", "server_id"},
	"etcd_server_is_leader":                         {"gauge", ""},
	"etcd_server_is_learner":                        {"gauge", ""},
	"etcd_server_leader_changes_seen_total":         {"counter", ""},
	"etcd_server_learner_promote_successes":         {"counter", ""},
	"etcd_server_proposals_applied_total":           {"gauge", ""},
	"etcd_server_proposals_committed_total":         {"gauge", ""},
	"etcd_server_proposals_failed_total":            {"counter", ""},
	"etcd_server_proposals_pending":                 {"gauge", ""},
	"etcd_server_quota_backend_bytes":               {"gauge", ""},
	"etcd_server_read_indexes_failed_total":         {"counter", ""},
	"etcd_server_slow_apply_total":                  {"counter", ""},
	"etcd_server_slow_read_indexes_total":           {"counter", ""},
	"etcd_server_version":                           {"gauge", "server_version"},
	"grpc_server_handled_total":                     {"counter", "grpc_code,grpc_method,grpc_service,grpc_type"},
	"grpc_server_handling_seconds":                  {"histogram", "grpc_method,grpc_service,grpc_type,le"},
	"grpc_server_msg_received_total":                {"counter", "grpc_method,grpc_service,grpc_type"},
	"grpc_server_msg_sent_total":                    {"counter", "grpc_method,grpc_service,grpc_type"},
	"grpc_server_started_total":                     {"counter", "grpc_method,grpc_service,grpc_type"},
	"os_fd_limit":                                   {"gauge", ""},
	"os_fd_used":                                    {"gauge", ""},
	"process_cpu_seconds_total":                     {"counter", ""},
	"process_max_fds":                               {"gauge", ""},
	"process_open_fds":                              {"gauge", ""},
	"process_resident_memory_bytes":                 {"gauge", ""},
	"process_start_time_seconds":                    {"gauge", ""},
	"process_virtual_memory_bytes":                  {"gauge", ""},
}

// family is what a scrape says of one name.
type family struct {
	kind    string
	labels  string
	bounds  []string // of a histogram's first series
	samples map[string]string
}

// TestMetrics compares the series of three members with etcd's own.
func TestMetrics(t *testing.T) {
	options := cluster.Options{Members: 3, Args: []string{"--metrics=extensive"}}
	target := cluster.Start(t, cluster.Target(t), options)
	reference := target
	if !target.Server.IsEtcd() {
		reference = cluster.Start(t, cluster.Reference(t), options)
	}
	ours, theirs := used(t, target), used(t, reference)
	for name, want := range series {
		found, known := ours[name], theirs[name]
		if found == nil || known == nil {
			t.Errorf("%s: here %v, in etcd %v", name, found != nil, known != nil)
			continue
		}
		if known.kind != want.kind || known.labels != want.labels {
			t.Errorf("%s: the table is wrong: etcd has a %s by %q", name, known.kind, known.labels)
		}
		if found.kind != known.kind || found.labels != known.labels {
			t.Errorf("%s: a %s by %q, and in etcd a %s by %q", name, found.kind, found.labels, known.kind, known.labels)
		}
		if !slices.Equal(found.bounds, known.bounds) {
			t.Errorf("%s: buckets %v, and in etcd %v", name, found.bounds, known.bounds)
		}
	}
	for name, found := range ours {
		if known := theirs[name]; known != nil && known.kind != found.kind {
			t.Errorf("%s: a %s, and in etcd a %s", name, found.kind, known.kind)
		}
	}
	put := `grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"`
	for sample, want := range map[[2]string]string{
		{"etcd_server_has_leader", ""}:         "1",
		{"etcd_mvcc_put_total", ""}:            "1",
		{"grpc_server_handled_total", put}:     "1",
		{"etcd_debugging_mvcc_keys_total", ""}: "1",
	} {
		if got := ours[sample[0]].samples[sample[1]]; got != want {
			t.Errorf("%v is %q, want %s", sample, got, want)
		}
	}
}

// used writes and reads a key at the first member, and gives its families once
// it has had something to do with its peers; a leader alone times its heartbeats.
func used(t *testing.T, c *cluster.Cluster) map[string]*family {
	e := newEnv(t, c)
	client := e.connect(c.Endpoints()[0])
	_, err := client.Put(e.ctx, "k", "v")
	e.must(err)
	_, err = client.Get(e.ctx, "k")
	e.must(err)
	const roundTrips = "etcd_network_peer_round_trip_time_seconds"
	for deadline := time.Now().Add(caseTimeout); ; {
		families := scrape(e, c.Members[0].ClientURL()+"/metrics")
		for _, member := range c.Members[1:] {
			for name, found := range scrape(e, member.ClientURL()+"/metrics") {
				if families[name] == nil || len(families[name].samples) == 0 {
					families[name] = found
				}
			}
		}
		if families[roundTrips] != nil && len(families[roundTrips].samples) > 0 {
			return families
		}
		if time.Now().After(deadline) {
			t.Fatalf("no member of %s has timed a round trip", c.Server.Name)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func scrape(e *env, url string) map[string]*family {
	request, err := http.NewRequestWithContext(e.ctx, http.MethodGet, url, nil)
	e.must(err)
	response, err := http.DefaultClient.Do(request)
	e.must(err)
	defer response.Body.Close()
	if kind := response.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		e.Fatalf("%s answers %s of type %q", url, response.Status, kind)
	}
	return parse(e, response.Body)
}

func parse(e *env, text io.Reader) map[string]*family {
	families := map[string]*family{}
	lines := bufio.NewScanner(text)
	var last *family
	var name string
	for lines.Scan() {
		line := lines.Text()
		if rest, is := strings.CutPrefix(line, "# TYPE "); is {
			found, kind, ok := strings.Cut(rest, " ")
			if !ok || families[found] != nil {
				e.Fatalf("a broken or second type line: %s", line)
			}
			last, name = &family{kind: kind, samples: map[string]string{}}, found
			families[found] = last
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		split := strings.LastIndexByte(line, ' ')
		sample, labels, _ := strings.Cut(line[:max(split, 0)], "{")
		if last == nil || !strings.HasPrefix(sample, name) {
			e.Fatalf("a sample outside of its family: %s", line)
		}
		labels = strings.TrimSuffix(labels, "}")
		last.add(sample == name+"_bucket", labels, line[split+1:])
	}
	e.must(lines.Err())
	return families
}

func (f *family) add(isBucket bool, labels, value string) {
	var names, others []string
	bound := ""
	for _, label := range strings.Split(labels, ",") {
		name, text, ok := strings.Cut(label, "=")
		if !ok {
			continue
		}
		names = append(names, name)
		if name == "le" {
			bound = text
		} else {
			others = append(others, label)
		}
	}
	slices.Sort(names)
	if f.kind != "histogram" || isBucket {
		f.labels = strings.Join(names, ",")
	}
	if isBucket && !slices.Contains(f.bounds, bound) {
		f.bounds = append(f.bounds, bound)
	}
	f.samples[strings.Join(others, ",")] = value
}
