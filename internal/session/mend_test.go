package session_test

import (
	"slices"
	"testing"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
)

// What becomes of the session of ann in a store that was salvaged, after something had
// happened to it and something was lost: it lives only where nothing that is missing
// may have ended it. That of bob, of which nothing was lost, lives on, unless nobody
// knows what is missing.
func TestMend(t *testing.T) {
	for name, tt := range map[string]struct {
		happens func(*mending)
		lost    func(*mending)
		logTorn bool
		lives   bool
		bobToo  bool // dies
		ended   int64
	}{
		"nothing":                               {lives: true},
		"its end":                               {happens: (*mending).ends, lost: (*mending).loseEnd, ended: 1},
		"its end, of which there was none":      {lost: (*mending).loseEnd, lives: true},
		"its end, and some of the log":          {lost: (*mending).loseEnd, logTorn: true, ended: 1},
		"its end, and its creation was purged":  {lost: (*mending).loseEndAndBirth, ended: 1},
		"its expiry":                            {happens: (*mending).expires, lost: (*mending).unfold, ended: 1},
		"its tombstone":                         {happens: (*mending).folds, lost: (*mending).unfold, ended: 1},
		"that its tombstone took its place":     {happens: (*mending).folds, lost: (*mending).restoreRecord},
		"nothing, it had ended":                 {happens: (*mending).ends, lost: (*mending).doubtRecord},
		"its newest record, which was the same": {lost: (*mending).doubtRecord, lives: true},
		"the same, and some of the log":         {lost: (*mending).doubtRecord, logTorn: true, ended: 1},
		"its record since it was altered":       {happens: (*mending).altered, lost: (*mending).restoreRecord, ended: 1},
		"its record since it was rotated":       {happens: (*mending).rotated, lost: (*mending).restoreRecord, ended: 1},
		"nothing, it was rotated":               {happens: (*mending).rotated, lost: (*mending).loseEnd, lives: true},
		"an epoch":                              {lost: (*mending).touchEpochs, bobToo: true, ended: 2},
		"an account, but nothing of the log":    {lost: (*mending).touchAccounts, lives: true},
		"an account, and some of the log":       {lost: (*mending).touchAccounts, logTorn: true, bobToo: true, ended: 2},
		"its account's newest record":           {lost: (*mending).doubtAccount, ended: 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMending(t)
			if tt.happens != nil {
				tt.happens(m)
			}
			if tt.lost != nil {
				tt.lost(m)
			}
			done := m.mend(!tt.logTorn)
			if done.Ended != tt.ended {
				t.Errorf("%d were ended, want %d", done.Ended, tt.ended)
			}
			if got := m.lives(m.token); got != tt.lives {
				t.Errorf("it lives: %v", got)
			}
			if got := m.lives(m.bobs); got == tt.bobToo {
				t.Errorf("that of bob lives: %v", got)
			}
			a, err := m.accounts.Find(m.ctx(), "web", "ann")
			if told := slices.Equal(done.Disabled, []string{"web/ann"}); err != nil || a.Disabled != m.doubtful[m.account()] || told != a.Disabled {
				t.Errorf("disabled: %v, it says %q: %v", a.Disabled, done.Disabled, err)
			}
			m.maintain()
			m.recount()
			if live := m.keys(session.LiveKeys); tt.ended == 0 && !tt.lives && live != 1 {
				t.Errorf("%d records are left", live)
			}
		})
	}
}

// Where nothing can be known everything ends, many at a time.
func TestMendEndsMany(t *testing.T) {
	const many = 2*store.MaxOps + 1
	w := newWorld(t, unlimited())
	var tokens []string
	for range many {
		_, token := w.issued("ann", permanent)
		tokens = append(tokens, token)
	}
	damaged := copied(t, w.inner)
	before := damaged.Rev()
	no := func(string) bool { return false }
	done, err := session.Mend(t.Context(), session.Mending{
		Store: damaged, Now: w.clock.Now(), Lost: no, Doubtful: no,
		Touched: func(kind string) bool { return kind == "epoch" },
	})
	if commits := damaged.Rev() - before; err != nil || done.Ended != many || commits > 10 {
		t.Errorf("%d were ended in %d commits: %v", done.Ended, commits, err)
	}
	w = newWorldOn(t, unlimited(), damaged, damaged)
	for i, token := range tokens {
		if w.lives(token) {
			t.Errorf("key %d lives", i)
		}
	}
}

// A role of which only an older record may be left might give more than it should.
func TestMendDropsDoubtfulRoles(t *testing.T) {
	m := newMending(t)
	m.createRole("orders.read")
	m.doubtful["role/clerk"] = true
	if done := m.mend(true); done.Roles != 1 || m.has("role/clerk") {
		t.Errorf("%+v, the role is there: %v", done, m.has("role/clerk"))
	}
	if !slices.ContainsFunc(entriesAfter(t, m.inner, 0), func(entry store.Entry) bool {
		e, err := event.Decode(entry)
		return err == nil && e.Kind == event.StoreSalvaged
	}) {
		t.Error("the log does not say that the store was salvaged")
	}
}

// mending is a world that something is lost of.
type mending struct {
	*world

	test          *testing.T
	handle        api.ID
	token, bobs   string
	before        []byte // the record as it was first
	lost, touched map[string]bool
	doubtful      map[string]bool
}

func newMending(t *testing.T) *mending {
	t.Helper()
	m := &mending{world: newWorld(t, unlimited()), test: t, lost: map[string]bool{}, touched: map[string]bool{}, doubtful: map[string]bool{}}
	v, token := m.issued("ann", permanent)
	m.handle, m.token = v.Handle, token
	_, m.bobs = m.issued("bob", permanent)
	item, err := m.inner.Get(t.Context(), session.LiveKey(m.handle))
	m.do(nil, err)
	m.before = item.Value
	m.advance(60)
	return m
}

func (m *mending) ends()    { m.t.Helper(); m.do(m.end(m.handle)) }
func (m *mending) folds()   { m.t.Helper(); m.ends(); m.maintain() }
func (m *mending) rotated() { m.t.Helper(); m.token = m.rotate(m.token) }
func (m *mending) altered() {
	m.t.Helper()
	m.do(m.Alter(m.ctx(), m.handle, event.Actor{}, func(r *session.Record) error { r.Description = "other"; return nil }))
}

// expires has a temporary session in the place of the key, and lets it expire.
func (m *mending) expires() {
	m.t.Helper()
	v, token := m.issued("ann", idle(60))
	item, err := m.inner.Get(m.ctx(), session.LiveKey(v.Handle))
	m.do(nil, err)
	m.do(m.end(m.handle))
	m.handle, m.token, m.before = v.Handle, token, item.Value
	m.advance(600)
	m.maintain()
}

func (m *mending) commit(tx store.Tx) {
	m.t.Helper()
	m.do(m.inner.Commit(m.ctx(), tx))
}

func (m *mending) loseEnd() {
	m.t.Helper()
	m.lost[session.EndKey(m.handle)] = true
	m.commit(store.Tx{Delete: []string{session.EndKey(m.handle)}})
}

func (m *mending) loseEndAndBirth() {
	m.t.Helper()
	m.loseEnd()
	m.purged()
}

// purged takes away the log as a purge does.
func (m *mending) purged() {
	m.t.Helper()
	last := lastOf(m.test, m.inner)
	tx := store.Tx{Put: []store.Put{{Key: store.AnchorKey, Value: last.Encode()}}}
	for seq := range last.Seq {
		tx.Delete = append(tx.Delete, store.LogKey(seq+1))
	}
	m.commit(tx)
}

func (m *mending) doubtRecord() { m.doubtful[session.LiveKey(m.handle)] = true }

// restoreRecord has an old record in the store again.
func (m *mending) restoreRecord() {
	m.t.Helper()
	m.doubtRecord()
	m.commit(store.Tx{Put: []store.Put{{Key: session.LiveKey(m.handle), Value: m.before}}})
}

// unfold has one without the tombstone that took its place.
func (m *mending) unfold() {
	m.t.Helper()
	m.restoreRecord()
	m.commit(store.Tx{Delete: []string{session.PastKey(m.handle)}})
}

func (m *mending) touchEpochs()   { m.touched["epoch"] = true }
func (m *mending) touchAccounts() { m.touched["acct"] = true }
func (m *mending) doubtAccount() {
	m.touchAccounts()
	m.doubtful[m.account()] = true
}

// account returns the key of ann's.
func (m *mending) account() string { return account.Key("web", "ann") }

// mend is what the next process finds mended.
func (m *mending) mend(logWhole bool) session.Mended {
	m.t.Helper()
	m.Close()
	done, err := session.Mend(m.ctx(), session.Mending{
		Store: m.inner, Now: m.clock.Now(), LogWhole: logWhole,
		Lost:     func(key string) bool { return m.lost[key] },
		Touched:  func(kind string) bool { return m.touched[kind] },
		Doubtful: func(key string) bool { return m.doubtful[key] },
	})
	if err != nil {
		m.t.Fatalf("mend: %v", err)
	}
	m.open()
	return done
}
