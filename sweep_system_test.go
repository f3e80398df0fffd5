//go:build system

package main

import "testing"

// TestSystemFaultSweep takes one call in two.
func TestSystemFaultSweep(t *testing.T) { sweepAll(t, 2) }
