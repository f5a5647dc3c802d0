package config

import (
	"encoding"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// value stores node in dst, under key. The tag holds the rules for the value.
func (r *report) value(key string, node ast.Node, dst reflect.Value, tag reflect.StructTag) {
	r.places[key] = placeOf(node)
	if what := unsupported(node); what != "" {
		r.failf(key, "%s", what)
		return
	}
	if isScalar(dst) {
		r.scalar(key, node, dst, tag)
		return
	}
	switch dst.Kind() {
	case reflect.Struct:
		r.structure(key, node, dst)
	case reflect.Map:
		r.mapping(key, node, dst)
	case reflect.Slice:
		r.list(key, node, dst, tag)
	default:
		panic(fmt.Sprintf("config: no rule for %s of %s", dst.Type(), key))
	}
}

// unsupported names a feature of YAML that configurations do without.
func unsupported(node ast.Node) string {
	switch node.(type) {
	case *ast.AnchorNode:
		return "anchors are not supported: write out what they stand for"
	case *ast.AliasNode:
		return "aliases are not supported: write out what they stand for"
	case *ast.TagNode:
		return "tags are not supported: leave them out"
	case *ast.DirectiveNode:
		return "directives are not supported: leave them out"
	}
	return ""
}

// structure stores a mapping in a struct: keys that it does not have are refused, fields that are not there get their
// defaults, or are reported if they have none. An empty section is one that is left out.
func (r *report) structure(key string, node ast.Node, dst reflect.Value) {
	entries, ok := r.entries(key, node)
	if !ok {
		return
	}
	fields := fieldsOf(dst.Type())
	names := make([]string, len(fields))
	given := map[string]bool{}
	for i, f := range fields {
		names[i] = f.Tag.Get("yaml")
	}
	for _, e := range entries {
		given[e.name] = true
		if i := slices.Index(names, e.name); i >= 0 {
			r.value(join(key, e.name), e.value, dst.FieldByIndex(fields[i].Index), fields[i].Tag)
			continue
		}
		r.places[join(key, e.name)] = e.at
		r.failf(join(key, e.name), "unknown key%s", suggest(e.name, names))
	}
	for i, f := range fields {
		if !given[names[i]] {
			r.absent(join(key, names[i]), dst.FieldByIndex(f.Index), f.Tag)
		}
	}
}

// absent stores the default of a key that is not there.
func (r *report) absent(key string, dst reflect.Value, tag reflect.StructTag) {
	text, optional := tag.Lookup("default")
	switch {
	case dst.Kind() == reflect.Struct && !isScalar(dst):
		for _, f := range fieldsOf(dst.Type()) {
			r.absent(join(key, f.Tag.Get("yaml")), dst.FieldByIndex(f.Index), f.Tag)
		}
	case !optional:
		r.failf(key, "missing: it has no default, want %s", want(dst))
	case text == "":
	default:
		if err := store(dst, text); err != nil {
			panic(fmt.Sprintf("config: default of %s: %v", key, err))
		}
	}
}

// mapping stores a mapping with free keys.
func (r *report) mapping(key string, node ast.Node, dst reflect.Value) {
	entries, ok := r.entries(key, node)
	if !ok {
		return
	}
	if len(entries) == 0 {
		r.failf(key, "empty: want %s", want(dst))
	}
	dst.Set(reflect.MakeMapWithSize(dst.Type(), len(entries)))
	for _, e := range entries {
		v := reflect.New(dst.Type().Elem()).Elem()
		r.value(join(key, e.name), e.value, v, "")
		dst.SetMapIndex(reflect.ValueOf(e.name), v)
	}
}

func (r *report) list(key string, node ast.Node, dst reflect.Value, tag reflect.StructTag) {
	seq, ok := node.(*ast.SequenceNode)
	if !ok {
		r.failf(key, "want a list, got %s", kindOf(node))
		return
	}
	if _, optional := tag.Lookup("default"); len(seq.Values) == 0 && !optional {
		r.failf(key, "empty: want at least one")
	}
	dst.Set(reflect.MakeSlice(dst.Type(), len(seq.Values), len(seq.Values)))
	for i, v := range seq.Values {
		r.value(fmt.Sprintf("%s[%d]", key, i), v, dst.Index(i), "")
	}
}

// entry is a key of a mapping with its value.
type entry struct {
	name  string
	at    place
	value ast.Node
}

// entries returns what a mapping has, and reports keys that are repeated or no text.
func (r *report) entries(key string, node ast.Node) ([]entry, bool) {
	var values []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	case *ast.NullNode: // a section with nothing in it, or only comments
	default:
		r.failf(key, "want a mapping (key: value), got %s", kindOf(node))
		return nil, false
	}
	all := make([]entry, 0, len(values))
	lines := map[string]int{}
	for _, v := range values {
		name, ok := v.Key.(*ast.StringNode)
		if !ok {
			r.failAt(key, placeOf(v.Key), "%s", badKey(v.Key))
			continue
		}
		e := entry{name: name.Value, at: placeOf(v.Key), value: v.Value}
		if first, ok := lines[e.name]; ok {
			r.failAt(join(key, e.name), e.at, "repeated key: it is in line %d already", first)
			continue
		}
		lines[e.name] = e.at.line
		all = append(all, e)
	}
	return all, true
}

// badKey says what is wrong with a key that is no text.
func badKey(key ast.MapKeyNode) string {
	if key.IsMergeKey() {
		return "merge keys are not supported: write out what it stands for"
	}
	return fmt.Sprintf("key %s is no text: put it in quotes", key.GetToken().Value)
}

func (r *report) failAt(key string, at place, format string, args ...any) {
	r.problems = append(r.problems,
		&Problem{File: r.file, Line: at.line, Column: at.column, Key: key, Message: fmt.Sprintf(format, args...)})
}

// scalar stores a single value after its checks.
func (r *report) scalar(key string, node ast.Node, dst reflect.Value, tag reflect.StructTag) {
	text, ok := textOf(node)
	if _, null := node.(*ast.NullNode); null {
		r.failf(key, "no value: want %s", want(dst))
		return
	}
	if !ok {
		r.failf(key, "want %s, got %s", want(dst), kindOf(node))
		return
	}
	if message := wrongType(node, dst); message != "" {
		r.failf(key, "%s", message)
		return
	}
	if err := store(dst, text); err != nil {
		r.failf(key, "%v%s", err, wantRange(dst, tag))
		return
	}
	if message := wrongValue(dst, text, tag); message != "" {
		r.failf(key, "%s", message)
	}
}

// wrongType says what is wrong when a value has another of YAML's types than dst.
func wrongType(node ast.Node, dst reflect.Value) string {
	_, isText := dst.Addr().Interface().(encoding.TextUnmarshaler)
	if isText {
		return ""
	}
	text, _ := textOf(node)
	_, isString := node.(*ast.StringNode)
	_, isLiteral := node.(*ast.LiteralNode)
	_, isInteger := node.(*ast.IntegerNode)
	if dst.Kind() == reflect.String && !isString && !isLiteral {
		return fmt.Sprintf("want text, got %s: put it in quotes, %q", kindOf(node), text)
	}
	if dst.Kind() != reflect.String && !isInteger {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil && strconv.FormatUint(n, 10) == text {
			return fmt.Sprintf("want a whole number, got text: write %s without quotes", text)
		}
		if isString || isLiteral {
			return fmt.Sprintf("want a whole number, got %q", text)
		}
		return fmt.Sprintf("want a whole number, got %s", kindOf(node))
	}
	return ""
}

// store reads text into dst.
func store(dst reflect.Value, text string) error {
	if u, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return storeText(u, text)
	}
	if dst.Kind() == reflect.String {
		dst.SetString(text)
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	leadingZero := len(text) > 1 && text[0] == '0' // octal to some readers of YAML
	if err != nil || leadingZero {
		return fmt.Errorf("%s is no whole number in decimal digits", text)
	}
	if dst.CanInt() && n <= math.MaxInt {
		dst.SetInt(int64(n))
		return nil
	}
	if dst.CanInt() || dst.OverflowUint(n) {
		return fmt.Errorf("%s is out of range", text)
	}
	dst.SetUint(n)
	return nil
}

// wantRange ends a message about what is no value of a number.
func wantRange(dst reflect.Value, tag reflect.StructTag) string {
	bounds, ok := tag.Lookup("range")
	if _, isText := dst.Addr().Interface().(encoding.TextUnmarshaler); isText || !ok {
		return ""
	}
	return ": want " + rangeText(bounds)
}

// storeText reads a type of its own, and says for those of net/netip what they look like.
func storeText(u encoding.TextUnmarshaler, text string) error {
	err := u.UnmarshalText([]byte(text))
	if err == nil && text != "" {
		return nil
	}
	switch u.(type) {
	case *netip.Addr:
		return fmt.Errorf("%q is no IP address: want one as in 10.77.0.10 or 2001:db8::10", text)
	case *netip.Prefix:
		return fmt.Errorf("%q is no address with prefix length: want one as in 10.77.0.1/24", text)
	case *netip.AddrPort:
		return fmt.Errorf("%q is no address with port: want one as in 10.77.0.10:80 or [2001:db8::10]:80", text)
	}
	return err
}

// wrongValue says what is wrong when a value is not one that the tag allows.
func wrongValue(dst reflect.Value, text string, tag reflect.StructTag) string {
	if words, ok := tag.Lookup("oneof"); ok {
		all := strings.Split(words, "|")
		if slices.Contains(all, text) {
			return ""
		}
		return fmt.Sprintf("unknown value %q%s", text, suggest(text, all))
	}
	bounds, ok := tag.Lookup("range")
	if !ok {
		return ""
	}
	least, most, _ := strings.Cut(bounds, "..")
	if least != "" && less(dst, bound(dst, least)) || most != "" && less(bound(dst, most), dst) {
		return fmt.Sprintf("%s is out of range: want %s", text, rangeText(bounds))
	}
	return ""
}

func rangeText(bounds string) string {
	least, most, _ := strings.Cut(bounds, "..")
	if most == "" {
		return "at least " + least
	}
	return least + " to " + most
}

// bound is a limit out of a tag, in the type of v.
func bound(v reflect.Value, text string) reflect.Value {
	b := reflect.New(v.Type()).Elem()
	if err := store(b, text); err != nil {
		panic(fmt.Sprintf("config: range of %s: %v", v.Type(), err))
	}
	return b
}

func less(a, b reflect.Value) bool {
	if a.CanInt() {
		return a.Int() < b.Int()
	}
	return a.Uint() < b.Uint()
}

// isScalar reports whether a value of v's type is written as a single word of the file.
func isScalar(v reflect.Value) bool {
	if _, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return true
	}
	return v.Kind() != reflect.Struct && v.Kind() != reflect.Map && v.Kind() != reflect.Slice
}

// textOf returns what the file says for a single value.
func textOf(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
		return "", false
	case ast.ScalarNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// want says in words what dst takes.
func want(dst reflect.Value) string {
	switch dst.Addr().Interface().(type) {
	case *netip.Addr:
		return "an IP address"
	case *netip.Prefix:
		return "an address with prefix length as in 10.77.0.1/24"
	case *netip.AddrPort:
		return "an address with port as in 10.77.0.10:80"
	case *Duration:
		return "a duration as in 20ms"
	case *CPUs:
		return "auto, or CPU numbers as in 2,3"
	}
	switch dst.Kind() {
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "a list"
	case reflect.Map:
		return "at least one name with its values"
	default:
		return "a whole number"
	}
}

func kindOf(node ast.Node) string {
	switch node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.IntegerNode:
		return "the number " + node.GetToken().Value
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + node.GetToken().Value
	case *ast.BoolNode:
		return "the truth value " + node.GetToken().Value
	}
	return "text"
}

// placeOf returns where a node begins. A block mapping's token is its first colon, so its first key stands for it.
func placeOf(node ast.Node) place {
	switch n := node.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 && !n.IsFlowStyle {
			return placeOf(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return placeOf(n.Key)
	}
	token := node.GetToken()
	if token == nil || token.Position == nil {
		return place{1, 1}
	}
	return place{token.Position.Line, token.Position.Column}
}

// fieldsOf returns the fields of t that are keys.
func fieldsOf(t reflect.Type) []reflect.StructField {
	var keys []reflect.StructField
	for _, f := range reflect.VisibleFields(t) {
		if f.Tag.Get("yaml") != "" {
			keys = append(keys, f)
		}
	}
	return keys
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// container is the key that key is in, as join and the lists build them.
func container(key string) string {
	return key[:max(strings.LastIndexAny(key, ".["), 0)]
}
