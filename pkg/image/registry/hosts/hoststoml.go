package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/berth-run/berth/pkg/errs"
)

// server is one table of a hosts.toml: how one URL is spoken to.
type server struct {
	file         string
	scheme, host string // "" for the registry itself
	root         string
	can          Capability
	tls          TLS
	header       http.Header
	dialTimeout  time.Duration
}

// directory is what certs.d has for a host.
type directory struct {
	path     string
	fallback bool     // it is _default
	decides  bool     // there is a hosts.toml
	servers  []server // in the order of asking; the last one is the registry itself
}

// find returns the directory of a host, as containerd does: of each root the one
// with the port in host_port_ form, the one with host:port, then _default.
func (f *Files) find(host string) (directory, error) {
	if host == "" || host[0] == '_' || strings.ContainsAny(host, "/\x00") || host == "." || host == ".." {
		return directory{}, fmt.Errorf("registry %.300q: %w", host, errs.Invalid)
	}
	for _, root := range f.options.CertsDirs {
		for _, name := range []string{portless(host), host, "_default"} {
			dir := filepath.Join(root, name)
			if _, err := os.Stat(dir); err == nil {
				return readDirectory(dir, name == "_default")
			} else if !errors.Is(err, fs.ErrNotExist) {
				return directory{}, err
			}
		}
	}
	return directory{servers: []server{{}}}, nil
}

// portless writes host:port without a colon, which not all file systems have.
func portless(host string) string {
	if n := strings.LastIndexByte(host, ':'); n > 0 {
		return host[:n] + "_" + host[n+1:] + "_"
	}
	return host
}

func readDirectory(dir string, fallback bool) (directory, error) {
	d := directory{path: dir, fallback: fallback}
	file := filepath.Join(dir, "hosts.toml")
	data, err := read(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	if len(data) == 0 {
		var s server
		s, err = certificates(dir)
		d.servers = []server{s}
		return d, err
	}
	d.decides = true
	d.servers, err = parseHosts(file, data)
	return d, err
}

// certificates are those of Docker's layout: *.crt are authorities, *.cert are
// clients with the *.key of the same name.
func certificates(dir string) (server, error) {
	var s server
	list, err := names(dir)
	if err != nil {
		return s, err
	}
	has := map[string]bool{}
	for _, name := range list {
		has[name] = true
	}
	for _, name := range list {
		file := filepath.Join(dir, name)
		switch filepath.Ext(name) {
		case ".crt":
			s.tls.CA = append(s.tls.CA, file)
		case ".cert":
			p := KeyPair{Cert: file}
			if key := strings.TrimSuffix(name, ".cert") + ".key"; has[key] {
				p.Key = filepath.Join(dir, key)
			}
			s.tls.Clients = append(s.tls.Clients, p)
		}
	}
	return s, nil
}

// settings are the keys of hosts.toml for one server.
type settings struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   *bool          `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
}

// parseHosts reads a hosts.toml. Only [host."URL"] tables count, in their order:
// containerd passes over hosts that are written in another way.
func parseHosts(file string, data []byte) ([]server, error) {
	var text struct {
		settings
		Server string              `toml:"server"`
		Host   map[string]settings `toml:"host"`
	}
	o, err := decode(file, data, &text)
	if err != nil {
		return nil, err
	}
	var servers []server
	seen := map[string]bool{}
	for _, t := range o.tables {
		if len(t) < 2 || t[0] != "host" || seen[t[1]] {
			continue
		}
		seen[t[1]] = true
		if t[1] == "" {
			return nil, o.fault("a host without a URL", "host", "")
		}
		s, err := parseServer(o, t[1], text.Host[t[1]], "host", t[1])
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	s, err := parseServer(o, text.Server, text.settings)
	return append(servers, s), err
}

// parseServer makes a server of its URL and its table, which is at key.
func parseServer(o outline, link string, t settings, key ...any) (server, error) {
	s := server{file: o.file, can: all}
	fault := func(name, format string, args ...any) (server, error) {
		return server{}, o.fault(name+": "+fmt.Sprintf(format, args...), append(key[:len(key):len(key)], name)...)
	}
	if link != "" {
		if err := s.setURL(link, t.OverridePath); err != nil {
			return fault("server", "%v", err)
		}
	}
	if len(t.Capabilities) > 0 {
		s.can = 0
	}
	for _, name := range t.Capabilities {
		c, ok := map[string]Capability{"pull": Pull, "resolve": Resolve, "push": Push, "referrers": Referrers}[strings.ToLower(name)]
		if !ok {
			return fault("capabilities", "%q is none of pull, resolve, push, referrers", name)
		}
		s.can |= c
	}
	base := filepath.Dir(o.file)
	var ok bool
	if s.tls.CA, ok = texts(t.CA); !ok {
		return fault("ca", "is neither a text nor a list of texts")
	}
	for n, p := range s.tls.CA {
		s.tls.CA[n] = absolute(base, p)
	}
	if s.tls.Clients, ok = pairs(base, t.Client); !ok {
		return fault("client", "is neither a text, a list of texts, nor a list of pairs of texts")
	}
	s.tls.SkipVerify = t.SkipVerify
	for name, v := range t.Header {
		values, ok := texts(v)
		if !ok || !headerName(name) || !headerValues(values) {
			return fault("header", "%.100q is not a header that can be sent", name)
		}
		if s.header == nil {
			s.header = http.Header{}
		}
		s.header[http.CanonicalHeaderKey(name)] = values
	}
	if t.DialTimeout != "" {
		d, err := time.ParseDuration(t.DialTimeout)
		if err != nil || d < 0 {
			return fault("dial_timeout", "%.100q is not a duration", t.DialTimeout)
		}
		s.dialTimeout = d
	}
	return s, nil
}

// setURL takes a server's URL, which without a scheme is one of https. The path of
// the API is /v2 below it, or it itself where it is said to be.
func (s *server) setURL(link string, override bool) error {
	if !strings.Contains(link, "://") {
		link = "https://" + link
	}
	u, err := url.Parse(link)
	switch {
	case err != nil:
		return errors.New("is not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("scheme %.100q is neither http nor https", u.Scheme)
	case u.Host == "" || u.Hostname() == "":
		return errors.New("URL has no host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("URL of %s has more than a host and a path", u.Host)
	}
	s.scheme, s.host, s.root = u.Scheme, address(u.Host), strings.TrimSuffix(path.Clean("/"+u.Path), "/")
	if !override && !strings.HasSuffix(s.root, "/v2") {
		s.root += "/v2"
	}
	return nil
}

// texts are a text or a list of texts; nothing is none.
func texts(v any) ([]string, bool) {
	switch v := v.(type) {
	case nil:
		return nil, true
	case string:
		return []string{v}, true
	case []any:
		list := make([]string, len(v))
		for n, one := range v {
			text, ok := one.(string)
			if !ok {
				return nil, false
			}
			list[n] = text
		}
		return list, true
	}
	return nil, false
}

// pairs are client certificates: one file, or a list of files and of pairs of
// files.
func pairs(base string, v any) ([]KeyPair, bool) {
	var found []KeyPair
	list, many := v.([]any)
	if !many && v != nil {
		list = []any{v}
	}
	for _, one := range list {
		files, ok := texts(one)
		_, pair := one.([]any)
		switch {
		case ok && !pair && len(files) == 1:
			found = append(found, KeyPair{Cert: absolute(base, files[0])})
		case ok && pair && len(files) == 2:
			found = append(found, KeyPair{Cert: absolute(base, files[0]), Key: absolute(base, files[1])})
		default:
			return nil, false
		}
	}
	return found, true
}

func absolute(base, p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(base, p)
}

func headerName(s string) bool {
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune("()<>@,;:\\\"/[]?={}", r) {
			return false
		}
	}
	return s != ""
}

func headerValues(list []string) bool {
	for _, s := range list {
		for n := range len(s) {
			if s[n] < ' ' && s[n] != '\t' || s[n] == 0x7f {
				return false
			}
		}
	}
	return true
}
