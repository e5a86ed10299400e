package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Ulimit is a soft and a hard limit.
type Ulimit struct{ Soft, Hard uint64 }

// UnmarshalText reads "soft:hard" or one number for both; "unlimited" is a
// number too.
func (u *Ulimit) UnmarshalText(text []byte) error {
	soft, hard, both := strings.Cut(string(text), ":")
	if !both {
		hard = soft
	}
	var err error
	if u.Soft, err = limit(soft); err != nil {
		return err
	}
	if u.Hard, err = limit(hard); err != nil {
		return err
	}
	if u.Soft > u.Hard {
		return fmt.Errorf("soft limit %s is above the hard limit %s", soft, hard)
	}
	return nil
}

func limit(text string) (uint64, error) {
	if text == "unlimited" {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

// ulimitNames are the resources of setrlimit(2).
var ulimitNames = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
	"rss", "rtprio", "rttime", "sigpending", "stack",
}
