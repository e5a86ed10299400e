package tree

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
)

// maxXattrs bounds what the attributes of one file take, as the kernel bounds one.
const maxXattrs = 64 << 10

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	capability = "security.capability"
)

// setOwner sets owner and time.
func (i *Inode) setOwner(h *tar.Header) {
	i.UID, i.GID = uint32(h.Uid), uint32(h.Gid)
	if !h.ModTime.IsZero() {
		i.Sec, i.Nsec = h.ModTime.Unix(), uint32(h.ModTime.Nanosecond())
	}
}

// setAttributes sets what a file or directory has beside its content.
func (i *Inode) setAttributes(h *tar.Header) error {
	i.Mode = i.Mode&unix.S_IFMT | uint32(h.Mode&0o7777)
	i.setOwner(h)
	i.Xattrs = nil
	size := 0
	for k, v := range h.PAXRecords {
		key, ok := strings.CutPrefix(k, entry.XattrRecord)
		if !ok || !entry.AllowedXattr(key) {
			continue
		}
		if (key == aclAccess || key == aclDefault) && len(v) <= aclHeader {
			continue // no entries: no list
		}
		v, err := i.checkXattr(key, v)
		if err != nil {
			return fmt.Errorf("attribute %.100q: %w", key, err)
		}
		if size += len(key) + len(v) + 8; size > maxXattrs {
			return fmt.Errorf("attributes take more than %d bytes: %w", maxXattrs, errs.Invalid)
		}
		i.Xattrs = append(i.Xattrs, Xattr{key, v})
	}
	slices.SortFunc(i.Xattrs, func(a, b Xattr) int { return strings.Compare(a.Key, b.Key) })
	return nil
}

// checkXattr refuses what the kernel would refuse to set, and returns the value as
// it would be after the mode was set.
func (i *Inode) checkXattr(key, value string) (string, error) {
	bad := false
	switch key {
	case capability:
		bad = !validCapability(value)
	case aclAccess, aclDefault:
		bad = !validACL(value) || key == aclDefault && !i.Is(unix.S_IFDIR)
		if !bad && key == aclAccess {
			value = aclOfMode(value, i.Mode)
		}
	default:
		bad = len(key) > maxName || key == "user." || strings.ContainsRune(key, 0)
	}
	if bad {
		return "", fmt.Errorf("%w: %w", unix.EINVAL, errs.Invalid)
	}
	return value, nil
}

// validCapability tells of the kernel's vfs_cap_data, versions 2 and 3.
func validCapability(v string) bool {
	if len(v) != 20 && len(v) != 24 {
		return false
	}
	version := binary.LittleEndian.Uint32([]byte(v)) &^ 1 // the flag VFS_CAP_FLAGS_EFFECTIVE
	return len(v) == 20 && version == 0x02000000 || len(v) == 24 && version == 0x03000000
}

// The tags of ACL entries, in the order that they have.
const (
	aclUserObj = 1 << iota
	aclUser
	aclGroupObj
	aclGroup
	aclMask
	aclOther
)

const (
	aclHeader = 4
	aclEntry  = 8
)

// validACL is the kernel's posix_acl_valid.
func validACL(v string) bool {
	b := []byte(v)
	if len(b) < aclHeader || (len(b)-aclHeader)%aclEntry != 0 || binary.LittleEndian.Uint32(b) != 2 {
		return false
	}
	last, seen := uint16(0), uint16(0)
	for b = b[aclHeader:]; len(b) > 0; b = b[aclEntry:] {
		tag, perm := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:])
		named := tag == aclUser || tag == aclGroup
		if perm > 7 || tag < last || tag == last && !named {
			return false
		}
		switch tag {
		case aclUserObj, aclUser, aclGroupObj, aclGroup, aclMask, aclOther:
		default:
			return false
		}
		last, seen = tag, seen|tag
	}
	const needed = aclUserObj | aclGroupObj | aclOther
	return seen&needed == needed && (seen&(aclUser|aclGroup) == 0 || seen&aclMask != 0)
}

// aclOfMode gives a valid ACL the permissions that the mode says, as chmod does.
func aclOfMode(v string, mode uint32) string {
	b := []byte(v)
	class := uint16(aclGroupObj) // who has the mode's group bits
	for e := b[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
		if binary.LittleEndian.Uint16(e) == aclMask {
			class = aclMask
		}
	}
	for e := b[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
		switch binary.LittleEndian.Uint16(e) {
		case aclUserObj:
			binary.LittleEndian.PutUint16(e[2:], uint16(mode>>6&7))
		case class:
			binary.LittleEndian.PutUint16(e[2:], uint16(mode>>3&7))
		case aclOther:
			binary.LittleEndian.PutUint16(e[2:], uint16(mode&7))
		}
	}
	return string(b)
}
