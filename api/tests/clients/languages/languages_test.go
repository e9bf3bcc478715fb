// Package languages runs clients of other languages, etcd's own Go client and
// its command-line tools against a target that is reached in four ways: by
// plain text and by mutual TLS, with users and without. Each runs its library's
// main features; what is expected is written in the client's own language, and
// TARGET=etcd shows that etcd does it. Nobody's cases are skipped: the number of
// cases of every client in every setting is a constant of programs.
package languages

import (
	"os/exec"
	"testing"

	"holdfast.dev/clients/cluster"
)

// setting is how a cluster is reached.
type setting struct {
	name       string
	tls, users bool
}

var settings = []setting{
	{name: "plain text"},
	{name: "plain text with users", users: true},
	{name: "mutual TLS", tls: true},
	{name: "mutual TLS with users", tls: true, users: true},
}

// program is a client and how many cases it has.
type program struct {
	name string
	// command is how it is run, once what it needs is installed.
	command func(t *testing.T) command
	// common cases run in every setting, login cases where there are users, and
	// named cases where a certificate's name is a user's as well.
	common, login, named int
}

var programs = []program{
	{name: "Python etcd3", command: python("etcd3"), common: 14, login: 3, named: 1},
	{name: "Python etcd3gw", command: python("etcd3gw"), common: 11, login: 3, named: 1},
	{name: "Python aetcd", command: python("aetcd"), common: 13, login: 3, named: 1},
	{name: "Node etcd3", command: node, common: 16, login: 4, named: 1},
	{name: "Rust etcd-client", command: rust, common: 16, login: 4, named: 1},
}

func (p program) cases(s setting) int {
	count := p.common
	if s.users {
		count += p.login
	}
	if s.users && s.tls {
		count += p.named
	}
	return count
}

// TestInstall fetches and builds what the programs need, which keeps a machine
// busy: it is run alone before the suites that the others disturb.
func TestInstall(t *testing.T) {
	for _, program := range programs {
		t.Run(program.name, func(t *testing.T) {
			t.Parallel()
			arguments := program.command(t).arguments
			if _, err := exec.LookPath(arguments[0]); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLanguages(t *testing.T) {
	for _, program := range programs {
		t.Run(program.name, func(t *testing.T) {
			t.Parallel()
			command := program.command(t)
			for _, setting := range settings {
				t.Run(setting.name, func(t *testing.T) {
					access := open(t, setting)
					if count := command.run(t, access); count != program.cases(setting) {
						t.Errorf("%d cases ran, want %d", count, program.cases(setting))
					}
				})
			}
		})
	}
}

// open starts a cluster in a setting. It has one member: many run side by side.
func open(t *testing.T, s setting) *access {
	t.Helper()
	a := &access{setting: s}
	// Every login hashes a password.
	args := []string{"--bcrypt-cost=4", "--watch-progress-notify-interval=" + progressInterval.String()}
	if s.tls {
		a.certificates = issue(t)
		args = append(args, a.certificates.flags()...)
	}
	a.cluster = cluster.Start(t, cluster.Target(t), cluster.Options{NoFsync: true, ClientTLS: s.tls, PeerTLS: s.tls, Args: args})
	if s.users {
		a.addUsers(t)
	}
	return a
}
