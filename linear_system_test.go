//go:build linux && system

package main

import (
	"math/rand/v2"
	"testing"
	"time"

	"sessiond/internal/campaign"
)

// TestSystemLinearizability is TestLinearizability for longer.
func TestSystemLinearizability(t *testing.T) {
	linearize(t, linearPlan{operations: 50_000, clients: 12})
}

// The history of a session goes on when the server is killed and started again.
func TestSystemCampaignLinearizability(t *testing.T) {
	campaign.Run(t, campaign.Plan{
		Name: "linearizability under kill -9", Trials: 20, Few: 1, Must: []string{"histories without an order", "histories undecided"},
		About: "50,000 operations of 16 clients on 24 sessions at a time, the server killed about every second",
	}, func(r *campaign.Trial) {
		plan := linearPlan{operations: 8_000, clients: 16, lives: func() time.Duration { return 500*time.Millisecond + rand.N(time.Second) }}
		if r.Whole {
			plan.operations = 50_000
		}
		h := linearize(r.T, plan)
		r.Count("histories without an order", h.wrong)
		r.Count("histories undecided", h.undecided)
		r.Count("histories", len(h.all))
		r.Count("operations", int(h.done.Load()))
		r.Count("kills", len(h.ends))
		r.Most("ms until ready", h.slowest.Milliseconds())
	})
}
