package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/logging"
	"sessiond/store/bolt"
)

// The data of servers of each format, as they were written at the time, with
// questions and what was answered. A file is made once, by the program that had its
// format, and never again: what is in it lies in the data folders of users.
const goldenDir = "testdata/golden"

var makeGolden = flag.Int("golden", 0, "make the golden files of this `format`, where there are none")

// goldenStories are the transcripts whose data is kept: together they have values of
// every kind.
var goldenStories = []string{
	"ask", "assign_roles", "clients", "drop_accounts", "mass_logout", "one_time_password", "properties", "repeated_login", "roles_frozen", "rotate", "throttle", "trusted_realm",
}

// goldenKinds are what the files of a format hold at least one value of.
var goldenKinds = []string{"acct", "client", "end", "epoch", "gone", "guess", "log", "past", "role", "server", "sess", "source", "touch"}

// golden is what is kept beside a file.
type golden struct {
	Config string     `json:"config"` // over the shipped services.json
	Now    time.Time  `json:"now"`
	User   string     `json:"user"` // who may log in
	Asked  []exchange `json:"asked"`
}

type exchange struct {
	Request json.RawMessage `json:"request"`
	Answer  json.RawMessage `json:"answer"`
}

// A server answers from the data of every format as the one did that wrote it; it
// may say more.
func TestGolden(t *testing.T) {
	formats, err := filepath.Glob(goldenDir + "/format*")
	if err != nil || len(formats) == 0 {
		t.Fatalf("there are none: %v", err)
	}
	for _, dir := range formats {
		kinds := map[string]uint64{}
		for _, story := range goldenStories {
			t.Run(filepath.Base(dir)+"/"+story, func(t *testing.T) {
				var g golden
				text, err := os.ReadFile(filepath.Join(dir, story+".json"))
				if err == nil {
					err = json.Unmarshal(text, &g)
				}
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(t.TempDir(), "data")
				unpack(t, filepath.Join(dir, story+".db.gz"), path)
				sum, err := bolt.Verify(t.Context(), path, nil)
				if err != nil {
					t.Error(err)
				}
				for kind, n := range sum.Kinds {
					if !slices.Contains(storeKinds(), kind) {
						t.Errorf("salvage does not know of kind %s", kind)
					}
					kinds[kind] += n
				}
				g.play(t, path)
				if _, err := bolt.Verify(t.Context(), path, nil); err != nil {
					t.Error(err)
				}
			})
		}
		for _, kind := range goldenKinds {
			if kinds[kind] == 0 {
				t.Errorf("%s: nothing of kind %s", dir, kind)
			}
		}
	}
}

func (g *golden) play(t *testing.T, path string) {
	t.Helper()
	st, err := bolt.Open(t.Context(), path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	cfg, err := overShipped(g.Config)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{
		store: st, hasher: cheapHasher(t), clock: clock.NewFake(g.Now), config: config.NewHolder(cfg), random: newSteady(),
		byName: map[string]string{}, byValue: map[string]string{},
	}
	if err := s.open(t.Context(), logging.Nop()); err != nil {
		t.Fatal(err)
	}
	defer s.sessions.Close()
	for _, a := range g.Asked {
		got := s.dispatcher.Serve(t.Context(), &api.Request{Body: a.Request}, nil)
		if lacks := lacking("", a.Answer, got.Body); lacks != "" {
			t.Errorf("%s\n%s\nin %s", a.Request, lacks, got.Body)
		}
	}
	s.clock.Advance(time.Second)
	made := s.dispatcher.Serve(t.Context(), &api.Request{Body: []byte(loginOf(g.User))}, nil)
	if !bytes.Contains(made.Body, []byte(`"errorCode":0`)) {
		t.Errorf("a change: %s", made.Body)
	}
	s.clock.Advance(400 * 24 * time.Hour)
	if err := s.sessions.Maintain(t.Context()); err != nil {
		t.Errorf("a year later: %v", err)
	}
}

// lacking says what of one JSON text another has not, empty if nothing.
func lacking(at string, want, got json.RawMessage) string {
	var wantObject, gotObject map[string]json.RawMessage
	if json.Unmarshal(want, &wantObject) == nil && json.Unmarshal(got, &gotObject) == nil && wantObject != nil {
		for _, name := range slices.Sorted(maps.Keys(wantObject)) {
			if lacks := lacking(at+"/"+name, wantObject[name], gotObject[name]); lacks != "" {
				return lacks
			}
		}
		return ""
	}
	var wantList, gotList []json.RawMessage
	if json.Unmarshal(want, &wantList) == nil && json.Unmarshal(got, &gotList) == nil && len(wantList) == len(gotList) {
		for i := range wantList {
			if lacks := lacking(at+"/"+strconv.Itoa(i), wantList[i], gotList[i]); lacks != "" {
				return lacks
			}
		}
		return ""
	}
	if bytes.Equal(want, got) {
		return ""
	}
	return fmt.Sprintf("%s is %s, it was %s", at, got, want)
}

func TestLacking(t *testing.T) {
	for _, tt := range []struct{ want, got, lacks string }{
		{`{"a":[1,{"b":"x"}]}`, `{"a":[1,{"b":"x","c":2}],"d":3}`, ""},
		{`{"a":[1,{"b":"x"}]}`, `{"a":[1,{"b":"y"}]}`, `/a/1/b is "y", it was "x"`},
		{`{"a":[1]}`, `{"a":[1,2]}`, `/a is [1,2], it was [1]`},
		{`{"a":1}`, `{}`, `/a is , it was 1`},
	} {
		if got := lacking("", json.RawMessage(tt.want), json.RawMessage(tt.got)); got != tt.lacks {
			t.Errorf("%s of %s: %q, want %q", tt.want, tt.got, got, tt.lacks)
		}
	}
}

func loginOf(username string) string {
	return `{"action":"createSession","params":{"username":"` + username + `","password":"` + stagePassword + `"}}`
}

func unpack(t *testing.T, from, to string) {
	t.Helper()
	packed, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = packed.Close() }()
	r, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestMakeGolden makes what is not there, and changes nothing that is.
func TestMakeGolden(t *testing.T) {
	if *makeGolden == 0 {
		return
	}
	dir := filepath.Join(goldenDir, fmt.Sprintf("format%d", *makeGolden))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tr := range transcripts(t) {
		file := filepath.Join(dir, tr.name+".db.gz")
		if _, err := os.Stat(file); err == nil || !errors.Is(err, fs.ErrNotExist) || !slices.Contains(goldenStories, tr.name) {
			continue
		}
		path := filepath.Join(t.TempDir(), "data")
		g := tr.golden(t, path)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.TrimRight(content, "\x00")
		content = append(content, make([]byte, (4096-len(content)%4096)%4096)...)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := bolt.Verify(t.Context(), path, nil); err != nil {
			t.Fatal(err)
		}
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err == nil {
			_, err = w.Write(content)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		text, err := json.MarshalIndent(g, "", "  ")
		if err == nil {
			err = os.WriteFile(strings.TrimSuffix(file, ".db.gz")+".json", append(text, '\n'), 0o644)
		}
		if err == nil {
			err = os.WriteFile(file, packed.Bytes(), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// golden plays a transcript and asks about what it left behind.
func (tr *transcript) golden(t *testing.T, path string) *golden {
	t.Helper()
	st, err := bolt.Open(t.Context(), path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStage(t.Context(), props{store: st, hasher: cheapHasher(t), config: string(tr.Config), logins: tr.Logins, log: logging.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	g := &golden{Config: string(tr.Config)}
	for i := range tr.Steps {
		if _, err := s.play(t.Context(), &tr.Steps[i], i); err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
		if tr.Steps[i].Config != nil {
			g.Config = string(tr.Steps[i].Config)
		}
	}
	s.clock.Advance(70 * time.Second) // what is in memory alone is written
	if err := s.sessions.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, g.User = range []string{"admin", "operator", "auditor", "issuer", "alice"} {
		if s.serve(t.Context(), &api.Request{Body: []byte(loginOf(g.User))}, "keeper"); s.byName["token:keeper"] != "" {
			break
		}
	}
	s.serve(t.Context(), &api.Request{Body: []byte(loginOf(g.User))}, "ended")
	s.serve(t.Context(), &api.Request{Body: []byte(`{"action":"logout","authToken":"` + s.byName["token:ended"] + `"}`)}, "ended")
	keeper := s.byName["token:keeper"]
	if keeper == "" {
		t.Fatalf("%s: nobody may log in", tr.name)
	}
	g.Now = s.clock.Now().UTC()
	s.sessions.Close()
	again := *s
	if err := again.open(t.Context(), logging.Nop()); err != nil {
		t.Fatal(err)
	}
	var requests []string
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		if strings.HasPrefix(name, "token:") {
			requests = append(requests, `{"action":"validate","authToken":"`+keeper+`","params":{"tokenId":"`+s.byName[name]+`","refresh":false}}`)
		}
	}
	for _, action := range []string{"describeSessions", "listEvents", "describeAccounts", "describeRoles", "listSessions"} {
		requests = append(requests, `{"action":"`+action+`","authToken":"`+keeper+`"}`)
	}
	for _, request := range requests {
		got := again.dispatcher.Serve(t.Context(), &api.Request{Body: []byte(request)}, nil)
		g.Asked = append(g.Asked, exchange{json.RawMessage(request), json.RawMessage(bytes.Clone(got.Body))})
	}
	again.sessions.Close()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	return g
}
