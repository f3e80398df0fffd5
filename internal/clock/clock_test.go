package clock_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sessiond/internal/clock"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// What is told after something has happened to a machine whose clock said noon, and
// how much of that has surely come.
func TestWhatIsDoneToTheMachinesClock(t *testing.T) {
	type does = func(*clock.Machine)
	pass := func(d time.Duration) does { return func(m *clock.Machine) { m.Pass(d) } }
	set := func(d time.Duration) does { return func(m *clock.Machine) { m.Set(d) } }
	sleep := func(d time.Duration) does { return func(m *clock.Machine) { m.Sleep(d) } }
	for _, tt := range []struct {
		name  string
		does  []does
		after time.Duration // since noon, as it is told
		doubt time.Duration
		steps []time.Duration
	}{
		{"time passes", []does{pass(time.Hour)}, time.Hour, 0, nil},
		{"five minutes ahead", []does{set(5 * time.Minute)}, 5 * time.Minute, 0, nil},
		{"more than that", []does{set(5*time.Minute + 1)}, 5*time.Minute + 1, 5*time.Minute + 1, []time.Duration{5*time.Minute + 1}},
		{"and ten minutes less a second later", []does{set(time.Hour), pass(10*time.Minute - time.Second)}, 70*time.Minute - time.Second, time.Hour, []time.Duration{time.Hour}},
		{"and ten minutes later", []does{set(time.Hour), pass(10 * time.Minute)}, 70 * time.Minute, 0, []time.Duration{time.Hour}},
		{"ten years", []does{set(10 * year), pass(9 * time.Minute)}, 10*year + 9*time.Minute, 10 * year, []time.Duration{10 * year}},
		{"ahead once more", []does{set(time.Hour), pass(9 * time.Minute), set(time.Hour), pass(9 * time.Minute)}, 2*time.Hour + 18*time.Minute, 2 * time.Hour, []time.Duration{time.Hour, time.Hour}},
		{"ahead and corrected", []does{set(time.Hour), pass(2 * time.Minute), set(-time.Hour), pass(time.Minute)}, 63 * time.Minute, time.Hour, []time.Duration{time.Hour, -time.Hour}},
		{"which is never believed", []does{set(time.Hour), pass(2 * time.Minute), set(-time.Hour), pass(day)}, day + 62*time.Minute, time.Hour, []time.Duration{time.Hour, -time.Hour}},
		{"a second back", []does{set(-time.Second), pass(time.Minute)}, time.Minute, 0, nil},
		{"an hour back", []does{set(-time.Hour), pass(time.Minute)}, time.Minute, 0, []time.Duration{-time.Hour}},
		{"ten years back", []does{set(-10 * year), pass(time.Minute)}, time.Minute, 0, []time.Duration{-10 * year}},
		{"back and corrected", []does{set(-time.Hour), pass(time.Minute), set(time.Hour), pass(time.Minute)}, 2 * time.Minute, 0, []time.Duration{-time.Hour}},
		{"back and corrected too far", []does{set(-time.Hour), pass(time.Minute), set(2 * time.Hour)}, time.Hour + time.Minute, time.Hour, []time.Duration{-time.Hour, time.Hour}},
		{"asleep", []does{sleep(8 * time.Hour)}, 8 * time.Hour, 0, nil},
		{"asleep with a clock that is behind", []does{set(-9 * time.Hour), pass(time.Minute), sleep(8 * time.Hour)}, 8*time.Hour + time.Minute, 0, []time.Duration{-9 * time.Hour}},
		{"asleep with a clock that goes ahead meanwhile", []does{sleep(8 * time.Hour), set(time.Hour)}, 9 * time.Hour, time.Hour, []time.Duration{time.Hour}},
		{"back again and again within ten minutes", []does{
			set(-time.Hour), pass(time.Second), set(time.Hour), pass(time.Second), set(-time.Hour), pass(time.Second),
		}, 3 * time.Second, 0, []time.Duration{-time.Hour}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			machine := clock.NewMachine(noon)
			system := machine.Begin()
			var steps []time.Duration
			look := func() {
				for _, step := range system.Steps() {
					steps = append(steps, step.By)
				}
			}
			for _, do := range tt.does {
				do(machine)
				look()
			}
			if got := system.Now().Sub(noon); got != tt.after {
				t.Errorf("it is told to be %v later, want %v", got, tt.after)
			}
			if got := system.Doubt(); got != tt.doubt {
				t.Errorf("in doubt are %v, want %v", got, tt.doubt)
			}
			if got, want := clock.Sure(system), noon.Add(tt.after-tt.doubt); !got.Equal(want) {
				t.Errorf("surely it is %v, want %v", got, want)
			}
			if !slices.Equal(steps, tt.steps) {
				t.Errorf("the steps are %v, want %v", steps, tt.steps)
			}
		})
	}
}

// What is told by a process that begins on a machine whose clock says noon, over data
// that was in use until some time from then.
func TestResume(t *testing.T) {
	for _, tt := range []struct {
		mark    time.Duration
		accept  bool
		refused bool
		ahead   time.Duration // of noon
		doubt   time.Duration
		back    bool
		told    bool // of a step back
	}{
		{mark: -10 * year, doubt: 10 * year},
		{mark: -time.Hour, doubt: time.Hour},
		{mark: -5*time.Minute - 1, doubt: 5*time.Minute + 1},
		{mark: -5 * time.Minute},
		{mark: -time.Second},
		{mark: 0},
		{mark: time.Second, ahead: time.Second},
		{mark: 2 * time.Second, ahead: 2 * time.Second, told: true},
		{mark: 5 * time.Minute, ahead: 5 * time.Minute, told: true},
		{mark: 5*time.Minute + 1, ahead: 5*time.Minute + 1, doubt: 5*time.Minute + 1, told: true},
		{mark: day, ahead: day, doubt: day, told: true},
		{mark: day + 1, refused: true},
		{mark: 10 * year, refused: true},
		{mark: -time.Hour, accept: true, doubt: time.Hour},
		{mark: 1, accept: true, back: true},
		{mark: time.Hour, accept: true, back: true},
		{mark: 10 * year, accept: true, back: true},
	} {
		t.Run(fmt.Sprintf("%v accept %v", tt.mark, tt.accept), func(t *testing.T) {
			system := clock.NewMachine(noon).Begin()
			back, err := system.Resume(noon.Add(tt.mark), tt.accept)
			if tt.refused {
				behind, ok := errors.AsType[*clock.BehindError](err)
				if !ok || !behind.Clock.Equal(noon) || !behind.Mark.Equal(noon.Add(tt.mark)) {
					t.Errorf("it is refused with %v", err)
				}
				return
			}
			if err != nil || back != tt.back {
				t.Errorf("time went back: %v, %v, want %v", back, err, tt.back)
			}
			if got := system.Now().Sub(noon); got != tt.ahead {
				t.Errorf("it is told to be %v ahead, want %v", got, tt.ahead)
			}
			if got := system.Doubt(); got != tt.doubt {
				t.Errorf("in doubt are %v, want %v", got, tt.doubt)
			}
			if steps := system.Steps(); tt.told != slices.Equal(steps, []clock.Step{{By: -tt.mark}}) || !tt.told && len(steps) > 0 {
				t.Errorf("the steps are %v", steps)
			}
		})
	}
}

// Data that nobody has used has no time to go on from.
func TestResumeWithoutAMark(t *testing.T) {
	system := clock.NewMachine(noon).Begin()
	if back, err := system.Resume(time.Time{}, false); back || err != nil || !system.Now().Equal(noon) || system.Doubt() != 0 {
		t.Errorf("it is %v, in doubt %v, %v", system.Now(), system.Doubt(), err)
	}
}

// Whatever is done to a machine's clock, what is told never goes back, is never behind
// the machine's clock, and goes on with the time that passes, over restarts too. What
// has surely come is never ahead of that, and follows a leap after ten minutes that
// nobody interferes with, not earlier.
func TestTimeGoesOn(t *testing.T) {
	moments := []time.Duration{time.Millisecond, time.Second, 2 * time.Second, 5 * time.Minute, 10 * time.Minute, time.Hour, day, 10 * year}
	rapid.Check(t, func(t *rapid.T) {
		machine := clock.NewMachine(noon)
		about := func(what string) time.Duration {
			d := rapid.SampledFrom(moments).Draw(t, what)
			if machine.Clock().Year() > 2200 { // after 2262 there is no time
				d %= day
			}
			return d + time.Duration(rapid.IntRange(-2, 2).Draw(t, "seconds more"))*min(time.Second, d/4)
		}
		system := machine.Begin()
		told, sure := system.Now(), clock.Sure(system)
		calm := time.Duration(0) // since somebody set the clock far ahead
		check := func(passed time.Duration) {
			now, certain := system.Now(), clock.Sure(system)
			switch {
			case now.Before(told.Add(passed)):
				t.Fatalf("%v after %v it is %v", passed, told, now)
			case now.Before(machine.Clock()):
				t.Fatalf("it is %v, before the machine's %v", now, machine.Clock())
			case certain.After(now) || certain.Before(sure):
				t.Fatalf("surely it was %v, now %v of %v", sure, certain, now)
			case calm < 10*time.Minute && certain.Sub(sure) > passed+time.Second+5*time.Minute:
				t.Fatalf("%v after a leap %v went by at once", calm, certain.Sub(sure))
			case calm >= 10*time.Minute && certain.Before(machine.Clock()):
				t.Fatalf("%v after a leap surely it is %v, the machine's clock says %v", calm, certain, machine.Clock())
			}
			told, sure = now, certain
		}
		t.Repeat(map[string]func(*rapid.T){
			"pass": func(*rapid.T) {
				d := about("for")
				machine.Pass(d)
				calm += d
				check(d)
			},
			"sleep": func(*rapid.T) {
				d := about("for")
				machine.Sleep(d)
				calm += d
				system.Steps()               // as the server does each second
				check(max(0, d-time.Second)) // it looks for no shorter sleep
			},
			"set": func(t *rapid.T) {
				d := about("by")
				switch back := rapid.Bool().Draw(t, "back"); {
				case back:
					d = -d
				case d > 4*time.Minute: // a leap, or no step at all
					d, calm = max(d, 6*time.Minute), 0
				}
				machine.Set(d)
				check(0)
			},
			"restart": func(t *rapid.T) {
				machine.Pass(about("down for"))
				machine.Set(-about("set back by"))
				system, calm = machine.Begin(), 0
				_, err := system.Resume(told, false)
				if behind := told.Sub(machine.Clock()); (behind > day) != (err != nil) {
					t.Fatalf("a clock that is behind by %v: %v", behind, err)
				}
				if err != nil {
					if back, err := system.Resume(told, true); !back || err != nil || !system.Now().Equal(machine.Clock()) {
						t.Fatalf("it is %v, the clock that was accepted says %v: %v", system.Now(), machine.Clock(), err)
					}
					told = system.Now()
				}
				sure = clock.Sure(system) // which nobody keeps
				check(0)
			},
		})
	})
}

// Whoever asks later is told no earlier time, whichever goroutine he is.
func TestTheSystemsTimeNeverGoesBack(t *testing.T) {
	system := clock.NewSystem()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := system.Now()
			for range 20_000 {
				now := system.Now()
				if now.Before(last) {
					t.Errorf("%v comes after %v", now, last)
					return
				}
				last = now
			}
		})
	}
	wg.Wait()
	if now := system.Now(); now.Location() != time.UTC || time.Since(now).Abs() > time.Minute {
		t.Errorf("it is %v", now)
	}
	if doubt, steps := system.Doubt(), system.Steps(); doubt > time.Second || len(steps) > 0 {
		t.Errorf("in doubt are %v, steps %v", doubt, steps)
	}
}

func TestAFakeClockStandsStill(t *testing.T) {
	start := time.Date(2026, 3, 2, 9, 15, 0, 0, time.FixedZone("", 3600))
	fake := clock.NewFake(start)
	if a, b := fake.Now(), fake.Now(); !a.Equal(start) || a != b || a.Location() != time.UTC {
		t.Errorf("it moves: %v, %v", a, b)
	}
	fake.Advance(-time.Hour)
	if got := fake.Now(); !got.Equal(start.Add(-time.Hour)) {
		t.Errorf("it was moved to %v", got)
	}
	fake.Leap(day)
	if got := fake.Now(); !got.Equal(start.Add(23*time.Hour)) || !clock.Sure(fake).Equal(start.Add(-time.Hour)) {
		t.Errorf("after a leap it is %v, surely %v", got, clock.Sure(fake))
	}
	fake.Believe()
	if !clock.Sure(fake).Equal(fake.Now()) {
		t.Errorf("it is believed, but surely it is %v", clock.Sure(fake))
	}
}

func BenchmarkNow(b *testing.B) {
	system := clock.NewSystem()
	for b.Loop() {
		system.Now()
	}
}
