package event_test

import (
	"testing"

	"github.com/berth-run/berth/pkg/event"
)

func TestEverySubscriberGetsEveryEventInOrder(t *testing.T) {
	var topic event.Topic[int]
	a, cancelA := topic.Subscribe(3)
	b, cancelB := topic.Subscribe(3)
	defer cancelB()
	topic.Publish(1)
	topic.Publish(2)
	cancelA()
	cancelA()
	topic.Publish(3)
	for _, want := range []int{1, 2} {
		if got := <-a; got != want {
			t.Errorf("a: got %d, want %d", got, want)
		}
	}
	if _, open := <-a; open {
		t.Error("a is open after cancel")
	}
	for _, want := range []int{1, 2, 3} {
		if got := <-b; got != want {
			t.Errorf("b: got %d, want %d", got, want)
		}
	}
}

func TestSlowSubscriberIsCutOffAndCounted(t *testing.T) {
	var topic event.Topic[int]
	slow, cancel := topic.Subscribe(1)
	defer cancel()
	topic.Publish(1)
	topic.Publish(2)
	if got := <-slow; got != 1 {
		t.Errorf("got %d", got)
	}
	if _, open := <-slow; open {
		t.Error("still open")
	}
	if topic.Dropped() != 1 {
		t.Errorf("dropped %d", topic.Dropped())
	}
}
