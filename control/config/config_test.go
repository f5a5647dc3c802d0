package config

import "testing"

func TestExamples(t *testing.T) {
	r, err := LoadRouter("../../configs/baton.example.yaml")
	t.Logf("%+v\n%v", r, err)
	tt, err := LoadTarget("../../configs/target.example.yaml")
	t.Logf("%+v\n%v", tt, err)
	if r!=nil { for _, w := range r.Warnings() { t.Log(w) } }
}
