package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sessiond/internal/logging"
	"sessiond/store"
	"sessiond/store/bolt"
)

// canary is a part of every password here; what holds it holds a password.
const canary = "canary7f3a91-Yellow"

// TestNoSecretEscapes plays every transcript, and requests with secrets where they
// do not belong, at the log level trace, with passwords that can be recognized. No
// password and no token, nor the secret part of one, is then in the log, in the
// store's values, its file or a backup of it, in an event, in the journal of revocations, in an error's answer or in debugInfo.
func TestNoSecretEscapes(t *testing.T) {
	all := append(transcripts(t), misplaced(), askedFor())
	called := map[string]bool{}
	for _, tr := range all {
		for i := range tr.Steps {
			for _, name := range members(tr.Steps[i].Request, "action") {
				called[strings.ToLower(strings.Trim(string(name), `"`))] = true
			}
		}
	}
	for _, d := range describeActions() {
		if !called[strings.ToLower(d.Name)] {
			t.Errorf("%s is not called", d.Name)
		}
	}
	seen := 0
	for _, tr := range all {
		t.Run(tr.name, func(t *testing.T) { seen += noSecretEscapes(t, tr) })
	}
	if seen == 0 {
		t.Error("no token was issued")
	}
}

// misplaced are requests with secrets where they do not belong.
func misplaced() *transcript {
	tr := &transcript{name: "misplaced", Logins: []string{"alice", "bob", "admin", "robot=alice:key"}}
	for _, request := range []string{
		`{"action":"createSession","params":{"username":"${password}","password":"x"}}`,
		`{"action":"createSession","params":{"username":"alice","password":"${password}x"},"debug":"max"}`,
		`{"action":"createSession","params":{"username":"alice","password":["${password}"]}}`,
		`{"action":"createSession","params":{"username":"alice","passwort":"${password}"},"debug":"max"}`,
		`{"action":"createSession","params":{"username":"alice","realm":"${password}","password":"x"}}`,
		`{"action":"createSession","params":{"username":"alice","password":"${password}","idleConnectionTimeoutSeconds":"${password}"}}`,
		`{"action":"createSession","params":{"username":"alice","password":"${password}","defaultDebug":"${password}"}}`,
		`{"action":"createSession","params":{"username":"alice","password":"${password}","clientIpAddress":"${token:alice}"},"authToken":"${token:admin}"}`,
		`{"action":"createAccount","params":{"username":"carol","password":"${password}","roles":["${password}"]},"authToken":"${token:admin}"}`,
		`{"action":"createAccount","params":{"username":"carol","password":"${password}","realm":"${token:bob}"},"authToken":"${token:admin}"}`,
		`{"action":"changePassword","params":{"currentPassword":"${password}x","newPassword":"${password}y"},"authToken":"${token:alice}","debug":"max"}`,
		`{"action":"changePassword","params":{"currentPassword":"${password}","newPassword":"${password}\u0000"},"authToken":"${token:alice}"}`,
		`{"action":"changePassword","params":{"username":"${token:bob}","newPassword":"${password}z"},"authToken":"${token:admin}"}`,
		`{"action":"changePassword","params":{"currentPassword":"${password}","newPassword":"${password} two"},"authToken":"${token:alice}","debug":"max"}`,
		`{"action":"getSessionInfo","params":{"sessionHandle":"${token:bob}"},"authToken":"${token:admin}","debug":"max"}`,
		`{"action":"describeSessions","params":{"sessionHandles":["${token:bob}"]},"authToken":"${token:admin}","debug":"max"}`,
		`{"action":"describeSessions","params":{"usernameFilter":["${token:bob}"],"cursor":"${password}"},"authToken":"${token:admin}"}`,
		`{"action":"listEvents","params":{"sessionHandle":"${token:bob}","kinds":["${password}"],"cursor":"n${token:bob}"},"authToken":"${token:admin}"}`,
		`{"action":"listEvents","params":{"username":"${token:bob}"},"authToken":"${token:admin}","debug":"max"}`,
		`{"action":"revokeSessions","params":{"sessionHandles":["${token:bob}"]},"authToken":"${token:admin}"}`,
		`{"action":"${token:alice}","authToken":"${token:alice}"}`,
		`{"api":"${token:alice}","action":"pingSession"}`,
		`{"action":"pingSession","apiVersion":"${token:alice}"}`,
		`{"action":"pingSession","debug":"${token:alice}"}`,
		`{"action":"pingSession","debug":"max","${token:alice}":1}`,
		`{"action":"pingSession","debug":"max","params":{"${token:alice}":{"${token:bob}":1}}}`,
		`{"action":"pingSession","debug":"max","x":{"${token:alice}":1,"${token:alice}":2}}`,
		`{"action":"pingSession","responseOptions":{"numberFormat":"${token:alice}"}}`,
		`{"action":"pingSession","debug":"max","responseOptions":{"omit":["${token:alice}"]}}`,
		`{"action":"pingSession","authToken":"${token:alice}x"}`,
		`{"action":"pingSession","authToken":"${token:alice}`,
		`{"action":"pingSession"} ${token:alice}`,
		`["${token:alice}",{"action":"validate","params":{"tokenId":"${token:alice}"}}]`,
		`${token:alice}`,
		`{"action":"deleteSession","params":{"tokenId":"${token:bob}"},"debug":"max"}`,
		`{"action":"logout","authToken":"${token:bob}","debug":"max"}`,
	} {
		tr.Steps = append(tr.Steps, step{RequestRaw: request, Address: "192.0.2.1", UserAgent: "agent"})
	}
	return tr
}

// askedFor are requests with a log-in's ticket, where it belongs and where it doesn't.
func askedFor() *transcript {
	tr := &transcript{
		name: "asked for", Logins: []string{"alice", "bob", "admin"},
		Config: json.RawMessage(`{"jsonActionApiDefaults":{"maxJsonApiSessionsPerUsername":1,"onSessionLimit":{"maxJsonApiSessionsPerUsername":"ask"}}}`),
	}
	tr.Steps = append(tr.Steps, step{Request: json.RawMessage(`{"action":"createSession","params":{"username":"alice","password":"${password}"},"debug":"max"}`), As: "asked"})
	for _, request := range []string{
		`{"action":"createSession","params":{"username":"bob","ticket":"${ticket:asked}","endSessionHandle":"${handle:bob}"},"debug":"max"}`,
		`{"action":"createSession","params":{"username":"alice","ticket":"${ticket:asked}","endSessionHandle":"${handle:bob}"},"debug":"max"}`,
		`{"action":"createSession","params":{"username":"alice","ticket":"${ticket:asked}x","endSessionHandle":"${ticket:asked}"},"debug":"max"}`,
		`{"action":"createSession","params":{"username":"${ticket:asked}","ticket":["${ticket:asked}"]},"debug":"max"}`,
		`{"action":"createSession","params":{"username":"alice","tikcet":"${ticket:asked}","password":"${ticket:asked}"},"debug":"max"}`,
		`{"action":"createSession","params":{"username":"alice","password":"${ticket:asked}"},"debug":"max"}`,
		`{"action":"createSession","params":{"username":"${ticket:asked}","password":"${password}"},"debug":"max"}`,
		`{"action":"getSessionInfo","authToken":"${ticket:asked}","debug":"max"}`,
		`{"action":"endSession","params":{"tokenId":"${ticket:asked}"},"authToken":"${token:bob}","debug":"max"}`,
		`{"action":"listClientSessions","params":{"sessionHandle":"${ticket:asked}"},"authToken":"${token:bob}","debug":"max"}`,
		`{"action":"removeSession","params":{"tokenId":"${token:alice}"},"authToken":"${token:alice}","debug":"max"}`,
		`{"action":"createSession","params":{"username":"alice","ticket":"${ticket:asked}","endSessionHandle":"${handle:alice}"},"debug":"max"}`,
		`{"action":"createSession","params":{"username":"alice","ticket":"${ticket:asked}","endSessionHandle":"${handle:alice}"},"debug":"max"}`,
	} {
		tr.Steps = append(tr.Steps, step{RequestRaw: request, Address: "192.0.2.1", UserAgent: "agent"})
	}
	return tr
}

// noSecretEscapes returns how many tokens were issued.
func noSecretEscapes(t *testing.T, tr *transcript) int {
	path := filepath.Join(t.TempDir(), "data")
	st, err := bolt.Open(t.Context(), path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var log buffered
	s, err := newStage(t.Context(), props{
		store: st, hasher: cheapHasher(t), config: string(tr.Config), logins: tr.Logins, password: "a " + canary,
		log: logging.New(&log, "trace", logging.JSON, func() time.Time { return dawn }),
	})
	if err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(t.TempDir(), "journal")
	j, err := openJournal(t.Context(), st, journal, "server", func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	answers := s.shown(t, tr)
	if err := j.Close(t.Context()); err != nil {
		t.Error(err)
	}
	revocations, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	answers["the journal of revocations"] = string(revocations)
	if err := s.sessions.Maintain(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.ask(t.Context(), &step{Request: json.RawMessage(`{"action":"createSession","params":{"username":"admin","password":"${password}"}}`), As: "reader"}, 0); err != nil {
		t.Fatal(err)
	}
	if _, known := s.byName["token:reader"]; known { // else the story left no way in
		events, err := s.ask(t.Context(), &step{Request: json.RawMessage(`{"api":"hub","action":"listEvents","params":{"limit":1000},"authToken":"${token:reader}","responseOptions":{"omit":["authToken"]}}`)}, 0)
		if err != nil {
			t.Fatal(err)
		}
		answers["the events"] = string(events.raw)
	}
	values := everything(t, st)
	backup := path + "-backup"
	if _, err := st.Backup(t.Context(), backup, bolt.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	s.sessions.Close()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"the file": path, "a backup": backup} {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(file, []byte("sessionCreated")) {
			t.Errorf("there is nothing to look through in %s", name)
		}
		answers[name] = string(file)
	}
	answers["the log"], answers["the values"] = log.String(), values
	if !strings.Contains(answers["the log"], `"message":"request"`) || !strings.Contains(values, "sessionCreated") {
		t.Error("there is nothing to look through")
	}
	tokens := 0
	for name, value := range s.byName {
		secret := value
		switch {
		case strings.HasPrefix(name, "token:"), strings.HasPrefix(name, "ticket:"):
			tokens++
			secret = value[len(value)-36 : len(value)-6]
		case !strings.HasPrefix(name, "once:"):
			continue
		}
		for where, text := range answers {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds the secret of %s", where, name)
			}
		}
	}
	for where, text := range answers {
		if strings.Contains(text, canary) {
			t.Errorf("%s holds a password", where)
		}
	}
	return tokens
}

// handedOut is a ticket where its refusal has it.
var handedOut = regexp.MustCompile(`"ticket": "sdtkt_[0-9A-Za-z]{58}",\n\s*"ticketExpirationTimestamp"`)

// shown plays the story and returns what of its answers must not hold secrets.
func (s *stage) shown(t *testing.T, tr *transcript) map[string]string {
	shown := map[string]string{}
	for i := range tr.Steps {
		got, err := s.play(t.Context(), &tr.Steps[i], i)
		if err != nil {
			t.Fatal(err)
		}
		codes, bodies, infos := members(got.raw, "errorCode"), each(got.raw), members(got.raw, "debugInfo")
		for j, code := range codes {
			at := fmt.Sprintf("answer %d.%d of step %d", j+1, len(codes), i+1)
			if string(code) != "0" {
				shown[at] = handedOut.ReplaceAllString(bodies[j], "")
			}
			shown["debugInfo of "+at] = string(infos[j])
		}
	}
	return shown
}

// everything returns all values and log entries of a store, one after the other.
func everything(t *testing.T, st store.Store) string {
	var all bytes.Buffer
	for _, kind := range []string{"acct/", "sess/", "past/", "end/", "touch/", "epoch/", "server/", "log/", "role/", "guess/", "source/", "gone/", "client/"} {
		for after := ""; ; {
			items, err := st.List(t.Context(), store.Range{Prefix: kind, After: after})
			if err != nil {
				t.Fatal(err)
			}
			for _, item := range items {
				all.WriteString(item.Key)
				all.Write(item.Value)
				after = item.Key
			}
			if len(items) == 0 {
				break
			}
		}
	}
	return all.String()
}

// buffered is a bytes.Buffer for many goroutines.
type buffered struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffered) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
