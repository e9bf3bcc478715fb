package snapshot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"holdfast.dev/clients/cluster"
)

// holdfast is the target, which these tests are about: etcd has no such tools.
func holdfast(t *testing.T) cluster.Server {
	target := cluster.Target(t)
	if target.IsEtcd() {
		t.Skip("etcd has nothing to migrate to")
	}
	return target
}

// A stopped etcd's data directory becomes ours; one that is running, or whose
// log is ahead, does not.
func TestMigrate(t *testing.T) {
	target := holdfast(t)
	first := start(t, cluster.Reference(t), cluster.Options{Members: 1})
	member := first.cluster.Members[0]
	first.fill(500)
	migrate := func(to string) []string {
		return []string{"util", "migrate", "--from", member.DataDir, "--data-dir", to}
	}
	refused(t, []string{"etcd is running"}, target.Path, migrate(filepath.Join(t.TempDir(), "new"))...)
	refused(t, []string{"holdfast util migrate"}, target.Path, "--data-dir", member.DataDir)
	want := first.content(0, 0)
	if err := member.Stop(); err != nil {
		t.Fatal(err)
	}
	second := start(t, target, cluster.Options{Members: 1, Before: func(c *cluster.Cluster) error {
		args := append([]string{"util", "migrate", "--from", member.DataDir}, c.RestoreArgs(c.Members[0])...)
		output(t, target.Path, args...)
		return nil
	}})
	same(t, "migrated", want, second.content(0, 0))
	second.change(500, "after")

	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	database := filepath.Join(member.DataDir, "member", "snap", "db")
	before, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	first.change(500, "in the log alone")
	if err := member.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(database, before, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, []string{"SIGTERM"}, target.Path, migrate(filepath.Join(t.TempDir(), "new"))...)
}

// A killed etcd's database lags behind its log: what it acknowledged is moved,
// or the directory is refused.
func TestMigrateKilled(t *testing.T) {
	target := holdfast(t)
	for round := range 3 {
		first := start(t, cluster.Reference(t), cluster.Options{Members: 1})
		member := first.cluster.Members[0]
		puts := 20 + 7*round
		for i := range puts {
			_, err := first.client.Put(first.ctx, key(i), "acknowledged")
			first.must(err)
		}
		if err := member.Kill(); err != nil {
			t.Fatal(err)
		}
		moved := fmt.Sprintf(" %d revisions of keys", puts)
		said, err := exec.Command(target.Path, "util", "migrate", "--from", member.DataDir, "--data-dir", filepath.Join(t.TempDir(), "new")).CombinedOutput()
		if !strings.Contains(string(said), moved) && (err == nil || !strings.Contains(string(said), "SIGTERM")) {
			t.Fatalf("after %d puts and a kill: %v: %s", puts, err, said)
		}
		if err := member.Start(); err != nil {
			t.Fatal(err)
		}
		// etcd may say that it is ready before it has applied its log again.
		_, err = first.client.Get(first.ctx, "none")
		first.must(err)
		if err := member.Stop(); err != nil {
			t.Fatal(err)
		}
		if said := output(t, target.Path, "util", "migrate", "--from", member.DataDir, "--data-dir", filepath.Join(t.TempDir(), "new")); !strings.Contains(said, moved) {
			t.Fatalf("after %d puts and a stop: %s", puts, said)
		}
	}
}

// A whole directory is called whole and left alone; a flipped byte is found in
// the file that has it.
func TestCheck(t *testing.T) {
	target := holdfast(t)
	first := start(t, target, cluster.Options{Members: 1, Args: []string{"--snapshot-count=50"}})
	first.fill(300)
	member := first.cluster.Members[0]
	if err := member.Stop(); err != nil {
		t.Fatal(err)
	}
	if said := output(t, target.Path, "util", "check", member.DataDir); !strings.Contains(said, "is whole") {
		t.Fatalf("check says %s", said)
	}
	for _, pattern := range []string{"blocks/*.blocks", "snap/*.manifest", "identity"} {
		paths, err := filepath.Glob(filepath.Join(member.DataDir, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no %s in %s", pattern, member.DataDir)
		}
		path := paths[len(paths)-1]
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 1
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		word := filepath.Base(path)
		refused(t, []string{word, "damaged"}, target.Path, "util", "check", member.DataDir)
		content[len(content)/2] ^= 1
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	output(t, target.Path, "util", "check", member.DataDir)
}
