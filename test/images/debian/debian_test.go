package debian

import "testing"

func TestATarballIsNamedAfterItsRecipe(t *testing.T) {
	a, b := Sklearn(), Sklearn()
	if a.Path("c") != b.Path("c") {
		t.Error("the same recipe has two names")
	}
	b.Exclude = b.Exclude[1:]
	if a.Path("c") == b.Path("c") {
		t.Error("two recipes have the same name")
	}
}
