//go:build !race

package main

// lessUnderRace divides what tests do many times; see its other value.
const lessUnderRace = 1
