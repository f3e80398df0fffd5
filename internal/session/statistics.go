package session

import "context"

// Statistics say how many sessions there are, and what became of them. They cost
// the same whatever that number is: what is counted is kept as it changes, but for
// the census, which is taken so seldom that it costs a hundredth of a processor.
type Statistics struct {
	Living RealmCount // of the server
	Taken  int64      // places of the server's limit: the living, and those that are being created
	Realms []RealmCount

	Tombstones Tally
	Waiting    int64 // dead sessions that have no tombstone yet

	Since                         int64 // Unix seconds: nothing before counts below
	LastMinute, LastHour, LastDay Happened

	Census
}

// RealmCount is how many sessions live in a realm.
type RealmCount struct {
	Realm     string
	Sessions  int64
	Permanent int64 // of them
}

// Statistics returns how many sessions there are, and what became of them. An error
// is that of ctx.
func (k *Keeper) Statistics(ctx context.Context) (Statistics, error) {
	c, err := k.census(ctx)
	if err != nil {
		return Statistics{}, err
	}
	now := k.now()
	s := k.table.statistics(now)
	s.Census, s.Since = *c, k.table.rates.since
	windows := k.table.rates.last(now)
	s.LastMinute, s.LastHour, s.LastDay = windows[0], windows[1], windows[2]
	return s, nil
}

// statistics returns what the table counts all the time.
func (t *Table) statistics(now int64) (s Statistics) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	s.Living = t.server.count("")
	s.Taken = t.server.living + int64(len(t.limits.reserved))
	for _, r := range *t.realms.Load() {
		s.Realms = append(s.Realms, r.generation.count(r.name))
	}
	s.Tombstones = t.tombstones.of
	s.Waiting = int64(t.live) - t.server.living + t.unfolded
	return s
}

func (g *generation) count(name string) RealmCount { return RealmCount{name, g.living, g.keys} }
