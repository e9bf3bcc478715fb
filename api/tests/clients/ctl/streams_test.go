package ctl

import (
	"fmt"
	"strings"
)

func scriptWatch(s *session) {
	next := s.next()
	one := s.start("watch", "w/1", "--rev="+next)
	prefix := s.start("watch", "w/", "--prefix", "--prev-kv", "--rev="+next)
	span := s.start("watch", "w/1", "w/3", "--rev="+next)
	asJSON := s.start("watch", "w/", "--prefix", "--rev="+next, "-w", "json")
	s.quiet("put", "w/1", "a")
	s.quiet("put", "w/2", "b")
	s.quiet("put", "w/1", "c")
	s.quiet("put", "w/3", "d")
	s.quiet("del", "w/1")
	s.runWith("\nput w/1 txn\nput w/2 txn\n\n\n", "txn")
	one.expect("txn", 1)
	one.interrupt()
	for _, b := range []*background{prefix, span} {
		b.expect("txn", 2)
		b.interrupt()
	}
	// The revision in a response's header depends on when the watch caught up.
	asJSON.expect("dHhu", 2)
	if text := asJSON.text(); !strings.Contains(text, `"Events"`) && !strings.Contains(text, `"events"`) {
		s.Errorf("watch -w json prints %s", text)
	}
}

func scriptWatchPast(s *session) {
	first := s.next()
	for i := range 5 {
		s.quiet("put", "wp", fmt.Sprint("value", i))
	}
	s.quiet("del", "wp")
	past := s.start("watch", "wp", "--prev-kv", "--rev="+first)
	past.expect("DELETE", 1)
	past.interrupt()
	future := s.start("watch", "wp", "--rev="+fmt.Sprint(s.revision()+3))
	s.quiet("put", "wp", "too early")
	s.quiet("put", "wp", "still too early")
	s.quiet("put", "wp", "on time")
	future.expect("on time", 1)
	future.interrupt()
}

func scriptInteractiveWatch(s *session) {
	next := s.next()
	b := s.start("watch", "--interactive")
	b.send("watch wi/1 --rev=" + next)
	b.send("watch wi/2 --prev-kv --rev=" + next)
	s.quiet("put", "wi/1", "first")
	b.expect("first", 1)
	s.quiet("put", "wi/2", "second")
	b.expect("second", 1)
	s.quiet("put", "wi/2", "third")
	b.expect("third", 1)
	b.send("progress")
	b.expect("progress notify:", 1)
	b.send("nonsense")
	b.interrupt()
}

func scriptWatchExec(s *session) {
	b := s.start("watch", "we", "--rev="+s.next(), "--", "sh", "-c", `echo "$ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"`)
	s.quiet("put", "we", "ran")
	b.expect(`"we" "ran"`, 1)
	s.quiet("del", "we")
	b.expect(`"DELETE" "we"`, 1)
	b.interrupt()
}

// grant grants a lease and returns its id in hex.
func (s *session) grant(ttl string) string {
	s.Helper()
	words := strings.Fields(s.run("lease", "grant", ttl))
	if len(words) < 2 {
		s.Fatalf("lease grant prints %q", words)
	}
	return words[1]
}

func scriptLease(s *session) {
	lease := s.grant("1000")
	s.run("put", "l/1", "v", "--lease="+lease)
	s.run("put", "l/2", "v", "--lease="+lease)
	s.run("lease", "list")
	s.run("lease", "timetolive", lease)
	// With one key, since etcd names several in any order.
	s.run("del", "l/2")
	s.run("lease", "timetolive", lease, "--keys")
	s.run("lease", "timetolive", lease, "--keys", "-w", "json")
	s.run("lease", "grant", "500", "-w", "json")
	s.run("lease", "revoke", lease)
	s.run("lease", "timetolive", lease)
	s.run("lease", "revoke", lease)
	s.run("lease", "keep-alive", "--once", lease)
	s.run("lease", "revoke", "nonsense")
	s.run("lease", "grant", "99999999999")
	s.run("lease", "grant", "0")
	s.run("lease", "grant", "1")
	s.run("get", "l/", "--prefix")
}

func scriptKeepAlive(s *session) {
	lease := s.grant("60")
	s.run("lease", "keep-alive", "--once", lease)
	b := s.start("lease", "keep-alive", lease)
	b.expect("keepalived with TTL(60)", 1)
	s.run("lease", "revoke", lease)
	_ = b.cmd.Process.Kill() // it notices only at its next renewal, 20 s on
}

// A lease nobody renews takes its keys along, as a watcher sees.
func scriptLeaseExpiry(s *session) {
	next := s.next()
	lease := s.grant("2")
	b := s.start("watch", "le/", "--prefix", "--prev-kv", "--rev="+next)
	s.run("put", "le/1", "v", "--lease="+lease)
	s.run("put", "le/2", "v", "--lease="+lease)
	s.run("put", "le/3", "stays")
	b.expect("DELETE", 2)
	b.interrupt()
	s.run("get", "le/", "--prefix")
	s.run("lease", "timetolive", lease)
	s.run("get", "le/3", "-w", "json")
}

func scriptLock(s *session) {
	first := s.start("lock", "mutex")
	first.expect("mutex/", 1)
	s.run("get", "mutex", "--prefix", "--keys-only")
	second := s.start("lock", "mutex", "--ttl", "10")
	s.eventually("2 waiters", func() bool { return strings.Count(s.quiet("get", "mutex", "--prefix", "--keys-only"), "mutex/") == 2 })
	if text := second.text(); text != "" {
		s.Errorf("the second lock is held beside the first: %s", text)
	}
	first.interrupt()
	second.expect("mutex/", 1)
	second.interrupt()
	s.run("get", "mutex", "--prefix")
	s.run("lock", "mutex", "echo", "inside")
	s.run("lock", "mutex", "--", "sh", "-c", "exit 7")
	s.run("lock", "mutex", "sh", "-c", "echo $ETCD_LOCK_REV >/dev/null; echo $ETCD_LOCK_KEY")
	s.run("get", "mutex", "--prefix")
}

func scriptElect(s *session) {
	observer := s.start("elect", "--listen", "office")
	first := s.start("elect", "office", "ann")
	first.expect("ann", 1)
	observer.expect("ann", 1)
	second := s.start("elect", "office", "bob")
	s.eventually("2 candidates", func() bool {
		return strings.Count(s.quiet("get", "office/", "--prefix", "--keys-only"), "office/") == 2
	})
	s.run("get", "office/", "--prefix", "--print-value-only", "--sort-by=CREATE")
	first.interrupt()
	second.expect("bob", 1)
	observer.expect("bob", 1)
	second.interrupt()
	observer.interrupt()
	s.run("get", "office/", "--prefix")
}
