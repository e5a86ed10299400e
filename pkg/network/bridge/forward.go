package bridge

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
)

// Docker, ufw and others drop in iptables' FORWARD chain what they do not know,
// and no accept in a table of nftables overrules that. Each family gets two
// rules, with their owner's name as the comment: what comes from the bridge may
// go on, and what answers it or is meant for a published port may come in.

const chain = "FORWARD"

// allow adds the rules that are not there. A host without iptables needs none.
// It starts some processes: call it once for a bridge.
func allow(ctx context.Context, bridge, owner string, v6 bool) error {
	for _, command := range commands(v6) {
		for _, rule := range rules(bridge, owner) {
			if run(ctx, command, "-C", rule) == nil {
				continue
			}
			if err := run(ctx, command, "-I", rule); err != nil {
				return err
			}
		}
	}
	return nil
}

// disallow removes what allow added for that owner, of both families.
func disallow(ctx context.Context, bridge, owner string) error {
	for _, command := range commands(true) {
		for _, rule := range rules(bridge, owner) {
			if run(ctx, command, "-C", rule) != nil {
				continue // not there, or a host without that family
			}
			if err := run(ctx, command, "-D", rule); err != nil {
				return err
			}
		}
	}
	return nil
}

// commands are those of the families that the host has them for.
func commands(v6 bool) []string {
	names := []string{"iptables"}
	if v6 {
		names = append(names, "ip6tables")
	}
	var found []string
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			found = append(found, name)
		}
	}
	return found
}

func rules(bridge, owner string) [][]string {
	comment := []string{"-m", "comment", "--comment", owner, "-j", "ACCEPT"}
	return [][]string{
		append([]string{"-i", bridge}, comment...),
		append([]string{"-o", bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT"}, comment...),
	}
}

func run(ctx context.Context, command, action string, rule []string) error {
	cmd := exec.CommandContext(ctx, command, append([]string{"-w", "5", action, chain}, rule...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s %s: %w: %s", command, action, chain, err, bytes.TrimSpace(out))
	}
	return nil
}
