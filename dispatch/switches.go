package dispatch

import (
	"maps"
	"sync"
	"sync/atomic"

	"sessiond/internal/api"
	"sessiond/internal/config"
)

// Switches are what an operator has done to the apis since the server began. They
// decide whether requests may name an api; what hub has of the others stays as the
// configuration says. The zero Switches leaves everything to the configuration.
type Switches struct {
	mu     sync.Mutex // held by whoever changes them, also while that is recorded
	states atomic.Pointer[map[string]api.ServiceState]
}

// State returns where an api stands under a configuration.
func (s *Switches) State(cfg *config.Config, name string) api.ServiceState {
	return stateIn(s.states.Load(), cfg, name)
}

func stateIn(states *map[string]api.ServiceState, cfg *config.Config, name string) api.ServiceState {
	if states != nil {
		if state, ok := (*states)[name]; ok {
			return state
		}
	}
	if cfg.APIs[name] {
		return api.Running
	}
	return api.Stopped
}

// Turn does a command to an api and returns its state then, and whether that has
// changed. What changes is recorded first: if that fails, nothing has changed. A
// Conflict says that the command does not fit, or that nobody could manage the
// server any more.
func (s *Switches) Turn(cfg *config.Config, name string, command api.ServiceCommand, record func() error) (api.ServiceState, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.State(cfg, name)
	next, err := command.From(state)
	if err != nil || next == state {
		return state, false, err
	}
	states := map[string]api.ServiceState{}
	if old := s.states.Load(); old != nil {
		maps.Copy(states, *old)
	}
	delete(states, name)
	if stateIn(nil, cfg, name) != next {
		states[name] = next
	}
	if next != api.Running && !manageable(&states, cfg) {
		return state, false, api.Errorf(api.Conflict, "nobody could manage the server any more: of admin and hub one must run")
	}
	if err := record(); err != nil {
		return state, false, err
	}
	s.states.Store(&states)
	return next, true, nil
}

// Under puts another configuration in force, unless nobody could manage the server
// any more because of what has been done to the apis; then a Conflict says so.
func (s *Switches) Under(cfg *config.Config, put func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if manageable(nil, cfg) && !manageable(s.states.Load(), cfg) {
		return api.Errorf(api.Conflict, "nobody could manage the server any more: of admin and hub one must run, so resume or startup one that stays enabled")
	}
	return put()
}

// manageable reports whether requests reach the actions of admin, by its own name
// or through hub.
func manageable(states *map[string]api.ServiceState, cfg *config.Config) bool {
	return stateIn(states, cfg, api.Admin) == api.Running ||
		cfg.APIs[api.Admin] && stateIn(states, cfg, api.Hub) == api.Running
}
