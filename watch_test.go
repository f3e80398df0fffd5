//go:build linux

package main

import (
	"net/http"
	"testing"
	"time"

	"sessiond/internal/event"
)

// watched is what watchSessions answers.
type watched struct {
	Events []struct {
		EventID       string
		Kind          event.Kind
		SessionHandle string
	}
	Cursor string
	Gap    bool
}

// A watch over a socket: it outlives the time limit of requests, ends with the
// first event, and with its caller's session within a second; when the server
// stops, it is answered at once.
func TestWatchOverHTTP(t *testing.T) {
	config := services(nil)
	config["requestTimeoutSeconds"], config["idleTimeoutSeconds"] = 1, 1
	p := newHome(t, config).start(t)
	log := hire(t, p)
	admin := newClient(p, log.admin.AuthToken)
	defer admin.close()
	watch := func(token string, ask params) (w watched, took time.Duration, err error) {
		c := newClient(p, token)
		defer c.close()
		begun := time.Now()
		err = c.call(t.Context(), "watchSessions", ask, &w)
		return w, time.Since(begun), err
	}
	begin, took, err := watch(log.admin.AuthToken, params{"waitSeconds": 3, "kinds": []event.Kind{event.LoginFailed}})
	if err != nil || len(begin.Events) != 0 || begin.Cursor == "" || took < 3*time.Second {
		t.Fatalf("%+v after %v, %v", begin, took, err)
	}
	for _, tt := range []struct {
		why   string
		token func(made credential) string
		ask   params
		do    func(made credential)
		kinds []event.Kind
		code  int
		most  time.Duration
	}{
		{
			"an event of others", func(credential) string { return log.admin.AuthToken },
			params{"kinds": []event.Kind{event.SessionEnded}},
			func(made credential) {
				admin.must(t, "revokeSessions", params{"sessionHandles": []string{made.SessionHandle}}, nil)
			},
			[]event.Kind{event.SessionEnded},
			0, time.Second,
		},
		{
			"one's own end", func(made credential) string { return made.AuthToken },
			params{},
			func(made credential) {
				admin.must(t, "revokeSessions", params{"sessionHandles": []string{made.SessionHandle}}, nil)
			},
			[]event.Kind{event.SessionEnded},
			0, time.Second,
		},
		{
			"one's own end, which was not asked for", func(made credential) string { return made.AuthToken },
			params{"kinds": []event.Kind{event.SessionRotated}},
			func(made credential) {
				admin.must(t, "revokeSessions", params{"sessionHandles": []string{made.SessionHandle}}, nil)
			},
			nil, 12031, 1500 * time.Millisecond,
		},
		{
			"the server's end", func(made credential) string { return made.AuthToken },
			params{},
			func(credential) {
				if code, took := p.terminate(); code != 0 || took > 4*time.Second {
					t.Errorf("the server ended with %d after %v", code, took)
				}
			},
			nil, 0, 2 * time.Second,
		},
	} {
		t.Run(tt.why, func(t *testing.T) {
			var made credential
			issuer := newClient(p, log.issuer.AuthToken)
			defer issuer.close()
			issuer.must(t, "createSession", params{"realm": "app", "username": "ann"}, &made)
			tt.ask["waitSeconds"] = 60
			type answer struct {
				watched

				at  time.Time
				err error
			}
			answered := make(chan answer, 1)
			go func() {
				w, _, err := watch(tt.token(made), tt.ask)
				answered <- answer{w, time.Now(), err}
			}()
			time.Sleep(1500 * time.Millisecond) // beyond every time limit there is
			select {
			case a := <-answered:
				t.Fatalf("answered before anything happened: %+v", a)
			default:
			}
			begun := time.Now()
			tt.do(made)
			a := <-answered
			var kinds []event.Kind
			for _, e := range a.Events {
				kinds = append(kinds, e.Kind)
			}
			if codeOf(a.err) != tt.code || len(kinds) != len(tt.kinds) || len(kinds) > 0 && kinds[0] != tt.kinds[0] || a.at.Sub(begun) > tt.most {
				t.Errorf("%+v after %v, want %v and %d within %v", a, a.at.Sub(begun), tt.kinds, tt.code, tt.most)
			}
		})
	}
	if _, err := http.Get(p.url); err == nil { //nolint:noctx // nobody answers
		t.Error("the server answers still")
	}
}

// An account may have a tenth of the connections for its watches, whoever else has
// none; and gets the places back.
func TestOneAccountDoesNotTakeAllWatches(t *testing.T) {
	config := services(nil)
	config["maxConnections"] = 40
	p := newHome(t, config).start(t)
	log := hire(t, p)
	watch := func(token string, seconds int) int {
		c := newClient(p, token)
		defer c.close()
		return codeOf(c.call(t.Context(), "watchSessions", params{"waitSeconds": seconds, "kinds": []event.Kind{event.RoleDropped}}, nil))
	}
	const most = 4
	for round := range 2 {
		codes := make(chan int, most)
		for range most {
			go func() {
				code := 21901
				for code == 21901 { // the question below may have the last place
					code = watch(log.issuer.AuthToken, 3)
				}
				codes <- code
			}()
		}
		refused := false
		for begun := time.Now(); !refused && time.Since(begun) < 2*time.Second; time.Sleep(10 * time.Millisecond) {
			refused = watch(log.issuer.AuthToken, 0) == 21901
		}
		if other := watch(log.admin.AuthToken, 0); !refused || other != 0 {
			t.Errorf("round %d: one more is refused: %v; another account gets %d", round, refused, other)
		}
		for range most {
			if code := <-codes; code != 0 {
				t.Errorf("round %d: one of %d gets %d", round, most, code)
			}
		}
	}
}
