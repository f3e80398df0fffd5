package main

import (
	"bytes"
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// Whoever is not on a browser, and may not read all sessions, is told the same of its
// sessions as of some that never were, byte by byte; whoever is on it sees no more of
// them elsewhere than he did.
func TestStrangersToABrowser(t *testing.T) {
	s, err := newStage(t.Context(), props{store: mem.New(), hasher: cheapHasher(t), logins: []string{"bob", "alice", "key=alice:key", "gateway", "issuer", "operator"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.sessions.Close()
	bob := s.byName["token:bob"]
	join := func() heard {
		return s.must(t, spoken{bob, "createSession", object{"username": "issuer", "password": s.password, "joinClient": true}})
	}
	purged := join()
	end := func(action string, h heard) {
		s.must(t, spoken{bob, action, object{"sessionHandle": h.Result.SessionHandle}})
	}
	end("removeSession", purged)
	s.maintain(t)
	s.clock.Advance(29 * 24 * time.Hour)
	s.maintain(t)
	for _, name := range []string{"bob", "alice", "gateway", "issuer", "operator"} { // whom the time has ended
		h := s.must(t, spoken{"", "createSession", object{"username": name, "password": s.password}})
		s.byName["token:"+name], s.byName["handle:"+name] = h.Result.AuthToken, h.Result.SessionHandle
	}
	bob = s.byName["token:bob"]
	living, ended, removed := join(), join(), join()
	end("endSession", ended)
	end("removeSession", removed)

	client := session.ClientText(s.handle(t, s.byName["handle:bob"]))
	never := session.HandleText(api.ID{1, 2, 3})
	strangers := []string{"alice", "key", "gateway"}
	for _, who := range strangers {
		token := s.byName["token:"+who]
		for _, action := range []string{"listClientSessions", "activateSession", "endSession", "removeSession", "getSessionInfo", "explainSession"} {
			want := s.say(t, netip.Addr{}, spoken{token, action, object{"sessionHandle": never}})
			for _, about := range []string{s.byName["handle:bob"], living.Result.SessionHandle, ended.Result.SessionHandle, removed.Result.SessionHandle, purged.Result.SessionHandle} {
				got := s.say(t, netip.Addr{}, spoken{token, action, object{"sessionHandle": about}})
				if got.Code != api.NotFound || got.status != want.status || !bytes.Equal(got.raw, want.raw) {
					t.Errorf("%s of %s: %s; of what never was: %s", who, action, got.raw, want.raw)
				}
			}
		}
		for _, r := range []spoken{
			{token, "describeSessions", object{"filter": `clientHandle eq "CLIENT"`}},
			{token, "describeSessions", object{"filter": `clientHandle eq "CLIENT" or clientHandle sw "CLIENT"`, "countOnly": true}},
			{token, "listSessions", object{"filter": `clientHandle eq "CLIENT" and status eq "ended"`}},
			{token, "revokeSessions", object{"filter": `clientHandle eq "CLIENT"`}},
			{token, "revokeSessions", object{"filter": `clientHandle ge "CLIENT"`, "dryRun": true, "exceptCurrent": true}},
		} {
			filter := r.params["filter"].(string)
			ask := func(handle string) heard {
				r.params["filter"] = strings.ReplaceAll(filter, "CLIENT", handle)
				return s.say(t, netip.Addr{}, r)
			}
			if got, want := ask(client), ask("cl_"+strings.Repeat("z", 22)); !strings.Contains(filter, "ge") && !bytes.Equal(got.raw, want.raw) {
				t.Errorf("%s asks %s %q: %s; of what never was: %s", who, r.action, filter, got.raw, want.raw)
			} else if bytes.Contains(got.raw, []byte("bob")) || bytes.Contains(got.raw, []byte("issuer")) {
				t.Errorf("%s asks %s %q: %s", who, r.action, filter, got.raw)
			}
		}
	}
	for _, h := range []heard{living, s.must(t, spoken{bob, "pingSession", nil})} {
		if h.Code != api.OK {
			t.Errorf("a stranger's request did something: %s", h.raw)
		}
	}
	if got := s.say(t, netip.Addr{}, spoken{living.Result.AuthToken, "describeSessions", object{"sessionHandles": []string{s.byName["handle:bob"]}}}); bytes.Contains(got.raw, []byte("bob")) {
		t.Errorf("who is on a browser is shown others by describeSessions: %s", got.raw)
	}
	if got := s.say(t, netip.Addr{}, spoken{living.Result.AuthToken, "alterSession", object{"sessionHandle": s.byName["handle:bob"], "description": "mine"}}); got.Code == api.OK {
		t.Errorf("who is on a browser alters others: %s", got.raw)
	}
	for _, action := range []string{"listClientSessions", "activateSession", "endSession", "removeSession", "createSession"} {
		params := object{"sessionHandle": s.byName["handle:bob"]}
		if action == "createSession" {
			params = object{"username": "alice", "password": s.password, "joinClient": true}
		}
		for _, dead := range []heard{ended, removed, purged} {
			if got := s.say(t, netip.Addr{}, spoken{dead.Result.AuthToken, action, params}); got.Code != api.InvalidAuthToken {
				t.Errorf("a session that has left its browser asks %s: %s", action, got.raw)
			}
		}
	}
}

func (s *stage) maintain(t *testing.T) {
	t.Helper()
	if err := s.sessions.Maintain(t.Context()); err != nil && !errors.Is(err, store.ErrConflict) {
		t.Fatal(err)
	}
}

func (s *stage) handle(t *testing.T, text string) api.ID {
	t.Helper()
	h, ok := session.ParseHandle(text)
	if !ok {
		t.Fatalf("no handle: %q", text)
	}
	return h
}

// A session is joined by its token while its account may have sessions.
func TestJoiningWhomThereIsNoMore(t *testing.T) {
	for _, tt := range []struct {
		why, action string
		params      object
	}{
		{"disabled", "alterAccount", object{"username": "bob", "enabled": false}},
		{"dropped", "dropAccounts", object{"usernames": []string{"bob"}}},
		{"thrown out", "revokeSessions", object{"accounts": []object{{"username": "bob"}}}},
		{"everybody is", "revokeAllSessions", object{"level": "server"}},
	} {
		t.Run(tt.why, func(t *testing.T) {
			s, err := newStage(t.Context(), props{store: mem.New(), hasher: cheapHasher(t), logins: []string{"bob", "admin"}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.sessions.Close()
			s.must(t, spoken{s.byName["token:admin"], tt.action, tt.params})
			got := s.say(t, netip.Addr{}, spoken{s.byName["token:bob"], "createSession", object{"username": "alice", "password": s.password, "joinClient": true}})
			if got.Code != api.InvalidAuthToken {
				t.Errorf("%s", got.raw)
			}
		})
	}
}

// What a ticket is for is its log-in, and nothing more than that could have had.
func TestAnotherUseOfATicket(t *testing.T) {
	s, err := newStage(t.Context(), props{
		store: mem.New(), hasher: cheapHasher(t), logins: []string{"alice", "key=alice:key", "bob", "issuer", "admin"},
		config: `{"realms":[{"name":"customers","type":"trusted"}],"jsonActionApiDefaults":{"maxJsonApiSessionsPerUsername":2,"onSessionLimit":{"maxJsonApiSessionsPerUsername":"ask"}}}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.sessions.Close()
	ask := func(token string, params object) string {
		t.Helper()
		h := s.say(t, netip.Addr{}, spoken{token, "createSession", params})
		if h.Code != api.SessionLimitPerUsername || h.Data.Choice == nil {
			t.Fatalf("not asked: %s", h.raw)
		}
		return h.Data.Ticket
	}
	token := func(name string) string { return s.byName["token:"+name] }
	own := s.byName["handle:alice"]
	ticket := ask("", object{"username": "alice", "password": s.password})
	for _, tt := range []struct {
		why, token string
		with       object
		want       api.Code
	}{
		{"an API key", "", object{"permanentSession": true}, api.BadParam},
		{"a password beside it", "", object{"password": s.password}, api.BadParam},
		{"a new password", "", object{"newPassword": "another horse, another staple"}, api.BadParam},
		{"to reauthenticate", token("alice"), object{"reauthenticate": true}, api.BadParam},
		{"a trusted realm", "", object{"realm": "customers"}, api.InvalidAuthToken},
		{"a trusted realm, by an issuer", token("issuer"), object{"realm": "customers"}, api.LoginFailed},
		{"a realm that is none", "", object{"realm": "nowhere"}, api.RealmUnavailable},
		{"another's address", token("alice"), object{"clientIpAddress": "192.0.2.7"}, api.PermissionDenied},
		{"to end a key", "", object{"endSessionHandle": s.byName["handle:key"]}, api.NotFound},
		{"to end another's", "", object{"endSessionHandle": s.byName["handle:bob"]}, api.NotFound},
		{"to end another's, as another", token("bob"), object{"username": "bob", "endSessionHandle": s.byName["handle:bob"]}, api.LoginFailed},
		{"to end whom it joins", token("alice"), object{"joinClient": true}, api.BadParam},
		{"to join by a key", token("key"), object{"joinClient": true}, api.KindNotAllowed},
		{"to join a dead one", "", object{"joinClient": true}, api.InvalidAuthToken},
		{"a longer life than allowed", "", object{"idleConnectionTimeoutSeconds": -1}, api.BadParam},
	} {
		params := object{"username": "alice", "ticket": ticket, "endSessionHandle": own}
		maps.Copy(params, tt.with)
		if got := s.say(t, netip.Addr{}, spoken{tt.token, "createSession", params}); got.Code != tt.want || got.Result.AuthToken != "" {
			t.Errorf("%s: %s, want %d", tt.why, got.raw, tt.want)
		}
	}
	for _, misused := range []spoken{
		{ticket, "getSessionInfo", nil},
		{token("alice"), "validate", object{"tokenId": ticket}},
		{token("alice"), "listClientSessions", object{"tokenId": ticket}},
		{token("alice"), "endSession", object{"tokenId": ticket}},
		{"", "logout", object{"tokenId": ticket}},
	} {
		if got := s.say(t, netip.Addr{}, misused); bytes.Contains(got.raw, []byte(`"valid":true`)) || got.Code == api.OK && misused.action != "validate" && misused.action != "logout" {
			t.Errorf("%s with the ticket as a token: %s", misused.action, got.raw)
		}
	}
	done := s.must(t, spoken{token("bob"), "createSession", object{"username": "alice", "ticket": ticket, "endSessionHandle": own, "joinClient": true}})
	if on := s.must(t, spoken{token("bob"), "listClientSessions", nil}); !bytes.Contains(on.raw, []byte(done.Result.SessionHandle)) {
		t.Errorf("with all of that refused, alice joins bob with it: %s", on.raw)
	}

	for range 2 {
		s.must(t, spoken{token("issuer"), "createSession", object{"realm": "customers", "username": "carol"}})
	}
	issued := object{"realm": "customers", "username": "carol"}
	ticket = ask(token("issuer"), issued)
	var carol string
	for _, live := range s.say(t, netip.Addr{}, spoken{token("issuer"), "createSession", issued}).Data.Sessions {
		carol = live.SessionHandle
	}
	issued["ticket"], issued["endSessionHandle"] = ticket, carol
	if got := s.say(t, netip.Addr{}, spoken{token("issuer"), "createSession", issued}); got.Code != api.LoginFailed {
		t.Errorf("a ticket after a newer one: %s", got.raw)
	}
	for _, nothing := range []string{"", "sdtkt_"} {
		for _, name := range []string{"bob", "key", "issuer"} {
			without := object{"realm": "customers", "username": "dave", "ticket": nothing, "endSessionHandle": s.byName["handle:"+name]}
			if got := s.say(t, netip.Addr{}, spoken{token("issuer"), "createSession", without}); got.Code != api.LoginFailed || s.status(t.Context(), s.byName["handle:"+name]) != "active" {
				t.Errorf("an issuer without a ticket ends the session of %s: %s", name, got.raw)
			}
		}
	}
	delete(issued, "ticket")
	delete(issued, "endSessionHandle")
	issued["ticket"], issued["endSessionHandle"] = ask(token("issuer"), issued), carol
	for who, want := range map[string]api.Code{"alice": api.InvalidAuthToken, "bob": api.PermissionDenied, "key": api.PermissionDenied} {
		if got := s.say(t, netip.Addr{}, spoken{token(who), "createSession", issued}); got.Code != want {
			t.Errorf("an issuer's ticket with the token of %s: %s", who, got.raw)
		}
	}
	s.must(t, spoken{token("issuer"), "createSession", issued})
}

// With a ticket that is none, an account that exists is answered as one that doesn't,
// byte by byte and without a password's work.
func TestTicketsTellNothing(t *testing.T) {
	hasher := cheapHasher(t)
	s, err := newStage(t.Context(), props{
		store: mem.New(), hasher: hasher, logins: []string{"alice", "bob"},
		config: `{"jsonActionApiDefaults":{"maxJsonApiSessionsPerUsername":1,"onSessionLimit":{"maxJsonApiSessionsPerUsername":"ask"}}}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.sessions.Close()
	asked := s.say(t, netip.Addr{}, spoken{"", "createSession", object{"username": "bob", "password": s.password}})
	if asked.Data.Choice == nil {
		t.Fatalf("%s", asked.raw)
	}
	runs := hasher.Runs()
	for _, ticket := range []string{"", "junk", asked.Data.Ticket[:63] + "0", asked.Data.Ticket} {
		var want heard
		for i, name := range []string{"nobody", "alice", "admin", "no name"} {
			got := s.say(t, netip.Addr{}, spoken{"", "createSession", object{"username": name, "ticket": ticket, "endSessionHandle": s.byName["handle:bob"]}})
			if i == 0 {
				want = got
			}
			if got.Code != api.LoginFailed || !bytes.Equal(got.raw, want.raw) {
				t.Errorf("%q with a ticket of %d: %s; where nobody is: %s", name, len(ticket), got.raw, want.raw)
			}
		}
	}
	if hasher.Runs() != runs {
		t.Errorf("%d passwords were checked", hasher.Runs()-runs)
	}
}

// explainSession says of whoever made room for which limit, and for whom.
func TestEvictionsAreExplained(t *testing.T) {
	for _, tt := range []struct{ limit, others string }{
		{"maxJsonApiSessions", ""}, {"maxJsonApiSessionsPerIpAddress", ""}, {"maxJsonApiSessionsPerUsername", ""}, {"maxJsonApiSessionsPerClient", ""},
	} {
		s, err := newStage(t.Context(), props{
			store: mem.New(), hasher: cheapHasher(t), logins: []string{"operator"},
			config: `{"jsonActionApiDefaults":{"` + tt.limit + `":3,"onSessionLimit":{"` + tt.limit + `":"evictOldest"}}}`,
		})
		if err != nil {
			t.Fatal(err)
		}
		here := netip.MustParseAddr("192.0.2.1")
		say := func(token string, params object) heard {
			h := s.say(t, here, spoken{token, "createSession", params})
			if h.Code != api.OK {
				t.Fatalf("%s: %s", tt.limit, h.raw)
			}
			s.clock.Advance(time.Second)
			return h
		}
		bob := say("", object{"username": "bob", "password": s.password})
		var all []heard
		for range 4 {
			all = append(all, say(bob.Result.AuthToken, object{"username": "alice", "password": s.password, "joinClient": true}))
		}
		gone, last := all[0], all[3]
		if tt.limit != "maxJsonApiSessionsPerUsername" {
			last = all[2]
		}
		if tt.limit == "maxJsonApiSessions" {
			last = all[1] // the operator's is the third
		}
		h := s.say(t, here, spoken{s.byName["token:operator"], "explainSession", object{"sessionHandle": gone.Result.SessionHandle}})
		for _, want := range []string{`"status":"replaced"`, `"endReason":"` + tt.limit + `"`, `"endedBy":"` + last.Result.SessionHandle + `"`} {
			if !bytes.Contains(h.raw, []byte(want)) {
				t.Errorf("%s: %s is not in %s", tt.limit, want, h.raw)
			}
		}
		s.sessions.Close()
	}
}
