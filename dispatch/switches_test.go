package dispatch_test

import (
	"errors"
	"sync"
	"testing"

	"sessiond/dispatch"
	"sessiond/internal/api"
	"sessiond/internal/config"
)

// What may be turned under which configuration. Each story begins anew.
func TestSwitches(t *testing.T) {
	all := map[string]bool{api.Admin: true, api.Session: true, api.Hub: true}
	noHub := map[string]bool{api.Admin: true, api.Session: true}
	noAdmin := map[string]bool{api.Session: true, api.Hub: true}
	type turn struct {
		name    string
		command api.ServiceCommand
		want    api.ServiceState
		changed bool
		code    api.Code
	}
	for _, c := range []struct {
		name  string
		apis  map[string]bool
		turns []turn
	}{
		{"one of admin and hub stays", all, []turn{
			{api.Hub, api.Pause, api.Paused, true, 0},
			{api.Admin, api.Pause, api.Running, false, api.Conflict},
			{api.Admin, api.Shutdown, api.Running, false, api.Conflict},
			{api.Hub, api.Shutdown, api.Stopped, true, 0},
			{api.Hub, api.Startup, api.Running, true, 0},
			{api.Admin, api.Shutdown, api.Stopped, true, 0},
			{api.Hub, api.Pause, api.Running, false, api.Conflict},
			{api.Session, api.Shutdown, api.Stopped, true, 0},
		}},
		{"without hub admin stays", noHub, []turn{
			{api.Admin, api.Pause, api.Running, false, api.Conflict},
			{api.Hub, api.Resume, api.Stopped, false, api.Conflict},
			{api.Hub, api.Startup, api.Running, true, 0},
			{api.Admin, api.Pause, api.Paused, true, 0},
		}},
		{"a hub without admin manages nothing", noAdmin, []turn{
			{api.Admin, api.Startup, api.Running, true, 0},
			{api.Admin, api.Shutdown, api.Running, false, api.Conflict},
			{api.Hub, api.Shutdown, api.Stopped, true, 0},
		}},
		{"what is so already", all, []turn{
			{api.Session, api.Resume, api.Running, false, 0},
			{api.Session, api.Restart, api.Running, false, 0},
			{api.Session, api.Pause, api.Paused, true, 0},
			{api.Session, api.Pause, api.Paused, false, 0},
			{api.Session, api.Startup, api.Paused, false, api.Conflict},
			{api.Session, api.Restart, api.Running, true, 0},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s dispatch.Switches
			cfg := &config.Config{APIs: c.apis}
			for i, turn := range c.turns {
				recorded := false
				state, changed, err := s.Turn(cfg, turn.name, turn.command, func() error { recorded = true; return nil })
				if state != turn.want || changed != turn.changed || recorded != turn.changed || codeOf(err) != turn.code || s.State(cfg, turn.name) != turn.want {
					t.Errorf("turn %d: %s, changed %t, recorded %t, %v; then %s; want %s, %t, code %d",
						i+1, state, changed, recorded, err, s.State(cfg, turn.name), turn.want, turn.changed, turn.code)
				}
			}
		})
	}
}

func TestSwitchesRecordFirst(t *testing.T) {
	var s dispatch.Switches
	cfg := &config.Config{APIs: map[string]bool{api.Admin: true, api.Session: true}}
	lost := errors.New("no room for an event")
	if _, changed, err := s.Turn(cfg, api.Session, api.Pause, func() error { return lost }); changed || !errors.Is(err, lost) || s.State(cfg, api.Session) != api.Running {
		t.Errorf("changed %t, %v; then %s", changed, err, s.State(cfg, api.Session))
	}
}

// Of two operators who each turn one of admin and hub off, one is refused.
func TestSwitchesExcludeEachOther(t *testing.T) {
	cfg := &config.Config{APIs: map[string]bool{api.Admin: true, api.Hub: true}}
	for range 200 {
		var s dispatch.Switches
		var errs [2]error
		var wg sync.WaitGroup
		for i, name := range []string{api.Admin, api.Hub} {
			wg.Go(func() { _, _, errs[i] = s.Turn(cfg, name, api.Pause, func() error { return nil }) })
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("both are told %v", errs)
		}
	}
}

// A reload leaves what was turned, and what was not goes by the new file.
func TestSwitchesUnderAnotherConfiguration(t *testing.T) {
	var s dispatch.Switches
	old := &config.Config{APIs: map[string]bool{api.Admin: true, api.Session: true, api.Hub: true}}
	for _, name := range []string{api.Session, api.Admin} {
		if _, _, err := s.Turn(old, name, api.Pause, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		apis map[string]bool
		put  bool
	}{
		{"hub stays", map[string]bool{api.Admin: true, api.Hub: true}, true},
		{"hub goes, and admin is paused", map[string]bool{api.Admin: true, api.Session: true}, false},
		{"management goes by the file itself", map[string]bool{api.Session: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			put := false
			cfg := &config.Config{APIs: c.apis}
			if err := s.Under(cfg, func() error { put = true; return nil }); put != c.put || codeOf(err) != map[bool]api.Code{true: 0, false: api.Conflict}[c.put] {
				t.Errorf("put %t, %v", put, err)
			}
			if state := s.State(cfg, api.Session); state != api.Paused {
				t.Errorf("the session api is %s", state)
			}
		})
	}
}

func codeOf(err error) api.Code {
	if err == nil {
		return 0
	}
	return api.FromError(err).Code
}
