// Package credentials finds what a node has for a registry: in the files that
// docker login and podman login write, and with the helpers that these name.
//
// Only what is asked for is looked at, file by file in their order; the first
// that knows the repository, or what it is below, counts. A file that cannot be
// read is an error with its name and line. Nothing is kept in memory and no error
// or log has a secret in it: not the text of a file, not what a helper says.
package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

// Credential is a user name and a password, or an identity token. The zero value
// is none. It never shows its secrets when printed.
type Credential struct {
	Username, Password string
	IdentityToken      string
}

// String hides the secrets.
func (c Credential) String() string {
	if c == (Credential{}) {
		return "anonymous"
	}
	return "[redacted]"
}

// GoString hides the secrets.
func (c Credential) GoString() string { return c.String() }

// MarshalLog hides the secrets from structured logs.
func (c Credential) MarshalLog() any { return c.String() }

// AuthFiles stands for the files among the helpers that Find consults.
const AuthFiles = "containers-auth.json"

const maxFile = 1 << 20

// Files are the paths where credentials are looked for, in their order. Find knows
// those of the node where there are none.
type Files []string

// Defaults are the files of this process's user: $REGISTRY_AUTH_FILE alone, or
// auth.json and Docker's config.json in their places.
func Defaults() Files {
	if p := os.Getenv("REGISTRY_AUTH_FILE"); p != "" {
		return Files{p}
	}
	var list Files
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		list = append(list, filepath.Join(dir, "containers/auth.json"))
	}
	list = append(list, "/run/containers/"+strconv.Itoa(os.Getuid())+"/auth.json")
	home := os.Getenv("HOME")
	if u, err := user.Current(); home == "" && err == nil { // systemd sets none for root
		home = u.HomeDir
	}
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		list = append(list, filepath.Join(dir, "containers/auth.json"))
	} else if home != "" {
		list = append(list, filepath.Join(home, ".config/containers/auth.json"))
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		list = append(list, filepath.Join(dir, "config.json"))
	} else if home != "" {
		list = append(list, filepath.Join(home, ".docker/config.json"))
	}
	return list
}

// Find returns what there is for a repository of the registry host, as
// "quay.io" and "team/app", the zero value for nothing. It asks helpers in their
// order, nil means the files alone.
func (f Files) Find(ctx context.Context, host, repository string, helpers []string) (Credential, error) {
	if len(helpers) == 0 {
		helpers = []string{AuthFiles}
	}
	for _, h := range helpers {
		var c Credential
		var err error
		if h == AuthFiles {
			c, err = f.find(ctx, canonical(host), repository)
		} else {
			c, err = ask(ctx, h, canonical(host))
		}
		if err != nil || c != (Credential{}) {
			return c, err
		}
	}
	return Credential{}, nil
}

func (f Files) find(ctx context.Context, host, repository string) (Credential, error) {
	for _, path := range f {
		d, err := load(path)
		if err != nil {
			return Credential{}, err
		}
		c, err := d.find(ctx, path, host, repository)
		if err != nil || c != (Credential{}) {
			return c, err
		}
	}
	return Credential{}, nil
}

// document is the form of auth.json and config.json.
type document struct {
	Auths   map[string]entry  `json:"auths"`
	Helpers map[string]string `json:"credHelpers"`
	Store   string            `json:"credsStore"`
}

type entry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
}

// load reads a file; one that does not exist is empty.
func load(path string) (document, error) {
	var d document
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return d, nil // another user's
	}
	if err != nil {
		return d, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return d, err
	}
	if len(data) > maxFile {
		return d, fmt.Errorf("%s: longer than %d bytes: %w", path, maxFile, errs.Invalid)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return d, nil
	}
	return d, place(path, data, json.Unmarshal(data, &d))
}

// place gives an error of JSON its file and line, and takes from it what the file
// says.
func place(path string, data []byte, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	at := int64(0)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.As(err, &kind):
		at = kind.Offset
	}
	at = min(max(at, 0), int64(len(data)))
	return fmt.Errorf("%s:%d: not in the form of a file of credentials: %w", path, 1+bytes.Count(data[:at], []byte{'\n'}), errs.Invalid)
}

// find looks for the repository, then for each path above it, then for the host as
// older programs write it.
func (d document) find(ctx context.Context, path, host, repository string) (Credential, error) {
	for _, name := range slices.Sorted(maps.Keys(d.Helpers)) {
		if normal(name) == host {
			return ask(ctx, d.Helpers[name], host)
		}
	}
	for key := host + "/" + repository; ; {
		if e, ok := d.Auths[key]; ok && e != (entry{}) {
			return e.decode(path, key)
		}
		n := strings.LastIndexByte(key, '/')
		if n < 0 {
			break
		}
		key = key[:n]
	}
	for _, key := range slices.Sorted(maps.Keys(d.Auths)) {
		if e := d.Auths[key]; normal(key) == host && e != (entry{}) {
			return e.decode(path, key)
		}
	}
	if d.Store != "" {
		return ask(ctx, d.Store, host)
	}
	return Credential{}, nil
}

func (e entry) decode(path, key string) (Credential, error) {
	c := Credential{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken}
	if e.Auth == "" {
		return c, nil
	}
	data, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		return Credential{}, fmt.Errorf("%s: auth of %.300s is not base64: %w", path, key, errs.Invalid)
	}
	name, password, ok := strings.Cut(string(data), ":")
	if !ok {
		return Credential{}, fmt.Errorf("%s: auth of %.300s is not username:password: %w", path, key, errs.Invalid)
	}
	c.Username, c.Password = name, strings.Trim(password, "\x00")
	if name == tokenUser {
		c = Credential{IdentityToken: c.Password}
	}
	return c, nil
}

// normal is the host of a key, which may be a URL.
func normal(key string) string {
	for _, scheme := range []string{"https://", "http://"} {
		if rest, ok := strings.CutPrefix(key, scheme); ok {
			key, _, _ = strings.Cut(rest, "/")
		}
	}
	return canonical(key)
}

// canonical maps the several names of Docker's registry to one.
func canonical(host string) string {
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return strings.ToLower(host)
}
