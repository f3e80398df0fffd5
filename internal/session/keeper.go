package session

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/network"
	"sessiond/store"
)

// Keeper creates, checks, alters and ends sessions. Its reads are answered from
// the live table; each of its changes is one commit.
type Keeper struct {
	store    store.Store
	table    *Table
	accounts *account.Directory
	clock    clock.Clock
	random   io.Reader
	config   *config.Holder
	stop     func()

	upkeep    sync.Mutex // held by maintenance
	purging   purging
	oldestEnd atomic.Int64  // no tombstone is of an earlier end; 0: not known
	goesOn    atomic.Uint32 // the shard that EachLiving begins with
	failed    func(error)   // told of commits that the table could not read

	tickets  tickets
	furthest atomic.Int64 // what now returned last
}

// Deps are what a Keeper works with.
type Deps struct {
	Store    store.Store
	Accounts *account.Directory
	Clock    clock.Clock
	Config   *config.Holder
	Random   io.Reader   // for handles and tokens; nil: crypto/rand
	Failed   func(error) // told what the table could not take over; nil: nobody
}

// Open loads the live table and keeps it fed. progress, if not nil, is told how
// many sessions were read.
func Open(ctx context.Context, d Deps, progress func(n int)) (*Keeper, error) {
	k := &Keeper{
		store: d.Store, table: NewTable(d.Accounts.Roles()), accounts: d.Accounts, clock: d.Clock, random: randomOr(d.Random), config: d.Config, failed: d.Failed,
	}
	k.table.now = k.now
	k.purging.retention = k.retention()
	k.table.rates.open(k.now())
	k.Configure(d.Config.Get())
	rev := d.Store.Rev()
	if err := k.load(ctx, progress); err != nil {
		return nil, err
	}
	stop, err := d.Store.Watch(rev, func(c store.Change) {
		rolesChanged, err := k.accounts.Apply(c)
		if rolesChanged {
			k.table.rolesChanged()
		}
		if err := errors.Join(err, k.table.Apply(c)); err != nil && k.failed != nil {
			k.failed(err)
		}
	})
	if err != nil {
		return nil, err
	}
	k.stop = stop
	return k, nil
}

func (k *Keeper) load(ctx context.Context, progress func(n int)) error {
	if err := k.accounts.LoadRoles(ctx); err != nil {
		return err
	}
	k.table.rolesChanged()
	return k.table.Load(ctx, k.store, k.accounts.Note, progress)
}

// Close stops feeding the table. The store stays open.
func (k *Keeper) Close() { k.stop() }

// Configure puts what the table takes from the configuration in force.
func (k *Keeper) Configure(c *config.Config) {
	k.table.SetRealms(c.Realms)
	k.table.accuracy.Store(c.Defaults.LatestAccessSeconds)
	k.table.setLeads(c.ExpiringNoticeSeconds)
}

// Caller is who sent a request: a living session, or an API key.
type Caller struct{ Live }

// IsKey reports whether the caller showed an API key.
func (c *Caller) IsKey() bool { return c.Permanent }

// May reports whether the caller holds a permission. Nobody holds the empty one.
func (c *Caller) May(p account.Permissions) bool { return c.Permissions.Has(p) }

// Authenticate returns whose token this is. Whatever is wrong with a token looks
// the same. With touch, the use counts against the idle time.
func (k *Keeper) Authenticate(token string, touch bool) (Caller, bool) {
	live, _, ok := k.check(k.now(), token, touch, false, nil)
	return Caller{live}, ok
}

// Present returns a caller as he is now; ok is false if his session lives no longer.
func (k *Keeper) Present(h api.ID) (c Caller, ok bool) {
	c.Live, _, ok = k.table.look(proof{handle: h, now: k.now()}, nil)
	return c, ok
}

// Check returns the session whose token this is, and appends to dst what
// validate answers about its account: members of a JSON object, each with a
// comma before it.
func (k *Keeper) Check(now int64, token string, touch bool, dst []byte) (Live, []byte, bool) {
	return k.check(k.at(now), token, touch, true, dst)
}

func (k *Keeper) check(now int64, token string, touch, who bool, dst []byte) (Live, []byte, bool) {
	h, ok := Locate(token)
	if !ok {
		return Live{}, dst, false
	}
	sum := hashOf(token)
	return k.table.look(proof{handle: h, hash: &sum, who: who, touch: touch, now: now}, dst)
}

// Touch counts a use of a living session against its idle time.
func (k *Keeper) Touch(h api.ID) { k.TouchAt(k.now(), h) }

// TouchAt is Touch for a moment, in Unix seconds, that the caller has just been
// told by the clock.
func (k *Keeper) TouchAt(now int64, h api.ID) {
	now = k.at(now)
	k.table.withEntry(h, func(e *entry) {
		if !k.table.expired(e, now) && atomic.LoadUint32(&e.overlay)&isDying == 0 && k.table.inForce(e) {
			k.table.touch(e, uint32(now)) //nolint:gosec // until 2106
		}
	})
}

// AllowsFrom reports whether a caller's account may be used from an address.
func (k *Keeper) AllowsFrom(c *Caller, from netip.Addr) bool {
	from = network.Clean(from)
	return !c.Fenced || slices.ContainsFunc(k.table.fence(c.Handle), func(p netip.Prefix) bool { return p.Contains(from) })
}

// Roles returns the roles that a caller holds at this moment, frozen or not.
func (k *Keeper) Roles(c *Caller) []*account.Role { return k.table.liveRoles(c.Handle) }

// Patterns returns the patterns of the permissions that a caller's roles give,
// those of applications among them, at this moment, frozen or not. What is the
// server's own he may hold no more of than Caller.Permissions says.
func (k *Keeper) Patterns(c *Caller) []string {
	return account.Patterns(k.table.liveRoles(c.Handle))
}

// Actor returns a caller as events name it.
func (k *Keeper) Actor(c *Caller) event.Actor {
	realm, username := k.table.name(c.Handle)
	return event.Actor{SessionHandle: HandleText(c.Handle), Realm: realm, Username: username}
}

// Realms returns the names of all realms that have sessions, or may have: those of
// the configuration, and those that it no longer names.
func (k *Keeper) Realms() []string {
	var names []string
	for _, r := range *k.table.realms.Load() {
		names = append(names, r.name)
	}
	return names
}

// Count returns how many sessions live.
func (k *Keeper) Count() int64 { return k.table.Count(k.now()) }

// now returns the present second.
func (k *Keeper) now() int64 { return k.at(k.clock.Now().Unix()) }

// sure returns the second that has surely come: what is forgotten for good goes by it.
func (k *Keeper) sure() int64 {
	now := k.now() // first: the clock may leap in between
	return now - int64((clock.Doubt(k.clock)+time.Second-1)/time.Second)
}

// at returns the later of a moment and the latest that it has returned. Time never
// goes back here, whatever the clock does: a session that was dead once does not
// live again.
func (k *Keeper) at(now int64) int64 {
	for last := k.furthest.Load(); last < now; last = k.furthest.Load() {
		if k.furthest.CompareAndSwap(last, now) {
			return now
		}
	}
	return k.furthest.Load()
}

// View is a session in full: its record, with what is more recent in the table.
type View struct {
	*Record
	Live       bool  // the session lives
	IdleAt     int64 // when its idle time is over; 0 never
	MaxAt      int64 // the lifetime's wall; 0 none
	Roles      []string
	RealmRoles []string
	Abandoned  bool // it expired, and its time to be abandoned has come
	Repeated   bool // from Create: it was there already, and has a new token
}

// Status returns where the session stands.
func (v *View) Status() Status {
	switch {
	case v.Live:
		return Active
	case v.Abandoned:
		return Abandoned
	}
	return v.End.Status
}

// RolesMode says whose changes of roles the session sees.
func (v *View) RolesMode() string {
	if v.Frozen != nil && !v.Frozen.Ceiling {
		return config.FrozenRoles
	}
	return config.LiveRoles
}

// view completes a living session with its record. A session that ended
// meanwhile is not there.
func (k *Keeper) view(ctx context.Context, h api.ID) (View, bool, error) {
	r, _, err := k.read(ctx, h)
	if errors.Is(err, store.ErrNotFound) {
		return View{}, false, nil
	}
	if err != nil {
		return View{}, false, err
	}
	v, ok := k.complete(r)
	return v, ok, nil
}

// complete adds to a record what the table knows better. ok is false if the
// session lives no longer.
func (k *Keeper) complete(r *Record) (v View, ok bool) {
	live, _, ok := k.table.look(proof{handle: r.Handle, now: k.now()}, nil)
	if !ok {
		return View{}, false
	}
	r.LastAccess = live.LastAccess
	v = View{Record: r, Live: true, IdleAt: live.IdleAt, MaxAt: live.MaxAt}
	if holds, ok := k.table.rights(r.Handle); ok {
		v.Roles, v.RealmRoles = holds.list()
	}
	return v, true
}

// Get returns a session, living or ended. An error wraps store.ErrNotFound for
// a handle that names none, or none any more.
func (k *Keeper) Get(ctx context.Context, h api.ID) (View, error) {
	if _, _, ok := k.table.look(proof{handle: h, now: k.now()}, nil); ok {
		if v, ok, err := k.view(ctx, h); ok || err != nil {
			return v, err
		}
	}
	v, err := k.past(ctx, h)
	if errors.Is(err, store.ErrNotFound) {
		if v, err = k.unfolded(ctx, h); errors.Is(err, store.ErrNotFound) {
			return k.past(ctx, h) // folded between the two looks, perhaps
		}
	}
	return v, err
}

// past returns a session's tombstone.
func (k *Keeper) past(ctx context.Context, h api.ID) (View, error) {
	item, err := k.store.Get(ctx, pastKey(h))
	if err != nil {
		return View{}, err
	}
	r, err := decodeRecord(h, item.Value)
	if err != nil {
		return View{}, err
	}
	return k.ended(r), nil
}

// unfolded returns a session that is dead but has no tombstone yet.
func (k *Keeper) unfolded(ctx context.Context, h api.ID) (View, error) {
	r, _, err := k.read(ctx, h)
	if err != nil {
		return View{}, err
	}
	item, err := k.store.Get(ctx, endKey(h))
	switch {
	case err == nil:
		r.End, err = decodeEnd(item.Value)
		r.settleEnd()
	case errors.Is(err, store.ErrNotFound):
		if r.End, err = k.endOf(ctx, r); err == nil && r.End == (End{}) {
			r.End = End{Status: Ended, At: k.now()} // its end is under way, or could not be written
			if k.table.isStolen(h) {
				r.End.Status, r.End.Reason = Revoked, ReasonTokenTheft
			}
		}
	}
	if err != nil {
		return View{}, err
	}
	return k.ended(r), nil
}

// ended is the view of a session that has ended.
func (k *Keeper) ended(r *Record) View {
	abandoned := r.AbandonAt()
	return View{Record: r, Abandoned: r.End.Status == Expired && abandoned != 0 && abandoned <= k.now()}
}

// read returns a session's record and its revision.
func (k *Keeper) read(ctx context.Context, h api.ID) (*Record, store.Rev, error) {
	item, err := k.store.Get(ctx, liveKey(h))
	if err != nil {
		return nil, 0, err
	}
	r, err := decodeRecord(h, item.Value)
	return r, item.Rev, err
}

// OfAccount returns an account's living sessions, oldest first.
func (k *Keeper) OfAccount(id api.ID) []Live { return k.table.ofAccount(id, false, k.now()) }

// Views returns living sessions in full. Those that ended meanwhile are left out.
func (k *Keeper) Views(ctx context.Context, live []Live) ([]View, error) {
	views := make([]View, 0, len(live))
	for i := range live {
		v, ok, err := k.view(ctx, live[i].Handle)
		if err != nil {
			return nil, err
		}
		if ok {
			views = append(views, v)
		}
	}
	return views, nil
}

// Sort orders sessions by creation, the oldest first.
func Sort(live []Live) {
	slices.SortFunc(live, func(a, b Live) int { return cmp.Compare(string(a.Handle[:]), string(b.Handle[:])) })
}

// CursorSeconds returns for how long the cursors of a session's listings are good.
func (k *Keeper) CursorSeconds(ctx context.Context, h api.ID) (int64, error) {
	r, _, err := k.read(ctx, h)
	if err != nil {
		return 0, err
	}
	return r.CursorSeconds, nil
}

// Accuracy returns how many seconds of the last access of a session with the
// given idle time a crash may lose.
func (k *Keeper) Accuracy(idleSeconds int64) int64 {
	return int64(k.table.period(uint32(idleSeconds))) //nolint:gosec // bounded when it was set
}

// addressFor returns what a session counts by: the zero address when it counts
// nowhere.
func addressFor(a netip.Addr, permanent bool) netip.Addr {
	if permanent {
		return netip.Addr{}
	}
	return a
}
