package v1

// Labels and annotations that Berth's own clients put on pods and containers.
const (
	// LabelOwner tells who made a pod that has no kubelet: OwnerRun or
	// OwnerManifest.
	LabelOwner = "berth.run/owner"
	// OwnerRun marks a pod of `berth run`: it ends with its container.
	OwnerRun = "run"
	// OwnerManifest marks a pod of `berth apply`: its controller owns it.
	OwnerManifest = "manifest"
	// LabelRemove, where "true", lets the daemon remove an OwnerRun pod once
	// its container has ended.
	LabelRemove = "berth.run/remove-on-exit"
	// AnnotationCommand is the command as a person gave it, for lists.
	AnnotationCommand = "berth.run/command"
	// AnnotationPorts are the published ports, for lists.
	AnnotationPorts = "berth.run/ports"
	// AnnotationTTY, where "true", marks a container that has a terminal.
	AnnotationTTY = "berth.run/tty"
)

// The labels that kubelet gives to pods and containers, and so does Berth.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"
)
