package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// format is how a list is printed: table, json or yaml.
type format string

func (f *format) flag(cmd *cobra.Command, what string) {
	cmd.Flags().StringVarP((*string)(f), "output", "o", "", "print "+what+" as json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)) // fails for a missing flag only
}

// print writes v as the format says, or calls table where it says nothing.
func (f format) print(w io.Writer, v any, table func(io.Writer)) error {
	switch f {
	case "", "table":
		table(w)
		return nil
	case "json", "yaml":
		data, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		return f.write(w, data)
	}
	return f.unknown()
}

func (f format) unknown() error { return fmt.Errorf("output %q: choose json or yaml", string(f)) }

// printProto writes messages, one document or one list for several.
func (f format) printProto(w io.Writer, messages []proto.Message) error {
	var all []json.RawMessage
	for _, m := range messages {
		data, err := protojson.MarshalOptions{EmitUnpopulated: false}.Marshal(m)
		if err != nil {
			return err
		}
		all = append(all, data)
	}
	if len(all) == 1 {
		return f.print(w, all[0], nil)
	}
	return f.print(w, all, nil)
}

func (f format) write(w io.Writer, data []byte) error {
	if f == "yaml" {
		var err error
		if data, err = yaml.JSONToYAML(data); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, strings.TrimRight(string(data), "\n"))
	return err
}

// table writes rows under a header, in columns.
func table(w io.Writer, header []string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		fmt.Fprintln(t, strings.TrimRight(strings.Join(clean(row), "\t"), "\t"))
	}
	t.Flush()
}

// clean takes out what would break a table or reach for the terminal: names
// come from images.
func clean(row []string) []string {
	out := make([]string, len(row))
	for i, cell := range row {
		out[i] = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, cell)
	}
	return out
}

// age says how long ago t was, as people say it.
func age(now, t time.Time) string {
	d := now.Sub(t)
	for _, u := range []struct {
		size time.Duration
		name string
	}{{365 * 24 * time.Hour, "year"}, {30 * 24 * time.Hour, "month"}, {7 * 24 * time.Hour, "week"}, {24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := int(d / u.size); n >= 2 || (n == 1 && u.size < 24*time.Hour) {
			return plural(n, u.name)
		}
	}
	return "less than a second"
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// size writes bytes as people read them, in powers of 1000 as Docker does.
func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	f, i := float64(n), 0
	for f >= 999.5 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.3g%s", f, units[i])
}

// shorten cuts s to n runes, the last an ellipsis.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
