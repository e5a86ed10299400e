// Package stdio moves the output of containers into their logs and to attached
// clients, and the output of execs into memory, or on in pieces where it is long.
//
// A container writes into FIFOs under the state directory. Its ends are opened
// for reading and writing, so that it never sees EPIPE, and what it wrote stays
// in the kernel until it is in the log: the pump looks at the data (tee),
// appends whole lines to the log and only then takes them out of the FIFO. An
// unfinished line waits in the FIFO. A pump that dies at any instruction
// therefore loses nothing, and the next one repeats nothing, because the step
// it was at is in a slot, a page of memory shared with a file:
//
//	idle ──▶ writing {stream, bytes, time, log offset} ──log written──▶
//	         taking ──bytes moved from the FIFO to the stage──▶ idle
//
// What lies in the stage tells how far the taking came, for as long as somebody
// has the stage open. Where pump and keeper die together within the instructions
// between the move and the note that it is done, the next pump takes the batch
// once more, which is then what followed it: those lines are lost. To close that
// gap the stage would need a third holder.
//
// A terminal's output goes from its master through one more FIFO, the rest is
// the same, except that an unfinished line that fills the FIFO, a keystroke to a
// slot, goes into the log in parts.
//
// Goroutines: one per Pump, for all containers together; it owns every stream's
// state. An idle container has none, and no buffer. Each attached client has
// two. Who needs the pump's goroutine waits for it with a bound (call.go), since a
// log on a disk that hangs holds it up. Lock order: Stdio.mu is a leaf.
package stdio
