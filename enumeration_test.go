package main

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"testing"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store/mem"
)

// Whoever may not log in is told the same as who does not exist, byte by byte,
// after the same work, and has to wait as long, try after try.
func TestRefusedLogins(t *testing.T) {
	for _, limits := range []string{
		`{"maxJsonApiSessionsPerUsername":1}`,
		`{"maxJsonApiSessionsPerUsername":1,"onSessionLimit":{"maxJsonApiSessionsPerUsername":"ask"}}`,
		`{"maxJsonApiSessionsPerUsername":1,"onSessionLimit":{"maxJsonApiSessionsPerUsername":"evictOldest"}}`,
		`{"maxJsonApiSessions":1,"onSessionLimit":{"maxJsonApiSessions":"evictAll"}}`,
		`{"maxJsonApiSessions":1,"maxJsonApiSessionsPerUsername":1,"onSessionLimit":{"maxJsonApiSessions":"evictOldest","maxJsonApiSessionsPerUsername":"ask"}}`,
	} {
		t.Run(limits, func(t *testing.T) { refusedLogins(t, limits) })
	}
}

func refusedLogins(t *testing.T, limits string) {
	t.Helper()
	hasher := cheapHasher(t)
	s, err := newStage(t.Context(), props{
		store: mem.New(), hasher: hasher, logins: []string{"admin"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.sessions.Close()
	admin := s.byName["token:admin"]
	create := func(name string, with object) {
		with["username"] = name
		if with["oneTimePassword"] == nil {
			with["password"] = stagePassword
		}
		s.must(t, spoken{admin, "createAccount", with})
	}
	create("plain", object{})
	create("disabled", object{"enabled": false})
	create("early", object{"enableDatetime": dawn.AddDate(1, 0, 0).Format(time.RFC3339)})
	create("late", object{"disableDatetime": dawn.Format(time.RFC3339)})
	create("fenced", object{"allowedAddresses": []string{"192.0.2.0/24"}})
	create("once", object{"oneTimePassword": true})
	create("dropped", object{})
	s.must(t, spoken{admin, "dropAccounts", object{"usernames": []string{"dropped"}}})
	create("full", object{})
	s.must(t, spoken{"", "createSession", object{"username": "full", "password": stagePassword, "idleConnectionTimeoutSeconds": 0}})
	create("mustchange", object{"maxDaysBeforePasswordMustChange": 1})
	if _, err := s.accounts.Create(t.Context(), event.Actor{}, account.NewAccount{Realm: "native", Username: "nopassword"}); err != nil {
		t.Fatal(err)
	}
	s.must(t, spoken{"", "createSession", object{"username": "plain", "password": stagePassword, "idleConnectionTimeoutSeconds": 0}})
	s.clock.Advance(2 * time.Hour)
	if err := s.reload(`{"jsonActionApiDefaults":` + limits + `}`); err != nil {
		t.Fatal(err)
	}
	address := 0
	try := func(name, password string) (h heard, checks int64) {
		address++
		before := hasher.Runs()
		h = s.say(t, ipv4(address), spoken{"", "createSession", object{"username": name, "password": password}})
		return h, hasher.Runs() - before
	}

	logins := []struct{ name, password string }{
		{"nobody", stagePassword}, // with which all others are compared
		{"nobody-else", guessedWrong},
		{"no name", stagePassword},
		{"zero\u200bwidth", guessedWrong},
		{"plain", guessedWrong},
		{"disabled", stagePassword},
		{"early", stagePassword},
		{"late", stagePassword},
		{"fenced", stagePassword},
		{"once", guessedWrong},
		{"dropped", stagePassword},
		{"full", guessedWrong},
		{"mustchange", guessedWrong},
		{"nopassword", stagePassword},
	}
	for step, wait := range []time.Duration{0, 0, 0, 0, 0, 0, 0, time.Second, 0, time.Second, time.Second, 4 * time.Second, 0, time.Hour, 25 * time.Hour} {
		s.clock.Advance(wait)
		want, checks := try(logins[0].name, logins[0].password)
		if code := want.Code; code != api.LoginFailed && code != api.LoginThrottled || step == 6 && code != api.LoginThrottled {
			t.Fatalf("try %d: %s", step, want.raw)
		}
		for _, l := range logins[1:] {
			got, checked := try(l.name, l.password)
			if got.status != want.status || got.retryAfter != want.retryAfter || !bytes.Equal(got.raw, want.raw) || checked != checks {
				t.Errorf("try %d of %q: HTTP %d, %s, %d checks, but where nobody is: HTTP %d, %s, %d checks", step, l.name, got.status, got.raw, checked, want.status, want.raw, checks)
			}
		}
	}
}

func TestMannWhitney(t *testing.T) {
	for _, tt := range []struct {
		x, y []time.Duration
		want float64
	}{
		{[]time.Duration{1, 7, 8, 9, 10, 11}, []time.Duration{2, 3, 4, 5, 6, 12}, 11.0 / 36}, // Aesop's race as Wikipedia has it: U is 11
		{[]time.Duration{1, 2, 3}, []time.Duration{2, 3, 4}, 7.0 / 9},
		{[]time.Duration{1, 2}, []time.Duration{3, 4, 5}, 1},
		{[]time.Duration{3, 4, 5}, []time.Duration{1, 2}, 0},
		{[]time.Duration{5, 5}, []time.Duration{5, 5, 5}, 0.5},
	} {
		if got := mannWhitney(tt.x, tt.y); math.Abs(got-tt.want) > 1e-12 {
			t.Errorf("%v and %v: %v, want %v", tt.x, tt.y, got, tt.want)
		}
	}
}

// mannWhitney returns how probable it is that a value of x is below one of y, equal
// ones counted half: the area under the curve of who would tell the two apart by a
// bound (Mann and Whitney 1947).
func mannWhitney(x, y []time.Duration) float64 {
	type value struct {
		time.Duration
		ofY bool
	}
	var all []value
	for _, d := range x {
		all = append(all, value{d, false})
	}
	for _, d := range y {
		all = append(all, value{d, true})
	}
	slices.SortFunc(all, func(a, b value) int { return cmp.Compare(a.Duration, b.Duration) })
	ranks := 0.0 // of y
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].Duration == all[i].Duration {
			j++
		}
		for _, v := range all[i:j] {
			if v.ofY {
				ranks += float64(i+1+j) / 2 // the mean of those that are equal
			}
		}
		i = j
	}
	n, m := float64(len(x)), float64(len(y))
	return (ranks - m*(m+1)/2) / (n * m)
}
