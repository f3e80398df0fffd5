package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store/mem"
)

// beyond is what the grid's handlers decide themselves, beyond the rule that the
// reference shows: rows of the matrix, by a part of their action and params, and
// what then becomes of a request that the rule lets through. An empty outcome is
// a success. All else follows from the rules.
var beyond = []struct {
	action, part string
	outcome      func(gridCell) string
}{
	{"createSession", `"realm":"customers"`, func(g gridCell) string { return g.holding("sessiond.sessions.issue", "21201") }},
	{"createSession", `"clientIpAddress"`, func(g gridCell) string { return g.holding("sessiond.sessions.issue", "21201") }},
	{"createSession", `"permanentSession":true`, func(g gridCell) string { return g.byKey("21204", "") }},
	{"createSession", `"reauthenticate":true`, func(g gridCell) string { return g.byKey("21204", g.ofOthers("21006")) }},
	// Who shows a token may read what it is about with sessions.validate, and end it without any permission.
	{"describeSessions", `"authTokens"`, func(g gridCell) string { return g.shown("-") }},
	{"getSessionProperties", `"tokenId"`, func(g gridCell) string { return g.shown("21401") }},
	{"getSessionInfo", `"tokenId"`, func(g gridCell) string { return g.shown("21401") }},
	{"getSessionInfoAndResetIdleTime", `"tokenId"`, func(g gridCell) string { return g.shown("21401") }},
	{"refresh", `"tokenId"`, func(g gridCell) string { return g.shown("21401") }},
	{"explainSession", `"tokenId"`, func(g gridCell) string { return g.shown("21401") }},
	{"deleteSession", `"tokenId"`, func(gridCell) string { return "" }},
	// To do something to many of others by a filter wants a recent log-in.
	{"revokeSessions", `"filter"`, func(g gridCell) string { return g.found() }},
	{"alterSession", `"filter"`, func(g gridCell) string { return g.found() }},
	// A token is the proof that its browser or device is at hand.
	{"createSession", `"joinClient"`, func(g gridCell) string { return g.byKey("21204", "") }},
	{"listClientSessions", `"tokenId"`, func(gridCell) string { return "" }},
	{"activateSession", ``, func(g gridCell) string { return g.ofOthers("21401") }},
	{"endSession", `"tokenId"`, func(gridCell) string { return "" }},
	{"removeSession", `"tokenId"`, func(gridCell) string { return "" }},
	// Nobody gains by managing accounts and roles, and no key sets a password.
	{"createAccount", `"roles"`, func(gridCell) string { return "21201" }},
	{"cloneAccount", ``, func(g gridCell) string { return g.managing(g.byKey(g.ofOwn("21204"), "")) }},
	{"alterAccount", `"password"`, func(g gridCell) string { return g.byKey("21204", g.managing(g.ofOwn("21006"))) }},
	{"alterAccount", `"enabled"`, func(g gridCell) string { return g.managing(g.ofOwn("21201")) }},
	{"alterAccount", ``, func(g gridCell) string { return g.managing("") }},
	{"dropAccounts", ``, func(g gridCell) string { return g.managing("") }},
	{"changePassword", ``, func(g gridCell) string { return g.managing("") }},
	{"createRole", `"permissions":["`, func(gridCell) string { return "21201" }},
	{"assignRolesToAccounts", `"add":[{"roleNames":["clerk"]`, func(gridCell) string { return "21201" }},
	{"assignRolesToAccounts", `"gateway"`, func(gridCell) string { return "21201" }},
	{"assignRolesToAccounts", `"auditor"`, func(gridCell) string { return "21201" }},
}

// The grid is spanned by all actions, a session that has just logged in, a session
// whose log-in is no longer recent and an API key, each of an account that holds
// one permission of the server and nothing else, and what is the caller's own,
// another account's, or an administrator's. Its requests are the rows of the
// matrix, which has one for each action at least.
var (
	gridCredentials = []string{"session", "key", "stale"}
	gridOwners      = []string{"own", "other", "above"}
)

// TestGrid holds that who may do what follows from the rules that the reference
// publishes: a request succeeds where the rule says so, and nowhere else.
func TestGrid(t *testing.T) {
	rules := map[string]publishedRule{}
	for _, d := range describeActions() {
		rule, err := parseRule(d.WhoMayCall)
		if err != nil {
			t.Fatalf("%s: %v", d.Name, err)
		}
		rules[d.Name] = rule
	}
	hasher := cheapHasher(t)
	var cells atomic.Int64
	t.Cleanup(func() { t.Logf("%d cells", cells.Load()) })
	for action, rule := range rules {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			g := grid{hasher: hasher, rule: rule}
			defer g.close()
			for _, params := range gridParams(action) {
				g.row(t, action, params)
			}
			if cells.Add(int64(g.cells)); g.cells == 0 {
				t.Error("nothing was asked")
			}
		})
	}
}

// gridParams are the params of an action's rows in the matrix.
func gridParams(action string) (all []string) {
	for _, row := range matrix {
		if row.action == action {
			all = append(all, row.params)
		}
	}
	if action == "createRole" { // the least that a role may be
		all = append(all, `{"roleName":"new","permissions":[]}`)
	}
	return all
}

// A publishedRule is what the reference says about who may call an action.
type publishedRule struct {
	needs        string // the permission without which nobody calls; empty: none
	others       string // that reaches what belongs to others; empty: whoever calls reaches it
	sessionsOnly bool
	recent       bool // wants a recent log-in
	recentOthers bool // for what belongs to others
}

// parseRule reads a rule as people do.
func parseRule(text string) (r publishedRule, err error) {
	rest, recent := strings.CutSuffix(text, ", after a recent log-in")
	rest, others, _ := strings.Cut(rest, "; what belongs to others with ")
	rest, sessionsOnly := strings.CutSuffix(rest, ", with a session and not an API key")
	needs, holders := strings.CutPrefix(rest, "holders of ")
	if !holders && rest != "any caller" && rest != "anybody" {
		return r, fmt.Errorf("who is meant by %q?", text)
	}
	if holders {
		r.needs = needs
	}
	for _, name := range []string{r.needs, others} {
		if name != "" && !slices.Contains(account.AllPermissions.Names(), name) {
			return r, fmt.Errorf("%q names no permission", text)
		}
	}
	r.others, r.sessionsOnly = others, sessionsOnly
	r.recent, r.recentOthers = recent && others == "", recent && others != ""
	return r, nil
}

// A gridCell is one request, and what is known of it beforehand.
type gridCell struct {
	rule                      publishedRule
	holds                     string // the caller's one permission
	credential, owner, params string
}

func (g gridCell) holding(permission, otherwise string) string {
	if g.holds == permission {
		return ""
	}
	return otherwise
}

func (g gridCell) byKey(key, otherwise string) string {
	if g.credential == "key" {
		return key
	}
	return otherwise
}

func (g gridCell) ofOwn(own string) string {
	if g.owner == "own" {
		return own
	}
	return ""
}

func (g gridCell) ofOthers(others string) string {
	if g.owner == "own" {
		return ""
	}
	return others
}

// shown is for who shows another's token.
func (g gridCell) shown(otherwise string) string {
	if g.owner == "own" || g.holds == g.rule.others {
		return ""
	}
	return g.holding("sessiond.sessions.validate", otherwise)
}

// found is for who changes what a filter finds.
func (g gridCell) found() string {
	switch {
	case g.owner == "own":
		return ""
	case g.holds != g.rule.others:
		return "-"
	case g.credential == "stale":
		return "21203"
	}
	return ""
}

// managing is for who manages an account: none that holds more than he does.
func (g gridCell) managing(otherwise string) string {
	if g.owner == "above" {
		return "21201"
	}
	return otherwise
}

// aboutSomebody reports whether params name an object that belongs to somebody.
func aboutSomebody(params string) bool {
	return strings.Contains(params, "HANDLE") || strings.Contains(params, "TOKEN") || strings.Contains(params, "NAME")
}

// want returns what the answer has to be: a code, 0 for success, - for a success
// that finds nothing, and for what is out of reach any of those that say so.
func (g gridCell) want(action string) []string {
	r, object := g.rule, aboutSomebody(g.params)
	switch {
	case r.sessionsOnly && g.credential == "key":
		return []string{"21204"}
	case r.needs != "" && g.holds != r.needs:
		return []string{"21201"}
	case r.recent && g.credential == "stale":
		return []string{"21203"}
	case r.recentOthers && object && g.owner != "own" && g.holds == r.others && g.credential == "stale":
		return []string{"21203"}
	}
	for _, b := range beyond {
		if b.action != action || !strings.Contains(g.params, b.part) {
			continue
		}
		if r.others != "" && object && g.owner != "own" && g.holds != r.others && b.part == "" {
			break // beyond his reach already
		}
		if outcome := b.outcome(g); outcome != "" {
			return []string{outcome}
		}
		return []string{"0"}
	}
	if r.others != "" && object && g.owner != "own" && g.holds != r.others {
		return []string{"21201", "21401", "-"}
	}
	return []string{"0"}
}

// A grid plays the rows of one action.
type grid struct {
	hasher *account.Hasher
	rule   publishedRule
	stage  *stage            // nil: one is to be made
	cast   map[string]string // who is there already, by the part that he plays
	cells  int
}

func (g *grid) close() {
	if g.stage != nil {
		g.stage.sessions.Close()
	}
	g.stage = nil
}

func (g *grid) row(t *testing.T, action, params string) {
	g.cast = map[string]string{} // what was recent for the last row is not for this one
	owners := gridOwners
	if !aboutSomebody(params) {
		owners = owners[:1]
	}
	for _, credential := range gridCredentials {
		for i, permission := range account.AllPermissions.Names() {
			for _, owner := range owners {
				if g.stage == nil {
					g.stage, g.cast = gridStage(t, g.hasher), map[string]string{}
				}
				g.cells++
				want := gridCell{g.rule, permission, credential, owner, params}.want(action)
				got, err := g.cell(t.Context(), fmt.Sprintf("only%d", i), credential, owner, action, params)
				if err != nil || !slices.Contains(want, got) {
					t.Errorf("%s %s, %s, by a %s with %s: %s, %v, want %s", action, params, owner, credential, permission, got, err, strings.Join(want, " or "))
				}
				switch {
				case got != "0" || slices.Contains(readOnly, action):
				case g.rule.needs != "":
					g.close() // others may feel it
				default:
					delete(g.cast, credential+"/only"+strconv.Itoa(i))
					delete(g.cast, owner)
				}
			}
		}
	}
}

func gridStage(t *testing.T, hasher *account.Hasher) *stage {
	s, err := newStage(t.Context(), props{
		store: mem.New(), hasher: hasher, logins: []string{"admin"},
		config: `{"realms":[{"name":"customers","type":"trusted"}],"sessionProperties":[{"name":"theme"}],"webhooks":[{"name":"crm","url":"https://crm.example/","secretFile":"crm"}],"jsonActionApiDefaults":{"maxJsonApiSessions":0,"idleConnectionTimeoutSeconds":0}}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	roles := map[string]string{"clerk": ``}
	for i, permission := range account.AllPermissions.Names() {
		roles[fmt.Sprintf("only%d", i)] = `"` + permission + `"`
	}
	for name, permission := range roles {
		if got, err := s.cell(t.Context(), "admin", "createRole", fmt.Sprintf(`{"roleName":%q,"permissions":[%s]}`, name, permission)); err != nil || got != "0" {
			t.Fatal(name, got, err)
		}
	}
	return s
}

// cell makes a request.
func (g *grid) cell(ctx context.Context, role, credential, owner, action, params string) (string, error) {
	caller, err := g.player(ctx, credential+"/"+role, credential, role)
	if err != nil {
		return "", err
	}
	whose := caller
	switch owner {
	case "other":
		whose, err = g.player(ctx, owner, "session")
	case "above":
		whose, err = g.player(ctx, owner, "session", "admin")
	}
	if err != nil {
		return "", err
	}
	own := strconv.Itoa(g.cells)
	about := strings.NewReplacer("HANDLE", "${handle:"+whose+"}", "TOKEN", "${token:"+whose+"}", "NAME", whose, "newcomer", "newcomer"+own, `"new"`, `"new`+own+`"`)
	return g.stage.cell(ctx, caller, action, about.Replace(params))
}

// player returns the name of an account, and of its credential, that plays a part.
func (g *grid) player(ctx context.Context, part, credential string, roles ...string) (string, error) {
	if name, ok := g.cast[part]; ok {
		return name, nil
	}
	s, name := g.stage, fmt.Sprintf("player%d.%d", g.cells, len(g.cast))
	if _, err := s.accounts.Create(ctx, event.Actor{}, account.NewAccount{Realm: "native", Username: name, Roles: roles, Password: api.NewSecret(s.password)}); err != nil {
		return "", err
	}
	logins := []string{name}
	if credential == "key" { // there is something to end beside it
		logins = []string{name + ".home", name}
	}
	for _, as := range logins {
		body := fmt.Appendf(nil, `{"action":"createSession","params":{"username":%q,"password":%q,"permanentSession":%t}}`, name, s.password, as == name && credential == "key")
		if got := s.serve(ctx, &api.Request{Body: body}, as); s.byName["token:"+as] == "" {
			return "", fmt.Errorf("log in %s: %s", as, got.text)
		}
	}
	if credential == "stale" {
		s.clock.Advance(time.Duration(s.config.Get().RecentLoginSeconds+1) * time.Second)
	}
	g.cast[part] = name
	return name, nil
}

// The oracle reads rules as people do, so it refuses what it does not understand.
func TestRulesAreUnderstood(t *testing.T) {
	for text, want := range map[string]publishedRule{
		dispatch.Anyone().String():                                                      {},
		dispatch.Callers().String():                                                     {},
		dispatch.Holders(account.RolesWrite).Recent().String():                          {needs: "sessiond.roles.write", recent: true},
		dispatch.Callers().Others(account.SessionsRead).String():                        {others: "sessiond.sessions.read"},
		dispatch.Callers().SessionsOnly().Others(account.KeysRead).String():             {others: "sessiond.keys.read", sessionsOnly: true},
		dispatch.Callers().Others(account.AccountsWrite).RecentForOthers().String():     {others: "sessiond.accounts.write", recentOthers: true},
		dispatch.Holders(account.KeysWrite).Others(account.KeysWrite).Recent().String(): {needs: "sessiond.keys.write", recent: true},
	} {
		if got, err := parseRule(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "nobody", "somebody", "holders of sessiond.nothing", "any caller; what belongs to others with luck", dispatch.Rule{}.String()} {
		if _, err := parseRule(text); err == nil {
			t.Errorf("%q is understood", text)
		}
	}
}
