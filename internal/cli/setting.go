package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/logging"
)

// Variables of the environment that no flag stands for.
const (
	configVariable       = "SESSIOND_CONFIG"
	dataVariable         = "SESSIOND_DATA"
	passwordVariable     = "SESSIOND_ADMIN_PASSWORD"
	passwordFileVariable = "SESSIOND_ADMIN_PASSWORD_FILE"
)

// setting is a flag, and a variable of the environment, that comes before a
// member of services.json.
type setting struct {
	flag, variable string
	onOff          bool
	doc            string // names its value in `backquotes`, for the help
	choices        []string
	override       func(text string) (config.Override, error)
}

func settings() []setting {
	levels := []string{"trace", "debug", "info", "warn", "error"}
	formats := []string{logging.Console, logging.JSON}
	return []setting{
		{
			flag: "data", variable: dataVariable, doc: "keep the data in the folder `DIR` (default ./data)",
			override: func(text string) (config.Override, error) {
				if text == "" {
					return nil, errors.New("is the path of a folder")
				}
				return func(c *config.Config) { c.Storage.Dir = text }, nil
			},
		},
		{
			flag: "listen", variable: "SESSIOND_LISTEN", doc: "serve plain HTTP at `HOST:PORT` instead of what services.json says",
			override: listen,
		},
		{
			flag: "insecure-http", variable: "SESSIOND_INSECURE_HTTP", onOff: true, doc: "allow plain HTTP beyond this machine, where others can read tokens and passwords",
			override: func(text string) (config.Override, error) {
				on, err := strconv.ParseBool(text)
				if err != nil {
					return nil, errors.New("is true or false")
				}
				return func(c *config.Config) { c.InsecureHTTP = on }, nil
			},
		},
		{
			flag: "log-level", variable: "SESSIOND_LOG_LEVEL", doc: "log from `LEVEL` on: " + strings.Join(levels, ", ") + " (default info)", choices: levels,
			override: func(text string) (config.Override, error) {
				return func(c *config.Config) { c.Log.Level = text }, nil
			},
		},
		{
			flag: "log-format", variable: "SESSIOND_LOG_FORMAT", doc: "log as `FORMAT`: console (default on a terminal) or json (default elsewhere)", choices: formats,
			override: func(text string) (config.Override, error) {
				return func(c *config.Config) { c.Log.Format = text }, nil
			},
		},
	}
}

// read turns the text of the flag or variable into what it does to a Config.
func (s *setting) read(name, text string) (config.Override, error) {
	if s.choices != nil && !slices.Contains(s.choices, text) {
		return nil, usagef("%s is one of %s", name, strings.Join(s.choices, ", "))
	}
	o, err := s.override(text)
	if err != nil {
		return nil, usagef("%s %w", name, err)
	}
	return o, nil
}

func listen(text string) (config.Override, error) {
	const want = "is HOST:PORT, such as 127.0.0.1:8080, or :8080 for all networks"
	host, service, err := net.SplitHostPort(text)
	if err != nil {
		return nil, errors.New(want)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, errors.New(want)
	}
	if host == "" {
		host = "*"
	}
	listeners := []config.Listener{{ServiceName: "listen", Address: host, Port: int(port), Protocol: config.HTTP, Enabled: true}}
	return func(c *config.Config) { c.Listeners = slices.Clone(listeners) }, nil
}

// addConfigFlag adds --config.
func addConfigFlag(cmd *cobra.Command) {
	cmd.Flags().String("config", "", "read services.json from `FILE` (default ./services.json if there is one, else built in; $"+configVariable+")")
	_ = cmd.MarkFlagFilename("config", "json")
}

// addSettings adds the flags of all settings, or of those that are named.
func addSettings(cmd *cobra.Command, names ...string) {
	for _, s := range settings() {
		if len(names) > 0 && !slices.Contains(names, s.flag) {
			continue
		}
		doc := s.doc + "; $" + s.variable
		if s.onOff {
			cmd.Flags().Bool(s.flag, false, doc)
			continue
		}
		cmd.Flags().String(s.flag, "", doc)
		if s.choices != nil {
			_ = cmd.RegisterFlagCompletionFunc(s.flag, cobra.FixedCompletions(s.choices, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	if cmd.Flags().Lookup("data") != nil {
		_ = cmd.MarkFlagDirname("data")
	}
}

// said returns what a flag says, or else a variable of the environment, and the
// name of the one that spoke; that is "" if neither did.
func said(cmd *cobra.Command, flag, variable string) (text, name string) {
	if f := cmd.Flags().Lookup(flag); f != nil && f.Changed {
		return f.Value.String(), "--" + flag
	}
	if text := os.Getenv(variable); variable != "" && text != "" {
		return text, "$" + variable
	}
	return "", ""
}

// source is where the configuration comes from, so that it can be loaded again.
type source struct {
	path      string
	overrides []config.Override
}

func sourceOf(cmd *cobra.Command, path string) (*source, error) {
	s := &source{path: path}
	if path == "" {
		s.path, _ = said(cmd, "config", configVariable)
	}
	for _, setting := range settings() {
		text, name := said(cmd, setting.flag, setting.variable)
		if name == "" {
			continue
		}
		override, err := setting.read(name, text)
		if err != nil {
			return nil, err
		}
		s.overrides = append(s.overrides, override)
	}
	format := logging.JSON
	if isTerminal(cmd.ErrOrStderr()) {
		format = logging.Console
	}
	s.overrides = append(s.overrides, func(c *config.Config) {
		if c.Log.Format == "" {
			c.Log.Format = format
		}
	})
	return s, nil
}

func (s *source) load() (*config.Config, error) { return config.Load(s.path, s.overrides...) }

// dataFile returns the path of the store that a command is about, which is to
// exist.
func dataFile(cmd *cobra.Command) (string, error) {
	dir, _ := said(cmd, "data", dataVariable)
	if dir == "" {
		s, err := sourceOf(cmd, "")
		if err != nil {
			return "", err
		}
		c, err := s.load()
		if err != nil {
			return "", err
		}
		if c.Storage.Type != "bolt" {
			return "", errors.New("services.json keeps the data in memory: there is no folder to work on; name one with --data")
		}
		dir = c.Storage.Dir
	}
	path := filepath.Join(dir, DataFile)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("there is no store of a server in %s: name its folder with --data", dir)
	}
	return path, nil
}

// mostPassword bounds what is read of a password's file.
const mostPassword = 4096

// adminPassword returns the password from the environment, zero if it holds none.
func adminPassword() (api.Secret, error) {
	text, file := os.Getenv(passwordVariable), os.Getenv(passwordFileVariable)
	switch {
	case text != "" && file != "":
		return api.Secret{}, usagef("%s and %s are both set: unset one", passwordVariable, passwordFileVariable)
	case file == "":
		return api.NewSecret(text), nil
	}
	return secretFile(passwordFileVariable, file)
}

// secretFile reads a secret, without the line break that editors leave behind it.
func secretFile(name, path string) (api.Secret, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return api.Secret{}, fmt.Errorf("the file that %s names cannot be read: %w", name, err)
	}
	content = bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
	if len(content) == 0 || len(content) > mostPassword || bytes.ContainsAny(content, "\r\n") {
		return api.Secret{}, fmt.Errorf("the file that %s names must hold one line and nothing else", name)
	}
	return api.NewSecret(string(content)), nil
}
