//go:build linux && system

package main

import "testing"

// TestSystemLinearizability is TestLinearizability for longer.
func TestSystemLinearizability(t *testing.T) { linearize(t, 50_000) }
