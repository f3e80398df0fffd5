//go:build linux && system

package main

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// A server that may open 256 files, and to which a thousand clients connect and
// stay, goes on answering whoever is in; once they have gone, it answers everybody
// within a second.
func TestSystemDescriptors(t *testing.T) {
	const attackers, asked = 1000, 200
	config := services(nil)
	config["maxConnectionsPerIpAddress"] = 0
	p := newHome(t, config).start(t, "prlimit", "--nofile=256:256")
	staff := hire(t, p)
	inside := newClient(p, staff.admin.AuthToken)
	defer inside.close()
	validate := func(c *client) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return c.call(ctx, "validate", nil, nil)
	}
	if err := validate(inside); err != nil {
		t.Fatal(err)
	}

	address := strings.TrimPrefix(p.url, "http://")
	crowd := make([]net.Conn, attackers)
	var group sync.WaitGroup
	for n := range crowd {
		group.Go(func() {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 4, byte(n/250), byte(n%250+1))}}
			nc, err := dialer.DialContext(t.Context(), "tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = nc.Write([]byte("POST /api HTTP/1.1\r\n")) // whom it turns away it may have cut
			crowd[n] = nc
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	for range asked {
		if err := validate(inside); err != nil {
			t.Fatalf("who was in before is answered %v", err)
		}
	}
	if held := p.descriptors(t); held < 128 || held > 256 {
		t.Errorf("the server has %d files open: this was no crowd", held)
	}
	for _, nc := range crowd {
		_ = nc.Close()
	}
	left := time.Now()
	fresh := func() error {
		c := newClient(p, staff.admin.AuthToken)
		c.http.Transport = &http.Transport{DisableKeepAlives: true}
		return validate(c)
	}
	for fresh() != nil {
		if time.Since(left) > time.Second {
			t.Fatalf("nobody is answered %v after the crowd has gone:\n%s", time.Since(left), p.output)
		}
	}
	t.Logf("new clients are answered %v after the crowd has gone", time.Since(left).Round(time.Millisecond))
	if rest := time.Second - time.Since(left); rest > 0 {
		pause(t, rest)
	}
	for range asked {
		if err := fresh(); err != nil {
			t.Fatalf("a second later a client is answered %v", err)
		}
	}
	if code, _ := p.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
