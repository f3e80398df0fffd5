package account_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sessiond/internal/account"
	"sessiond/internal/api"
)

func TestGrant(t *testing.T) {
	for _, tt := range []struct {
		patterns string
		want     account.Permissions
	}{
		{"", 0},
		{"sessiond.sessions.read", account.SessionsRead},
		{"sessiond.keys.*", account.KeysRead | account.KeysWrite},
		{"sessiond.*", account.AllPermissions},
		{"sessiond.store.backup sessiond.events.read", account.StoreBackup | account.EventsRead},

		{"*", 0},
		{"orders.*", 0},
		{"sessions.read", 0},
		{"sessiond", 0},
		{"sessiond*", 0},
		{"sessiond.", 0},
		{"sessiond.s*", 0},
		{"sessiond.*.read", 0},
		{"sessiond.sessions", 0},
		{"sessiond.sessions.read.*", 0},
		{"Sessiond.*", 0},
		{"*.sessions.read", 0},
	} {
		if got := account.Grant(strings.Fields(tt.patterns)); got != tt.want {
			t.Errorf("Grant(%q) = %v, want %v", tt.patterns, got.Names(), tt.want.Names())
		}
	}
}

func TestBuiltinRoles(t *testing.T) {
	got := map[string]string{}
	for _, role := range account.NewRoles().All() {
		if !role.IsBuiltin() || role.Description == "" {
			t.Errorf("role %s: not built in or without a description", role.Name)
		}
		names := role.Grants().Names()
		got[role.Name] = strings.ReplaceAll(strings.Join(names, " "), "sessiond.", "")
	}
	want := map[string]string{
		"admin": "sessions.read sessions.write sessions.revoke sessions.issue sessions.validate keys.read keys.write accounts.read accounts.write roles.write " +
			"events.read services.read services.manage store.backup store.export store.import",
		"operator": "sessions.read sessions.write sessions.revoke keys.read keys.write accounts.read events.read",
		"auditor":  "sessions.read keys.read accounts.read events.read services.read",
		"gateway":  "sessions.validate",
		"issuer":   "sessions.issue",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatNoRoleAllows(t *testing.T) {
	roles := account.NewRoles()
	if p := account.Effective(roles.Named([]string{"root", ""})); p != 0 {
		t.Errorf("unknown roles allow %v", p.Names())
	}
	if held := roles.Held([]account.RoleRef{{Name: "admin", ID: api.ID{1}}}); held != nil {
		t.Errorf("somebody who held another role of this name holds %v", account.Names(held))
	}
	if account.AllPermissions.Has(0) {
		t.Error("a rule without a permission lets somebody in")
	}
	if account.SessionsRead.Has(account.SessionsRead | account.KeysRead) {
		t.Error("one of two permissions suffices")
	}
	if got := account.PermissionName(account.SessionsRead | account.KeysRead); got != "" {
		t.Errorf("two permissions are called %q", got)
	}
}

// Every permission has one name, and that name grants it and nothing else.
func TestNamesGrantThemselves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := account.Permissions(rapid.Uint32().Draw(t, "p")) & account.AllPermissions
		if got := account.Grant(p.Names()); got != p {
			t.Fatalf("Grant(%v) = %v", p.Names(), got.Names())
		}
		for _, name := range p.Names() {
			if account.PermissionName(account.Grant([]string{name})) != name {
				t.Fatalf("%s is not the name of what it grants", name)
			}
		}
	})
}
