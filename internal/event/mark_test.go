package event_test

import (
	"errors"
	"testing"
	"time"

	"sessiond/internal/event"
	"sessiond/store"
	"sessiond/store/mem"
)

// The mark is the latest of what was noted and of what the last events say; what
// stands before a clock that was accepted counts no more.
func TestMark(t *testing.T) {
	at := func(hours int) event.Event {
		return event.Event{Kind: event.SessionCreated, Time: morning.Add(time.Duration(hours) * time.Hour)}
	}
	accepted := at(0)
	accepted.Kind = event.ClockAccepted
	for _, tt := range []struct {
		name   string
		events []event.Event
		kept   time.Duration // after the morning; 0: nothing is kept
		want   time.Duration // -1: there is none
	}{
		{"nothing", nil, 0, -1},
		{"an event", []event.Event{at(1)}, 0, time.Hour},
		{"events in disorder", []event.Event{at(1), at(3), at(2)}, 0, 3 * time.Hour},
		{"a note", nil, time.Hour, time.Hour},
		{"a later note", []event.Event{at(1)}, 2 * time.Hour, 2 * time.Hour},
		{"an earlier note", []event.Event{at(2)}, time.Hour, 2 * time.Hour},
		{"before a clock was accepted", []event.Event{at(99), accepted, at(1)}, 0, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := logOf(t, tt.events...)
			if tt.kept > 0 {
				if err := event.KeepMark(t.Context(), s, morning.Add(tt.kept)); err != nil {
					t.Fatal(err)
				}
			}
			got, err := event.Mark(t.Context(), s)
			if want := morning.Add(tt.want); err != nil || tt.want >= 0 && !got.Equal(want) || tt.want < 0 && !got.IsZero() {
				t.Errorf("the mark is %v, %v, want %v", got, err, want)
			}
		})
	}
}

// A note never moves back but where a clock is accepted, and is exact.
func TestKeepMark(t *testing.T) {
	s := mem.New()
	kept := morning.Add(time.Hour + time.Nanosecond)
	for _, told := range []time.Time{morning, kept, morning.Add(time.Minute)} {
		if err := event.KeepMark(t.Context(), s, told); err != nil {
			t.Fatal(err)
		}
	}
	rev := s.Rev()
	if err := event.KeepMark(t.Context(), s, kept); err != nil || s.Rev() != rev {
		t.Errorf("what is kept already is written again: %v", err)
	}
	if got, err := event.Mark(t.Context(), s); err != nil || !got.Equal(kept) {
		t.Errorf("the mark is %v, %v, want %v", got, err, kept)
	}
	if err := event.AcceptClock(t.Context(), s, morning); err != nil {
		t.Fatal(err)
	}
	if got, err := event.Mark(t.Context(), s); err != nil || !got.Equal(morning) {
		t.Errorf("after another clock was accepted the mark is %v, %v, want %v", got, err, morning)
	}
}

func TestADamagedMarkIsAnError(t *testing.T) {
	s := mem.New()
	if _, err := s.Commit(t.Context(), store.Tx{Put: []store.Put{{Key: event.MarkKey, Value: []byte("noon")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := event.Mark(t.Context(), s); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("the mark: %v", err)
	}
	if err := event.KeepMark(t.Context(), s, morning); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("to keep another one: %v", err)
	}
}
