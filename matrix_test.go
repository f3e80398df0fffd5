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
		store: mem.New(), hasher: hasher, config: `{"realms":[{"name":"customers","type":"trusted"}],"sessionProperties":[{"name":"theme"}],"webhooks":[{"name":"crm","url":"https://crm.example/","secretFile":"crm"}]}`,
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
