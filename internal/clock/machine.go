package clock

import (
	"sync"
	"time"
)

// Machine is a machine for tests: its clocks move when they are told to, and
// processes begin on it.
type Machine struct {
	mu              sync.Mutex
	wall, awake, up int64
}

// NewMachine returns a machine whose clock says now.
func NewMachine(now time.Time) *Machine { return &Machine{wall: now.UnixNano()} }

// Begin returns the clock of a process that begins.
func (m *Machine) Begin() *System {
	return newSystem(clocks{
		both: func() (int64, int64) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.wall, m.awake
		},
		up: func() int64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.up
		},
	})
}

// Clock returns what the machine's clock says.
func (m *Machine) Clock() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Unix(0, m.wall).UTC()
}

// Pass lets time pass.
func (m *Machine) Pass(d time.Duration) { m.move(d, d, d) }

// Sleep lets time pass while the machine is suspended.
func (m *Machine) Sleep(d time.Duration) { m.move(d, 0, d) }

// Set moves the machine's clock, ahead or back.
func (m *Machine) Set(by time.Duration) { m.move(by, 0, 0) }

func (m *Machine) move(wall, awake, up time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall, m.awake, m.up = m.wall+int64(wall), m.awake+int64(awake), m.up+int64(up)
}
