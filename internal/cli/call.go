package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

const (
	urlVariable   = "SESSIOND_URL"
	tokenVariable = "SESSIOND_TOKEN"
	defaultURL    = "http://127.0.0.1:8080/api"
)

func (p *Program) call() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "call ACTION [JSON]",
		Short: "Ask a running server to do something",
		Long: `Sends one request to a server and prints its result. JSON is the params of the
action, an object; - reads it from standard input, which is the way for whatever
holds a password.

The token belongs into $` + tokenVariable + ` or a file: what stands on a command line, other
users of the machine can see.

The exit code is 0 if errorCode is 0, else 1; the code and the message then go to
standard error. listActions, and docs/reference.md, tell what there is.`,
		Example: `  sessiond call pingSession
  echo '{"username": "admin", "password": "…"}' | sessiond call createSession -
  export ` + tokenVariable + `=sdses_…
  sessiond call listSessions '{"limit": 10}'
  sessiond call revokeSessions '{"sessionHandles": ["sh_…"]}' --output json`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("name the action to call, such as pingSession; sessiond call listActions tells all")
			case len(args) > 2:
				return usagef("call takes an action and its params as one argument: put the JSON in single quotes")
			}
			return nil
		},
		ValidArgsFunction: p.completeAction,
		RunE:              p.runCall,
	}
	addQuestion(cmd)
	f := cmd.Flags()
	f.String("api", "", "ask `API`: admin, session or hub (default: the server's)")
	f.Bool("full", false, "print the whole answer and not its result alone")
	f.Bool("debug", false, "ask for debugInfo and print the whole answer")
	addOutput(cmd, formatJSON, formatTable)
	f.Lookup("output").Usage = "print as `FORMAT`: json or table (default: a table where the terminal has room for it)"
	_ = cmd.RegisterFlagCompletionFunc("api", cobra.FixedCompletions([]string{api.Admin, api.Session, api.Hub}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// addQuestion adds the flags that say whom to ask, and how.
func addQuestion(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("url", "", "endpoint of the server as `URL` (default "+defaultURL+"); $"+urlVariable)
	f.String("token", "", "the caller's `TOKEN`, which other users of this machine can then see; safer in $"+tokenVariable)
	f.String("token-file", "", "read the caller's token from `FILE`")
	f.String("ca", "", "trust the authorities whose certificates (PEM) are in `FILE`")
	f.Duration("timeout", 30*time.Second, "wait so long for an answer, as `TIME`")
}

func (p *Program) completeAction(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, a := range p.Actions() {
		doc, _, _ := strings.Cut(a.Description, ". ")
		names = append(names, cobra.CompletionWithDesc(a.Name, doc))
		for _, alias := range a.Aliases {
			names = append(names, cobra.CompletionWithDesc(alias, "another name of "+a.Name))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (p *Program) runCall(cmd *cobra.Command, args []string) error {
	f := cmd.Flags()
	format, err := output(cmd, "")
	if err != nil {
		return err
	}
	ask, err := p.question(cmd)
	if err != nil {
		return err
	}
	r := request{Action: args[0]}
	r.API, _ = said(cmd, "api", "")
	full, _ := f.GetBool("full")
	if r.Debug, _ = f.GetBool("debug"); r.Debug {
		full = true
	}
	if len(args) > 1 {
		if r.Params, err = params(cmd.InOrStdin(), args[1]); err != nil {
			return err
		}
	}
	a, err := ask.send(cmd.Context(), r)
	if err != nil {
		return err
	}
	if full || a.result == nil && a.refusal == nil {
		if err := printLine(cmd, escaped(wire.Indent(nil, a.whole.Raw))); err != nil {
			return err
		}
		return a.failure()
	}
	if err := a.failure(); err != nil {
		return err
	}
	return printResult(cmd, a.result, format)
}

// question reads whom to ask, and how, from flags and the environment.
func (p *Program) question(cmd *cobra.Command) (*client, error) {
	endpoint, name := said(cmd, "url", urlVariable)
	if name == "" {
		endpoint, name = defaultURL, "--url"
	}
	token, err := tokenOf(cmd)
	if err != nil {
		return nil, err
	}
	c := &client{token: token, agent: "sessiond/" + p.Version}
	if c.timeout, _ = cmd.Flags().GetDuration("timeout"); c.timeout <= 0 {
		return nil, usagef("--timeout is a duration above 0, such as 30s")
	}
	if c.url, err = endpointOf(name, endpoint); err != nil {
		return nil, err
	}
	if file, _ := said(cmd, "ca", ""); file != "" {
		if c.authorities, err = authorities(file); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// tokenOf returns the caller's token. An empty one on the command line means
// none, whatever the environment says.
func tokenOf(cmd *cobra.Command) (token api.Secret, err error) {
	text, name := said(cmd, "token", "")
	file, fromFile := said(cmd, "token-file", "")
	switch {
	case fromFile != "" && name != "":
		return api.Secret{}, usagef("--token and --token-file name a token each: leave one out")
	case fromFile != "":
		if token, err = secretFile(fromFile, file); err != nil {
			return api.Secret{}, err
		}
		name, text = fromFile, token.Reveal()
	case name == "":
		text, name = os.Getenv(tokenVariable), "$"+tokenVariable
	}
	text = strings.TrimSpace(text)
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return api.Secret{}, usagef("%s holds no token: it is one word of letters, digits and _", name)
	}
	return api.NewSecret(text), nil
}

// mostParams is more than a server takes by default, which says so itself.
const mostParams = 64 << 20

// params returns the JSON object that an argument is, or that stdin holds.
// What is wrong within it, the server says.
func params(stdin io.Reader, arg string) ([]byte, error) {
	text := []byte(arg)
	where := "the params"
	if arg == "-" {
		where = "standard input"
		var err error
		if text, err = io.ReadAll(io.LimitReader(stdin, mostParams)); err != nil {
			return nil, fmt.Errorf("read the params: %w", err)
		}
	}
	tree, faults := wire.ParseTree(text)
	if tree == nil {
		line, column := wire.Line(text, faults[0].Offset)
		return nil, usagef("%s:%d:%d: %s", where, line, column, faults[0].Message)
	}
	if tree.Kind != wire.Object {
		return nil, usagef("%s must be a JSON object, such as '{\"limit\": 10}'", where)
	}
	return text, nil
}
