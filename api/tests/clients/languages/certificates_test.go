package languages

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificates are the files of one cluster's authority: one pair for its
// members, one for a client whose name is the user's, and one for a client
// without a name, which is how the JSON gateway is reached when there are users.
type certificates struct {
	authority           string
	server, named, bare pair
}

type pair struct{ cert, key string }

// flags make a member serve clients and members by mutual TLS.
func (c *certificates) flags() []string {
	return []string{
		"--cert-file=" + c.server.cert, "--key-file=" + c.server.key, "--trusted-ca-file=" + c.authority, "--client-cert-auth=true",
		"--peer-cert-file=" + c.server.cert, "--peer-key-file=" + c.server.key, "--peer-trusted-ca-file=" + c.authority, "--peer-client-cert-auth=true",
	}
}

func issue(t *testing.T) *certificates {
	t.Helper()
	folder := t.TempDir()
	key, template := newKey(t), newTemplate("authority")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	authority, err := x509.ParseCertificate(der)
	must(t, err)
	sign := func(file, name string) pair {
		own, template := newKey(t), newTemplate(name)
		template.IPAddresses, template.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
		template.KeyUsage = x509.KeyUsageDigitalSignature
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		der, err := x509.CreateCertificate(rand.Reader, template, authority, &own.PublicKey, key)
		must(t, err)
		// Not all clients read the older form of elliptic keys.
		keyDER, err := x509.MarshalPKCS8PrivateKey(own)
		must(t, err)
		p := pair{cert: filepath.Join(folder, file+".pem"), key: filepath.Join(folder, file+"-key.pem")}
		write(t, p.cert, "CERTIFICATE", der)
		write(t, p.key, "PRIVATE KEY", keyDER)
		return p
	}
	c := &certificates{authority: filepath.Join(folder, "ca.pem"), server: sign("server", "server"), named: sign("named", userName), bare: sign("bare", "")}
	write(t, c.authority, "CERTIFICATE", der)
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func newTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name, Organization: []string{"test"}},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
}

func write(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}
