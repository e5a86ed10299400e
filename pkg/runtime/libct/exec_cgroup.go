package libct

// execGroup is the sub-cgroup of one exec.
type execGroup struct {
	path    string
	unified bool // v2, whose cgroups a process can be born in
}

func (c *container) makeExecGroup(execID string) (execGroup, error) {
	path, err := c.execs.Make(execID)
	return execGroup{path: path, unified: c.paths[""] != ""}, err
}

func (c *container) releaseExecGroup(g execGroup) error { return c.execs.Release(g.path) }
