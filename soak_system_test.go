//go:build linux && system

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sessiond/internal/campaign"
	"sessiond/internal/cli"
	"sessiond/store/bolt"
)

// A server that does what a server does for a long time: log-ins, validations,
// logouts and listings, 500 a second, all sessions replaced again and again. It
// fails at nothing, and neither its memory, its threads and files, nor its data
// grow without reason. In a campaign each slice goes on with the data of the one
// before.
func TestSystemCampaignSoak(t *testing.T) {
	const slice, few = 5 * time.Minute, 20 * time.Second
	campaign.Run(t, campaign.Plan{
		Name: "soak", Trials: 24, Few: 1,
		About: "5 minutes of 500 requests a second: 45 % validate, 25 % log-ins, 20 % logouts, 10 % look-ups and listings",
		Must:  []string{"failed requests", "slices that left files open", "slices that left threads", "slices that left 64 MiB more", "slices after which the file was larger than 3 times its data"},
	}, func(r *campaign.Trial) {
		t, d := r.T, few
		config := services(map[string]any{"defaultRetentionUnit": "minute", "defaultRetentionPeriod": 10})
		config["requestTimeoutSeconds"] = 30 // a busy machine may check its passwords slowly
		h := newHome(t, config)
		if r.Whole {
			d = slice
			h.data = filepath.Join(os.Getenv(campaign.Folder), "soak")
		}
		p := h.start(t)
		s := newSoak(t, p)
		s.work(d / 5) // until everything has been used
		threads, files, memory := p.status(t, "Threads"), p.descriptors(t), p.anonymous(t)
		s.work(d * 4 / 5)
		grown := (p.anonymous(t) - memory) >> 10
		r.Most("MiB more in a slice", grown)
		r.Count("slices that left 64 MiB more", oneIf(grown > 64))
		r.Count("slices that left threads", oneIf(p.status(t, "Threads") > threads+4))
		r.Count("slices that left files open", oneIf(p.descriptors(t) > files+2))
		r.Count("failed requests", s.failed)
		r.Count("requests", s.done)
		r.Count("log-ins", s.created)
		if want := int(d.Seconds()) * soakRate * 9 / 10; r.Whole && s.done < want {
			t.Errorf("%d requests, want at least %d", s.done, want)
		}
		if code, _ := p.terminate(); code != 0 {
			t.Errorf("exit code %d:\n%s", code, p.output)
		}
		sum, err := bolt.Verify(t.Context(), filepath.Join(h.data, cli.DataFile), nil)
		if err != nil {
			t.Fatal(err)
		}
		const atLeast = 32 << 20 // the file grows by so much at a time
		r.Count("slices after which the file was larger than 3 times its data", oneIf(sum.Size > max(3*sum.Bytes, atLeast)))
		r.Most("MiB of the file", sum.Size>>20)
	})
}

const (
	soakRate    = 500 // requests a second
	soakClients = 20
	soakHeld    = 200 // sessions of a client
)

// A soak is many clients that keep their connections and their sessions.
type soak struct {
	t       *testing.T
	clients []*soaker

	mu                    sync.Mutex
	done, failed, created int
}

type soaker struct {
	key, own *client // of an issuer, and of whose session it is about
	account  string
	tokens   []string
}

func newSoak(t *testing.T, p *process) *soak {
	t.Helper()
	s := &soak{t: t}
	admin := newClient(p, "")
	defer admin.close()
	var made credential
	admin.must(t, "createSession", params{"username": "admin", "password": adminPassword}, &made)
	admin.token = made.AuthToken
	name := fmt.Sprint("issuer-", rand.Uint64())
	admin.must(t, "createAccount", params{"username": name, "password": adminPassword, "roles": []string{"issuer"}}, nil)
	admin.must(t, "createSession", params{"username": name, "password": adminPassword, "permanentSession": true}, &made)
	for n := range soakClients {
		c := &soaker{key: newClient(p, made.AuthToken), own: newClient(p, ""), account: fmt.Sprint("user-", n)}
		t.Cleanup(c.key.close)
		t.Cleanup(c.own.close)
		s.clients = append(s.clients, c)
	}
	return s
}

// work lets all clients work for a while.
func (s *soak) work(d time.Duration) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	var group sync.WaitGroup
	for n, c := range s.clients {
		group.Go(func() {
			const every = time.Second * soakClients / soakRate
			pause(s.t, every*time.Duration(n)/soakClients)
			tick := time.NewTicker(every)
			defer tick.Stop()
			for ctx.Err() == nil {
				<-tick.C
				s.note(c.step(s.t.Context()))
			}
		})
	}
	group.Wait()
}

func (s *soak) note(created bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
	if created {
		s.created++
	}
	if err != nil {
		s.failed++
		if s.failed < 10 {
			s.t.Error(err)
		}
	}
}

// step makes one request.
func (c *soaker) step(ctx context.Context) (created bool, err error) {
	dice := rand.N(100)
	if len(c.tokens) == 0 || dice >= 75 && len(c.tokens) < soakHeld {
		var made credential
		if err := c.key.call(ctx, "createSession", params{"realm": "app", "username": c.account}, &made); err != nil {
			return false, fmt.Errorf("createSession: %w", err)
		}
		c.tokens = append(c.tokens, made.AuthToken)
		return true, nil
	}
	i := rand.N(len(c.tokens))
	c.own.token = c.tokens[i]
	switch {
	case dice < 5:
		err = c.own.call(ctx, "listSessions", params{"limit": 20}, nil)
	case dice < 10:
		err = c.own.call(ctx, "getSessionInfo", nil, nil)
	case dice < 30 || dice >= 75:
		c.tokens[i] = c.tokens[len(c.tokens)-1]
		c.tokens = c.tokens[:len(c.tokens)-1]
		err = c.own.call(ctx, "deleteSession", nil, nil)
	default:
		var decision struct{ Valid bool }
		if err = c.own.call(ctx, "validate", nil, &decision); err == nil && !decision.Valid {
			err = fmt.Errorf("a session that lives is not valid")
		}
	}
	return false, err
}
