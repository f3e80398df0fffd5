// Package webhook sends events to receivers that services.json names, as the
// Standard Webhooks specification 1.0.0 (www.standardwebhooks.com) has it.
//
// Each receiver has a goroutine of its own, which reads the log from where the
// receiver stands, sends one event at a time and goes on once it was taken. So a
// receiver gets every event of the log that it asks for, at least once and in
// order; what it gets twice has the same webhook-id. How far it is, is kept in the
// store, written behind: a commit never waits for a receiver, and one that is down
// costs no memory, for what it misses is in the log. When that was purged before
// the receiver came back, it is told by a message of the type gap.
//
//	hook/NAME     the position in the log up to which the receiver has taken all
package webhook

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/logging"
	"sessiond/store"
)

// Deps are what a Sender works with.
type Deps struct {
	Store  store.Store
	Tail   *event.Tail
	Clock  clock.Clock
	Log    *logging.Logger // nil writes nothing
	Server string          // identifier of the server: part of what a message's is made from

	FirstRetry time.Duration // after a refusal; 0: 1 s, then twice as long each time
	MostRetry  time.Duration // the longest; 0: 5 min
}

// Sender sends events to receivers.
type Sender struct {
	deps   Deps
	client *http.Client

	mu      sync.Mutex // held while deliverers are started and stopped
	stopped bool
	hooks   []*deliverer // in the order of services.json, the disabled ones too
}

// New returns a sender without receivers.
func New(d Deps) *Sender {
	if d.FirstRetry == 0 {
		d.FirstRetry = time.Second
	}
	if d.MostRetry == 0 {
		d.MostRetry = 5 * time.Minute
	}
	if d.Log == nil {
		d.Log = logging.Nop()
	}
	return &Sender{deps: d, client: &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 1, IdleConnTimeout: 90 * time.Second,
			ForceAttemptHTTP2: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// A Plan is a configuration whose secrets have been read.
type Plan struct {
	hooks   []config.Webhook
	secrets []api.Secret // decoded
	Notes   []string     // what an operator should know
}

// Prepare reads the secrets of receivers. An error names the members whose files
// cannot be used; nothing has changed then.
func Prepare(hooks []config.Webhook) (*Plan, error) {
	p := &Plan{hooks: hooks}
	var errs []error
	for i, h := range hooks {
		secret, loose, err := readSecret(h.SecretFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("/webhooks/%d/secretFile: %w", i, err))
		}
		if loose {
			p.Notes = append(p.Notes, fmt.Sprintf("/webhooks/%d/secretFile: others may read the file; chmod 600 it", i))
		}
		p.secrets = append(p.secrets, secret)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// readSecret returns the bytes of the secret in a file, and whether others than its
// owner may read that.
func readSecret(path string) (secret api.Secret, loose bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return api.Secret{}, false, fmt.Errorf("the file cannot be read: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return api.Secret{}, false, fmt.Errorf("the file cannot be read: %w", err)
	}
	info, err := f.Stat()
	loose = err == nil && info.Mode().Perm()&0o077 != 0
	secret, err = parseSecret(strings.TrimSpace(string(text)))
	return secret, loose, err
}

// Apply puts a plan in force: receivers that are new begin with what happens from
// now on, the others go on where they were. Until Stop, ctx or another plan ends it.
func (s *Sender) Apply(ctx context.Context, p *Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	old := s.hooks
	s.hooks = nil
	for i := range p.hooks {
		next := &deliverer{sender: s, hook: p.hooks[i], secret: p.secrets[i]}
		for j, was := range old {
			if was == nil || was.hook.Name != next.hook.Name {
				continue
			}
			if was.is(next) {
				next = was
			} else {
				was.stop()
			}
			old[j] = nil
		}
		s.hooks = append(s.hooks, next)
	}
	for _, gone := range old {
		if gone != nil {
			gone.stop()
		}
	}
	for _, d := range s.hooks {
		d.start(ctx)
	}
}

// Stop ends all deliveries, gives up those that are under way, and returns once it
// is written how far each receiver is.
func (s *Sender) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for _, d := range s.hooks { // all at once: each may take a moment
		if d.cancel != nil {
			d.cancel()
		}
	}
	for _, d := range s.hooks {
		d.stop()
	}
	s.client.CloseIdleConnections()
}

// States returns where each receiver stands, in the order of services.json.
func (s *Sender) States() []api.Webhook {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]api.Webhook, 0, len(s.hooks))
	for _, d := range s.hooks {
		all = append(all, d.view())
	}
	return all
}

// Replay lets a receiver go on from a cursor, as event.Tail has them: an empty one
// is the oldest event that is kept. It is recorded first. Errors are api.Errors, but
// for those of record and of the store: NotFound for no such receiver, BadParam for
// such a cursor.
func (s *Sender) Replay(ctx context.Context, name, cursor string, record func() error) (api.Webhook, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.hooks {
		if !strings.EqualFold(d.hook.Name, name) || s.stopped {
			continue
		}
		at, err := s.position(ctx, cursor)
		if err == nil {
			err = record()
		}
		if err != nil {
			return api.Webhook{}, err
		}
		d.stop()
		if err = s.save(ctx, d.hook.Name, at); err == nil {
			d.begin(at) // else it goes on where it was
		}
		d.start(context.WithoutCancel(ctx)) // until Stop
		return d.view(), err
	}
	return api.Webhook{}, api.Errorf(api.NotFound, "there is no such webhook: listServices shows which there are")
}

// position returns what a cursor stands for; where it is empty, the place before the
// oldest event.
func (s *Sender) position(ctx context.Context, cursor string) (uint64, error) {
	if cursor != "" {
		return s.deps.Tail.Position(cursor)
	}
	oldest, err := store.ReadLog(ctx, s.deps.Store, 0, 1)
	if err != nil || len(oldest) == 0 {
		return s.deps.Tail.Head(), err
	}
	return oldest[0].Seq - 1, nil
}

// keyOf is where the position of a receiver is kept.
func keyOf(name string) string { return "hook/" + name }

const positionFormat = 1

func (s *Sender) save(ctx context.Context, name string, at uint64) error {
	value := binary.BigEndian.AppendUint64([]byte{positionFormat}, at)
	_, err := s.deps.Store.Commit(ctx, store.Tx{Put: []store.Put{{Key: keyOf(name), Value: value}}})
	return err
}

// load returns the position of a receiver; ok is false for a new one.
func (s *Sender) load(ctx context.Context, name string) (at uint64, ok bool, err error) {
	item, err := s.deps.Store.Get(ctx, keyOf(name))
	if errors.Is(err, store.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if len(item.Value) != 9 || item.Value[0] != positionFormat {
		return 0, false, fmt.Errorf("%w: not the position of a webhook", store.ErrCorrupt)
	}
	return binary.BigEndian.Uint64(item.Value[1:]), true, nil
}

// jitter returns between one half and all of d, so that receivers that failed
// together do not come back together.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1) //nolint:gosec // no secret
}
