package main

import (
	"context"
	"strings"
	"sync"

	"sessiond/internal/api"
	"sessiond/internal/config"
)

// stageDoors are the listeners of a stage, which has no doors: they open no port,
// and go through the states all the same.
type stageDoors struct {
	config *config.Holder

	mu     sync.Mutex
	states map[string]api.ServiceState // unlike services.json
}

func (d *stageDoors) Listeners() []api.Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []api.Listener
	for _, l := range d.config.Get().Listeners {
		shown := api.Listener{
			ServiceName: l.ServiceName, Description: l.Description, Address: l.Address, Port: l.Port, Protocol: l.Protocol, Enabled: l.Enabled,
			State: api.Stopped, CertificateFile: l.TLS.CertificateFile, KeyFile: l.TLS.KeyFile,
		}
		if l.Enabled {
			shown.State = api.Running
		}
		if state, ok := d.states[l.ServiceName]; ok {
			shown.State = state
		}
		if l.Protocol == config.HTTPS && shown.State != api.Stopped {
			shown.Certificate = &api.Certificate{
				Subject: "CN=stage", NotBefore: dawn, NotAfter: dawn.AddDate(0, 3, 0), SHA256: strings.Repeat("0123456789abcdef", 4),
			}
		}
		all = append(all, shown)
	}
	return all
}

func (d *stageDoors) Manage(_ context.Context, service string, command api.ServiceCommand, record func() error) (api.Listener, bool, error) {
	running := 0
	var meant *api.Listener
	all := d.Listeners()
	for i := range all {
		if all[i].State == api.Running {
			running++
		}
		if strings.EqualFold(all[i].ServiceName, service) {
			meant = &all[i]
		}
	}
	if meant == nil {
		return api.Listener{}, false, api.Errorf(api.NotFound, "there is no such service: listServices shows which there are")
	}
	next, err := command.From(meant.State)
	changed := next != meant.State || command == api.Restart
	switch {
	case err != nil || !changed:
		return *meant, false, err
	case meant.State == api.Running && next != api.Running && running == 1:
		return *meant, false, api.Errorf(api.Conflict, "no listener would take connections any more")
	}
	if err := record(); err != nil {
		return *meant, false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.states[meant.ServiceName], meant.State = next, next
	return *meant, true, nil
}

// Webhooks shows each as if nothing had happened yet.
func (d *stageDoors) Webhooks() []api.Webhook {
	var all []api.Webhook
	for _, w := range d.config.Get().Webhooks {
		all = append(all, api.Webhook{Name: w.Name, URL: w.URL, Enabled: w.Enabled, State: api.Running, Position: 1, Cursor: "o1", Behind: 7})
	}
	return all
}

func (d *stageDoors) ReplayWebhook(_ context.Context, name, cursor string, record func() error) (api.Webhook, error) {
	for _, w := range d.Webhooks() {
		if !strings.EqualFold(w.Name, name) {
			continue
		}
		if cursor != "" && !strings.HasPrefix(cursor, "o") {
			return api.Webhook{}, api.Errorf(api.BadParam, "cursor must be one that the same query was answered with").At("/params/cursor")
		}
		w.Cursor = cursor
		return w, record()
	}
	return api.Webhook{}, api.Errorf(api.NotFound, "there is no such webhook: listServices shows which there are")
}

func (d *stageDoors) Reload(_ context.Context, record func() error) ([]string, error) {
	return nil, record()
}
