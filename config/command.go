package config

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Bind makes every command under root read its settings as Load does before it
// runs, gives root the flag for the file, and adds to each help the variables
// that are read. Mistakes in flags and arguments become UsageErrors, also that
// of a command that does not exist. What commands know is found out by itself,
// so from.Known may be left out. The commands must be there already; none may
// have a PersistentPreRunE of its own.
func Bind(root *cobra.Command, from Sources) {
	AddFlags(root.PersistentFlags())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &UsageError{err} })
	bindArgs(root)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if generated(cmd) || cmd.HasSubCommands() { // these show help only
			return nil
		}
		from := from
		from.Known = append(flagSets(root), from.Known...)
		return Load(cmd.Flags(), from)
	}
	usage := root.UsageFunc()
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		if err := usage(cmd); err != nil || cmd.HasSubCommands() || generated(cmd) {
			return err
		}
		_, err := io.WriteString(cmd.OutOrStderr(), variablesText(cmd, from.File))
		return err
	})
}

// bindArgs makes mistakes in arguments UsageErrors. Of a mistyped command below
// a group cobra alone would make the group's help, and success.
func bindArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		check = cobra.ArbitraryArgs
	}
	if !cmd.Runnable() {
		check = isCommand
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if _, already := errors.AsType[*UsageError](err); err == nil || already {
			return err
		}
		return &UsageError{err}
	}
	for _, sub := range cmd.Commands() {
		bindArgs(sub)
	}
}

// isCommand refuses what follows a group and is none of its commands.
func isCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see " + cmd.CommandPath() + " --help"
	cmd.SuggestionsMinimumDistance = 2 // as cobra has it for the root
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		hint = "did you mean " + strings.Join(like, " or ") + "?"
	}
	return fmt.Errorf("%s has no command %q; %s", cmd.CommandPath(), args[0], hint)
}

// generated says whether a command is one that cobra adds by itself: those work
// whatever the settings are.
func generated(cmd *cobra.Command) bool {
	for c := cmd; c != nil; c = c.Parent() {
		if slices.Contains([]string{"help", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}, c.Name()) {
			return true
		}
	}
	return false
}

// flagSets returns the flags of a command and of all below it.
func flagSets(cmd *cobra.Command) []*pflag.FlagSet {
	sets := []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()}
	for _, c := range cmd.Commands() {
		sets = append(sets, flagSets(c)...)
	}
	return sets
}

// variablesText is the part of a command's help about its environment.
func variablesText(cmd *cobra.Command, file string) string {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.AddFlagSet(cmd.LocalFlags())
	flags.AddFlagSet(cmd.InheritedFlags())
	names := Variables(flags)
	if len(names) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nFlags may also be given in the environment, or in %s by their names;\nflag goes before environment before file. Variables:\n", file)
	line := " "
	for _, name := range names {
		if len(line)+1+len(name) > 79 {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + name
	}
	b.WriteString(line + "\n")
	return b.String()
}
