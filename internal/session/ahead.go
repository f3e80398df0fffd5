package session

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"sessiond/internal/api"
	"sessiond/internal/event"
)

// aheadAtOnce is how many sessions EndAhead ends in one go.
const aheadAtOnce = 1000

// EndAhead ends the sessions that got their times from a clock which was ahead of the
// present one, and would live longer for it: those with a lifetime that were created
// later than now, and those with an idle time that were used later. It returns how
// many there were. It is for a start at which time goes back.
func (k *Keeper) EndAhead(ctx context.Context) (int, error) {
	ahead := k.table.ahead(k.now())
	for some := range slices.Chunk(ahead, aheadAtOnce) {
		if _, err := k.EndAll(ctx, some, k.NewEnd(Revoked, ReasonClockAccepted, nil), event.Actor{}); err != nil {
			return 0, fmt.Errorf("end the sessions of a clock that was ahead: %w", err)
		}
	}
	return len(ahead), nil
}

func (t *Table) ahead(now int64) (handles []api.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := uint32(1); n <= t.entries.next; n++ {
		e := t.entry(n)
		used := max(e.created, atomic.LoadUint32(&e.touched))
		if !e.handle.IsZero() && (e.maxAt != 0 && int64(e.created) > now || e.idle != 0 && int64(used) > now) {
			handles = append(handles, e.handle)
		}
	}
	return handles
}
