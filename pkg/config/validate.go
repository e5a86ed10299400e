package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

// maxSocketPath is what fits into a sockaddr_un.
const maxSocketPath = 107

// Validate tells everything that is wrong, each with its key. Flags may have
// changed a loaded Config: call it again then.
func (c Config) Validate() error {
	var v validation
	v.absolute("root", c.Root)
	v.absolute("state", c.State)
	v.check(filepath.Clean(c.Root) != filepath.Clean(c.State), "state", "%q is root too: one is kept, the other is not", c.State)
	v.absolute("listen", c.Socket())
	v.check(len(c.Socket()) <= maxSocketPath, "listen", "path %q is longer than %d bytes", c.Socket(), maxSocketPath)
	v.check(c.LogLevel >= 0 && c.LogLevel <= 10, "log_level", "%d is not within 0 and 10", c.LogLevel)
	c.Runtime.validate(&v)
	c.Network.validate(&v)
	c.Stream.validate(&v)
	c.Image.validate(&v)
	c.Image.validateSignatures(&v)
	c.Telemetry.validate(&v)
	c.NRI.validate(&v)
	return errors.Join(v...)
}

func (i Image) validateSignatures(v *validation) {
	if i.SignaturePolicy != "" {
		v.absolute("image.signature_policy", i.SignaturePolicy)
	}
	if i.SignaturePolicyDir != "" {
		v.absolute("image.signature_policy_dir", i.SignaturePolicyDir)
	}
	for _, dir := range i.RegistriesD {
		v.absolute("image.registries_d", dir)
	}
}

func (n NRI) validate(v *validation) {
	v.check(slices.Contains([]string{"auto", "on", "off"}, n.Enable), "nri.enable", `%q is none of "auto", "on", "off"`, n.Enable)
	v.check(len(n.SocketPath) <= maxSocketPath, "nri.socket_path", "path %q is longer than %d bytes", n.SocketPath, maxSocketPath)
	for key, path := range map[string]string{"socket_path": n.SocketPath, "plugin_path": n.PluginPath, "plugin_config_path": n.PluginConfigPath} {
		v.check(path == "" || filepath.IsAbs(path), "nri."+key, "%q is not an absolute path", path)
	}
	for key, d := range map[string]Duration{"plugin_registration_timeout": n.PluginRegistrationTimeout, "plugin_request_timeout": n.PluginRequestTimeout} {
		v.check(d.Duration > 0, "nri."+key, "%s is not positive", d)
	}
}

func (t Telemetry) validate(v *validation) {
	path, isUnix := strings.CutPrefix(t.MetricsAddress, "unix://")
	_, _, err := net.SplitHostPort(t.MetricsAddress)
	v.check(t.MetricsAddress == "" || isUnix && filepath.IsAbs(path) && len(path) <= maxSocketPath || err == nil && !strings.Contains(t.MetricsAddress, "/"),
		"telemetry.metrics_address", "%q is neither HOST:PORT nor unix:///PATH", t.MetricsAddress)
	u, err := url.Parse(t.TraceEndpoint)
	isURL := err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
	_, _, err = net.SplitHostPort(t.TraceEndpoint)
	v.check(t.TraceEndpoint == "" || isURL || err == nil && !strings.Contains(t.TraceEndpoint, "/"),
		"telemetry.trace_endpoint", "%q is neither HOST:PORT nor https://HOST:PORT", t.TraceEndpoint)
	n := t.TraceSamplingPerMillion
	v.check(n >= 0 && n <= 1_000_000, "telemetry.trace_sampling_per_million", "%d is not within 0 and 1000000", n)
}

func (r Runtime) validate(v *validation) {
	v.check(slices.Contains([]string{"auto", "cgroupfs", "systemd"}, r.CgroupDriver),
		"runtime.cgroup_driver", `%q is none of "auto", "cgroupfs", "systemd"`, r.CgroupDriver)
	_, ok := r.Handlers[r.DefaultHandler]
	v.check(ok, "runtime.default_handler", "%q is not among the handlers", r.DefaultHandler)
	for _, name := range r.DefaultCapabilities {
		v.check(strings.HasPrefix(name, "CAP_"), "runtime.default_capabilities", "%q does not begin with CAP_", name)
	}
	v.seccomp("runtime.seccomp_profile", r.SeccompProfile)
	for name, h := range r.Handlers {
		h.validate(v, name)
	}
	v.check(r.OOMScoreAdjMin >= -1000 && r.OOMScoreAdjMin <= 1000,
		"runtime.oom_score_adj_min", "%d is not within -1000 and 1000", r.OOMScoreAdjMin)
	v.check(r.PidsLimit >= 0, "runtime.pids_limit", "%d is negative", r.PidsLimit)
	for _, dir := range r.CDISpecDirs {
		v.absolute("runtime.cdi_spec_dirs", dir)
	}
	for name := range r.DefaultUlimits {
		v.check(slices.Contains(ulimitNames, name), "runtime.default_ulimits", "%q is no resource", name)
	}
}

// builtin is the handler that berth-runtime always serves itself.
const builtin = "berth"

// handlerName is what a RuntimeClass can name.
var handlerName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (h Handler) validate(v *validation, name string) {
	key := "runtime.handlers." + name + "."
	v.check(h.Path == "" || name != builtin, key+"path", "this handler is the built-in one")
	v.check(h.Path == "" || handlerName.MatchString(name), key+"path", "%q is no name that a RuntimeClass can give", name)
	v.check(!strings.Contains(h.Path, "/") || filepath.IsAbs(h.Path) && filepath.Clean(h.Path) == h.Path,
		key+"path", "%q is neither an absolute, clean path nor a name", h.Path)
	v.check(h.Root == "" || h.Path != "", key+"root", "means nothing without path")
	if h.Root != "" {
		v.absolute(key+"root", h.Root)
	}
	v.check(slices.Contains([]string{"", "directory"}, h.LayerBackend),
		key+"layer_backend", `%q is neither empty nor "directory": what is kept for all is image.layer_backend's`, h.LayerBackend)
	if h.SeccompProfile != "" {
		v.seccomp(key+"seccomp_profile", h.SeccompProfile)
	}
}

func (s Stream) validate(v *validation) {
	_, err := netip.ParseAddr(s.Address)
	v.check(err == nil, "stream.address", "%q is no IP address", s.Address)
	v.check(s.Port >= 0 && s.Port <= 65535, "stream.port", "%d is not within 0 and 65535", s.Port)
	v.check(s.IdleTimeout.Duration > 0, "stream.idle_timeout", "%s is not positive", s.IdleTimeout)
	v.check((s.CertFile == "") == (s.KeyFile == ""), "stream.cert_file", "needs key_file, and the other way about")
	v.check(s.ClientCAFile == "" || s.CertFile != "", "stream.client_ca_file", "needs cert_file")
	for key, path := range map[string]string{"cert_file": s.CertFile, "key_file": s.KeyFile, "client_ca_file": s.ClientCAFile} {
		v.check(path == "" || filepath.IsAbs(path), "stream."+key, "%q is not an absolute path", path)
	}
}

func (n Network) validate(v *validation) {
	v.absolute("network.conf_dir", n.ConfDir)
	v.absolute("network.netns_dir", n.NetNSDir)
	v.check(len(n.BinDirs) > 0, "network.bin_dirs", "is empty")
	for _, dir := range n.BinDirs {
		v.absolute("network.bin_dirs", dir)
	}
	v.check(n.MaxConfNum >= 1, "network.max_conf_num", "%d is below 1", n.MaxConfNum)
	v.check(n.Timeout.Duration > 0, "network.timeout", "%s is not positive", n.Timeout)
	b := n.Builtin
	v.check(b.Bridge != "" && len(b.Bridge) < 16 && !strings.ContainsAny(b.Bridge, "/: \t\n"),
		"network.builtin.bridge", "%q is no name of an interface", b.Bridge)
	v.check(!b.Subnet.IsValid() || b.Subnet.Addr().Is4(), "network.builtin.subnet", "%s is not IPv4", b.Subnet)
	v.check(!b.Subnet6.IsValid() || b.Subnet6.Addr().Is6(), "network.builtin.subnet6", "%s is not IPv6", b.Subnet6)
	v.check(b.MTU == 0 || b.MTU >= 68 && b.MTU <= 65535, "network.builtin.mtu", "%d is neither 0 nor within 68 and 65535", b.MTU)
}

func (i Image) validate(v *validation) {
	n := i.MaxConcurrentDownloads
	v.check(n >= 1 && n <= 64, "image.max_concurrent_downloads", "%d is not within 1 and 64", n)
	n = i.MaxConnections
	v.check(n >= 1 && n <= 1024, "image.max_connections", "%d is not within 1 and 1024", n)
	v.check(i.MemoryBudget >= 8<<20, "image.memory_budget", "%d bytes are less than 8MiB", i.MemoryBudget)
	v.check(!slices.Contains(i.Pinned, ""), "image.pinned", "has an empty name")
	v.check(slices.Contains([]string{"auto", "erofs", "directory"}, i.LayerBackend),
		"image.layer_backend", `%q is none of "auto", "erofs", "directory"`, i.LayerBackend)
	v.check(i.StallTimeout.Duration > 0, "image.stall_timeout", "%s is not positive", i.StallTimeout)
	v.check(i.StallRate >= 0, "image.stall_rate", "%d is negative", i.StallRate)
	for key, paths := range map[string][]string{
		"image.certs_dirs": i.CertsDirs, "image.registries_conf": i.RegistriesConf, "image.auth_files": i.AuthFiles,
	} {
		for _, path := range paths {
			v.absolute(key, path)
		}
	}
	for key, proxy := range map[string]string{"image.proxy.http": i.Proxy.HTTP, "image.proxy.https": i.Proxy.HTTPS} {
		u, err := url.Parse(proxy) // not shown: it may have a password
		v.check(proxy == "" || err == nil && u.Host != "" && slices.Contains([]string{"http", "https", "socks5"}, u.Scheme),
			key, "is not the URL of a proxy, as http://proxy:3128")
	}
}

// validation collects faults.
type validation []error

func (v *validation) check(ok bool, key, format string, args ...any) {
	if !ok {
		*v = append(*v, fmt.Errorf("%s: %s: %w", key, fmt.Sprintf(format, args...), errs.Invalid))
	}
}

func (v *validation) seccomp(key, profile string) {
	v.check(slices.Contains([]string{"unconfined", "runtime/default"}, profile) || filepath.IsAbs(profile),
		key, `%q is neither "unconfined", "runtime/default" nor an absolute path`, profile)
}

func (v *validation) absolute(key, path string) {
	v.check(filepath.IsAbs(path) && filepath.Clean(path) == path, key, "%q is not an absolute, clean path", path)
}
