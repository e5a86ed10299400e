package runtime

// The verbs as they cross the socket.
const (
	VerbVersion   = "Version"
	VerbCreatePod = "CreatePod"
	VerbDeletePod = "DeletePod"
	VerbCreate    = "Create"
	// VerbCreateBy is Create by a command: a berth-runtime that knows of none must
	// not take it for another.
	VerbCreateBy      = "CreateBy"
	VerbStart         = "Start"
	VerbKill          = "Kill"
	VerbDelete        = "Delete"
	VerbUpdate        = "Update"
	VerbExec          = "Exec"
	VerbExecIO        = "ExecStream"
	VerbPause         = "Pause"
	VerbResume        = "Resume"
	VerbCanCheckpoint = "CanCheckpoint"
	VerbCheckpoint    = "Checkpoint"
	VerbRestore       = "Restore"
	VerbAttach        = "Attach"
	VerbResize        = "Resize"
	VerbReopenLog     = "ReopenLog"
	VerbList          = "List"
	VerbEvents        = "Events"
)

// IDRequest is the message of verbs that take an id alone.
type IDRequest struct {
	ID string `json:"id"`
}

// ResizeRequest is the message of Resize.
type ResizeRequest struct {
	ID     string `json:"id"`
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
}

// AttachMessage is the message of Attach: which of the streams the passed
// files are, in this order.
type AttachMessage struct {
	AttachRequest
	Stdin  bool `json:"stdin,omitempty"`
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
}

// CaptureMessage is the message of Exec. With Pieces a client takes items before the
// answer: the tag of each is a stream, 1 or 2, the bytes are what follows of it, and
// the answer has the rest. Without, the answer has all.
type CaptureMessage struct {
	ExecRequest
	Pieces bool `json:"pieces,omitempty"`
}

// ExecMessage is the message of ExecStream: which streams the passed files are,
// in this order, or that the only one is the console socket. The server sends one
// empty item when the process runs.
type ExecMessage struct {
	ExecRequest
	Stdin   bool   `json:"stdin,omitempty"`
	Stdout  bool   `json:"stdout,omitempty"`
	Stderr  bool   `json:"stderr,omitempty"`
	Console bool   `json:"console,omitempty"`
	Width   uint16 `json:"width,omitempty"`
	Height  uint16 `json:"height,omitempty"`
}
