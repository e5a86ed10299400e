package matrix

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// spot is a field somewhere in a request: the fields to go through, its own last.
type spot []protoreflect.FieldDescriptor

func (s spot) field() protoreflect.FieldDescriptor { return s[len(s)-1] }

func (s spot) String() string {
	var names []string
	for _, f := range s {
		names = append(names, string(f.Name()))
	}
	return strings.Join(names, ".")
}

// spots are all fields of a message, and those of the messages in it, but of what
// nobody reads.
func spots(m protoreflect.MessageDescriptor, above spot) (all []spot) {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		here := append(slices.Clone(above), f)
		all = append(all, here)
		if f.Message() != nil && !f.IsMap() && !slices.Contains(unread, string(f.Name())) {
			all = append(all, spots(f.Message(), here)...)
		}
	}
	return all
}

// unread are messages whose fields the table says nobody looks at.
var unread = []string{"sandbox_config", "windows"}

// in returns the message in m that has the field, which it makes where it is not
// there; of a list the first.
func (s spot) in(m protoreflect.Message) protoreflect.Message {
	for _, f := range s[:len(s)-1] {
		if !f.IsList() {
			m = m.Mutable(f).Message()
			continue
		}
		l := m.Mutable(f).List()
		if l.Len() == 0 {
			l.Append(l.NewElement())
		}
		m = l.Get(0).Message()
	}
	return m
}

// value is one that a field is set to.
type value struct {
	what string
	set  func(protoreflect.Message)
}

// values are those that a field is tried out with; scratch is a directory for paths
// that the daemon may make or write to.
func (s spot) values(scratch string) []value {
	f := s.field()
	set := func(what any, v func(protoreflect.Message) protoreflect.Value) value {
		return value{fmt.Sprintf("%s = %.60q", s, fmt.Sprint(what)), func(m protoreflect.Message) { in := s.in(m); in.Set(f, v(in)) }}
	}
	all := []value{{fmt.Sprintf("%s missing", s), func(m protoreflect.Message) { s.in(m).Clear(f) }}}
	switch {
	case f.IsMap():
		for _, key := range texts(f, scratch) {
			all = append(all, set(map[string]string{key: key}, func(in protoreflect.Message) protoreflect.Value {
				v := in.NewField(f)
				v.Map().Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString(key))
				return v
			}))
		}
	case f.IsList():
		for _, times := range []int{1, 500} {
			for _, one := range scalars(f, scratch) {
				all = append(all, set(fmt.Sprint(times, " times ", one), func(in protoreflect.Message) protoreflect.Value {
					v := in.NewField(f)
					for range times {
						v.List().Append(protoreflect.ValueOf(one))
					}
					return v
				}))
			}
			if f.Message() != nil {
				all = append(all, set(fmt.Sprint(times, " empty ones"), func(in protoreflect.Message) protoreflect.Value {
					v := in.NewField(f)
					for range times {
						v.List().Append(v.List().NewElement())
					}
					return v
				}))
			}
		}
	case f.Message() != nil:
		all = append(all, set("empty", func(in protoreflect.Message) protoreflect.Value { return in.NewField(f) }))
	default:
		for _, one := range scalars(f, scratch) {
			all = append(all, set(one, func(protoreflect.Message) protoreflect.Value { return protoreflect.ValueOf(one) }))
		}
	}
	return all
}

// scalars are values of a field's kind; nothing for messages.
func scalars(f protoreflect.FieldDescriptor, scratch string) (all []any) {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return []any{true, false}
	case protoreflect.EnumKind:
		all = append(all, protoreflect.EnumNumber(-1), protoreflect.EnumNumber(9999), protoreflect.EnumNumber(math.MaxInt32))
		for i := range f.Enum().Values().Len() {
			all = append(all, f.Enum().Values().Get(i).Number())
		}
	case protoreflect.Int32Kind:
		return []any{int32(-1), int32(1), int32(0), int32(65536), int32(math.MinInt32), int32(math.MaxInt32)}
	case protoreflect.Int64Kind:
		return []any{int64(-1), int64(1), int64(0), int64(-2), int64(1 << 32), int64(math.MinInt64), int64(math.MaxInt64), int64(1001), int64(4096)}
	case protoreflect.Uint32Kind:
		return []any{uint32(0), uint32(1), uint32(math.MaxUint32), uint32(1 << 31)}
	case protoreflect.Uint64Kind:
		return []any{uint64(0), uint64(1), uint64(math.MaxUint64), uint64(1 << 63)}
	case protoreflect.StringKind:
		for _, s := range texts(f, scratch) {
			all = append(all, s)
		}
	case protoreflect.BytesKind:
		return []any{[]byte{}, []byte{0}, []byte{0xff, 0xfe}, []byte("a\nb"), make([]byte, 100000)}
	}
	return all
}

// texts are values of a text. What names a place on the host is not absolute, or lies
// in scratch.
func texts(f protoreflect.FieldDescriptor, scratch string) []string {
	all := []string{"a\nb", "", "a\x00b", "../../../../etc/passwd", strings.Repeat("x", 5000), "-1", " ", "a b", "%s%n", "é💥", "a=b", "a,b", ":", "18446744073709551616", "."}
	switch f.Name() {
	case "host_path", "log_directory", "location", "output_path", "checkpoint_path":
		return append(all, scratch, scratch+"/a\nb", scratch+"/"+strings.Repeat("x", 300), scratch+"/made/../../made")
	case "cgroup_parent":
		return append(all[:4:4], "/berth/matrix", "a:b")
	case "localhost_ref", "seccomp_profile_path":
		return append(all, "/dev/zero", "/proc/self/mem", "localhost//dev/zero", "localhost/../../etc/passwd")
	}
	return append(all, "/", "/proc/self/fd/3", "//", "/a\nb")
}

// change sets fields of a copy of a request.
func change(request proto.Message, all ...value) proto.Message {
	m := proto.Clone(request)
	for _, v := range all {
		v.set(m.ProtoReflect())
	}
	return m
}
