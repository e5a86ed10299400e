package arch

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestTheMapHasEachPackageOnce compares the tables of pkg/README.md's tree with the
// directories of pkg. Those that it tells of in words are in inWords.
func TestTheMapHasEachPackageOnce(t *testing.T) {
	inWords := map[string]bool{"errs": true, "event": true, "internal": true}
	text, err := os.ReadFile("../../pkg/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tree, _ := strings.Cut(string(text), "## The tree")
	tree, _, _ = strings.Cut(tree, "\nEverywhere:")
	within, name := regexp.MustCompile(`\([^)]*\)`), regexp.MustCompile("`([a-z0-9/]+)`")
	rows := map[string]int{}
	for line := range strings.Lines(tree) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		for _, m := range name.FindAllStringSubmatch(within.ReplaceAllString(cell, ""), -1) {
			rows[m[1]]++
		}
	}
	entries, err := os.ReadDir("../../pkg")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !inWords[e.Name()] && rows[e.Name()] == 0 && rows[e.Name()+"/v1"] == 0 {
			t.Errorf("pkg/README.md has no row for %s", e.Name())
		}
	}
	for row, n := range rows {
		if n > 1 {
			t.Errorf("pkg/README.md has %d rows for %s", n, row)
		}
		if _, err := os.Stat("../../pkg/" + row); err != nil {
			t.Errorf("pkg/README.md has a row for %s: %v", row, err)
		}
	}
}
