package event

import (
	"fmt"
	"time"

	"sessiond/internal/wire"
	"sessiond/store"
)

// Append adds e to what tx will append to the log, its time to the millisecond.
func Append(tx *store.Tx, e Event) error {
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	data, err := wire.Marshal(&e)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	tx.Append = append(tx.Append, data)
	return nil
}

// Decode reads an entry of the log back.
func Decode(entry store.Entry) (Event, error) {
	var e Event
	if err := wire.Unmarshal(entry.Data, &e); err != nil {
		return Event{}, fmt.Errorf("decode event %d: %w", entry.Seq, err)
	}
	return e, nil
}
