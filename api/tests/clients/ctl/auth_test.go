package ctl

// as runs a command in the name of a user whose password is NAME-pw.
func (s *session) as(user string, args ...string) {
	s.Helper()
	s.run(s.by(user, user+"-pw", args...)...)
}

// by adds a user to a command. It goes to one member: etcd's others may need a
// moment to know a token, and etcdctl logs that.
func (s *session) by(user, password string, args ...string) []string {
	return append(args, "--user="+user+":"+password, "--endpoints="+s.cluster.Endpoints()[0])
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
	s.run(s.by("root", "wrong", "get", "secret")...)
	s.run(s.by("nobody", "x", "get", "secret")...)
	s.run(s.by("cert", "x", "get", "secret")...)
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
	s.sorted(func(text string) string { return hexID.ReplaceAllString(text, "MEMBER") }, s.by("ann", "ann-pw", "member", "list")...)
	s.sorted(func(text string) string { return text }, s.by("ann", "ann-pw", "endpoint", "health")...)
	s.runWith("version(\"app/1\") = \"1\"\n\nput app/2 v\n\nget secret\n\n", s.by("ann", "ann-pw", "txn")...)
	s.runWith("version(\"app/1\") = \"1\"\n\nput app/2 v\n\nget one\n\n", s.by("ann", "ann-pw", "txn")...)
	s.as("root", "user", "list")
	s.as("root", "role", "list")
	s.as("root", "user", "delete", "root")
	s.as("root", "role", "delete", "root")
	s.as("root", "user", "revoke-role", "root", "root")
	s.runWith("new-pw", s.by("root", "root-pw", "user", "passwd", "ann", "--interactive=false")...)
	s.as("ann", "get", "one")
	s.run(s.by("ann", "new-pw", "get", "one")...)
	watch := s.start(s.by("ann", "new-pw", "watch", "app/", "--prefix", "--rev=1")...)
	watch.expect("app/1", 1)
	watch.interrupt()
}
