//go:build linux && bench

package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiond/actions"
	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/cli"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/bolt"
)

// servicesJSON is what all servers here run under: no limits, and times that no
// run outlasts.
const servicesJSON = `{
  "listeners": [{"serviceName": "http", "address": "127.0.0.1", "port": 0, "protocol": "http", "enabled": true}],
  "realms": [{"name": "app", "type": "trusted", "roles": ["customer"], "allowServerRoles": true}],
  "maxConnectionsPerIpAddress": 0,
  "jsonActionApiDefaults": {
    "maxJsonApiSessions": 0, "maxJsonApiSessionsPerIpAddress": 0, "maxJsonApiSessionsPerUsername": 0,
    "idleConnectionTimeoutSeconds": 86400, "enablePermanentJsonApiSessions": true
  }
}`

// data is a data folder with sessions, and what is needed to use them.
type data struct {
	dir             string
	accounts        int
	tokens          []string // of sessions of ordinary accounts
	gateway, issuer string   // tokens
	auditor         string   // a token

	recordBytes, eventBytes int // of one create
}

const (
	sessionsPerAccount = 10
	builders           = 512 // creates in flight
)

// fill makes a data folder with so many sessions, in this process, and measures
// validate without a network on the way.
func fill(t *testing.T, dir string, sessions int, r *report) *data {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	st, err := bolt.Open(t.Context(), filepath.Join(dir, cli.DataFile), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	d := &data{dir: dir, accounts: max(1, sessions/sessionsPerAccount), tokens: make([]string, sessions)}
	dom := assemble(t, st, clock.NewSystem())
	defer dom.close()
	d.gateway, d.issuer, d.auditor = dom.staff(t, "gateway"), dom.staff(t, "issuer"), dom.staff(t, "auditor")

	begun := time.Now()
	var next, records, bytes, entries atomic.Int64
	stop, err := st.Watch(st.Rev(), func(c store.Change) {
		if len(c.Put) == 1 && len(c.Entries) == 1 {
			records.Add(1)
			bytes.Add(int64(len(c.Put[0].Value)))
			entries.Add(int64(len(c.Entries[0].Data)))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range builders {
		group.Go(func() {
			for !t.Failed() {
				n := int(next.Add(1)) - 1
				if n >= sessions {
					return
				}
				d.tokens[n] = dom.create(t, username(n%d.accounts))
			}
		})
	}
	group.Wait()
	stop()
	if t.Failed() {
		t.FailNow()
	}
	t.Logf("created in process: %.0f sessions a second", float64(sessions)/time.Since(begun).Seconds())
	d.recordBytes, d.eventBytes = int(bytes.Load()/records.Load()), int(entries.Load()/records.Load())
	rand.Shuffle(len(d.tokens), func(i, j int) { d.tokens[i], d.tokens[j] = d.tokens[j], d.tokens[i] })
	r.own = dom.measure(t, d.ownBodies())
	r.gateway = dom.measure(t, d.gatewayBodies())
	return d
}

func username(n int) string { return fmt.Sprintf("user-%07d", n) }

// ownBodies are requests about random callers' own tokens, no two alike as long
// as there are enough.
func (d *data) ownBodies() []string {
	bodies := make([]string, distinct)
	for i, token := range d.sample() {
		bodies[i] = `{"api":"session","action":"validate","authToken":"` + token + `"}`
	}
	return bodies
}

// gatewayBodies are requests of a gateway about random tokens.
func (d *data) gatewayBodies() []string {
	bodies := make([]string, distinct)
	for i, token := range d.sample() {
		bodies[i] = `{"api":"session","action":"validate","params":{"tokenId":"` + token + `"},"authToken":"` + d.gateway + `"}`
	}
	return bodies
}

// createBodies are log-ins of random accounts, for whom an issuer vouches.
func (d *data) createBodies() []string {
	bodies := make([]string, distinct)
	for i := range bodies {
		bodies[i] = `{"api":"session","action":"createSession","params":{"realm":"app","username":"` + username(rand.N(d.accounts)) + `"},"authToken":"` + d.issuer + `"}`
	}
	return bodies
}

// sample returns random tokens: another stretch of the shuffled ones each time.
func (d *data) sample() []string {
	tokens := make([]string, distinct)
	from := rand.N(len(d.tokens))
	for i := range tokens {
		tokens[i] = d.tokens[(from+i)%len(d.tokens)]
	}
	return tokens
}

// domain is the server without its doors, as main puts it together.
type domain struct {
	sessions   *session.Keeper
	accounts   *account.Directory
	dispatcher *dispatch.Dispatcher
	realm      *config.Realm
	settings   config.Settings
	hasher     *account.Hasher
}

func assemble(t *testing.T, st store.Store, now clock.Clock) *domain {
	t.Helper()
	cfg, err := config.Parse([]byte(servicesJSON), "services.json")
	if err != nil {
		t.Fatal(err)
	}
	dom := &domain{settings: cfg.Defaults.Settings, hasher: account.NewHasher(1, 1)}
	for i := range cfg.Realms {
		if cfg.Realms[i].Name == "app" {
			dom.realm = &cfg.Realms[i]
		}
	}
	holder := config.NewHolder(cfg)
	dom.accounts = account.New(account.Deps{Store: st, Clock: now, Hasher: dom.hasher})
	if dom.sessions, err = session.Open(t.Context(), session.Deps{Store: st, Accounts: dom.accounts, Clock: now, Config: holder}, nil); err != nil {
		t.Fatal(err)
	}
	table := actions.Table(actions.Deps{Sessions: dom.sessions, Accounts: dom.accounts, Events: actions.ReadEvents(st), Clock: now})
	if dom.dispatcher, err = dispatch.New(dispatch.Deps{Sessions: dom.sessions, Config: holder, Clock: now}, table); err != nil {
		t.Fatal(err)
	}
	return dom
}

func (dom *domain) close() {
	dom.sessions.Close()
	dom.hasher.Close()
}

// staff returns the token of an account that has one role, by which it is named.
func (dom *domain) staff(t *testing.T, role string) string {
	t.Helper()
	if _, err := dom.accounts.Create(t.Context(), event.Actor{}, account.NewAccount{Realm: "app", Username: role, Roles: []string{role}}); err != nil {
		t.Fatal(err)
	}
	return dom.create(t, role)
}

func (dom *domain) create(t *testing.T, username string) string {
	_, token, err := dom.sessions.Create(t.Context(), &session.NewSession{
		Realm: dom.realm, Username: username, Issuer: &session.Caller{Live: session.Live{Permissions: account.AllPermissions}}, Settings: dom.settings, Idle: 24 * 3600, Cursor: 24 * 3600,
	})
	if err != nil {
		t.Errorf("create: %v", err)
	}
	return token.Reveal()
}

// inProcess is what a request costs without a network.
type inProcess struct {
	allocations float64
	nanoseconds float64
}

// measure answers requests in this process.
func (dom *domain) measure(t *testing.T, bodies []string) inProcess {
	t.Helper()
	requests := make([]api.Request, len(bodies))
	for i := range bodies {
		requests[i].Body = []byte(bodies[i])
	}
	dst, i := make([]byte, 0, 4096), 0
	serve := func() {
		i = (i + 1) % len(requests)
		if a := dom.dispatcher.Serve(t.Context(), &requests[i], dst[:0]); a.Status != 200 {
			t.Errorf("HTTP %d: %s", a.Status, a.Body)
		}
	}
	const runs = 200_000
	allocations := testing.AllocsPerRun(distinct, serve)
	begun := time.Now()
	for range runs {
		serve()
	}
	return inProcess{allocations, float64(time.Since(begun).Nanoseconds()) / runs}
}
