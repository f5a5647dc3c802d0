package xcf

// protoc (Debian: protobuf-compiler) runs go.mod's protoc-gen-go. Its own version is cut out of the result, so that
// any protoc makes the same file.
//
//go:generate sh -c "protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=. --go_opt=paths=source_relative xcf.proto && sed -i '/^.. *\tprotoc  *v/d' xcf.pb.go"
