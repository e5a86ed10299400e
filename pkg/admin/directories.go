package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

const (
	volumesDir = "volumes"
	logsDir    = "logs"
)

// directoryName is what a volume or a pod's uid may be called: one path element
// that cannot climb.
var directoryName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// OpenVolume returns the directory of a named volume, made where missing. Any
// user inside a container may enter it; the tree above it is root's.
func (s *Server) OpenVolume(_ context.Context, r *apiv1.OpenVolumeRequest) (*apiv1.OpenVolumeResponse, error) {
	path, err := openDirectory(filepath.Join(s.deps.Root, volumesDir), r.Name, 0o755)
	if err != nil {
		return nil, fmt.Errorf("volume %q: %w", r.Name, err)
	}
	return &apiv1.OpenVolumeResponse{Path: path}, nil
}

// OpenLogs makes the log directory of a pod.
func (s *Server) OpenLogs(_ context.Context, r *apiv1.OpenLogsRequest) (*apiv1.OpenLogsResponse, error) {
	path, err := openDirectory(filepath.Join(s.deps.Root, logsDir), r.PodUid, 0o700)
	if err != nil {
		return nil, fmt.Errorf("logs of pod %q: %w", r.PodUid, err)
	}
	return &apiv1.OpenLogsResponse{Path: path}, nil
}

// RemoveLogs removes what OpenLogs made.
func (s *Server) RemoveLogs(_ context.Context, r *apiv1.RemoveLogsRequest) (*apiv1.RemoveLogsResponse, error) {
	if !directoryName.MatchString(r.PodUid) {
		return nil, fmt.Errorf("logs of pod %q: not a pod's uid: %w", r.PodUid, errs.Invalid)
	}
	root, err := os.OpenRoot(filepath.Join(s.deps.Root, logsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return &apiv1.RemoveLogsResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return &apiv1.RemoveLogsResponse{}, root.RemoveAll(r.PodUid)
}

// openDirectory opens a directory of a tree, both made where missing.
func openDirectory(tree, name string, mode fs.FileMode) (string, error) {
	if !directoryName.MatchString(name) {
		return "", fmt.Errorf("a name has letters, digits, '_', '.' and '-' only, and begins with a letter or digit: %w", errs.Invalid)
	}
	if err := os.MkdirAll(tree, 0o700); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if err := root.Mkdir(name, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return filepath.Join(tree, name), nil
}
