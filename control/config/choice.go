package config

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"

	"baton/control/inspect"
)

// Choice is where a rule sends who it matches: by exactly one of Job, Map, MapFile and Hash. It converts to
// inspect.Choice, which defines what they mean.
type Choice struct {
	Job     string            `yaml:"job" default:""`
	Map     map[string]string `yaml:"map" default:""`      // job by key
	MapFile string            `yaml:"map_file" default:""` // the same in a file
	Hash    []string          `yaml:"hash" default:""`     // jobs
}

// MaxMap bounds the file of a map, octets.
const MaxMap = 64 << 20

// mapFiles are maps that are in files of their own, by path.
type mapFiles map[string]map[string]string

// choice converts. A map whose file is not among those that were read is empty.
func (c Choice) choice(files mapFiles) inspect.Choice {
	jobs := c.Map
	if c.MapFile != "" && c.Map == nil {
		jobs = files[c.MapFile]
		if jobs == nil {
			jobs = map[string]string{}
		}
	}
	return inspect.Choice{Job: c.Job, Map: jobs, Hash: c.Hash}
}

// routes lists the jobs of the choice, as far as they are in the configuration, and their keys.
func (c Choice) routes() (all []route) {
	if c.Job != "" {
		all = append(all, route{"job", c.Job})
	}
	for _, key := range sortedKeys(c.Map) {
		all = append(all, route{join("map", key), c.Map[key]})
	}
	for i, job := range c.Hash {
		all = append(all, route{at("hash", i), job})
	}
	return all
}

// readMaps reads the files of maps that choices name. The error names file and line.
func (r *Router) readMaps(choices []Choice) (mapFiles, error) {
	files := mapFiles{}
	for _, c := range choices {
		if c.MapFile == "" || files[c.MapFile] != nil {
			continue
		}
		data, err := read(c.MapFile, MaxMap)
		if err != nil {
			return nil, err
		}
		if files[c.MapFile], err = r.parseMap(c.MapFile, data); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// parseMap reads lines that have a key and a job, with space between. Empty ones, and those that begin with "#", say
// nothing.
func (r *Router) parseMap(name string, data []byte) (map[string]string, error) {
	jobs := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, MaxMap+1)
	for n := 1; lines.Scan(); n++ {
		wrong := func(format string, args ...any) error {
			return &Problem{File: name, Line: n, Column: 1, Message: fmt.Sprintf(format, args...)}
		}
		words := strings.Fields(lines.Text())
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		if len(words) != 2 {
			return nil, wrong("%d words: want a key and a job as in \"ann@a.example mail\"", len(words))
		}
		key, job := words[0], words[1]
		if _, ok := r.Jobs[job]; !ok {
			return nil, wrong("%q is not under jobs%s", job, suggest(job, sortedKeys(r.Jobs)))
		}
		if _, ok := jobs[key]; ok {
			return nil, wrong("%q is there twice", key)
		}
		jobs[key] = job
	}
	return jobs, lines.Err()
}
