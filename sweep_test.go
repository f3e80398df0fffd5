package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/logging"
	"sessiond/store"
	"sessiond/store/faultstore"
	"sessiond/store/mem"
)

// A fault is one way in which a call to the store may fail, and the code that a
// client then sees, unless the server gets over it.
var faults = []struct {
	name string
	plan faultstore.Plan // but for the number of the call
	code api.Code
}{
	{"get fails", faultstore.Plan{Op: faultstore.Get}, api.Internal},
	{"list fails", faultstore.Plan{Op: faultstore.List}, api.Internal},
	{"commit fails", faultstore.Plan{Op: faultstore.Commit}, api.OutcomeUnknown},
	{"commit is done, its answer lost", faultstore.Plan{Op: faultstore.Commit, After: true}, api.OutcomeUnknown},
	{"full", faultstore.Plan{Op: faultstore.Commit, Err: store.ErrFull}, api.StorageFull},
	{"stopped", faultstore.Plan{Op: faultstore.Commit, Err: store.ErrStopped}, api.StorageFailed},
	{"busy", faultstore.Plan{Op: faultstore.Commit, Err: store.ErrBusy}, api.Overloaded},
	{"conflict", faultstore.Plan{Op: faultstore.Commit, Err: store.ErrConflict}, api.Conflict}, // by what creates accounts and roles; others try again
}

// TestFaultSweep plays every transcript once per call to the store, and fault,
// with that call failing; of many calls, one in seven. What must hold stands at
// sweep.
func TestFaultSweep(t *testing.T) { sweepAll(t, 7*lessUnderRace) }

func sweepAll(t *testing.T, stride int) {
	hasher := cheapHasher(t)
	t.Run("transcripts", func(t *testing.T) {
		for at, tr := range transcripts(t) {
			t.Run(tr.name, func(t *testing.T) {
				t.Parallel()
				w := sweep{tr: tr, hasher: hasher}
				for i, f := range faults {
					if (at+i)%lessUnderRace != 0 {
						continue
					}
					first, last, err := w.calls(t.Context(), f.plan.Op)
					if err != nil {
						t.Fatal(err)
					}
					for n := first + 1 + (i % min(stride, max(1, last-first))); n <= last; n += stride {
						w.plan, w.code = f.plan, f.code
						w.plan.Call = n
						if err := w.play(t.Context()); err != nil {
							t.Errorf("%s, call %d: %v", f.name, n, err)
						}
					}
				}
			})
		}
	})
}

// A sweep is one transcript played with one call to the store failing.
//
//   - The answer at which it fails is the recorded one, or an error of the fault's
//     code; none holds the fault's text. There is no panic: it would be 21999.
//   - Where the commit had no effect, the same request made again is answered as
//     recorded, and so is the whole rest of the story: nothing had changed. For
//     ends that were refused this says that to repeat them ends the session.
//   - Where the commit was done and its answer lost, the rest of the story is
//     answered as recorded, as far as the client knows what it was not told.
//   - A session that was perhaps created keeps its place: the limits may be met
//     earlier then, and more sessions be evicted.
//   - In the end a server that starts anew over the data sees the same sessions;
//     those alone whose end was refused, and not repeated, live again.
type sweep struct {
	tr     *transcript
	hasher *account.Hasher
	plan   faultstore.Plan
	code   api.Code
}

// calls returns how many calls there have been before the story, and with it.
func (w *sweep) calls(ctx context.Context, op faultstore.Op) (before, after int, err error) {
	fs := faultstore.New(mem.New(), faultstore.Plan{})
	s, err := newStage(ctx, props{store: fs, hasher: w.hasher, config: string(w.tr.Config), logins: w.tr.Logins, log: logging.Nop()})
	if err != nil {
		return 0, 0, err
	}
	defer s.sessions.Close()
	before = fs.Calls(op)
	for i := range w.tr.Steps {
		if _, err := s.play(ctx, &w.tr.Steps[i], i); err != nil {
			return 0, 0, err
		}
	}
	return before, fs.Calls(op), nil
}

func (w *sweep) play(ctx context.Context) error {
	inner := mem.New()
	fs := faultstore.New(inner, w.plan)
	s, err := newStage(ctx, props{store: fs, hasher: w.hasher, config: string(w.tr.Config), logins: w.tr.Logins, log: logging.Nop()})
	if err != nil {
		return err
	}
	defer s.sessions.Close()
	refused := false // an end may have been, and was not asked for again
	for i := range w.tr.Steps {
		sp := &w.tr.Steps[i]
		fired := fs.Fired()
		err := s.prepare(ctx, sp)
		if err != nil && (fired || !fs.Fired()) {
			return fmt.Errorf("step %d: maintenance: %w", i+1, err)
		}
		if !fired && fs.Fired() { // what it did not get done is for the next time, and so is what others changed meanwhile
			if err := s.sessions.Maintain(ctx); err != nil {
				return fmt.Errorf("step %d: maintenance again: %w", i+1, err)
			}
			fired = true
		}
		got, err := s.ask(ctx, sp, i)
		if err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		on := true
		if !fired && fs.Fired() {
			on, err = w.failed(ctx, s, i, got)
		} else {
			err = w.compare(sp, got)
		}
		if err != nil && fired && w.placeKept(got) {
			break
		}
		if err != nil {
			return fmt.Errorf("step %d %s: %w", i+1, sp.Doc, err)
		}
		if !on {
			refused = sp.Parts
			break
		}
	}
	if !fs.Fired() {
		return nil // calls in parallel: there was one less
	}
	return s.agrees(ctx, refused)
}

// compare compares an answer without a fault with the recorded one. How events are
// numbered depends on what faults kept from being one, and how often failed log-ins
// are summed up.
func (w *sweep) compare(sp *step, got reply) error {
	numbered := sp.asks("listEvents") || sp.asks("watchSessions")
	if differences := sp.differences(got); len(differences) > 0 && !numbered {
		return errors.New(strings.Join(differences, "\n"))
	}
	return nil
}

// failed judges the answer at which the call failed, and makes the request again
// where that is to be answered as recorded. It reports whether the story goes on.
func (w *sweep) failed(ctx context.Context, s *stage, i int, got reply) (on bool, err error) {
	sp := &w.tr.Steps[i]
	if strings.Contains(string(got.raw), faultstore.Canary) {
		return false, fmt.Errorf("the fault's text is in the answer:\n%s", got.text)
	}
	if len(sp.differences(got)) == 0 {
		return true, nil // a fault that could be got over
	}
	want, have := each(sp.Answer), each(json.RawMessage(got.text))
	if len(want) != len(have) {
		return false, fmt.Errorf("%d answers, want %d", len(have), len(want))
	}
	for j, one := range have {
		if one == want[j] {
			continue
		}
		var answer struct {
			ErrorCode api.Code `json:"errorCode"`
		}
		if err := json.Unmarshal([]byte(one), &answer); err != nil {
			return false, err
		}
		if answer.ErrorCode != w.code {
			return false, fmt.Errorf("errorCode %d, want %d or the recorded answer:\n%s", answer.ErrorCode, w.code, one)
		}
	}
	switch {
	case sp.Parts:
		return false, nil
	case w.plan.After:
		return !newNames(sp.Answer, s), nil
	}
	again, err := s.ask(ctx, sp, i)
	if err != nil || w.placeKept(again) || w.code == api.OutcomeUnknown && sp.asks("createSession") && strings.Contains(string(w.tr.Config), `"evict`) {
		return false, err
	}
	for _, name := range []string{"errorCode", "result", "authToken"} { // the form may be another: who is dead here has no settings
		want, have := members(sp.Answer, name), members(json.RawMessage(again.text), name)
		for j := range want {
			if j >= len(have) || indented(want[j]) != indented(have[j]) {
				return false, fmt.Errorf("made again after it failed, it is answered\n%s", again.text)
			}
		}
	}
	return true, nil
}

// asks reports whether a request is of an action, as far as its text tells.
func (sp *step) asks(action string) bool { return strings.Contains(string(sp.Request), `"`+action+`"`) }

// placeKept reports whether a limit was met that a session may have met which
// was perhaps created.
func (w *sweep) placeKept(got reply) bool {
	return w.code == api.OutcomeUnknown && strings.Contains(got.text, `"limit": "maxJsonApiSessions`)
}

// each returns the answers of a batch, or the one that there is.
func each(text json.RawMessage) (all []string) {
	var many []json.RawMessage
	if json.Unmarshal(text, &many) != nil {
		many = []json.RawMessage{text}
	}
	for _, one := range many {
		all = append(all, indented(one))
	}
	return all
}

// newNames reports whether an answer would have told the client something that
// it now cannot know.
func newNames(answer json.RawMessage, s *stage) bool {
	return slices.ContainsFunc(placeholder.FindAllString(string(answer), -1), func(name string) bool {
		_, err := s.fill(name)
		return err != nil
	})
}

// What a client sees of each error of the store, and with which status.
func TestStoreErrorsAsCodes(t *testing.T) {
	const alter = `{"action":"alterSession","params":{"description":"x"},"authToken":"${token:alice}"}`
	const read = `{"action":"getSessionInfo","authToken":"${token:alice}"}`
	for _, tt := range []struct {
		name, request string
		fault         error // nil: of no kind that the store names
		code          api.Code
		status        int
		retryAfter    int64
	}{
		{"full", alter, store.ErrFull, api.StorageFull, 503, 1},
		{"stopped", alter, store.ErrStopped, api.StorageFailed, 503, 1},
		{"busy", alter, store.ErrBusy, api.Overloaded, 503, 1},
		{"unknown", alter, store.ErrUnknown, api.OutcomeUnknown, 503, 0},
		{"a race that is lost again and again", alter, store.ErrConflict, api.Conflict, 200, 0},
		{"damaged data", read, store.ErrCorrupt, api.Internal, 200, 0},
		{"whatever else", read, nil, api.Internal, 200, 0},
		{"time is up", read, context.DeadlineExceeded, api.Overloaded, 503, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := &badStore{Store: mem.New()}
			s, err := newStage(t.Context(), props{store: bad, hasher: cheapHasher(t), logins: []string{"alice"}})
			if err != nil {
				t.Fatal(err)
			}
			if bad.err = tt.fault; bad.err == nil {
				bad.err = errors.New("disk 7 says no")
			}
			sp := &step{Request: json.RawMessage(tt.request)}
			got, err := s.ask(t.Context(), sp, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got.status != tt.status || got.retryAfter != tt.retryAfter || !strings.Contains(got.text, fmt.Sprintf(`"errorCode": %d,`, tt.code)) {
				t.Errorf("status %d, Retry-After %d, want %d and %d with code %d:\n%s", got.status, got.retryAfter, tt.status, tt.retryAfter, tt.code, got.text)
			}
			sp.Request = json.RawMessage("[" + tt.request + "]")
			if got, err = s.ask(t.Context(), sp, 0); err != nil || got.status != 200 {
				t.Errorf("in a batch: status %d, %v", got.status, err)
			}
			if strings.Contains(got.text, bad.err.Error()) {
				t.Errorf("the store's words are in the answer:\n%s", got.text)
			}
		})
	}
	t.Run("the server stops", func(t *testing.T) {
		hasher := cheapHasher(t)
		s, err := newStage(t.Context(), props{store: mem.New(), hasher: hasher})
		if err != nil {
			t.Fatal(err)
		}
		hasher.Close()
		got, err := s.ask(t.Context(), &step{Request: json.RawMessage(`{"action":"createSession","params":{"username":"alice","password":"${password}"}}`)}, 0)
		if err != nil || got.status != 503 || got.retryAfter != 1 || !strings.Contains(got.text, `"errorCode": 21904,`) {
			t.Errorf("status %d, Retry-After %d, %v:\n%s", got.status, got.retryAfter, err, got.text)
		}
	})
}

// badStore fails for good, once it has an error: reads of sessions, and commits.
type badStore struct {
	store.Store
	err error
}

func (b *badStore) Get(ctx context.Context, key string) (store.Item, error) {
	if b.err != nil && !errors.Is(b.err, store.ErrConflict) && !isCommitError(b.err) {
		return store.Item{}, b.err
	}
	return b.Store.Get(ctx, key)
}

func (b *badStore) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	if b.err != nil {
		return 0, b.err
	}
	return b.Store.Commit(ctx, tx)
}

func isCommitError(err error) bool {
	return slices.ContainsFunc([]error{store.ErrFull, store.ErrStopped, store.ErrBusy, store.ErrUnknown}, func(e error) bool { return errors.Is(err, e) })
}
