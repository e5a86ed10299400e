package reference

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Patterns choose images: by names as people write them, by ids, or by patterns of
// full names, in which a * stands for any text, slashes included.
type Patterns []string

// ParsePatterns completes the names among patterns.
func ParsePatterns(patterns []string) Patterns {
	var all Patterns
	for _, p := range patterns {
		if name, err := Normalize(p); err == nil && digest.Digest(p).Validate() != nil {
			p = name // one with a * is no reference
		}
		all = append(all, p)
	}
	return all
}

// Match reports whether one of the full names is chosen.
func (p Patterns) Match(names ...string) bool {
	return slices.ContainsFunc(p, func(pattern string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return matches(pattern, name) })
	})
}

func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	rest, ok := strings.CutPrefix(name, parts[0])
	if !ok || len(parts) == 1 {
		return ok && rest == ""
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		if _, rest, ok = strings.Cut(rest, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(rest, parts[last])
}
