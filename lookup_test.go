package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"sessiond/internal/api"
	"sessiond/store"
	"sessiond/store/mem"
)

// Who asks for one account or for some handles has read what those have, however
// many others there are; and what the live table knows is not read at all.
func TestLookUpsDoNotScan(t *testing.T) {
	const others = 300
	st := &readings{Store: mem.New()}
	s, err := newStage(t.Context(), props{store: st, hasher: cheapHasher(t), logins: []string{"operator", "alice", "alice2=alice", "alice3=alice"}, config: `{
	  "jsonActionApiDefaults": {"maxJsonApiSessions": 0, "maxJsonApiSessionsPerUsername": 0, "maxJsonApiSessionsPerIpAddress": 0}}`})
	if err != nil {
		t.Fatal(err)
	}
	defer s.sessions.Close()
	type listed struct {
		Sessions []struct{ SessionHandle string }
		Count    int
	}
	ask := func(body string) (result listed) {
		t.Helper()
		body, err := s.fill(body)
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Result    json.RawMessage
			ErrorCode int
		}
		raw := s.serve(t.Context(), &api.Request{Body: []byte(body)}, "asked").raw
		if err := json.Unmarshal(raw, &answer); err != nil || answer.ErrorCode != 0 {
			t.Fatalf("%s: %s", body, raw)
		}
		if err := json.Unmarshal(answer.Result, &result); err != nil {
			t.Fatal(err)
		}
		return result
	}
	for range others {
		ask(`{"action":"createSession","params":{"username":"bob","password":"` + s.password + `"}}`)
	}
	for _, tt := range []struct {
		params      string
		found, read int // sessions; reading one's own cursor time costs one more where there is a cursor
	}{
		{`"filter":"username eq 'alice' and realm eq 'native'"`, 3, 3},
		{`"filter":"username in ['ALICE', 'nobody'] and permanentSession eq false"`, 3, 3},
		{`"filter":"accountId eq '${id:alice}'"`, 3, 3},
		{`"filter":"sessionHandle eq '${handle:alice}'"`, 1, 1},
		{`"filter":"sessionHandle in ['${handle:alice}', '${handle:alice2}'] and status pr"`, 2, 2},
		{`"filter":"username eq 'alice' and status eq 'active'"`, 3, 3},
		{`"filter":"username eq 'alice'","sort":"-username"`, 3, 6}, // to be put in order, and to be shown
		{`"usernameFilter":["alice"]`, 3, 3},
		{`"sessionHandles":["${handle:alice2}"]`, 1, 1},
		{`"countOnly":true`, others + 4, 0},
		{`"filter":"username sw 'ali'","countOnly":true`, 3, 0},
		{`"filter":"roles eq 'operator' or idleConnectionTimeoutSeconds lt 5","countOnly":true`, 1, 0},
		{`"sort":"sessionLastAccessedTimestamp","limit":2`, 2, 2},
		{`"filter":"description co 'x'","countOnly":true`, 0, others + 4}, // only the records know
	} {
		for _, action := range []string{"listSessions", "describeSessions"} {
			st.read.Store(0)
			r := ask(fmt.Sprintf(`{"action":%q,"authToken":"${token:operator}","params":{%s}}`, action, tt.params))
			if got := len(r.Sessions) + r.Count; got != tt.found || st.read.Load() != int64(tt.read) {
				t.Errorf("%s %s: %d sessions, for which %d were read; want %d and %d", action, tt.params, got, st.read.Load(), tt.found, tt.read)
			}
		}
	}
}

// readings is a store that counts the sessions that are read.
type readings struct {
	store.Store
	read atomic.Int64
}

func (s *readings) Get(ctx context.Context, key string) (store.Item, error) {
	s.count(key)
	return s.Store.Get(ctx, key)
}

func (s *readings) List(ctx context.Context, r store.Range) ([]store.Item, error) {
	items, err := s.Store.List(ctx, r)
	for i := range items {
		s.count(items[i].Key)
	}
	return items, err
}

func (s *readings) count(key string) {
	if strings.HasPrefix(key, "sess/") || strings.HasPrefix(key, "past/") {
		s.read.Add(1)
	}
}
