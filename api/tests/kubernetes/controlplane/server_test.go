package controlplane

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast.dev/clients/cluster"
)

const (
	readyTimeout   = 3 * time.Minute
	commandTimeout = time.Minute
)

// plane is a kube-apiserver over three members, and kubectl as its
// administrator.
type plane struct {
	*testing.T
	members    *cluster.Cluster
	authority  *authority
	folder     string
	kubectl    string
	kubeconfig string
}

// asset is the path of a program of Kubernetes, "" where there is none. The
// variables are those of controller-runtime's envtest.
func asset(variable, name string) string {
	if path := os.Getenv(variable); path != "" {
		return path
	}
	if folder := os.Getenv("KUBEBUILDER_ASSETS"); folder != "" {
		path := filepath.Join(folder, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// start starts the members with mutual TLS everywhere, and the API server with
// a certificate for them.
func start(t *testing.T, program, kubectl string) *plane {
	t.Helper()
	folder := t.TempDir()
	p := &plane{T: t, folder: folder, kubectl: kubectl, authority: newAuthority(t, folder)}
	member := p.authority.issue("member", "members")
	p.members = cluster.Start(t, cluster.Target(t), cluster.Options{Members: 3, ClientTLS: true, PeerTLS: true, Args: []string{
		"--client-cert-auth", "--cert-file=" + member.cert, "--key-file=" + member.key, "--trusted-ca-file=" + p.authority.file(),
		"--peer-client-cert-auth", "--peer-cert-file=" + member.cert, "--peer-key-file=" + member.key, "--peer-trusted-ca-file=" + p.authority.file(),
	}})
	port := freePort(t)
	p.run(program, p.arguments(port))
	p.writeKubeconfig(port)
	p.eventually("kube-apiserver is ready", readyTimeout, func() bool {
		output, err := p.try("get", "--raw", "/readyz")
		return err == nil && output == "ok"
	})
	return p
}

func (p *plane) arguments(port int) []string {
	var endpoints []string
	for _, member := range p.members.Members {
		endpoints = append(endpoints, member.ClientURL())
	}
	client, serving := p.authority.issue("etcd-client", "clients"), p.authority.issue("kube-apiserver", "servers")
	accounts := p.authority.issue("accounts", "keys")
	return []string{
		"--etcd-servers=" + strings.Join(endpoints, ","),
		"--etcd-cafile=" + p.authority.file(), "--etcd-certfile=" + client.cert, "--etcd-keyfile=" + client.key,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprint("--secure-port=", port),
		"--tls-cert-file=" + serving.cert, "--tls-private-key-file=" + serving.key,
		"--client-ca-file=" + p.authority.file(), "--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + accounts.key, "--service-account-signing-key-file=" + accounts.key,
	}
}

// run starts the API server, and ends it before the members are stopped. Its
// own checks of its caches against the store are on.
func (p *plane) run(program string, arguments []string) {
	p.Helper()
	log, err := os.Create(filepath.Join(p.folder, "kube-apiserver.log"))
	must(p.T, err)
	command := exec.Command(program, arguments...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	command.Env = append(os.Environ(), "KUBE_WATCHCACHE_CONSISTENCY_CHECKER=true", "KUBE_PANIC_WATCH_DECODE_ERROR=true", "KUBE_CACHE_MUTATION_DETECTOR=true")
	must(p.T, command.Start())
	p.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		log.Close()
		if p.Failed() {
			p.Log(tail(log.Name()))
		}
	})
}

func (p *plane) writeKubeconfig(port int) {
	p.Helper()
	admin := p.authority.issue("admin", "system:masters")
	p.kubeconfig = filepath.Join(p.folder, "kubeconfig")
	content := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: admin}}]
clusters: [{name: test, cluster: {server: "https://127.0.0.1:%d", certificate-authority: %q}}]
users: [{name: admin, user: {client-certificate: %q, client-key: %q}}]
`, port, p.authority.file(), admin.cert, admin.key)
	must(p.T, os.WriteFile(p.kubeconfig, []byte(content), 0o600))
}

// command is kubectl with the administrator's rights.
func (p *plane) command(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, p.kubectl, arguments...)
	command.Env = append(os.Environ(), "KUBECONFIG="+p.kubeconfig, "HOME="+p.folder)
	return command
}

// try runs kubectl and gives what it printed.
func (p *plane) try(arguments ...string) (string, error) {
	return p.feed("", arguments...)
}

func (p *plane) feed(input string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	var output, complaint bytes.Buffer
	command := p.command(ctx, arguments...)
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(input), &output, &complaint
	if err := command.Run(); err != nil {
		return output.String(), fmt.Errorf("kubectl %s: %w\n%s", strings.Join(arguments, " "), err, complaint.String())
	}
	return output.String(), nil
}

// do is try that must succeed.
func (p *plane) do(arguments ...string) string {
	p.Helper()
	output, err := p.try(arguments...)
	must(p.T, err)
	return output
}

// apply creates or changes what a manifest says.
func (p *plane) apply(manifest string) {
	p.Helper()
	_, err := p.feed(manifest, "apply", "-f", "-")
	must(p.T, err)
}

func (p *plane) eventually(what string, within time.Duration, holds func() bool) {
	p.Helper()
	for end := time.Now().Add(within); !holds(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			p.Fatalf("%s: not within %s", what, within)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func tail(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return "--- end of " + filepath.Base(path) + "\n" + string(content[max(len(content)-8<<10, 0):])
}
