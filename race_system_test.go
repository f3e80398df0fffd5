//go:build linux && system

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/campaign"
)

// The server as the race detector builds it, while the clients of a ledger and others
// that go through every action there is are at work, and while it stops and starts
// among them: nothing is reported, and afterwards it has no more files open, nor
// goroutines, than a server that did next to nothing.
func TestSystemCampaignRace(t *testing.T) {
	const whole, few = time.Minute, 8 * time.Second
	program := built(t, "CGO_ENABLED=1", "-race")
	campaign.Run(t, campaign.Plan{
		Name: "race detector", Trials: 5, Few: 1, Must: []string{dataRaces, internalErrors, leftFiles, leftGoroutines},
		About: "a minute of 16 clients with a ledger and 4 that go through all actions, on a server built with -race that is stopped and started in the middle",
	}, func(r *campaign.Trial) {
		d := few
		if r.Whole {
			d = whole
		}
		raceTrial(r, program, d)
	})
}

// built builds the program with a variable of the environment and some flags.
func built(t *testing.T, env string, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "sessiond")
	build := exec.CommandContext(t.Context(), "go", slices.Concat([]string{"build"}, flags, []string{"-o", program, "."})...)
	build.Env = append(os.Environ(), env)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

const (
	dataRaces      = "reports of the race detector"
	internalErrors = "internal errors"
	leftFiles      = "trials that left files open"
	leftGoroutines = "trials that left goroutines"

	raceLeft   = 2 // files and goroutines more than that are left
	raceWithin = 30 * time.Second
)

func raceTrial(r *campaign.Trial, program string, d time.Duration) {
	t := r.T
	reports := filepath.Join(t.TempDir(), "race")
	t.Setenv("GORACE", "log_path="+reports)
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	config := roomy()
	config["webhooks"] = []any{map[string]any{"name": "crm", "url": receiver.URL, "secretFile": webhookSecret(t)}}
	start := func(h home) (p *process, l *ledger) {
		h.program = program
		p = h.start(t)
		l = newLedger(hire(t, p))
		l.enlist(t, p)
		return p, l
	}
	calm, calmLedger := start(newHome(t, config))
	h := newHome(t, config)
	p, l := start(h)
	o := &tour{ledger: l, order: rand.Perm(len(matrix)), did: map[string]int{}, codes: map[int]int{}}

	half := func() { pause(t, d/2) }
	o.load(t, p, half, func() {
		if code, _ := p.terminate(); code != 0 {
			t.Errorf("exit code %d, want 0:\n%s", code, p.output)
		}
	})
	h.program = program // start had a copy
	p = h.start(t)
	o.load(t, p, func() {
		half()
		select {
		case <-o.toured:
		case <-time.After(4 * time.Minute):
			t.Error("two rounds through all actions take more than four minutes")
		}
	}, func() {})
	r.Count("requests of those that go through all actions", o.visits)
	r.Count("acknowledged creates, ends and other changes of the ledger", l.creates+l.ends+l.changes)
	r.Count(internalErrors, o.codes[int(api.Internal)])
	t.Logf("by errorCode: %v", o.codes)
	for _, action := range describeActions() {
		if o.did[action.Name] == 0 {
			t.Errorf("%s was never done", action.Name)
		}
	}

	lastCalls := func(p *process, s staff) { // that the same has just been done to both
		c := newClient(p, s.issuerKey.AuthToken)
		defer c.close()
		c.must(t, "createSession", params{"realm": "app", "username": "last"}, nil)
		if err := patiently(t.Context(), c.as(""), "createSession", params{"username": "admin", "password": adminPassword}, nil); err != nil {
			t.Fatal(err)
		}
	}
	lastCalls(p, l.staff)
	lastCalls(calm, calmLedger.staff)
	compareLeft(r, p, calm)
	countReports(r, reports)
}

// compareLeft counts what a server has not given back within raceWithin, compared
// with a calm one, and ends both.
func compareLeft(r *campaign.Trial, p, calm *process) {
	r.T.Helper()
	t, begun := r.T, time.Now()
	more := p.descriptors(t) - calm.descriptors(t)
	for ; more > raceLeft && time.Since(begun) < raceWithin; more = p.descriptors(t) - calm.descriptors(t) {
		pause(t, 100*time.Millisecond)
	}
	r.Most("ms until files were closed", time.Since(begun).Milliseconds())
	if more > raceLeft {
		t.Errorf("%d files more are open than of a server that did little", more)
		r.Count(leftFiles, 1)
	}
	pause(t, time.Second) // what ends with a connection may take another moment
	after, before := p.goroutines(t), calm.goroutines(t)
	if n, few := sum(after), sum(before); n > few+raceLeft || few == 0 {
		r.Count(leftGoroutines, 1)
		for _, origin := range slices.Sorted(maps.Keys(after)) {
			if after[origin] > before[origin] {
				t.Errorf("%d goroutines, not %d: %s", after[origin], before[origin], origin)
			}
		}
	}
}

// countReports counts what the race detector has written to files that begin so.
func countReports(r *campaign.Trial, begin string) {
	files, err := filepath.Glob(begin + ".*")
	if err != nil {
		r.T.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			r.T.Fatal(err)
		}
		r.Count(dataRaces, strings.Count(string(text), "WARNING: DATA RACE"))
		r.T.Logf("%.10000s", text)
	}
}

func webhookSecret(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwTheSecretAA="), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// goroutines ends a server, and returns how many goroutines it had, by what had
// started them. Those that serve connections are left out: of the ones that are open,
// descriptors tells, and without one they wait ten seconds for the next.
func (p *process) goroutines(t *testing.T) map[string]int {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-p.output.whole
	p.output.mu.Lock()
	defer p.output.mu.Unlock()
	counts := map[string]int{}
	for one := range strings.SplitSeq(strings.Join(p.output.lines, "\n"), "\n\n") {
		if !strings.HasPrefix(one, "goroutine ") || strings.Contains(one, "fasthttp.(*workerPool)") && strings.Contains(one, "workerFunc") {
			continue
		}
		_, origin, _ := strings.Cut(one, "created by ")
		origin, _, _ = strings.Cut(origin, " in goroutine")
		counts[origin]++
	}
	return counts
}

func sum(counts map[string]int) (n int) {
	for _, some := range counts {
		n += some
	}
	return n
}

// A tour goes through all that the matrix has, round after round, beside the clients
// of a ledger: in one round to guests of one's own, whom nobody disturbs, in the next
// to guests that all have at a time.
type tour struct {
	*ledger

	order  []int                    // of the matrix
	next   atomic.Int64             // place in it, over all rounds since the server started
	toured chan struct{}            // closed after two rounds
	shared [4]atomic.Pointer[guest] // of all
	names  atomic.Int64

	mu     sync.Mutex
	visits int
	did    map[string]int // by action
	codes  map[int]int
}

// A guest is an account with a session, which things are done to until they have
// ended it.
type guest struct {
	credential

	username string
	spoilt   atomic.Bool // it cannot log in with its password any more
}

const tourists = 4

// load is the ledger's, with a tour that lasts as long.
func (o *tour) load(t *testing.T, p *process, wait, end func()) {
	t.Helper()
	o.next.Store(0)
	o.toured = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ending atomic.Bool
	var group sync.WaitGroup
	for range tourists {
		boss := o.boss(t, p)
		group.Go(func() {
			w := &tourist{tour: o, boss: newClient(p, ""), name: boss}
			defer w.boss.close()
			for ctx.Err() == nil {
				n := int(o.next.Add(1)) - 1
				if err := w.visit(ctx, n/len(matrix), o.order[n%len(matrix)]); err != nil {
					if !ending.Load() {
						t.Errorf("a tourist: %v", err)
					}
					return
				}
				if n == 2*len(matrix)+tourists {
					close(o.toured)
				}
			}
		})
	}
	o.loadUntil(t, p, wait, func() {
		ending.Store(true)
		end()
	})
	cancel()
	group.Wait()
}

// boss returns the name of a new administrator.
func (o *tour) boss(t *testing.T, p *process) string {
	t.Helper()
	c := newClient(p, o.staff.admin.AuthToken)
	defer c.close()
	name := o.name("boss")
	c.must(t, "createAccount", params{"username": name, "password": adminPassword, "roles": []string{"admin"}}, nil)
	return name
}

func (o *tour) name(kind string) string { return fmt.Sprint(kind, "-", o.names.Add(1)) }

// A tourist is a client that does one thing after the other, as an administrator or
// with the guest's own session.
type tourist struct {
	*tour

	name string
	boss *client
	own  atomic.Pointer[guest]
}

// visit does what a row of the matrix says. An error means that nothing answered.
func (w *tourist) visit(ctx context.Context, round, row int) error {
	action, asked := matrix[row].action, matrix[row].params
	if strings.Contains(asked, `"level":"server"`) {
		return nil // or all the others would be out
	}
	place, role := &w.own, w.tour.name("role")
	if round%2 == 1 {
		place = &w.shared[rand.N(len(w.shared))]
	}
	err := w.enter(ctx)
	if err == nil {
		err = w.invite(ctx, place)
	}
	if err == nil && strings.Contains(asked, "clerk") {
		err = w.boss.call(ctx, "createRole", params{"roleName": role, "permissions": []string{"orders.write"}}, nil)
	}
	if err != nil {
		return w.note("", err)
	}
	g, by := place.Load(), w.boss
	asked = strings.NewReplacer(
		"HANDLE", g.SessionHandle, "TOKEN", g.AuthToken, "NAME", g.username, "${password}", adminPassword, "customers", "app", "theme", noteProperty,
		"newcomer", w.tour.name("newcomer"), `"new"`, fmt.Sprintf("%q", role), "clerk", role, `"waitSeconds":0`, `"waitSeconds":1`,
	).Replace(asked)
	byBoss := strings.Fields(matrix[row].other)[slices.Index(credentials, "admin")] == "0" // has success
	if round == 0 && !byBoss || round > 0 && rand.N(2) == 0 {
		by = by.as(g.AuthToken)
	}
	if action == "dropAccounts" || strings.Contains(asked, "another horse") || strings.Contains(asked, `"enabled":false`) {
		g.spoilt.Store(true)
	}
	var p params
	if err := json.Unmarshal([]byte(asked), &p); err != nil {
		return err
	}
	return w.note(action, by.call(ctx, action, p, nil))
}

// note counts an answer.
func (w *tourist) note(action string, err error) error {
	code := codeOf(err)
	if code < 0 {
		return fmt.Errorf("%s: %w", action, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.visits++
	w.codes[code]++
	if code == 0 {
		w.did[action]++
	}
	return nil
}

// enter logs the administrator in, if something has ended his session.
func (w *tourist) enter(ctx context.Context) error {
	if w.boss.call(ctx, "validate", nil, nil) == nil {
		return nil
	}
	var made credential
	err := patiently(ctx, w.boss.as(""), "createSession", params{"username": w.name, "password": adminPassword}, &made)
	w.boss.token = made.AuthToken
	return err
}

// invite sees to it that there is a guest with a session that lives.
func (w *tourist) invite(ctx context.Context, place *atomic.Pointer[guest]) error {
	before := place.Load()
	if before != nil && w.boss.as(before.AuthToken).call(ctx, "validate", nil, nil) == nil {
		return nil
	}
	g := &guest{}
	if before == nil || before.spoilt.Load() {
		g.username = w.tour.name("guest")
		if err := patiently(ctx, w.boss, "createAccount", params{"username": g.username, "password": adminPassword}, nil); err != nil {
			return err
		}
	} else {
		g.username = before.username
	}
	err := patiently(ctx, w.boss.as(""), "createSession", params{"username": g.username, "password": adminPassword}, &g.credential)
	g.spoilt.Store(err != nil)
	place.Store(g)
	return err
}

// patiently is call for what has to wait for its turn: a password is checked.
func patiently(ctx context.Context, c *client, action string, p params, result any) error {
	for {
		err := c.call(ctx, action, p, result)
		if codeOf(err) != overloaded {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
