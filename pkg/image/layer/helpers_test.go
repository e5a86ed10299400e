package layer

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"
)

// TestMain gives the tests no umask to rely on: a daemon's may be anything.
func TestMain(m *testing.M) {
	syscall.Umask(0o077)
	m.Run()
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func octal(n int) string { return fmt.Sprintf("%06o\x00 ", n) }

// record is one PAX record, which begins with its own length.
func record(k, v string) string {
	body := " " + k + "=" + v + "\n"
	n := len(body)
	for n != len(body)+len(strconv.Itoa(n)) {
		n = len(body) + len(strconv.Itoa(n))
	}
	return strconv.Itoa(n) + body
}
