package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

const (
	fleetUid = "rowlock-fleet"
	queueUid = "rowlock-queue"
	// All dashboards with this tag link to each other.
	tag = "rowlock"
)

// A row: the question that its panels answer together.
type row struct {
	title  string
	panels []dashboard.Panel
}

// A dashboard with these rows, from left to right and from top to bottom.
func layout(uid, title, about string, variables []cog.Builder[dashboard.VariableModel], all []row) *dashboard.DashboardBuilder {
	builder := dashboard.NewDashboardBuilder(title).
		Uid(uid).Description(about).Tags([]string{tag}).
		Time("now-3h", "now").Refresh("30s").Timezone("browser").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Variables(variables).
		Annotation(ready[dashboard.AnnotationQuery]{grafanaAnnotations()}).
		Link(ready[dashboard.DashboardLink]{dashboard.DashboardLink{
			Title: "Rowlock", Type: dashboard.DashboardLinkTypeDashboards, Tags: []string{tag},
			IncludeVars: true, KeepTime: true,
		}})
	var id, y uint32
	next := func() uint32 { id++; return id }
	for _, row := range all {
		builder.WithRow(dashboard.NewRowBuilder(row.title).Id(next()).
			GridPos(dashboard.GridPos{X: 0, Y: y, W: gridWidth, H: 1}))
		y++
		var x, height uint32
		for _, one := range row.panels {
			if x == gridWidth {
				x, y = 0, y+height
			}
			one.Id = cog.ToPtr(next())
			one.GridPos.X, one.GridPos.Y = x, y
			x, height = x+one.GridPos.W, one.GridPos.H
			builder.WithPanel(ready[dashboard.Panel]{one})
		}
		y += height
	}
	return builder
}

// Something that is finished, for the SDK, which asks for a builder.
type ready[T any] struct{ value T }

func (r ready[T]) Build() (T, error) { return r.value, nil }

// The annotations that users add in Grafana: every dashboard has this source of them.
func grafanaAnnotations() dashboard.AnnotationQuery {
	return dashboard.AnnotationQuery{
		BuiltIn: cog.ToPtr(1.0), Enable: true, Hide: cog.ToPtr(true), IconColor: "rgba(0, 211, 255, 1)",
		Name: "Annotations & Alerts", Type: cog.ToPtr("dashboard"),
		Datasource: &common.DataSourceRef{Type: cog.ToPtr("grafana"), Uid: cog.ToPtr("-- Grafana --")},
	}
}

func datasourceVariable() cog.Builder[dashboard.VariableModel] {
	return dashboard.NewDatasourceVariableBuilder("datasource").
		Label("Data source").Type("prometheus").Regex("").
		Description("The Prometheus that scrapes Rowlock.")
}

// A variable with the values of a label.
func labelVariable(name, label, query string) *dashboard.QueryVariableBuilder {
	return dashboard.NewQueryVariableBuilder(name).
		Label(label).
		Query(dashboard.StringOrMap{Map: map[string]any{"qryType": 1, "query": query, "refId": name}}).
		Definition(query).
		Datasource(source()).
		Regex("").
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc)
}
