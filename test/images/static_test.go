package images

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// program writes an executable called busybox whose only segment has the given
// type, and makes it the first in PATH.
func program(t *testing.T, segment elf.ProgType) {
	t.Helper()
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		t.Fatal(err)
	}
	if err := binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(segment)}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "busybox"), b.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
}

func TestADynamicBusyboxIsRefusedByName(t *testing.T) {
	program(t, elf.PT_INTERP)
	if _, err := Busybox(); err == nil || !strings.Contains(err.Error(), "busybox-static") {
		t.Errorf("got %v", err)
	}
	program(t, elf.PT_LOAD) // passes this gate, and is no program all the same
	if _, err := Busybox(); err == nil || strings.Contains(err.Error(), "busybox-static") {
		t.Errorf("a static one: %v", err)
	}
}
