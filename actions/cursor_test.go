package actions

import (
	"testing"

	"sessiond/internal/api"
)

// A cursor is written in one way only, and is that of one listing.
func FuzzCursor(f *testing.F) {
	const listing = "host\x00created\x00all"
	k := cursor{given: 1_772_439_340, now: 7, at: position{handle: api.ID{1, 15: 2}, key: "alice"}}
	f.Add(k.text(listing), listing)
	f.Add(k.text("another"), listing)
	f.Add(k.text(listing)[:10]+"\n"+k.text(listing)[10:], listing)
	f.Add((&cursor{}).text(listing), listing)
	f.Add("", "")
	f.Fuzz(func(t *testing.T, text, listing string) {
		k, ok := parseCursor(text, listing)
		if !ok {
			return
		}
		if again := k.text(listing); again != text {
			t.Errorf("%q is written %q", text, again)
		}
		if _, ok := parseCursor(text, listing+"x"); ok {
			t.Errorf("%q is good for another listing", text)
		}
		if k.goodAt(k.given-1, 600) || !k.goodAt(k.given, 0) {
			t.Errorf("%+v is good before it was given, or not when it was", k)
		}
	})
}
