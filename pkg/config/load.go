package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/berth-run/berth/pkg/errs"
)

// Load reads a file over the defaults and validates the result. An error names
// the file, and the line and key where there is one.
func Load(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := parse(path, text)
	if err != nil {
		return Config{}, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func parse(path string, text []byte) (Config, error) {
	c := Default()
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&c)
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case err == nil:
		return c, nil
	case errors.As(err, &unknown):
		var list []error
		for _, e := range unknown.Errors {
			list = append(list, at(path, &e, "unknown key"))
		}
		return Config{}, errors.Join(list...)
	case errors.As(err, &bad):
		return Config{}, at(path, bad, strings.TrimPrefix(bad.Error(), "toml: "))
	}
	return Config{}, fmt.Errorf("%s: %w: %w", path, errs.Invalid, err)
}

// at writes one fault as file:line: key: what.
func at(path string, e *toml.DecodeError, what string) error {
	line, _ := e.Position()
	if key := strings.Join(e.Key(), "."); key != "" {
		what = key + ": " + what
	}
	return fmt.Errorf("%s:%d: %s: %w", path, line, what, errs.Invalid)
}
