package libct

// seccompProgram is a filter as the kernel takes it.
type seccompProgram struct {
	flags uint32
	code  []byte // struct sock_filter, one after the other; empty: no filter
}

// seccompFilter returns the program of the container's seccomp profile, which
// is made at the first exec and kept.
func (c *container) seccompFilter() (*seccompProgram, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seccomp != nil {
		return c.seccomp, nil
	}
	program := &seccompProgram{}
	if c.config.Seccomp != nil {
		var err error
		if program, err = compileSeccomp(c.config.Seccomp); err != nil {
			return nil, err
		}
	}
	c.seccomp = program
	return program, nil
}
