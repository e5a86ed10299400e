package subnet

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
)

func TestPodCIDRsAreRead(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.0.0/16": "10.1.0.0/16", "10.1.2.3/24": "10.1.2.0/24", "fd00:1::/64": "fd00:1::/64",
		"10.1.0.0/24,fd00:1::/64": "10.1.0.0/24,fd00:1::/64", "fd00:1::/64, 10.1.0.0/30": "10.1.0.0/30,fd00:1::/64",
	} {
		if got, err := Parse(text); err != nil || got.String() != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
}

func TestWhatIsNoPodCIDRIsRefused(t *testing.T) {
	for _, text := range []string{
		"", ",", "10.1.0.0", "10.1.0.0/33", "pods", "10.1.0.0/16,", "10.1.0.0/16,10.2.0.0/16", "fd00::/64,fd01::/64", "10.1.0.0/16,fd00::/64,fd01::/64",
		"10.1.0.4/31", "10.1.0.4/32", "fd00::/127", "0.0.0.0/0", "::/0", "127.0.0.0/8", "224.0.0.0/24", "169.254.0.0/16", "fe80::/64", "::ffff:10.0.0.0/104", "fd00::%eth0/64",
	} {
		if got, err := Parse(text); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("10.1.0.0/16,fd00::/64")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(p.String()); err != nil || again != p {
			t.Errorf("%q: %s, then %s, %v", text, p, again, err)
		}
	})
}

func TestFreeSubnetAvoidsRoutes(t *testing.T) {
	used := []netip.Prefix{netip.MustParsePrefix("10.88.3.0/24"), netip.MustParsePrefix("10.89.0.0/16")}
	if got, err := firstFree(used); err != nil || got.String() != "10.90.0.0/16" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := firstFree([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); !errors.Is(err, errs.Conflict) {
		t.Errorf("got %v", err)
	}
}
