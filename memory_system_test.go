//go:build linux && system

package main

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"sessiond/internal/campaign"
)

// A million sessions in a process that may have 1 GiB of memory: it starts, loads
// them, validates and lists, and takes little for each.
func TestSystemCampaignMemory(t *testing.T) {
	const most = 600 // bytes for each
	campaign.Run(t, campaign.Plan{
		Name: "a million sessions", Trials: 1, Few: 1,
		About: "a start with 1,000,000 sessions under a limit of 1 GiB, 20,000 of them validated, 20,000 listed",
		Must:  []string{"sessions that are not valid", "sessions that are not counted"},
	}, func(r *campaign.Trial) {
		t := r.T
		sessions := 100_000
		if r.Whole {
			sessions = 1_000_000
		}
		h := newHome(t, services(nil))
		if err := os.MkdirAll(h.data, 0o700); err != nil {
			t.Fatal(err)
		}
		limit := []string{"prlimit", "--data=1073741824"}
		p := h.start(t, limit...)
		staff := hire(t, p)
		empty := p.anonymous(t)
		if code, _ := p.terminate(); code != 0 {
			t.Fatalf("exit code %d", code)
		}
		var made *group
		h.open(t, func(s *stage) { made = s.issue(t, "app", sessions, false) })

		p = h.start(t, limit...)
		r.Most("ms until ready", p.ready.Milliseconds())
		loaded := p.anonymous(t)
		admin := newClient(p, staff.admin.AuthToken)
		defer admin.close()
		r.Count("sessions that are not counted", sessions+len(staff.handles())-countLive(t, admin, nil))
		rand.Shuffle(sessions, func(i, j int) { made.tokens[i], made.tokens[j] = made.tokens[j], made.tokens[i] })
		const asked, page = 20_000, 1000
		r.Count("sessions that are not valid", asked-admin.valid(t, made.tokens[:asked]))
		begun, cursor := time.Now(), ""
		for range asked / page {
			var list struct {
				Sessions []struct{ SessionHandle string }
				Cursor   string
			}
			ask := params{"limit": page}
			if cursor != "" {
				ask["cursor"] = cursor
			}
			admin.must(t, "listSessions", ask, &list)
			if cursor = list.Cursor; len(list.Sessions) != page || cursor == "" {
				t.Fatalf("a page of %d, next %q", len(list.Sessions), cursor)
			}
		}
		r.Most("ms for a page of 1,000", time.Since(begun).Milliseconds()*page/asked)
		each := (loaded - empty) << 10 / int64(sessions)
		r.Most("bytes for each session", each)
		r.Most("MiB in the end", p.anonymous(t)>>10)
		if each > most {
			t.Errorf("%d bytes for each session, want at most %d", each, most)
		}
		if code, _ := p.terminate(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}
