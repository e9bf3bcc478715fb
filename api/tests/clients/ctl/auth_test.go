package ctl

import "regexp"

// as runs a command in the name of a user whose password is NAME-pw.
func (s *session) as(user string, args ...string) {
	s.Helper()
	s.run(append(args, "--user="+user+":"+user+"-pw")...)
}

// scriptAuth leaves authorization off and the users gone.
func scriptAuth(s *session) {
	s.run("auth", "enable")
	s.run("user", "add", "root:root-pw")
	s.run("user", "add", "root:again")
	s.run("user", "add", "ann:ann-pw")
	s.runWith("bob-pw", "user", "add", "bob", "--interactive=false")
	s.run("user", "add", "cert", "--no-password")
	s.run("user", "add", ":x")
	s.run("user", "get", "nobody")
	s.run("role", "add", "app")
	s.run("role", "add", "app")
	s.run("role", "grant-permission", "app", "readwrite", "app/", "--prefix")
	s.run("role", "grant-permission", "app", "read", "one")
	s.run("role", "grant-permission", "app", "write", "from", "--from-key")
	s.run("role", "grant-permission", "app", "read", "b", "a")
	s.run("role", "grant-permission", "nothing", "read", "a")
	s.run("role", "revoke-permission", "app", "one", "two")
	s.run("role", "get", "app")
	s.run("role", "get", "nothing")
	s.run("user", "grant-role", "ann", "app")
	s.run("user", "grant-role", "ann", "nothing")
	s.run("user", "revoke-role", "bob", "app")
	s.run("user", "get", "ann")
	s.run("user", "get", "ann", "--detail")
	s.run("put", "secret", "hidden")
	if s.tool.newer {
		s.run("auth", "status")
	}
	s.run("auth", "enable")
	s.authorized()
	s.as("ann", "auth", "disable")
	s.as("root", "auth", "disable")
	s.run("get", "secret")
	s.run("auth", "disable")
	for _, user := range []string{"root", "ann", "bob", "cert"} {
		s.run("user", "delete", user)
	}
	s.run("role", "list")
	s.run("role", "delete", "app")
	s.run("role", "delete", "root")
	s.run("user", "list")
}

// authorized is what happens while authorization is on.
func (s *session) authorized() {
	s.run("get", "secret")
	s.run("put", "a", "b")
	s.run("get", "secret", "--user=root:wrong")
	s.run("get", "secret", "--user=nobody:x")
	s.run("get", "secret", "--user=cert:x")
	s.as("root", "get", "secret")
	s.as("ann", "get", "secret")
	s.as("ann", "put", "app/1", "v")
	s.as("ann", "get", "app/", "--prefix")
	s.as("ann", "put", "one", "v")
	s.as("ann", "get", "one", "--from-key")
	s.as("ann", "del", "from", "--from-key")
	s.as("ann", "del", "from", "--from-key", "--prev-kv")
	s.as("ann", "lease", "list")
	s.as("ann", "user", "list")
	s.as("ann", "user", "get", "ann")
	s.as("ann", "user", "get", "root")
	s.as("ann", "role", "get", "app")
	s.as("ann", "compaction", "1")
	s.sorted(func(text string) string { return hexID.ReplaceAllString(text, "MEMBER") }, "member", "list", "--user=ann:ann-pw")
	s.sorted(func(text string) string { return regexp.MustCompile(`took \S+`).ReplaceAllString(text, "took TIME") },
		"endpoint", "health", "--user=ann:ann-pw")
	s.runWith("version(\"app/1\") = \"1\"\n\nput app/2 v\n\nget secret\n\n", "txn", "--user=ann:ann-pw")
	s.runWith("version(\"app/1\") = \"1\"\n\nput app/2 v\n\nget one\n\n", "txn", "--user=ann:ann-pw")
	s.as("root", "user", "list")
	s.as("root", "role", "list")
	s.as("root", "user", "delete", "root")
	s.as("root", "role", "delete", "root")
	s.as("root", "user", "revoke-role", "root", "root")
	s.runWith("new-pw", "user", "passwd", "ann", "--interactive=false", "--user=root:root-pw")
	s.as("ann", "get", "one")
	s.run("get", "one", "--user=ann:new-pw")
	watch := s.start("watch", "app/", "--prefix", "--rev="+"1", "--user=ann:new-pw")
	watch.expect("app/1", 1)
	watch.interrupt()
}
