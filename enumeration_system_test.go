//go:build linux && system

package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sessiond/internal/campaign"
)

// Who asks again and again about a name that exists and as often about one that does
// not, in turns and always with a wrong password, learns nothing: the answers are the
// same bytes, and as slow.
func TestSystemCampaignEnumeration(t *testing.T) {
	campaign.Run(t, campaign.Plan{
		Name: "user names by the time of a refusal", Trials: 1, Few: 1, Must: []string{"answers that differ"},
		About: "2,000 log-ins with a wrong password where there is an account, 2,000 where there is none, in turns; AUC 0.47 to 0.53",
	}, func(r *campaign.Trial) {
		if r.Whole {
			enumerate(r, 2_000, 0.03)
		} else {
			enumerate(r, 320, 0.08) // which chance alone exceeds once in 2,000 times
		}
	})
}

// enumerate asks about so many pairs, and wants the times to tell the kinds apart no
// better than by a bias.
func enumerate(r *campaign.Trial, pairs int, bias float64) {
	const most = 4 // failures each, which is one less than cost a wait
	t, names := r.T, pairs/most
	config := services(nil)
	config["trustedProxies"], config["forwardedHeader"] = []string{"127.0.0.1"}, "X-Forwarded-For"
	p := newHome(t, config).start(t)
	admin := newClient(p, hire(t, p).admin.AuthToken)
	defer admin.close()
	for n := range names {
		admin.must(t, "createAccount", params{"username": fmt.Sprintf("known-%04d", n), "password": adminPassword}, nil)
	}

	stranger := newClient(p, "")
	defer stranger.close()
	var first []byte
	asked := 0
	ask := func(name string) time.Duration {
		asked++
		body := fmt.Sprintf(`{"action":"createSession","params":{"username":%q,"password":%q}}`, name, guessedWrong)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, stranger.url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Forwarded-For", ipv4(asked).String())
		begun := time.Now()
		response, err := stranger.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		took := time.Since(begun)
		_ = response.Body.Close()
		if first == nil {
			first = text
		}
		if err != nil || response.StatusCode != http.StatusOK || !bytes.Equal(text, first) || !bytes.Contains(text, []byte("21101")) {
			r.Count("answers that differ", 1)
			t.Fatalf("request %d, about %s: %s, %s, %v, but the first: %s", asked, name, response.Status, text, err, first)
		}
		return took
	}
	kinds := [2]string{"known-", "never-"}
	var took [2][]time.Duration
	for n := range pairs {
		for i, kind := range rand.Perm(2) {
			d := ask(fmt.Sprintf("%s%04d", kinds[kind], n%names))
			if n > 0 || i > 0 { // the first has to connect
				took[kind] = append(took[kind], d)
			}
		}
	}
	auc := mannWhitney(took[0], took[1])
	median := func(list []time.Duration) time.Duration { return slices.Sorted(slices.Values(list))[len(list)/2] }
	t.Logf("%d pairs: AUC %.4f; medians %v where there is an account, %v where there is none", pairs, auc, median(took[0]), median(took[1]))
	r.Most("per mille that the AUC is from one half", int64(1000*math.Abs(auc-0.5)))
	if math.Abs(auc-0.5) > bias {
		t.Errorf("the times tell accounts from names that nobody has: AUC %.4f, want 0.5 ± %.2f", auc, bias)
	}
}
