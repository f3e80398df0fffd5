package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"sessiond/internal/clock"
	"sessiond/internal/event"
	"sessiond/store"
)

// Why a log-in failed: for the event, never for the client.
const (
	reasonUnknown   = "unknownAccount"
	reasonPassword  = "wrongPassword"
	reasonDisabled  = "disabledAccount"
	reasonOneTime   = "oneTimePasswordExpired"
	reasonInactive  = "inactiveAccount"
	reasonAddress   = "addressNotAllowed"
	reasonThrottled = "throttled"
	reasonOthers    = "others"
)

const (
	maxFailures    = 1000 // different failures between two flushes; the rest is summed up
	failuresAtOnce = 50   // events of one commit
)

// failure is what failed log-ins are summed up by. Of an account that does not
// exist there is no name: people type passwords there.
type failure struct {
	reason  string
	realm   string
	key     string // of the account's record, "" if there is none
	address netip.Addr
}

// failureLog sums up failed log-ins until they are written as events, so that a
// flood of them costs the store little and memory a fixed amount.
type failureLog struct {
	mu     sync.Mutex
	counts map[failure]int64
}

func newFailureLog() *failureLog { return &failureLog{counts: make(map[failure]int64)} }

func (l *failureLog) add(f failure, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.counts[f]; !known && len(l.counts) >= maxFailures {
		f = failure{reason: reasonOthers}
	}
	l.counts[f] += n
}

func (l *failureLog) take() map[failure]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := l.counts
	l.counts = make(map[failure]int64)
	return counts
}

// flush appends an event for each sum, in commits of failuresAtOnce. What was
// not written is kept for the next time; where the outcome is unknown it is not,
// so that no failure is counted twice.
func (l *failureLog) flush(ctx context.Context, s store.Store, c clock.Clock) error {
	counts := l.take()
	order := slices.SortedFunc(maps.Keys(counts), func(a, b failure) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a.realm, b.realm), cmp.Compare(a.key, b.key), a.address.Compare(b.address), cmp.Compare(a.reason, b.reason))
	})
	var errs []error
	for part := range slices.Chunk(order, failuresAtOnce) {
		written, err := commitFailures(ctx, s, c, part, counts)
		if err != nil {
			errs = append(errs, fmt.Errorf("account: write failed log-ins: %w", err))
		}
		if written {
			continue
		}
		for _, f := range part {
			l.add(f, counts[f])
		}
	}
	return errors.Join(errs...)
}

// commitFailures reports whether the events may have been written.
func commitFailures(ctx context.Context, s store.Store, c clock.Clock, part []failure, counts map[failure]int64) (written bool, err error) {
	var tx store.Tx
	for _, f := range part {
		e := event.Event{Time: c.Now(), Kind: event.LoginFailed, Realm: f.realm, Reason: f.reason, Count: counts[f]}
		if f.address.IsValid() {
			e.ClientIPAddress = f.address.String()
		}
		if f.key != "" {
			if err := name(ctx, s, f.key, &e); err != nil {
				return false, err
			}
		}
		event.Append(&tx, e)
	}
	if _, err := s.Commit(ctx, tx); err != nil {
		return !store.NotApplied(err), err
	}
	return true, nil
}

// name says in e which account it is about, unless that was dropped meanwhile
// or cannot be read: the failures are worth telling all the same.
func name(ctx context.Context, s store.Store, key string, e *event.Event) error {
	item, err := s.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if a, err := Decode(item); err == nil && !a.Dropped {
		e.AccountID, e.Username = a.ID.String(), a.Username
	}
	return nil
}
