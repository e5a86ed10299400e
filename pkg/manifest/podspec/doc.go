// Package podspec reads Kubernetes Pod manifests and turns them into CRI
// configurations, as kubelet does. It is pure but for the node's resolv.conf,
// which a pod's dnsConfig adds to.
//
// Every field has a verdict (fields.go): honoured, ignored with a warning, or
// refused by name. A field without one is refused, so that a manifest never
// runs as less than it says.
package podspec
