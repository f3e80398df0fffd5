package main

import (
	"testing"

	"sessiond/internal/api"
	"sessiond/internal/logging"
	"sessiond/internal/wire"
	"sessiond/store/mem"
)

// Every action takes any params of an administrator, or says what is wrong with
// them: an answer of ours, with a code that is not 21999.
func FuzzActions(f *testing.F) {
	hasher := cheapHasher(f)
	actions := describeActions()
	g := newGrammar(1, 1, "sdses_nobody's token, as long as one would be if it were one...")
	g.token = g.tokens[0]
	for n, action := range actions {
		f.Add(uint8(n), "{}")
		for range 3 {
			f.Add(uint8(n), string(g.object(nil, action.Params, 0)))
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, params string) {
		s, err := newStage(t.Context(), props{store: mem.New(), hasher: hasher, logins: []string{"alice", "admin"}, log: logging.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		defer s.sessions.Close()
		s.tail.Drain() // nobody waits for what does not come
		body := []byte(`{"authToken":"` + s.byName["token:admin"] + `","action":`)
		body = wire.AppendString(body, actions[int(n)%len(actions)].Name)
		body = append(append(append(body, `,"params":`...), params...), '}')
		a := s.dispatcher.Serve(t.Context(), &api.Request{Body: body}, nil)
		if a.Status == 0 {
			a.Status = 200
		}
		if _, err := judge(a.Status, a.Body); err != nil {
			t.Errorf("%s\nis answered with %d, %v:\n%s", body, a.Status, err, a.Body)
		}
	})
}
