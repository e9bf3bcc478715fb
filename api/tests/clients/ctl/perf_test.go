package ctl

import (
	"flag"
	"strings"
	"testing"

	"holdfast.dev/clients/cluster"
)

var fullFlag = flag.Bool("full", false, "run what takes minutes: check perf")

// check perf writes for a minute at a fixed rate, 150 a second, and judges rate
// and latency itself. It runs with fsync; old and new side by side.
func TestCheckPerf(t *testing.T) {
	if !*fullFlag {
		t.Log("check perf runs at full size only")
		return
	}
	for _, tool := range tools(t) {
		t.Run(tool.name, func(t *testing.T) {
			t.Parallel()
			c := cluster.Start(t, cluster.Target(t), cluster.Options{})
			b := newSession(t, tool, c).start("check", "perf", "--load=s")
			<-b.ended
			text := b.text()
			for _, verdict := range []string{"PASS: Throughput", "PASS: Slowest request", "PASS: Stddev"} {
				if !strings.Contains(text, verdict) {
					t.Errorf("no %q in\n%s", verdict, text)
				}
			}
			if code := b.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("exit %d", code)
			}
		})
	}
}
