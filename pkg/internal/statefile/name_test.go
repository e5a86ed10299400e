package statefile

import (
	"errors"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
)

func TestNamesAreOneElementOfAPath(t *testing.T) {
	for name, good := range map[string]bool{
		"a": true, "a.b-c": true, strings.Repeat("a", 128): true,
		"": false, ".": false, "..": false, ".a": false, "a/b": false, "/": false, "a\x00": false, strings.Repeat("a", 129): false,
	} {
		err := CheckName("id", name)
		if good != (err == nil) || !good && !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
