//go:build linux && system

package main

import (
	"os/exec"
	"testing"

	"sessiond/internal/campaign"
)

// Each seeded bug turns the test red that is there to notice it.
func TestSystemCampaignBugs(t *testing.T) {
	bugs := seededBugs()
	campaign.Run(t, campaign.Plan{
		Name: "seeded bugs", Trials: len(bugs), Few: 2, Must: []string{"bugs missed"},
		About: "a mistake put into a copy of the code, whose test has to turn red for it",
	}, func(r *campaign.Trial) {
		out, err := exec.CommandContext(r.T.Context(), "testdata/bugs/run", bugs[r.N]).CombinedOutput()
		r.T.Logf("%s", out)
		if err != nil {
			r.T.Errorf("testdata/bugs/run %s: %v", bugs[r.N], err)
			r.Count("bugs missed", 1)
			return
		}
		r.Count("bugs caught", 1)
	})
}
