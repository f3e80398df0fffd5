package main

import (
	"time"

	"sessiond/internal/api"
	"sessiond/internal/logging"
	"sessiond/store"
	"sessiond/store/bolt"
)

// logReport tells an operator what the store can do no longer, or can again.
func logReport(log *logging.Logger, r bolt.Report) {
	switch r.Condition {
	case bolt.Full:
		log.Error("the disk, a quota or storage.maxBytes is full: sessions can be ended and validated, all else is refused until there is room", logging.Err(r.Cause))
	case bolt.Resumed:
		log.Info("there is room on the disk again: all is written again")
	case bolt.Stopped:
		log.Error("the disk has failed and nothing is written any more: sessions are still validated; see to the disk, then start the server again", logging.Err(r.Cause))
	case bolt.Slow:
		log.Warn("the disk is slow", logging.Str("commit", r.Took.Round(time.Millisecond).String()), logging.Int("waiting", int64(r.Waiting)))
	case bolt.Copied:
		log.Warn("the disk had failed: all data was found sound, and was written into a new file")
	}
}

// readiness says why the server should get no traffic.
func readiness(st store.Store) error {
	disk, ok := st.(*bolt.Store)
	if !ok {
		return nil
	}
	if err := disk.Failed(); err != nil {
		return api.Errorf(api.StorageFailed, "writing has stopped").Because(err)
	}
	if err := disk.Full(); err != nil {
		return api.Errorf(api.StorageFull, "the disk is full").Because(err)
	}
	return nil
}
