package native

import (
	"os/exec"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Where iptables is the nftables flavour, its nat table is an nftables table.
// Rules with iptables's matches are best made by iptables, but finding and
// removing them needs only their jumps, and no process: one that has deleted
// rules waits for RCU when it ends.

// iptablesIsNFT says whether the iptables commands work on nftables.
var iptablesIsNFT = sync.OnceValue(func() bool {
	out, err := exec.Command("iptables", "--version").Output()
	return err == nil && strings.Contains(string(out), "nf_tables")
})

func natTable(v6 bool) *nftables.Table {
	if v6 {
		return &nftables.Table{Name: "nat", Family: nftables.TableFamilyIPv6}
	}
	return &nftables.Table{Name: "nat", Family: nftables.TableFamilyIPv4}
}

// removeChainNFT removes a chain and every rule of the callers that jumps to
// it.
func (f *filter) removeChainNFT(chain string, callers []string, families []bool) error {
	return f.transact(func(conn *nftables.Conn) error {
		for _, v6 := range families {
			t := natTable(v6)
			gone, err := conn.ListChain(t, chain)
			if err != nil || gone == nil {
				continue // not there, in a table that may not be there either
			}
			gone.Table = t
			for _, caller := range callers {
				rules, err := conn.GetRules(t, &nftables.Chain{Name: caller, Table: t})
				if err != nil {
					continue // likewise
				}
				for _, r := range rules {
					if jumpsTo(r, chain) {
						r.Table, r.Chain = t, &nftables.Chain{Name: caller, Table: t}
						if err := conn.DelRule(r); err != nil {
							return err
						}
					}
				}
			}
			conn.FlushChain(gone)
			conn.DelChain(gone)
		}
		return nil
	})
}

// hasShared says whether the rules that all pods share are there.
func (f *filter) hasShared(v6, snat bool) bool {
	jumps := map[string]string{"PREROUTING": hostportDNAT, "OUTPUT": hostportDNAT}
	if snat {
		jumps["POSTROUTING"] = hostportMasq
	}
	var found int
	err := f.transact(func(conn *nftables.Conn) error {
		found = 0
		t := natTable(v6)
		for from, to := range jumps {
			rules, err := conn.GetRules(t, &nftables.Chain{Name: from, Table: t})
			if err != nil {
				return err
			}
			for _, r := range rules {
				if jumpsTo(r, to) {
					found++
					break
				}
			}
		}
		for _, chain := range []string{hostportSetMark, hostportMasq} {
			rules, err := conn.GetRules(t, &nftables.Chain{Name: chain, Table: t})
			if err == nil && len(rules) > 0 {
				found++
			}
		}
		return nil
	})
	const marking = 2 // chains that only snat has
	want := len(jumps)
	if snat {
		want += marking
	}
	return err == nil && found >= want
}

func jumpsTo(r *nftables.Rule, chain string) bool {
	for _, e := range r.Exprs {
		if v, ok := e.(*expr.Verdict); ok && v.Chain == chain {
			return true
		}
	}
	return false
}
