//go:build system

package main

import "testing"

// TestSystemFaultSweep takes one call in three.
func TestSystemFaultSweep(t *testing.T) { sweepAll(t, 3) }
