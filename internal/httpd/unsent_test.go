package httpd_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/httpd"
)

// Answers that are being made, or that nobody reads, find room for so much and no
// more; small ones always do; and whoever has read, or is gone, has given his back.
func TestLargeAnswersShareTheirRoom(t *testing.T) {
	const KiB, MiB = 1 << 10, 1 << 20
	for _, tt := range []struct {
		what    string
		held    int // bytes, by somebody who is known
		asked   int
		known   bool
		granted bool
	}{
		{"nothing is held", 0, 8 * MiB, false, true},
		{"more than strangers may have", 0, 8*MiB + 1, false, false},
		{"whom one knows has twice as much", 0, 16 * MiB, true, true},
		{"more than there is", 0, 16*MiB + 1, true, false},
		{"what is left", 15 * MiB, MiB, true, true},
		{"more than is left", 15 * MiB, MiB + 1, true, false},
		{"what is left is not for strangers", 8 * MiB, 17 * KiB, false, false},
		{"a small one", 16 * MiB, 16 * KiB, false, true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			h := newHoarder()
			s := start(t, h, nil)
			if tt.held > 0 {
				nc := dial(t, s)
				order(t, nc, "hold", tt.held, true)
				<-h.held
				defer receive(t, bufio.NewReader(nc), "POST")
				defer close(h.release)
			}
			if got := granted(t, s, tt.asked, tt.known); got != tt.granted {
				t.Errorf("asked for %d bytes beside %d: %t", tt.asked, tt.held, got)
			}
		})
	}
	for _, tt := range []struct {
		how string
		end func(t *testing.T, nc net.Conn)
	}{
		{"read", func(t *testing.T, nc net.Conn) {
			r := bufio.NewReader(nc)
			for range 2 { // and asked for again
				if got := receive(t, r, "POST"); len(got.body) != 4*MiB {
					t.Fatalf("%d bytes", len(got.body))
				}
			}
		}},
		{"gone", func(_ *testing.T, nc net.Conn) { _ = nc.Close() }},
	} {
		t.Run("unread answers, then "+tt.how, func(t *testing.T) {
			h := newHoarder()
			s := start(t, h, nil)
			var silent []net.Conn
			for range 4 {
				nc := dial(t, s)
				order(t, nc, "make", 4*MiB, true)
				<-h.held
				order(t, nc, "make", 4*MiB, true)
				silent = append(silent, nc)
			}
			if granted(t, s, 17*KiB, true) || !granted(t, s, 16*KiB, false) {
				t.Fatal("four answers of 4 MiB leave room, or not even for a small one")
			}
			for _, nc := range silent {
				tt.end(t, nc)
			}
			for begun := time.Now(); !granted(t, s, 16*MiB, true); {
				if time.Since(begun) > 10*time.Second {
					t.Fatal("what was " + tt.how + " is still counted")
				}
			}
		})
	}
}

// A refusal does not keep the memory of the answer for which it stands, even where
// nobody reads it.
func TestASmallAnswerKeepsNoLargeBuffer(t *testing.T) {
	s := start(t, newHoarder(), nil)
	send(t, dial(t, s), strings.Repeat(ordered("take back", 20<<10, true), 3000))
	for range 300 {
		if !granted(t, s, 16<<20, true) {
			t.Fatal("room is taken by small answers")
		}
	}
}

// A hoarder asks for room and does with it what he is told to.
type hoarder struct {
	held    chan struct{}
	release chan struct{}
}

func newHoarder() *hoarder {
	return &hoarder{held: make(chan struct{}, 100), release: make(chan struct{})}
}

func (h *hoarder) Serve(_ context.Context, r *api.Request, dst []byte) api.Answer {
	var bytesWanted int
	var known bool
	what, rest, _ := bytes.Cut(r.Body, []byte(":"))
	if _, err := fmt.Sscan(string(rest), &bytesWanted, &known); err != nil {
		return api.Answer{Status: 500, Body: append(dst, err.Error()...)}
	}
	if string(what) == "take back" {
		return api.Answer{Body: append(make([]byte, 0, bytesWanted), "none"...)}
	}
	fits := r.Room.Grow(bytesWanted, known)
	switch string(what) {
	case "hold":
		h.held <- struct{}{}
		<-h.release
	case "make":
		h.held <- struct{}{}
		return api.Answer{Body: make([]byte, bytesWanted)}
	}
	return api.Answer{Body: fmt.Appendf(dst, "%t", fits)}
}

func ordered(what string, wanted int, known bool) string {
	body := fmt.Sprintf("%s:%d %t", what, wanted, known)
	return "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body
}

func order(t *testing.T, nc net.Conn, what string, wanted int, known bool) {
	t.Helper()
	send(t, nc, ordered(what, wanted, known))
}

// granted asks whether there is room at this moment.
func granted(t *testing.T, s *httpd.Server, wanted int, known bool) bool {
	t.Helper()
	nc := dial(t, s)
	defer func() { _ = nc.Close() }()
	order(t, nc, "room", wanted, known)
	return string(receive(t, bufio.NewReader(nc), "POST").body) == "true"
}
