// Package version says which build of Cairn this is.
package version

import (
	"runtime"
	"runtime/debug"
)

// Version is the release, such as v0.1.0 or v0.1.0-3-gabc1234-dirty. The linker
// sets it (-X cairn.network/cairn/version.Version=…); nothing else does.
var Version = "unknown"

// Build is what is known of a program's making.
type Build struct {
	// Version is the release; for a build without one, what Go knows of the
	// module.
	Version string `json:"version"`
	// Commit is the source's revision; "" if it was built outside its repository.
	Commit string `json:"commit,omitempty"`
	// Modified says that the source differed from the commit.
	Modified bool `json:"modified,omitempty"`
	// Go is the compiler, such as go1.26.0.
	Go string `json:"go"`
	// Platform is the system and processor, such as linux/amd64.
	Platform string `json:"platform"`
}

// Current returns the build that runs.
func Current() Build {
	b := Build{Version: Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	made, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.Version == "unknown" && made.Main.Version != "" {
		b.Version = made.Main.Version
	}
	for _, s := range made.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// String returns the build on one line.
func (b Build) String() string {
	s := b.Version
	if b.Commit != "" {
		s += " (commit " + b.Commit[:min(12, len(b.Commit))]
		if b.Modified {
			s += ", modified"
		}
		s += ")"
	}
	return s + " " + b.Go + " " + b.Platform
}
