// Package config is berthd's configuration: its schema, its defaults, and a
// reader that refuses what it does not know. config/berth.toml documents each
// key; a test keeps that file and Default equal.
package config

import (
	"encoding"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Config is the whole configuration. Default gives a complete one; the zero
// value is not valid.
type Config struct {
	// Root is the directory of what survives a reboot.
	Root string `toml:"root"`
	// State is the directory of what does not.
	State string `toml:"state"`
	// Listen is the path of the socket; see Socket.
	Listen string `toml:"listen"`
	// LogLevel is klog's verbosity.
	LogLevel  int       `toml:"log_level"`
	Runtime   Runtime   `toml:"runtime"`
	Network   Network   `toml:"network"`
	Image     Image     `toml:"image"`
	Stream    Stream    `toml:"stream"`
	Telemetry Telemetry `toml:"telemetry"`
	NRI       NRI       `toml:"nri"`
}

// NRI is how plugins of the Node Resource Interface take part.
type NRI struct {
	// Enable is "auto", "on" or "off".
	Enable string `toml:"enable"`
	// SocketPath is where plugins connect; empty: nowhere.
	SocketPath string `toml:"socket_path"`
	// PluginPath and PluginConfigPath need not exist, and may be empty.
	PluginPath                string       `toml:"plugin_path"`
	PluginConfigPath          string       `toml:"plugin_config_path"`
	PluginRegistrationTimeout Duration     `toml:"plugin_registration_timeout"`
	PluginRequestTimeout      Duration     `toml:"plugin_request_timeout"`
	DefaultValidator          NRIValidator `toml:"default_validator"`
}

// NRIValidator says what plugins may not change. Its fields are those of the
// library's.
type NRIValidator struct {
	Enable                                bool     `toml:"enable"`
	RejectOCIHookAdjustment               bool     `toml:"reject_oci_hook_adjustment"`
	RejectRuntimeDefaultSeccompAdjustment bool     `toml:"reject_runtime_default_seccomp_adjustment"`
	RejectUnconfinedSeccompAdjustment     bool     `toml:"reject_unconfined_seccomp_adjustment"`
	RejectCustomSeccompAdjustment         bool     `toml:"reject_custom_seccomp_adjustment"`
	RejectNamespaceAdjustment             bool     `toml:"reject_namespace_adjustment"`
	RejectSysctlAdjustment                bool     `toml:"reject_sysctl_adjustment"`
	RequiredPlugins                       []string `toml:"required_plugins"`
	TolerateMissingAnnotation             string   `toml:"tolerate_missing_plugins_annotation"`
}

// Telemetry is how the daemon is watched.
type Telemetry struct {
	// MetricsAddress is host:port or unix:///path; empty: the debug socket alone.
	MetricsAddress string `toml:"metrics_address"`
	// TraceEndpoint is an OTLP collector; empty: no traces.
	TraceEndpoint           string `toml:"trace_endpoint"`
	TraceSamplingPerMillion int    `toml:"trace_sampling_per_million"`
}

// Runtime is how containers are run.
type Runtime struct {
	// CgroupDriver is "auto", "cgroupfs" or "systemd".
	CgroupDriver string `toml:"cgroup_driver"`
	// DefaultHandler is a key of Handlers.
	DefaultHandler      string   `toml:"default_handler"`
	DefaultCapabilities []string `toml:"default_capabilities"`
	// SeccompProfile is "unconfined", "runtime/default" or an absolute path.
	SeccompProfile string `toml:"seccomp_profile"`
	// AppArmorProfile is "auto", the name of one that is loaded, or empty.
	AppArmorProfile string `toml:"apparmor_profile"`
	OOMScoreAdjMin  int    `toml:"oom_score_adj_min"`
	// PidsLimit of each container; 0: none.
	PidsLimit int64 `toml:"pids_limit"`
	// CDISpecDirs hold specifications of devices; a later one wins.
	CDISpecDirs    []string          `toml:"cdi_spec_dirs"`
	DefaultSysctls map[string]string `toml:"default_sysctls"`
	// DefaultUlimits by lower-case name, such as nofile.
	DefaultUlimits map[string]Ulimit  `toml:"default_ulimits"`
	Handlers       map[string]Handler `toml:"handlers"`
}

// Handler is what one runtime handler does differently.
type Handler struct {
	// Path of an OCI runtime's program, absolute or a name in PATH; empty:
	// berth-runtime makes the containers itself.
	Path string `toml:"path"`
	// Root is the directory of that program's state; see StateOf.
	Root string `toml:"root"`
	// SeccompProfile replaces Runtime.SeccompProfile where not empty.
	SeccompProfile string `toml:"seccomp_profile"`
	// LayerBackend is "directory", or empty: Image.LayerBackend.
	LayerBackend string `toml:"layer_backend"`
	// Annotations are the keys that reach the runtime; a final * matches any
	// ending.
	Annotations                  []string `toml:"annotations"`
	PrivilegedWithoutHostDevices bool     `toml:"privileged_without_host_devices"`
}

// Network is how pods are connected.
type Network struct {
	ConfDir    string   `toml:"conf_dir"`
	BinDirs    []string `toml:"bin_dirs"`
	NetNSDir   string   `toml:"netns_dir"`
	MaxConfNum int      `toml:"max_conf_num"`
	Timeout    Duration `toml:"timeout"`
	Builtin    Builtin  `toml:"builtin"`
}

// Builtin is the network of a standalone daemon.
type Builtin struct {
	Bridge string `toml:"bridge"`
	// Subnet and Subnet6 may be empty.
	Subnet  Prefix `toml:"subnet"`
	Subnet6 Prefix `toml:"subnet6"`
	MTU     int    `toml:"mtu"`
}

// Stream is where exec, attach and port-forward sessions are served.
type Stream struct {
	Address string `toml:"address"`
	// Port 0 is a free one.
	Port int `toml:"port"`
	// CertFile and KeyFile make it HTTPS; ClientCAFile asks clients for certificates.
	CertFile     string   `toml:"cert_file"`
	KeyFile      string   `toml:"key_file"`
	ClientCAFile string   `toml:"client_ca_file"`
	IdleTimeout  Duration `toml:"idle_timeout"`
}

// Image is how images are pulled and kept.
type Image struct {
	KeepBlobs bool `toml:"keep_blobs"`
	// LayerBackend is "auto", "erofs" or "directory".
	LayerBackend           string `toml:"layer_backend"`
	LayerVerity            bool   `toml:"layer_verity"`
	MaxConcurrentDownloads int    `toml:"max_concurrent_downloads"`
	// MaxConnections and MemoryBudget are those of all pulls together.
	MaxConnections int      `toml:"max_connections"`
	MemoryBudget   Size     `toml:"memory_budget"`
	StallTimeout   Duration `toml:"stall_timeout"`
	// StallRate, in bytes a second over StallTimeout, is too slow.
	StallRate int64    `toml:"stall_rate"`
	PlainHTTP []string `toml:"plain_http"`
	// CertsDirs hold a directory with hosts.toml or certificates for each host.
	CertsDirs []string `toml:"certs_dirs"`
	// RegistriesConf are the paths of which the first that exists counts.
	RegistriesConf []string `toml:"registries_conf"`
	// AuthFiles are where credentials are; none: the usual places.
	AuthFiles []string `toml:"auth_files"`
	Proxy     Proxy    `toml:"proxy"`
	// Pinned are names, or patterns with *, of images that are never garbage.
	Pinned []string `toml:"pinned"`
	// SignaturePolicy is a policy.json that must be there; empty: that of
	// /etc/containers, where there is one.
	SignaturePolicy string `toml:"signature_policy"`
	// SignaturePolicyDir has policies of single namespaces; empty: none.
	SignaturePolicyDir string   `toml:"signature_policy_dir"`
	RegistriesD        []string `toml:"registries_d"`
}

// Proxy is what stands between berthd and registries. The zero value means what
// the environment says.
type Proxy struct {
	HTTP  string `toml:"http"`
	HTTPS string `toml:"https"`
	// No are hosts, domains, addresses and subnets, separated by commas.
	No string `toml:"no"`
}

// Duration is a time.Duration written as text, such as "1m30s".
type Duration struct{ time.Duration }

var _ encoding.TextUnmarshaler = (*Duration)(nil)

// UnmarshalText reads Go's form of durations.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	d.Duration = v
	return err
}

// MarshalText writes Go's form of durations.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Size is a number of bytes, written as text such as "64MiB".
type Size int64

// units of a Size, the largest first.
var units = []struct {
	name  string
	bytes Size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// UnmarshalText reads a whole number of GiB, MiB, KiB, or of bytes.
func (s *Size) UnmarshalText(text []byte) error {
	for _, u := range units {
		number, ok := strings.CutSuffix(string(text), u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 0 || Size(n) > math.MaxInt64/u.bytes {
			break
		}
		*s = Size(n) * u.bytes
		return nil
	}
	return fmt.Errorf("%.20q is not a size such as \"64MiB\"", text)
}

// MarshalText writes the largest unit that leaves a whole number.
func (s Size) MarshalText() ([]byte, error) {
	for _, u := range units {
		if s%u.bytes == 0 && s != 0 {
			return []byte(strconv.FormatInt(int64(s/u.bytes), 10) + u.name), nil
		}
	}
	return []byte("0"), nil
}

// Socket returns the path of the socket: Listen, or berth.sock in State.
func (c Config) Socket() string {
	if c.Listen != "" {
		return c.Listen
	}
	return c.State + "/berth.sock"
}

// DebugSocket returns the path of the socket with profiles, metrics and health.
func (c Config) DebugSocket() string { return c.State + "/debug.sock" }

// StateOf returns the directory of the state of a handler's program.
func (c Config) StateOf(handler string) string {
	if root := c.Runtime.Handlers[handler].Root; root != "" {
		return root
	}
	return c.State + "/oci/" + handler
}

// Default returns the configuration that holds without a file.
func Default() Config {
	return Config{
		Root:  "/var/lib/berth",
		State: "/run/berth",
		Runtime: Runtime{
			CgroupDriver:   "auto",
			DefaultHandler: "berth",
			DefaultCapabilities: []string{
				"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
				"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
			},
			SeccompProfile: "unconfined", AppArmorProfile: "auto",
			OOMScoreAdjMin: -1000,
			DefaultSysctls: map[string]string{
				"net.ipv4.ip_unprivileged_port_start": "0",
				"net.ipv4.ping_group_range":           "0 2147483647",
			},
			// Not berth-runtime's own, which is boundless: some programs close or
			// look at every descriptor up to the limit.
			DefaultUlimits: map[string]Ulimit{"nofile": {Soft: 1024, Hard: 524288}},
			CDISpecDirs:    []string{"/etc/cdi", "/var/run/cdi"},
			Handlers:       map[string]Handler{"berth": {Annotations: []string{}}},
		},
		Network: Network{
			ConfDir:    "/etc/cni/net.d",
			BinDirs:    []string{"/opt/cni/bin"},
			NetNSDir:   "/run/netns",
			MaxConfNum: 1,
			Timeout:    Duration{time.Minute},
			Builtin:    Builtin{Bridge: "berth0"},
		},
		Stream: Stream{Address: "127.0.0.1", IdleTimeout: Duration{4 * time.Hour}},
		Image: Image{
			LayerBackend: "auto", MaxConcurrentDownloads: 4, MaxConnections: 24, MemoryBudget: 64 << 20,
			StallTimeout: Duration{time.Minute}, StallRate: 1024, PlainHTTP: []string{},
			CertsDirs:      []string{"/etc/containerd/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d"},
			RegistriesConf: []string{"/etc/containers/registries.conf", "/usr/share/containers/registries.conf"},
			AuthFiles:      []string{}, Pinned: []string{},
			SignaturePolicyDir: "/etc/crio/policies", RegistriesD: []string{"/etc/containers/registries.d"},
		},
		NRI: NRI{
			Enable: "auto", SocketPath: "/var/run/nri/nri.sock", PluginPath: "/opt/nri/plugins", PluginConfigPath: "/etc/nri/conf.d",
			PluginRegistrationTimeout: Duration{5 * time.Second}, PluginRequestTimeout: Duration{2 * time.Second},
			DefaultValidator: NRIValidator{RequiredPlugins: []string{}},
		},
	}
}
