//go:build linux && system

package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

const parallelCreates = 200

// However many sessions are asked for at once, exactly as many are created as
// the limit says, and as many again once those have ended.
func TestSystemLimits(t *testing.T) {
	const rounds, limit = 50, 30
	for _, tt := range []struct {
		name   string
		member string
		code   int
		taken  int                       // places that the staff takes
		params func(round, n int) params // of the nth create
	}{
		{
			"total", "maxJsonApiSessions", limitReached, 3,
			func(_, n int) params { return params{"username": fmt.Sprint("user-", n)} },
		},
		{
			"address", "maxJsonApiSessionsPerIpAddress", limitPerAddress, 0,
			func(round, n int) params {
				address := "203.0.113.7"
				if round%2 == 1 {
					address = fmt.Sprintf("2001:db8:1:2::%x", n+1) // one /64 is one address
				}
				return params{"username": fmt.Sprint("user-", n), "clientIpAddress": address}
			},
		},
		{
			"username", "maxJsonApiSessionsPerUsername", limitPerUsername, 0,
			func(_, n int) params { return params{"username": []string{"somebody", "SomeBody"}[n%2]} },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHome(t, services(map[string]any{tt.member: limit}))
			p := h.start(t)
			staff := hire(t, p)
			crowd := newCrowd(t, p, staff.issuerKey.AuthToken)
			admin := newClient(p, staff.admin.AuthToken)
			defer admin.close()
			for round := range rounds {
				handles, codes := crowd.create(func(n int) params {
					made := tt.params(round, n)
					made["realm"] = "app"
					return made
				})
				want := map[int]int{0: limit - tt.taken, tt.code: parallelCreates - limit + tt.taken}
				if !maps.Equal(codes, want) {
					t.Fatalf("round %d: answers by errorCode %v, want %v", round, codes, want)
				}
				if got := countLive(t, admin, nil); got != len(handles)+3 {
					t.Fatalf("round %d: %d sessions live, want %d and the staff's 3", round, got, len(handles))
				}
				admin.must(t, "revokeSessions", params{"sessionHandles": handles}, nil)
			}
		})
	}
}

// With passwords each log-in waits for its turn, and one that is told to come
// back later does so; the limit is exact all the same.
func TestSystemLogins(t *testing.T) {
	const rounds, limit, accounts = 3, 20, 4
	h := newHome(t, services(map[string]any{"maxJsonApiSessionsPerUsername": limit}))
	p := h.start(t)
	staff := hire(t, p)
	admin := newClient(p, staff.admin.AuthToken)
	defer admin.close()
	for n := range accounts {
		admin.must(t, "createAccount", params{"username": fmt.Sprint("user-", n), "password": adminPassword}, nil)
	}
	crowd := newCrowd(t, p, "")
	for round := range rounds {
		handles, codes := crowd.create(func(n int) params {
			return params{"username": fmt.Sprint("user-", n%accounts), "password": adminPassword}
		})
		want := map[int]int{0: accounts * limit, limitPerUsername: parallelCreates - accounts*limit}
		if !maps.Equal(codes, want) {
			t.Fatalf("round %d: answers by errorCode %v, want %v", round, codes, want)
		}
		for n := range accounts {
			if got := countLive(t, admin, []string{fmt.Sprint("user-", n)}); got != limit {
				t.Errorf("round %d: an account has %d sessions, want %d", round, got, limit)
			}
		}
		admin.must(t, "revokeSessions", params{"sessionHandles": handles}, nil)
	}
	t.Logf("%d log-ins were told to come back later", crowd.again)
}

// crowd is many clients that ask at one moment.
type crowd struct {
	t       *testing.T
	clients []*client
	again   int // creates that were told to come back later
}

const limitPerAddress = 21302

func newCrowd(t *testing.T, p *process, token string) *crowd {
	t.Helper()
	c := &crowd{t: t}
	for range parallelCreates {
		member := newClient(p, token)
		t.Cleanup(member.close)
		member.must(t, "pingSession", nil, nil) // has its connection before it counts
		c.clients = append(c.clients, member)
	}
	return c
}

// create has each client create a session, and returns their handles and how
// often each errorCode was answered.
func (c *crowd) create(p func(n int) params) (handles []string, codes map[int]int) {
	c.t.Helper()
	made, answers := make([]credential, len(c.clients)), make([]int, len(c.clients))
	var mu sync.Mutex
	var group sync.WaitGroup
	start := make(chan struct{})
	for n, member := range c.clients {
		group.Go(func() {
			<-start
			for {
				err := member.call(c.t.Context(), "createSession", p(n), &made[n])
				if answers[n] = codeOf(err); answers[n] != overloaded {
					if answers[n] < 0 {
						c.t.Errorf("createSession: %v", err)
					}
					return
				}
				mu.Lock()
				c.again++
				mu.Unlock()
				pause(c.t, 100*time.Millisecond+rand.N(400*time.Millisecond))
			}
		})
	}
	close(start)
	group.Wait()
	codes = map[int]int{}
	for n := range c.clients {
		codes[answers[n]]++
		if answers[n] == 0 {
			handles = append(handles, made[n].SessionHandle)
		}
	}
	return handles, codes
}
