package bolt

import (
	"math/rand/v2"
	"testing"
)

// Ranges hold what was added to them, and nothing else.
func TestRanges(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var r ranges
		var want [256]bool
		for range 1 + random.IntN(20) {
			low := random.IntN(250)
			high := low + 1 + random.IntN(min(40, 255-low))
			r = r.with(bounds{[]byte{byte(low)}, []byte{byte(high)}})
			for i := low; i < high; i++ {
				want[i] = true
			}
		}
		for i := range want {
			if key := []byte{byte(i)}; r.has(key) != want[i] {
				t.Fatalf("%v has %d: %t, want %t", r, i, r.has(key), want[i])
			}
		}
		for i := range r[1:] {
			if string(r[i].high) >= string(r[i+1].low) {
				t.Fatalf("%v touch", r)
			}
		}
	}
}
