package ctl

import (
	"flag"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"holdfast.dev/clients/cluster"
)

// script is one sequence of commands; it begins on the store that the scripts
// before it left, which is the same on both sides.
type script struct {
	name string
	play func(s *session)
}

var transcriptFlag = flag.Bool("transcript", false, "print what etcd's run looks like")

var scripts = []script{
	{"put", scriptPut}, {"get", scriptGet}, {"get by revision", scriptGetByRevision}, {"delete", scriptDelete},
	{"txn", scriptTxn}, {"interactive txn", scriptInteractiveTxn},
	{"watch", scriptWatch}, {"watch past revisions", scriptWatchPast}, {"interactive watch", scriptInteractiveWatch},
	{"watch and run", scriptWatchExec},
	{"lease", scriptLease}, {"lease keep-alive", scriptKeepAlive}, {"lease expiry", scriptLeaseExpiry},
	{"lock", scriptLock}, {"elect", scriptElect},
	{"endpoint", scriptEndpoint}, {"members", scriptMembers}, {"membership", scriptMembership}, {"compaction", scriptCompaction}, {"mistakes", scriptMistakes}, {"auth", scriptAuth},
}

func tools(t *testing.T) []tool {
	debian, err := exec.LookPath("/usr/bin/etcdctl")
	if err != nil {
		t.Fatalf("Debian's etcd-client is not installed: %v", err)
	}
	return []tool{
		{name: "etcdctl 3.4", path: debian},
		{name: "newest etcdctl", path: cluster.Tool(t, "etcdctl"), newer: true},
	}
}

func TestScripts(t *testing.T) {
	for _, tool := range tools(t) {
		for _, members := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s on %d", tool.name, members), func(t *testing.T) {
				t.Parallel()
				// Each command with a user hashes a password.
				options := cluster.Options{Members: members, NoFsync: true, Args: []string{"--bcrypt-cost=4"}}
				reference := cluster.Start(t, cluster.Reference(t), options)
				target := cluster.Start(t, cluster.Target(t), options)
				for _, script := range scripts {
					t.Run(script.name, func(t *testing.T) {
						want := play(t, script, tool, reference)
						got := play(t, script, tool, target)
						if want != got {
							t.Errorf("the target differs from etcd:\n%s", difference(want, got))
						}
						if *transcriptFlag {
							t.Logf("etcd's transcript:\n%s", want)
						}
					})
					level(t, tool, reference, target)
				}
			})
		}
	}
}

// level ends all leases, some of which would expire sooner or later, and brings
// both stores to one revision, so that a script that differs does not make the
// next ones differ as well.
func level(t *testing.T, tool tool, a, b *cluster.Cluster) {
	t.Helper()
	first, second := newSession(t, tool, a), newSession(t, tool, b)
	for _, s := range []*session{first, second} {
		found := strings.Fields(s.quiet("lease", "list"))
		// "found N leases", and what they are. Whichever has expired meanwhile is gone as well.
		for _, lease := range found[3:] {
			s.execute("", []string{"lease", "revoke", lease})
		}
	}
	if first.revision() > second.revision() {
		first, second = second, first
	}
	for missing := second.revision() - first.revision(); missing > 0; missing-- {
		first.quiet("put", "level", "")
	}
}

func newSession(t *testing.T, tool tool, c *cluster.Cluster) *session {
	return &session{T: t, tool: tool, cluster: c, names: map[string]string{}}
}

func play(t *testing.T, script script, tool tool, c *cluster.Cluster) string {
	s := newSession(t, tool, c)
	script.play(s)
	return s.transcript.String()
}

// difference shows the lines from the first unequal one on.
func difference(want, got string) string {
	wanted, gotten := strings.Split(want, "\n"), strings.Split(got, "\n")
	first := 0
	for first < min(len(wanted), len(gotten)) && wanted[first] == gotten[first] {
		first++
	}
	from := max(first-4, 0)
	show := func(lines []string) string {
		return strings.Join(lines[min(from, len(lines)):min(first+12, len(lines))], "\n")
	}
	return fmt.Sprintf("line %d\n--- etcd\n%s\n--- target\n%s", first+1, show(wanted), show(gotten))
}
