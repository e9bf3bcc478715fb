package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// domain is where the members of these tests are registered.
	domain = "members.test"
	// nameServer is an address of loopback that nothing else listens on. Its port must be 53: the
	// settings of a machine name no other.
	nameServer = "127.71.0.53"
)

// zone is a name server for one domain: records of a service, and an address for every host.
type zone struct {
	services map[string][]int
	// isForgotten takes the services away and leaves the hosts.
	isForgotten atomic.Bool
}

// serve answers until the test ends.
func serve(t *testing.T, services map[string][]int) *zone {
	t.Helper()
	socket, err := net.ListenPacket("udp", nameServer+":53")
	if err != nil {
		t.Fatalf("this test needs a name server of its own, which takes root: %v", err)
	}
	z := &zone{services: services}
	t.Cleanup(func() { _ = socket.Close() })
	go func() {
		question := make([]byte, 4096)
		for {
			length, from, err := socket.ReadFrom(question)
			if err != nil {
				return
			}
			if answer, err := z.answer(question[:length]); err == nil {
				_, _ = socket.WriteTo(answer, from)
			}
		}
	}()
	return z
}

func (z *zone) answer(bytes []byte) ([]byte, error) {
	var message dnsmessage.Message
	if err := message.Unpack(bytes); err != nil {
		return nil, err
	}
	question := message.Questions[0]
	name := question.Name.String()
	message.Response, message.RecursionAvailable = true, true
	message.Additionals = nil
	add := func(body dnsmessage.ResourceBody) {
		header := dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class, TTL: 1}
		message.Answers = append(message.Answers, dnsmessage.Resource{Header: header, Body: body})
	}
	ports, isService := z.services[name]
	isService = isService && !z.isForgotten.Load()
	switch {
	case question.Type == dnsmessage.TypeSRV && isService:
		for i, port := range ports {
			target := dnsmessage.MustNewName(fmt.Sprintf("m%d.%s.", i+1, domain))
			add(&dnsmessage.SRVResource{Port: uint16(port), Target: target})
		}
	case question.Type == dnsmessage.TypeA && strings.HasSuffix(name, "."+domain+"."):
		add(&dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}})
	case !strings.HasSuffix(name, "."+domain+".") || question.Type == dnsmessage.TypeSRV:
		message.RCode = dnsmessage.RCodeNameError
	}
	return message.Pack()
}

// asking is a server that asks this name server and no other: it runs with settings of its own.
func asking(t *testing.T, server Server) Server {
	t.Helper()
	folder := t.TempDir()
	settings, program := filepath.Join(folder, "resolv.conf"), filepath.Join(folder, "program")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --mount sh -c 'mount --bind %s /etc/resolv.conf && exec %s \"$@\"' - \"$@\"\n", settings, server.Path)
	for path, text := range map[string]string{settings: "nameserver " + nameServer + "\n", program: script} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	server.Path = program
	return server
}

// Three members found a cluster by the records of their domain, and go by the names in them; who has
// no record is refused.
func TestDiscoveryByRecords(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	d := &discovery{T: t, ctx: ctx}
	target := asking(t, Target(t))
	options := Options{Members: 3, Discovery: []string{"--discovery-srv=" + domain, "--initial-cluster-token=records"}}
	c, err := prepare(target, options)
	d.must(err)
	t.Cleanup(c.Close)
	var ports []int
	for _, member := range c.Members {
		ports = append(ports, member.PeerPort)
	}
	z := serve(t, map[string][]int{
		"_etcd-server._tcp." + domain + ".":       ports,
		"_etcd-server-other._tcp." + domain + ".": {1},
	})
	d.must(c.startAll())
	d.isOne(c, "founded")
	said := strings.Join(d.members(c.Members[0]), "\n")
	for i, member := range c.Members {
		if want := fmt.Sprintf("[http://m%d.%s:%d]", i+1, domain, member.PeerPort); !strings.Contains(said, want) {
			t.Fatalf("no %s in\n%s", want, said)
		}
	}
	refused := func(name, why string, flags ...string) {
		t.Helper()
		member, err := c.Grow(name, Options{})
		d.must(err)
		defer c.Forget(member)
		d.must(c.Refused(member, Options{Discovery: flags}))
		if !strings.Contains(member.Log(), why) {
			t.Fatalf("%s does not say %q\n%s", name, why, member.LogTail())
		}
	}
	refused("m4", "cannot find local etcd member", options.Discovery...)
	refused("m5", "cannot find local etcd member", append(slices.Clone(options.Discovery), "--discovery-srv-name=other")...)
	refused("m6", "error querying DNS SRV records", "--discovery-srv=nowhere.test")
	d.must(c.Stop())
	if !target.IsEtcd() {
		// Whoever has data needs no records any more.
		z.isForgotten.Store(true)
	}
	d.must(c.startAll())
	d.isOne(c, "restarted")
}
