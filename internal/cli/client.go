package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// client sends requests to one server.
type client struct {
	url         *url.URL
	token       api.Secret
	authorities *x509.CertPool // nil: those of the system
	agent       string
	timeout     time.Duration
}

// request is an envelope without its token, which travels in a header: there it
// does not come back in the answer.
type request struct {
	API    string
	Action string
	Params []byte // as they were typed, doubtful ones included; nil: none
	Debug  bool
}

func (r *request) encode() []byte {
	b := wire.AppendString([]byte(`{"action":`), r.Action)
	if r.API != "" {
		b = wire.AppendString(append(b, `,"api":`...), r.API)
	}
	if r.Debug {
		b = append(b, `,"debug":"max"`...)
	}
	if r.Params != nil {
		b = append(append(b, `,"params":`...), r.Params...)
	}
	return append(b, '}')
}

// endpointOf reads a URL; name is where it was said.
func endpointOf(name, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("%s is an http or https URL, such as %s", name, defaultURL)
	}
	if u.User != nil {
		return nil, usagef("%s must hold no user name or password; log in with createSession", name)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/api"
	}
	return u, nil
}

func authorities(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("the file that --ca names cannot be read: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("the file that --ca names holds no certificate in PEM form")
	}
	return pool, nil
}

// mostAnswer bounds what is read of an answer.
const mostAnswer = 256 << 20

// send asks once and waits for the answer. An error means that there is none
// that could be understood; a refusal is an answer.
func (c *client) send(ctx context.Context, r request) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url.String(), bytes.NewReader(r.encode()))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("User-Agent", c.agent)
	if !c.token.IsZero() {
		q.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	transport := &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.authorities},
	}
	defer transport.CloseIdleConnections()
	// A redirect would take the token elsewhere.
	once := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := once.Do(q)
	if err != nil {
		return nil, c.unreached(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, mostAnswer))
	if err != nil {
		return nil, c.unreached(err)
	}
	a, ok := readAnswer(body)
	if !ok {
		return nil, fmt.Errorf("what answers at %s is no sessiond (HTTP status %d): check --url, whose path is /api unless apiRoot says otherwise", c.url, response.StatusCode)
	}
	return a, nil
}

// unreached says why there is no answer, and what to do.
func (c *client) unreached(err error) error {
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	dns, unknown := errors.AsType[*net.DNSError](err)
	timeout, _ := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted: the server may have done it or not")
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no server answers at %s: start one with sessiond serve, or name another with --url", c.url)
	case unknown && dns.IsNotFound:
		return fmt.Errorf("the host of %s is unknown: check --url", c.url)
	case untrusted:
		return fmt.Errorf("the certificate of %s is not trusted (%w): name the authority that signed it with --ca", c.url, err)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("the server at %s speaks plain HTTP: write http in --url", c.url)
	case errors.Is(err, context.DeadlineExceeded), timeout != nil && timeout.Timeout():
		return fmt.Errorf("no answer from %s within %v: the server may have done it or not", c.url, c.timeout)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // the rest repeats the URL
	}
	return fmt.Errorf("no answer from %s: %w", c.url, err)
}

// answer is an envelope that came back.
type answer struct {
	whole   *wire.Node
	result  *wire.Node // nil if it was left out
	refusal *refusal   // nil for errorCode 0
}

func readAnswer(body []byte) (*answer, bool) {
	tree, _ := wire.ParseTree(body)
	if tree == nil || tree.Kind != wire.Object {
		return nil, false
	}
	code, ok := intOf(tree.Member("errorCode"))
	if !ok {
		return nil, false
	}
	a := &answer{whole: tree, result: tree.Member("result")}
	if code == 0 {
		return a, true
	}
	a.refusal = &refusal{code: api.Code(code), message: textOf(tree.Member("errorMessage"))}
	if data := tree.Member("errorData"); data != nil {
		a.refusal.pointer = textOf(data.Member("pointer"))
		a.refusal.retryAfter, _ = intOf(data.Member("retryAfterSeconds"))
	}
	return a, true
}

// failure returns the refusal as an error, or nil.
func (a *answer) failure() error {
	if a.refusal == nil {
		return nil
	}
	return a.refusal
}

// refusal is an errorCode other than 0.
type refusal struct {
	code       api.Code
	message    string
	pointer    string
	retryAfter int64
}

func (r *refusal) Error() string {
	text := strconv.Itoa(int(r.code))
	if info := r.code.Info(); info.Code == r.code {
		text += " " + info.Name
	}
	text += ": " + printable(r.message)
	if r.pointer != "" {
		text += " (" + printable(r.pointer) + ")"
	}
	if r.retryAfter > 0 {
		text += "; try again in " + strconv.FormatInt(r.retryAfter, 10) + " s"
	}
	if r.code == api.InvalidAuthToken {
		text += "; put the token into $" + tokenVariable
	}
	return text
}

func intOf(n *wire.Node) (int64, bool) {
	if n == nil {
		return 0, false
	}
	return n.Int64()
}

func textOf(n *wire.Node) string {
	if n == nil {
		return ""
	}
	text, _ := n.String()
	return text
}
