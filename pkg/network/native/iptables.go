package native

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"

	"github.com/containernetworking/plugins/pkg/utils"
)

// The iptables commands start one process for each rule; here one
// iptables-restore makes all rules of a pod at once, and wholly or not at all.

func restoreCommand(v6 bool) string {
	if v6 {
		return "ip6tables-restore"
	}
	return "iptables-restore"
}

func iptablesRestore(ctx context.Context, v6 bool, lines []string) error {
	script := "*nat\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
	cmd := exec.CommandContext(ctx, restoreCommand(v6), "--noflush", "-w", "5")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd.Args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// iptablesSave lists the nat table, one rule a line.
func iptablesSave(ctx context.Context, v6 bool) ([]string, error) {
	name := strings.Replace(restoreCommand(v6), "restore", "save", 1)
	out, err := exec.CommandContext(ctx, name, "-t", "nat").Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return strings.Split(string(out), "\n"), nil
}

func iptablesMasquerade(ctx context.Context, network, container string, nets []*net.IPNet) error {
	chain := utils.FormatChainName(network, container)
	comment := "-m comment --comment " + quoted(utils.FormatComment(network, container))
	for _, n := range nets {
		v6, multicast := n.IP.To4() == nil, "224.0.0.0/4"
		if v6 {
			multicast = "ff00::/8"
		}
		err := iptablesRestore(ctx, v6, []string{
			fmt.Sprintf(":%s - [0:0]", chain),
			fmt.Sprintf("-A %s -d %s -j ACCEPT %s", chain, n, comment),
			fmt.Sprintf("-A %s ! -d %s -j MASQUERADE %s", chain, multicast, comment),
			fmt.Sprintf("-A POSTROUTING -s %s -j %s %s", n.IP, chain, comment),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// bothFamilies says of each family whether it is IPv6.
var bothFamilies = []bool{false, true}

func families(nets []*net.IPNet) []bool {
	var found []bool
	for _, v6 := range bothFamilies {
		if len(nets) == 0 || slices.ContainsFunc(nets, func(n *net.IPNet) bool { return (n.IP.To4() == nil) == v6 }) {
			found = append(found, v6)
		}
	}
	return found
}

// removeChain removes a chain of the nat table and every rule of the callers
// that jumps to it. Neither need be there.
func (f *filter) removeChain(ctx context.Context, chain string, callers []string, families []bool) error {
	if iptablesIsNFT() {
		return f.removeChainNFT(chain, callers, families)
	}
	for _, v6 := range families {
		lines, err := iptablesSave(ctx, v6)
		if err != nil && v6 {
			continue // a host without IPv6
		}
		if err != nil {
			return err
		}
		script := removal(lines, chain)
		if len(script) == 0 {
			continue
		}
		if err := iptablesRestore(ctx, v6, script); err != nil {
			return err
		}
	}
	return nil
}

// removal turns the listing of a table into the lines that take a chain out.
func removal(listing []string, chain string) []string {
	var script []string
	found := false
	for _, line := range listing {
		if strings.HasPrefix(line, ":"+chain+" ") {
			found = true
		}
		rest, isRule := strings.CutPrefix(line, "-A ")
		if isRule && !strings.HasPrefix(rest, chain+" ") && strings.HasSuffix(line, " -j "+chain) {
			script = append(script, "-D "+rest)
		}
	}
	if found {
		script = append(script, "-F "+chain, "-X "+chain)
	}
	return script
}

// quoted writes a value as iptables-restore reads it.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
