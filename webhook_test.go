//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// A server that is killed again and again while it sends, and while its receiver
// refuses some messages, has in the end sent every event of its log, in
// order; what was sent twice has the same webhook-id.
func TestWebhooksOutliveKills(t *testing.T) {
	const secret, lives, each = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwTheSecretAA=", 4, 120
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		order []string
		ids   = map[string]string{} // webhook-id by event
		asked atomic.Int64
	)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err = errors.Join(err, verifier.Verify(body, r.Header)); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if asked.Add(1)%50 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var m struct {
			Type string
			Data struct{ EventID, Kind string }
		}
		if err := json.Unmarshal(body, &m); err != nil || m.Type != m.Data.Kind {
			t.Errorf("%s: %v", body, err)
		}
		mu.Lock()
		defer mu.Unlock()
		id := r.Header.Get("webhook-id")
		switch before := ids[m.Data.EventID]; before {
		case "":
			ids[m.Data.EventID], order = id, append(order, m.Data.EventID)
		case id:
		default:
			t.Errorf("event %s came as %s and as %s", m.Data.EventID, before, id)
		}
	}))
	defer receiver.Close()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	config := services(nil)
	config["webhooks"] = []any{map[string]any{"name": "crm", "url": receiver.URL, "secretFile": file}}
	h := newHome(t, config)
	p := h.start(t)
	token := hire(t, p).issuerKey.AuthToken
	for life := range lives {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				c := newClient(p, token)
				defer c.close()
				for range each / 4 {
					if err := c.call(t.Context(), "createSession", params{"realm": "app", "username": "ann"}, nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if life < lives-1 {
			p.kill()
			p = h.start(t)
		}
	}
	admin := newClient(p, "")
	defer admin.close()
	var made credential
	admin.must(t, "createSession", params{"username": "admin", "password": adminPassword}, &made)
	admin.token = made.AuthToken
	var log []string
	var states struct {
		Webhooks []struct{ Cursor, LastError string }
	}
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		log = nil
		for p := (params{"oldestFirst": true, "limit": 1000}); ; {
			var page struct {
				Events []struct{ EventID string }
				Cursor string
			}
			admin.must(t, "listEvents", p, &page)
			for _, e := range page.Events {
				log = append(log, e.EventID)
			}
			if page.Cursor == "" {
				break
			}
			p["cursor"] = page.Cursor
		}
		mu.Lock()
		last := ""
		if len(order) > 0 {
			last = order[len(order)-1]
		}
		mu.Unlock()
		if last == log[len(log)-1] {
			break
		}
		if time.Since(begun) > 120*time.Second {
			admin.must(t, "listServices", params{}, &states)
			t.Fatalf("the receiver is at %s of %s: %+v\n%s", last, log[len(log)-1], states, p.output)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if want := strings.Join(log[len(log)-len(order):], " "); strings.Join(order, " ") != want {
		t.Errorf("the receiver got\n%v, want\n%s", order, want)
	}
	if len(order) < lives*each {
		t.Errorf("%d events were sent, and there were more than %d", len(order), lives*each)
	}
	t.Logf("%d events in %d requests", len(order), asked.Load())
}
