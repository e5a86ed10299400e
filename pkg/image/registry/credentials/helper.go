package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/berth-run/berth/pkg/errs"
)

const (
	// tokenUser says that the secret is an identity token.
	tokenUser = "<token>"

	helperTime   = 30 * time.Second // some ask a cloud
	helperOutput = 64 << 10
)

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ask runs docker-credential-NAME get. It has nothing to say for a registry that
// it does not know.
func ask(ctx context.Context, name, host string) (Credential, error) {
	if !helperName.MatchString(name) {
		return Credential{}, fmt.Errorf("credential helper %.100q: %w", name, errs.Invalid)
	}
	program := "docker-credential-" + name
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	address := host
	if host == "docker.io" {
		address = "https://index.docker.io/v1/" // what docker login calls it
	}
	c := exec.CommandContext(ctx, program, "get")
	c.Stdin = strings.NewReader(address)
	out := &bounded{left: helperOutput}
	c.Stdout = out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) } // with what it has started
	c.WaitDelay = time.Second
	err := c.Run()
	switch {
	case err == nil:
		return parse(program, out.kept.Bytes())
	case errors.Is(ctx.Err(), context.Canceled):
		return Credential{}, ctx.Err()
	case ctx.Err() != nil:
		return Credential{}, fmt.Errorf("%s: no answer in time: %w", program, errs.Timeout)
	case strings.Contains(out.kept.String(), "credentials not found in native keychain"):
		return Credential{}, nil
	case errors.Is(err, exec.ErrNotFound):
		return Credential{}, fmt.Errorf("%s: it is not installed, or not in PATH: %w", program, errs.Unavailable)
	}
	return Credential{}, fmt.Errorf("%s: %w: %w", program, err, errs.Unavailable)
}

func parse(program string, data []byte) (Credential, error) {
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(data, &answer); err != nil {
		return Credential{}, fmt.Errorf("%s: its answer is not in the form of the protocol: %w", program, errs.Invalid)
	}
	if answer.Username == tokenUser {
		return Credential{IdentityToken: answer.Secret}, nil
	}
	return Credential{Username: answer.Username, Password: answer.Secret}, nil
}

// bounded keeps the beginning of what is written, and fails where more comes.
type bounded struct {
	kept bytes.Buffer
	left int
}

var errTooLong = errors.New("its answer is too long")

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, errTooLong
	}
	b.left -= len(p)
	return b.kept.Write(p)
}
