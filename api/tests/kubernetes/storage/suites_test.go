package storage

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"holdfast.dev/clients/cluster"
)

var (
	quick = flag.Bool("quick", false, "only the tests of the store itself, on one member")
	build = flag.Bool("build", false, "only build the programs")
)

// suite is the tests of one package that need a store.
type suite struct {
	pkg   string
	files []string
	// least is how many tests and subtests there are in the version that go.mod
	// pins: fewer means that this suite shows less than it says.
	least int
}

var suites = []suite{
	{pkg: "etcd3", least: 494, files: []string{"store_test.go", "watcher_test.go", "compact_test.go", "linearized_read_test.go", "lease_manager_test.go"}},
	{pkg: "cacher", least: 377, files: []string{"cacher_test.go", "delegator_test.go"}},
	{pkg: "storagebackend/factory", least: 16, files: []string{"factory_test.go", "tls_test.go"}},
}

// exception is a test that is known not to pass, with etcd as little as with
// holdfast.
type exception struct {
	pkg, test string
	action    string // what it ends with instead: "fail" or "skip"
	reason    string
}

var exceptions = []exception{
	{"cacher", "TestLists/ListFromCacheSnapshot=false/List/test_List_with_limit_at_resource_version_0", "skip", noLimit},
	{"cacher", "TestLists/ListFromCacheSnapshot=false/List/test_List_with_limit_at_resource_version_0_match=NotOlderThan", "skip", noLimit},
	{"cacher", "TestLists/ListFromCacheSnapshot=true/List/test_List_with_limit_at_resource_version_0", "skip", noLimit},
	{"cacher", "TestLists/ListFromCacheSnapshot=true/List/test_List_with_limit_at_resource_version_0_match=NotOlderThan", "skip", noLimit},
}

const noLimit = "its authors leave it out where a watch cache answers, which ignores limits at resource version 0"

func TestStorage(t *testing.T) {
	cluster.Target(t) // an etcd is built here, not in the time that the tests have
	tree := plant(t)
	for _, suite := range suites {
		if *quick && suite.pkg != "etcd3" {
			continue
		}
		tests := tree.testsIn(t, suite.pkg, suite.files)
		program := tree.build(t, suite.pkg)
		if *build {
			continue
		}
		for _, members := range []int{3, 1} {
			if *quick && members > 1 {
				continue
			}
			// Programs run once all are built; they wait more than they work.
			t.Run(fmt.Sprintf("%s, %d members", suite.pkg, members), func(t *testing.T) {
				t.Parallel()
				suite.judge(t, tests, tree.run(t, program, suite.pkg, members, tests))
			})
		}
	}
}

// judge fails for every test that did not end as it should, and for every test
// that did not run.
func (s suite) judge(t *testing.T, tests []string, found results) {
	t.Helper()
	if len(found.actions) < s.least {
		t.Errorf("only %d tests ran, %d are expected", len(found.actions), s.least)
	}
	for _, test := range tests {
		if found.actions[test] == "" {
			t.Errorf("%s did not end: %v\n%s", test, found.ended, found.said(test))
		}
	}
	passed := 0
	for _, test := range slices.Sorted(maps.Keys(found.actions)) {
		want, reason := s.expected(test)
		switch got := found.actions[test]; {
		case got == want:
			passed++
		case want != "pass":
			t.Errorf("%s: %s, where a %s was expected (%s)", test, got, want, reason)
		default:
			t.Errorf("%s: %s\n%s", test, got, found.said(test))
		}
	}
	for _, known := range exceptions {
		if known.pkg == s.pkg {
			t.Logf("expected to %s: %s: %s", known.action, known.test, known.reason)
			if found.actions[known.test] == "" {
				t.Errorf("%s: there is no such test any more", known.test)
			}
		}
	}
	t.Logf("%d tests and subtests ended as they should, of %d", passed, len(found.actions))
}

// expected is how a test must end; one that contains a test expected to fail
// fails with it.
func (s suite) expected(test string) (action, reason string) {
	for _, known := range exceptions {
		if known.pkg != s.pkg {
			continue
		}
		if known.test == test || known.action == "fail" && strings.HasPrefix(known.test, test+"/") {
			return known.action, known.reason
		}
	}
	return "pass", ""
}
