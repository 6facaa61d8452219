// Writes the Grafana dashboards of the chart: `make dashboards`. A test compares the files with what this writes.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Where the files are, seen from this folder.
const folder = "../../charts/rowlock/dashboards"

// The dashboards by the name of their file.
func dashboards() (map[string]*dashboard.Dashboard, error) {
	all := map[string]*dashboard.Dashboard{}
	for _, one := range []func() (string, *dashboard.DashboardBuilder){fleet, queue} {
		name, builder := one()
		built, err := builder.Build()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		// Built for files, which have no revision in a database of Grafana's.
		all[name] = &built
	}
	return all, nil
}

// The text of a file: sorted keys, so that a change is a small difference, and `>` not as an escape.
func text(one *dashboard.Dashboard) ([]byte, error) {
	raw, err := json.Marshal(one)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	err = encoder.Encode(value)
	return out.Bytes(), err
}

func write() error {
	all, err := dashboards()
	if err != nil {
		return err
	}
	for name, one := range all {
		file, err := text(one)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), file, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if err := write(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
