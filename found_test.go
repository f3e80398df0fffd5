package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/store/mem"
)

// Whatever the filter, a dry run tells what is done without it, and that is what a
// listing by the filter shows; nobody does anything to what he may not see.
func TestDryRunsTellTheTruth(t *testing.T) {
	hasher := cheapHasher(t)
	rapid.Check(t, func(r *rapid.T) {
		w := newThrong(t, r, hasher)
		defer w.sessions.Close()
		filter := w.filter(r, 3)
		as := rapid.SampledFrom([]string{"admin", "alice"}).Draw(r, "caller")
		token := w.byName["token:"+as]
		before := w.living(r, w.byName["token:admin"], "true")
		seen := w.living(r, token, filter)
		for handle, who := range w.living(r, token, "true") {
			if as == "alice" && who.Username != "alice" {
				r.Fatalf("alice sees %s of %s", handle, who.Username)
			}
		}

		params, does, want, spared := w.change(r, filter, seen)
		dry := w.send(r, token, does, withDryRun(params))
		wet := w.send(r, token, does, params)
		if dry.count() != int64(len(want)) || wet.count() != dry.count() || dry.spared() != spared || wet.spared() != spared || dry.Left+wet.Left != 0 || dry.More || wet.More {
			r.Fatalf("%s %v: %d and %d are meant, dry %+v, wet %+v", does, params, len(want), spared, dry, wet)
		}
		for _, handle := range dry.Sample {
			if !want[handle] {
				r.Fatalf("the dry run of %s %v shows %s, which is not meant", does, params, handle)
			}
		}

		if does == "alterSession" {
			if again := w.send(r, token, does, params); again.count() != 0 {
				r.Fatalf("%s %v: done once more: %+v", does, params, again)
			}
		}
		after := w.living(r, w.admin(r), "true")
		for handle, was := range before {
			is, lives := after[handle]
			switch {
			case does == "revokeSessions" && lives == want[handle]:
				r.Fatalf("%s %v: %s is meant: %v, and lives: %v", does, params, handle, want[handle], lives)
			case does == "alterSession" && (is.Revision > was.Revision) != want[handle]:
				r.Fatalf("%s %v: %s is meant: %v, and was of revision %d, is of %d", does, params, handle, want[handle], was.Revision, is.Revision)
			}
		}
	})
}

// What there is no time for is left, and told; repeated, the request gets on.
func TestWhatThereIsNoTimeFor(t *testing.T) {
	for _, action := range []string{"revokeSessions", "alterSession"} {
		for _, filter := range []string{"username eq 'alice'", "description eq ''"} { // looked up, and scanned
			s, err := newStage(t.Context(), props{store: mem.New(), hasher: cheapHasher(t), logins: []string{"operator", "alice", "alice2=alice"}})
			if err != nil {
				t.Fatal(err)
			}
			body, err := s.fill(fmt.Sprintf(`{"action":%q,"authToken":"${token:operator}","params":{"filter":%q}}`, action, filter))
			if action == "alterSession" {
				body = strings.Replace(body, `"params":{`, `"params":{"description":"x",`, 1)
			}
			if err != nil {
				t.Fatal(err)
			}
			type answered struct {
				ErrorCode int
				Result    told
			}
			ask := func(ctx context.Context) (answer answered) {
				if err := json.Unmarshal(s.serve(ctx, &api.Request{Body: []byte(body)}, "asked").raw, &answer); err != nil {
					t.Fatal(err)
				}
				return answer
			}
			late, cancel := context.WithTimeout(t.Context(), s.config.Get().RequestTimeout.Duration()/5)
			defer cancel()
			if got := ask(late); got.ErrorCode != 0 || got.Result.count() != 0 || !got.Result.More {
				t.Errorf("%s %s, late: %+v", action, filter, got)
			}
			if got := ask(t.Context()); got.ErrorCode != 0 || got.Result.count() < 2 || got.Result.More || got.Result.Left != 0 {
				t.Errorf("%s %s, again: %+v", action, filter, got)
			}
			s.sessions.Close()
		}
	}
}

// throng is a stage with many kinds of sessions.
type throng struct{ *stage }

func newThrong(t *testing.T, r *rapid.T, hasher *account.Hasher) *throng {
	s, err := newStage(t.Context(), props{store: mem.New(), hasher: hasher, logins: []string{"admin", "alice", "bob", "robot=bob:key"}, config: `{
	  "sessionProperties": [{"name":"plan"}],
	  "jsonActionApiDefaults": {"maxJsonApiSessionsPerUsername": 0, "maxJsonApiSessionsPerIpAddress": 0}}`})
	if err != nil {
		t.Fatal(err)
	}
	w := &throng{s}
	for i := range rapid.IntRange(0, 12).Draw(r, "sessions") {
		w.clock.Advance(1e9)
		params := object{"username": rapid.SampledFrom([]string{"alice", "bob", "gateway"}).Draw(r, "who"), "password": s.password}
		if rapid.Bool().Draw(r, "key") {
			params["permanentSession"] = true
		} else {
			params["idleConnectionTimeoutSeconds"] = rapid.SampledFrom([]int{0, 60, 300, 3600}).Draw(r, "idle")
		}
		if rapid.Bool().Draw(r, "has a plan") {
			params["properties"] = object{"plan": rapid.SampledFrom([]string{"free", "paid"}).Draw(r, "plan")}
		}
		if rapid.Bool().Draw(r, "is described") {
			params["description"] = rapid.SampledFrom([]string{"x", "import é"}).Draw(r, "description")
		}
		w.ask(r, "", "createSession", params, fmt.Sprint("s", i))
	}
	return w
}

// filter draws a filter.
func (w *throng) filter(r *rapid.T, depth int) string {
	kind := "term"
	if depth > 0 {
		kind = rapid.SampledFrom([]string{"term", "term", "and", "or", "not"}).Draw(r, "kind")
	}
	switch kind {
	case "and", "or":
		return "(" + w.filter(r, depth-1) + ") " + kind + " (" + w.filter(r, depth-1) + ")"
	case "not":
		return "!(" + w.filter(r, depth-1) + ")"
	}
	handles := []string{`"x"`}
	for name, value := range w.byName {
		if len(name) > 7 && name[:7] == "handle:" {
			handles = append(handles, `"`+value+`"`)
		}
	}
	slices.Sort(handles)
	handle := rapid.SampledFrom(handles)
	return rapid.OneOf(
		rapid.SampledFrom([]string{
			"true", "false", "current eq true", "permanentSession eq true", "rememberMe eq false", "username eq 'ALICE'", "username in ['bob','nobody']", "username sw 'a'",
			"realm eq 'native'", "realm eq 'none'", "properties/plan eq 'free'", "properties/plan pr", "description eq ''", "description co 'é'",
			"idleConnectionTimeoutSeconds gt 60", "idleConnectionTimeoutSeconds eq -1", "maxSessionExpirationTimestamp pr", "sessionStartTimestamp gt '-5s'",
			"maxIdleExpirationTimestamp lt '+3m'", "status eq 'active'", "status eq 'revoked'", "endedTimestamp pr", "clientIpAddress pr", "roles eq 'admin'",
			"accountId eq '" + w.byName["id:alice"] + "'", "accountId eq 'x'",
		}),
		rapid.Map(handle, func(h string) string { return "sessionHandle eq " + h }),
		rapid.Map(handle, func(h string) string { return "sessionHandle ge " + h }),
		rapid.Map(handle, func(h string) string { return "sessionHandle in [" + h + `,"y"]` }),
	).Draw(r, "term")
}

// change draws what is to be done to the sessions that a filter finds, and returns to
// which of those seen, and how many are spared.
func (w *throng) change(r *rapid.T, filter string, seen map[string]shown) (params object, action string, want map[string]bool, spared int64) {
	params, want = object{"filter": filter}, map[string]bool{}
	if rapid.Bool().Draw(r, "alter") {
		idle := rapid.SampledFrom([]int64{-1, 0, 77}).Draw(r, "new idle time")
		params["idleConnectionTimeoutSeconds"] = idle
		for handle, s := range seen {
			switch {
			case idle == -1 && !s.PermanentSession, idle == 77 && s.PermanentSession:
				spared++
			case !s.PermanentSession && s.IdleConnectionTimeoutSeconds != idle:
				want[handle] = true
			}
		}
		return params, "alterSession", want, spared
	}
	except, keys := rapid.Bool().Draw(r, "exceptCurrent"), rapid.Bool().Draw(r, "includePermanent")
	params["exceptCurrent"], params["includePermanent"] = except, keys
	for handle, s := range seen {
		switch {
		case except && s.Current:
		case s.PermanentSession && !keys:
			spared++
		default:
			want[handle] = true
		}
	}
	return params, "revokeSessions", want, spared
}

func withDryRun(params object) object {
	dry := maps.Clone(params)
	dry["dryRun"] = true
	return dry
}

// shown is what the test looks at of a session.
type shown struct {
	SessionHandle                string
	Username                     string
	Current                      bool
	PermanentSession             bool
	IdleConnectionTimeoutSeconds int64
	Revision                     int64
	Status                       string
}

// living returns the living sessions that a caller sees by a filter, in pages.
func (w *throng) living(r *rapid.T, token, filter string) map[string]shown {
	rows, cursor := map[string]shown{}, ""
	for {
		params := object{"filter": filter, "limit": 4}
		if cursor != "" {
			params["cursor"] = cursor
		}
		var page struct {
			Sessions []shown
			Cursor   string
		}
		decode(r, w.ask(r, token, "describeSessions", params, "listed"), &page)
		for _, s := range page.Sessions {
			if s.Status == "active" {
				rows[s.SessionHandle] = s
			}
		}
		if cursor = page.Cursor; cursor == "" {
			return rows
		}
	}
}

// told is what a change of many sessions answers.
type told struct {
	Revoked, Altered, PermanentLeft, Skipped, Left int64
	More                                           bool
	Sample                                         []string
}

func (d *told) count() int64  { return d.Revoked + d.Altered }
func (d *told) spared() int64 { return d.PermanentLeft + d.Skipped }

func (w *throng) send(r *rapid.T, token, action string, params object) told {
	var d told
	decode(r, w.ask(r, token, action, params, "sent"), &d)
	return d
}

// admin is the token of a living session of the administrator, which may be new.
func (w *throng) admin(r *rapid.T) string {
	var made struct{ AuthToken string }
	decode(r, w.ask(r, "", "createSession", object{"username": "admin", "password": w.password}, "another"), &made)
	return made.AuthToken
}

// ask returns the result of a request, which has to succeed.
func (w *throng) ask(r *rapid.T, token, action string, params object, as string) []byte {
	request := object{"action": action, "params": params}
	if token != "" {
		request["authToken"] = token
	}
	body, err := json.Marshal(request)
	if err != nil {
		r.Fatal(err)
	}
	got := w.serve(r.Context(), &api.Request{Body: body}, as)
	var answer struct {
		Result    json.RawMessage
		ErrorCode int
	}
	decode(r, got.raw, &answer)
	if answer.ErrorCode != 0 {
		r.Fatalf("%s: %s", body, got.raw)
	}
	return answer.Result
}

func decode(r *rapid.T, data []byte, into any) {
	if err := json.Unmarshal(data, into); err != nil {
		r.Fatalf("%s: %v", data, err)
	}
}
