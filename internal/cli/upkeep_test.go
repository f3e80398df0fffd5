package cli_test

import (
	"fmt"
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
					<-time.After(100 * time.Millisecond) // as it is asked to, or less
				}
				_, _ = io.WriteString(w, `{"result":{`+tt.job+`,"state":"`+state+`"},"errorCode":0}`)
			}))
			defer s.Close()
			code, _, stderr := run(t, program(), "", append(strings.Fields(command), "--url", s.URL, "--timeout", "20ms")...)
			if code != 0 || stderr != "" || !slices.Equal(asked, tt.want) {
				t.Errorf("exit code %d, asked\n%s\nwant\n%s\n%s", code, strings.Join(asked, "\n"), strings.Join(tt.want, "\n"), stderr)
			}
		})
	}
}

func TestOutIsForAServerThatIsStopped(t *testing.T) {
	const here = "sessiond: --out writes a file here, but %s has a server asked: leave out one of them\n"
	dir := dataFolder(t)
	t.Chdir(t.TempDir())
	for name, tt := range map[string]struct {
		args     []string
		variable string // $SESSIOND_URL
		want     string
	}{
		"a flag":     {[]string{"--out", "b.db", "--url", "http://127.0.0.1:1"}, "", fmt.Sprintf(here, "--url")},
		"a variable": {[]string{"--out", "b.db"}, "http://127.0.0.1:1", fmt.Sprintf(here, "$SESSIOND_URL")},
		"no file":    {[]string{"--out", ""}, "", "sessiond: name a new file with --out\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SESSIOND_URL", tt.variable)
			code, stdout, stderr := run(t, program(), "", append([]string{"backup", "--data", dir}, tt.args...)...)
			if code != 2 || stdout != "" || !strings.HasPrefix(stderr, tt.want) {
				t.Errorf("exit code %d, want 2\n%s%s\nwant %s", code, stdout, stderr, tt.want)
			}
		})
	}
}
