package stdio

import (
	"testing"
	"time"
)

// On a busy machine the time may be up before a reader has run at all.
func TestWhatWasWrittenIsCapturedHoweverLittleTimeThereIs(t *testing.T) {
	for n := range 200 {
		c, err := NewCapture()
		if err != nil {
			t.Fatal(err)
		}
		stdout, stderr := c.Child()
		for text, f := range map[string]interface{ WriteString(string) (int, error) }{"out": stdout, "error": stderr} {
			if _, err := f.WriteString(text); err != nil {
				t.Fatal(err)
			}
		}
		c.Begin(4)
		out, errors := c.End(-time.Second)
		if string(out) != "out" || string(errors) != "erro" {
			t.Fatalf("%d: %q, %q", n, out, errors)
		}
		c.Close()
	}
}
