package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/store/mem"
)

const guessedWrong = "not the right battery staple"

// Two hundred guesses at one moment are checked as often as failures are free,
// whichever way they take to the password, and all ways together no more often.
func TestParallelGuesses(t *testing.T) {
	const guesses = 200
	ways := map[string]func(s *stage) spoken{
		"log-in": func(*stage) spoken {
			return spoken{"", "createSession", object{"username": "alice", "password": guessedWrong}}
		},
		"log-in under a name that nobody has": func(*stage) spoken {
			return spoken{"", "createSession", object{"username": "malice", "password": guessedWrong}}
		},
		"reauthenticate": func(s *stage) spoken {
			return spoken{s.byName["token:alice"], "createSession", object{"username": "alice", "password": guessedWrong, "reauthenticate": true}}
		},
		"a new password": func(*stage) spoken {
			return spoken{"", "createSession", object{"username": "alice", "password": guessedWrong, "newPassword": stagePassword + " 2"}}
		},
		"changePassword": func(s *stage) spoken {
			return spoken{s.byName["token:alice"], "changePassword", object{"currentPassword": guessedWrong, "newPassword": stagePassword + " 2"}}
		},
	}
	ofAlice := []string{"log-in", "reauthenticate", "a new password", "changePassword"}
	hasher := account.NewHasherCost(2, 0, account.Cost{MemoryKiB: 2048, Iterations: 1, Parallelism: 1}) // slow enough for all to come while the first are checked
	defer hasher.Close()
	for _, tt := range []struct {
		name    string
		ways    []string
		lockout int // lockoutAfterNFailedAttempts of the account
		checked int64
	}{
		{"log-in", ofAlice[:1], 0, 5},
		{"reauthenticate", ofAlice[1:2], 0, 5},
		{"log-in with a new password", ofAlice[2:3], 0, 5},
		{"changePassword", ofAlice[3:], 0, 5},
		{"every way at once", ofAlice, 0, 5},
		{"no such account", []string{"log-in under a name that nobody has"}, 0, 5},
		{"log-in, lockout at 3", ofAlice[:1], 3, 3},
		{"reauthenticate, lockout at 3", ofAlice[1:2], 3, 3},
		{"log-in with a new password, lockout at 3", ofAlice[2:3], 3, 3},
		{"changePassword, lockout at 3", ofAlice[3:], 3, 3},
		{"every way at once, lockout at 3", ofAlice, 3, 3},
	} {
		for _, from := range []struct {
			name    string
			address func(n int) netip.Addr
		}{
			{"one address", func(int) netip.Addr { return ipv4(0) }},
			{"many addresses", ipv4},
		} {
			t.Run(tt.name+", "+from.name, func(t *testing.T) {
				s, err := newStage(t.Context(), props{store: mem.New(), hasher: hasher, logins: []string{"admin", "alice"}})
				if err != nil {
					t.Fatal(err)
				}
				defer s.sessions.Close()
				s.must(t, spoken{s.byName["token:admin"], "alterAccount", object{"username": "alice", "lockoutAfterNFailedAttempts": tt.lockout}})

				before := hasher.Runs()
				codes := together(guesses, func(n int) api.Code {
					return s.say(t, from.address(n), ways[tt.ways[n%len(tt.ways)]](s)).Code
				})
				if runs := hasher.Runs() - before; runs != tt.checked || codes[api.LoginFailed] != int(tt.checked) {
					t.Errorf("%d guesses caused %d checks, want %d; answers by errorCode: %v", guesses, runs, tt.checked, codes)
				}
				delete(codes, api.LoginFailed)
				delete(codes, api.LoginThrottled)
				delete(codes, api.Overloaded)
				if len(codes) > 0 {
					t.Errorf("answers of other codes: %v", codes)
				}
				right := ways[tt.ways[0]](s)
				for _, member := range []string{"password", "currentPassword"} {
					if right.params[member] != nil {
						right.params[member] = stagePassword
					}
				}
				if got := s.say(t, from.address(guesses), right).Code; got != api.LoginThrottled || hasher.Runs()-before != tt.checked {
					t.Errorf("the right password then gets %d after %d checks, want %d", got, hasher.Runs()-before, api.LoginThrottled)
				}
			})
		}
	}
}

// However many addresses somebody has, in one /64 he may do what one may, in a
// /56 four times that, in a /48 sixteen times: fail, and have sessions.
func TestAddressesOfOneNetwork(t *testing.T) {
	const (
		addresses    = 10_000
		failuresOf1  = 100 // in a row that one address may have
		sessionLimit = 5
	)
	hasher := cheapHasher(t)
	for _, tt := range []struct {
		network        string
		inner, innests int // /64s in each /56, and /56s
		times          int
	}{
		{"2001:db8:1:2f07::/64", 1, 1, 1},
		{"2001:db8:1:2f00::/56", 40, 1, 4},
		{"2001:db8:1::/48", 5, 8, 16},
	} {
		t.Run(tt.network, func(t *testing.T) {
			s, err := newStage(t.Context(), props{
				store: mem.New(), hasher: hasher, logins: []string{"issuer"},
				config: fmt.Sprintf(`{"realms":[{"name":"app","type":"trusted"}],"jsonActionApiDefaults":{"maxJsonApiSessionsPerIpAddress":%d}}`, sessionLimit),
			})
			if err != nil {
				t.Fatal(err)
			}
			defer s.sessions.Close()
			network := netip.MustParsePrefix(tt.network)
			outside := netip.MustParseAddr("2001:db8:2::1")
			address := func(n int) netip.Addr {
				a := network.Addr().As16()
				if network.Bits() <= 48 {
					a[6] = byte(n % tt.innests)
				}
				if network.Bits() <= 56 {
					a[7] = byte(n / tt.innests % tt.inner)
				}
				binary.BigEndian.PutUint64(a[8:], uint64(n)*0x9e3779b97f4a7c15) // no two alike
				return netip.AddrFrom16(a)
			}

			guess := func(n int, from netip.Addr) api.Code {
				return s.say(t, from, spoken{"", "createSession", object{"username": fmt.Sprint("nobody-", n), "password": guessedWrong}}).Code
			}
			before := hasher.Runs()
			codes := map[api.Code]int{}
			for n := range addresses {
				codes[guess(n, address(n))]++
			}
			free := failuresOf1 * tt.times
			want := map[api.Code]int{api.LoginFailed: free, api.LoginThrottled: addresses - free}
			if runs := int(hasher.Runs() - before); runs != free || !maps.Equal(codes, want) {
				t.Errorf("failures: %d checks, answers by errorCode %v, want %v", runs, codes, want)
			}
			if got := guess(addresses, outside); got != api.LoginFailed {
				t.Errorf("an address outside gets %d, want %d", got, api.LoginFailed)
			}

			issue := func(n int, for_ netip.Addr) api.Code {
				return s.say(t, netip.Addr{}, spoken{s.byName["token:issuer"], "createSession", object{"realm": "app", "username": fmt.Sprint("user-", n), "clientIpAddress": for_.String()}}).Code
			}
			clear(codes)
			for n := range addresses {
				codes[issue(n, address(n))]++
			}
			places := sessionLimit * tt.times
			if want := map[api.Code]int{api.OK: places, api.SessionLimitPerIPAddress: addresses - places}; !maps.Equal(codes, want) {
				t.Errorf("sessions: answers by errorCode %v, want %v", codes, want)
			}
			if got := issue(addresses, outside); got != api.OK {
				t.Errorf("a session for an address outside gets %d", got)
			}
		})
	}
}

// ipv4 returns the nth of many addresses.
func ipv4(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18 + byte(n>>16&1), byte(n >> 8), byte(n)})
}

// together does something n times at one moment, and returns how often it answered
// each code.
func together(n int, do func(n int) api.Code) map[api.Code]int {
	answers := make([]api.Code, n)
	start := make(chan struct{})
	var group sync.WaitGroup
	for i := range answers {
		group.Go(func() {
			<-start
			answers[i] = do(i)
		})
	}
	close(start)
	group.Wait()
	codes := map[api.Code]int{}
	for code := range slices.Values(answers) {
		codes[code]++
	}
	return codes
}

// spoken is a request that is put together here: the token may be missing.
type spoken struct {
	token, action string
	params        object
}

type object map[string]any

// heard is an answer, as far as it is looked at.
type heard struct {
	Code   api.Code      `json:"errorCode"`
	Data   api.ErrorData `json:"errorData"`
	Result struct {
		AuthToken, SessionHandle, AccountID string
		Revoked, PermanentLeft              int
	}

	status     int
	retryAfter int64
	raw        []byte
}

// say sends a request from an address, or from nowhere.
func (s *stage) say(t *testing.T, from netip.Addr, r spoken) (h heard) {
	t.Helper()
	envelope := object{"action": r.action, "params": r.params}
	if r.token != "" {
		envelope["authToken"] = r.token
	}
	body, err := json.Marshal(envelope)
	if err != nil {
		t.Error(err)
		return h
	}
	a := s.dispatcher.Serve(t.Context(), &api.Request{Body: body, Address: from}, nil)
	if err := json.Unmarshal(a.Body, &h); err != nil {
		t.Errorf("%s: %v in %q", r.action, err, a.Body)
	}
	h.status, h.retryAfter, h.raw = a.Status, a.RetryAfterSeconds, a.Body
	return h
}

// must is say for what has to succeed.
func (s *stage) must(t *testing.T, r spoken) heard {
	t.Helper()
	h := s.say(t, netip.Addr{}, r)
	if h.Code != api.OK {
		t.Fatalf("%s: %s", r.action, h.raw)
	}
	return h
}
