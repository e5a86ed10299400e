package stage_test

import (
	"context"
	"errors"
	"testing"

	"github.com/berth-run/berth/pkg/internal/stage"
)

func TestWithoutAWatcherAStageIsItsFunction(t *testing.T) {
	want := errors.New("so")
	if err := stage.Run(t.Context(), "a", func(context.Context) error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
	if stage.Deep(t.Context()) {
		t.Error("somebody wants more")
	}
	stage.Past(t.Context(), []stage.Passed{{Name: "a"}})
}

func TestALogKeepsWhatIsOver(t *testing.T) {
	var log stage.Log
	ctx := stage.With(t.Context(), &log)
	err := stage.Run(ctx, "outer", func(ctx context.Context) error {
		return stage.Run(ctx, "inner", func(context.Context) error { return errors.New("so") })
	})
	if err == nil || !stage.Deep(ctx) {
		t.Errorf("error %v, deep %v", err, stage.Deep(ctx))
	}
	got := log.Passed()
	if len(got) != 2 || got[0].Name != "inner" || got[1].Name != "outer" || got[0].Error != "so" || got[1].Took < got[0].Took || got[1].Begun.After(got[0].Begun) {
		t.Errorf("got %+v", got)
	}
	for range 1000 {
		stage.Past(ctx, got)
	}
	if n := len(log.Passed()); n != 256 {
		t.Errorf("keeps %d", n)
	}
}
