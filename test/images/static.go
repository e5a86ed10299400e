package images

import (
	"debug/elf"
	"fmt"
)

// Static fails unless the program at path runs in a root file system that holds
// nothing else. Debian's busybox, unlike its busybox-static, does not.
func Static(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read the program %s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked dynamically, and images need a static one: install Debian's busybox-static", path)
		}
	}
	return nil
}
