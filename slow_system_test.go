//go:build linux && system

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sessiond/internal/campaign"
)

// What clients that take their time must leave as it was. Thousands send a header
// or a body a byte at a time, or ask for much and read nothing, while a gateway
// validates sessions. It hardly notices; each of them is cut when its time is
// over, and costs little memory until then. Quiet and besieged turns alternate.
func TestSystemCampaignSlow(t *testing.T) {
	campaign.Run(t, campaign.Plan{
		Name: "slow clients", Trials: 5, Few: 1,
		About: "5 turns of validate beside 5,000 clients that drip headers, 2,000 that drip bodies and then 2,000 that do not read, each beside a quiet turn",
		Must:  []string{"failed validates", "clients cut late", "medians of p99 beyond 1.5 times and beyond 2 ms more"},
	}, func(r *campaign.Trial) {
		turns, of := 3, crowdOfSlow{500, 200, 200}
		if r.Whole {
			turns, of = 5, crowdOfSlow{5000, 2000, 2000}
		}
		besiege(r, turns, of)
	})
}

// crowdOfSlow is how many there are of each kind.
type crowdOfSlow struct{ headers, bodies, silent int }

func (c crowdOfSlow) all() int { return c.headers + c.bodies + c.silent }

const (
	slowTimeout   = 5 * time.Second // requestTimeoutSeconds, unless set
	cutWithin     = time.Second     // of it
	dripEvery     = time.Second
	mostPerClient = 20 // KiB
)

func besiege(r *campaign.Trial, turns int, of crowdOfSlow) {
	const gateways, validates = 16, 600
	t := r.T
	config := services(nil)
	config["maxConnectionsPerIpAddress"] = 0
	p := loggedServer(t, config)
	staff := hire(t, p)
	f := &flood{t: t, address: strings.TrimPrefix(p.url, "http://")}
	validate := validateRequest(staff.admin.AuthToken, staff.issuer.AuthToken)

	during := func(watch func()) *sample {
		ctx, cancel := context.WithCancel(t.Context())
		s := &sample{}
		var group sync.WaitGroup
		for n := range gateways {
			group.Go(func() { f.validate(ctx, s, n, time.Second*gateways/validates, validate) })
		}
		watch()
		cancel()
		group.Wait()
		return s
	}
	var quiet, besieged []*sample
	for range turns {
		quiet = append(quiet, during(func() { pause(t, 3*time.Second) }))
		before, open := p.anonymous(t), p.descriptors(t)
		besieged = append(besieged, during(func() {
			s := &siege{t: t, address: f.address, coming: make(chan struct{}, 16)}
			for n := range of.headers + of.bodies {
				s.come(n, n < of.headers)
			}
			s.settle(of.headers+of.bodies, slowTimeout)
			if held := p.descriptors(t) - open; held < (of.headers+of.bodies)*4/5 { // some of the turn before may have gone meanwhile
				t.Errorf("the server holds %d connections more: this is no siege of %d", held, of.headers+of.bodies)
			}
			each := (p.anonymous(t) - before) / int64(of.headers+of.bodies)
			r.Most("KiB for a client that drips", each)
			if each > mostPerClient {
				t.Errorf("%d KiB for each client that drips, want at most %d", each, mostPerClient)
			}
			for n := range of.silent {
				s.comeSilent(of.headers + of.bodies + n)
			}
			s.settle(of.all(), 10*slowTimeout)
			r.Most("MiB for all slow clients, with the answers that they do not take,", (p.anonymous(t)-before)>>10)
			s.group.Wait()
			slices.Sort(s.lasted)
			last := s.lasted[len(s.lasted)-1]
			r.Most("ms until a slow client was cut", last.Milliseconds())
			late, _ := slices.BinarySearch(s.lasted, slowTimeout+cutWithin)
			r.Count("clients cut late", len(s.lasted)-late)
			t.Logf("%d KiB for each client that drips; cut after %v to %v", each, s.lasted[0], last)
		}))
	}
	middle := func(samples []*sample, q float64) time.Duration {
		var each []time.Duration
		for _, s := range samples {
			each = append(each, quantile(s.took, q))
		}
		return quantile(each, 0.5)
	}
	for _, s := range slices.Concat(quiet, besieged) {
		r.Count("failed validates", s.failed)
		r.Count("validates", len(s.took))
	}
	base, worse := middle(quiet, 0.99), middle(besieged, 0.99)
	t.Logf("validate p99 %v quiet, %v besieged", base, worse)
	r.Most("µs of validate p99, quiet,", base.Microseconds())
	r.Most("µs of validate p99, besieged,", worse.Microseconds())
	if !r.Whole { // a few turns on a machine that does other things tell of the median only
		base, worse = middle(quiet, 0.5), middle(besieged, 0.5)
	}
	r.Count("medians of p99 beyond 1.5 times and beyond 2 ms more", oneIf(worse > max(base*3/2, base+2*time.Millisecond)))
}

// A siege is many slow clients at once.
type siege struct {
	t       *testing.T
	address string
	group   sync.WaitGroup
	coming  chan struct{} // few at a time, so that none is refused
	opened  atomic.Int64

	mu     sync.Mutex
	lasted []time.Duration // from the connection to its end
}

// settle waits until so many clients have come.
func (s *siege) settle(all int, within time.Duration) {
	for begun := time.Now(); s.opened.Load() < int64(all); pause(s.t, 10*time.Millisecond) {
		if time.Since(begun) > within {
			s.t.Fatalf("%d of %d clients have come", s.opened.Load(), all)
		}
	}
}

const slowHead = "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

// come is a client that drips a header, or a body, one byte after the other until
// it is cut.
func (s *siege) come(n int, header bool) {
	first := slowHead + "X: "
	if !header {
		first = slowHead + "Content-Length: 1000\r\n\r\n{"
	}
	s.client(n, 64<<10, func(nc net.Conn) bool {
		_, err := io.WriteString(nc, first)
		return err == nil
	}, func(nc net.Conn) {
		buffer := make([]byte, 512)
		for answered := false; ; {
			_ = nc.SetReadDeadline(time.Now().Add(dripEvery)) // what else is wrong, Read tells
			_, err := nc.Read(buffer)
			switch {
			case err == nil:
				answered = true
			case !errors.Is(err, os.ErrDeadlineExceeded):
				return
			case !answered:
				if _, err := nc.Write([]byte("x")); err != nil {
					return
				}
			}
		}
	})
}

// comeSilent is a client that asks for much and reads no more than the beginning. That it is cut it learns by writing.
func (s *siege) comeSilent(n int) {
	const much = `[{"action":"listActions"},{"action":"listActions"}]` // more than the kernel takes in
	s.client(n, 4<<10, func(nc net.Conn) bool {
		if _, err := fmt.Fprintf(nc, "%sContent-Length: %d\r\n\r\n%s", slowHead, len(much), much); err != nil {
			return false
		}
		_, err := io.ReadFull(nc, make([]byte, 2<<10))
		return err == nil
	}, func(nc net.Conn) {
		for {
			pause(s.t, dripEvery/4)
			if _, err := nc.Write([]byte("P")); err != nil {
				return
			}
		}
	})
}

// client connects, comes to the point at which it is slow, and stays there until it
// is cut.
func (s *siege) client(n, room int, come func(net.Conn) bool, stay func(net.Conn)) {
	s.group.Go(func() {
		dialer := net.Dialer{
			LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 3, byte(n/250), byte(n%250+1))},
			Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) {
					_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, room) // a hint
				})
			},
		}
		s.coming <- struct{}{}
		nc, err := dialer.DialContext(s.t.Context(), "tcp", s.address)
		if err != nil {
			<-s.coming
			s.t.Error(err)
			return
		}
		defer func() { _ = nc.Close() }()
		there := come(nc)
		<-s.coming
		if !there {
			s.t.Error("cut before it was slow")
			return
		}
		begun := time.Now()
		s.opened.Add(1)
		stay(nc)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lasted = append(s.lasted, time.Since(begun).Round(time.Millisecond))
	})
}
