package subnet

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
)

func TestFreeSubnetAvoidsRoutes(t *testing.T) {
	used := []netip.Prefix{netip.MustParsePrefix("10.88.3.0/24"), netip.MustParsePrefix("10.89.0.0/16")}
	if got, err := firstFree(used); err != nil || got.String() != "10.90.0.0/16" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := firstFree([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); !errors.Is(err, errs.Conflict) {
		t.Errorf("got %v", err)
	}
}
