package runtime

import (
	"fmt"

	"github.com/berth-run/berth/pkg/errs"
)

// pieces gathers an exec's output that comes in parts, by stream.
type pieces [3][]byte

// take is called with items of Exec: see CaptureMessage.
func (p *pieces) take(item []byte) error {
	if len(item) == 0 || item[0] < 1 || item[0] > 2 {
		return fmt.Errorf("piece of no stream: %w", errs.Invalid)
	}
	p.add(item[0], item[1:])
	return nil
}

func (p *pieces) add(stream byte, data []byte) {
	have := p[stream]
	if need := len(have) + len(data); need > cap(have) {
		// Four times as much each time: what is copied and thrown away stays little,
		// and from 64 KiB it comes to 16 MiB, where output is cut.
		have = append(make([]byte, 0, max(4*cap(have), need)), have...)
	}
	p[stream] = append(have, data...)
}

// with returns what has come of a stream and then the rest.
func (p *pieces) with(stream byte, rest []byte) []byte {
	if len(p[stream]) == 0 {
		return rest
	}
	p.add(stream, rest)
	return p[stream]
}
