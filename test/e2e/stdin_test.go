package e2e

import (
	"strings"
	"testing"
)

// attach connects a client that sends stdin and stays until the container ends.
func (c *ctr) attach(stdin string) {
	c.t.Helper()
	client := berth.Command(c.t.Context(), "attach", c.id)
	client.Stdin = strings.NewReader(stdin)
	if err := client.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = client.Wait() }) // one that is left is killed with the context
}

func TestStdinEndsWithItsFirstClientOnlyIfAsked(t *testing.T) {
	p := runPod(t)
	for once, want := range map[bool]string{true: "got one\ngot ", false: "got one\ngot two"} {
		config := sh("read a; echo got $a; read b; echo \"got $b\"")
		config.Stdin, config.StdinOnce = true, once
		c := p.start(config)
		c.attach("one\n")
		eventually(t, func() error { return wantText(c.written(), "got one") })
		if !once {
			c.attach("two\n")
		}
		if out := c.output(); out != want {
			t.Errorf("once %t: %q, want %q", once, out, want)
		}
	}
	if out := p.start(sh("cat; echo over")).output(); out != "over" {
		t.Errorf("without stdin: %q", out)
	}
}
