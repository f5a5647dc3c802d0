package config

import (
	"fmt"
	"strings"
)

// suggest ends a message about a word that is not one of those allowed: with the one that was probably meant, or all.
func suggest(word string, allowed []string) string {
	best, distance := "", 2
	if len(word) > 5 {
		distance = 3
	}
	for _, a := range allowed {
		d := editDistance(plain(word), plain(a))
		if strings.HasPrefix(plain(word), plain(a)) && len(a) > 2 {
			d = min(d, 1) // "warning" for "warn"
		}
		if d < distance {
			best, distance = a, d
		}
	}
	if best != "" {
		return ": did you mean " + best + "?"
	}
	return ": want " + oneOf(allowed)
}

// plain takes away what is easily confused.
func plain(word string) string { return strings.ReplaceAll(strings.ToLower(word), "_", "-") }

// maxListed bounds a list in a message, words.
const maxListed = 16

// oneOf lists words for a sentence.
func oneOf(words []string) string {
	switch len(words) {
	case 0:
		return "none"
	case 1:
		return words[0]
	}
	if len(words) > maxListed {
		return fmt.Sprintf("%s or one of %d more", strings.Join(words[:maxListed], ", "), len(words)-maxListed)
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// editDistance counts the insertions, deletions, substitutions and swaps of neighbours between two words (optimal
// string alignment). Words whose lengths differ much, or that no key is as long as, are far apart without counting.
func editDistance(a, b string) int {
	if len(a) > len(b)+2 || len(b) > len(a)+2 || len(a) > maxJobName {
		return max(len(a), len(b))
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			substitution := d[i-1][j-1]
			if a[i-1] != b[j-1] {
				substitution++
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, substitution)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
