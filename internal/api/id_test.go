package api_test

import (
	"bytes"
	"math/big"
	"testing"
	"time"

	"sessiond/internal/api"
)

// The text of an ID is its number in base 62, so that it sorts as the bytes do.
func FuzzID(f *testing.F) {
	f.Add(make([]byte, 16))
	f.Add(bytes.Repeat([]byte{255}, 16))
	f.Add([]byte("0123456789abcdef"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != 16 {
			return
		}
		id := api.ID(b)
		text := id.String()
		n := new(big.Int)
		for _, c := range []byte(text) {
			n.Add(n.Mul(n, big.NewInt(62)), big.NewInt(int64(bytes.IndexByte([]byte(api.Base62), c))))
		}
		if got, want := n, new(big.Int).SetBytes(b); got.Cmp(want) != 0 {
			t.Fatalf("%x is written %s, which is the number %x", b, text, got.Bytes())
		}
		if back, err := api.ParseID(text); err != nil || back != id {
			t.Fatalf("ParseID(%s) = %v, %v", text, back, err)
		}
	})
}

func TestParseIDRefusesWhatIsNoID(t *testing.T) {
	for _, text := range []string{"", "0", "000000000000000000000", "00000000000000000000000", "zzzzzzzzzzzzzzzzzzzzzz", "00000000000000000000-0", "7n42DGM5Tflk9n8mt7Fhc8"} {
		if _, err := api.ParseID(text); err == nil {
			t.Errorf("ParseID(%q) is accepted", text)
		}
	}
}

func TestIDsSortByCreation(t *testing.T) {
	at := time.Date(2026, 3, 2, 8, 15, 0, 0, time.UTC)
	early, late := api.NewID(at, [10]byte{255}), api.NewID(at.Add(time.Millisecond), [10]byte{})
	if early.String() >= late.String() {
		t.Errorf("%v does not sort before %v", early, late)
	}
	if got := early.Time(); !got.Equal(at) {
		t.Errorf("Time() = %v, want %v", got, at)
	}
}
