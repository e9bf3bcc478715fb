package ctl

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// eventually polls until a condition holds.
func (s *session) eventually(what string, holds func() bool) {
	s.Helper()
	for deadline := time.Now().Add(commandTimeout); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("no %s after %s", what, commandTimeout)
		}
	}
}

// sorted runs a command whose lines come in any order.
func (s *session) sorted(blur func(string) string, args ...string) string {
	s.Helper()
	output, problems, code := s.execute("", args)
	text := s.normalize(blur(s.endpointNames(output + errorLines(problems))))
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	s.note("$ etcdctl %s\n%s\nexit %d", strings.Join(args, " "), strings.Join(lines, "\n"), code)
	return output
}

func scriptEndpoint(s *session) {
	same := func(text string) string { return text }
	s.sorted(same, "endpoint", "health")
	s.sorted(same, "endpoint", "health", "--cluster")
	s.run("endpoint", "health", "-w", "json", "--endpoints="+s.cluster.Endpoints()[0])
	status := s.sorted(s.blurStatusLine, "endpoint", "status", "--cluster")
	s.oneLeader(status)
	s.oneLeader(s.quiet("endpoint", "status"))
	s.sorted(s.blurStatusLine, "endpoint", "status")
	s.hashes("endpoint", "hashkv")
	s.hashes("endpoint", "hashkv", "--cluster")
	s.run("endpoint", "hashkv", "--rev=100000", "--endpoints="+s.cluster.Endpoints()[0])
	s.run("endpoint", "health", "--endpoints=127.0.0.1:1")
}

func (s *session) blurStatusLine(text string) string {
	return blurStatus(hexID.ReplaceAllString(text, "MEMBER"))
}

var leads = regexp.MustCompile(`(?m), true, false, \d+, \d+`)

func (s *session) oneLeader(status string) {
	s.Helper()
	if n := len(leads.FindAllString(status, -1)); n != 1 {
		s.Errorf("%d leaders in\n%s", n, status)
	}
}

// hashes checks that all members have the same hash, whose value the
// transcript leaves out.
func (s *session) hashes(args ...string) {
	s.Helper()
	s.eventually("equal hashes", func() bool {
		seen := map[string]bool{}
		for _, line := range strings.Split(strings.TrimSpace(s.quiet(args...)), "\n") {
			_, hash, _ := strings.Cut(line, ", ")
			seen[hash] = true
		}
		return len(seen) == 1
	})
	s.sorted(func(text string) string {
		return regexp.MustCompile(`, \d+`).ReplaceAllString(text, ", HASH")
	}, args...)
}

func scriptMembers(s *session) {
	blur := func(text string) string { return hexID.ReplaceAllString(text, "MEMBER") }
	s.sorted(blur, "member", "list")
	if s.tool.newer {
		s.sorted(blur, "member", "list", "--consistency=s")
	}
	s.sorted(blur, "defrag", "--cluster")
	s.sorted(blur, "defrag")
	s.run("alarm", "list")
}

// scriptMembership changes the members, and leaves those that were there.
func scriptMembership(s *session) {
	blur := func(text string) string { return hexID.ReplaceAllString(text, "MEMBER") }
	var added string
	s.eventually("new member", func() bool {
		// etcd wants the members' connections to be five seconds old.
		output, _, code := s.execute("", []string{"member", "add", "new", "--learner", "--peer-urls=http://127.0.0.1:1"})
		added = output
		return code == 0
	})
	first, rest, _ := strings.Cut(added, "\n")
	s.note("%s\n%s", blur(first), s.normalize(strings.Split(rest, "ETCD_INITIAL_CLUSTER=")[0]))
	id := hexID.FindString(added)
	s.sorted(blur, "member", "list")
	s.sorted(blur, "member", "promote", id)
	s.sorted(blur, "member", "update", id, "--peer-urls=http://127.0.0.1:2,http://127.0.0.1:3")
	s.sorted(blur, "member", "list")
	s.sorted(blur, "member", "add", "other", "--peer-urls=http://127.0.0.1:2")
	s.sorted(blur, "member", "remove", id)
	s.sorted(blur, "member", "remove", id)
	s.sorted(blur, "member", "list")
}
