// Package snapshot moves data between etcd and a target by snapshot files and
// data directories, with etcd's own tools on etcd's side, and compares what
// comes out: every key, its history by HashKV, and the leases.
package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"holdfast.dev/clients/cluster"
)

var keysFlag = flag.Int("keys", 5000, "how many keys are moved")

const testTimeout = 10 * time.Minute

// side is a cluster and a client of it.
type side struct {
	t       *testing.T
	ctx     context.Context
	cluster *cluster.Cluster
	client  *clientv3.Client
}

func start(t *testing.T, server cluster.Server, options cluster.Options) *side {
	t.Helper()
	options.NoFsync = true
	c := cluster.Start(t, server, options)
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), DialTimeout: 10 * time.Second, Logger: zap.NewNop(), Context: ctx})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return &side{t, ctx, c, client}
}

func (s *side) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

const keysPerTxn = 100

// fill writes keys with and without leases, overwrites and deletes some,
// compacts in between, and ends with more changes.
func (s *side) fill(keys int) {
	s.t.Helper()
	var leases []clientv3.LeaseID
	for i := range 10 {
		lease, err := s.client.Grant(s.ctx, int64(3600+i))
		s.must(err)
		leases = append(leases, lease.ID)
	}
	for first := 0; first < keys; first += keysPerTxn {
		var puts []clientv3.Op
		for i := first; i < min(first+keysPerTxn, keys); i++ {
			var options []clientv3.OpOption
			if i%50 == 0 {
				options = append(options, clientv3.WithLease(leases[i/50%len(leases)]))
			}
			puts = append(puts, clientv3.OpPut(key(i), strings.Repeat(fmt.Sprint(i), i%40), options...))
		}
		_, err := s.client.Txn(s.ctx).Then(puts...).Commit()
		s.must(err)
	}
	_, err := s.client.Put(s.ctx, "large", strings.Repeat("x", 300<<10))
	s.must(err)
	s.change(keys, "first")
	status, err := s.client.Get(s.ctx, "none")
	s.must(err)
	_, err = s.client.Compact(s.ctx, status.Header.Revision-30, clientv3.WithCompactPhysical())
	s.must(err)
	s.change(keys, "second")
}

// change overwrites and deletes a few keys, one at a time.
func (s *side) change(keys int, value string) {
	s.t.Helper()
	for i := range 100 {
		at := i * 7919 % keys
		var err error
		switch i % 4 {
		case 0:
			_, err = s.client.Delete(s.ctx, key(at))
		case 1:
			_, err = s.client.Delete(s.ctx, key(at), clientv3.WithRange(key(at+3)))
		default:
			_, err = s.client.Put(s.ctx, key(at), value)
		}
		s.must(err)
	}
}

func key(i int) string { return fmt.Sprintf("/registry/things/%07d", i) }

// content is what must be the same on both sides.
type content struct {
	Revision, Compacted int64
	Hash                uint32
	Count               int64
	Keys                []byte
	Leases              map[clientv3.LeaseID]string
}

// content of one member, at its revision or at a given one.
func (s *side) content(member int, revision int64) content {
	s.t.Helper()
	endpoint := s.cluster.Endpoints()[member]
	var c content
	all, err := s.client.Get(s.ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(revision))
	s.must(err)
	c.Count = all.Count
	if c.Revision = revision; revision == 0 {
		c.Revision = all.Header.Revision
	}
	var keys bytes.Buffer
	for _, kv := range all.Kvs {
		fmt.Fprintf(&keys, "%q %q %d %d %d %d\n", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
	}
	c.Keys = keys.Bytes()
	hash, err := s.client.HashKV(s.ctx, endpoint, c.Revision)
	s.must(err)
	c.Hash, c.Compacted = hash.Hash, hash.CompactRevision
	leases, err := s.client.Leases(s.ctx)
	s.must(err)
	c.Leases = map[clientv3.LeaseID]string{}
	for _, lease := range leases.Leases {
		left, err := s.client.TimeToLive(s.ctx, lease.ID, clientv3.WithAttachedKeys())
		s.must(err)
		if left.TTL <= 0 {
			s.t.Fatalf("lease %x has %d s left", lease.ID, left.TTL)
		}
		slices.SortFunc(left.Keys, bytes.Compare)
		c.Leases[lease.ID] = fmt.Sprintf("%d %q", left.GrantedTTL, left.Keys)
	}
	return c
}

func same(t *testing.T, what string, want, got content) {
	t.Helper()
	if want.Revision != got.Revision || want.Compacted != got.Compacted || want.Hash != got.Hash || want.Count != got.Count {
		t.Fatalf("%s: revision %d, compacted %d, hash %08x, %d keys; want %d, %d, %08x, %d", what,
			got.Revision, got.Compacted, got.Hash, got.Count, want.Revision, want.Compacted, want.Hash, want.Count)
	}
	if !bytes.Equal(want.Keys, got.Keys) {
		t.Fatalf("%s: the keys differ", what)
	}
	if fmt.Sprint(want.Leases) != fmt.Sprint(got.Leases) || len(got.Leases) == 0 {
		t.Fatalf("%s: the leases differ:\n%v\n%v", what, want.Leases, got.Leases)
	}
}

// output runs a program, which must succeed.
func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	command := exec.Command(program, args...)
	command.Env = append(os.Environ(), "ETCDCTL_API=3")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	stdout, err := command.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(program), strings.Join(args, " "), err, stdout, stderr.String())
	}
	return string(stdout)
}

// refused runs a program, which must fail and say these words.
func refused(t *testing.T, words []string, program string, args ...string) {
	t.Helper()
	said, err := exec.Command(program, args...).CombinedOutput()
	if err == nil {
		t.Fatalf("%s succeeded: %s", strings.Join(args, " "), said)
	}
	if bytes.Contains(said, []byte("panicked")) {
		t.Fatalf("%s panicked: %s", strings.Join(args, " "), said)
	}
	for _, word := range words {
		if !bytes.Contains(said, []byte(word)) {
			t.Fatalf("%s does not say %q: %s", strings.Join(args, " "), word, said)
		}
	}
}

// util is what restores for the target: etcdutl, or holdfast util.
func util(t *testing.T, target cluster.Server) []string {
	if target.IsEtcd() {
		return []string{cluster.Tool(t, "etcdutl")}
	}
	return []string{target.Path, "util"}
}

func debian(t *testing.T) string {
	path, err := exec.LookPath("/usr/bin/etcdctl")
	if err != nil {
		t.Fatalf("Debian's etcd-client is not installed: %v", err)
	}
	return path
}

func (s *side) save(etcdctl, path string) {
	s.t.Helper()
	output(s.t, etcdctl, "--endpoints="+s.cluster.Endpoints()[0], "snapshot", "save", path)
}

// restored starts a cluster on a snapshot.
func restored(t *testing.T, server cluster.Server, members int, path string, extra ...string) *side {
	t.Helper()
	program := util(t, server)
	return start(t, server, cluster.Options{Members: members, Before: func(c *cluster.Cluster) error {
		for _, member := range c.Members {
			args := append(append(append([]string{}, program[1:]...), "snapshot", "restore", path), c.RestoreArgs(member)...)
			output(t, program[0], append(args, extra...)...)
		}
		return nil
	}})
}

// etcd, target and etcd again, with changes in between.
func TestRoundTrip(t *testing.T) {
	target := cluster.Target(t)
	newest := cluster.Tool(t, "etcdctl")
	for _, etcdctl := range []string{newest, debian(t)} {
		t.Run(etcdctlName(etcdctl == newest), func(t *testing.T) {
			first := start(t, cluster.Reference(t), cluster.Options{Members: 1})
			first.fill(*keysFlag)
			path := filepath.Join(t.TempDir(), "first.db")
			first.save(etcdctl, path)
			want := first.content(0, 0)
			older := first.content(0, want.Revision-10)

			second := restored(t, target, 3, path)
			for member := range second.cluster.Members {
				same(t, fmt.Sprintf("member %d", member), want, second.content(member, 0))
				same(t, fmt.Sprintf("member %d, an older revision", member), older, second.content(member, older.Revision))
			}
			second.change(*keysFlag, "third")
			want = second.content(0, 0)
			path = filepath.Join(t.TempDir(), "second.db")
			second.save(etcdctl, path)
			sameStatus(t, target, path)

			third := restored(t, cluster.Reference(t), 1, path)
			same(t, "etcd again", want, third.content(0, 0))
			third.change(*keysFlag, "fourth")
		})
	}
}

func etcdctlName(isNewest bool) string {
	if isNewest {
		return "newest etcdctl"
	}
	return "etcdctl 3.4"
}

// etcdutl and the target's tool say the same of a file.
func sameStatus(t *testing.T, target cluster.Server, path string) {
	t.Helper()
	program := util(t, target)
	var facts [2]map[string]any
	for i, tool := range [][]string{{cluster.Tool(t, "etcdutl")}, program} {
		args := append(append([]string{}, tool[1:]...), "snapshot", "status", path, "-w", "json")
		if err := json.Unmarshal([]byte(output(t, tool[0], args...)), &facts[i]); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(facts[0]) != fmt.Sprint(facts[1]) {
		t.Fatalf("etcdutl says %v, %s says %v", facts[0], program, facts[1])
	}
}

// A raised revision: nobody reads below it, and new revisions come after it.
func TestBumpRevision(t *testing.T) {
	first := start(t, cluster.Reference(t), cluster.Options{Members: 1})
	first.fill(200)
	path := filepath.Join(t.TempDir(), "first.db")
	first.save(cluster.Tool(t, "etcdctl"), path)
	want := first.content(0, 0)
	second := restored(t, cluster.Target(t), 1, path, "--bump-revision=1000000", "--mark-compacted")
	got := second.content(0, 0)
	if got.Revision != want.Revision+1000000 || !bytes.Equal(got.Keys, want.Keys) {
		t.Fatalf("revision %d after %d", got.Revision, want.Revision)
	}
	put, err := second.client.Put(second.ctx, "k", "v")
	second.must(err)
	if put.Header.Revision != got.Revision+1 {
		t.Fatalf("the next revision is %d after %d", put.Header.Revision, got.Revision)
	}
	if _, err := second.client.Get(second.ctx, "k", clientv3.WithRev(want.Revision)); err == nil || !strings.Contains(err.Error(), "compacted") {
		t.Fatalf("a revision from before the restore: %v", err)
	}
}

// What is wrong with a file is said, by its name, and nothing is made of it.
func TestDamagedFiles(t *testing.T) {
	target := cluster.Target(t)
	program := util(t, target)
	first := start(t, cluster.Reference(t), cluster.Options{Members: 1})
	first.fill(300)
	path := filepath.Join(t.TempDir(), "first.db")
	first.save(cluster.Tool(t, "etcdctl"), path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	database := len(whole) - 32
	damage := map[string]func([]byte) []byte{
		"cut.db":     func(b []byte) []byte { return b[:len(b)/2] },
		"nohash.db":  func(b []byte) []byte { return b[:database] },
		"flipped.db": func(b []byte) []byte { b[database/2] ^= 1; return b },
		"hash.db":    func(b []byte) []byte { b[database+5] ^= 1; return b },
		"empty.db":   func([]byte) []byte { return nil },
		"version.db": func(b []byte) []byte { b[20], b[4096+20] = 9, 9; return b },
	}
	for name, change := range damage {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, change(bytes.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		directory := filepath.Join(t.TempDir(), "new")
		words := []string{name}
		if target.IsEtcd() {
			words = nil
		}
		refused(t, words, program[0], append(append([]string{}, program[1:]...), "snapshot", "restore", file, "--data-dir", directory)...)
		if entries, _ := os.ReadDir(directory); len(entries) > 0 && !target.IsEtcd() {
			t.Fatalf("%s: something was made in %s", name, directory)
		}
	}
	occupied := t.TempDir()
	if err := os.WriteFile(filepath.Join(occupied, "something"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, []string{"not empty"}, program[0], append(append([]string{}, program[1:]...), "snapshot", "restore", path, "--data-dir", occupied)...)
}
