package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sessiond/internal/api"
	"sessiond/store/mem"
)

// Where answers that nobody reads fill the memory, a large one is taken back, or not
// even made: but never one that tells of a change, nor what gateways ask all the time.
func TestAnswersThatFindNoRoom(t *testing.T) {
	const (
		ok, full = 0, int(api.Overloaded)
		all      = 1 << 30
	)
	batch := func(n int, one string) string { return "[" + strings.Repeat(one+",", n-1) + one + "]" }
	const (
		catalogue = `{"action":"listActions"%s}`
		operator  = `,"authToken":"${token:operator}"`
		check     = `{"action":"validate","authToken":"${token:gateway}","params":{"tokenId":"${token:alice}"}}`
		login     = `{"action":"createSession","params":{"username":"bob","password":"${password}"}}`
		ping      = `{"action":"pingSession","debug":"max"}`
		nonsense  = `{"action":"x","debug":"max"}`
	)
	for _, tt := range []struct {
		what             string
		body             string
		strangers, known int // bytes that there is room for, beyond small answers
		want             []int
	}{
		{"a large answer", fmt.Sprintf(catalogue, ""), all, all, []int{ok}},
		{"a large answer to a stranger", fmt.Sprintf(catalogue, ""), 0, all, []int{full}},
		{"a large answer to who is known", fmt.Sprintf(catalogue, operator), 0, all, []int{ok}},
		{"a large answer to who is known, and no room", fmt.Sprintf(catalogue, operator), 0, 0, []int{full}},
		{"a failure with a large request in it", fmt.Sprintf(catalogue, `,"debug":"max","params":{"x":"`+strings.Repeat("x", 20_000)+`"}`), 0, 0, []int{full}},
		{"a small listing", `{"action":"listSessions","authToken":"${token:operator}"}`, 0, 0, []int{ok}},
		{"a check", check, 0, 0, []int{ok}},
		{"a log-in", login, 0, 0, []int{ok}},

		{"large and small ones", "[" + fmt.Sprintf(catalogue, "") + "," + check + "," + fmt.Sprintf(catalogue, operator) + "]", 0, 0, []int{full, ok, full}},
		{"large ones, and room for one", "[" + batch(2, fmt.Sprintf(catalogue, operator))[1:], 0, 300 << 10, []int{ok, full}},
		{"many checks", batch(100, check), 0, 0, slices.Repeat([]int{ok}, 100)},
		{"many log-ins", batch(100, login), 0, 0, slices.Repeat([]int{ok}, 100)},
		{"many questions of a stranger", batch(100, ping), 0, all, append(slices.Repeat([]int{ok}, 39), slices.Repeat([]int{full}, 61)...)},
		{"much nonsense", batch(100, nonsense), 0, all, append(slices.Repeat([]int{int(api.UnknownAction)}, 32), slices.Repeat([]int{full}, 68)...)},
	} {
		t.Run(tt.what, func(t *testing.T) {
			s, err := newStage(t.Context(), props{store: mem.New(), hasher: cheapHasher(t), logins: []string{"operator", "alice", "gateway"}, config: `{
			  "jsonActionApiDefaults": {"maxJsonApiSessions": 0, "maxJsonApiSessionsPerUsername": 0, "maxJsonApiSessionsPerIpAddress": 0}}`})
			if err != nil {
				t.Fatal(err)
			}
			defer s.sessions.Close()
			body, err := s.fill(tt.body)
			if err != nil {
				t.Fatal(err)
			}
			a := s.dispatcher.Serve(t.Context(), &api.Request{Body: []byte(body), Room: narrow{tt.strangers, tt.known}}, nil)
			type one struct{ ErrorCode int }
			answers := make([]one, 1)
			if strings.HasPrefix(string(a.Body), "[") {
				err = json.Unmarshal(a.Body, &answers)
			} else {
				err = json.Unmarshal(a.Body, &answers[0])
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, one := range answers {
				got = append(got, one.ErrorCode)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%d, want %d", got, tt.want)
			}
			if len(got) == 1 && got[0] == full && (a.Status != 503 || a.RetryAfterSeconds != 1 || len(a.Body) > 256) {
				t.Errorf("refused with status %d, Retry-After %d and %d bytes", a.Status, a.RetryAfterSeconds, len(a.Body))
			}
		})
	}
}

// narrow is what room there is beyond small answers.
type narrow struct{ strangers, known int }

func (n narrow) Grow(bytes int, known bool) bool {
	return bytes <= 16<<10 || bytes <= n.strangers || known && bytes <= n.known
}
