package main

import (
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// The width of a dashboard, in columns.
const gridWidth = 24

const (
	unitNumber  = "short"
	unitSeconds = "s"
	unitShare   = "percentunit"
	unitPerSec  = "cps"
	unitBytes   = "bytes"
)

// The data source that the user selects.
func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}
}

// An expression, and how the legend or the column calls its result.
type query struct{ expression, name string }

// From this value on, a colour.
type step struct {
	from  float64
	color string
}

// What a panel shows. Everything else is the same for all.
type panel struct {
	title, about, unit string
	// The alerts that watch the same: the description names them.
	alerts        []string
	width, height uint32
	queries       []query
	steps         []step
	// Texts for values, such as 0: no.
	texts map[string]dashboard.ValueMappingResult
	// What to say if there are no data, which is normal: no task ran.
	empty string
	// The highest value of the axis, if it is known.
	max *float64
	// Lines one above the other: their sum means something.
	stacked bool
	// The query that is drawn as a dashed red line: a limit.
	limit string
}

func (p panel) place(x, y uint32) *dashboard.GridPos {
	return &dashboard.GridPos{X: x, Y: y, W: p.width, H: p.height}
}

func (p panel) targets(instant bool) []variants.Dataquery {
	var targets []variants.Dataquery
	for i, one := range p.queries {
		// A target has its own data source: without its type, the strict decoder would not check the target.
		from, editor := source(), prometheus.QueryEditorModeCode
		target := prometheus.Dataquery{
			RefId: cog.ToPtr(string(rune('A' + i))), Expr: one.expression, Datasource: &from, EditorMode: &editor,
			LegendFormat: cog.ToPtr(one.name), Range: cog.ToPtr(!instant), Instant: cog.ToPtr(instant),
		}
		if instant {
			target.Format = cog.ToPtr(prometheus.PromQueryFormatTable)
			target.LegendFormat = nil
		}
		targets = append(targets, target)
	}
	return targets
}

func (p panel) description() string {
	switch len(p.alerts) {
	case 0:
		return p.about
	case 1:
		return p.about + " Alert: " + p.alerts[0] + "."
	default:
		return p.about + " Alerts: " + strings.Join(p.alerts, ", ") + "."
	}
}

// Fills in what panels of all kinds have.
func (p panel) fill(built dashboard.Panel, instant bool) dashboard.Panel {
	from := source()
	built.Title, built.Description, built.Datasource = &p.title, cog.ToPtr(p.description()), &from
	built.Targets = p.targets(instant)
	built.Transparent, built.RepeatDirection = nil, nil
	if built.FieldConfig == nil {
		built.FieldConfig = dashboard.NewFieldConfigSource()
	}
	defaults := &built.FieldConfig.Defaults
	defaults.Unit, defaults.Min, defaults.Max = &p.unit, cog.ToPtr(0.0), p.max
	if p.empty != "" {
		defaults.NoValue = &p.empty
	}
	if p.texts != nil {
		mapping := dashboard.ValueMap{Type: dashboard.MappingTypeValueToText, Options: p.texts}
		defaults.Mappings = []dashboard.ValueMapping{{ValueMap: &mapping}}
	}
	defaults.Thresholds = thresholds(p.steps)
	return built
}

func thresholds(steps []step) *dashboard.ThresholdsConfig {
	all := []dashboard.Threshold{{Color: "green"}}
	for _, one := range steps {
		if one.from == 0 {
			// The first step begins at minus infinity.
			all = []dashboard.Threshold{{Color: one.color}}
			continue
		}
		all = append(all, dashboard.Threshold{Color: one.color, Value: cog.ToPtr(one.from)})
	}
	return &dashboard.ThresholdsConfig{Mode: dashboard.ThresholdsModeAbsolute, Steps: all}
}

// A number, coloured by the thresholds.
func number(p panel) dashboard.Panel {
	p.height = 4
	built := must(stat.NewPanelBuilder().
		ColorMode(common.BigValueColorModeValue).
		GraphMode(common.BigValueGraphModeArea).
		Orientation(common.VizOrientationAuto).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
		Build())
	built = p.fill(built, false)
	built.FieldConfig.Defaults.Color = colorBy("thresholds")
	built.GridPos = p.place(0, 0)
	return built
}

// Lines over time.
func lines(p panel) dashboard.Panel {
	p.height = 8
	builder := timeseries.NewPanelBuilder().
		LineWidth(1).FillOpacity(10).ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().
			DisplayMode(common.LegendDisplayModeTable).Placement(common.LegendPlacementBottom).
			ShowLegend(true).Calcs([]string{"lastNotNull", "max"})).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
	if p.stacked {
		builder.Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal))
	}
	if len(p.steps) > 0 {
		builder.ThresholdsStyle(common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed))
	}
	if p.limit != "" {
		builder.OverrideByQuery(p.limit, []dashboard.DynamicConfigValue{
			{Id: "color", Value: map[string]any{"mode": "fixed", "fixedColor": "red"}},
			{Id: "custom.lineStyle", Value: map[string]any{"fill": "dash", "dash": []int{10, 10}}},
			{Id: "custom.fillOpacity", Value: 0},
			{Id: "custom.stacking", Value: map[string]any{"mode": "none"}},
		})
	}
	built := p.fill(must(builder.Build()), false)
	built.FieldConfig.Defaults.Color = colorBy("palette-classic")
	built.GridPos = p.place(0, 0)
	return built
}

// Which of some states held when.
func timeline(p panel) dashboard.Panel {
	p.height = 8
	builder := statetimeline.NewPanelBuilder().
		ShowValue(common.VisibilityModeNever).MergeValues(true).RowHeight(0.9).FillOpacity(80).LineWidth(0).
		Legend(common.NewVizLegendOptionsBuilder().
			DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).
			ShowLegend(true).Calcs([]string{}))
	built := p.fill(must(builder.Build()), false)
	built.FieldConfig.Defaults.Color = colorBy("thresholds")
	built.GridPos = p.place(0, 0)
	return built
}

// Rows whose columns are the results of the queries, joined by the labels that all of them have.
func rows(p panel, columns ...dashboard.DashboardFieldConfigSourceOverrides) dashboard.Panel {
	p.width, p.height = gridWidth, 10
	names, order := map[string]any{}, map[string]any{}
	for i, one := range p.queries {
		column := fmt.Sprintf("Value #%c", 'A'+i)
		names[column] = one.name
		// After the labels.
		order[column] = i + 10
	}
	built := must(table.NewPanelBuilder().
		WithTransformation(dashboard.DataTransformerConfig{Id: "merge", Options: map[string]any{}}).
		WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
			"excludeByName": map[string]any{"Time": true}, "indexByName": order, "renameByName": names,
		}}).
		SortBy([]cog.Builder[common.TableSortByFieldState]{
			common.NewTableSortByFieldStateBuilder().DisplayName(p.queries[0].name).Desc(true),
		}).
		Filterable(true).
		Build())
	built.Options.(*table.Options).Footer = nil
	built = p.fill(built, true)
	built.FieldConfig.Defaults.Color = colorBy("thresholds")
	built.FieldConfig.Overrides = columns
	built.GridPos = p.place(0, 0)
	return built
}

// What one column of a table has of its own.
func column(name string, properties ...dashboard.DynamicConfigValue) dashboard.DashboardFieldConfigSourceOverrides {
	matcher := dashboard.MatcherConfig{Id: "byName", Options: name}
	return dashboard.DashboardFieldConfigSourceOverrides{Matcher: matcher, Properties: properties}
}

func unit(unit string) dashboard.DynamicConfigValue {
	return dashboard.DynamicConfigValue{Id: "unit", Value: unit}
}

// Colours the cell by these thresholds.
func colored(steps ...step) []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{
		{Id: "thresholds", Value: thresholds(steps)},
		{Id: "custom.cellOptions", Value: map[string]any{"type": "color-text"}},
	}
}

// Texts instead of the numbers of the cell.
func texts(of map[string]dashboard.ValueMappingResult) dashboard.DynamicConfigValue {
	mapping := dashboard.ValueMap{Type: dashboard.MappingTypeValueToText, Options: of}
	return dashboard.DynamicConfigValue{Id: "mappings", Value: []dashboard.ValueMapping{{ValueMap: &mapping}}}
}

func says(text, color string) dashboard.ValueMappingResult {
	return dashboard.ValueMappingResult{Text: &text, Color: &color}
}

func colorBy(mode dashboard.FieldColorModeId) *dashboard.FieldColor {
	return &dashboard.FieldColor{Mode: mode}
}

// The SDK fails only if a value is outside its range: an error in this program.
func must(built dashboard.Panel, err error) dashboard.Panel {
	if err != nil {
		panic(err)
	}
	return built
}
