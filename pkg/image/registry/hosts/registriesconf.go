package hosts

import (
	"errors"
	"fmt"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
)

// table is all of registries.conf: its files, one laid over the other.
type table struct {
	registries map[string]registry // by prefix
	search     []string            // unqualified-search-registries
	searchFile string              // that says so, "" for none
	mode       string              // short-name-mode
	helpers    []string            // credential-helpers
	aliases    map[string]alias
	fault      error // of a file of which nothing else is known
}

// registry is a [[registry]].
type registry struct {
	file     string
	prefix   string
	itself   spot
	mirrors  []spot
	blocked  bool
	byDigest bool // mirror-by-digest-only
	fault    error
}

// spot is where images with a prefix are.
type spot struct {
	location  string // "" as the name says: of a prefix with a wildcard
	insecure  bool
	from      string // pull-from-mirror
	namespace string // namespace-proxy
}

type alias struct {
	name reference.Name // without a path: the alias is taken back
	file string
}

func newTable() *table {
	return &table{registries: map[string]registry{}, aliases: map[string]alias{}, mode: "permissive"}
}

// conf is the form of a registries.conf.
type conf struct {
	Search   *[]string         `toml:"unqualified-search-registries"`
	Mode     string            `toml:"short-name-mode"`
	Helpers  *[]string         `toml:"credential-helpers"`
	Aliases  map[string]string `toml:"aliases"`
	Registry []struct {
		Prefix   string     `toml:"prefix"`
		Blocked  bool       `toml:"blocked"`
		ByDigest bool       `toml:"mirror-by-digest-only"`
		Mirrors  []confHost `toml:"mirror"`
		confHost
	} `toml:"registry"`
	V1 map[string]any `toml:"registries"`
}

type confHost struct {
	Location       string `toml:"location"`
	Insecure       bool   `toml:"insecure"`
	PullFromMirror string `toml:"pull-from-mirror"`
	Namespace      string `toml:"namespace-proxy"`
}

// add lays a file over what the table has.
func (t *table) add(file string, data []byte) error {
	var c conf
	o, err := decode(file, data, &c)
	if err != nil {
		return err
	}
	if len(c.V1) > 0 {
		return o.fault("the first version of the format is not read any more: write [[registry]]", "registries")
	}
	if err := t.addGlobals(o, c); err != nil {
		return err
	}
	if err := t.addAliases(o, c.Aliases); err != nil {
		return err
	}
	return t.addRegistries(o, c)
}

func (t *table) addGlobals(o outline, c conf) error {
	if c.Search != nil {
		for n, s := range *c.Search {
			(*c.Search)[n] = strings.TrimRight(s, "/")
			if !isHost((*c.Search)[n]) {
				return o.fault(fmt.Sprintf("%.300q is not a registry", s), "unqualified-search-registries")
			}
		}
		t.search, t.searchFile = *c.Search, o.file
	}
	switch c.Mode {
	case "":
	case "enforcing", "permissive", "disabled":
		t.mode = c.Mode
	default:
		return o.fault(fmt.Sprintf("%.300q is none of enforcing, permissive, disabled", c.Mode), "short-name-mode")
	}
	if c.Helpers != nil {
		t.helpers = *c.Helpers
	}
	return nil
}

func (t *table) addAliases(o outline, aliases map[string]string) error {
	for short, long := range aliases {
		if n, err := reference.Parse(short); err != nil || !reference.Short(short) || strings.ContainsAny(short, ":@") || n.Digest != "" {
			return o.fault(fmt.Sprintf("%.300q is not a short name", short), "aliases", short)
		}
		var a alias
		if long != "" {
			n, err := reference.Parse(long)
			if err != nil || reference.Short(long) || n.Digest != "" || strings.Contains(long[strings.LastIndexByte(long, '/'):], ":") {
				return o.fault(fmt.Sprintf("%.300q is not a name with a registry and without a tag", long), "aliases", short)
			}
			a.name = n
		}
		a.file = o.file
		t.aliases[short] = a
	}
	return nil
}

func (t *table) addRegistries(o outline, c conf) error {
	own := map[string]registry{}
	at := map[string]string{} // the prefix at a location
	for n, one := range c.Registry {
		r := registry{
			file: o.file, prefix: strings.TrimRight(one.Prefix, "/"), blocked: one.Blocked, byDigest: one.ByDigest,
			itself: one.place(),
		}
		for _, m := range one.Mirrors {
			r.mirrors = append(r.mirrors, m.place())
		}
		if r.prefix == "" {
			r.prefix = r.itself.location
		}
		if r.prefix == "" {
			return o.fault("a registry with neither prefix nor location", "registry", n)
		}
		if !isPrefix(r.prefix) { // what it is about, nobody knows
			return o.fault(fmt.Sprintf("prefix %.300q is neither host[:port][/path] nor *.example.com", r.prefix), "registry", n, "prefix")
		}
		if what, key := r.wrong(); what != "" {
			r.fault = o.fault(what, append([]any{"registry", n}, key...)...)
		}
		first, there := at[r.itself.location]
		if other := own[first]; there && r.itself.location != "" && (other.blocked != r.blocked || other.itself.insecure != r.itself.insecure) {
			r.fault = o.fault(fmt.Sprintf("location %.300s is there before, with another value of insecure or blocked", r.itself.location), "registry", n)
			other.fault = r.fault
			own[first] = other
		} else if !there {
			at[r.itself.location] = r.prefix
		}
		if _, again := own[r.prefix]; !again { // the first one counts
			own[r.prefix] = r
		}
	}
	for p, r := range own {
		t.registries[p] = r
	}
	return nil
}

func (h confHost) place() spot {
	return spot{location: strings.TrimRight(h.Location, "/"), insecure: h.Insecure, from: h.PullFromMirror, namespace: h.Namespace}
}

// wrong says what is wrong with a registry, and with which of its keys.
func (r registry) wrong() (what string, key []any) {
	switch {
	case r.itself.location == "" && !strings.HasPrefix(r.prefix, "*."):
		return "location is missing", nil
	case r.itself.from != "":
		return "pull-from-mirror is for mirrors alone", []any{"pull-from-mirror"}
	case r.itself.location != "" && !isLocation(r.itself.location):
		return fmt.Sprintf("location %.300q is not host[:port][/path]", r.itself.location), []any{"location"}
	}
	for n, m := range r.mirrors {
		switch {
		case !isLocation(m.location):
			return fmt.Sprintf("location %.300q of a mirror is not host[:port][/path]", m.location), []any{"mirror", n, "location"}
		case m.from != "" && r.byDigest:
			return "pull-from-mirror and mirror-by-digest-only exclude each other", []any{"mirror", n, "pull-from-mirror"}
		case m.from != "" && m.from != "all" && m.from != "digest-only" && m.from != "tag-only":
			return fmt.Sprintf("pull-from-mirror %.300q is none of all, digest-only, tag-only", m.from), []any{"mirror", n, "pull-from-mirror"}
		}
	}
	return "", nil
}

func isHost(s string) bool {
	_, err := reference.Parse(s + "/x")
	return err == nil && !strings.Contains(s, "/") && !reference.Short(s+"/x") // else it would be a path on docker.io
}

// isPrefix reports whether s can be the beginning of names.
func isPrefix(s string) bool {
	if host, wildcard := strings.CutPrefix(s, "*."); wildcard {
		return isHost("a."+host) && !strings.ContainsAny(host, "@:")
	}
	return isLocation(s) && !strings.Contains(s, "*")
}

func isLocation(s string) bool {
	host, _, _ := strings.Cut(s, "/")
	return isHost(host) && !strings.Contains(s, "://")
}

// matches returns how many bytes of a name a prefix stands for, -1 for none.
func matches(name, prefix string) int {
	end, after := len(prefix), "/" // a host with another port is another registry
	if strings.Contains(prefix, "/") {
		after = ":/@"
	}
	if strings.HasPrefix(prefix, "*.") {
		host := name[:len(name)-len(strings.TrimLeft(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"))]
		if !strings.HasSuffix(host, prefix[1:]) {
			return -1
		}
		end, after = len(host), ":/"
	} else if !strings.HasPrefix(name, prefix) {
		return -1
	}
	if end < len(name) && !strings.ContainsRune(after, rune(name[end])) {
		return -1
	}
	return end
}

// match returns the registry with the longest prefix of a name.
func (t *table) match(name string) (registry, bool) {
	var best registry
	for p, r := range t.registries {
		if len(p) > len(best.prefix) && matches(name, p) >= 0 {
			best = r
		}
	}
	return best, best.prefix != ""
}

// rewrite returns what a name is called at a place.
func (r registry) rewrite(n reference.Name, p spot) (reference.Name, error) {
	if p.location == "" {
		return n, nil
	}
	name := full(n)
	moved, err := reference.Parse(p.location + name[matches(name, r.prefix):])
	if err == nil && moved.Reference() != n.Reference() {
		err = errors.New("it would have another tag")
	}
	if err != nil {
		return moved, fmt.Errorf("%s: location %s of %s: %w: %w", r.file, p.location, name, err, errs.Invalid)
	}
	return moved, nil
}
