package config

import (
	"slices"
	"strings"
)

// suggest ends a message about a word that is not one of those allowed: with the one that was probably meant, or all.
func suggest(word string, allowed []string) string {
	best, distance := "", 1+max(1, len(word)/3)
	for _, a := range allowed {
		if d := editDistance(strings.ToLower(word), strings.ToLower(a)); d < distance {
			best, distance = a, d
		}
	}
	if best != "" {
		return ": did you mean " + best + "?"
	}
	return ": want " + oneOf(allowed)
}

// oneOf lists words for a sentence.
func oneOf(words []string) string {
	switch len(words) {
	case 0:
		return "none"
	case 1:
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// editDistance counts the insertions, deletions and substitutions between two words (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

func indexOf(words []string, word string) int { return slices.Index(words, word) }
