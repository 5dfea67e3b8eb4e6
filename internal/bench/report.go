package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report is what a bench came to.
type Report struct {
	Bench   string   `json:"bench"`
	Machine Machine  `json:"machine"`
	Figures []Figure `json:"figures"`
}

// WriteJSON writes the report as one JSON object.
func (r Report) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// WriteTable writes the report for a person to read.
func (r Report) WriteTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FIGURE\tVALUE\tUNIT\tLIMIT\tRATIO\tROUNDS\tBAR\tMET\tP50 MS\tP99 MS")
	for _, f := range r.Figures {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Name, number(f.Value), f.Unit, f.limitCells(), milliseconds(f.P50), milliseconds(f.P99))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s", r.Machine)
	return err
}

func (f Figure) limitCells() string {
	if f.Met == nil {
		return "\t\t\t\t"
	}
	met := "no"
	if *f.Met {
		met = "yes"
	}
	sign := ""
	if f.AtMost {
		sign = "<= "
	}
	return fmt.Sprintf("%s\t%.2f\t%.2f-%.2f\t%s%.2f\t%s", number(f.Limit), f.Ratio, f.lowest, f.highest, sign, f.Bar, met)
}

func number(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func milliseconds(v *float64) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%.2f", *v)
}

// String is the description in lines.
func (m Machine) String() string {
	limit := "none"
	if m.GOMemLimitBytes < math.MaxInt64 {
		limit = fmt.Sprintf("%d MiB", m.GOMemLimitBytes>>20)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, %d MiB memory, %s, %s\n", m.CPU, m.Cores, m.MemoryBytes>>20, m.Disk, m.OS)
	fmt.Fprintf(&b, "garbage collection at %d %%, memory limit %s\n", m.GOGC, limit)
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		fmt.Fprintf(&b, "%s %s\n", name, m.Versions[name])
	}
	return b.String()
}
