//go:build race

package main

// lessUnderRace divides what tests do many times: the race detector makes it ten
// times as dear, and it needs each thing a few times, not each figure.
const lessUnderRace = 8
