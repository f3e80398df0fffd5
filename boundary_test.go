package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/store/mem"
)

// A session lives until a second before its boundary and is dead from the boundary
// on, whoever asks, and whatever became of the server in between.
func TestSessionsDieAtTheirBoundaries(t *testing.T) {
	boundaries := []struct {
		name   string
		config string // of jsonActionApiDefaults
		params object // of createSession
		issued bool   // in the realm shop
		until  string // the account's disableDatetime
		dies   int64  // seconds after its creation
	}{
		{name: "idle time", params: object{"idleConnectionTimeoutSeconds": 100}, dies: 100},
		{name: "idle time and tolerance", config: `,"idleToleranceSeconds":30`, params: object{"idleConnectionTimeoutSeconds": 100}, dies: 130},
		{name: "wall", params: object{"idleConnectionTimeoutSeconds": 0, "maxSessionTimeoutSeconds": 100}, dies: 100},
		{name: "wall, which has no tolerance", config: `,"idleToleranceSeconds":30`, params: object{"idleConnectionTimeoutSeconds": 0, "maxSessionTimeoutSeconds": 100}, dies: 100},
		{name: "wall before the idle time", params: object{"idleConnectionTimeoutSeconds": 101, "maxSessionTimeoutSeconds": 100}, dies: 100},
		{name: "wall after the idle time", params: object{"idleConnectionTimeoutSeconds": 100, "maxSessionTimeoutSeconds": 101}, dies: 100},
		{name: "wall within the tolerance", config: `,"idleToleranceSeconds":30`, params: object{"idleConnectionTimeoutSeconds": 100, "maxSessionTimeoutSeconds": 115}, dies: 115},
		{name: "rememberMe", config: `,"idleConnectionTimeoutSeconds":50,"rememberMeIdleTimeoutSeconds":200`, params: object{"rememberMe": true}, dies: 200},
		{name: "rememberMe without a time of its own", config: `,"idleConnectionTimeoutSeconds":50`, params: object{"rememberMe": true}, dies: 50},
		{name: "realm's idle time", issued: true, dies: 70},
		{name: "realm's rememberMe", issued: true, params: object{"rememberMe": true}, dies: 90},
		{name: "what was asked for, in a realm", issued: true, params: object{"idleConnectionTimeoutSeconds": 80}, dies: 80},
		{name: "API key's wall", params: object{"permanentSession": true, "maxSessionTimeoutSeconds": 100}, dies: 100},
		{name: "account's time", until: dawn.Add(100 * time.Second).Format(time.RFC3339), dies: 100},
	}
	betweens := []struct {
		name string
		do   func(t *testing.T, s *stage)
	}{
		{"at once", func(*testing.T, *stage) {}},
		{"after a restart", restartStage},
		{"after a sweep", func(t *testing.T, s *stage) {
			t.Helper()
			if err := s.sessions.Maintain(t.Context()); err != nil {
				t.Error(err)
			}
		}},
	}
	hasher := cheapHasher(t)
	for _, b := range boundaries {
		for _, between := range betweens {
			for offset := int64(-1); offset <= 1; offset++ {
				t.Run(fmt.Sprintf("%s, %+d s, %s", b.name, offset, between.name), func(t *testing.T) {
					s, err := newStage(t.Context(), props{
						store: mem.New(), hasher: hasher, logins: []string{"operator=operator:key", "gateway=gateway:key", "issuer=issuer:key", "admin"},
						config: `{"jsonActionApiDefaults":{"maxJsonApiSessionsPerUsername":1` + b.config + `},
							"realms":[{"name":"shop","type":"trusted","idleConnectionTimeoutSeconds":70,"rememberMeIdleTimeoutSeconds":90}]}`,
					})
					if err != nil {
						t.Fatal(err)
					}
					defer func() { s.sessions.Close() }()
					login := spoken{"", "createSession", object{"username": "alice", "password": stagePassword}}
					if b.issued {
						login = spoken{s.byName["token:issuer"], "createSession", object{"username": "alice", "realm": "shop"}}
					}
					again := spoken{login.token, login.action, maps.Clone(login.params)}
					maps.Copy(login.params, b.params)
					if b.until != "" {
						s.must(t, spoken{s.byName["token:admin"], "alterAccount", object{"username": "alice", "disableDatetime": b.until}})
					}
					made := s.must(t, login).Result
					s.clock.Advance(time.Duration(b.dies+offset) * time.Second)
					between.do(t, s)
					lives := offset < 0
					for _, q := range questions(s, made.SessionHandle, made.AuthToken) {
						if got := q.lives(t); got != lives {
							t.Errorf("%s: it lives: %v", q.name, got)
						}
					}
					want := map[bool]api.Code{true: api.SessionLimitPerUsername, false: api.OK}[lives]
					if b.until != "" && !lives {
						want = api.LoginFailed
					}
					if got := s.say(t, netip.Addr{}, again); got.Code != want {
						t.Errorf("another session of an account that may have one is answered with %d, want %d", got.Code, want)
					}
				})
			}
		}
	}
}

// A question is a way to learn whether a session lives.
type question struct {
	name  string
	lives func(t *testing.T) bool
}

// questions are all ways to learn whether a session lives. Those that would keep it
// alive come last, and once more after them one that does not.
func questions(s *stage, handle, token string) []question {
	operator, gateway := s.byName["token:operator"], s.byName["token:gateway"]
	ok := func(name, token, action string, params object) question {
		return question{name, func(t *testing.T) bool {
			t.Helper()
			return s.say(t, netip.Addr{}, spoken{token, action, params}).Code == api.OK
		}}
	}
	holds := func(name, token, action string, params object, text string) question {
		return question{name, func(t *testing.T) bool {
			t.Helper()
			return strings.Contains(string(s.must(t, spoken{token, action, params}).raw), text)
		}}
	}
	validate := holds("validate", gateway, "validate", object{"tokenId": token, "refresh": false}, `"valid":true`)
	return []question{
		validate,
		ok("getSessionInfo", token, "getSessionInfo", nil),
		holds("getSessionInfo by handle", operator, "getSessionInfo", object{"sessionHandle": handle}, `"status":"active"`),
		holds("explainSession", operator, "explainSession", object{"sessionHandle": handle}, `"status":"active"`),
		holds("listSessions", operator, "listSessions", object{"usernameFilter": []string{"alice"}}, handle),
		holds("countOnly", operator, "describeSessions", object{"filter": `username eq "alice"`, "countOnly": true}, `"count":1`),
		holds("filter by status", operator, "describeSessions", object{"filter": `status eq "active"`}, handle),
		{"the count of all", func(t *testing.T) bool {
			t.Helper()
			others := s.must(t, spoken{operator, "describeSessions", object{"filter": `!(username eq "alice")`, "countOnly": true}})
			return !strings.Contains(string(others.raw), fmt.Sprintf(`"count":%d}`, s.sessions.Count()))
		}},
		ok("refresh", token, "refresh", nil),
		ok("alterSession", token, "alterSession", object{"description": "again"}),
		ok("pingSession", token, "pingSession", nil),
		holds("validate that touches", gateway, "validate", object{"tokenId": token}, `"valid":true`),
		{"validate once more", validate.lives},
	}
}

func restartStage(t *testing.T, s *stage) {
	t.Helper()
	s.sessions.Close()
	if err := s.open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

// What else has its time is good for just that long.
func TestWhatElseHasItsTime(t *testing.T) {
	member := func(h heard, name string) string {
		var a struct{ Result map[string]any }
		if err := json.Unmarshal(h.raw, &a); err != nil {
			return err.Error()
		}
		return fmt.Sprint(a.Result[name])
	}
	alice := object{"username": "alice", "password": stagePassword}
	type asker func(t *testing.T, s *stage) bool
	for _, tt := range []struct {
		name  string
		lasts time.Duration
		good  bool // at its last moment still
		begin func(t *testing.T, s *stage) asker
	}{
		{"the grace of a token that was rotated", 30 * time.Second, false, func(t *testing.T, s *stage) asker {
			t.Helper()
			old := s.must(t, spoken{"", "createSession", alice}).Result.AuthToken
			s.must(t, spoken{old, "rotateSession", nil})
			return func(t *testing.T, s *stage) bool {
				t.Helper()
				return s.say(t, netip.Addr{}, spoken{old, "getSessionInfo", nil}).Code == api.OK
			}
		}},
		{"the cursor of a listing", 600 * time.Second, true, func(t *testing.T, s *stage) asker {
			t.Helper()
			admin := s.byName["token:admin"]
			cursor := member(s.must(t, spoken{admin, "listSessions", object{"filter": "status pr", "limit": 1}}), "cursor")
			return func(t *testing.T, s *stage) bool {
				t.Helper()
				return s.say(t, netip.Addr{}, spoken{admin, "listSessions", object{"filter": "status pr", "limit": 1, "cursor": cursor}}).Code == api.OK
			}
		}},
		{"an idempotencyKey", 600 * time.Second, false, func(t *testing.T, s *stage) asker {
			t.Helper()
			login := object{"username": "alice", "password": stagePassword, "idempotencyKey": "5c1f0a9e"}
			handle := s.must(t, spoken{"", "createSession", login}).Result.SessionHandle
			return func(t *testing.T, s *stage) bool {
				t.Helper()
				return s.must(t, spoken{"", "createSession", login}).Result.SessionHandle == handle
			}
		}},
		{"a recent log-in", 900 * time.Second, true, func(t *testing.T, s *stage) asker {
			t.Helper()
			return func(t *testing.T, s *stage) bool {
				t.Helper()
				return s.say(t, netip.Addr{}, spoken{s.byName["token:admin"], "manageService", object{"serviceName": "hub", "command": "resume"}}).Code == api.OK
			}
		}},
		{"a one-time password", 24 * time.Hour, false, func(t *testing.T, s *stage) asker {
			t.Helper()
			once := member(s.must(t, spoken{s.byName["token:admin"], "createAccount", object{"username": "dave", "oneTimePassword": true}}), "oneTimePassword")
			return func(t *testing.T, s *stage) bool {
				t.Helper()
				return s.say(t, netip.Addr{}, spoken{"", "createSession", object{"username": "dave", "password": once, "newPassword": "a much better battery"}}).Code == api.OK
			}
		}},
		{"a session that expired, before it is abandoned", 7200 * time.Second, false, func(t *testing.T, s *stage) asker {
			t.Helper()
			handle := s.must(t, spoken{"", "createSession", object{"username": "alice", "password": stagePassword, "idleConnectionTimeoutSeconds": 60}}).Result.SessionHandle
			return func(t *testing.T, s *stage) bool {
				t.Helper()
				status := s.status(t.Context(), handle)
				if status != "expired" && status != "abandoned" {
					t.Errorf("its status is %s", status)
				}
				return status == "expired"
			}
		}},
		{"a tombstone", 3*24*time.Hour + 60*time.Second, true, func(t *testing.T, s *stage) asker {
			t.Helper()
			handle := s.must(t, spoken{"", "createSession", object{"username": "alice", "password": stagePassword, "idleConnectionTimeoutSeconds": 60}}).Result.SessionHandle
			return func(t *testing.T, s *stage) bool {
				t.Helper()
				if err := s.sessions.Maintain(t.Context()); err != nil {
					t.Error(err)
				}
				return s.status(t.Context(), handle) != "gone"
			}
		}},
	} {
		for _, restart := range []bool{false, true} {
			for offset := -1; offset <= 1; offset++ {
				t.Run(fmt.Sprintf("%s, %+d s, restarted %v", tt.name, offset, restart), func(t *testing.T) {
					s, err := newStage(t.Context(), props{
						store: mem.New(), hasher: cheapHasher(t), logins: []string{"admin", "bob"},
						config: `{"jsonActionApiDefaults":{"abandonAfterSeconds":7200,"defaultRetentionUnit":"day","defaultRetentionPeriod":3}}`,
					})
					if err != nil {
						t.Fatal(err)
					}
					defer func() { s.sessions.Close() }()
					ask := tt.begin(t, s)
					s.clock.Advance(tt.lasts + time.Duration(offset)*time.Second)
					if restart {
						restartStage(t, s)
					}
					if got, want := ask(t, s), offset < 0 || offset == 0 && tt.good; got != want {
						t.Errorf("it is good: %v, want %v", got, want)
					}
				})
			}
		}
	}
}
