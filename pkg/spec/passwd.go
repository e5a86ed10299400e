package spec

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

// Bounds on the image's passwd and group files (CVE-2023-25153,
// CVE-2026-47262), in bytes.
const (
	maxAccountFile = 8 << 20
	maxAccountLine = 1 << 20
)

type passwdEntry struct {
	name, home string
	uid, gid   uint32
}

// findUser returns the first passwd entry of the wanted user.
func findUser(file io.Reader, want principal) (entry passwdEntry, found bool, err error) {
	err = accountLines(file, "passwd", func(fields []string) (bool, error) {
		if len(fields) < 6 {
			return false, nil
		}
		uid, uidErr := accountID(fields[2])
		if want.numeric && (uidErr != nil || uid != want.id) || !want.numeric && fields[0] != want.text {
			return false, nil
		}
		gid, gidErr := accountID(fields[3])
		if err := errors.Join(uidErr, gidErr); err != nil {
			return false, err
		}
		entry, found = passwdEntry{name: fields[0], home: fields[5], uid: uid, gid: gid}, true
		return true, nil
	})
	return entry, found, err
}

// scanGroups returns the ids of groups that have primary's name, and of those
// that list member.
func scanGroups(file io.Reader, primary *principal, member string) (named, of []uint32, err error) {
	err = accountLines(file, "group", func(fields []string) (bool, error) {
		if len(fields) < 3 {
			return false, nil
		}
		isNamed := primary != nil && !primary.numeric && fields[0] == primary.text
		isMember := member != "" && len(fields) > 3 && listed(fields[3], member)
		if !isNamed && !isMember {
			return false, nil
		}
		gid, err := accountID(fields[2])
		if err != nil {
			return false, err
		}
		if isNamed {
			named = append(named, gid)
		}
		if isMember {
			of = append(of, gid)
		}
		return false, nil
	})
	return named, of, err
}

func listed(list, name string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(one) == name {
			return true
		}
	}
	return false
}

func accountID(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("id %.20q: %w", text, errs.Invalid)
	}
	return uint32(n), nil
}

// accountLines calls f with the fields of each line until it returns true. A
// file beyond the bounds is refused, as what lies behind them is unknown.
func accountLines(file io.Reader, what string, f func(fields []string) (done bool, err error)) error {
	if file == nil {
		return nil
	}
	limited := &io.LimitedReader{R: file, N: maxAccountFile + 1}
	scan := bufio.NewScanner(limited)
	scan.Buffer(nil, maxAccountLine)
	for scan.Scan() {
		line := strings.TrimSpace(scan.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		done, err := f(strings.Split(line, ":"))
		if err != nil {
			return fmt.Errorf("image's %s file: %w", what, err)
		}
		if done {
			return nil
		}
	}
	if err := scan.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("image's %s file has a line over %d bytes: %w", what, maxAccountLine, errs.Invalid)
	} else if err != nil {
		return fmt.Errorf("image's %s file: %w", what, err)
	}
	if limited.N == 0 {
		return fmt.Errorf("image's %s file is over %d bytes: %w", what, maxAccountFile, errs.Invalid)
	}
	return nil
}
