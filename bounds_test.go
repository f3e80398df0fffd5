package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sessiond/store/mem"
)

// TestMetadataAtItsBounds: what applications keep with an account is 65,500 bytes
// as JSON, kept to the byte; one more is refused and changes nothing.
func TestMetadataAtItsBounds(t *testing.T) {
	const most = 65_500
	s, err := newStage(t.Context(), props{store: mem.New(), hasher: cheapHasher(t), logins: []string{"admin"}})
	if err != nil {
		t.Fatal(err)
	}
	frame := `{"a":{"n":12345678901234567890.10,"s":""}}`
	kept := strings.Replace(frame, `""`, `"`+strings.Repeat("é", 10)+strings.Repeat("x", most-len(frame)-20)+`"`, 1)
	for i, change := range []struct{ action, member, metadata, want, keeps string }{
		{"alterAccount", "metadata", kept, "0", kept},
		{"alterAccount", "metadata", strings.Replace(kept, "x", "xx", 1), "21006", kept},
		{"cloneAccount", "cloneMetadata", strings.Replace(kept, "x", "xx", 1), "21006", kept},
		{"createAccount", "metadata", strings.Replace(kept, "x", "xx", 1), "21006", kept},
		{"alterAccount", "metadata", `{}`, "0", `{}`},
	} {
		if len(kept) != most {
			t.Fatalf("%d bytes", len(kept))
		}
		who := map[string]string{
			"alterAccount": `"username":"bob"`, "cloneAccount": `"sourceUsername":"bob","cloneUsername":"carol","clonePassword":"${password}"`,
			"createAccount": `"username":"carol","password":"${password}"`,
		}[change.action]
		got, err := s.cell(t.Context(), "admin", change.action, fmt.Sprintf(`{%s,%q:%s}`, who, change.member, change.metadata))
		if err != nil || got != change.want {
			t.Errorf("%d %s: %s, %v, want %s", i, change.action, got, err, change.want)
		}
		shown, err := s.ask(t.Context(), &step{Request: json.RawMessage(`{"action":"describeAccounts","params":{"usernames":["bob","carol"]},"authToken":"${token:admin}"}`)}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(shown.raw), `"metadata":`+change.keeps+`,`) || strings.Contains(string(shown.raw), `"carol"`) {
			t.Errorf("%d %s: bob's metadata is not what it was, or carol is there", i, change.action)
		}
	}
}
