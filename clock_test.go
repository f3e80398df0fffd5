//go:build linux

package main

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sessiond/internal/cli"
	"sessiond/internal/event"
	"sessiond/store/bolt"
)

// A server that begins on data which was in use until later than its machine's clock
// says goes on from there, or refuses to; with --accept-clock it goes back, for good.
func TestMachineBehindItsData(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, tt := range []struct {
		name    string
		ahead   time.Duration // the data, of the machine
		refused bool
		warns   bool
	}{
		{"not at all", 0, false, false},
		{"an hour", time.Hour, false, true},
		{"two days", 48 * time.Hour, true, false},
		{"ten years", 10 * year, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHome(t, services(nil))
			p := h.start(t)
			staff := hire(t, p)
			stopped(t, p)
			h.markAt(t, time.Now().Add(tt.ahead))
			before := revisionOf(t, h)

			if tt.refused {
				p = h.launch(t)
				<-p.exited
				if code := p.cmd.ProcessState.ExitCode(); code != 1 {
					t.Errorf("exit code %d, want 1", code)
				}
				for _, want := range []string{"the machine's clock says ", "this data was in use until ", "--accept-clock"} {
					if text := p.output.String(); !strings.Contains(text, want) {
						t.Errorf("nobody is told %q:\n%s", want, text)
					}
				}
				if after := revisionOf(t, h); after != before {
					t.Errorf("the store was at revision %d, now it is at %d", before, after)
				}
			} else {
				p = h.start(t)
				if got := created(t, p); got.Before(time.Now().Add(tt.ahead - time.Minute)) {
					t.Errorf("a session is created at %v", got)
				}
				took := regexp.MustCompile(`"done":"verifying the file","milliseconds":(\d+)\b`).FindStringSubmatch(p.output.String())
				if took == nil || len(took[1]) > 5 { // not the time by which the data is ahead
					t.Errorf("verifying the file took %q\n%s", took, p.output)
				}
				pause(t, 1500*time.Millisecond) // it looks each second
				if warned := strings.Contains(p.output.String(), "the machine's clock is behind"); warned != tt.warns {
					t.Errorf("it warns: %v, want %v\n%s", warned, tt.warns, p.output)
				}
				stopped(t, p)
			}
			if tt.ahead == 0 {
				return
			}

			accepting := h
			accepting.flags = []string{"--accept-clock"}
			p = accepting.start(t)
			c := newClient(p, staff.admin.AuthToken)
			defer c.close()
			var page struct{ Events []struct{ Kind string } }
			c.must(t, "listEvents", params{"kinds": []string{"clockAccepted"}}, &page)
			if len(page.Events) != 1 {
				t.Errorf("%d events tell that the clock was accepted", len(page.Events))
			}
			if got := created(t, p); got.After(time.Now().Add(time.Second)) {
				t.Errorf("with the clock accepted a session is created at %v", got)
			}
			stopped(t, p)
			stopped(t, h.start(t))
		})
	}
}

// markAt notes in the data of a server that does not run until when it was used.
func (h home) markAt(t *testing.T, told time.Time) {
	t.Helper()
	s, err := bolt.Open(t.Context(), filepath.Join(h.data, cli.DataFile), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := event.KeepMark(t.Context(), s, told); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// revisionOf returns the revision of the data of a server that does not run.
func revisionOf(t *testing.T, h home) uint64 {
	t.Helper()
	sum, err := bolt.Verify(t.Context(), filepath.Join(h.data, cli.DataFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	return uint64(sum.Rev)
}

// stopped asks a server to end, which it does well.
func stopped(t *testing.T, p *process) {
	t.Helper()
	if code, _ := p.terminate(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.output)
	}
}

// created returns when a session that is created now says it was.
func created(t *testing.T, p *process) time.Time {
	t.Helper()
	c := newClient(p, "")
	defer c.close()
	var made credential
	c.must(t, "createSession", params{"username": "admin", "password": adminPassword}, &made)
	c.token = made.AuthToken
	var info struct{ SessionStartTimestamp time.Time }
	c.must(t, "getSessionInfo", nil, &info)
	return info.SessionStartTimestamp
}

// mark returns until when the data of a server that does not run was used.
func (h home) mark(t *testing.T) time.Time {
	t.Helper()
	s, err := bolt.Open(t.Context(), filepath.Join(h.data, cli.DataFile), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	mark, err := event.Mark(t.Context(), s)
	if err = errors.Join(err, s.Close()); err != nil {
		t.Error(err)
	}
	return mark
}
