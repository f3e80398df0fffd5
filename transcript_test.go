package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/internal/logging"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/bolt"
	"sessiond/store/mem"
)

var update = flag.Bool("update", false, "write the answers into testdata/transcripts; review the difference")

// A transcript is a story of requests and their exact answers. Strings such as
// ${token:alice} stand for what differs from run to run: a token, handle, mask,
// id or cursor has the name of the step in whose answer it was seen first.
type transcript struct {
	Doc    string          `json:"doc"`
	Config json.RawMessage `json:"config,omitempty"` // over the shipped services.json
	Logins []string        `json:"logins,omitempty"` // who is logged in when the story begins
	Steps  []step          `json:"steps"`

	name string
}

type step struct {
	Doc        string          `json:"doc,omitempty"`
	Config     json.RawMessage `json:"config,omitempty"`  // put in force before the request
	Advance    string          `json:"advance,omitempty"` // moves the clock before the request, and maintains
	As         string          `json:"as,omitempty"`      // names what is new in the answer; else the step's number does
	Address    string          `json:"address,omitempty"`
	UserAgent  string          `json:"userAgent,omitempty"`
	Bearer     string          `json:"bearer,omitempty"`
	Request    json.RawMessage `json:"request,omitempty"`
	RequestRaw string          `json:"requestRaw,omitempty"` // what is no JSON
	Parts      bool            `json:"parts,omitempty"`      // its repetition differs: of many commits a part may be done, or the caller himself be dead
	Status     int             `json:"status,omitempty"`     // 200
	RetryAfter int64           `json:"retryAfter,omitempty"`
	Answer     json.RawMessage `json:"answer"`
}

// unshown are the codes that no transcript shows, and why.
var unshown = map[api.Code]string{
	api.UsesExhausted:  "keys have no count of uses yet",
	api.Stale:          "there is one node",
	api.RateLimited:    "the transport's: TestRawRequests",
	api.Overloaded:     "needs a store that is busy: TestStoreErrorsAsCodes",
	api.StorageFull:    "needs a store that is full: TestStoreErrorsAsCodes",
	api.StorageFailed:  "needs a store that stopped: TestStoreErrorsAsCodes",
	api.OutcomeUnknown: "needs a store that fails: TestStoreErrorsAsCodes",
	api.Internal:       "needs a store that fails: TestStoreErrorsAsCodes",
}

func TestTranscripts(t *testing.T) {
	for _, tr := range transcripts(t) {
		t.Run(tr.name, func(t *testing.T) {
			t.Run("mem", func(t *testing.T) { tr.run(t, mem.New(), *update) })
			t.Run("bolt", func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "data")
				st, err := bolt.Open(t.Context(), path, bolt.Options{})
				if err != nil {
					t.Fatal(err)
				}
				tr.run(t, st, false)
				if _, err := bolt.Verify(t.Context(), path, nil); err != nil {
					t.Errorf("the store afterwards: %v", err)
				}
			})
		})
	}
}

// TestTranscriptsShowEverything holds that every action succeeds somewhere and
// is refused somewhere, and that every code is seen.
func TestTranscriptsShowEverything(t *testing.T) {
	names, done, refused, codes := map[string]string{}, map[string]bool{}, map[string]bool{}, map[api.Code]bool{}
	for _, d := range describeActions() {
		for _, name := range append(d.Aliases, d.Name) {
			names[strings.ToLower(name)] = d.Name
		}
	}
	for _, tr := range transcripts(t) {
		for i := range tr.Steps {
			asked, answered := members(tr.Steps[i].Request, "action"), members(tr.Steps[i].Answer, "errorCode")
			for j, number := range answered {
				var code api.Code
				if err := json.Unmarshal(number, &code); err != nil {
					t.Errorf("%s, step %d: %v", tr.name, i+1, err)
				}
				codes[code] = true
				var action string
				if j >= len(asked) || json.Unmarshal(asked[j], &action) != nil {
					continue
				}
				if name := names[strings.ToLower(action)]; code == api.OK {
					done[name] = true
				} else {
					refused[name] = true
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Values(names)) {
		if !done[name] {
			t.Errorf("no transcript shows %s succeed", name)
		}
		if !refused[name] {
			t.Errorf("no transcript shows %s refused", name)
		}
	}
	for _, row := range api.Codes() {
		if reason, ok := unshown[row.Code]; ok == codes[row.Code] {
			t.Errorf("code %d %s: shown %t, and the reason why not is %q", row.Code, row.Name, codes[row.Code], reason)
		}
	}
}

// members returns the member of that name of an object, or of each in an array.
func members(text json.RawMessage, name string) (values []json.RawMessage) {
	var many []map[string]json.RawMessage
	if json.Unmarshal(text, &many) != nil {
		many = make([]map[string]json.RawMessage, 1)
		if json.Unmarshal(text, &many[0]) != nil {
			return nil
		}
	}
	for _, one := range many {
		values = append(values, one[name])
	}
	return values
}

const transcriptDir = "testdata/transcripts"

// transcripts reads them all; there is at least one.
func transcripts(t *testing.T) []*transcript {
	paths, err := filepath.Glob(transcriptDir + "/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	var all []*transcript
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tr := &transcript{name: strings.TrimSuffix(filepath.Base(path), ".json")}
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if err := d.Decode(tr); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if tr.Doc == "" || len(tr.Steps) == 0 {
			t.Fatalf("%s: a transcript has a doc and steps", path)
		}
		all = append(all, tr)
	}
	return all
}

// run plays a transcript on a store, which it closes, and opens a second server
// over the same data in the end: it must see what the first one sees.
func (tr *transcript) run(t *testing.T, st store.Store, update bool) {
	s, err := newStage(t.Context(), props{store: st, hasher: cheapHasher(t), config: string(tr.Config), logins: tr.Logins, log: logging.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range tr.Steps {
		sp := &tr.Steps[i]
		got, err := s.play(t.Context(), sp, i)
		if err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
		if update {
			sp.Answer, sp.Status, sp.RetryAfter = json.RawMessage(got.text), got.status, got.retryAfter
			if sp.Status == 200 {
				sp.Status = 0
			}
		}
		for _, difference := range sp.differences(got) {
			t.Errorf("step %d %s: %s", i+1, sp.Doc, difference)
		}
	}
	if err := s.agrees(t.Context(), false); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	s.sessions.Close()
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	if update {
		tr.write(t)
	}
}

// play does what a step says and returns the answer.
func (s *stage) play(ctx context.Context, sp *step, number int) (reply, error) {
	if err := s.prepare(ctx, sp); err != nil {
		return reply{}, err
	}
	return s.ask(ctx, sp, number)
}

func (s *stage) prepare(ctx context.Context, sp *step) error {
	if sp.Config != nil {
		if err := s.reload(string(sp.Config)); err != nil {
			return err
		}
	}
	if sp.Advance == "" {
		return nil
	}
	d, err := time.ParseDuration(sp.Advance)
	if err != nil {
		return err
	}
	s.clock.Advance(d)
	return s.sessions.Maintain(ctx)
}

func (s *stage) ask(ctx context.Context, sp *step, number int) (reply, error) {
	text := sp.RequestRaw
	if text == "" {
		text = string(sp.Request)
	}
	body, err := s.fill(text)
	if err != nil {
		return reply{}, err
	}
	bearer, err := s.fill(sp.Bearer)
	if err != nil {
		return reply{}, err
	}
	r := &api.Request{Body: []byte(body), Bearer: api.NewSecret(bearer), UserAgent: sp.UserAgent}
	if sp.Address != "" {
		if r.Address, err = netip.ParseAddr(sp.Address); err != nil {
			return reply{}, err
		}
	}
	as := sp.As
	if as == "" {
		as = fmt.Sprintf("step%d", number+1)
	}
	return s.serve(ctx, r, as), nil
}

// differences says in what an answer is not the recorded one.
func (sp *step) differences(got reply) (all []string) {
	if want := max(200, sp.Status); got.status != want {
		all = append(all, fmt.Sprintf("status %d, want %d", got.status, want))
	}
	if got.retryAfter != sp.RetryAfter {
		all = append(all, fmt.Sprintf("Retry-After %d, want %d", got.retryAfter, sp.RetryAfter))
	}
	if want := indented(sp.Answer); got.text != want {
		all = append(all, "the answer differs (-want +got):\n"+cmp.Diff(strings.Split(want, "\n"), strings.Split(got.text, "\n")))
	}
	return all
}

func (tr *transcript) write(t *testing.T) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(tr); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(transcriptDir, tr.name+".json"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// agrees compares the server with one that starts anew over the same data. Where
// ends were refused, sessions may live there that are dead here.
func (s *stage) agrees(ctx context.Context, refused bool) error {
	again := *s
	if err := again.open(ctx, logging.Nop()); err != nil {
		return err
	}
	defer again.sessions.Close()
	if a, b := s.sessions.Count(), again.sessions.Count(); a != b {
		return fmt.Errorf("%d sessions live, before it %d", b, a)
	}
	for name, handle := range s.byName {
		if !strings.HasPrefix(name, "handle:") {
			continue
		}
		if a, b := s.status(ctx, handle), again.status(ctx, handle); a != b && (!refused || b != session.Active.String()) {
			return fmt.Errorf("%s is %s, before it %s", name, b, a)
		}
	}
	return nil
}
