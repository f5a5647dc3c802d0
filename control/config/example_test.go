package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"baton/control/config"
)

// What is wrong with the values of a file is reported at once.
func ExampleLoadRouter() {
	dir, err := os.MkdirTemp("", "config")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "baton.yaml")
	valid, err := os.ReadFile("testdata/router.yaml")
	if err != nil {
		fmt.Println(err)
		return
	}
	text := strings.NewReplacer("spin: 50us", "spin: 50", "freeze: buffer", "freezes: buffer").Replace(string(valid))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	_, err = config.LoadRouter(path)
	fmt.Println(strings.ReplaceAll(err.Error(), dir+"/", ""))
	// Output:
	// baton.yaml:10:17: data.idle.spin: "50" is no duration: want a number with its unit as in 250us, 20ms, 10s, 5m
	// baton.yaml:32:9: dvipas[0].ports[0].freezes: unknown key: did you mean freeze?
}
