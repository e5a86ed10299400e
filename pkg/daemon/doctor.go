package daemon

import (
	"context"
	"errors"
	"strings"

	"github.com/berth-run/berth/pkg/admin"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
)

// advice is what `berth doctor` shows: what keeps pods from running here, then what
// is missing.
func (s *services) advice(ctx context.Context) []admin.Advice {
	var needed, missing []admin.Advice
	add := func(a admin.Advice) {
		if a.Needed {
			needed = append(needed, a)
		} else {
			missing = append(missing, a)
		}
	}
	v, err := s.runtime.Version(ctx)
	if err != nil {
		add(admin.Advice{Needed: true, What: "berth-runtime does not answer: " + err.Error(), Do: "systemctl start berth-runtime, and look into its journal"})
	}
	if err := s.network.Status(ctx); err != nil {
		do := "look into what the network plugin says"
		if errors.Is(err, errs.Unavailable) {
			do = "install a network add-on, or put a CNI configuration into " + s.o.Config.Network.ConfDir
		}
		add(admin.Advice{Needed: true, What: "no network for pods: " + err.Error(), Do: do})
	}
	for _, a := range append(s.facts.Advise(), host.Sysctls(host.ReadText)...) {
		add(admin.Advice(a))
	}
	for _, err := range s.commands.missing(ctx) {
		add(admin.Advice{What: err.Error(), Do: "install it, or take the handler out of the configuration"})
	}
	if s.facts.AppArmor && s.o.Config.Runtime.AppArmorProfile == "auto" && !host.AppArmorLoaded(defaultProfile) {
		add(admin.Advice{What: "AppArmor is on and confines no container: profile " + defaultProfile + " is not loaded", Do: "apparmor_parser -r contrib/apparmor/" + defaultProfile + ", or contrib/install.sh install, and restart berthd"})
	}
	if len(v.Limits) > 0 { // of one cause
		add(admin.Advice{What: "berth-runtime: " + strings.Join(v.Limits, "; "), Do: "run berth-runtime with all capabilities, as the unit in contrib/systemd does"})
	}
	if socket := s.o.Config.NRI.SocketPath; s.plugins != nil && socket != "" && !s.plugins.Listens() {
		add(admin.Advice{What: "NRI plugins cannot connect: another runtime has " + socket, Do: "stop that one and restart berthd, or give berthd a nri.socket_path of its own"})
	}
	return append(needed, missing...)
}
