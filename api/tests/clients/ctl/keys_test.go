package ctl

import (
	"fmt"
	"strings"
)

func scriptPut(s *session) {
	s.run("put", "p/1", "one")
	s.run("put", "p/1", "two", "--prev-kv")
	s.run("put", "p/2", "--prev-kv", "--", "-dash")
	s.runWith("from stdin", "put", "p/3")
	s.run("put", "p/4", "", "-w", "json")
	s.run("put", "p/1", "three", "-w", "fields", "--prev-kv")
	s.run("put", "p/1", "--ignore-value")
	s.run("put", "p/none", "--ignore-value")
	s.run("put", "p/none", "v", "--ignore-lease")
	lease := strings.Fields(s.quiet("lease", "grant", "1000"))[1]
	s.run("put", "p/1", "leased", "--lease="+lease)
	s.run("put", "p/1", "kept", "--ignore-lease")
	s.run("get", "p/1", "-w", "json")
	s.run("put", "p/1", "v", "--lease=1234abcd")
	s.run("put", "p/1", "v", "--lease=nonsense")
	s.quiet("lease", "revoke", lease)
	s.run("get", "p/", "--prefix")
}

func scriptGet(s *session) {
	for i, value := range []string{"delta", "bravo", "alpha", "charlie"} {
		s.quiet("put", fmt.Sprintf("g/%d", i), value)
	}
	s.quiet("put", "g/1", "echo")
	flags := [][]string{
		{"g/1"}, {"g/", "--prefix"}, {"g/1", "g/3"}, {"g/2", "--from-key"}, {"g/", "--prefix", "--limit=2"},
		{"g/", "--prefix", "--keys-only"}, {"g/", "--prefix", "--print-value-only"},
		{"g/", "--prefix", "--order=ASCEND"}, {"g/", "--prefix", "--order=DESCEND"},
		{"g/", "--prefix", "--sort-by=CREATE", "--order=DESCEND"}, {"g/", "--prefix", "--sort-by=KEY", "--order=DESCEND"},
		{"g/", "--prefix", "--sort-by=MODIFY", "--order=ASCEND"}, {"g/", "--prefix", "--sort-by=VALUE", "--order=ASCEND"},
		{"g/", "--prefix", "--sort-by=MODIFY", "--order=DESCEND", "--limit=3"},
		{"g/", "--prefix", "--consistency=s"}, {"g/", "--prefix", "--consistency=l"}, {"g/", "--prefix", "--consistency=x"},
		{"g/", "--prefix", "--hex"}, {"g/none"}, {"g/", "--prefix", "-w", "json"}, {"g/1", "-w", "fields"},
		{"g/", "--prefix", "--limit=1", "-w", "json"}, {"g/", "--prefix", "--keys-only", "-w", "json", "--limit=2"},
		{"g/", "--prefix", "--sort-by=NONSENSE"}, {"", "--prefix", "--limit=2"}, {"", "--from-key", "--limit=2"},
	}
	if s.tool.newer {
		flags = append(flags, [][]string{
			{"g/", "--prefix", "--count-only", "-w", "fields"}, {"g/", "--prefix", "--count-only"},
			{"g/", "--prefix", "--min-create-rev=3"}, {"g/", "--prefix", "--max-create-rev=3"},
			{"g/", "--prefix", "--min-mod-rev=4"}, {"g/", "--prefix", "--max-mod-rev=4"},
		}...)
	}
	for _, arguments := range flags {
		s.run(append([]string{"get"}, arguments...)...)
	}
}

func scriptGetByRevision(s *session) {
	first := s.next()
	s.quiet("put", "r", "one")
	s.quiet("put", "r", "two")
	s.quiet("del", "r")
	s.quiet("put", "r", "three")
	s.run("get", "r", "--rev="+first)
	s.run("get", "r", "-w", "json", "--rev="+fmt.Sprint(s.revision()-2))
	s.run("get", "r", "--rev="+fmt.Sprint(s.revision()-1))
	s.run("get", "r", "--rev="+s.next())
	s.run("get", "r", "-w", "json")
}

func scriptDelete(s *session) {
	for i := range 9 {
		s.quiet("put", fmt.Sprintf("d/%d", i), fmt.Sprint("v", i))
	}
	s.run("del", "d/0")
	s.run("del", "d/0")
	s.run("del", "d/1", "--prev-kv")
	s.run("del", "d/2", "d/4", "--prev-kv")
	s.run("del", "d/4", "-w", "json", "--prev-kv")
	s.run("del", "d/5", "-w", "fields", "--prev-kv")
	s.run("del", "d/", "--prefix")
	s.quiet("put", "z/1", "v")
	s.quiet("put", "z/2", "v")
	s.run("del", "z/", "--from-key")
	s.run("get", "d/", "--prefix")
}

const txnText = `%s

put t/1 success
get t/1
del t/gone

put t/2 failure
get t/ --prefix

`

func scriptTxn(s *session) {
	s.quiet("put", "t/1", "start")
	compares := []string{
		`value("t/1") = "start"`, `value("t/1") = "other"`, `version("t/1") > "0"`, `create("t/none") = "0"`,
		`mod("t/1") < "1000000"`, `mod("t/1") = "1"`, `value("t/1") > "a"` + "\n" + `version("t/2") != "0"`, ``,
		`ver("t/1") = "0"`, `c("t/1") > "0"`, `val("t/none") = ""`,
	}
	for _, compare := range compares {
		s.runWith(fmt.Sprintf(txnText, compare), "txn")
	}
	s.runWith(fmt.Sprintf(txnText, `value("t/1") = "success"`), "txn", "-w", "json")
	s.runWith("\nput t/dup a\nput t/dup b\n\n\n", "txn")
	s.runWith("\nput t/x a\nget t/x --rev=100000\n\n\n", "txn")
	s.runWith("\nput t/lease a --lease=77777\n\n\n", "txn")
	s.runWith("nonsense\n\n\n\n", "txn")
	s.run("get", "t/", "--prefix")
}

func scriptInteractiveTxn(s *session) {
	s.quiet("put", "ti", "v")
	s.runWith("value(\"ti\") = \"v\"\n\nput ti w\n\nget ti\n\n", "txn", "--interactive")
	s.runWith("value(\"ti\") = \"v\"\n\nput ti w\n\nget ti\n\n", "txn", "-i")
	s.run("get", "ti")
}

func scriptCompaction(s *session) {
	s.quiet("put", "c", "one")
	s.quiet("put", "c", "two")
	s.quiet("put", "c", "three")
	at := s.revision() - 1
	s.run("compaction", fmt.Sprint(at))
	s.run("get", "c", "--rev="+fmt.Sprint(at))
	s.run("get", "c", "--rev="+fmt.Sprint(at-1))
	s.run("compaction", fmt.Sprint(at))
	s.run("compaction", fmt.Sprint(at-1))
	s.run("compaction", fmt.Sprint(at+100))
	s.run("watch", "c", "--rev="+fmt.Sprint(at-1))
	s.quiet("put", "c", "four")
	s.run("compaction", "--physical", fmt.Sprint(s.revision()))
	s.run("get", "c")
	s.run("compaction")
	s.run("compaction", "nonsense")
}

func scriptMistakes(s *session) {
	s.run("get")
	s.run("put")
	s.run("put", "", "v")
	s.run("get", "")
	s.run("del")
	s.run("del", "")
	s.run("put", "large", strings.Repeat("x", 100_000), "-w", "fields")
	s.runWith(strings.Repeat("x", 1_600_000), "put", "large")
	s.runWith(strings.Repeat("x", 1_572_000), "put", "large")
	s.run("del", "large")
}
