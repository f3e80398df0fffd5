package dispatch_test

import (
	"bytes"
	"testing"
	"testing/synctest"

	"sessiond/dispatch"
)

// So many may watch, half of the connections that there may be, and one more is
// refused at once.
func TestTooManyWatch(t *testing.T) {
	const places = 5_000
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		for range 2 { // the places are given back
			for range places {
				r.send("hold", dispatch.Watching)
			}
			synctest.Wait()
			if in := r.inside.Load(); in != places {
				t.Fatalf("%d watch, want %d", in, places)
			}
			if a := r.ask("pass", dispatch.Watching); a.Status != 503 || !bytes.Contains(a.Body, []byte("too many watches are under way")) {
				t.Errorf("one more is answered %d: %s", a.Status, a.Body)
			}
			r.release(places)
		}
	})
}
