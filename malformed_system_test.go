//go:build linux && system

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/campaign"
)

// What TestMalformedEnvelopes sends to a stage, sent to a server: it neither
// panics nor grows, refuses in no time, and answers valid requests as ever.
func TestSystemCampaignMalformed(t *testing.T) {
	const each, connections = 10_000, 4
	campaign.Run(t, campaign.Plan{
		Name: "malformed envelopes", Trials: 100, Few: 3,
		About: "10,000 envelopes that grammar and chance have made, on 4 connections, a valid one after each ten",
		Must:  []string{"panics", "wrong answers", "trials with refusals slower than 50 ms, and than 5 times a valid request, at p99", "trials that left 64 MiB more"},
	}, func(r *campaign.Trial) {
		t := r.T
		config := services(nil)
		config["jsonActionApiDefaults"].(map[string]any)["idleConnectionTimeoutSeconds"] = 0
		p := loggedServer(t, config)
		tokens := map[string]string{}
		admin := newClient(p, hire(t, p).admin.AuthToken)
		defer admin.close()
		for _, name := range []string{"alice", "bob"} {
			admin.must(t, "createAccount", params{"username": name, "password": adminPassword}, nil)
			c := newClient(p, "")
			var made credential
			c.must(t, "createSession", params{"username": name, "password": adminPassword}, &made)
			c.close()
			tokens[name] = made.AuthToken
		}
		valid := fmt.Appendf(nil, `{"action":"validate","authToken":%q,"requestId":"mine"}`, tokens["bob"])

		before := p.anonymous(t)
		var mu sync.Mutex
		var refusals, answers []time.Duration
		var group sync.WaitGroup
		for n := range connections {
			group.Go(func() {
				var refused, answered []time.Duration
				h := &harasser{
					grammar: newGrammar(uint64(r.N), uint64(n), tokens["alice"], admin.token), address: strings.TrimPrefix(p.url, "http://"), busy: true,
					valid: func(c *caller, _ int) error {
						begun := time.Now()
						status, answer, err := c.post(valid)
						answered = append(answered, time.Since(begun))
						if err != nil || status != 200 || !strings.HasPrefix(string(answer), `{"result":{"valid":true,`) || !strings.Contains(string(answer), `"username":"bob",`) || !strings.Contains(string(answer), `"requestId":"mine"`) {
							return fmt.Errorf("the valid request has status %d, %w and the answer\n%s", status, err, answer)
						}
						return nil
					},
					saw: func(codes []api.Code, took time.Duration) {
						if code := codes[0]; len(codes) == 1 && (code == api.InvalidAuthToken || code >= api.BadEnvelope && code <= api.UnsupportedVersion) {
							refused = append(refused, took)
						}
					},
				}
				err := h.send(each / connections)
				mu.Lock()
				defer mu.Unlock()
				refusals, answers = append(refusals, refused...), append(answers, answered...)
				if err != nil {
					r.Count("wrong answers", 1)
					t.Errorf("connection %d: %v", n, err)
				}
			})
		}
		group.Wait()
		log, err := os.ReadFile(p.log)
		if err != nil {
			t.Fatal(err)
		}
		r.Count("panics", strings.Count(string(log), "panic"))
		r.Count("refusals", len(refusals))
		r.Count("valid requests", len(answers))
		slowest, usual := quantile(refusals, 0.99), quantile(answers, 0.99)
		r.Most("ms of a refusal, p99,", slowest.Milliseconds())
		grown := (p.anonymous(t) - before) >> 10
		r.Most("MiB more", grown)
		r.Count("trials with refusals slower than 50 ms, and than 5 times a valid request, at p99", oneIf(slowest > max(50*time.Millisecond, 5*usual)))
		r.Count("trials that left 64 MiB more", oneIf(grown > 64))
		if slices.Contains([]int{len(refusals), len(answers)}, 0) {
			t.Error("nothing was refused, or nothing answered")
		}
	})
}

// oneIf is 1 for what is so.
func oneIf(so bool) int {
	if so {
		return 1
	}
	return 0
}
