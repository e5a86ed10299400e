package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/berth-run/berth/pkg/errs"
)

// Bounds of the HTTP servers. A profile of 30 seconds fits in.
const (
	headerTimeout  = 10 * time.Second
	requestTimeout = 2 * time.Minute
	healthTimeout  = 3 * time.Second
)

// Listen opens an address: unix:///PATH, for root alone, or HOST:PORT.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	path, ok := strings.CutPrefix(address, "unix://")
	if !ok {
		return config.Listen(ctx, "tcp", address)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("listen on %s: there is something that is not a socket: %w", path, errs.Conflict)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Serve answers /metrics and /healthz on l, which it closes, until ctx ends; with
// deep also /debug/pprof/, which stops the world and shows command lines.
func (t *Telemetry) Serve(ctx context.Context, l net.Listener, deep bool) error {
	s := &http.Server{Handler: t.handler(deep), ReadHeaderTimeout: headerTimeout, WriteTimeout: requestTimeout}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (t *Telemetry) handler(deep bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", t.health)
	if deep {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

func (t *Telemetry) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	if err := t.healthy(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}
