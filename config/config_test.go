package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// values are one flag of each sort.
type values struct {
	Text string
	On   bool
	Num  int
	Wait time.Duration
	List []string
	Once string
}

func newFlags(v *values) *pflag.FlagSet {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddFlags(fs)
	fs.StringVar(&v.Text, "a-text", "default", "")
	fs.BoolVar(&v.On, "enabled", false, "")
	fs.IntVar(&v.Num, "num", 7, "")
	fs.DurationVar(&v.Wait, "wait", time.Second, "")
	fs.StringSliceVar(&v.List, "list", []string{"d1", "d2"}, "")
	fs.StringVar(&v.Once, "once", "", "")
	CallOnly(fs, "once")
	return fs
}

func TestLoad(t *testing.T) {
	def := values{Text: "default", Num: 7, Wait: time.Second, List: []string{"d1", "d2"}}
	with := func(change func(*values)) values { v := def; change(&v); return v }
	for name, tt := range map[string]struct {
		args []string
		env  []string
		file string // "" for none
		want values
		err  string
	}{
		"nothing":    {want: def},
		"empty file": {file: "\n", want: def},
		"file": {
			file: "a-text: file\nenabled: true\nnum: 64512\nwait: 2m\nlist: [u, v]\n",
			want: values{Text: "file", On: true, Num: 64512, Wait: 2 * time.Minute, List: []string{"u", "v"}},
		},
		"environment": {
			env:  []string{"CAIRN_A_TEXT=env", "CAIRN_ENABLED=true", "CAIRN_NUM=1", "CAIRN_WAIT=3s", "CAIRN_LIST=p,q", "OTHER=1"},
			want: values{Text: "env", On: true, Num: 1, Wait: 3 * time.Second, List: []string{"p", "q"}},
		},
		"environment before file": {
			env: []string{"CAIRN_A_TEXT=env", "CAIRN_LIST=p"}, file: "a-text: file\nlist: [u, v]\nnum: 2",
			want: with(func(v *values) { v.Text = "env"; v.List = []string{"p"}; v.Num = 2 }),
		},
		"flag before environment and file": {
			args: []string{"--a-text=flag", "--list=f"}, env: []string{"CAIRN_A_TEXT=env", "CAIRN_LIST=p"}, file: "a-text: file\nlist: [x]",
			want: with(func(v *values) { v.Text = "flag"; v.List = []string{"f"} }),
		},
		"a flag equal to its default still wins": {
			args: []string{"--a-text=default"}, env: []string{"CAIRN_A_TEXT=env"}, want: def,
		},
		"an overridden value is not looked at": {
			args: []string{"--num=1"}, env: []string{"CAIRN_NUM=x"}, want: with(func(v *values) { v.Num = 1 }),
		},
		"empty variable":                {env: []string{"CAIRN_NUM="}, file: "num: 3", want: with(func(v *values) { v.Num = 3 })},
		"unknown variable":              {env: []string{"CAIRN_WEB_SERVICE_HOST=10.0.0.1"}, want: def},
		"one text for a list":           {file: "list: u,v", want: with(func(v *values) { v.List = []string{"u", "v"} })},
		"empty list":                    {file: "list: []", want: with(func(v *values) { v.List = []string{} })},
		"key of another command":        {file: "other: 1", want: def},
		"call-only flag":                {args: []string{"--once=now"}, want: with(func(v *values) { v.Once = "now" })},
		"call-only in the environment":  {env: []string{"CAIRN_ONCE=later"}, want: def},
		"call-only in the file":         {file: "once: later", err: "FILE: once: this is taken from the command line only"},
		"config in the file":            {file: "config: x", err: "FILE: config: this is taken from the command line only"},
		"unknown key":                   {file: "num: 1\na-txt: x", err: "FILE: a-txt: there is no such setting"},
		"key twice":                     {file: "num: 1\nnum: 2", err: `FILE: yaml: unmarshal errors:   line 2: key "num" already set in map`},
		"bad value in the environment":  {env: []string{"CAIRN_NUM=x"}, err: `environment CAIRN_NUM: invalid value "x": strconv.ParseInt: parsing "x": invalid syntax`},
		"bad value in the file":         {file: "wait: soon", err: `FILE: wait: invalid value "soon": time: invalid duration "soon"`},
		"list for one value":            {file: "num: [1, 2]", err: "FILE: num: a list is given where one value is wanted"},
		"map":                           {file: "num: {a: 1}", err: "FILE: num: a plain value is wanted"},
		"list in a list":                {file: "list: [a, [b]]", err: "FILE: list: element 2: a plain value is wanted"},
		"no value":                      {file: "num:", err: "FILE: num: the value is missing"},
		"not settings":                  {file: "- a", err: `FILE: settings are wanted, one "key: value" on each line`},
		"no YAML":                       {file: "a: b: c", err: "FILE: yaml: mapping values are not allowed in this context"},
		"every mistake":                 {env: []string{"CAIRN_NUM=x", "CAIRN_ENABLED=maybe"}, err: "environment CAIRN_ENABLED: invalid value \"maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax\nenvironment CAIRN_NUM: invalid value \"x\": strconv.ParseInt: parsing \"x\": invalid syntax"},
		"file of the flag is not there": {args: []string{"--config=/nonexistent/c.yaml"}, err: "--config: open /nonexistent/c.yaml: no such file or directory"},
		"file of the variable is not there": {
			env: []string{"CAIRN_CONFIG=/nonexistent/c.yaml"}, err: "environment CAIRN_CONFIG: open /nonexistent/c.yaml: no such file or directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cairn.yaml")
			if tt.file != "" {
				if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var v values
			fs := newFlags(&v)
			if err := fs.Parse(tt.args); err != nil {
				t.Fatal(err)
			}
			other := pflag.NewFlagSet("other", pflag.ContinueOnError)
			other.Int("other", 0, "")
			err := Load(fs, Sources{Environ: tt.env, File: path, Known: []*pflag.FlagSet{other}})
			if tt.err != "" {
				var usage *UsageError
				if !errors.As(err, &usage) {
					t.Fatalf("%v is no UsageError", err)
				}
				if d := cmp.Diff(strings.ReplaceAll(tt.err, "FILE", path), err.Error()); d != "" {
					t.Errorf("error (-want +got):\n%s", d)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, v); d != "" {
				t.Errorf("values (-want +got):\n%s", d)
			}
		})
	}
}

func TestFileNamedByFlagBeforeVariable(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"flag", "env", "default"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("a-text: "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	for want, tt := range map[string]struct{ args, env []string }{
		"flag":    {args: []string{"--config", in("flag")}, env: []string{"CAIRN_CONFIG=" + in("env")}},
		"env":     {env: []string{"CAIRN_CONFIG=" + in("env")}},
		"default": {},
	} {
		var v values
		fs := newFlags(&v)
		fs.Parse(tt.args)
		if err := Load(fs, Sources{Environ: tt.env, File: in("default")}); err != nil {
			t.Fatal(err)
		}
		if v.Text != want {
			t.Errorf("got the file of %q, want that of %q", v.Text, want)
		}
		if got, wantOrigin := Origin(fs, "a-text"), in(want)+": a-text"; got != wantOrigin {
			t.Errorf("origin %q, want %q", got, wantOrigin)
		}
	}
}

func TestVariables(t *testing.T) {
	var v values
	want := []string{"CAIRN_A_TEXT", "CAIRN_CONFIG", "CAIRN_ENABLED", "CAIRN_LIST", "CAIRN_NUM", "CAIRN_WAIT"}
	if d := cmp.Diff(want, Variables(newFlags(&v))); d != "" {
		t.Errorf("variables (-want +got):\n%s", d)
	}
}

// tree is a program of two commands.
func tree(file string, environ ...string) (*cobra.Command, *string) {
	got := new(string)
	root := &cobra.Command{Use: "prog", SilenceErrors: true, SilenceUsage: true}
	run := &cobra.Command{Use: "run", Args: cobra.NoArgs, Run: func(*cobra.Command, []string) {}}
	run.Flags().StringVar(got, "run-flag", "default", "of run")
	group := &cobra.Command{Use: "group"}
	group.PersistentFlags().Int("group-flag", 0, "of the group")
	group.AddCommand(&cobra.Command{Use: "leaf", Run: func(*cobra.Command, []string) {}})
	root.AddCommand(run, group)
	Bind(root, Sources{Environ: environ, File: file})
	return root, got
}

func TestBind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cairn.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("run-flag: file\ngroup-flag: 3\n")
	root, got := tree(path)
	root.SetArgs([]string{"run"})
	if err := root.Execute(); err != nil || *got != "file" {
		t.Errorf("with a key of another command: %q, %v", *got, err)
	}

	for args, want := range map[string]string{
		"run --no-such": "unknown flag: --no-such",
		"run x":         `unknown command "x" for "prog run"`,
		"rum":           `prog has no command "rum"; did you mean run?`,
		"group other":   `prog group has no command "other"; see prog group --help`,
	} {
		root, _ = tree(path)
		root.SetArgs(strings.Fields(args))
		var usage *UsageError
		if err := root.Execute(); !errors.As(err, &usage) || err.Error() != want {
			t.Errorf("%s gives %v, want %s", args, err, want)
		}
	}

	write("nonsense: 1")
	for _, args := range []string{"", "group", "completion bash", "help run", "run --help"} {
		var out bytes.Buffer
		root, _ = tree(path)
		root.SetOut(&out)
		root.SetArgs(strings.Fields(args))
		if err := root.Execute(); err != nil {
			t.Errorf("%s with a bad file: %v", args, err)
		}
		if want := "Variables:\n  CAIRN_CONFIG CAIRN_RUN_FLAG\n"; strings.Contains(args, "run") && !strings.Contains(out.String(), want) {
			t.Errorf("%s lacks %q:\n%s", args, want, out.String())
		}
	}
	root, _ = tree(path)
	root.SetArgs([]string{"run"})
	if err := root.Execute(); err == nil || !strings.HasSuffix(err.Error(), "nonsense: there is no such setting") {
		t.Errorf("run with a bad file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "a: 1", "a: [x, 1, true]", "- a", "a: {b: c}", "a: &x [*x]", "\x00", "a: 1\na: 2", "? [a]\n: b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		values, err := parse(text)
		if err != nil && values != nil {
			t.Errorf("values %v with error %v", values, err)
		}
		for key, v := range values {
			switch v.(type) {
			case string, []string:
			default:
				t.Errorf("%s is a %T", key, v)
			}
		}
	})
}
