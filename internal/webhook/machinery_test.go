package webhook_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/webhook"
	"sessiond/store"
	"sessiond/store/mem"
)

const secretText = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwTheSecretAA="

// house is a sender over a store of its own.
type house struct {
	*webhook.Sender

	t     *testing.T
	deps  webhook.Deps
	store store.Store
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, store: mem.New()}
	h.deps = webhook.Deps{
		Store: h.store, Clock: clock.NewSystem(), Server: "7a1c", FirstRetry: 5 * time.Millisecond, MostRetry: 50 * time.Millisecond,
	}
	h.restart()
	t.Cleanup(func() { h.Stop() })
	return h
}

// restart is another process over the same store.
func (h *house) restart() {
	if h.Sender != nil {
		h.Stop()
		h.deps.Tail.Close()
	}
	tail, err := event.OpenTail(h.t.Context(), h.store)
	if err != nil {
		h.t.Fatal(err)
	}
	h.deps.Tail = tail
	h.Sender = webhook.New(h.deps)
}

func (h *house) apply(t *testing.T, hooks ...config.Webhook) {
	t.Helper()
	plan, err := webhook.Prepare(hooks)
	if err != nil {
		t.Fatal(err)
	}
	h.Apply(context.WithoutCancel(t.Context()), plan)
}

// happen commits n events, one by one.
func (h *house) happen(t *testing.T, n int) {
	t.Helper()
	for range n {
		h.append(t, event.Event{Kind: event.SessionCreated, Username: `a "b"`})
	}
}

func (h *house) append(t *testing.T, e event.Event) {
	t.Helper()
	var tx store.Tx
	e.Time = time.Now()
	event.Append(&tx, e)
	if _, err := h.store.Commit(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
}

const patience = 20 * time.Second

// until waits for a state of the first webhook.
func (h *house) until(t *testing.T, is func(api.Webhook) bool) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		w := h.States()[0]
		if is(w) {
			return
		}
		if time.Since(begun) > patience {
			t.Fatalf("it stays so: %+v", w)
		}
	}
}

type trouble func(http.ResponseWriter, *http.Request)

// receiver is a web server on a port of its own, which keeps what it takes.
type receiver struct {
	address, secret string
	server          *http.Server

	mu    sync.Mutex
	bad   trouble // nil: it takes everything
	taken []received
	tries int
}

type received struct {
	id      string
	eventID int
	header  http.Header
	body    []byte
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{address: "127.0.0.1:0", secret: filepath.Join(t.TempDir(), "secret")}
	if err := os.WriteFile(r.secret, []byte(secretText), 0o600); err != nil {
		t.Fatal(err)
	}
	r.listen(t)
	t.Cleanup(func() { _ = r.server.Close() })
	return r
}

func (r *receiver) listen(t *testing.T) {
	l, err := net.Listen("tcp", r.address) //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: patience}
	go func() { _ = r.server.Serve(l) }() // until it is closed
}

func (r *receiver) hook(name string) config.Webhook {
	return config.Webhook{Name: name, URL: "http://" + r.address + "/hooks/" + name, SecretFile: r.secret, Enabled: true, TimeoutSeconds: 1}
}

// fail lets the receiver do something else from now on; nil closes its port.
func (r *receiver) fail(t *testing.T, bad trouble) {
	r.mu.Lock()
	r.bad = bad
	r.mu.Unlock()
	if bad == nil {
		if err := r.server.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *receiver) recover(t *testing.T) {
	r.mu.Lock()
	closed := r.bad == nil
	r.bad = nil
	r.mu.Unlock()
	if closed {
		r.listen(t)
	}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	r.mu.Lock()
	r.tries++
	if bad := r.bad; bad != nil {
		r.mu.Unlock()
		bad(w, request)
		return
	}
	defer r.mu.Unlock()
	var m struct{ Data struct{ EventID string } }
	if err != nil || request.Method != http.MethodPost || !strings.HasPrefix(request.URL.Path, "/hooks/") || json.Unmarshal(body, &m) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if request.URL.Path == "/hooks/other" {
		return
	}
	id, _ := strconv.Atoi(m.Data.EventID) // 0: a gap
	r.taken = append(r.taken, received{request.Header.Get("webhook-id"), id, request.Header.Clone(), body})
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) messages() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.taken)
}

// eventIDs lists what was taken; with once without what was taken before.
func (r *receiver) eventIDs(once bool) (all []int) {
	seen := map[string]bool{}
	for _, m := range r.messages() {
		if !once || !seen[m.id] {
			all = append(all, m.eventID)
		}
		seen[m.id] = true
	}
	return all
}

// await waits until n messages were taken.
func (r *receiver) await(t *testing.T, n int) {
	t.Helper()
	for begun := time.Now(); len(r.messages()) < n; time.Sleep(2 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatalf("%d messages were taken, want %d", len(r.messages()), n)
		}
	}
}

func (r *receiver) awaitTries(t *testing.T, n int) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		r.mu.Lock()
		tries := r.tries
		r.mu.Unlock()
		if tries >= n {
			return
		}
		if time.Since(begun) > patience {
			t.Fatalf("tried %d times", tries)
		}
	}
}

func upTo(n int) (all []int) {
	for i := range n {
		all = append(all, i+1)
	}
	return all
}
