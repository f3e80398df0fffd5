package actions_test

import (
	"fmt"
	"testing"
	"time"

	"sessiond/actions"
	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store/mem"
)

// BenchmarkValidate is the hot path without the network: an envelope in, an
// answer out.
func BenchmarkValidate(b *testing.B) {
	d, keeper, realm := newDispatcher(b)
	var own, others [][]byte
	gateway := issue(b, keeper, realm, "gateway")
	for i := range 50_000 {
		token := issue(b, keeper, realm, fmt.Sprintf("user%d", i%5000)).Reveal()
		own = append(own, fmt.Appendf(nil, `{"api":"session","action":"validate","authToken":"%s"}`, token))
		others = append(others, fmt.Appendf(nil, `{"api":"session","action":"validate","params":{"tokenId":"%s"},"authToken":"%s"}`, token, gateway.Reveal()))
	}
	for _, bench := range []struct {
		name   string
		bodies [][]byte
	}{{"own", own}, {"gateway", others}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			dst := make([]byte, 0, 4096)
			i := 0
			for b.Loop() {
				i = (i*7919 + 1) % len(bench.bodies)
				a := d.Serve(b.Context(), &api.Request{Body: bench.bodies[i]}, dst[:0])
				if a.Status != 200 {
					b.Fatal(string(a.Body))
				}
			}
		})
	}
}

func newDispatcher(tb testing.TB) (*dispatch.Dispatcher, *session.Keeper, *config.Realm) {
	tb.Helper()
	cfg := config.Default()
	cfg.Realms = append(cfg.Realms, config.Realm{Name: "app", Type: "trusted", AllowServerRoles: true})
	cfg.Defaults.MaxSessions, cfg.Defaults.MaxSessionsPerUsername = 0, 0
	holder, now, st := config.NewHolder(cfg), clock.NewFake(time.Date(2026, 3, 2, 8, 15, 0, 0, time.UTC)), mem.New()
	hasher := account.NewHasherCost(1, 1, account.Cost{MemoryKiB: 8, Iterations: 1, Parallelism: 1})
	tb.Cleanup(hasher.Close)
	accounts := account.New(account.Deps{Store: st, Clock: now, Hasher: hasher})
	if _, err := accounts.Create(tb.Context(), event.Actor{}, account.NewAccount{Realm: "app", Username: "gateway", Roles: []string{"gateway"}}); err != nil {
		tb.Fatal(err)
	}
	keeper, err := session.Open(tb.Context(), session.Deps{Store: st, Accounts: accounts, Clock: now, Config: holder}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	table := actions.Table(actions.Deps{Sessions: keeper, Accounts: accounts, Events: actions.ReadEvents(st), Clock: now})
	d, err := dispatch.New(dispatch.Deps{Sessions: keeper, Config: holder, Clock: now}, table)
	if err != nil {
		tb.Fatal(err)
	}
	return d, keeper, &cfg.Realms[len(cfg.Realms)-1]
}

func issue(tb testing.TB, k *session.Keeper, realm *config.Realm, username string) api.Secret {
	tb.Helper()
	_, token, err := k.Create(tb.Context(), &session.NewSession{Realm: realm, Username: username, Issuer: &session.Caller{Live: session.Live{Permissions: account.AllPermissions}}, Idle: 3600})
	if err != nil {
		tb.Fatal(err)
	}
	return token
}
