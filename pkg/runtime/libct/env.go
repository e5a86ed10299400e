package libct

import (
	"os"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/runtime/libct/program"
)

// envHelper has to be the second argument; env.c has the same.
const envHelper = "berth:env"

// carryEnv lets a first process have an environment that is no text.
// libcontainer tells init all of it as JSON, which cannot carry that. So init
// executes this program, as a helper, which finds arguments and environment in
// a memory file and executes the container's program in turn. The caller closes
// the file, which is nil where nothing had to be done.
func (e *Engine) carryEnv(p *libcontainer.Process, s *specs.Spec) (*os.File, error) {
	if !slices.ContainsFunc(p.Env, func(kv string) bool { return !utf8.ValidString(kv) }) {
		return nil, nil
	}
	if s.Root != nil {
		if err := program.Check(s.Root.Path, s.Mounts, s.Process); err != nil { // nobody else can tell in time
			return nil, err
		}
	}
	env, err := execEnv(p.Env)
	if err != nil {
		return nil, err
	}
	var r request
	r.strings(p.Args)
	r.strings(env)
	f, err := r.file()
	if err != nil {
		return nil, err
	}
	exe := firstExtraFile + len(p.ExtraFiles)
	p.ExtraFiles = append(p.ExtraFiles, e.exe, f)
	p.Args = []string{"/proc/self/fd/" + strconv.Itoa(exe), envHelper, strconv.Itoa(exe + 1)}
	return f, nil
}
