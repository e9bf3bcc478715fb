package languages

import (
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"holdfast.dev/clients/cluster"
)

const (
	patience = 60 * time.Second
	// progressInterval is how often the clusters here tell idle watches where
	// they are.
	progressInterval = 300 * time.Millisecond

	rootPassword = "root-pw"
	userName     = "ann"
	userPassword = "ann-pw"
)

// userRanges are the prefixes that the user may read and write; Python's clients
// keep their locks under the second.
var userRanges = []string{"app/", "/locks/"}

// access is a running cluster and what a client needs to reach it.
type access struct {
	setting
	cluster      *cluster.Cluster
	certificates *certificates
}

// environment is how a program is told.
func (a *access) environment() []string {
	variables := []string{
		"ENDPOINTS=" + strings.Join(a.cluster.Endpoints(), ","),
		"MEMBERS=" + strconv.Itoa(len(a.cluster.Members)),
		"PROGRESS_MS=" + strconv.Itoa(int(progressInterval.Milliseconds())),
	}
	if a.tls {
		c := a.certificates
		variables = append(variables, "CA="+c.authority,
			"CERT="+c.named.cert, "KEY="+c.named.key, "BARE_CERT="+c.bare.cert, "BARE_KEY="+c.bare.key)
	}
	if a.users {
		variables = append(variables, "ROOT_PASSWORD="+rootPassword, "USER_NAME="+userName, "USER_PASSWORD="+userPassword)
	}
	return append(os.Environ(), variables...)
}

// client is the Go client in the name of a user, or of nobody.
func (a *access) client(t *testing.T, user, password string) *clientv3.Client {
	t.Helper()
	config := a.config(t, user, password)
	if a.tls && user == "" {
		config.TLS = a.certificates.config(t, a.certificates.bare)
	}
	client, err := clientv3.New(config)
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (a *access) config(t *testing.T, user, password string) clientv3.Config {
	t.Helper()
	config := clientv3.Config{DialTimeout: 10 * time.Second, Logger: zap.NewNop(), Username: user, Password: password}
	for _, member := range a.cluster.Members {
		config.Endpoints = append(config.Endpoints, member.ClientURL())
	}
	if a.tls {
		config.TLS = a.certificates.config(t, a.certificates.named)
	}
	return config
}

// addUsers adds root and the user, and turns authorization on.
func (a *access) addUsers(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := a.client(t, "", "")
	for _, user := range []struct{ name, password, role string }{{"root", rootPassword, "root"}, {userName, userPassword, "app"}} {
		_, err := client.RoleAdd(ctx, user.role)
		must(t, err)
		_, err = client.UserAdd(ctx, user.name, user.password)
		must(t, err)
		_, err = client.UserGrantRole(ctx, user.name, user.role)
		must(t, err)
	}
	for _, prefix := range userRanges {
		_, err := client.RoleGrantPermission(ctx, "app", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
		must(t, err)
	}
	_, err := client.AuthEnable(ctx)
	must(t, err)
}

// config is a client's that has this certificate.
func (c *certificates) config(t *testing.T, p pair) *cryptotls.Config {
	t.Helper()
	certificate, err := cryptotls.LoadX509KeyPair(p.cert, p.key)
	must(t, err)
	authority, err := os.ReadFile(c.authority)
	must(t, err)
	config := &cryptotls.Config{Certificates: []cryptotls.Certificate{certificate}, RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(authority)
	return config
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
