package registry

import (
	"encoding/base64"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/berth-run/berth/pkg/image/registry/hosts"
)

const (
	// minSecret is the shortest text that is hidden: shorter ones are in any text.
	minSecret = 3
	// maxText bounds what a registry may say in an error.
	maxText = 600
)

// secrets are what was sent to a server that nobody else may see: it may send them
// back in what ends up in an error.
type secrets struct {
	mu   sync.Mutex
	list []string
}

func (s *secrets) add(texts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range texts {
		if len(text) >= minSecret && !slices.Contains(s.list, text) {
			s.list = append(s.list, text)
		}
	}
}

// addHeader notes the values of Authorization, whose scheme is no secret.
func (s *secrets) addHeader(h http.Header) {
	for _, v := range h["Authorization"] {
		scheme, value, ok := strings.Cut(v, " ")
		if !ok {
			value = scheme
		}
		s.add(value)
		if data, err := base64.StdEncoding.DecodeString(value); err == nil && strings.EqualFold(scheme, "basic") {
			_, password, _ := strings.Cut(string(data), ":")
			s.add(string(data), password)
		}
	}
}

func (s *secrets) addEndpoint(e hosts.Endpoint) {
	s.addHeader(e.Header)
	for _, values := range e.Header {
		s.add(values...)
	}
}

var query = regexp.MustCompile(`(https?://[^\s"'?]*)\?[^\s"']*`)

// hide takes the secrets from a text, and the queries of URLs: they can hold a
// signature.
func (s *secrets) hide(text string) string {
	text = query.ReplaceAllString(text, "$1?…")
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.list, func(a, b string) int { return len(b) - len(a) }) // a part of another comes after it
	for _, secret := range s.list {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	return text
}

// hidden is an error whose text has no secrets.
type hidden struct {
	text string
	err  error
}

func (s *secrets) hidden(err error) error {
	if err == nil {
		return nil
	}
	text := s.hide(err.Error())
	if len(text) > maxText { // cut after hiding: half a secret is not known as one
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return &hidden{text: text, err: err}
}

// Error implements error.
func (h *hidden) Error() string { return h.text }

// Is finds kinds, and no error that could show its own text.
func (h *hidden) Is(target error) bool { return errors.Is(h.err, target) }
