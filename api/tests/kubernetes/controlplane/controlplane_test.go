// Package controlplane starts a kube-apiserver, where one is given, on three
// members with mutual TLS, and uses it with kubectl. No controller and no
// kubelet runs: what is shown is that the store serves the API server.
package controlplane

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const namespace = "holdfast"

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: holdfast}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "example.invalid/web:1"}]}
`

func TestAPIServer(t *testing.T) {
	program, kubectl := asset("TEST_ASSET_KUBE_APISERVER", "kube-apiserver"), asset("TEST_ASSET_KUBECTL", "kubectl")
	if kubectl == "" {
		kubectl, _ = exec.LookPath("kubectl")
	}
	if program == "" || kubectl == "" {
		t.Skip("no kube-apiserver or no kubectl: set KUBEBUILDER_ASSETS, or TEST_ASSET_KUBE_APISERVER and TEST_ASSET_KUBECTL")
	}
	p := start(t, program, kubectl)
	p.do("create", "namespace", namespace)
	p.deploy()
	p.configMaps()
	p.loseMember()
	p.storedWhereKubernetesPutsIt()
	p.deleteAll()
}

// deploy applies a deployment twice, and scales it.
func (p *plane) deploy() {
	p.Helper()
	p.apply(fmt.Sprintf(deployment, 2))
	p.apply(fmt.Sprintf(deployment, 3))
	p.prints("3", "get", "deployment", "web", "-n", namespace, "-o", "jsonpath={.spec.replicas}")
	p.do("scale", "deployment", "web", "-n", namespace, "--replicas=5")
	p.prints("5", "get", "deployment", "web", "-n", namespace, "-o", "jsonpath={.spec.replicas}")
}

// configMaps creates, watches, lists in pages, changes and deletes.
func (p *plane) configMaps() {
	p.Helper()
	const count = 40
	var manifests strings.Builder
	for i := range count {
		fmt.Fprintf(&manifests, "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c%02d, namespace: %s}, data: {n: \"%d\"}}\n", i, namespace, i)
	}
	p.apply(manifests.String())
	names := p.do("get", "configmaps", "-n", namespace, "-o", "name", "--chunk-size=7")
	if got := strings.Count(names, "configmap/c"); got != count {
		p.Fatalf("%d configmaps listed, %d were made", got, count)
	}
	seen := p.watch()
	p.do("patch", "configmap", "c01", "-n", namespace, "--type=merge", "-p", `{"data":{"n":"changed"}}`)
	p.expect(seen, "MODIFIED c01 changed")
	p.do("create", "configmap", "late", "-n", namespace, "--from-literal=n=new")
	p.expect(seen, "ADDED late new")
	p.do("delete", "configmap", "c02", "-n", namespace)
	p.expect(seen, "DELETED c02 2")
	if _, err := p.try("get", "configmap", "c02", "-n", namespace); err == nil || !strings.Contains(err.Error(), "NotFound") {
		p.Fatalf("a deleted configmap: %v", err)
	}
}

// watch starts kubectl's watch of configmaps and returns when it is known to
// run; each line is an event's type, name and value.
func (p *plane) watch() <-chan string {
	p.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	command := p.command(ctx, "get", "configmaps", "-n", namespace, "--watch", "--output-watch-events",
		"-o", "jsonpath={.type} {.object.metadata.name} {.object.data.n}{\"\\n\"}")
	output, err := command.StdoutPipe()
	must(p.T, err)
	must(p.T, command.Start())
	p.Cleanup(func() { cancel(); _ = command.Wait() })
	lines := make(chan string, 1024)
	go copyLines(output, lines)
	p.expect(lines, "ADDED c39 39")
	return lines
}

func copyLines(from io.Reader, to chan<- string) {
	defer close(to)
	for lines := bufio.NewScanner(from); lines.Scan(); {
		to <- lines.Text()
	}
}

// expect reads a watch until a line comes.
func (p *plane) expect(lines <-chan string, want string) {
	p.Helper()
	deadline := time.After(commandTimeout)
	for {
		select {
		case line, open := <-lines:
			if !open {
				p.Fatalf("the watch ended before %q", want)
			}
			if line == want {
				return
			}
		case <-deadline:
			p.Fatalf("the watch did not show %q", want)
		}
	}
}

// loseMember kills each member in turn: the API server goes on with the other
// two.
func (p *plane) loseMember() {
	p.Helper()
	for i, member := range p.members.Members {
		must(p.T, member.Kill())
		name := fmt.Sprint("without-", i)
		p.eventually("a write without "+member.Name, commandTimeout, func() bool {
			_, err := p.try("create", "configmap", name, "-n", namespace, "--from-literal=n=x")
			return err == nil || strings.Contains(err.Error(), "AlreadyExists")
		})
		p.prints("x", "get", "configmap", name, "-n", namespace, "-o", "jsonpath={.data.n}")
		must(p.T, member.Start())
	}
}

// storedWhereKubernetesPutsIt reads past the API server.
func (p *plane) storedWhereKubernetesPutsIt() {
	p.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: p.members.Endpoints(), DialTimeout: 10 * time.Second, TLS: p.authority.config(p.authority.issue("reader", "clients"))})
	must(p.T, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	for _, key := range []string{"/registry/namespaces/" + namespace, "/registry/deployments/" + namespace + "/web", "/registry/configmaps/" + namespace + "/c01"} {
		found, err := client.Get(ctx, key)
		must(p.T, err)
		if len(found.Kvs) != 1 || !strings.HasPrefix(string(found.Kvs[0].Value), "k8s\x00") {
			p.Errorf("%s: %v", key, found.Kvs)
		}
	}
}

func (p *plane) deleteAll() {
	p.Helper()
	p.do("delete", "deployment", "web", "-n", namespace)
	p.do("delete", "configmaps", "--all", "-n", namespace)
	p.prints("", "get", "configmaps,deployments", "-n", namespace, "-o", "name")
	// Its end is the work of a controller, which does not run here.
	p.do("delete", "namespace", namespace, "--wait=false")
	p.prints("Terminating", "get", "namespace", namespace, "-o", "jsonpath={.status.phase}")
}

func (p *plane) prints(want string, arguments ...string) {
	p.Helper()
	if got := p.do(arguments...); got != want {
		p.Fatalf("kubectl %s prints %q, want %q", strings.Join(arguments, " "), got, want)
	}
}
