package statefile

import (
	"fmt"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

// CheckName refuses what cannot be the name of a record or of its directory: one
// that is empty, hidden or too long, or more than one element of a path. The error
// is of kind Invalid and begins with what.
func CheckName(what, name string) error {
	if name == "" || name[0] == '.' || len(name) > 128 || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%s %.140q: %w", what, name, errs.Invalid)
	}
	return nil
}
