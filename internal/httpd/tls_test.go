package httpd_test

import (
	"bufio"
	"context"
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
	"strings"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/httpd"
)

const hsts = "Strict-Transport-Security"

// Whatever a listener of https answers says that TLS is always to be used, and
// nothing does that was answered in the clear.
func TestEveryAnswerOverTLSAsksForTLS(t *testing.T) {
	secure, plain := startTLS(t), start(t, handlerFunc(panicOrEcho), nil)
	for _, c := range []struct {
		name, wire string
		status     int
	}{
		{"the endpoint", "POST /api HTTP/1.1⏎Host: localhost⏎Content-Length: 2⏎⏎{}", 200},
		{"health", "GET /healthz HTTP/1.1⏎Host: localhost⏎⏎", 200},
		{"readiness", "GET /readyz HTTP/1.1⏎Host: localhost⏎⏎", 200},
		{"what this is", "GET / HTTP/1.1⏎Host: localhost⏎⏎", 200},
		{"a preflight", "OPTIONS /api HTTP/1.1⏎Host: localhost⏎Origin: https://app.example⏎Access-Control-Request-Method: POST⏎⏎", 204},
		{"a refusal", "GET /api HTTP/1.1⏎Host: localhost⏎⏎", 405},
		{"another name", "POST /api HTTP/1.1⏎Host: evil.example⏎Content-Length: 2⏎⏎{}", 421},
		{"what is not HTTP", "NONSENSE⏎⏎", 400},
		{"two lengths", "POST /api HTTP/1.1⏎Host: localhost⏎Content-Length: 2⏎Content-Length: 3⏎⏎{}", 400},
		{"too large", "POST /api HTTP/1.1⏎Host: localhost⏎Content-Length: 300000⏎⏎{}", 413},
		{"too large, asked before", "POST /api HTTP/1.1⏎Host: localhost⏎Expect: 100-continue⏎Content-Length: 300000⏎⏎", 413},
		{"a panic", "POST /api HTTP/1.1⏎Host: localhost⏎Content-Length: 5⏎⏎panic", 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			for want, nc := range map[string]net.Conn{"max-age=31536000": secure.dial(t), "": dial(t, plain)} {
				send(t, nc, strings.ReplaceAll(c.wire, "⏎", "\r\n"))
				method, _, _ := strings.Cut(c.wire, " ")
				got := receive(t, bufio.NewReader(nc), method)
				if got.status != c.status || got.header.Get(hsts) != want {
					t.Errorf("status %d, %s: %q; want %d, %q", got.status, hsts, got.header.Get(hsts), c.status, want)
				}
			}
		})
	}
}

func TestTLS(t *testing.T) {
	s := startTLS(t)
	if n := s.serial(t); n != 1 {
		t.Errorf("certificate %d, want 1", n)
	}
	t.Run("a refusal arrives", func(t *testing.T) {
		nc := s.dial(t)
		send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5242880\r\n\r\n")
		send(t, nc, strings.Repeat("x", 5<<20))
		if got := receive(t, bufio.NewReader(nc), "POST"); got.status != 413 || got.code(t) != api.TooLarge {
			t.Errorf("answered %d %s", got.status, got.body)
		}
	})
	for version, name := range map[uint16]string{tls.VersionTLS10: "1.0", tls.VersionTLS11: "1.1", tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3"} {
		t.Run("TLS "+name, func(t *testing.T) {
			settings := s.settings()
			settings.MinVersion, settings.MaxVersion = version, version
			err := tls.Client(dial(t, s.Server), settings).HandshakeContext(t.Context())
			if (err == nil) != (version >= tls.VersionTLS12) {
				t.Errorf("the handshake returns %v", err)
			}
		})
	}
	t.Run("plain HTTP is not served", func(t *testing.T) {
		nc := dial(t, s.Server)
		send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
		if line, err := bufio.NewReader(nc).ReadString('\n'); err == nil {
			t.Errorf("it is answered %q", line)
		}
	})
}

// A reload takes all that the new configuration says, or nothing of it.
func TestReload(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, s *secure, changed *config.Config)
		want   int64  // the certificate that the next connection gets
		fault  string // in the error; empty: it succeeds
		note   string // in a note; empty: there is none
	}{
		{"the same file, a new certificate", func(t *testing.T, s *secure, _ *config.Config) {
			writeCertificate(t, s.file, 2, s.roots)
		}, 2, "", ""},
		{"another file", func(t *testing.T, s *secure, changed *config.Config) {
			changed.Listeners[0].TLS.CertificateFile = filepath.Join(t.TempDir(), "other.pem")
			writeCertificate(t, changed.Listeners[0].TLS.CertificateFile, 3, s.roots)
		}, 3, "", ""},
		{"no certificate", func(t *testing.T, s *secure, _ *config.Config) {
			writeFile(t, s.file, []byte("no certificate"))
		}, 1, "server.pem", ""},
		{"a key that does not fit", func(t *testing.T, s *secure, changed *config.Config) {
			changed.Listeners[0].TLS.KeyFile = filepath.Join(t.TempDir(), "key.pem")
			writeCertificate(t, changed.Listeners[0].TLS.KeyFile, 4, s.roots)
		}, 1, "private key does not match public key", ""},
		{"a good one, and a bad one of a listener that is not open yet", func(t *testing.T, s *secure, changed *config.Config) {
			writeCertificate(t, s.file, 5, s.roots)
			changed.Listeners = append(changed.Listeners, config.Listener{
				ServiceName: "second", Protocol: "https", Enabled: true, TLS: config.TLS{CertificateFile: "nosuch.pem"},
			})
		}, 1, "nosuch.pem", ""},
		{"a listener more", func(_ *testing.T, _ *secure, changed *config.Config) {
			changed.Listeners = append(changed.Listeners, config.Listener{ServiceName: "second", Protocol: "http", Enabled: true})
		}, 1, "", `"second" is not open`},
		{"a listener less", func(_ *testing.T, _ *secure, changed *config.Config) { changed.Listeners = nil }, 1, "", `"main" is no more in the file`},
		{"another port", func(_ *testing.T, _ *secure, changed *config.Config) { changed.Listeners[0].Port = 1 }, 1, "", `"main" is open as it was`},
		{"disabled", func(_ *testing.T, _ *secure, changed *config.Config) { changed.Listeners[0].Enabled = false }, 1, "", `"main" is disabled`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startTLS(t)
			before := s.holder.Get()
			changed := *before
			changed.Listeners = append([]config.Listener(nil), before.Listeners...)
			c.change(t, s, &changed)
			notes, err := s.Reload(&changed, recorded)
			switch {
			case c.fault == "" && (err != nil || s.holder.Get() != &changed):
				t.Errorf("Reload returned %v, and the new configuration is in force: %t", err, s.holder.Get() == &changed)
			case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault) || s.holder.Get() != before):
				t.Errorf("Reload returned %v, and the old configuration is in force: %t", err, s.holder.Get() == before)
			}
			if all := strings.Join(notes, "; "); (all == "") != (c.note == "") || !strings.Contains(all, c.note) {
				t.Errorf("notes %q, want %q", all, c.note)
			}
			if n := s.serial(t); n != c.want {
				t.Errorf("certificate %d, want %d", n, c.want)
			}
		})
	}
}

// Listeners in the clear that are open beyond loopback do not survive that the
// configuration forbids them unnoticed.
func TestReloadDoesNotForbidWhatIsOpen(t *testing.T) {
	s, holder := startHeld(t, &echo{}, func(c *config.Config) { c.Listeners[0].Address, c.InsecureHTTP = "0.0.0.0", true })
	before := holder.Get()
	changed := *before
	changed.InsecureHTTP = false
	if _, err := s.Reload(&changed, recorded); err == nil || !strings.Contains(err.Error(), "--insecure-http") || holder.Get() != before {
		t.Errorf("Reload returned %v", err)
	}
}

// Who has met a certificate that was replaced since cannot resume what he had with
// it, and sees the new one.
func TestReloadEndsOldTickets(t *testing.T) {
	for version, name := range map[uint16]string{tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3"} {
		t.Run("TLS "+name, func(t *testing.T) {
			s := startTLS(t)
			settings := s.settings()
			settings.ClientSessionCache, settings.MaxVersion = tls.NewLRUClientSessionCache(4), version
			resumes := func() (bool, int64) {
				t.Helper()
				nc := tls.Client(dial(t, s.Server), settings)
				send(t, nc, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
				receive(t, bufio.NewReader(nc), "GET") // what comes first is the ticket
				state := nc.ConnectionState()
				return state.DidResume, state.PeerCertificates[0].SerialNumber.Int64()
			}
			for i, want := range []bool{false, true} {
				if resumed, _ := resumes(); resumed != want {
					t.Errorf("connection %d resumes: %t, want %t", i+1, resumed, want)
				}
			}
			writeCertificate(t, s.file, 2, s.roots)
			if _, err := s.Reload(s.holder.Get(), recorded); err != nil {
				t.Fatal(err)
			}
			if resumed, serial := resumes(); resumed || serial != 2 {
				t.Errorf("after the reload a connection resumes: %t, with certificate %d; want a handshake with 2", resumed, serial)
			}
		})
	}
}

// secure is a server with one listener of https.
type secure struct {
	*httpd.Server

	holder *config.Holder
	file   string
	roots  *x509.CertPool
}

func startTLS(t *testing.T) *secure {
	t.Helper()
	return startTLSWith(t, handlerFunc(panicOrEcho))
}

func panicOrEcho(_ context.Context, r *api.Request, dst []byte) api.Answer {
	if string(r.Body) == "panic" {
		panic("as asked")
	}
	return api.Answer{Body: append(dst, `{"errorCode":0}`...)}
}

func startTLSWith(t *testing.T, h httpd.Handler) *secure {
	t.Helper()
	s := &secure{file: filepath.Join(t.TempDir(), "server.pem"), roots: x509.NewCertPool()}
	writeCertificate(t, s.file, 1, s.roots)
	s.Server, s.holder = startHeld(t, h, func(c *config.Config) {
		c.Listeners[0].Protocol, c.Listeners[0].TLS = "https", config.TLS{CertificateFile: s.file}
	})
	return s
}

func (s *secure) settings() *tls.Config {
	return &tls.Config{RootCAs: s.roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}

func (s *secure) dial(t *testing.T) *tls.Conn {
	t.Helper()
	return tls.Client(dial(t, s.Server), s.settings())
}

// serial returns the number of the certificate that a new connection gets.
func (s *secure) serial(t *testing.T) int64 {
	t.Helper()
	nc := s.dial(t)
	send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
	if got := receive(t, bufio.NewReader(nc), "POST"); got.status != 200 {
		t.Errorf("answered %d %s", got.status, got.body)
	}
	return nc.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// writeCertificate writes a self-signed certificate and its key into one file.
func writeCertificate(t *testing.T, file string, serial int64, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "certificate " + itoa(int(serial))}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	writeFile(t, file, text)
	roots.AppendCertsFromPEM(text)
}

func writeFile(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
