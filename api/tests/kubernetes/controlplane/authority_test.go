package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
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

// authority signs every certificate of a test: the members', the API server's
// and the administrator's.
type authority struct {
	*testing.T
	folder      string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// pair is a certificate's files.
type pair struct{ cert, key string }

func newAuthority(t *testing.T, folder string) *authority {
	t.Helper()
	a := &authority{T: t, folder: folder}
	a.certificate = template(pkix.Name{CommonName: "authority"})
	a.certificate.IsCA, a.certificate.BasicConstraintsValid = true, true
	a.certificate.KeyUsage = x509.KeyUsageCertSign
	a.key = a.newKey("ca-key.pem")
	a.sign("ca.pem", a.certificate, a.key)
	return a
}

// file is the authority's certificate.
func (a *authority) file() string { return filepath.Join(a.folder, "ca.pem") }

// issue makes a certificate that serves on this host and identifies a client.
func (a *authority) issue(name, organization string) pair {
	a.Helper()
	wanted := template(pkix.Name{CommonName: name, Organization: []string{organization}})
	wanted.KeyUsage = x509.KeyUsageDigitalSignature
	wanted.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	wanted.IPAddresses, wanted.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	p := pair{cert: filepath.Join(a.folder, name+".pem"), key: filepath.Join(a.folder, name+"-key.pem")}
	a.sign(filepath.Base(p.cert), wanted, a.newKey(filepath.Base(p.key)))
	return p
}

// config is what a client of the members needs.
func (a *authority) config(p pair) *tls.Config {
	a.Helper()
	certificate, err := tls.LoadX509KeyPair(p.cert, p.key)
	must(a.T, err)
	content, err := os.ReadFile(a.file())
	must(a.T, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(content)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}
}

func template(subject pkix.Name) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      subject,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

func (a *authority) sign(file string, wanted *x509.Certificate, key *ecdsa.PrivateKey) {
	a.Helper()
	der, err := x509.CreateCertificate(rand.Reader, wanted, a.certificate, &key.PublicKey, a.key)
	must(a.T, err)
	a.write(file, "CERTIFICATE", der)
}

func (a *authority) newKey(file string) *ecdsa.PrivateKey {
	a.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.T, err)
	der, err := x509.MarshalECPrivateKey(key)
	must(a.T, err)
	a.write(file, "EC PRIVATE KEY", der)
	return key
}

func (a *authority) write(file, kind string, der []byte) {
	a.Helper()
	content := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	must(a.T, os.WriteFile(filepath.Join(a.folder, file), content, 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
