package plugin

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPluginOutputAndTimeAreBounded(t *testing.T) {
	bin := t.TempDir()
	script := func(name, body string) string {
		path := filepath.Join(bin, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	e := &Exec{}
	if _, err := e.ExecPlugin(t.Context(), script("huge", "head -c 3000000 /dev/zero\n"), nil, nil); err == nil {
		t.Error("a huge result was taken")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := e.ExecPlugin(ctx, script("slow", "sleep 60 & sleep 60\n"), nil, os.Environ())
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}
