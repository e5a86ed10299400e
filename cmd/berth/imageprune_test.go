package main

import (
	"testing"
	"time"
)

func TestUntilIsATimeOrHowLongAgo(t *testing.T) {
	now := time.Date(2026, 2, 3, 4, 5, 6, 0, time.Local)
	for text, want := range map[string]time.Time{
		"24h":                  now.Add(-24 * time.Hour),
		"1h30m":                now.Add(-90 * time.Minute),
		"1700000000":           time.Unix(1_700_000_000, 0),
		"2026-01-31":           time.Date(2026, 1, 31, 0, 0, 0, 0, time.Local),
		"2026-01-31T12:30":     time.Date(2026, 1, 31, 12, 30, 0, 0, time.Local),
		"2026-01-31T12:30:00Z": time.Date(2026, 1, 31, 12, 30, 0, 0, time.UTC),
	} {
		if got, err := parseUntil([]string{"until=" + text}, now); err != nil || got != want.UnixNano() {
			t.Errorf("%s: %s, %v", text, time.Unix(0, got), err)
		}
	}
	if got, err := parseUntil([]string{"until=1h", "until=2h"}, now); err != nil || got != now.Add(-2*time.Hour).UnixNano() {
		t.Errorf("the earlier one counts: %d, %v", got, err)
	}
	for _, filter := range []string{"until=", "until=soon", "label=x", "until"} {
		if got, err := parseUntil([]string{filter}, now); err == nil {
			t.Errorf("%s: %d", filter, got)
		}
	}
	if got, err := parseUntil(nil, now); err != nil || got != 0 {
		t.Errorf("none: %d, %v", got, err)
	}
}
