package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// format is how a listing is written.
type format string

const (
	formatTable format = "table"
	formatWide  format = "wide"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

var formats = []string{string(formatTable), string(formatWide), string(formatJSON), string(formatYAML)}

// String, Set and Type make it a flag.
func (f *format) String() string { return string(*f) }

// Type is the word for the value in the help.
func (f *format) Type() string { return strings.Join(formats, "|") }

// Set takes one of the formats.
func (f *format) Set(text string) error {
	for _, known := range formats {
		if text == known {
			*f = format(text)
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", text, strings.Join(formats, ", "))
}

func (f format) wide() bool { return f == formatWide }

// machine says whether programs read the listing.
func (f format) machine() bool { return f == formatJSON || f == formatYAML }

// addFormat adds the flag -o.
func addFormat(cmd *cobra.Command, f *format) {
	*f = formatTable
	cmd.Flags().VarP(f, "output", "o", "how to write it")
	// The flag exists, so this can't fail.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

// write writes a value for programs.
func (f format) write(w io.Writer, value any) error {
	var text []byte
	var err error
	if f == formatYAML {
		text, err = yaml.Marshal(value)
	} else {
		text, err = json.MarshalIndent(value, "", "  ")
		text = append(text, '\n')
	}
	if err != nil {
		return fmt.Errorf("write as %s: %w", f, err)
	}
	_, err = w.Write(text)
	return err
}
