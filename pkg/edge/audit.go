package edge

import (
	"context"
	"net"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
)

// peerCredentials notes who connects to a unix socket. It neither encrypts nor
// refuses: the socket's mode says who may connect.
type peerCredentials struct{}

var _ credentials.TransportCredentials = peerCredentials{}

// caller is the process that connected; it may have passed the socket on.
type caller struct {
	credentials.CommonAuthInfo
	pid int32
	uid uint32
}

// AuthType implements credentials.AuthInfo.
func (caller) AuthType() string { return "peercred" }

// ServerHandshake implements credentials.TransportCredentials.
func (peerCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	who := caller{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}
	if u, ok := c.(*net.UnixConn); ok {
		if raw, err := u.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { // a closed connection fails at its first use
				if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
					who.pid, who.uid = cred.Pid, cred.Uid
				}
			})
		}
	}
	return c, who, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errs.Unsupported
}

// Info implements credentials.TransportCredentials.
func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

// Clone implements credentials.TransportCredentials.
func (peerCredentials) Clone() credentials.TransportCredentials { return peerCredentials{} }

// OverrideServerName implements credentials.TransportCredentials.
func (peerCredentials) OverrideServerName(string) error { return nil }

// auditLevel is the verbosity of the log at which changes are named.
const auditLevel = 1

// audit logs a request that changes something: who makes it and what about. It
// says ids and names, never what else is in a request, which may be secret.
func audit(ctx context.Context, method string, req any) {
	log := klog.FromContext(ctx).V(auditLevel)
	if !log.Enabled() || readsOnly(method) {
		return
	}
	var pairs []any
	if p, ok := peer.FromContext(ctx); ok {
		if who, ok := p.AuthInfo.(caller); ok && who.pid != 0 {
			pairs = append(pairs, "pid", who.pid, "uid", who.uid, "program", program(who.pid))
		}
	}
	if m, ok := req.(proto.Message); ok {
		pairs = append(pairs, subjects(m.ProtoReflect(), 3)...)
	}
	log.Info("Request", pairs...)
}

// readsOnly goes by the names of methods: those of CRI and of Berth's own API
// begin with what they do.
func readsOnly(method string) bool {
	name := path.Base(method)
	if strings.HasPrefix(method, healthService) || name == "Version" || strings.HasSuffix(name, "Status") || strings.HasSuffix(name, "Stats") || strings.HasSuffix(name, "Info") {
		return true
	}
	for _, prefix := range []string{"List", "Stream", "Get", "Inspect", "History", "DiskUsage"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "RuntimeConfig"
}

// program is the name of a process, as it says itself.
func program(pid int32) string {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// subjects are the fields that say what a request is about: ids, images and the
// names in metadata, down to a depth.
func subjects(m protoreflect.Message, depth int) []any {
	var pairs []any
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(f.Name())
		switch {
		case f.Kind() == protoreflect.MessageKind && !f.IsList() && !f.IsMap() && depth > 0 && (name == "config" || name == "metadata" || name == "image"):
			pairs = append(pairs, subjects(v.Message(), depth-1)...)
		case f.Kind() == protoreflect.StringKind && !f.IsList() && (strings.HasSuffix(name, "_id") || name == "id" || name == "image" || name == "name" || name == "namespace" || name == "reference"):
			pairs = append(pairs, name, v.String())
		}
		return true
	})
	return pairs
}
