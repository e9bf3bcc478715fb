package ctl

import (
	"flag"
	"strings"
	"testing"

	"holdfast.dev/clients/cluster"
)

var fullFlag = flag.Bool("full", false, "run what takes minutes: check perf")

// check perf writes for a minute at a fixed rate and judges rate and latency
// itself. It runs with fsync, and alone.
func TestCheckPerf(t *testing.T) {
	if !*fullFlag {
		t.Log("check perf runs at full size only")
		return
	}
	for _, tool := range tools(t) {
		c := cluster.Start(t, cluster.Target(t), cluster.Options{})
		b := newSession(t, tool, c).start("check", "perf", "--load=s")
		<-b.ended
		text := b.text()
		for _, verdict := range []string{"PASS: Throughput", "PASS: Slowest request", "PASS: Stddev"} {
			if !strings.Contains(text, verdict) {
				t.Errorf("%s: no %q in\n%s", tool.name, verdict, text)
			}
		}
		if code := b.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%s: exit %d", tool.name, code)
		}
	}
}
