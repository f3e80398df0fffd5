package cli_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// A job may take longer than --timeout: no question about it waits for long.
func TestAJobIsFollowedInShortQuestions(t *testing.T) {
	for command, tt := range map[string]struct {
		job  string
		want []string // what the server is asked
	}{
		"backup b": {`"jobId":"JOB","name":"b"`, []string{
			`{"action":"backupStore","api":"admin","params":{"name":"b","waitSeconds":1}}`,
			`{"action":"backupStore","api":"admin","params":{"jobId":"JOB","waitSeconds":1}}`,
		}},
		"compact": {`"jobId":"JOB"`, []string{
			`{"action":"compactStore","api":"admin","params":{"waitSeconds":1}}`,
			`{"action":"compactStore","api":"admin","params":{"jobId":"JOB","waitSeconds":1}}`,
		}},
	} {
		t.Run(command, func(t *testing.T) {
			var asked []string
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				text, _ := io.ReadAll(r.Body)
				asked = append(asked, string(text))
				state := "done"
				if len(asked) == 1 {
					state = "running"
					<-time.After(time.Second) // as it is asked to
				}
				_, _ = io.WriteString(w, `{"result":{`+tt.job+`,"state":"`+state+`"},"errorCode":0}`)
			}))
			defer s.Close()
			code, _, stderr := run(t, program(), "", append(strings.Fields(command), "--url", s.URL, "--timeout", "1s")...)
			if code != 0 || stderr != "" || !slices.Equal(asked, tt.want) {
				t.Errorf("exit code %d, asked\n%s\nwant\n%s\n%s", code, strings.Join(asked, "\n"), strings.Join(tt.want, "\n"), stderr)
			}
		})
	}
}
