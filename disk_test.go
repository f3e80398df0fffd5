package main

import (
	"strings"
	"testing"
	"time"

	"sessiond/internal/logging"
	"sessiond/store"
	"sessiond/store/bolt"
)

// Who has used up storage.maxBytes has room on the disk, and must not look there alone.
func TestTheLogSaysWhatMayBeFull(t *testing.T) {
	var out strings.Builder
	log := logging.New(&out, "info", logging.JSON, time.Now)
	logReport(log, bolt.Report{Condition: bolt.Full, Cause: store.ErrFull})
	if want := "the disk, a quota or storage.maxBytes is full: "; !strings.Contains(out.String(), want) {
		t.Errorf("%q is missing in %s", want, &out)
	}
}
