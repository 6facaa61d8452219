package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// What is wrong with the text of a dashboard, in sentences.
func problems(file []byte) []string {
	one, found := decode(file)
	if one == nil {
		return found
	}
	found = append(found, layoutProblems(one)...)
	for _, each := range one.Panels {
		if each.Panel != nil {
			found = append(found, panelProblems(each.Panel)...)
		}
	}
	return append(found, unitProblems(file)...)
}

// Decodes a file and refuses what the SDK does not know: a misspelt field has no effect in Grafana, silently.
func decode(file []byte) (*dashboard.Dashboard, []string) {
	// Only the kinds of panels that are used here: a panel of another kind is not checked, see panelProblems.
	runtime := cog.NewRuntime()
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterPanelcfgVariant(statetimeline.VariantConfig())
	runtime.RegisterPanelcfgVariant(table.VariantConfig())
	// The SDK returns a list of errors as an error, which is not nil even if it is empty. For the same reason its
	// strict decoder leaves panels out of the result: the result is that of the ordinary one.
	if err := dashboard.NewDashboard().UnmarshalJSONStrict(file); err != nil && err.Error() != "" {
		return nil, strings.Split(err.Error(), "\n")
	}
	one := dashboard.NewDashboard()
	if err := json.Unmarshal(file, one); err != nil {
		return nil, []string{err.Error()}
	}
	return one, nil
}

// Rows are full, and nothing overlaps.
func layoutProblems(one *dashboard.Dashboard) []string {
	var found []string
	say := func(format string, values ...any) { found = append(found, fmt.Sprintf(format, values...)) }
	ids, titles, cells := map[uint32]bool{}, map[string]bool{}, map[[2]uint32]string{}
	var bottom uint32
	for _, each := range one.Panels {
		place, id, title := geometry(each)
		if ids[id] {
			say("%q: the id %d is that of another panel", title, id)
		}
		ids[id] = true
		if titles[title] {
			say("%q: another panel has this title", title)
		}
		titles[title] = true
		if place.X+place.W > gridWidth {
			say("%q: it ends right of column %d", title, gridWidth)
		}
		for x := place.X; x < place.X+place.W; x++ {
			for y := place.Y; y < place.Y+place.H; y++ {
				if other, taken := cells[[2]uint32{x, y}]; taken {
					say("%q: it overlaps %q", title, other)
					x, y = place.X+place.W, place.Y+place.H
					continue
				}
				cells[[2]uint32{x, y}] = title
			}
		}
		bottom = max(bottom, place.Y+place.H)
	}
	if free := int(bottom)*gridWidth - len(cells); free > 0 && len(found) == 0 {
		say("%d cells are empty: the widths of some line do not add up to %d", free, gridWidth)
	}
	return found
}

func geometry(each dashboard.PanelOrRowPanel) (dashboard.GridPos, uint32, string) {
	if row := each.RowPanel; row != nil {
		return *row.GridPos, row.Id, *row.Title
	}
	panel := each.Panel
	return *panel.GridPos, *panel.Id, *panel.Title
}

// A panel explains itself and asks the data source that the user selects.
func panelProblems(panel *dashboard.Panel) []string {
	var found []string
	say := func(format string, values ...any) {
		found = append(found, fmt.Sprintf("%q: ", *panel.Title)+fmt.Sprintf(format, values...))
	}
	switch panel.Type {
	case "stat", "timeseries", "state-timeline", "table":
	default:
		say("panels of the type %s are not checked: register it in decode", panel.Type)
	}
	if panel.Description == nil || !strings.HasSuffix(*panel.Description, ".") {
		say("it has no description in whole sentences")
	}
	if defaults := panel.FieldConfig.Defaults; defaults.Unit == nil || *defaults.Unit == "" {
		say("it has no unit")
	}
	if len(panel.Targets) == 0 {
		say("it has no query")
	}
	refs := map[string]bool{}
	for _, target := range panel.Targets {
		one, ok := target.(prometheus.Dataquery)
		if pointer, isPointer := target.(*prometheus.Dataquery); isPointer {
			one, ok = *pointer, true
		}
		if !ok {
			say("a query is not one for Prometheus: %T", target)
			continue
		}
		if refs[*one.RefId] {
			say("two queries are called %s", *one.RefId)
		}
		refs[*one.RefId] = true
		if one.Datasource == nil || one.Datasource.Uid == nil || *one.Datasource.Uid != "${datasource}" {
			say("query %s does not use ${datasource}", *one.RefId)
		}
		for _, problem := range expressionProblems(one.Expr) {
			say("query %s: %s", *one.RefId, problem)
		}
		if panel.Type != "table" {
			for _, problem := range legendProblems(one) {
				say("query %s: %s", *one.RefId, problem)
			}
		}
	}
	return found
}

var (
	windows = regexp.MustCompile(`(?:rate|increase)\([^\[\]]*\[([^\]]*)\]\)`)
	// Aggregations and what they keep.
	groups      = regexp.MustCompile(`\b(?:by|on) ?\(([^)]*)\)`)
	variable    = regexp.MustCompile(`\$\{?([a-z_]+)`)
	placeholder = regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
)

// The windows that queries may have. $__rate_interval is at least four times the interval of the scrapes.
var allowedWindows = map[string]bool{"$__rate_interval": true, "15m": true, "1h": true}

func expressionProblems(expression string) []string {
	var found []string
	for _, match := range windows.FindAllStringSubmatch(expression, -1) {
		if !allowedWindows[match[1]] {
			found = append(found, fmt.Sprintf("the window %s is not $__rate_interval, 15m or 1h", match[1]))
		}
	}
	for _, match := range variable.FindAllStringSubmatch(expression, -1) {
		switch match[1] {
		case "namespace", "queue", "__rate_interval":
		default:
			found = append(found, fmt.Sprintf("there is no variable %s", match[1]))
		}
	}
	return found
}

// The legend names only labels that the query keeps.
func legendProblems(one prometheus.Dataquery) []string {
	if one.LegendFormat == nil || *one.LegendFormat == "" {
		return []string{"it has no legend"}
	}
	kept := map[string]bool{}
	for _, match := range groups.FindAllStringSubmatch(one.Expr, -1) {
		for _, label := range strings.Split(match[1], ",") {
			kept[strings.TrimSpace(label)] = true
		}
	}
	var found []string
	for _, match := range placeholder.FindAllStringSubmatch(*one.LegendFormat, -1) {
		if !kept[match[1]] {
			found = append(found, fmt.Sprintf("the legend names the label %s, which the query does not keep", match[1]))
		}
	}
	return found
}

// The strict decoder accepts any field beside `unit` in the defaults of a panel.
var knownDefaults = map[string]bool{
	"color": true, "custom": true, "decimals": true, "mappings": true, "max": true, "min": true,
	"noValue": true, "thresholds": true, "unit": true,
}

func unitProblems(file []byte) []string {
	var raw struct {
		Panels []struct {
			Title       string
			FieldConfig struct{ Defaults map[string]any }
		}
	}
	if err := json.Unmarshal(file, &raw); err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, panel := range raw.Panels {
		for name := range panel.FieldConfig.Defaults {
			if !knownDefaults[name] {
				found = append(found, fmt.Sprintf("%q: the defaults of its fields have an unknown part: %s", panel.Title, name))
			}
		}
	}
	return found
}
