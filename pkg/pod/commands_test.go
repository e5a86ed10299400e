package pod_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

type commandsFunc func() (container.Command, error)

func (f commandsFunc) Command(context.Context, string) (container.Command, error) { return f() }

func TestAPodThatItsHandlersProgramCannotRunIsRefused(t *testing.T) {
	n := newNode(t)
	by := container.Command{Command: &runtime.Command{Path: "/bin/crun", Root: "/run/crun"}}
	var missing error
	n.commands = commandsFunc(func() (container.Command, error) { return by, missing })
	n.restart()
	own := testConfig("own")
	own.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{UsernsOptions: &cri.UserNamespace{
		Mode: cri.NamespaceMode_POD, Uids: []*cri.IDMapping{{HostId: 1 << 20, Length: 65536}}, Gids: []*cri.IDMapping{{HostId: 1 << 20, Length: 65536}},
	}}}
	if _, err := n.Run(t.Context(), own, "berth"); !errors.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "/bin/crun") {
		t.Errorf("a user namespace: %v", err)
	}
	missing = fmt.Errorf("no crun: %w", errs.Unavailable)
	if _, err := n.Run(t.Context(), testConfig("a"), "berth"); !errors.Is(err, errs.Unavailable) {
		t.Errorf("no program: %v", err)
	}
	missing = nil
	if _, err := n.Run(t.Context(), testConfig("a"), "berth"); err != nil {
		t.Error(err)
	}
}
