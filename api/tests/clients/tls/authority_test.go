package tls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	cryptotls "crypto/tls"
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

// authority signs certificates for one test.
type authority struct {
	*testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	folder      string
	serial      int64
}

// pair is a certificate's files.
type pair struct {
	cert, key string
	serial    *big.Int
}

// subject says what is unusual about a certificate.
type subject struct {
	name       string
	expired    bool
	noAddress  bool
	serverOnly bool
}

func newAuthority(t *testing.T) *authority {
	a := &authority{T: t, folder: t.TempDir(), serial: time.Now().UnixNano()}
	a.key = newKey(t)
	template := a.template("authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	must(t, err)
	a.certificate, err = x509.ParseCertificate(der)
	must(t, err)
	write(t, a.file(), "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func (a *authority) template(name string) *x509.Certificate {
	a.serial++
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.serial),
		Subject:      pkix.Name{CommonName: name, Organization: []string{"test"}},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
}

// file is the authority's certificate.
func (a *authority) file() string { return filepath.Join(a.folder, "ca.pem") }

// issue signs a certificate for this host, and writes it under a name.
func (a *authority) issue(file string, s subject) pair {
	key, template := newKey(a.T), a.template(s.name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	if s.serverOnly {
		template.ExtKeyUsage = template.ExtKeyUsage[:1]
	}
	if !s.noAddress {
		template.IPAddresses, template.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	}
	if s.expired {
		template.NotBefore, template.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	must(a.T, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(a.T, err)
	p := pair{cert: filepath.Join(a.folder, file+".pem"), key: filepath.Join(a.folder, file+"-key.pem"), serial: template.SerialNumber}
	write(a.T, p.key, "EC PRIVATE KEY", keyDER)
	write(a.T, p.cert, "CERTIFICATE", der)
	return p
}

// revoke writes a list of these certificates.
func (a *authority) revoke(pairs ...pair) string {
	list := &x509.RevocationList{Number: big.NewInt(a.serial), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, p := range pairs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: p.serial, RevocationTime: time.Now().Add(-time.Minute)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.certificate, a.key)
	must(a.T, err)
	// etcd reads no PEM here.
	file := filepath.Join(a.folder, "crl.der")
	must(a.T, os.WriteFile(file+".new", der, 0o600))
	must(a.T, os.Rename(file+".new", file))
	return file
}

// config is a client's, with a certificate or without.
func (a *authority) config(p *pair) *cryptotls.Config {
	config := &cryptotls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AddCert(a.certificate)
	if p != nil {
		certificate, err := cryptotls.LoadX509KeyPair(p.cert, p.key)
		must(a.T, err)
		// Sent whatever the server says it wants.
		config.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
			return &certificate, nil
		}
	}
	return config
}

// write replaces a file in one step.
func write(t *testing.T, file, kind string, der []byte) {
	must(t, os.WriteFile(file+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	must(t, os.Rename(file+".new", file))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
