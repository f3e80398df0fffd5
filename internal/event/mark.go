package event

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sessiond/store"
)

// markKey holds the time that has been told, as text. The last events say so too,
// most often better.
const markKey = "server/clock"

// markEvents is how many of the last events are looked at: their times are in
// disorder.
const markEvents = 100

// Mark returns the latest time that the processes which used a store are known to
// have told; zero for a store that none has used.
func Mark(ctx context.Context, s store.Store) (time.Time, error) {
	mark, _, err := readMark(ctx, s)
	if err != nil {
		return time.Time{}, err
	}
	entries, err := store.ReadLogBack(ctx, s, 0, markEvents)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the time of the last events: %w", err)
	}
	for _, entry := range entries {
		e, err := Decode(entry)
		if err != nil {
			return time.Time{}, err
		}
		if e.Time.After(mark) {
			mark = e.Time
		}
		if e.Kind == ClockAccepted {
			break
		}
	}
	return mark, nil
}

// KeepMark notes the time that has been told. It never moves back.
func KeepMark(ctx context.Context, s store.Store, told time.Time) error {
	err := store.Retry(func() error {
		before, rev, err := readMark(ctx, s)
		if err != nil || !told.After(before) {
			return err
		}
		_, err = s.Commit(ctx, store.Tx{If: []store.Cond{{Key: markKey, Rev: rev}}, Put: []store.Put{putMark(told)}})
		return err
	})
	if err != nil {
		return fmt.Errorf("keep the time: %w", err)
	}
	return nil
}

// AcceptClock notes that time has gone back to now, because the machine's clock was
// accepted, and says so in the log.
func AcceptClock(ctx context.Context, s store.Store, now time.Time) error {
	tx := store.Tx{Put: []store.Put{putMark(now)}}
	Append(&tx, Event{Time: now, Kind: ClockAccepted})
	if _, err := s.Commit(ctx, tx); err != nil {
		return fmt.Errorf("accept the machine's clock: %w", err)
	}
	return nil
}

func putMark(told time.Time) store.Put {
	return store.Put{Key: markKey, Value: told.UTC().AppendFormat(nil, time.RFC3339Nano)}
}

// readMark returns the time that was noted, and the revision of the note.
func readMark(ctx context.Context, s store.Store) (time.Time, store.Rev, error) {
	item, err := s.Get(ctx, markKey)
	if errors.Is(err, store.ErrNotFound) {
		return time.Time{}, 0, nil
	}
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("read the time: %w", err)
	}
	told, err := time.Parse(time.RFC3339Nano, string(item.Value))
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("%w: the time that was told", store.ErrCorrupt)
	}
	return told, item.Rev, nil
}
