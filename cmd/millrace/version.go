package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
)

type versionCmd struct {
	JSON bool `help:"Print JSON." name:"json"`
}

func (versionCmd) Help() string {
	return `Examples:

  millrace version
  millrace version --json | jq -r .commit`
}

// buildInfo says which build this is. Version is the module's version, or "devel" for a build from a work tree.
type buildInfo struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"` // empty where the build did not see a repository
	Modified  bool   `json:"modified,omitempty"`
	Time      string `json:"time,omitempty"`
	GoVersion string `json:"go_version"`
	Platform  string `json:"platform"`
}

func readBuildInfo() buildInfo {
	b := buildInfo{Version: "devel", GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "vcs.time":
			b.Time = s.Value
		}
	}
	return b
}

func (c versionCmd) Run(a *app) error {
	b := readBuildInfo()
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(b)
	}
	line := fmt.Sprintf("millrace %s (%s, %s)", b.Version, b.GoVersion, b.Platform)
	if b.Commit != "" {
		line += " commit " + b.Commit
	}
	if b.Modified {
		line += ", modified"
	}
	_, err := fmt.Fprintln(a.stdout, line)
	return err
}
