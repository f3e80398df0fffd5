package campaign_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sessiond/internal/campaign"
)

func TestSlicesOfACampaign(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "page.md")
	if err := os.WriteFile(page, []byte("| a table |\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(campaign.Folder, filepath.Join(dir, "counts"))
	t.Setenv(campaign.Page, page)
	plan := campaign.Plan{Name: "coins / thrown", Trials: 1200, Few: 2, About: "a coin", Must: []string{"coins lost"}}

	var thrown []int
	slice := func(d time.Duration) {
		t.Setenv(campaign.Until, strconv.FormatInt(time.Now().Add(d).Unix(), 10))
		campaign.Run(t, plan, func(r *campaign.Trial) {
			thrown = append(thrown, r.N)
			r.Count("heads", r.N%2)
			r.Count("coins lost", 0)
			r.Most("metres", int64(r.N))
			time.Sleep(2 * time.Millisecond) // so that all take longer than the first slice
		})
	}
	slice(time.Second)
	if text, err := os.ReadFile(page); err != nil || len(thrown) == plan.Trials || strings.Contains(string(text), "coin") {
		t.Errorf("after %d trials the page is %q (%v)", len(thrown), text, err)
	}
	slice(time.Hour)
	slice(time.Hour) // it is complete
	for i, n := range thrown {
		if i != n {
			t.Fatalf("trial %d is the %dth", n, i)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if want := "| coins / thrown | 1,200 × a coin: **0** coins lost; 600 heads; metres at most 1,199 |"; len(thrown) != 1200 || len(lines) != 2 || !strings.Contains(lines[1], want) {
		t.Errorf("after %d trials the page is\n%s\nwant\n%s", len(thrown), text, want)
	}
}

func TestWithoutAFolderACampaignIsATestOfAFew(t *testing.T) {
	t.Setenv(campaign.Folder, "")
	n := 0
	campaign.Run(t, campaign.Plan{Name: "few", Trials: 1000, Few: 3, About: "nothing"}, func(*campaign.Trial) { n++ })
	if n != 3 {
		t.Errorf("%d trials, want 3", n)
	}
}
