package cli_test

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// What a server answers, and what becomes of it.
func TestCallPrints(t *testing.T) {
	const (
		sessions = `{"result":{"sessions":[{"username":"alice","idle":3600,"roles":["a","b"],"device":{"os":"x"}},{"username":"bob","current":true,"ended":null}],"cursor":"next"},"errorCode":0,"errorMessage":""}`
		one      = `{"result":{"state":"up","count":3},"errorCode":0,"errorMessage":"","authToken":"sdses_x"}`
		refused  = `{"result":{},"errorCode":21006,"errorMessage":"must be a string","errorData":{"pointer":"/params/a","retryAfterSeconds":7}}`
		hostile  = `{"result":{"list":[{"name":"a\u001b[2J\nb"},{"name":"` + "c\u202ed\u009be" + `"}]},"errorCode":0,"errorMessage":""}`
		evil     = `{"result":{},"errorCode":21999,"errorMessage":"a\u001b[2J\nsessiond: OK"}`
	)
	for name, tt := range map[string]struct {
		args, answer   string
		want           int
		stdout, stderr string
	}{
		"a result": {"", one, 0, "{\n  \"state\": \"up\",\n  \"count\": 3\n}\n", ""},
		"the whole": {"--full", one, 0, `{
  "result": {
    "state": "up",
    "count": 3
  },
  "errorCode": 0,
  "errorMessage": "",
  "authToken": "sdses_x"
}
`, ""},
		"a table of members": {"--output table", one, 0, "state  up\ncount  3\n", ""},
		"a table of objects": {"--output table", sessions, 0, `username  idle  roles  device      current  ended
alice     3600  a, b   {"os":"x"}
bob                                true

cursor  next
`, ""},
		"a refusal":               {"", refused, 1, "", "sessiond: 21006 badParam: must be a string (/params/a); try again in 7 s\n"},
		"a refusal, table":        {"--output table", refused, 1, "", "sessiond: 21006 badParam: must be a string (/params/a); try again in 7 s\n"},
		"a refusal, whole":        {"--full", `{"result":{},"errorCode":21401,"errorMessage":"gone"}`, 1, "{\n  \"result\": {},\n  \"errorCode\": 21401,\n  \"errorMessage\": \"gone\"\n}\n", "sessiond: 21401 notFound: gone\n"},
		"a code of the future":    {"", `{"result":{},"errorCode":29999,"errorMessage":"new"}`, 1, "", "sessiond: 29999: new\n"},
		"no token":                {"", `{"result":{},"errorCode":12031,"errorMessage":"the authToken belongs to no live session"}`, 1, "", "sessiond: 12031 invalidAuthToken: the authToken belongs to no live session; put the token into $SESSIOND_TOKEN\n"},
		"without a result":        {"", `{"errorCode":0}`, 0, "{\n  \"errorCode\": 0\n}\n", ""},
		"a table of what is none": {"--output table", `{"result":[1],"errorCode":0}`, 0, "[1]\n", ""},
		"hostile text in a table": {"--output table", hostile, 0, "name\na�[2J�b\nc�d�e\n", ""},
		"hostile text in JSON":    {"", hostile, 0, "{\n  \"list\": [\n    {\n      \"name\": \"a\\u001b[2J\\nb\"\n    },\n    {\n      \"name\": \"c\\u202ed\\u009be\"\n    }\n  ]\n}\n", ""},
		"hostile text in errors":  {"", evil, 1, "", "sessiond: 21999 internal: a�[2J�sessiond: OK\n"},
		"a page":                  {"", "<html>", 1, "", "sessiond: what answers at URL is no sessiond (HTTP status 200): check --url, whose path is /api unless apiRoot says otherwise\n"},
		"JSON of another kind":    {"", `{"status":"ok"}`, 1, "", "sessiond: what answers at URL is no sessiond (HTTP status 200): check --url, whose path is /api unless apiRoot says otherwise\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, tt.answer) }))
			defer s.Close()
			code, stdout, stderr := run(t, program(), "", append([]string{"call", "act", "--url", s.URL}, strings.Fields(tt.args)...)...)
			stderr = strings.ReplaceAll(stderr, s.URL+"/api", "URL")
			if code != tt.want || stdout != tt.stdout || stderr != tt.stderr {
				t.Errorf("exit code %d\nstdout:\n%s\nstderr:\n%s", code, stdout, stderr)
			}
		})
	}
}

// What is typed, and what reaches the server.
func TestCallSends(t *testing.T) {
	type sent struct{ path, token, contentType, agent, body string }
	usual := sent{path: "/api", contentType: "application/json", agent: "sessiond/1.2.3-test"}
	with := func(change func(*sent)) sent {
		s := usual
		change(&s)
		return s
	}
	body := func(text string) sent { return with(func(s *sent) { s.body = text }) }
	for name, tt := range map[string]struct {
		args  []string // URL stands for the server's
		stdin string
		token string // $SESSIOND_TOKEN
		want  sent
	}{
		"an action":             {args: []string{"ping", "--url", "URL"}, want: body(`{"action":"ping"}`)},
		"params":                {args: []string{"ping", `{"a": [1]}`, "--url", "URL"}, want: body(`{"action":"ping","params":{"a": [1]}}`)},
		"params from stdin":     {args: []string{"ping", "-", "--url", "URL"}, stdin: "{\"a\":1}\n", want: body("{\"action\":\"ping\",\"params\":{\"a\":1}\n}")},
		"a member twice":        {args: []string{"ping", `{"a":1,"a":2}`, "--url", "URL"}, want: body(`{"action":"ping","params":{"a":1,"a":2}}`)},
		"a name to be quoted":   {args: []string{`p"ing`, "--url", "URL"}, want: body(`{"action":"p\"ing"}`)},
		"an api, debug":         {args: []string{"ping", "--api", "hub", "--debug", "--url", "URL"}, want: body(`{"action":"ping","api":"hub","debug":"max"}`)},
		"another path":          {args: []string{"ping", "--url", "URL/v2/x"}, want: with(func(s *sent) { s.path, s.body = "/v2/x", `{"action":"ping"}` })},
		"the environment token": {args: []string{"ping", "--url", "URL"}, token: "sdses_env", want: with(func(s *sent) { s.token, s.body = "Bearer sdses_env", `{"action":"ping"}` })},
		"a token flag":          {args: []string{"ping", "--url", "URL", "--token", "sdses_flag"}, token: "sdses_env", want: with(func(s *sent) { s.token, s.body = "Bearer sdses_flag", `{"action":"ping"}` })},
		"a token file":          {args: []string{"ping", "--url", "URL", "--token-file", "token"}, token: "sdses_env", want: with(func(s *sent) { s.token, s.body = "Bearer sdses_file", `{"action":"ping"}` })},
		"expressly no token":    {args: []string{"ping", "--url", "URL", "--token", ""}, token: "sdses_env", want: body(`{"action":"ping"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			var got sent
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				text, _ := io.ReadAll(r.Body)
				got = sent{r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), r.UserAgent(), string(text)}
				_, _ = io.WriteString(w, `{"result":{},"errorCode":0}`)
			}))
			defer s.Close()
			t.Chdir(t.TempDir())
			write(t, "token", "sdses_file\n")
			t.Setenv("SESSIOND_TOKEN", tt.token)
			args := []string{"call"}
			for _, a := range tt.args {
				args = append(args, strings.Replace(a, "URL", s.URL, 1))
			}
			if code, _, stderr := run(t, program(), tt.stdin, args...); code != 0 || got != tt.want {
				t.Errorf("exit code %d, sent\n%+v\nwant\n%+v\n%s", code, got, tt.want, stderr)
			}
		})
	}
}

func TestCallWithoutAnAnswer(t *testing.T) {
	const mark = "sdses_marked"
	t.Setenv("SESSIOND_TOKEN", mark)
	gone := httptest.NewServer(nil)
	gone.Close()
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"result":{},"errorCode":0}`) }))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it is to be refused
	secure.StartTLS()
	defer secure.Close()
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer slow.Close()
	defer close(release)
	away := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { away++ }))
	defer elsewhere.Close()
	redirect := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer redirect.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	hangsUp := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer hangsUp.Close()

	t.Chdir(t.TempDir())
	write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	write(t, "empty.pem", "")
	for name, tt := range map[string]struct {
		args     string
		want     int
		inStderr string
	}{
		"nobody there":             {"--url " + gone.URL, 1, "sessiond: no server answers at " + gone.URL + "/api: start one with sessiond serve, or name another with --url\n"},
		"a certificate of nobody":  {"--url " + secure.URL, 1, "name the authority that signed it with --ca"},
		"a certificate with --ca":  {"--url " + secure.URL + " --ca ca.pem", 0, ""},
		"no certificate in --ca":   {"--url " + secure.URL + " --ca empty.pem", 1, "holds no certificate in PEM form"},
		"https to a plain server":  {"--url https" + strings.TrimPrefix(plain.URL, "http"), 1, "speaks plain HTTP: write http in --url"},
		"an answer that is late":   {"--url " + slow.URL + " --timeout 50ms", 1, "no answer from " + slow.URL + "/api within 50ms: the server may have done it or not"},
		"a redirect":               {"--url " + redirect.URL, 1, "is no sessiond (HTTP status 307)"},
		"a server that is another": {"--url " + plain.URL, 1, "is no sessiond (HTTP status 404)"},
		"a server that hangs up":   {"--url " + hangsUp.URL, 1, "sessiond: no answer from " + hangsUp.URL + "/api: EOF\n"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := run(t, program(), "", append([]string{"call", "ping"}, strings.Fields(tt.args)...)...)
			if code != tt.want || !strings.Contains(stderr, tt.inStderr) {
				t.Errorf("exit code %d\nstdout: %s\nstderr: %s", code, stdout, stderr)
			}
			if strings.Contains(stdout+stderr, mark) {
				t.Errorf("it shows the token: %s", stderr)
			}
		})
	}
	if away != 0 {
		t.Error("a redirect was followed, with the token")
	}
}

func TestCallIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not see the client go
		cancel()
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
			t.Error("the request goes on")
		}
	}))
	defer s.Close()
	var stderr strings.Builder
	if code := program().Run(ctx, []string{"call", "ping", "--url", s.URL}, nil, io.Discard, &stderr); code != 1 ||
		stderr.String() != "sessiond: interrupted: the server may have done it or not\n" {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
}
