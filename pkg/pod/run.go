package pod

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/stage"
	"github.com/berth-run/berth/pkg/internal/undo"
	"github.com/berth-run/berth/pkg/network"
	"github.com/berth-run/berth/pkg/spec"
)

// Run makes a pod and returns its id once the pod is ready. An equal call that
// is still under way is joined; one whose pod is ready gets the id again, since
// its caller may not have heard it. The error is errs.Exists where another pod
// has the name, namespace, uid and attempt, errs.NotFound for an unknown
// runtime handler.
func (s *Service) Run(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	if err := s.validate(config, handler); err != nil {
		return "", err
	}
	if err := usable(ctx, s.d.Commands, config, handler); err != nil {
		return "", err
	}
	key := nameKey(config)
	sum, err := fingerprint(config)
	if err != nil {
		return "", fmt.Errorf("configuration of pod %s: %w", key, err)
	}
	return s.runs.Do(ctx, key+"/"+handler+"/"+sum, func(ctx context.Context) (string, error) {
		id := newID()
		if holder, ok := s.names.Reserve(key, id); !ok {
			return s.again(holder, config, handler)
		}
		p := &Sandbox{ID: id, Config: config, Handler: handler, CreatedAt: time.Now(), State: Ready}
		if err := s.run(ctx, p); err != nil {
			s.names.Release(key, id)
			return "", fmt.Errorf("run pod %s/%s: %w", config.GetMetadata().GetNamespace(), config.GetMetadata().GetName(), err)
		}
		return id, nil
	})
}

// again answers a Run whose name is taken.
func (s *Service) again(holder string, config *cri.PodSandboxConfig, handler string) (string, error) {
	h := s.table.Get(holder)
	if h != nil && h.State == Ready && h.Handler == handler && proto.Equal(h.Config, config) {
		return holder, nil
	}
	m := config.GetMetadata()
	return "", fmt.Errorf("pod name %s/%s, uid %s, attempt %d, belongs to pod %s: remove that one or raise the attempt: %w",
		m.GetNamespace(), m.GetName(), m.GetUid(), m.GetAttempt(), holder, errs.Exists)
}

func (s *Service) validate(config *cri.PodSandboxConfig, handler string) error {
	m, security := config.GetMetadata(), config.GetLinux().GetSecurityContext()
	switch {
	case m.GetName() == "":
		return fmt.Errorf("pod without a name: %w", errs.Invalid)
	case handler != "" && !slices.Contains(s.d.Handlers, handler):
		return fmt.Errorf("runtime handler %q is not configured, this node has %s: %w", handler, strings.Join(s.d.Handlers, ", "), errs.NotFound)
	case config.GetLogDirectory() != "" && !filepath.IsAbs(config.GetLogDirectory()), strings.ContainsRune(config.GetLogDirectory(), 0):
		return fmt.Errorf("log directory %q is no absolute path: %w", config.GetLogDirectory(), errs.Invalid)
	case security.GetRunAsGroup() != nil && security.GetRunAsUser() == nil: // CRI: MUST error; else nothing of it concerns us
		return fmt.Errorf("pod with a group to run as, %d, but no user: %w", security.GetRunAsGroup().GetValue(), errs.Invalid)
	case config.GetWindows() != nil:
		return fmt.Errorf("pod for Windows, and this is Linux: %w", errs.Invalid)
	}
	if err := checkModes(security.GetNamespaceOptions()); err != nil {
		return err
	}
	if err := checkDNS(config.GetDnsConfig()); err != nil {
		return err
	}
	return checkHostname(config.GetHostname())
}

// usable refuses a pod whose containers the handler's program could not make.
func usable(ctx context.Context, commands container.Commands, config *cri.PodSandboxConfig, handler string) error {
	if commands == nil {
		return nil
	}
	by, err := commands.Command(ctx, handler)
	if err != nil || by.Command == nil || by.UserNamespaces {
		return err
	}
	if _, _, own, err := spec.UserNamespace(config); err != nil || own {
		return errors.Join(err, fmt.Errorf("user namespace of the pod: %s, which its runtime handler stands for, does not say that it knows idmapped mounts: %w", by.Path, errs.Unsupported))
	}
	return nil
}

// maxHostname is the kernel's bound.
const maxHostname = 64

func checkHostname(name string) error {
	if len(name) > maxHostname || strings.ContainsAny(name, "\x00\n\r\t /") {
		return fmt.Errorf("hostname %q: at most %d bytes, no blanks: %w", name, maxHostname, errs.Invalid)
	}
	return nil
}

// checkDNS refuses what could begin a line of its own in resolv.conf.
func checkDNS(d *cri.DNSConfig) error {
	for what, words := range map[string][]string{"name server": d.GetServers(), "search domain": d.GetSearches(), "resolver's option": d.GetOptions()} {
		for _, word := range words {
			if strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				return fmt.Errorf("%s %q is not one word: %w", what, word, errs.Invalid)
			}
		}
	}
	return nil
}

// nameKey is what makes a pod unique.
func nameKey(c *cri.PodSandboxConfig) string {
	m := c.GetMetadata()
	return fmt.Sprintf("%s/%s/%s/%d", m.GetNamespace(), m.GetName(), m.GetUid(), m.GetAttempt())
}

// fingerprint tells configurations apart.
func fingerprint(m proto.Message) (string, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errs.Invalid, err)
	}
	sum := sha256.Sum256(raw)
	return string(sum[:]), nil
}

func newID() string {
	var id [32]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// run makes the pod. Its files are written while the kernel and the network
// plugins work.
func (s *Service) run(ctx context.Context, p *Sandbox) error {
	request, err := s.request(p)
	if err != nil {
		return err
	}
	s.halves.begin(p.ID)
	defer s.halves.end(p.ID)
	var undone undo.Stack
	defer undone.Run(ctx) //nolint:errcheck // what is left is a half pod, which Check and Recover take down

	undone.Push(func(ctx context.Context) error { return s.takeDown(ctx, p.ID) })
	if err := s.makeDirectories(p); err != nil {
		return err
	}
	files := make(chan error, 1)
	go func() { files <- s.writeFiles(p) }()
	err = s.d.Runtime.CreatePod(ctx, request)
	if err == nil {
		p.IPs, err = s.connect(ctx, p)
	}
	if wrong := <-files; err == nil {
		err = wrong
	}
	if err == nil {
		err = s.writeHosts(p)
	}
	if err == nil {
		err = s.admit(ctx, p, &undone)
	}
	if err != nil {
		return err
	}
	undone.Discard()
	s.events.Publish(Event{container.EventCreated, p, time.Now()})
	s.events.Publish(Event{container.EventStarted, p, time.Now()})
	return nil
}

// admit makes a pod ready that has all it needs, if the plugins agree.
func (s *Service) admit(ctx context.Context, p *Sandbox, undone *undo.Stack) error {
	undone.Push(func(ctx context.Context) error { s.d.Plugins.Removed(ctx, p); return nil })
	release := s.d.Plugins.Hold() // until the pod is in the table
	defer release()
	if err := s.d.Plugins.Run(ctx, p); err != nil {
		return err
	}
	if err := s.writeState(p); err != nil {
		return err
	}
	s.table.Put(p.ID, p)
	return nil
}

// makeDirectories makes the pod's directories and, in the first, the record
// that says that there is a pod.
func (s *Service) makeDirectories(p *Sandbox) error {
	if err := os.Mkdir(s.dir(p.ID), 0o700); err != nil {
		return err
	}
	if err := s.writeConfig(p); err != nil {
		return err
	}
	if err := os.Mkdir(s.stateDir(p.ID), 0o711); err != nil { // user namespaces reach their pins through it
		return err
	}
	return os.Mkdir(s.pins(p.ID), 0o711)
}

// connect attaches the pod to the network, where it has one of its own.
func (s *Service) connect(ctx context.Context, p *Sandbox) (ips addresses, err error) {
	switch networkMode(p.Config) {
	case cri.NamespaceMode_NODE:
		return nil, nil
	case cri.NamespaceMode_CONTAINER: // one that is connected to nothing
		return nil, s.d.Network.Loopback(p.NetNS)
	}
	err = stage.Run(ctx, "network attach", func(ctx context.Context) error {
		result, err := s.d.Network.Attach(ctx, attachRequest(p))
		ips = result.IPs
		return err
	})
	return ips, err
}

func attachRequest(p *Sandbox) network.AttachRequest {
	m, dns := p.Config.GetMetadata(), p.Config.GetDnsConfig()
	r := network.AttachRequest{
		PodID: p.ID, Name: m.GetName(), Namespace: m.GetNamespace(), UID: m.GetUid(), NetNS: p.NetNS,
		CgroupParent: p.Config.GetLinux().GetCgroupParent(), Labels: p.Config.GetLabels(), Annotations: p.Config.GetAnnotations(),
		DNS: network.DNS{Servers: dns.GetServers(), Searches: dns.GetSearches(), Options: dns.GetOptions()},
	}
	for _, port := range p.Config.GetPortMappings() {
		if port.GetHostPort() != 0 { // the network refuses what is no port
			r.Ports = append(r.Ports, network.PortMapping{
				Protocol: strings.ToLower(port.GetProtocol().String()), ContainerPort: port.GetContainerPort(),
				HostPort: port.GetHostPort(), HostIP: port.GetHostIp(),
			})
		}
	}
	return r
}
