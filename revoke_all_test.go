package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/bolt"
	"sessiond/store/mem"
)

// However many sessions a mass logout ends, it takes one commit's time; from its
// answer on none of them is valid, and all others are.
func TestRevokeAllSessions(t *testing.T) { revokeAll(t, 10_000/lessUnderRace) }

const (
	trustedRealms = `{"realms":[{"name":"app","type":"trusted"},{"name":"shop","type":"trusted"}],
	  "jsonActionApiDefaults":{"maxJsonApiSessions":0,"maxJsonApiSessionsPerUsername":0,"maxJsonApiSessionsPerIpAddress":0}}`

	slowestRevocation = 20 // times the median of commits of one session
	tokensAtOnce      = 1000
)

// revokeAll ends so many sessions of a realm, or of the server, at once.
func revokeAll(t *testing.T, sessions int) {
	st, err := bolt.Open(t.Context(), filepath.Join(t.TempDir(), "data"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	s, err := newStage(t.Context(), props{store: st, hasher: cheapHasher(t), config: trustedRealms, logins: []string{"admin"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.sessions.Close()

	var all []*group
	var ratios []float64
	for _, tt := range []struct {
		params object
		ends   func(g *group) bool
	}{
		{object{"level": "realm", "realm": "app"}, func(g *group) bool { return g.realm == "app" && !g.permanent }},
		{object{"level": "server", "exceptCurrent": true}, func(g *group) bool { return !g.permanent }},
		{object{"level": "server", "exceptCurrent": true, "includePermanent": true}, func(*group) bool { return true }},
	} {
		all = append(all,
			s.issue(t, "app", sessions, false), s.issue(t, "app", 50, true),
			s.issue(t, "shop", 200, false), s.issue(t, "shop", 50, true))
		s.agree(t, all)

		want, left := 0, 0
		for _, g := range all {
			switch {
			case !g.dead && tt.ends(g):
				want, g.dead = want+len(g.tokens), true
			case !g.dead && g.permanent && (tt.params["realm"] == nil || g.realm == tt.params["realm"]):
				left += len(g.tokens)
			}
		}
		commits := s.commits(t, 50)
		begun := time.Now()
		got := s.must(t, spoken{s.byName["token:admin"], "revokeAllSessions", tt.params})
		took := time.Since(begun)
		s.agree(t, all)
		if got.Result.Revoked != want || got.Result.PermanentLeft != left {
			t.Errorf("%v: %d revoked, %d keys left, want %d and %d", tt.params, got.Result.Revoked, got.Result.PermanentLeft, want, left)
		}
		commits = append(commits, s.commits(t, 50)...)
		slices.Sort(commits)
		one := commits[len(commits)/2]
		ratios = append(ratios, float64(took)/float64(one))
		t.Logf("%v: %d sessions in %v, %.1f times the %v of an alteration of one", tt.params, want, took, float64(took)/float64(one), one)
	}
	slices.Sort(ratios)
	if middle := ratios[len(ratios)/2]; middle > slowestRevocation { // of three: the second comes right after the first, unswept
		t.Errorf("a mass logout takes %.1f times what an alteration of one session takes, want at most %d", middle, slowestRevocation)
	}
}

// group are sessions that are alike.
type group struct {
	realm     string
	permanent bool
	tokens    []string
	dead      bool
}

// issue creates sessions of a trusted realm, ten of an account.
func (s *stage) issue(t *testing.T, realm string, n int, permanent bool) *group {
	t.Helper()
	cfg := s.config.Get()
	made := session.NewSession{
		Realm: &cfg.Realms[slices.IndexFunc(cfg.Realms, func(r config.Realm) bool { return r.Name == realm })], Permanent: permanent,
		Issuer: &session.Caller{Live: session.Live{Permissions: account.AllPermissions}}, Settings: cfg.Defaults.Settings,
	}
	g := &group{realm: realm, permanent: permanent, tokens: make([]string, n)}
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var creators sync.WaitGroup
	for range min(n, 512) { // that share commits
		creators.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				one := made
				one.Username = fmt.Sprint("user-", i/10)
				_, token, err := s.sessions.Create(t.Context(), &one)
				if err != nil {
					failed.Store(&err)
				}
				g.tokens[i] = token.Reveal()
			}
		})
	}
	creators.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	return g
}

// agree fails unless exactly the tokens of groups that are not dead are valid.
func (s *stage) agree(t *testing.T, groups []*group) {
	t.Helper()
	for _, g := range groups {
		valid := 0
		for tokens := range slices.Chunk(g.tokens, tokensAtOnce) {
			for _, lives := range s.validates(t, tokens) {
				if lives {
					valid++
				}
			}
		}
		if g.dead && valid > 0 || !g.dead && valid < len(g.tokens) {
			t.Errorf("of %d sessions of %s (permanent: %t; ended: %t) %d are valid", len(g.tokens), g.realm, g.permanent, g.dead, valid)
		}
	}
}

// validates asks for decisions about tokens, as the administrator.
func (s *stage) validates(t *testing.T, tokens []string) []bool {
	t.Helper()
	got := s.must(t, spoken{s.byName["token:admin"], "validate", object{"tokenIds": tokens, "refresh": false}})
	var answer struct {
		Result struct{ Results []struct{ Valid bool } }
	}
	if err := json.Unmarshal(got.raw, &answer); err != nil || len(answer.Result.Results) != len(tokens) {
		t.Fatalf("%d decisions about %d tokens, %v", len(answer.Result.Results), len(tokens), err)
	}
	valid := make([]bool, len(tokens))
	for i := range tokens {
		valid[i] = answer.Result.Results[i].Valid
	}
	return valid
}

// commits returns how long alterations of one session take, one after the other.
func (s *stage) commits(t *testing.T, n int) (took []time.Duration) {
	t.Helper()
	for i := range n {
		begun := time.Now()
		s.must(t, spoken{s.byName["token:admin"], "alterSession", object{"description": fmt.Sprint("altered ", i)}})
		took = append(took, time.Since(begun))
	}
	return took
}

// A crash while the tombstones of a mass logout are written revives nobody, and
// the next start writes the rest.
func TestRevocationOutlastsACrash(t *testing.T) {
	const sessions = 500
	for _, commits := range []int64{0, 1, 7, 15} { // of some 16
		inner := mem.New()
		power := &mains{Store: inner}
		power.left.Store(1 << 40)
		s, err := newStage(t.Context(), props{store: power, hasher: cheapHasher(t), config: trustedRealms, logins: []string{"admin"}})
		if err != nil {
			t.Fatal(err)
		}
		temporary, keys := s.issue(t, "app", sessions, false), s.issue(t, "app", 20, true)
		s.must(t, spoken{s.byName["token:admin"], "revokeAllSessions", object{"level": "server", "exceptCurrent": true, "reason": "drill"}})
		temporary.dead = true
		s.agree(t, []*group{temporary, keys})

		power.left.Store(commits)
		if err := s.sessions.Maintain(t.Context()); err == nil {
			t.Fatal("the sweep did not notice that the power is off")
		}
		s.sessions.Close()
		if n := len(s.tombstones(t, inner, temporary.tokens, "")); n == sessions || commits > 0 && n == 0 {
			t.Fatalf("after %d commits there are %d tombstones, which is not in the middle", commits, n)
		}

		s.store = inner
		if err := s.open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		s.agree(t, []*group{temporary, keys})
		if err := s.sessions.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.agree(t, []*group{temporary, keys})
		if n := len(s.tombstones(t, inner, temporary.tokens, "drill")); n != sessions {
			t.Errorf("%d tombstones name the reason, want %d", n, sessions)
		}
		s.sessions.Close()
	}
}

// mains is a store without power once so many commits are done.
type mains struct {
	store.Store
	left atomic.Int64
}

func (m *mains) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	if m.left.Add(-1) < 0 {
		return 0, store.ErrStopped
	}
	return m.Store.Commit(ctx, tx)
}

// tombstones returns the sessions among tokens whose tombstones are in the store,
// those of a reason only if one is given; each must have been revoked by the
// administrator.
func (s *stage) tombstones(t *testing.T, st store.Store, tokens []string, reason string) (found []api.ID) {
	t.Helper()
	for _, token := range tokens {
		h, _ := session.Locate(token)
		if _, err := st.Get(t.Context(), "past/"+string(h[:])); err != nil {
			continue
		}
		if reason != "" {
			v, err := s.sessions.Get(t.Context(), h)
			if err != nil || v.Status() != session.Revoked || v.End.Reason != reason || v.End.By != s.byName["handle:admin"] {
				t.Errorf("a tombstone says %+v, %v", v.End, err)
				continue
			}
		}
		found = append(found, h)
	}
	return found
}

// Log-ins race what ends everything. Whoever was in before it was sent is out
// after it, whoever came after its answer stays, and whoever raced it is either
// out, or in for good: of the new epoch, before and after a restart and a sweep.
func TestLoginsRaceMassLogouts(t *testing.T) {
	const rounds, racers, restartEvery = 1000 / lessUnderRace, 3, 50
	s, err := newStage(t.Context(), props{store: &unsteady{Store: mem.New()}, hasher: cheapHasher(t), config: trustedRealms, logins: []string{"admin"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.sessions.Close() }()
	r := &racing{stage: s, t: t, states: map[string]bool{}, seen: map[string]int{}}
	for round := range rounds {
		end := massEnds[round%len(massEnds)]
		r.round(end, fmt.Sprint("racer-", round), round/len(massEnds)%2 == 1, racers)
		if round%restartEvery == restartEvery-1 {
			r.restart()
		}
		if t.Failed() {
			t.Fatalf("round %d: %s", round, end.name)
		}
	}
	t.Logf("%d rounds: %v", rounds, r.seen)
	if r.seen["raced: in"] == 0 || r.seen["raced: out"] == 0 {
		t.Error("nobody raced anything")
	}
}

// massEnd is what ends all sessions of an account, and perhaps others'.
type massEnd struct {
	name   string
	action string
	params func(username string) object
	epoch  func(e session.Epochs) uint64
	keys   bool // it can end API keys
	always bool // it does
	bars   bool // who logs in as before is refused from then on
}

// massEnds are all of them. But for those of an account, the administrator who
// sends them spares himself.
var massEnds = []massEnd{
	{
		"server", "revokeAllSessions", func(string) object { return object{"level": "server", "exceptCurrent": true} },
		func(e session.Epochs) uint64 { return e.Server }, true, false, false,
	},
	{
		"realm", "revokeAllSessions", func(string) object { return object{"level": "realm", "realm": "native", "exceptCurrent": true} },
		func(e session.Epochs) uint64 { return e.Realm }, true, false, false,
	},
	{"account", "revokeAllSessions", func(name string) object { return object{"level": "account", "username": name} }, ofAccount, true, false, false},
	{"logoutByUser", "logoutByUser", func(name string) object { return object{"username": name} }, ofAccount, true, false, false},
	{
		"a new password", "changePassword",
		func(name string) object { return object{"username": name, "newPassword": stagePassword + " 2"} },
		ofAccount, false, false, true,
	},
	{"disabling", "alterAccount", func(name string) object { return object{"username": name, "enabled": false} }, ofAccount, true, true, true},
	{"dropping", "dropAccounts", func(name string) object { return object{"usernames": []string{name}} }, ofAccount, true, true, true},
}

func ofAccount(e session.Epochs) uint64 { return e.Account }

// racing are the log-ins of all rounds.
type racing struct {
	*stage
	t      *testing.T
	moment atomic.Int64
	states map[string]bool // by token: does it live?
	seen   map[string]int
}

// entrance is a log-in, and when it was sent and answered.
type entrance struct {
	heard
	permanent      bool
	sent, answered int64
}

func (r *racing) enter(username string, permanent bool, from netip.Addr) (e entrance) {
	e.permanent, e.sent = permanent, r.moment.Add(1)
	e.heard = r.say(r.t, from, spoken{"", "createSession", object{"username": username, "password": stagePassword, "permanentSession": permanent}})
	e.answered = r.moment.Add(1)
	return e
}

func (r *racing) round(end massEnd, username string, keys bool, racers int) {
	admin := r.byName["token:admin"]
	r.must(r.t, spoken{admin, "createAccount", object{"username": username, "password": stagePassword}})
	n := len(r.states)
	before := []entrance{r.enter(username, false, ipv4(n)), r.enter(username, true, ipv4(n+1))}
	old := [2]session.Epochs{r.epochs(before[0].heard), r.epochs(before[1].heard)}

	p := end.params(username)
	if keys = keys && end.keys || end.always; keys && !end.always {
		p["includePermanent"] = true
	}
	raced := make([]entrance, racers)
	delays := [...]int{rand.N(120), rand.N(120), rand.N(120), rand.N(120)}
	var sent, answered int64
	start := make(chan struct{})
	var group sync.WaitGroup
	for i := range raced {
		group.Go(func() {
			<-start
			yield(delays[i])
			raced[i] = r.enter(username, i == racers-1, ipv4(n+2+i))
		})
	}
	group.Go(func() {
		<-start
		yield(delays[racers] * 2)
		sent = r.moment.Add(1)
		r.must(r.t, spoken{admin, end.action, p})
		answered = r.moment.Add(1)
	})
	close(start)
	group.Wait()
	after := r.enter(username, false, ipv4(n+2+racers))

	for _, e := range slices.Concat(before, raced, []entrance{after}) {
		ended := !e.permanent || keys
		if e.Code != api.OK {
			r.seen["refused"]++
			if !end.bars || e.Code != api.LoginFailed || e.answered < sent {
				r.t.Errorf("a log-in is refused: %s", e.raw)
			}
			continue
		}
		token := e.Result.AuthToken
		_, lives := r.sessions.Authenticate(token, false)
		r.states[token] = lives
		when := "raced: "
		switch {
		case e.answered < sent:
			when = "before: "
			if lives == ended {
				r.t.Errorf("a session (permanent: %t) from before it lives: %t", e.permanent, lives)
			}
		case e.sent > answered:
			when = "after: "
			if end.bars || !lives {
				r.t.Errorf("a log-in after it is let in, and lives: %t", lives)
			}
		case end.bars && lives && ended:
			r.t.Error("one who raced it is in with what counts no longer")
		case end.bars && e.permanent && !ended && !lives:
			r.t.Error("an API key died of what spares API keys")
		case !end.always:
			i := 0
			if e.permanent {
				i = 1
			}
			if renewed := end.epoch(r.epochs(e.heard)) != end.epoch(old[i]); lives != renewed && ended || !lives && !ended {
				r.t.Errorf("one who raced it (permanent: %t) lives: %t, of the new epoch: %t", e.permanent, lives, renewed)
			}
		}
		if lives {
			r.seen[when+"in"]++
		} else {
			r.seen[when+"out"]++
		}
	}
	if end.name == "disabling" { // whoever may come back gets nothing back
		r.must(r.t, spoken{admin, "alterAccount", object{"username": username, "enabled": true}})
	}
}

// restart opens the store anew, and then sweeps it: of either nobody lives or dies.
func (r *racing) restart() {
	r.t.Helper()
	r.compare("before the restart", true)
	r.sessions.Close()
	if err := r.open(r.t.Context(), nil); err != nil {
		r.t.Fatal(err)
	}
	r.compare("after the restart", false)
	if err := r.sessions.Maintain(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.compare("after the sweep", false)
}

// compare fails where a session that was dead lives, and, unless it may have ended
// in a later round, where one that lived is dead.
func (r *racing) compare(when string, mayHaveEnded bool) {
	r.t.Helper()
	for tokens := range slices.Chunk(slices.Collect(maps.Keys(r.states)), tokensAtOnce) {
		for i, lives := range r.validates(r.t, tokens) {
			if lives != r.states[tokens[i]] && (lives || !mayHaveEnded) {
				r.t.Errorf("%s a session lives: %t, which it did not before", when, lives)
			}
			r.states[tokens[i]] = lives
		}
	}
}

func (r *racing) epochs(h heard) session.Epochs {
	r.t.Helper()
	handle, ok := session.ParseHandle(h.Result.SessionHandle)
	v, err := r.sessions.Get(r.t.Context(), handle)
	if !ok || err != nil {
		r.t.Fatalf("%s: %v", h.raw, err)
	}
	return v.Epochs
}

// unsteady is a store whose callers are overtaken by others at any point.
type unsteady struct{ store.Store }

func (u *unsteady) Get(ctx context.Context, key string) (store.Item, error) {
	yield(rand.N(10))
	return u.Store.Get(ctx, key)
}

func (u *unsteady) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	yield(rand.N(60))
	defer func() { yield(rand.N(60)) }()
	return u.Store.Commit(ctx, tx)
}

func yield(times int) {
	for range times {
		runtime.Gosched()
	}
}
