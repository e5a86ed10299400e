package config

import "net/netip"

// Prefix is a subnet that may be empty.
type Prefix struct{ netip.Prefix }

// UnmarshalText reads "10.0.0.0/16"; nothing means none.
func (p *Prefix) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		p.Prefix = netip.Prefix{}
		return nil
	}
	v, err := netip.ParsePrefix(string(text))
	p.Prefix = v
	return err
}

// MarshalText writes what UnmarshalText reads.
func (p Prefix) MarshalText() ([]byte, error) {
	if !p.IsValid() {
		return nil, nil
	}
	return []byte(p.String()), nil
}
