package native

import (
	"encoding/binary"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	portsTableName = "cni_hostport"
	portsChain     = "hostports"
	oldPortsChain  = "hostip_hostports" // the plugin still keeps it, empty
	allPortsChain  = "hostports_all"
	portsMasqChain = "masquerading"
)

func portsTable(v6 bool) *nftables.Table {
	if v6 {
		return &nftables.Table{Name: portsTableName, Family: nftables.TableFamilyIPv6}
	}
	return &nftables.Table{Name: portsTableName, Family: nftables.TableFamilyIPv4}
}

func (f *filter) addPorts(container string, conf *portmapConf, pod net.IP) error {
	return f.transact(func(conn *nftables.Conn) error {
		queuePorts(conn, container, conf, pod)
		return nil
	})
}

func queuePorts(conn *nftables.Conn, container string, conf *portmapConf, pod net.IP) {
	v6 := pod.To4() == nil
	t := portsTable(v6)
	ensurePortsTable(conn, t, conf.snat())
	for i := range conf.RuntimeConfig.Ports {
		p := &conf.RuntimeConfig.Ports[i]
		host, use := p.hostAddress(v6)
		if !use {
			continue
		}
		conn.AddRule(&nftables.Rule{
			Table: t, Chain: &nftables.Chain{Name: portsChain, Table: t}, UserData: asComment(container),
			Exprs: dnatRule(p, host, pod, byte(t.Family)),
		})
	}
	if conf.snat() {
		masquerade := func(match ...[]expr.Any) {
			conn.AddRule(&nftables.Rule{
				Table: t, Chain: &nftables.Chain{Name: portsMasqChain, Table: t}, UserData: asComment(container),
				Exprs: append(concat(match...), &expr.Masq{}),
			})
		}
		masquerade(matchSource(pod), matchDest(pod)) // the pod to itself
		if !v6 {
			masquerade(matchSource(net.IPv4(127, 0, 0, 1)), matchDest(pod))
		}
	}
}

func dnatRule(p *portEntry, host, pod net.IP, family byte) []expr.Any {
	rule := []expr.Any{}
	if host != nil {
		rule = matchDest(host)
	}
	raw, _, _ := short(pod)
	return append(rule,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocols[p.Protocol]}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(uint16(p.HostPort))},
		&expr.Immediate{Register: 1, Data: raw},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, uint16(p.ContainerPort))},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(family), RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	)
}

// ensurePortsTable adds what all pods share, unless it is there.
func ensurePortsTable(conn *nftables.Conn, t *nftables.Table, snat bool) {
	has := func(chain string, rules int) bool {
		got, err := conn.GetRules(t, &nftables.Chain{Name: chain, Table: t})
		return err == nil && len(got) == rules
	}
	if !has(allPortsChain, 2) || !has("prerouting", 1) || !has("output", 1) {
		addPortsTable(conn, t)
	}
	if snat { // which is nothing new where it is there
		conn.AddChain(natChain(t, portsMasqChain, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource))
	}
}

func addPortsTable(conn *nftables.Conn, t *nftables.Table) {
	conn.AddTable(t)
	conn.AddChain(&nftables.Chain{Name: portsChain, Table: t})
	conn.AddChain(&nftables.Chain{Name: oldPortsChain, Table: t})
	all := conn.AddChain(&nftables.Chain{Name: allPortsChain, Table: t})
	conn.FlushChain(all)
	for _, next := range []string{oldPortsChain, portsChain} {
		conn.AddRule(&nftables.Rule{Table: t, Chain: all, Exprs: verdict(expr.VerdictJump, next)})
	}
	for name, hook := range map[string]*nftables.ChainHook{
		"prerouting": nftables.ChainHookPrerouting, "output": nftables.ChainHookOutput,
	} {
		chain := conn.AddChain(natChain(t, name, hook, nftables.ChainPriorityNATDest))
		conn.FlushChain(chain)
		local := []expr.Any{
			&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		}
		conn.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: concat(local, verdict(expr.VerdictJump, allPortsChain))})
	}
}

func (f *filter) delPorts(container string) error {
	mine := func(comment string) bool { return comment == container }
	return f.remove(func(conn *nftables.Conn) error {
		for _, v6 := range bothFamilies {
			for _, chain := range []string{portsChain, oldPortsChain, portsMasqChain} {
				if err := deleteRules(conn, portsTable(v6), chain, mine); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// removeTables removes the shared tables that hold no pod's rule.
func (f *filter) removeTables() error {
	return f.remove(func(conn *nftables.Conn) error {
		tables, err := conn.ListTables()
		if err != nil {
			return err
		}
		pods := map[string][]string{masqTable.Name: {masqChain}, portsTableName: {portsChain, oldPortsChain, portsMasqChain}}
		for _, t := range tables {
			chains, ours := pods[t.Name]
			if !ours {
				continue
			}
			used := 0
			for _, chain := range chains {
				// A chain that is not there has no rules either.
				rules, _ := conn.GetRules(t, &nftables.Chain{Name: chain, Table: t})
				used += len(rules)
			}
			if used == 0 {
				conn.DelTable(t)
			}
		}
		return nil
	})
}
