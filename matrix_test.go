package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/store/mem"
)

// The credentials of the matrix, in the order of its columns: none at all, a token
// whose session has ended, alice's session and key, and one for each role, admin's
// key being the last.
var credentials = []string{"none", "dead", "alice", "robot", "gateway", "issuer", "operator", "auditor", "admin", "keeper"}

// matrix says, for each action, what becomes of it with each credential, about
// what is the caller's own and about what is bob's: a code, 0 for success, and -
// for a success that finds nothing. In params, HANDLE, TOKEN and NAME are those of
// the session and the account that it is about; nobody's own is alice's.
var matrix = []struct {
	action, params string
	//      none  dead  alice robot gatew issue opera audit admin keeper
	own, other string
}{
	{
		"createSession", `{"username":"NAME","password":"${password}"}`,
		"0     0     0     0     0     0     0     0     0     0",
		"0     0     0     0     0     0     0     0     0     0",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","permanentSession":true}`,
		"0     0     0     21204 0     0     0     0     0     21204",
		"0     0     0     21204 0     0     0     0     0     21204",
	},
	{
		"createSession", `{"username":"NAME","realm":"customers"}`,
		"12031 12031 21201 21201 21201 0     21201 21201 0     0",
		"12031 12031 21201 21201 21201 0     21201 21201 0     0",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","clientIpAddress":"192.0.2.1"}`,
		"12031 12031 21201 21201 21201 0     21201 21201 0     0",
		"12031 12031 21201 21201 21201 0     21201 21201 0     0",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","reauthenticate":true}`,
		"12031 12031 0     21204 0     0     0     0     0     21204",
		"12031 12031 21006 21204 21006 21006 21006 21006 21006 21204",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","newPassword":"another horse, another staple"}`,
		"0     0     0     0     0     0     0     0     0     0",
		"0     0     0     0     0     0     0     0     0     0",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","idempotencyKey":"k","properties":{"theme":"dark"}}`,
		"0     0     0     0     0     0     0     0     0     0",
		"0     0     0     0     0     0     0     0     0     0",
	},
	{
		"getSessionProperties", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     0     0     0",
	},
	{
		"getSessionProperties", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 0     0     0     0",
	},
	{
		"updateSessionProperties", `{"sessionHandle":"HANDLE","properties":{"theme":"dark"}}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"updateSessionProperties", `{"tokenId":"TOKEN","properties":{"theme":"dark"}}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"alterSession", `{"sessionHandle":"HANDLE","description":"x"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"alterSession", `{"tokenId":"TOKEN","description":"x"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"alterSession", `{"filter":"username eq 'NAME'","description":"x"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     -     0     0",
	},
	{
		"rotateSession", `{}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"rotateSession", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 21401 21401 0     0",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","joinClient":true}`,
		"12031 12031 0     21204 0     0     0     0     0     21204",
		"12031 12031 0     21204 0     0     0     0     0     21204",
	},
	{
		"listClientSessions", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     0     0     0",
	},
	{
		"listClientSessions", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"activateSession", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 21401 21401 21401 21401",
	},
	{
		"endSession", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"endSession", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"removeSession", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"removeSession", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"pingSession", `{}`,
		"0     12031 0     0     0     0     0     0     0     0",
		"0     12031 0     0     0     0     0     0     0     0",
	},
	{
		"describeSessions", `{"sessionHandles":["HANDLE"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"describeSessions", `{"authTokens":["TOKEN"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     0     -     0     0     0     0",
	},
	{
		"describeSessions", `{"usernameFilter":["NAME"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"listSessions", `{"sessionHandles":["HANDLE"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"listSessions", `{"usernameFilter":["NAME"],"countOnly":true}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"getSessionInfo", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     0     0     0",
	},
	{
		"getSessionInfo", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 0     0     0     0",
	},
	{
		"describeSessions", `{"filter":"username eq 'NAME' and status eq 'active'"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"listSessions", `{"filter":"sessionHandle eq 'HANDLE'"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"listSessions", `{"filter":"username sw 'NAME' and (endReason pr or current pr)","sort":"-username","countOnly":true}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"getSessionInfoAndResetIdleTime", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"getSessionInfoAndResetIdleTime", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 0     21401 0     0",
	},
	{
		"refresh", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"refresh", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 0     21401 0     0",
	},
	{
		"explainSession", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     0     0     0",
	},
	{
		"explainSession", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 0     0     0     0",
	},
	{
		"validate", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21201 21201 0     21201 21201 21201 0     0",
	},
	{
		"validate", `{"tokenIds":["TOKEN","x"],"refresh":false}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21201 21201 0     21201 21201 21201 0     0",
	},
	{
		"validate", `{"tokenId":"TOKEN","includeProperties":true}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21201 21201 0     21201 21201 21201 0     0",
	},
	{
		"deleteSession", `{}`,
		"12031 0     0     0     0     0     0     0     0     0",
		"12031 0     0     0     0     0     0     0     0     0",
	},
	{
		"deleteSession", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"deleteSession", `{"tokenId":"TOKEN"}`,
		"0     0     0     0     0     0     0     0     0     0",
		"0     0     0     0     0     0     0     0     0     0",
	},
	{
		"revokeSessions", `{"sessionHandles":["HANDLE"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     -     0     0",
	},
	{
		"revokeSessions", `{"accounts":[{"username":"NAME"}],"includePermanent":true}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"revokeSessions", `{"filter":"username eq 'NAME'","includePermanent":true}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     -     0     0",
	},
	{
		"logoutByHandle", `{"sessionHandles":["HANDLE"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     -     0     0",
	},
	{
		"revokeAllSessions", `{"level":"account","username":"NAME"}`,
		"12031 12031 21201 21201 21201 21201 0     21201 0     0",
		"12031 12031 21201 21201 21201 21201 0     21201 0     0",
	},
	{
		"revokeAllSessions", `{"level":"server","includePermanent":true}`,
		"12031 12031 21201 21201 21201 21201 0     21201 0     0",
		"12031 12031 21201 21201 21201 21201 0     21201 0     0",
	},
	{
		"logoutByUser", `{"username":"NAME"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"logoutByUser", `{}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"createAccount", `{"username":"newcomer","password":"${password}"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"createAccount", `{"username":"newcomer","oneTimePassword":true,"roles":["operator"]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
	},
	{
		"cloneAccount", `{"sourceUsername":"NAME","cloneUsername":"newcomer","clonePassword":"${password}"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"alterAccount", `{"username":"NAME","accountDescription":"x"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"alterAccount", `{"username":"NAME","password":"another horse, another staple"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 21006 21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
	},
	{
		"alterAccount", `{"username":"NAME","enabled":false}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 21403 21201",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"dropAccounts", `{"usernames":["NAME"]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 21403 21403",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"describeAccounts", `{"usernames":["NAME"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"describeAccounts", `{}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"createRole", `{"roleName":"new","permissions":["orders.read"]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"createRole", `{"roleName":"new","permissions":["sessiond.sessions.read"]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
	},
	{
		"alterRole", `{"roleName":"clerk","permissions":[]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"dropRoles", `{"roleNames":["clerk"]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"listRoles", `{}`,
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
	},
	{
		"describeRoles", `{}`,
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
	},
	{
		"assignRolesToAccounts", `{"add":[{"roleNames":["clerk"],"usernames":["NAME"]}]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"assignRolesToAccounts", `{"add":[{"roleNames":["gateway"],"usernames":["NAME"]}]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
	},
	{
		"assignRolesToAccounts", `{"remove":[{"roleNames":["auditor"],"usernames":["NAME"]}]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 -     21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 -     21204",
	},
	{
		"listAccounts", `{}`,
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
	},
	{
		"changePassword", `{"username":"NAME","currentPassword":"${password}","newPassword":"another horse, another staple"}`,
		"12031 12031 0     21204 0     0     0     0     0     21204",
		"12031 12031 21201 21204 21201 21201 21201 21201 0     21204",
	},
	{
		"listEvents", `{}`,
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
	},
	{
		"sessionStatistics", `{}`,
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
	},
	{
		"watchSessions", `{"waitSeconds":0}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"listActions", `{}`,
		"0     12031 0     0     0     0     0     0     0     0",
		"0     12031 0     0     0     0     0     0     0     0",
	},
	{
		"listServices", `{}`,
		"0     12031 0     0     0     0     0     0     0     0",
		"0     12031 0     0     0     0     0     0     0     0",
	},
	{
		"manageService", `{"serviceName":"session","command":"pause"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"manageService", `{"command":"reload"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"listRealms", `{}`,
		"0     12031 0     0     0     0     0     0     0     0",
		"0     12031 0     0     0     0     0     0     0     0",
	},
}

func TestMatrix(t *testing.T) {
	rows := map[string]bool{}
	for _, row := range matrix {
		rows[row.action] = true
	}
	for _, d := range describeActions() {
		if !rows[d.Name] {
			t.Errorf("%s has no row in the matrix", d.Name)
		}
		delete(rows, d.Name)
	}
	for name := range rows {
		t.Errorf("%s has a row in the matrix, but is no action", name)
	}
	hasher := cheapHasher(t)
	var s *stage // a new one after each success that may have changed something
	for _, row := range matrix {
		for owner, cells := range map[string]string{"own": row.own, "other": row.other} {
			want := strings.Fields(cells)
			if len(want) != len(credentials) {
				t.Fatalf("%s %s: %d cells, want %d", row.action, owner, len(want), len(credentials))
			}
			for i, credential := range credentials {
				if s == nil {
					s = matrixStage(t, hasher)
				}
				about := aboutWhom(credential, owner)
				got, err := s.cell(t.Context(), credential, row.action, about.Replace(row.params))
				if err != nil || got != want[i] {
					t.Errorf("%s %s, %s, with %s: %s, %v, want %s", row.action, row.params, owner, credential, got, err, want[i])
				}
				if got == "0" && !slices.Contains(readOnly, row.action) {
					s.sessions.Close()
					s = nil
				}
			}
		}
	}
}

// readOnly are the actions that change nothing but times of use.
var readOnly = []string{
	"pingSession", "getSessionProperties", "describeSessions", "listSessions", "getSessionInfo", "getSessionInfoAndResetIdleTime", "refresh", "explainSession", "validate", "listAccounts", "listEvents", "sessionStatistics", "watchSessions", "listActions", "listRealms", "listServices",
	"describeAccounts", "listRoles", "describeRoles",
}

func matrixStage(t *testing.T, hasher *account.Hasher) *stage {
	s, err := newStage(t.Context(), props{
		store: mem.New(), hasher: hasher, config: `{"realms":[{"name":"customers","type":"trusted"}],"sessionProperties":[{"name":"theme"}]}`,
		logins: []string{"dead=alice", "alice", "robot=alice:key", "gateway", "issuer", "operator", "auditor", "admin", "keeper=admin:key", "bob"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range []struct{ credential, action, params string }{
		{"dead", "deleteSession", "{}"},
		{"admin", "createRole", `{"roleName":"clerk","permissions":["orders.write"]}`},
	} {
		if got, err := s.cell(t.Context(), first.credential, first.action, first.params); err != nil || got != "0" {
			t.Fatal(first.action, got, err)
		}
	}
	return s
}

// aboutWhom says who is meant by a row's HANDLE, TOKEN and NAME.
func aboutWhom(credential, owner string) *strings.Replacer {
	session, name := credential, credential
	switch {
	case owner == "other":
		session, name = "bob", "bob"
	case credential == "none" || credential == "dead":
		session, name = "alice", "alice"
	case credential == "robot":
		name = "alice"
	case credential == "keeper":
		name = "admin"
	}
	return strings.NewReplacer("HANDLE", "${handle:"+session+"}", "TOKEN", "${token:"+session+"}", "NAME", name)
}

// cell makes a request and returns what stands in the matrix for its answer.
func (s *stage) cell(ctx context.Context, credential, action, params string) (string, error) {
	token := ""
	if credential != "none" {
		token = fmt.Sprintf(`,"authToken":"${token:%s}"`, credential)
	}
	body, err := s.fill(`{"action":"` + action + `","params":` + params + token + `}`)
	if err != nil {
		return "", err
	}
	got := s.dispatcher.Serve(ctx, &api.Request{Body: []byte(body)}, nil)
	var answer struct {
		ErrorCode api.Code `json:"errorCode"`
		Result    struct {
			Sessions []any
			Accounts []any
			Count    *int
			Revoked  *int
			Altered  *int
		}
	}
	if err := json.Unmarshal(got.Body, &answer); err != nil {
		return "", err
	}
	r := answer.Result
	lists := action == "describeSessions" || action == "listSessions"
	if answer.ErrorCode == 0 && (lists && len(r.Sessions) == 0 && (r.Count == nil || *r.Count == 0) || r.Revoked != nil && *r.Revoked == 0 || r.Altered != nil && *r.Altered == 0 || r.Accounts != nil && len(r.Accounts) == 0) {
		return "-", nil
	}
	return fmt.Sprint(int(answer.ErrorCode)), nil
}
