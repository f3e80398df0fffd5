package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/event"
	"sessiond/store"
	"sessiond/store/mem"
)

// Every way a log-in fails gives the same bytes for the same work.
func TestEveryFailureLooksTheSame(t *testing.T) {
	h := newHouse(t)
	h.create("alice", rightPassword)
	h.create("nopass", "")
	h.change("disabled", rightPassword, func(a *Account) { a.Disabled = true })

	var want string
	for _, tt := range []struct{ why, username, password string }{
		{"wrong password", "alice", wrongPassword},
		{"unknown user", "nobody", wrongPassword},
		{"unknown user in another realm", "alice", wrongPassword},
		{"disabled, right password", "disabled", rightPassword},
		{"disabled, wrong password", "disabled", wrongPassword},
		{"no password", "nopass", wrongPassword},
		{"no password, none given", "nopass", ""},
		{"none given", "alice", ""},
		{"no possible password", "alice", "correct\x00horse battery"},
		{"a password of a megabyte", "alice", strings.Repeat("x", 1<<20)},
		{"no possible name", "alice smith", rightPassword},
		{"no name", "", rightPassword},
		{"a name of a megabyte", strings.Repeat("x", 1<<20), rightPassword},
	} {
		realm := "native"
		if strings.Contains(tt.why, "another realm") {
			realm = "partners"
		}
		before := h.hasher.Runs()
		a, err := h.Verify(t.Context(), realm, tt.username, api.NewSecret(tt.password), netip.Addr{})
		if a != nil || err == nil {
			t.Fatalf("%s: logged in", tt.why)
		}
		got := wireText(t, err)
		if want == "" {
			want = got
		}
		if got != want || api.FromError(err).Code != api.LoginFailed {
			t.Errorf("%s: %s, want %s", tt.why, got, want)
		}
		if runs := h.hasher.Runs() - before; runs != 1 {
			t.Errorf("%s: %d hashes, want 1", tt.why, runs)
		}
	}
}

func TestVerify(t *testing.T) {
	h := newHouse(t)
	created := h.create("José", "correct\u00a0horse batte\u0301ry")
	for _, tt := range []struct{ username, password string }{
		{"José", "correct\u00a0horse batte\u0301ry"},
		{"jose\u0301", "correct horse battéry"},
		{"ＪＯＳÉ", "correct\u3000horse battéry"},
	} {
		got, err := h.Verify(t.Context(), "native", tt.username, api.NewSecret(tt.password), netip.Addr{})
		if err != nil {
			t.Errorf("%q: %v", tt.username, err)
			continue
		}
		if diff := cmp.Diff(created, got, cmp.Comparer(sameSecret)); diff != "" {
			t.Error(diff)
		}
	}
}

// All spellings of a name are one name to the throttle, whether it exists or not.
func TestSpellingsShareACounter(t *testing.T) {
	h := newHouse(t)
	h.create("alice", rightPassword)
	for _, spellings := range [][]string{
		{"alice", "ALICE", "ａｌｉｃｅ", "Alice", "aLICE", "alicE"},
		{"nobody", "NOBODY", "ｎｏｂｏｄｙ", "Nobody", "nOBODY", "nobodY"},
	} {
		for i, name := range spellings {
			_, err := h.Verify(t.Context(), "native", name, api.NewSecret(wrongPassword), netip.Addr{})
			want := api.LoginFailed
			if i >= freeFailures {
				want = api.LoginThrottled
			}
			if e := api.FromError(err); e.Code != want {
				t.Errorf("guess %d at %s: %v, want %d", i+1, name, err, want)
			}
		}
	}
}

func TestParallelGuessesCauseFiveChecks(t *testing.T) {
	for _, name := range []string{"alice", "nobody"} {
		h := newHouse(t)
		h.create("alice", rightPassword)
		before := h.hasher.Runs()
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range 200 {
			wg.Go(func() {
				<-start
				_, err := h.Verify(t.Context(), "native", name, api.NewSecret(fmt.Sprint(wrongPassword, i)), netip.Addr{})
				switch e := api.FromError(err); e.Code {
				case api.LoginFailed:
				case api.LoginThrottled, api.Overloaded:
					if e.Data.RetryAfterSeconds < 1 {
						t.Errorf("%s: no time to come back", name)
					}
				default:
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		close(start)
		wg.Wait()
		_, err := h.Verify(t.Context(), "native", name, api.NewSecret(rightPassword), netip.Addr{})
		if api.FromError(err).Code != api.LoginThrottled {
			t.Errorf("%s: one more gets %v, want %d", name, err, api.LoginThrottled)
		}
		if runs := h.hasher.Runs() - before; runs != freeFailures {
			t.Errorf("%s: 200 guesses caused %d checks, want %d", name, runs, freeFailures)
		}
	}
}

// Many at once who know the password all get in, if those who are told to come
// back do.
func TestParallelLoginsOfOneAccount(t *testing.T) {
	h := newHouse(t)
	h.create("alice", rightPassword)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for {
				_, err := h.Verify(t.Context(), "native", "alice", api.NewSecret(rightPassword), netip.Addr{})
				if err == nil {
					return
				}
				if api.FromError(err).Code != api.Overloaded {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestNothingCheckedIsNothingCounted(t *testing.T) {
	h := newHouse(t)
	h.create("alice", rightPassword)
	h.hasher.Close()
	for range 3 * freeFailures {
		_, err := h.Verify(t.Context(), "native", "alice", api.NewSecret(wrongPassword), netip.MustParseAddr("192.0.2.1"))
		if codeOf(err) != api.ShuttingDown {
			t.Fatalf("got %v, want %d", err, api.ShuttingDown)
		}
	}
	if n := len(h.throttle.accounts); n != 0 {
		t.Errorf("%d counters are kept", n)
	}
}

func TestADamagedHashIsAFaultAndNoRefusal(t *testing.T) {
	h := newHouse(t)
	h.change("alice", rightPassword, func(a *Account) {
		a.PasswordHash = api.NewSecret("$argon2id$v=19$m=4194304,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	})
	before := h.hasher.Runs()
	_, err := h.Verify(t.Context(), "native", "alice", api.NewSecret(rightPassword), netip.Addr{})
	if api.FromError(err).Code != api.Internal || h.hasher.Runs() != before {
		t.Errorf("%v after %d hashes", err, h.hasher.Runs()-before)
	}
}

func TestCreate(t *testing.T) {
	h := newHouse(t)
	h.create("alice", rightPassword)
	for _, tt := range []struct {
		why  string
		n    NewAccount
		want api.Code
	}{
		{"the same name", NewAccount{Realm: "native", Username: "alice", Password: api.NewSecret(rightPassword)}, api.AlreadyExists},
		{"another spelling", NewAccount{Realm: "native", Username: "ＡＬＩＣＥ", Password: api.NewSecret(rightPassword)}, api.AlreadyExists},
		{"a short password", NewAccount{Realm: "native", Username: "bob", Password: api.NewSecret("short")}, api.PasswordPolicy},
		{"an unknown role", NewAccount{Realm: "native", Username: "bob", Roles: []string{"admin", "root"}, Password: api.NewSecret(rightPassword)}, api.BadParam},
		{"no name", NewAccount{Realm: "native", Username: "", Password: api.NewSecret(rightPassword)}, api.BadParam},
		{"the same name in another realm", NewAccount{Realm: "partners", Username: "alice"}, api.OK},
	} {
		rev := h.store.Rev()
		a, err := h.Create(t.Context(), event.Actor{}, tt.n)
		if tt.want == api.OK {
			if err != nil || a.Rev == 0 {
				t.Errorf("%s: %v", tt.why, err)
			}
			continue
		}
		if err == nil || api.FromError(err).Code != tt.want {
			t.Errorf("%s: %v, want %d", tt.why, err, tt.want)
		}
		if h.store.Rev() != rev {
			t.Errorf("%s: something was written", tt.why)
		}
	}
	if _, err := h.Find(t.Context(), "native", "bob"); api.FromError(err).Code != api.NotFound {
		t.Errorf("bob: %v", err)
	}
}

func TestTwoCreateAtOnce(t *testing.T) {
	for range 20 {
		h := newHouse(t)
		var wg sync.WaitGroup
		errs := make([]error, 2)
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = h.Create(t.Context(), event.Actor{}, NewAccount{Realm: "native", Username: "alice", Password: api.NewSecret(rightPassword)})
			})
		}
		wg.Wait()
		slices.SortFunc(errs, func(a, b error) int { return int(codeOf(a) - codeOf(b)) })
		if errs[0] != nil || codeOf(errs[1]) != api.AlreadyExists {
			t.Fatalf("got %v", errs)
		}
	}
}

func TestEventsOfACreation(t *testing.T) {
	h := newHouse(t)
	by := event.Actor{SessionHandle: "sh_0", Realm: "native", Username: "admin"}
	a, err := h.Create(t.Context(), by, NewAccount{Realm: "native", Username: "Alice", Roles: []string{"gateway"}, Password: api.NewSecret(rightPassword)})
	if err != nil {
		t.Fatal(err)
	}
	want := []event.Event{{Time: morning, Kind: event.AccountCreated, AccountID: a.ID.String(), Realm: "native", Username: "Alice", By: by}}
	if diff := cmp.Diff(want, h.events()); diff != "" {
		t.Error(diff)
	}
}

func TestFailuresBecomeEvents(t *testing.T) {
	h := newHouse(t)
	a := h.create("Alice", rightPassword)
	before := len(h.events())
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2")
	for range 7 {
		_, _ = h.Verify(t.Context(), "native", "ALICE", api.NewSecret(wrongPassword), one)
	}
	_, _ = h.Verify(t.Context(), "native", "my secret typed here", api.NewSecret(wrongPassword), two)
	_, _ = h.Verify(t.Context(), "native", "another-secret", api.NewSecret(wrongPassword), two)
	if got := h.events()[before:]; len(got) != 0 {
		t.Fatalf("events before the flush: %v", got)
	}
	for range 2 { // the second has nothing to say
		if err := h.FlushFailures(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := []event.Event{
		{Time: morning, Kind: event.LoginFailed, Realm: "native", AccountID: a.ID.String(), Username: "Alice", ClientIPAddress: "192.0.2.1", Reason: reasonPassword, Count: 5},
		{Time: morning, Kind: event.LoginFailed, Realm: "native", ClientIPAddress: "2001:db8::2", Reason: reasonUnknown, Count: 2},
		{Time: morning, Kind: event.LoginFailed, Realm: "native", AccountID: a.ID.String(), Username: "Alice", ClientIPAddress: "192.0.2.1", Reason: reasonThrottled, Count: 2},
	}
	got := h.events()[before:]
	byCount := func(a, b event.Event) int { return strings.Compare(a.Reason, b.Reason) }
	slices.SortFunc(got, byCount)
	slices.SortFunc(want, byCount)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAFloodOfFailuresIsBounded(t *testing.T) {
	h := newHouse(t)
	for i := range 5000 {
		h.failures.add(failure{reason: reasonUnknown, realm: "native", address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}, 1)
	}
	if n := len(h.failures.counts); n > maxFailures+1 {
		t.Errorf("%d sums are kept", n)
	}
	before := h.store.Rev()
	if err := h.FlushFailures(t.Context()); err != nil {
		t.Fatal(err)
	}
	if commits := h.store.Rev() - before; commits > maxFailures/failuresAtOnce+1 {
		t.Errorf("%d commits", commits)
	}
	var total int64
	for _, e := range h.events() {
		total += e.Count
	}
	if total != 5000 {
		t.Errorf("the events count %d failures, want 5000", total)
	}
}

func TestFailuresOutlastAStoreThatRefuses(t *testing.T) {
	for _, tt := range []struct {
		err  error
		kept int64
	}{{store.ErrFull, 3}, {store.ErrBusy, 3}, {store.ErrUnknown, 0}, {errors.New("input/output error"), 0}} {
		h := newHouse(t)
		h.failures.add(failure{reason: reasonUnknown, realm: "native"}, 3)
		if err := h.failures.flush(t.Context(), refusing{h.store, tt.err}, h.clock); !errors.Is(err, tt.err) {
			t.Errorf("flush = %v, want %v", err, tt.err)
		}
		var kept int64
		for _, n := range h.failures.take() {
			kept += n
		}
		if kept != tt.kept {
			t.Errorf("after %v %d failures are kept, want %d", tt.err, kept, tt.kept)
		}
	}
}

func TestList(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"al", "Alan", "ALICE", "alicia", "bob", "zoë", "a:b"} {
		h.create(name, "")
	}
	for _, realm := range []string{"nativ", "native2"} { // neighbours in key order
		if _, err := h.Create(t.Context(), event.Actor{}, NewAccount{Realm: realm, Username: "alice"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		prefixes, want string
	}{
		{"", "a:b al alan alice alicia bob zoë"},
		{"ALI", "alice alicia"},
		{"ali al", "al alan alice alicia"},
		{"zo ali b", "alice alicia bob zoë"},
		{"alice alice", "alice"},
		{"c", ""},
	} {
		for limit := 1; limit <= 8; limit++ {
			var got []string
			after, pages := "", 0
			for {
				page, next, err := h.List(t.Context(), "native", strings.Fields(tt.prefixes), after, limit)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) > limit {
					t.Fatalf("a page of %d holds %d", limit, len(page))
				}
				for _, a := range page {
					got = append(got, a.Canonical)
				}
				if pages++; next == "" || pages > 20 {
					break
				}
				after = next
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("%q in pages of %d: %q, want %q", tt.prefixes, limit, got, tt.want)
			}
			if most := (len(got) + limit - 1) / limit; pages > max(1, most) {
				t.Errorf("%q in pages of %d: %d pages, want %d", tt.prefixes, limit, pages, most)
			}
		}
	}
	for _, bad := range []string{"a b", "\x00", "\u202e"} {
		if _, _, err := h.List(t.Context(), "native", []string{bad}, "", 0); codeOf(err) != api.BadParam {
			t.Errorf("the prefix %q: %v", bad, err)
		}
	}
}

func TestFresh(t *testing.T) {
	h := newHouse(t)
	a, err := h.Fresh(t.Context(), "partners", "Carol", []string{"issuer", "gateway", "issuer"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(store.Cond{Key: "acct/partners:carol"}, a.Cond()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]RoleRef{{Name: "gateway"}, {Name: "issuer"}}, a.Roles); diff != "" {
		t.Error(diff)
	}
	if a.ID.IsZero() || !a.ID.Time().Equal(morning) || !a.PasswordHash.IsZero() || h.store.Rev() != 0 {
		t.Errorf("got %+v at revision %d", a, h.store.Rev())
	}
	if _, err := h.Fresh(t.Context(), "partners", "Carol", []string{"root"}); codeOf(err) != api.BadParam {
		t.Errorf("an unknown role: %v", err)
	}
}

func TestEpochs(t *testing.T) {
	a := full()
	before := a.Epoch
	a.Epoch.Raise(false, Why{})
	if a.Epoch.For(false) == before.For(false) || a.Epoch.For(true) != before.For(true) {
		t.Errorf("epochs go from %+v to %+v", before, a.Epoch)
	}
	before = a.Epoch
	a.Epoch.Raise(true, Why{})
	if a.Epoch.For(false) == before.For(false) || a.Epoch.For(true) == before.For(true) {
		t.Errorf("epochs go from %+v to %+v", before, a.Epoch)
	}
}

const (
	rightPassword = "correct horse battery"
	wrongPassword = "incorrect horse battery"
	hashMark      = "marked-password-hash"
)

// house is a Directory over an empty store, with cheap hashes.
type house struct {
	*Directory
	t      *testing.T
	store  store.Store
	clock  *clock.Fake
	hasher *Hasher
}

func newHouse(t *testing.T) house {
	t.Helper()
	s, c, h := mem.New(), clock.NewFake(morning), cheapHasher(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return house{Directory: New(Deps{Store: s, Clock: c, Hasher: h}), t: t, store: s, clock: c, hasher: h}
}

func (h house) create(username, password string) *Account {
	h.t.Helper()
	a, err := h.Create(h.t.Context(), event.Actor{}, NewAccount{Realm: "native", Username: username, Password: api.NewSecret(password)})
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// change creates an account and stores it again as alter leaves it.
func (h house) change(username, password string, alter func(*Account)) {
	h.t.Helper()
	a := h.create(username, password)
	alter(a)
	put, err := a.Put()
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.store.Commit(h.t.Context(), store.Tx{If: []store.Cond{a.Cond()}, Put: []store.Put{put}}); err != nil {
		h.t.Fatal(err)
	}
}

// events returns what the log holds.
func (h house) events() []event.Event {
	h.t.Helper()
	entries, err := store.ReadLog(h.t.Context(), h.store, 0, 5000)
	if err != nil {
		h.t.Fatal(err)
	}
	list := []event.Event{}
	for _, entry := range entries {
		e, err := event.Decode(entry)
		if err != nil {
			h.t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func codeOf(err error) api.Code {
	if err == nil {
		return api.OK
	}
	return api.FromError(err).Code
}

// wireText is what a client would see of an error.
func wireText(t *testing.T, err error) string {
	t.Helper()
	e := api.FromError(err)
	text, err := json.Marshal(map[string]any{"errorCode": e.Code, "errorMessage": e.Message, "errorData": e.Data})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func sameSecret(a, b api.Secret) bool { return a == b }

// refusing is a store whose commits fail.
type refusing struct {
	store.Store
	err error
}

func (r refusing) Commit(context.Context, store.Tx) (store.Rev, error) { return 0, r.err }
