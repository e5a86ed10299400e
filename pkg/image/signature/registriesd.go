package signature

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
)

// maxConfig bounds one file of a registries.d.
const maxConfig = 1 << 20

// registriesD is the content of registries.d directories, see
// containers-registries.d(5).
type registriesD struct {
	Default *place           `json:"default-docker"`
	Docker  map[string]place `json:"docker"`
}

// place says where the signatures of a scope are. The keys with sigstore in
// their name are older names of the others; staging is for who signs.
type place struct {
	Lookaside        string `json:"lookaside"`
	LookasideStaging string `json:"lookaside-staging"`
	Sigstore         string `json:"sigstore"`
	SigstoreStaging  string `json:"sigstore-staging"`
	Attachments      *bool  `json:"use-sigstore-attachments"`
}

// places are those for a name, the narrowest first.
func (r registriesD) places(n reference.Name) []place {
	var out []place
	for _, scope := range Scopes(n) {
		if p, ok := r.Docker[scope]; ok {
			out = append(out, p)
		}
	}
	if r.Default != nil {
		out = append(out, *r.Default)
	}
	return out
}

// lookaside is where simple signatures are.
func (r registriesD) lookaside(n reference.Name, builtin string) string {
	for _, p := range r.places(n) {
		if p.Lookaside != "" {
			return p.Lookaside
		}
		if p.Sigstore != "" {
			return p.Sigstore
		}
	}
	return builtin
}

// attachments reports whether signatures beside the image are looked for.
func (r registriesD) attachments(n reference.Name) bool {
	for _, p := range r.places(n) {
		if p.Attachments != nil {
			return *p.Attachments
		}
	}
	return false
}

// readRegistriesD reads the .yaml files of all directories. What two files say
// about one scope is an error, as it is for others who read these files.
func readRegistriesD(dirs []string) (registriesD, error) {
	all := registriesD{Docker: map[string]place{}}
	from := map[string]string{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return all, fmt.Errorf("read registries.d: %w", err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".yaml") {
				continue
			}
			if err := all.add(filepath.Join(dir, e.Name()), from); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

func (r *registriesD) add(path string, from map[string]string) error {
	data, err := readConfig(path)
	if err != nil {
		return err
	}
	var more registriesD
	if err := yaml.UnmarshalStrict(data, &more); err != nil {
		return fmt.Errorf("%s: %w: %w", path, err, errs.Invalid)
	}
	if more.Default != nil {
		if r.Default != nil {
			return fmt.Errorf("%s: default-docker is in %s too: %w", path, from[""], errs.Invalid)
		}
		r.Default, from[""] = more.Default, path
	}
	for scope, p := range more.Docker {
		if _, twice := r.Docker[scope]; twice {
			return fmt.Errorf("%s: docker.%s is in %s too: %w", path, scope, from[scope], errs.Invalid)
		}
		r.Docker[scope], from[scope] = p, path
	}
	return nil
}

func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read registries.d: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("more than %d bytes: %w", maxConfig, errs.Invalid)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}
