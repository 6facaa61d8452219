package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The checked-in files by name.
func files(t *testing.T) map[string][]byte {
	paths, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no dashboard in %s: %v", folder, err)
	}
	found := map[string][]byte{}
	for _, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(path)] = file
	}
	return found
}

func TestTheCheckedInDashboardsAreThoseOfThisProgram(t *testing.T) {
	all, err := dashboards()
	if err != nil {
		t.Fatal(err)
	}
	checkedIn := files(t)
	if len(checkedIn) != len(all) {
		t.Errorf("%d files in %s, but this program writes %d", len(checkedIn), folder, len(all))
	}
	for name, one := range all {
		expected, err := text(one)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(checkedIn[name], expected) {
			t.Errorf("%s differs from what tests/dashboards describes: run `make dashboards`", name)
		}
	}
}

func TestTheDashboardsHaveNoProblem(t *testing.T) {
	for name, file := range files(t) {
		for _, problem := range problems(file) {
			t.Errorf("%s: %s", name, problem)
		}
	}
}

// The description of a panel names the alerts that watch the same, and each alert has a panel.
func TestPanelsNameTheAlertsThatWatchTheSame(t *testing.T) {
	rules, err := os.ReadFile("../../charts/rowlock/alerts/rowlock.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := map[string]bool{}
	for _, match := range regexp.MustCompile(`- alert: (\w+)`).FindAllSubmatch(rules, -1) {
		alerts[string(match[1])] = true
	}
	named := map[string]bool{}
	for name, file := range files(t) {
		one, _ := decode(file)
		for _, each := range one.Panels {
			if each.Panel == nil {
				continue
			}
			_, list, _ := strings.Cut(*each.Panel.Description, " Alert")
			for _, alert := range regexp.MustCompile(`\bRowlock\w+`).FindAllString(list, -1) {
				named[alert] = true
				if !alerts[alert] {
					t.Errorf("%s: %q names the alert %s, which does not exist", name, *each.Panel.Title, alert)
				}
			}
		}
	}
	for alert := range alerts {
		if !named[alert] {
			t.Errorf("no panel names the alert %s", alert)
		}
	}
}

// Changes that somebody could make by mistake, and a part of the sentence that names them.
func TestEachMistakeIsFound(t *testing.T) {
	file := files(t)["queue.json"]
	for _, one := range []struct{ what, old, new, says string }{
		{"a misspelt field of a panel", `"gridPos"`, `"gridPoss"`, "gridPoss"},
		{"a misspelt field of a query", `"legendFormat"`, `"legendFormatt"`, "legendFormatt"},
		{"a misspelt option", `"legend":`, `"legendd":`, "legendd"},
		{"a misspelt part of the look", `"lineWidth"`, `"lineWidthh"`, "lineWidthh"},
		{"a value of another type", `"graphTooltip": 1`, `"graphTooltip": "x"`, "graphTooltip"},
		{"a misspelt unit", `"unit":`, `"unitt":`, "unitt"},
		{"no unit", `"unit": "short"`, `"unit": ""`, "no unit"},
		{"a fixed data source", `"uid": "${datasource}"`, `"uid": "main"`, "${datasource}"},
		{"a fixed window", `$__rate_interval`, `1m`, "window 1m"},
		{"an unknown variable", `queue=\"$queue\"`, `queue=\"$queues\"`, "no variable queues"},
		{"a label that is not kept", `{{state}}`, `{{kind}}`, "label kind"},
		{"a panel of another kind", `"type": "timeseries"`, `"type": "graph"`, "type graph"},
		{"an id twice", `"id": 3,`, `"id": 2,`, "id 2"},
		{"a panel over another", `"x": 3,`, `"x": 2,`, "overlaps"},
		{"a line that is not full", `"w": 3,`, `"w": 2,`, "cells are empty"},
		{"a panel beyond the edge", `"w": 12,`, `"w": 13,`, "column 24"},
	} {
		if !bytes.Contains(file, []byte(one.old)) {
			t.Fatalf("%s: %s is not in the file", one.what, one.old)
		}
		changed := bytes.ReplaceAll(file, []byte(one.old), []byte(one.new))
		found := strings.Join(problems(changed), "\n")
		if !strings.Contains(found, one.says) {
			t.Errorf("%s is not found; found: %s", one.what, found)
		}
	}
}
