package account

import (
	"strings"
	"testing"

	"sessiond/internal/api"
)

func TestCheckPassword(t *testing.T) {
	for _, tt := range []struct {
		why, username, password string
		ok                      bool
	}{
		{"15 characters", "alice", "correct horse b", true},
		{"15 characters of more bytes", "alice", "fünf müde Bären", true},
		{"a wide space counts", "alice", "correct\u3000horse b", true},
		{"small letters alone are no composition rule", "alice", "qhfkzmtwpbvxnrc", true},
		{"digits alone are no composition rule", "alice", "830274619305826", true},
		{"1,024 bytes", "alice", "correct horse battery " + strings.Repeat("x", 1002), true},

		{"14 characters", "alice", "correct horse ", false},
		{"14 characters of more bytes", "alice", strings.Repeat("ä", 14), false},
		{"14 once composed", "alice", strings.Repeat("a", 13) + "e\u0301", false},
		{"empty", "alice", "", false},
		{"1,025 bytes", "alice", "correct horse battery " + strings.Repeat("x", 1003), false},
		{"a control character", "alice", "correct horse\nbattery", false},
		{"NUL", "alice", "correct horse\x00battery", false},
		{"no UTF-8", "alice", "correct horse \xff battery", false},
		{"the user name", "alice.liddell.1865", "alice.liddell.1865", false},
		{"the user name in other letters", "alice.liddell.1865", "Alice.Liddell.1865", false},
		{"a common one", "alice", "highschoolmusical", false},
		{"the user name in full width", "alice.liddell.1865", "ａｌｉｃｅ.ｌｉｄｄｅｌｌ.1865", false},
	} {
		prepared, refusal := PasswordPolicy{}.Check("", tt.username, api.NewSecret(tt.password))
		if (refusal == nil) != tt.ok || prepared.IsZero() == tt.ok {
			t.Errorf("%s: prepared %t, refusal %v; want it accepted: %t", tt.why, !prepared.IsZero(), refusal, tt.ok)
			continue
		}
		if refusal == nil {
			continue
		}
		if refusal.Code != api.PasswordPolicy {
			t.Errorf("%s: code %d, want %d", tt.why, refusal.Code, api.PasswordPolicy)
		}
		if tt.password != "" && strings.Contains(refusal.Error(), tt.password) {
			t.Errorf("%s: the refusal quotes the password", tt.why)
		}
	}
}

// A password is hashed in one form, however often it was prepared before.
func FuzzPrepare(f *testing.F) {
	for _, seed := range []string{"correct horse battery", "a\u00a0b", "e\u0301", "\u1100\u1161", "\u0344", "\xff", "ﬁ"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		once, err := prepare(api.NewSecret(typed))
		if err != nil {
			return
		}
		if twice, err := prepare(once); err != nil || twice != once {
			t.Fatalf("%q is prepared to %q, then to %q, %v", typed, once.Reveal(), twice.Reveal(), err)
		}
		if len(once.Reveal()) > MaxPassword {
			t.Fatalf("%q is prepared to %d bytes", typed, len(once.Reveal()))
		}
	})
}
