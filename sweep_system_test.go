//go:build system

package main

import "testing"

// TestSystemFaultSweep leaves no call to the store out.
func TestSystemFaultSweep(t *testing.T) { sweepAll(t, 1) }
