package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sessiond/actions"
	"sessiond/internal/clock"
	"sessiond/internal/event"
	"sessiond/internal/logging"
	"sessiond/store"
)

// resume has the time go on where it was when the store was used last. It reports
// whether the time goes back, which it does only if that was asked for.
func resume(ctx context.Context, st store.Store, system *clock.System, accept bool) (wentBack bool, err error) {
	mark, err := event.Mark(ctx, st)
	if err != nil {
		return false, err
	}
	wentBack, err = system.Resume(mark, accept)
	if err != nil {
		return false, fmt.Errorf("%w: nothing was changed; set the clock right, or believe it with serve --accept-clock, which revives what has expired since and was not removed yet", err)
	}
	if wentBack { // so that a start which is cut short finds it as it is now
		err = event.KeepMark(ctx, st, mark)
	}
	return wentBack, err
}

// furthest returns the time for what is done to a store while no server runs: the
// machine's, or the latest that was told over the store, or elsewhere.
func furthest(ctx context.Context, st store.Store, told ...time.Time) (time.Time, error) {
	mark, err := event.Mark(ctx, st)
	return slices.MaxFunc(append(told, mark, clock.NewSystem().Now()), time.Time.Compare), err
}

// goBack ends what would live too long now that the time has gone back, and notes
// that it has.
func goBack(ctx context.Context, s *server, st store.Store, now time.Time, log *logging.Logger) error {
	ended, err := s.sessions.EndAhead(ctx)
	if err == nil {
		err = event.AcceptClock(ctx, st, now)
	}
	if err == nil {
		log.Warn("the machine's clock is believed, though the data was in use until later", logging.Int("sessionsEnded", ended))
	}
	return err
}

// watchClock tells of what is done to the machine's clock, until ctx ends.
func watchClock(ctx context.Context, system *clock.System, record actions.EventWriter, log *logging.Logger) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-second.C:
			for _, step := range system.Steps() {
				tell(ctx, step, system.Now(), record, log)
			}
		}
	}
}

// tell logs a step of the machine's clock, and one ahead in the log of changes too.
func tell(ctx context.Context, step clock.Step, now time.Time, record actions.EventWriter, log *logging.Logger) {
	if step.By < 0 {
		log.Warn("the machine's clock is behind the time that was told, which goes on from there; restart with --accept-clock if the machine's is right",
			logging.Str("behind", (-step.By).Round(time.Second).String()))
		return
	}
	log.Warn("the machine's clock leapt ahead: what has expired by it is dead, but is not removed for ten minutes; if it is wrong, set it right and restart with --accept-clock",
		logging.Str("ahead", step.By.Round(time.Second).String()))
	err := record(ctx, event.Event{Time: now, Kind: event.ClockJumped, Reason: step.By.Round(time.Second).String() + " ahead"})
	if err != nil {
		log.Error("the leap of the clock is not in the log of changes", logging.Err(err))
	}
}
