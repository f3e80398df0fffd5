//go:build linux && system

package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiond/internal/campaign"
)

// Many ask at once for the last places of a limit, and the server is killed among
// them: what survives never exceeds the limit, and what is left of it can be had, to
// the last place and no further, before and after another kill.
func TestSystemCampaignLimits(t *testing.T) {
	const limit = 30
	kinds := []struct {
		member string
		taken  int // places that the staff takes
		params func(n int) params
	}{
		{"maxJsonApiSessions", 3, func(n int) params { return params{"username": fmt.Sprint("user-", n)} }},
		{"maxJsonApiSessionsPerIpAddress", 0, func(n int) params {
			return params{"username": fmt.Sprint("user-", n), "clientIpAddress": fmt.Sprintf("2001:db8:1:2::%x", n+1)}
		}},
		{"maxJsonApiSessionsPerUsername", 0, func(n int) params { return params{"username": []string{"somebody", "SomeBody"}[n%2]} }},
	}
	campaign.Run(t, campaign.Plan{
		Name: "limits under kill -9", Trials: 200, Few: 6, About: "200 creates at once at a limit of 30, killed among them, and 200 more after each of two restarts",
		Must: []string{"sessions beyond a limit", "places that nobody could have"},
	}, func(r *campaign.Trial) {
		t, kind := r.T, kinds[r.N%len(kinds)]
		asked := func(n int) params {
			p := kind.params(n)
			p["realm"] = "app"
			return p
		}
		h := newHome(t, services(map[string]any{kind.member: limit}))
		p := h.start(t)
		staff := hire(t, p)
		survived := func() int {
			admin := newClient(p, staff.admin.AuthToken)
			defer admin.close()
			return countLive(t, admin, nil) - 3
		}
		full := limit - kind.taken
		crowd := newCrowd(t, p, staff.issuerKey.AuthToken)
		var group sync.WaitGroup
		for n, member := range crowd.clients {
			group.Go(func() { _ = member.call(t.Context(), "createSession", asked(n), nil) }) // nobody need answer
		}
		pause(t, time.Millisecond+rand.N(40*time.Millisecond))
		p.kill()
		group.Wait()
		for range 2 {
			p = h.start(t)
			before := survived()
			_, codes := newCrowd(t, p, staff.issuerKey.AuthToken).create(asked)
			after := survived()
			r.Count("sessions beyond a limit", max(0, before-full)+max(0, after-full))
			r.Count("places that nobody could have", max(0, full-after))
			if codes[0] != after-before {
				t.Errorf("%d were created, but there are %d more", codes[0], after-before)
			}
			p.kill()
		}
		r.Count("creates at once", 3*parallelCreates)
	})
}

// A server that is asked to stop under full load answers whatever it took in, and is
// gone within five seconds.
func TestSystemCampaignDrain(t *testing.T) {
	const hammers = 8
	campaign.Run(t, campaign.Plan{
		Name: "drain", Trials: 20, Few: 3, About: "SIGTERM under mixed load",
		Must: []string{"requests accepted without an answer", "ends that were late or not clean"},
	}, func(r *campaign.Trial) {
		t := r.T
		h := newHome(t, roomy())
		p := h.start(t)
		l := newLedger(hire(t, p))
		l.enlist(t, p)
		var answered atomic.Int64
		var group sync.WaitGroup
		for range hammers {
			group.Go(func() {
				c := newClient(p, l.staff.admin.AuthToken)
				defer c.close()
				for c.call(t.Context(), "validate", nil, nil) == nil {
					answered.Add(1)
				}
			})
		}
		var code int
		var took, ran time.Duration
		begun := time.Now()
		l.load(t, p, time.Second+rand.N(500*time.Millisecond), func() {
			ran = time.Since(begun)
			code, took = p.terminate()
		})
		group.Wait()
		if code != 0 || took > 5*time.Second {
			r.Count("ends that were late or not clean", 1)
			t.Errorf("exit code %d after %v:\n%s", code, took, p.output)
		}
		verified(t, h)
		p = h.start(t)
		l.check(t, p)
		r.Count("requests accepted without an answer", l.adopted+l.openEndsDone)
		r.Count("changes acknowledged", l.creates+l.ends)
		r.Count("validations answered", int(answered.Load()))
		r.Most("ms until gone", took.Milliseconds())
		r.Most("requests in a second", int64(float64(answered.Load()+l.validations.Load()+int64(l.creates+l.ends))/ran.Seconds()))
	})
}

// A guesser gains by a kill what was guessed in the last seconds, and nothing by one
// that comes later.
func TestSystemCampaignGuesses(t *testing.T) {
	const free, kept = 3, 7 * time.Second // it is written every five
	campaign.Run(t, campaign.Plan{
		Name: "guessing under kill -9", Trials: 50, Few: 2, About: "200 guesses at once at a lockout of 3, a kill at once or 7 s later, and 200 more",
		Must: []string{"guesses checked beyond the lockout"},
	}, func(r *campaign.Trial) {
		t := r.T
		h := newHome(t, services(nil))
		p := h.start(t)
		staff := hire(t, p)
		admin := newClient(p, staff.admin.AuthToken)
		admin.must(t, "createAccount", params{"username": "victim", "password": adminPassword, "lockoutAfterNFailedAttempts": free, "lockoutMinutes": 30}, nil)
		admin.close()
		const loginFailed = 21101
		guess := func() int {
			_, codes := newCrowd(t, p, "").create(func(int) params { return params{"username": "victim", "password": guessedWrong} })
			return codes[loginFailed]
		}
		if n := guess(); n != free {
			t.Errorf("%d guesses were checked, want %d", n, free)
		}
		allowed := free
		if r.N%2 == 0 {
			pause(t, kept)
			allowed = 0
		}
		p.kill()
		p = h.start(t)
		r.Count("guesses checked beyond the lockout", max(0, guess()-allowed))
		if allowed == 0 {
			c := newClient(p, "")
			defer c.close()
			if got := codeOf(c.call(t.Context(), "createSession", params{"username": "victim", "password": adminPassword}, nil)); got != loginThrottled {
				t.Errorf("after the restart the right password gets %d, want %d", got, loginThrottled)
			}
		}
		p.kill()
	})
}
