package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sessiond/actions"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/logging"
	"sessiond/internal/session"
	"sessiond/internal/wire"
	"sessiond/store"
)

// stagePassword is everybody's on the stage, unless its props say otherwise.
const stagePassword = "correct horse battery staple"

// cast are the accounts that are there from the start, and their roles.
var cast = map[string][]string{
	"admin": {"admin"}, "operator": {"operator"}, "auditor": {"auditor"}, "gateway": {"gateway"}, "issuer": {"issuer"},
	"alice": nil, "bob": nil,
}

// dawn is when every story begins.
var dawn = time.Date(2026, 3, 2, 8, 15, 0, 0, time.UTC)

// A stage is a whole server without its doors, whose clock stands still, whose
// identifiers grow by count, and whose passwords are cheap to check. It knows by
// name whatever differs from one run to the next.
type stage struct {
	*server
	store  store.Store
	hasher *account.Hasher
	clock  *clock.Fake
	config *config.Holder
	random *steady

	password string

	byName  map[string]string // "token:alice" → sdses_…
	byValue map[string]string
}

// props are what a stage is built from.
type props struct {
	store  store.Store
	hasher *account.Hasher
	config string   // over the shipped services.json, member by member
	logins []string // alice, alice2=alice, or robot=alice:key

	password string // empty: stagePassword
	log      *logging.Logger
}

func cheapHasher(t testing.TB) *account.Hasher {
	h := account.NewHasherCost(2, 0, account.Cost{MemoryKiB: 8, Iterations: 1, Parallelism: 1})
	t.Cleanup(h.Close)
	return h
}

// newStage builds a server, creates the accounts and logs in who is to be there
// from the start.
func newStage(ctx context.Context, p props) (*stage, error) {
	cfg, err := overShipped(p.config)
	if err != nil {
		return nil, err
	}
	s := &stage{
		store: p.store, hasher: p.hasher, password: cmp.Or(p.password, stagePassword), clock: clock.NewFake(dawn), config: config.NewHolder(cfg), random: newSteady(),
		byName: map[string]string{}, byValue: map[string]string{},
	}
	if err := s.open(ctx, p.log); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(cast)) {
		a, err := s.accounts.Create(ctx, event.Actor{}, account.NewAccount{Realm: "native", Username: name, Roles: cast[name], Password: api.NewSecret(s.password)})
		if err != nil {
			return nil, err
		}
		s.bind("id:"+name, a.ID.String())
	}
	for _, login := range p.logins {
		as, name, key := splitLogin(login)
		body := fmt.Sprintf(`{"action":"createSession","params":{"username":%q,"password":%q,"permanentSession":%t}}`, name, s.password, key)
		if got := s.serve(ctx, &api.Request{Body: []byte(body)}, as); !strings.Contains(got.text, `"errorCode": 0`) {
			return nil, fmt.Errorf("log in %s: %s", login, got.text)
		}
	}
	return s, nil
}

func splitLogin(login string) (as, name string, key bool) {
	login, key = strings.CutSuffix(login, ":key")
	as, name, found := strings.Cut(login, "=")
	if !found {
		name = as
	}
	return as, name, key
}

// open assembles the server anew, over what the store has.
func (s *stage) open(ctx context.Context, log *logging.Logger) error {
	var err error
	s.server, err = assemble(ctx, parts{
		Store: s.store, Config: s.config, Clock: s.clock, Log: log, Hasher: s.hasher, Random: s.random,
		Services: &stageDoors{config: s.config, states: map[string]api.ServiceState{}},
		Upkeep:   &stageUpkeep{clock: s.clock, record: actions.WriteEvents(s.store)},
		Host: actions.Host{
			Name: "stage", UUID: "d1430a57-5c8e-44db-adf6-2dbb17ae3e06", ServerNamePort: "stage:8080",
			Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		},
	})
	return err
}

// reload puts another services.json in force, as SIGHUP does.
func (s *stage) reload(text string) error {
	cfg, err := overShipped(text)
	if err == nil {
		s.config.Set(cfg)
		s.sessions.Configure(cfg)
	}
	return err
}

// overShipped lays members over those of the shipped services.json.
func overShipped(text string) (*config.Config, error) {
	var whole map[string]any
	if err := json.Unmarshal(config.Shipped(), &whole); err != nil {
		return nil, err
	}
	if text != "" {
		var over map[string]any
		if err := json.Unmarshal([]byte(text), &over); err != nil {
			return nil, err
		}
		merge(whole, over)
	}
	merged, err := json.Marshal(whole)
	if err != nil {
		return nil, err
	}
	return config.Parse(merged, "services.json")
}

// merge is RFC 7396.
func merge(to, over map[string]any) {
	for name, value := range over {
		inner, isObject := value.(map[string]any)
		there, wasObject := to[name].(map[string]any)
		switch {
		case value == nil:
			delete(to, name)
		case isObject && wasObject:
			merge(there, inner)
		default:
			to[name] = value
		}
	}
}

// reply is an answer in which names stand for whatever differs between runs.
type reply struct {
	status     int
	retryAfter int64
	text       string // indented
	raw        []byte
}

// serve has the dispatcher answer; what is new in the answer is called as.
func (s *stage) serve(ctx context.Context, r *api.Request, as string) reply {
	a := s.dispatcher.Serve(ctx, r, nil)
	return reply{a.Status, a.RetryAfterSeconds, s.named(a.Body, as), a.Body}
}

var placeholder = regexp.MustCompile(`\$\{([a-z]+:[A-Za-z0-9.-]+|password)\}`)

// fill puts values in place of their names.
func (s *stage) fill(text string) (string, error) {
	var unknown error
	filled := placeholder.ReplaceAllStringFunc(text, func(name string) string {
		name = name[2 : len(name)-1]
		if name == "password" {
			return s.password
		}
		value, ok := s.byName[name]
		if !ok {
			unknown = fmt.Errorf("nothing is called %s", name)
		}
		return value
	})
	return filled, unknown
}

func (s *stage) bind(name, value string) {
	s.byName[name], s.byValue[value] = value, name
}

// bindNew gives a value the first name that is free.
func (s *stage) bindNew(kind, as, value string) string {
	name := kind + ":" + as
	for n := 2; s.byName[name] != ""; n++ {
		name = kind + ":" + as + "." + strconv.Itoa(n)
	}
	s.bind(name, value)
	return name
}

// What differs between runs, by its form or by its member.
var (
	ticketForm = regexp.MustCompile(`^sdtkt_[0-9A-Za-z]{58}$`)
	tokenForm  = regexp.MustCompile(`^sd(ses|key)_[0-9A-Za-z]{58}$`)
	handleForm = regexp.MustCompile(`^sh_[0-9A-Za-z]{22}$`)
	clientForm = regexp.MustCompile(`^cl_[0-9A-Za-z]{22}$`)
	idForm     = regexp.MustCompile(`^[0-9A-Za-z]{22}$`)
)

// name returns a text, or what stands for it. A token brings its handle and its
// mask along: that they belong to it is so checked too.
func (s *stage) name(member, text, as string) string {
	if name, ok := s.byValue[text]; ok && strings.HasPrefix(name, "cursor:") == (member == "cursor") {
		return "${" + name + "}"
	}
	switch {
	case tokenForm.MatchString(text):
		name := s.bindNew("token", as, text)
		_, as, _ = strings.Cut(name, ":")
		s.bind("handle:"+as, "sh_"+text[6:28])
		s.bind("client:"+as, "cl_"+text[6:28])
		s.bind("mask:"+as, text[:6]+"..."+text[56:])
		return "${" + name + "}"
	case ticketForm.MatchString(text):
		return "${" + s.bindNew("ticket", as, text) + "}"
	case handleForm.MatchString(text):
		return "${" + s.bindNew("handle", as, text) + "}"
	case clientForm.MatchString(text):
		return "${" + s.bindNew("client", as, text) + "}"
	case member == "oneTimePassword":
		return "${" + s.bindNew("once", as, text) + "}"
	case member == "accountId" && idForm.MatchString(text):
		return "${" + s.bindNew("id", as, text) + "}"
	case member == "cursor":
		return "${" + s.bindNew("cursor", as, text) + "}"
	}
	return text
}

// named renders an answer, indented.
func (s *stage) named(body []byte, as string) string {
	root, faults := wire.ParseTree(body)
	if len(faults) > 0 {
		return fmt.Sprintf("no JSON, at byte %d: %q", faults[0].Offset, body)
	}
	return string(wire.Indent(nil, s.appendNamed(nil, "", root, as)))
}

func (s *stage) appendNamed(dst []byte, member string, n *wire.Node, as string) []byte {
	switch n.Kind {
	case wire.String:
		text, _ := n.String()
		if name := s.name(member, text, as); name != text {
			return wire.AppendString(dst, name)
		}
	case wire.Object:
		dst = append(dst, '{')
		for i, m := range n.Members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(wire.AppendString(dst, s.name("", m.Name, as)), ':')
			dst = s.appendNamed(dst, m.Name, m.Value, as)
		}
		return append(dst, '}')
	case wire.Array:
		dst = append(dst, '[')
		for i, item := range n.Items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = s.appendNamed(dst, member, item, as)
		}
		return append(dst, ']')
	case wire.Null, wire.Bool, wire.Number:
	}
	return append(dst, n.Raw...)
}

// steady gives random bytes that are the same in each run and, at their
// beginning, grow: sessions of one moment so sort by creation. Eight of them, by which a
// lifetime is cut, are always the same: a fault moves no later cut.
type steady struct {
	mu     sync.Mutex
	reads  uint32
	stream *rand.ChaCha8
}

func newSteady() *steady { return &steady{stream: rand.NewChaCha8([32]byte{1})} }

func (r *steady) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(p) == 8 {
		return copy(p, "\x00\x00\x00\x00\x00\x00\x00\x9b"), nil
	}
	n, err := r.stream.Read(p)
	if len(p) >= 4 {
		r.reads++
		binary.BigEndian.PutUint32(p, r.reads)
	}
	return n, err
}

// indented renders a JSON text as answers are rendered.
func indented(text []byte) string { return string(wire.Indent(nil, bytes.TrimSpace(text))) }

// status returns where a session stands, or why nobody knows.
func (s *stage) status(ctx context.Context, handle string) string {
	h, ok := session.ParseHandle(handle)
	if !ok {
		return "no handle"
	}
	v, err := s.sessions.Get(ctx, h)
	if errors.Is(err, store.ErrNotFound) {
		return "gone"
	}
	if err != nil {
		return err.Error()
	}
	return v.Status().String()
}
