// Package v1 is Berth's own small gRPC API, beside CRI: admin.proto and the
// code that is generated from it (make gen). Package admin serves it, package
// client calls it.
package v1

//go:generate sh -c "protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --plugin=protoc-gen-go-grpc=$(go tool -n protoc-gen-go-grpc) --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative admin.proto"
