package native

import (
	"fmt"
	"net"
	"strings"

	"github.com/containernetworking/plugins/pkg/utils"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// The tables and chains are the plugins', see ipmasq_nftables_linux.go and
// portmap_nftables.go of their module.
var masqTable = &nftables.Table{Name: "cni_plugins_masquerade", Family: nftables.TableFamilyINet}

const masqChain = "masq_checks"

// commentLimit is what nft allows.
const commentLimit = 128

// masqComment begins with what rules are found by, the rest is for people.
func masqComment(network, ifName, container string) (prefix, comment string) {
	prefix = utils.MustFormatHashWithPrefix(16, "", network) + "-" +
		utils.MustFormatHashWithPrefix(16, "", ifName+":"+container)
	clean := strings.NewReplacer(`"`, ``)
	comment = fmt.Sprintf("%s, net: %s, if: %s, id: %s", prefix,
		clean.Replace(network), clean.Replace(ifName), clean.Replace(container))
	return prefix, comment[:min(len(comment), commentLimit)]
}

func (f *filter) addMasquerade(network, ifName, container string, nets []*net.IPNet) error {
	prefix, comment := masqComment(network, ifName, container)
	return f.transact(func(conn *nftables.Conn) error {
		pods := &nftables.Chain{Name: masqChain, Table: masqTable}
		ensureMasqTable(conn, pods)
		if err := deleteRules(conn, masqTable, masqChain, beginsWith(prefix)); err != nil {
			return err
		}
		for _, n := range nets {
			conn.AddRule(&nftables.Rule{
				Table: masqTable, Chain: pods, UserData: asComment(comment),
				Exprs: concat(matchFamily(n.IP), matchSource(n.IP), matchOutside(n), []expr.Any{&expr.Masq{}}),
			})
		}
		return nil
	})
}

func beginsWith(prefix string) func(string) bool {
	return func(comment string) bool { return strings.HasPrefix(comment, prefix) }
}

// ensureMasqTable adds what all pods share, unless it is there.
func ensureMasqTable(conn *nftables.Conn, pods *nftables.Chain) {
	post := natChain(masqTable, "postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	if rules, err := conn.GetRules(masqTable, post); err == nil && len(rules) == 3 {
		return
	}
	conn.AddTable(masqTable)
	conn.AddChain(pods)
	conn.AddChain(post)
	conn.FlushChain(post)
	for _, multicast := range []net.IPNet{
		{IP: net.IPv4(224, 0, 0, 0).To4(), Mask: net.CIDRMask(4, 32)},
		{IP: net.ParseIP("ff00::"), Mask: net.CIDRMask(8, 128)},
	} {
		conn.AddRule(&nftables.Rule{
			Table: masqTable, Chain: post,
			Exprs: concat(matchFamily(multicast.IP), matchNet(&multicast, expr.CmpOpEq), verdict(expr.VerdictReturn, "")),
		})
	}
	conn.AddRule(&nftables.Rule{Table: masqTable, Chain: post, Exprs: verdict(expr.VerdictGoto, masqChain)})
}

func (f *filter) delMasquerade(network, ifName, container string) error {
	prefix, _ := masqComment(network, ifName, container)
	return f.remove(func(conn *nftables.Conn) error {
		return deleteRules(conn, masqTable, masqChain, beginsWith(prefix))
	})
}

// deleteRules queues the removal of a chain's rules by their comments. The
// kernel lists none of a chain that is not there.
func deleteRules(conn *nftables.Conn, table *nftables.Table, chain string, match func(comment string) bool) error {
	rules, err := conn.GetRules(table, &nftables.Chain{Name: chain, Table: table})
	if err != nil {
		return fmt.Errorf("list rules of %s %s: %w", table.Name, chain, err)
	}
	for _, r := range rules {
		if comment, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok && match(comment) {
			r.Table, r.Chain = table, &nftables.Chain{Name: chain, Table: table}
			if err := conn.DelRule(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func natChain(t *nftables.Table, name string, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
	return &nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: prio}
}

func asComment(s string) []byte { return userdata.AppendString(nil, userdata.TypeComment, s) }

func concat(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

// matchFamily is what "ip" or "ip6" implies in a table of both families.
func matchFamily(addr net.IP) []expr.Any {
	family := byte(unix.NFPROTO_IPV6)
	if addr.To4() != nil {
		family = unix.NFPROTO_IPV4
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
	}
}

// short returns the address in as many bytes as its packets have, and where in
// the header its source and destination are.
func short(addr net.IP) (raw net.IP, source, dest uint32) {
	if v4 := addr.To4(); v4 != nil {
		return v4, 12, 16
	}
	return addr.To16(), 8, 24
}

func load(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func matchSource(addr net.IP) []expr.Any {
	raw, source, _ := short(addr)
	return []expr.Any{load(source, uint32(len(raw))), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: raw}}
}

func matchDest(addr net.IP) []expr.Any {
	raw, _, dest := short(addr)
	return []expr.Any{load(dest, uint32(len(raw))), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: raw}}
}

func matchOutside(n *net.IPNet) []expr.Any { return matchNet(n, expr.CmpOpNeq) }

// matchNet compares the destination's prefix.
func matchNet(n *net.IPNet, op expr.CmpOp) []expr.Any {
	raw, _, dest := short(n.IP.Mask(n.Mask))
	size := uint32(len(raw))
	return []expr.Any{
		load(dest, size),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: n.Mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: op, Register: 1, Data: raw},
	}
}
