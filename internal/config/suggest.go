package config

import (
	"slices"
	"strings"
)

// unknownMember says what may have been meant by a name that the object at a
// pointer does not have.
func unknownMember(name, at string, here []note) string {
	const text = "is no member of services.json"
	if near := nearest(name, usable(here)); near != "" {
		return text + " here; did you mean " + near + "?"
	}
	for _, object := range []struct {
		at, where string
		rows      []note
	}{
		{"", "at the top level", notes(topRows())},
		{"/jsonActionApiDefaults", "in jsonActionApiDefaults", notes(defaultsRows())},
	} {
		if object.at != at && slices.Contains(usable(object.rows), name) {
			return "stands in the wrong place; it belongs " + object.where
		}
	}
	return text + " here; remove it, or see the reference for the names that are"
}

// usable returns the names with a meaning here.
func usable(rows []note) []string {
	var names []string
	for _, row := range rows {
		if !row.foreign {
			names = append(names, row.name)
		}
	}
	return names
}

// nearest returns the name that somebody who wrote s most likely meant, or
// nothing. Case is no difference.
func nearest(s string, names []string) string {
	const longest = 64 // what is longer is no slip of the keyboard
	if len(s) > longest {
		return ""
	}
	s = strings.ToLower(s)
	best, least := "", 1+max(1, len(s)/4)
	for _, name := range names {
		if d := distance(s, strings.ToLower(name)); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b (optimal string alignment).
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	var beforeThat []int
	for i := range len(a) {
		beforeThat, before, row = before, row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			replace := before[j]
			if a[i] != b[j] {
				replace++
			}
			row[j+1] = min(replace, before[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], beforeThat[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
