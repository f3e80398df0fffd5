// Command sessiond is a session and API-key server.
//
// This file is the wiring: assemble puts the domain together over a store, serve
// adds the doors and keeps it running. What is said on the command line, package
// cli reads.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"sessiond/actions"
	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/cli"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/httpd"
	"sessiond/internal/logging"
	"sessiond/internal/session"
	"sessiond/internal/upkeep"
	"sessiond/internal/webhook"
	"sessiond/store"
	"sessiond/store/bolt"
	"sessiond/store/mem"
)

// version is set when the program is built.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &cli.Program{Version: version, Serve: serve, Restore: restore, Salvage: salvage, Actions: describeActions}
	return p.Run(ctx, args, stdin, stdout, stderr)
}

// describeActions returns the catalogue, which needs no server.
func describeActions() []dispatch.Description {
	return dispatch.Describe(actions.Table(actions.Deps{}))
}

// parts are what a server is assembled from.
type parts struct {
	Store  store.Store
	Config *config.Holder
	Clock  clock.Clock
	Log    *logging.Logger
	Hasher *account.Hasher
	Random io.Reader // nil: crypto/rand
	Host   actions.Host

	Services actions.Services
	Upkeep   actions.Upkeep

	PasswordChanged func(realm, username string)
	Loading         func(sessions int) // is told how many are loaded so far; nil: nobody is
}

// server is the domain over a store, without its doors.
type server struct {
	accounts   *account.Directory
	sessions   *session.Keeper
	tail       *event.Tail
	dispatcher *dispatch.Dispatcher
	apis       *dispatch.Switches
}

// assemble loads the live table and puts the server together around it.
func assemble(ctx context.Context, p parts) (*server, error) {
	s := &server{accounts: account.New(account.Deps{
		Store: p.Store, Clock: p.Clock, Hasher: p.Hasher, Rand: p.Random,
		PasswordWords: func() []string { return p.Config.Get().PasswordContextWords },
	}), apis: &dispatch.Switches{}}
	err := s.accounts.Load(ctx)
	if err != nil {
		return nil, err
	}
	s.sessions, err = session.Open(ctx, session.Deps{
		Store: p.Store, Accounts: s.accounts, Clock: p.Clock, Config: p.Config, Random: p.Random,
		Failed: func(err error) { p.Log.Error("a committed session cannot be read", logging.Err(err)) },
	}, p.Loading)
	if err != nil {
		return nil, fmt.Errorf("load the sessions: %w", err)
	}
	s.tail, err = event.OpenTail(ctx, p.Store) // after the table: what it hands out has happened there
	if err != nil {
		return nil, err
	}
	s.dispatcher, err = dispatch.New(dispatch.Deps{Sessions: s.sessions, Config: p.Config, Clock: p.Clock, Log: p.Log, APIs: s.apis}, actions.Table(actions.Deps{
		Sessions: s.sessions, Accounts: s.accounts, Events: actions.ReadEvents(p.Store), Tail: s.tail, Clock: p.Clock, Host: p.Host, PasswordChanged: p.PasswordChanged,
		APIs: s.apis, Services: p.Services, Upkeep: p.Upkeep, Record: actions.WriteEvents(p.Store),
	}))
	return s, err
}

// serve runs a server until ctx ends.
func serve(ctx context.Context, o cli.ServeOptions) (err error) {
	hup := make(chan os.Signal, 1) // from the start: unheard, it ends the process
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tune()
	system := clock.NewSystem()
	log := logging.New(o.Log, o.Config.Log.Level, o.Config.Log.Format, system.Now)
	warn(log, o.Config.Warnings)
	holder := config.NewHolder(o.Config)
	var st store.Store
	door := httpd.New(httpd.Options{Holder: holder, Log: log, Ready: func() error { return readiness(st) }}, nil)
	if err := door.Listen(ctx, o.Config.Listeners); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- door.Serve() }()
	defer func() {
		err = errors.Join(err, door.Shutdown(context.WithoutCancel(ctx)), <-served)
	}()
	progress := &starting{door: door, log: log, clock: system}
	if st, err = open(ctx, o, log, progress); err != nil {
		return orStopped(ctx, err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	progress.end() // before the time leaps to that of the data
	wentBack, err := resume(ctx, st, system, o.AcceptClock)
	if err != nil {
		return err
	}
	hasher := account.NewHasher(0, 0, hashInChild(log))
	defer hasher.Close()
	host, err := hostOf(ctx, st, o.Config)
	if err != nil {
		return err
	}
	first := &cli.FirstAdmin{Dir: o.Dir, Out: o.Out, Log: log, Shown: o.Terminal || o.Config.Storage.Type == "memory"}
	files := keeper(ctx, st, o, system, log)
	defer files.Stop()
	managed := &operations{options: o, log: log}
	progress.begin("loading the sessions")
	s, err := assemble(ctx, parts{
		Store: st, Config: holder, Clock: system, Log: log, Hasher: hasher, Host: host, PasswordChanged: first.Forget, Services: managed, Upkeep: files,
		Loading: progress.count,
	})
	if err != nil {
		return orStopped(ctx, err)
	}
	defer s.sessions.Close()
	defer s.tail.Close()
	unfollow, err := followed(ctx, st, o.Config, host.UUID, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unfollow()) }()
	if wentBack {
		if err := goBack(ctx, s, st, system.Now(), log); err != nil {
			return err
		}
	}
	debug.FreeOSMemory() // loading leaves much garbage behind, and little comes after it

	hooks := webhook.New(webhook.Deps{Store: st, Tail: s.tail, Clock: system, Log: log, Server: host.UUID})
	defer hooks.Stop()
	managed.Server, managed.domain, managed.hooks = door, s, hooks
	plan, err := webhook.Prepare(o.Config.Webhooks)
	if err != nil {
		return err
	}
	if err := first.Create(ctx, s.accounts, o.Password, urlOf(o.Config, door)); err != nil {
		return err
	}
	progress.end()
	door.Begin(s.dispatcher)
	for _, address := range door.Addrs() {
		log.Info("listening", logging.Str("address", address.String()), logging.Str("version", version))
	}
	warn(log, plan.Notes)
	hooks.Apply(context.WithoutCancel(ctx), plan) // until Stop
	watch := func(ctx context.Context) { watchClock(ctx, system, actions.WriteEvents(st), log) }
	return work(ctx, s, door, hooks, files, log, hup, watch, func() { managed.reloadForSignal(ctx, actions.WriteEvents(st), system.Now()) })
}

// orStopped is nil where it was the end of ctx that cut a start short.
func orStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// starting tells how far a start is: those who ask at the door, and the log once in a
// while. Only the goroutine that starts calls it.
type starting struct {
	door  *httpd.Server
	log   *logging.Logger
	clock clock.Clock

	stage       string // empty: none is under way
	begun, told time.Time
}

// begin ends a stage and begins the next.
func (s *starting) begin(stage string) {
	s.end()
	s.stage, s.begun = stage, s.clock.Now()
	s.told = s.begun
	s.door.Starting(stage)
	s.log.Info("starting", logging.Str("stage", stage))
}

func (s *starting) end() {
	if s.stage != "" {
		s.log.Info("starting", logging.Str("done", s.stage), logging.Int("milliseconds", s.clock.Now().Sub(s.begun).Milliseconds()))
	}
	s.stage = ""
}

// part says how much of a stage is done.
func (s *starting) part(done, total uint64) {
	s.tell(fmt.Sprintf("%s, %d %%", s.stage, done*100/max(1, total)))
}

func (s *starting) count(n int) { s.tell(fmt.Sprintf("%s, %d so far", s.stage, n)) }

func (s *starting) tell(text string) {
	const seldom = 2 * time.Second
	s.door.Starting(text)
	if now := s.clock.Now(); now.Sub(s.told) >= seldom {
		s.told = now
		s.log.Info("starting", logging.Str("stage", text))
	}
}

// hashInChild keeps hashes out of this process.
func hashInChild(log *logging.Logger) account.HasherOption {
	self, name := cli.HashWorker()
	return account.InChild(func(err error) {
		log.Warn("passwords are checked in the server itself until its hash worker runs again", logging.Err(err))
	}, self, name)
}

// work serves, maintains and reloads until ctx ends, then drains.
func work(ctx context.Context, s *server, door *httpd.Server, hooks *webhook.Sender, files *upkeep.Keeper, log *logging.Logger, hup <-chan os.Signal, watch func(context.Context), reload func()) error {
	var wg sync.WaitGroup
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		s.sessions.Run(background, func(err error) { log.Error("maintenance", logging.Err(err)) })
	})
	wg.Go(func() { files.Run(background) })
	wg.Go(func() { count(background, s.dispatcher, log) })
	wg.Go(func() { watch(background) })
	for {
		select {
		case <-hup:
			reload()
		case <-ctx.Done():
			log.Info("stopping: finishing what runs")
			hooks.Stop()
			files.Stop()
			s.tail.Drain()
			err := door.Shutdown(background)
			cancel()
			return errors.Join(err, s.accounts.FlushFailures(context.WithoutCancel(ctx)))
		}
	}
}

// count tells each minute how many requests had no line of their own.
func count(ctx context.Context, d *dispatch.Dispatcher, log *logging.Logger) {
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-minute.C:
			if n := d.Uncounted(); n > 0 {
				log.Info("validated", logging.Int("requests", int64(n))) //nolint:gosec // a minute's worth
			}
		}
	}
}

// operations are what manageService reaches of the process: its doors, and the file
// that it was set up from.
type operations struct {
	*httpd.Server // once there is a domain for it to call

	hooks   *webhook.Sender
	domain  *server
	options cli.ServeOptions
	log     *logging.Logger
	mu      sync.Mutex // held by a reload
}

// Reload puts services.json in force as it is now, with the certificates that it
// names, or leaves everything as it was and says why.
func (v *operations) Reload(ctx context.Context, record func() error) (notes []string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	changed, err := v.options.Load()
	var plan *webhook.Plan
	if err == nil {
		plan, err = webhook.Prepare(changed.Webhooks)
	}
	var unrecorded error
	if err == nil {
		err = v.domain.apis.Under(changed, func() error {
			notes, err = v.Server.Reload(changed, func() error {
				unrecorded = record()
				return unrecorded
			})
			return err
		})
	}
	if err != nil {
		v.log.Error("services.json was not reloaded", logging.Err(err))
		if unrecorded != nil {
			return nil, unrecorded
		}
		return nil, notReloaded(err)
	}
	v.domain.sessions.Configure(changed)
	v.hooks.Apply(context.WithoutCancel(ctx), plan)
	notes = slices.Concat(changed.Warnings, notes, plan.Notes)
	for _, member := range config.Diff(v.options.Config, changed) {
		if member != "listeners" { // one by one, in what Server.Reload says
			notes = append(notes, member+" changes with a restart of the server")
		}
	}
	warn(v.log, notes)
	v.log.Info("services.json reloaded")
	return notes, nil
}

// warn logs what an operator should know of services.json.
func warn(log *logging.Logger, notes []string) {
	for _, note := range notes {
		log.Warn("services.json", logging.Str("warning", note))
	}
}

// Webhooks returns where the receivers of events stand.
func (v *operations) Webhooks() []api.Webhook { return v.hooks.States() }

// ReplayWebhook lets a receiver go on from a cursor.
func (v *operations) ReplayWebhook(ctx context.Context, name, cursor string, record func() error) (api.Webhook, error) {
	return v.hooks.Replay(ctx, name, cursor, record)
}

// notReloaded tells an operator what stands in the way of a reload, as far as that
// fits an answer.
func notReloaded(err error) error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	const most = 2000
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…; check-config shows the rest"
	}
	return api.Errorf(api.BadParam, "nothing was changed: %s", text).Because(err)
}

// reloadForSignal is Reload for who has no answer to read, but the log. He may be
// about to help a store that takes no events any more.
func (v *operations) reloadForSignal(ctx context.Context, record actions.EventWriter, now time.Time) {
	_, _ = v.Reload(ctx, func() error { // it logs its errors
		err := record(ctx, event.Event{Time: now, Kind: event.ServiceManaged, Service: config.FileName, Reason: string(api.Reload)})
		if err != nil {
			v.log.Error("the reload is not in the log of changes", logging.Err(err))
		}
		return nil
	})
}

// tune sets what the runtime cannot know: a single processor must not stand
// still while it waits for the disk, and the heap is small beside the table.
func tune() {
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(300)
	}
}

// open opens the store that the configuration names.
func open(ctx context.Context, o cli.ServeOptions, log *logging.Logger, progress *starting) (store.Store, error) {
	if o.Config.Storage.Type == "memory" {
		return mem.New(), nil
	}
	if err := bolt.MakeFolder(o.Dir); err != nil {
		return nil, fmt.Errorf("the data folder cannot be made: %w; choose another one with --data", err)
	}
	if info, err := os.Stat(o.Dir); err == nil && info.Mode().Perm()&0o077 != 0 {
		log.Warn("others may look into the data folder: chmod 700 it", logging.Str("folder", o.Dir))
	}
	progress.begin("verifying the file")
	st, err := bolt.Open(ctx, filepath.Join(o.Dir, cli.DataFile), bolt.Options{
		Check: checkInChild(log), Progress: progress.part,
		Upgrading: func(from int, kept string) {
			log.Info("the file is upgraded", logging.Int("from", from), logging.Int("to", bolt.Format), logging.Str("before", kept))
		},
		MaxSize: o.Config.Storage.MaxBytes, Ballast: cmp.Or(o.Config.Storage.BallastBytes, -1),
		Report: func(r bolt.Report) { logReport(log, r) }, Now: progress.clock.Now,
	})
	switch {
	case errors.Is(err, store.ErrCorrupt):
		return nil, fmt.Errorf("the data in %s is not served: %w; nothing was changed, and %s", o.Dir, err, cli.Remedy)
	case err != nil:
		return nil, fmt.Errorf("the data in %s cannot be opened: %w", o.Dir, err)
	}
	return st, nil
}

// keeper returns what works on the store's file, if it has one. What a backup that was
// cut short has left may be as large as the data: it is removed first.
func keeper(ctx context.Context, st store.Store, o cli.ServeOptions, c clock.Clock, log *logging.Logger) *upkeep.Keeper {
	d := upkeep.Deps{Dir: o.Dir, Clock: c, Log: log, Rate: o.Config.Storage.BackupBytesPerSecond, Record: actions.WriteEvents(st)}
	if files, ok := st.(upkeep.Files); ok {
		d.Files = files
		if err := bolt.SweepBackups(filepath.Join(o.Dir, upkeep.Folder)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Error("what a backup that was cut short has left cannot be removed", logging.Err(err))
		}
	}
	return upkeep.New(ctx, d)
}

// checkInChild keeps what a damaged file might do to a program out of this process.
func checkInChild(log *logging.Logger) bolt.Check {
	self, name := cli.CheckWorker()
	return bolt.InChild(bolt.Child{Command: self, Args: []string{name}, Failed: func(err error) {
		log.Warn("the file is verified in the server itself", logging.Err(err))
	}})
}

// hostKey holds the identifier that the server keeps with its data.
const hostKey = "server/uuid"

func hostOf(ctx context.Context, st store.Store, cfg *config.Config) (actions.Host, error) {
	item, err := st.Get(ctx, hostKey)
	if errors.Is(err, store.ErrNotFound) {
		item.Value = []byte(uuid())
		_, err = st.Commit(ctx, store.Tx{If: []store.Cond{{Key: hostKey}}, Put: []store.Put{{Key: hostKey, Value: item.Value}}})
	}
	if err != nil {
		return actions.Host{}, fmt.Errorf("read the server's identifier: %w", err)
	}
	host := actions.Host{UUID: string(item.Value)}
	if host.Name, err = os.Hostname(); err != nil {
		host.Name = "localhost"
	}
	host.ServerNamePort = host.Name
	for _, l := range cfg.Listeners {
		if l.Enabled && l.Port != 0 {
			host.ServerNamePort = fmt.Sprintf("%s:%d", host.Name, l.Port)
			break
		}
	}
	addresses, _ := net.InterfaceAddrs() // none, if they cannot be read
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() {
			host.Addresses = append(host.Addresses, p.Addr().WithZone(""))
		}
	}
	return host, nil
}

// uuid returns a random UUID (RFC 9562, version 4).
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func urlOf(cfg *config.Config, door *httpd.Server) string {
	scheme := "http"
	for _, l := range cfg.Listeners {
		if l.Enabled {
			scheme = l.Protocol
			break
		}
	}
	for _, a := range door.Addrs() {
		return scheme + "://" + a.String() + cfg.APIRoot
	}
	return scheme + "://127.0.0.1" + cfg.APIRoot
}
