//go:build linux && bench

package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// measureValidate compares validate with a handler that reads the same request
// and answers as many bytes. That runs as it runs best, with one P on its one
// core, and once more with two, as a server has to that syncs a disk.
func measureValidate(t *testing.T, server *child, d *data, r *report) {
	t.Helper()
	r.answerBytes = validAnswer(t, server, d.ownBodies()[0])
	validAnswer(t, server, d.gatewayBodies()[0])
	bare, bareTwo := startBare(t, r.answerBytes, 1), startBare(t, r.answerBytes, 2)
	for round := range r.rounds {
		own, gateway := d.ownBodies(), d.gatewayBodies()
		runs := []func(){
			func() { r.bareOwn = append(r.bareOwn, load(t, bare, own, connections, r.slice)) },
			func() { r.validateOwn = append(r.validateOwn, load(t, server, own, connections, r.slice)) },
			func() { r.validateGateway = append(r.validateGateway, load(t, server, gateway, connections, r.slice)) },
			func() { r.bareGateway = append(r.bareGateway, load(t, bare, gateway, connections, r.slice)) },
			func() { r.bareTwo = append(r.bareTwo, load(t, bareTwo, own, connections, r.slice)) },
		}
		for i := range runs {
			runs[(i+round)%len(runs)]() // each comes first in turn
		}
		for _, s := range []slice{r.validateOwn[round], r.validateGateway[round]} {
			if s.bytes < float64(r.answerBytes) {
				t.Fatalf("an answer has %.0f bytes with its headers, but a good one has a body of %d: tokens are not valid", s.bytes, r.answerBytes)
			}
		}
	}
	bare.kill()
	bareTwo.kill()
	r.usedBytes = server.anonymous(t)
}

// validAnswer sends one request, whose token has to be valid, and returns the size
// of the answer.
func validAnswer(t *testing.T, server *child, body string) int {
	t.Helper()
	response, err := http.Post(server.url, "application/json", strings.NewReader(body)) //nolint:noctx // loopback, and the server is killed in the end
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Result struct{ Valid bool } }
	if err := json.Unmarshal(text, &answer); err != nil || !answer.Result.Valid {
		t.Fatalf("validate: %v in %s", err, text)
	}
	return len(text)
}

func startBare(t *testing.T, answerBytes, processors int) *child {
	t.Helper()
	cmd := again(t, "bare", strconv.Itoa(answerBytes))
	cmd.Env = append(cmd.Env, "GOMAXPROCS="+strconv.Itoa(processors))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := launch(t, cmd)
	address := make([]byte, 64)
	n, err := out.Read(address)
	if err != nil {
		t.Fatalf("the bare server does not listen: %v\n%s", err, c.tail())
	}
	c.url = "http://" + strings.TrimSpace(string(address[:n])) + "/api"
	return c
}

// bareServer is a fasthttp server that does nothing: its answer is fixed, and as
// long as it is told.
func bareServer(args []string) error {
	size, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	const head, tail = `{"result":{"x":"`, `"},"errorCode":0,"errorMessage":""}`
	answer := []byte(head + strings.Repeat("x", size-len(head)-len(tail)) + tail)
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // for the life of the process
	if err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString(listener.Addr().String() + "\n"); err != nil {
		return err
	}
	return (&fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		if !bytes.HasPrefix(ctx.PostBody(), []byte("{")) {
			ctx.SetStatusCode(fasthttp.StatusBadRequest)
			return
		}
		ctx.SetContentType("application/json")
		ctx.SetBody(answer)
	}}).Serve(listener)
}
