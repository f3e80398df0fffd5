package webhook_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/webhook"
	"sessiond/store"
)

// What a receiver may do instead of taking an event. Once it is well again it has
// got everything, in order, at least once; what it got twice has the same id.
func TestReceiversThatFail(t *testing.T) {
	status := func(code int) trouble {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for why, bad := range map[string]trouble{
		"500": status(500),
		"404": status(404),
		"410": status(410),
		"100 KiB": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			_, _ = w.Write(make([]byte, 100<<10))
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"slow":     func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"reset": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack() //nolint:forcetypeassert // HTTP/1.1 is one
			if tcp, ok := conn.(*net.TCPConn); err == nil && ok {
				_ = errors.Join(tcp.SetLinger(0), tcp.Close())
			}
		},
		"closed": nil, // nobody listens
	} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t)
			h := newHouse(t)
			h.apply(t, r.hook("crm"))
			h.happen(t, 3)
			r.await(t, 3)
			r.fail(t, bad)
			begun := time.Now()
			h.happen(t, 250)
			if took := time.Since(begun); took > time.Second {
				t.Errorf("250 commits took %v while the receiver was down", took)
			}
			h.until(t, func(w api.Webhook) bool { return w.LastError != "" && !w.NextAttempt.IsZero() && w.Behind >= 250 })
			r.recover(t)
			r.await(t, 253)
			h.until(t, func(w api.Webhook) bool { return w.LastError == "" && w.Behind == 0 && !w.LastDelivery.IsZero() })
			if got := r.eventIDs(true); !slices.Equal(got, upTo(253)) {
				t.Errorf("without repeats: %v", got)
			}
			if got := r.eventIDs(false); !slices.IsSorted(got) {
				t.Errorf("not in order: %v", got)
			}
		})
	}
}

// Another process over the same store goes on where the one before it was.
func TestRestart(t *testing.T) {
	r := newReceiver(t)
	h := newHouse(t)
	for n := 10; n <= 50; n += 10 {
		h.apply(t, r.hook("crm"))
		h.happen(t, 5)
		r.await(t, n-5)
		h.Stop()
		h.happen(t, 5) // nobody sends them for now
		h.restart()
	}
	h.apply(t, r.hook("crm"))
	r.await(t, 50)
	if got := r.eventIDs(false); !slices.Equal(got, upTo(50)) {
		t.Errorf("after clean stops: %v", got)
	}
}

// A message is what the specification and its own library want, and whoever has
// another secret sees that it is none of his.
func TestSignature(t *testing.T) {
	r := newReceiver(t)
	h := newHouse(t)
	h.apply(t, r.hook("crm"))
	h.happen(t, 1)
	r.await(t, 1)
	m := r.messages()[0]
	for secret, want := range map[string]bool{secretText: true, "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32)): false} {
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(m.body, m.header); (err == nil) != want {
			t.Errorf("%v, want verified %v", err, want)
		}
		if err := verifier.Verify(append(m.body, ' '), m.header); err == nil {
			t.Error("another body has the same signature")
		}
	}
	var body struct {
		Type      string
		Timestamp time.Time
		Data      map[string]any
	}
	if err := json.Unmarshal(m.body, &body); err != nil || body.Type != "sessionCreated" || body.Timestamp.IsZero() ||
		body.Data["eventId"] != "1" || body.Data["kind"] != "sessionCreated" || body.Data["username"] != `a "b"` {
		t.Errorf("%s: %v", m.body, err)
	}
	if got := m.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
}

func TestOnlyWhatIsAskedFor(t *testing.T) {
	r := newReceiver(t)
	h := newHouse(t)
	hook := r.hook("crm")
	hook.Kinds, hook.Realms = []string{"sessionEnded", "sessionExpired"}, []string{"shop"}
	h.apply(t, hook)
	for _, e := range []event.Event{
		{Kind: event.SessionEnded, Realm: "web"},
		{Kind: event.SessionCreated, Realm: "shop"},
		{Kind: event.SessionEnded, Realm: "shop"},
		{Kind: event.SessionEnded},
		{Kind: event.SessionExpired, Realm: "shop"},
	} {
		h.append(t, e)
	}
	r.await(t, 2)
	if got := r.eventIDs(false); !slices.Equal(got, []int{3, 5}) {
		t.Errorf("%v", got)
	}
}

// A new receiver begins with the present, also when the server ends at once; one
// that is switched on again gets what it has missed.
func TestWhereAReceiverBegins(t *testing.T) {
	r := newReceiver(t)
	h := newHouse(t)
	h.happen(t, 5)
	h.apply(t, r.hook("crm"))
	h.until(t, func(w api.Webhook) bool { return w.Cursor == "o5" })
	h.Stop()
	h.happen(t, 1)
	h.restart()
	off := r.hook("crm")
	off.Enabled = false
	h.apply(t, off)
	h.happen(t, 1)
	if w := h.States()[0]; w.Enabled || w.State != api.Stopped {
		t.Errorf("%+v", w)
	}
	h.apply(t, r.hook("crm"))
	r.await(t, 2)
	h.until(t, func(w api.Webhook) bool { return w.Cursor == "o7" }) // else it may be sent once more
	h.apply(t)
	h.happen(t, 1)
	h.apply(t, r.hook("crm"), r.hook("other"))
	r.await(t, 3)
	if got := r.eventIDs(false); !slices.Equal(got, []int{6, 7, 8}) {
		t.Errorf("%v", got)
	}
}

// What was purged before it was sent is told.
func TestGap(t *testing.T) {
	r := newReceiver(t)
	h := newHouse(t)
	h.happen(t, 2)
	h.apply(t, r.hook("crm"))
	h.until(t, func(w api.Webhook) bool { return w.Cursor == "o2" })
	h.Stop()
	h.happen(t, 10)
	if err := event.Purge(t.Context(), h.store, time.Now().Add(time.Hour), func() bool { return true }); err != nil {
		t.Fatal(err)
	}
	h.restart()
	h.happen(t, 1)
	h.apply(t, r.hook("crm"))
	r.await(t, 2)
	all := r.messages()
	if !bytes.Contains(all[0].body, []byte(`"type":"gap"`)) || !bytes.Contains(all[0].body, []byte(`"data":{"afterEventId":"2"}`)) || all[1].eventID != 13 {
		t.Errorf("%s\n%s", all[0].body, all[1].body)
	}
}

func TestReplay(t *testing.T) {
	r := newReceiver(t)
	h := newHouse(t)
	h.apply(t, r.hook("crm"))
	h.happen(t, 5)
	r.await(t, 5)
	recorded := 0
	record := func() error { recorded++; return nil }
	if _, err := h.Replay(t.Context(), "CRM", "o3", record); err != nil {
		t.Fatal(err)
	}
	r.await(t, 7)
	if _, err := h.Replay(t.Context(), "crm", "", record); err != nil {
		t.Fatal(err)
	}
	r.await(t, 12)
	if got := r.eventIDs(false); !slices.Equal(got, []int{1, 2, 3, 4, 5, 4, 5, 1, 2, 3, 4, 5}) || recorded != 2 {
		t.Errorf("%v, recorded %d times", got, recorded)
	}
	if got := r.eventIDs(true); !slices.Equal(got, upTo(5)) {
		t.Errorf("without repeats: %v", got)
	}
	r.fail(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	h.happen(t, 1)
	h.until(t, func(w api.Webhook) bool { return w.LastError != "" })
	if w, err := h.Replay(t.Context(), "crm", "o6", record); err != nil || w.LastError != "" { // what it cannot take is skipped
		t.Errorf("%+v, %v", w, err)
	}
	r.recover(t)
	h.happen(t, 1)
	r.await(t, 13)
	if got := r.eventIDs(true); !slices.Equal(got, []int{1, 2, 3, 4, 5, 7}) {
		t.Errorf("%v", got)
	}
	for _, tt := range []struct {
		name, cursor string
		code         api.Code
	}{{"nobody", "", api.NotFound}, {"crm", "o99", api.BadParam}, {"crm", "n1", api.BadParam}} {
		if _, err := h.Replay(t.Context(), tt.name, tt.cursor, record); api.FromError(err).Code != tt.code || recorded != 3 {
			t.Errorf("%+v: %v, recorded %d times", tt, err, recorded)
		}
	}
}

// A receiver that says when to come back is left alone until then, within a bound.
func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		header      string
		least, most time.Duration
	}{
		{"", 500 * time.Millisecond, time.Second},
		{"7", 7 * time.Second, 7 * time.Second},
		{"99999", time.Minute, time.Minute},
		{time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat), 25 * time.Second, 30 * time.Second},
		{time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), 500 * time.Millisecond, time.Second},
		{"soon", 500 * time.Millisecond, time.Second},
	} {
		r := newReceiver(t)
		h := newHouse(t)
		h.deps.FirstRetry, h.deps.MostRetry = time.Second, time.Minute
		h.restart()
		r.fail(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", tt.header)
			w.WriteHeader(429)
		})
		h.apply(t, r.hook("crm"))
		h.happen(t, 1)
		var next time.Duration
		h.until(t, func(w api.Webhook) bool {
			next = w.NextAttempt.Sub(time.Now().UTC())
			return w.LastError == "it answered with status 429"
		})
		if next > tt.most || next < tt.least-400*time.Millisecond {
			t.Errorf("%q: in %v", tt.header, next)
		}
	}
}

// Neither the secret, nor the query of the URL, nor what a receiver says is shown.
func TestStatesShowNoSecrets(t *testing.T) {
	r := newReceiver(t)
	r.fail(t, nil)
	h := newHouse(t)
	hook := r.hook("crm")
	hook.URL += "?key=hidden"
	h.apply(t, hook)
	h.happen(t, 1)
	h.until(t, func(w api.Webhook) bool { return w.LastError != "" })
	if w := fmt.Sprintf("%+v", h.States()[0]); strings.Contains(w, "hidden") || strings.Contains(w, secretText[6:]) {
		t.Error(w)
	}
}

// What comes that is not HTTP is not shown either: whoever may see where webhooks stand
// would read what listens on the ports of others.
func TestStatesDoNotQuoteWhatAnswers(t *testing.T) {
	for answer, want := range map[string]string{
		"SSH-2.0-hidden\r\n":                                "what it answered is not HTTP, or the proxy is at fault",
		"HTTP/1.1 hidden\r\n\r\n":                           "what it answered is not HTTP, or the proxy is at fault",
		"HTTP/1.1 200 OK\r\nhidden\r\n\r\n":                 "what it answered is not HTTP, or the proxy is at fault",
		"HTTP/1.1 200 OK\r\nContent-Length: hidden\r\n\r\n": "what it answered is not HTTP, or the proxy is at fault",
		"": "it closed the connection without an answer",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, answer)
				_ = c.Close()
			}
		}()
		h, hook := newHouse(t), newReceiver(t).hook("crm")
		hook.URL = "http://" + l.Addr().String()
		h.apply(t, hook)
		h.happen(t, 1)
		h.until(t, func(w api.Webhook) bool { return w.LastError != "" })
		if got := h.States()[0].LastError; got != want {
			t.Errorf("%q is shown as %q", answer, got)
		}
		h.Stop()
		_ = l.Close()
	}
}

// A replay whose position cannot be written changes nothing.
func TestReplayThatIsNotWritten(t *testing.T) {
	r := newReceiver(t)
	h := newHouse(t)
	var full atomic.Bool
	h.deps.Store = &filling{Store: h.store, full: &full}
	h.restart()
	h.apply(t, r.hook("crm"))
	h.happen(t, 3)
	r.await(t, 3)
	full.Store(true)
	if _, err := h.Replay(t.Context(), "crm", "", func() error { return nil }); !errors.Is(err, store.ErrFull) {
		t.Fatal(err)
	}
	full.Store(false)
	h.happen(t, 1)
	r.await(t, 4)
	if got := r.eventIDs(false); !slices.Equal(got, upTo(4)) {
		t.Errorf("%v", got)
	}
}

// filling is a store that may be full.
type filling struct {
	store.Store

	full *atomic.Bool
}

func (f *filling) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	if f.full.Load() {
		return 0, store.ErrFull
	}
	return f.Store.Commit(ctx, tx)
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	files := 0
	file := func(content string, mode os.FileMode) config.Webhook {
		path := filepath.Join(dir, strconv.Itoa(files))
		files++
		if err := errors.Join(os.WriteFile(path, []byte(content), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return config.Webhook{SecretFile: path}
	}
	bytesOf := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	plan, err := webhook.Prepare([]config.Webhook{file(bytesOf(24)+"\n", 0o600), file(bytesOf(64), 0o644)})
	if err != nil || len(plan.Notes) != 1 || !strings.HasPrefix(plan.Notes[0], "/webhooks/1/secretFile: ") {
		t.Errorf("%+v, %v", plan, err)
	}
	_, err = webhook.Prepare([]config.Webhook{
		file(bytesOf(24), 0o600), file(bytesOf(23), 0o600), file(bytesOf(65), 0o600), file(bytesOf(32)[6:], 0o600),
		file("whsec_!"+bytesOf(32), 0o600), file("", 0o600),
		{SecretFile: filepath.Join(dir, "nowhere")},
		{SecretFile: dir},
	})
	for i := range 8 {
		if named := err != nil && strings.Contains(err.Error(), fmt.Sprintf("/webhooks/%d/secretFile: ", i)); named == (i == 0) {
			t.Errorf("member %d is named: %v in %v", i, named, err)
		}
	}
	if strings.Contains(fmt.Sprint(err), "AAAA") {
		t.Errorf("it quotes a secret: %v", err)
	}
}

// A receiver that takes its time is given a moment when the server stops, and no more.
func TestStopIsPrompt(t *testing.T) {
	r := newReceiver(t)
	r.fail(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	h := newHouse(t)
	hook := r.hook("crm")
	hook.TimeoutSeconds = 60
	h.apply(t, hook)
	h.happen(t, 1)
	r.awaitTries(t, 1)
	begun := time.Now()
	h.Stop()
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v", took)
	}
}
