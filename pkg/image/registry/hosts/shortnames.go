package hosts

import (
	"fmt"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
)

// Candidates returns the names that a reference as users write it may stand for,
// in the order of trying. One with a registry is itself; a short one is its alias,
// or it is in one of the search registries. Where no file names any, it is
// docker.io's, as containerd and Docker have it. The error is of kind Invalid.
func (f *Files) Candidates(s string) ([]reference.Name, error) {
	n, err := reference.Parse(s)
	if err != nil || !reference.Short(s) {
		return []reference.Name{n}, err
	}
	t := f.load()
	if t.fault != nil {
		return nil, fmt.Errorf("registry configuration: %w", t.fault)
	}
	list, from := t.candidates(s, n)
	switch {
	case len(list) == 0:
		return nil, fmt.Errorf("short name %s: it is no alias, and %s has no unqualified-search-registries: write the registry too: %w",
			s, from, errs.Invalid)
	case len(list) > 1 && t.mode == "enforcing":
		return nil, fmt.Errorf("short name %s: it may mean %s, and short-name-mode is enforcing: write the registry too, or an alias in %s: %w",
			s, join(list), from, errs.Invalid)
	}
	return list, nil
}

// Local returns the names that an image which is here may have for a reference as
// users write it. It takes what the files said last, and has no lock. A reference
// that is not valid has none.
func (f *Files) Local(s string) []reference.Name {
	n, err := reference.Parse(s)
	if err != nil {
		return nil
	}
	if !reference.Short(s) {
		return []reference.Name{n}
	}
	list, _ := f.known().candidates(s, n)
	if here, err := reference.Parse("localhost/" + s); err == nil {
		list = append(list, here)
	}
	return append(list, n)
}

// candidates returns also the file that says so.
func (t *table) candidates(s string, n reference.Name) (list []reference.Name, from string) {
	if a, ok := t.aliases[bare(s)]; ok && a.name.Path != "" {
		return []reference.Name{{Domain: a.name.Domain, Path: a.name.Path, Tag: n.Tag, Digest: n.Digest}}, a.file
	}
	if t.searchFile == "" {
		return []reference.Name{n}, ""
	}
	for _, host := range t.search {
		if c, err := reference.Parse(host + "/" + s); err == nil { // else longer than a name may be
			list = append(list, c)
		}
	}
	return list, t.searchFile
}

// bare is a short name without tag and digest.
func bare(s string) string {
	s, _, _ = strings.Cut(s, "@")
	if n := strings.LastIndexByte(s, ':'); n > strings.LastIndexByte(s, '/') {
		s = s[:n]
	}
	return s
}

func join(list []reference.Name) string {
	var text []string
	for _, n := range list {
		text = append(text, n.String())
	}
	return strings.Join(text, " or ")
}
