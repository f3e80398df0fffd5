package main

import (
	"cmp"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// theirRequests are those of the systems that the page is about.
var theirRequests = []string{
	"`createSession` with `permanentSession`", "`describeSessions` with `authTokens`", "`describeSessions` without",
	"`POST /api/session?realmName=R`", "`GET /api/session`", "the end of a session",
	"`getSessionInfo` with `tokenId`", "`getSessionInfoAndResetIdleTime`", "`validate`", "`validate&refresh=false`", "`refresh`", "`logout`",
	"`GET sessions?_queryFilter=F`", "`logoutByHandle`", "`logoutByUser`", "`getSessionProperties`", "`updateSessionProperties`",
	"`GET /v1/client/sessions/:id`", "`POST /v1/client/sessions/:id/end`", "`POST /v1/client/sessions/:id/remove`",
	"`POST /api/auth/login`", "`DELETE /api/admin/sessions/<id>`", "`DELETE FROM \"Session\"`",
}

// What docs/migrating.md says of another system's request or name is true of the
// step that the row gives: the first name in its column "here" is what is asked
// there, if it is an action, each name stands in the request, the answer or the
// configuration, and the errorCode is 0 unless the row has another.
func TestMigratingSaysWhatIs(t *testing.T) {
	text, err := os.ReadFile("docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	rows, faults := migrationRows(string(text))
	for _, fault := range faults {
		t.Error(fault)
	}
	for _, request := range theirRequests {
		if !slices.ContainsFunc(rows, func(row migrationRow) bool { return strings.Contains(row.there, request) }) {
			t.Errorf("no row is about %s", request)
		}
	}
	actions := map[string]bool{}
	for _, d := range describeActions() {
		for _, name := range append(d.Aliases, d.Name) {
			actions[name] = true
		}
	}
	stories := map[string]*transcript{}
	for _, tr := range transcripts(t) {
		stories[tr.name] = tr
	}
	shown := map[string]bool{}
	for _, row := range rows {
		for _, at := range row.shownIn {
			shown[strings.Split(at, "/")[0]] = true
			for _, fault := range row.faults(stories, at, actions) {
				t.Errorf("%q, shown in %s: %s", row.line, at, fault)
			}
		}
	}
	for _, story := range []string{"tutorial", "fusion", "ping_am", "clerk", "guide"} {
		if !shown[story] {
			t.Errorf("no row is shown in %s", story)
		}
	}
}

// migrationRow is a row of a table: what it says of this server, and where that is
// to be seen.
type migrationRow struct {
	line    string
	there   string   // the other system's name of it
	here    []string // what stands there as code
	shownIn []string // story/step
}

var code = regexp.MustCompile("`([^`]+)`")

// migrationRows returns the rows of all tables of the page, and those that name no
// step, or nothing that could be looked for.
func migrationRows(page string) (rows []migrationRow, faults []string) {
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasSuffix(line, "| shown in |") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		row := migrationRow{line: line, there: cells[0], shownIn: strings.Fields(cells[len(cells)-1])}
		if len(cells) == 4 {
			for _, found := range code.FindAllStringSubmatch(cells[1], -1) {
				row.here = append(row.here, found[1])
			}
		}
		if len(row.here) == 0 || len(row.shownIn) == 0 {
			faults = append(faults, "a row has four cells, code in the second and a step in the last: "+line)
		}
		rows = append(rows, row)
	}
	return rows, faults
}

var number = regexp.MustCompile(`^\d{5}$`)

// faults says what of a row is not to be seen in a step.
func (row *migrationRow) faults(stories map[string]*transcript, at string, actions map[string]bool) (faults []string) {
	story, name, _ := strings.Cut(at, "/")
	tr := stories[story]
	if tr == nil {
		return []string{"there is no such transcript"}
	}
	i := slices.IndexFunc(tr.Steps, func(sp step) bool { return sp.As == name })
	if i < 0 || name == "" {
		return []string{"the transcript has no such step"}
	}
	sp := &tr.Steps[i]
	var asked struct {
		Action string `json:"action"`
	}
	var answered struct {
		ErrorCode json.Number `json:"errorCode"`
	}
	if err := json.Unmarshal([]byte(cmp.Or(string(sp.Request), "{}")), &asked); err != nil {
		return []string{err.Error()}
	}
	if err := json.Unmarshal(sp.Answer, &answered); err != nil {
		return []string{err.Error()}
	}
	inForce := tr.Config
	for j := range tr.Steps[:i+1] {
		if tr.Steps[j].Config != nil {
			inForce = tr.Steps[j].Config
		}
	}
	want := "0"
	var names []string
	for _, text := range row.here {
		switch {
		case number.MatchString(text):
			want = text
		case actions[text]:
			names = append(names, text)
		case !stands(text, string(inForce)+string(sp.Request)+string(sp.Answer)):
			faults = append(faults, text+" does not stand there")
		}
	}
	if len(names) > 0 && !slices.Contains(names, asked.Action) {
		faults = append(faults, "what is asked there is "+asked.Action)
	}
	if answered.ErrorCode.String() != want {
		faults = append(faults, "the errorCode is "+answered.ErrorCode.String())
	}
	return faults
}

// stands reports whether a text is in a story, as whole words and whatever the
// blanks.
func stands(text, story string) bool {
	plain := strings.NewReplacer(" ", "", "\n", "")
	return regexp.MustCompile(`(^|\W)` + regexp.QuoteMeta(plain.Replace(text)) + `($|\W)`).MatchString(plain.Replace(story))
}
