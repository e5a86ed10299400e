package table_test

import (
	"errors"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/table"
)

func TestFindTakesWholeIDsAndUniquePrefixes(t *testing.T) {
	var tab table.Table[string]
	for _, id := range []string{"ab", "abc", "b1", "b2"} {
		tab.Put(id, &id)
	}
	for key, want := range map[string]string{"ab": "ab", "abc": "abc", "b2": "b2"} {
		if got, err := tab.Find("pod", key); err != nil || *got != want {
			t.Errorf("%q: got %v, %v", key, got, err)
		}
	}
	for key, want := range map[string]error{"b": errs.Invalid, "c": errs.NotFound, "": errs.NotFound} {
		if _, err := tab.Find("pod", key); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", key, err, want)
		}
	}
	tab.Delete("b2")
	if got, err := tab.Find("pod", "b"); err != nil || *got != "b1" {
		t.Errorf("after delete: %v, %v", got, err)
	}
	if len(tab.All()) != 3 || tab.Get("b2") != nil {
		t.Error("delete did not forget")
	}
}
