package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

const perDatabase = "namespace, secret"

func fleetDatabases() []dashboard.Panel {
	used := fmt.Sprintf("sum by (%s) (%s)", perDatabase,
		inFleet.gauge("namespace, secret, kind", "rowlock_database_connections", `kind=~"others|workers"`))
	limit := inFleet.gauge(perDatabase, "rowlock_database_connections", `kind="limit"`)
	statements := func(metric string) string { return inFleet.quantile(0.99, metric) }
	return []dashboard.Panel{
		lines(panel{
			title: "How full are the connections?", width: 8, unit: unitShare, max: cog.ToPtr(1.0), steps: []step{{0.8, "orange"}, {0.95, "red"}},
			alerts:  []string{"RowlockConnectionsShort"},
			about:   fmt.Sprintf("Connections in use, as a share of the limit of the database, for the %d fullest. The scaling stops before it is full: then Connections holds queues back. Empty behind a connection pooler.", linesMax),
			queries: []query{{top(linesMax, ratio(used, limit)), "{{namespace}} {{secret}}"}},
			empty:   "no database without a pooler",
		}),
		lines(panel{
			title: "How long do partitions last?", width: 8, unit: unitSeconds, steps: []step{{0, "red"}, {86400, "green"}},
			alerts:  []string{"RowlockPartitionsRunOut"},
			about:   fmt.Sprintf("Time until the last existing partition of a database ends, for the %d shortest. Below a day, maintenance does not run. At 0, enqueue fails.", linesMax),
			queries: []query{{fmt.Sprintf("bottomk(%d, min by (%s) (%s))", linesMax, perDatabase, inFleet.of("rowlock_database_partitions_left_seconds")), "{{namespace}} {{secret}}"}},
		}),
		lines(panel{
			title: "Which databases do not answer?", width: 8, unit: unitSeconds, steps: []step{{60, "red"}},
			alerts:  []string{"RowlockDatabaseNotPolled"},
			about:   fmt.Sprintf("How long ago each database was read, for the %d oldest. A line that rises steadily is a database that does not answer.", linesMax),
			queries: []query{{top(linesMax, snapshotAge()), "{{namespace}} {{secret}}"}},
		}),
		lines(panel{
			title: "How long do polls take?", width: 8, unit: unitSeconds, steps: []step{{2, "red"}},
			alerts:  []string{"RowlockDatabaseSlow"},
			about:   fmt.Sprintf("How long each database took to answer the last poll, which counts the tasks of all its queues, for the %d slowest. Above 2 s scaling reacts later.", linesMax),
			queries: []query{{top(linesMax, inFleet.gauge(perDatabase, "rowlock_database_last_snapshot_duration_seconds")), "{{namespace}} {{secret}}"}},
		}),
		lines(panel{
			title: "What keeps dead rows?", width: 8, unit: unitSeconds, steps: []step{{1800, "red"}},
			alerts:  []string{"RowlockHorizonPinned"},
			about:   fmt.Sprintf("The age of the oldest transaction that keeps Postgres from removing dead rows, by the kind of its holder, for the %d oldest. Minutes are normal during a backup. Hours let tables grow.", linesMax),
			queries: []query{{top(linesMax, inFleet.gauge("namespace, secret, kind", "rowlock_database_horizon_age_seconds")), "{{namespace}} {{secret}} {{kind}}"}},
		}),
		lines(panel{
			title: "Which polls fail?", width: 8, unit: unitShare, max: cog.ToPtr(1.0),
			alerts: []string{"RowlockDatabaseNotPolled"},
			about:  fmt.Sprintf("Polls of a database that failed, as a share of all, for the %d databases with the highest share. The log of the operator says why.", linesMax),
			queries: []query{{top(linesMax, ratio(inFleet.rate(perDatabase, "rowlock_database_polls_total", `result="failed"`),
				"("+inFleet.rate(perDatabase, "rowlock_database_polls_total")+" > 0)")), "{{namespace}} {{secret}}"}},
		}),
		lines(panel{
			title: "How long do polls take on average?", width: 8, unit: unitSeconds,
			alerts: []string{"RowlockDatabaseSlow"},
			about:  fmt.Sprintf("The mean time of all polls, failed ones among them, for the %d slowest databases. The panel about the last poll shows peaks, this one the trend.", linesMax),
			queries: []query{{top(linesMax, ratio(inFleet.rate(perDatabase, "rowlock_database_poll_seconds_total"),
				"("+inFleet.rate(perDatabase, "rowlock_database_polls_total")+" > 0)")), "{{namespace}} {{secret}}"}},
		}),
		lines(panel{
			title: "How fast are claims and settlements?", width: 8, unit: unitSeconds,
			about: "Time that databases took for 99 of 100 claims and settlements of all queues. Above a second, databases are overloaded or a long transaction slows them down.",
			queries: []query{
				{statements("rowlock_worker_claim_duration_seconds"), "claim, 99 %"},
				{statements("rowlock_worker_settle_duration_seconds"), "settlement, 99 %"},
			},
			empty: noTaskRan,
		}),
		lines(panel{
			title: "Which errors do workers meet?", width: 8, unit: unitPerSec,
			about:   "Errors of databases and handlers per second, by kind. The logs of the workers say which.",
			queries: []query{{inFleet.orNoWorker("kind", inFleet.rate("kind", "rowlock_worker_errors_total")), "{{kind}}"}},
		}),
	}
}

// The conditions of the table, and the status that is good. The first one sorts.
var conditions = []struct{ name, good string }{
	{"Ready", "True"}, {"Stalled", "False"}, {"DatabaseReachable", "True"}, {"SchemaReady", "True"},
	{"HandlerHealthy", "True"}, {"ScalingLimited", "False"}, {"Contested", "False"},
}

// The alerts about conditions.
var conditionAlerts = []string{
	"RowlockQueueNotReady", "RowlockQueueStalled", "RowlockDatabaseUnreachable", "RowlockHandlerUnhealthy",
	"RowlockScalingContested",
}

// A condition as a number: 0 is as it should be, 1 unknown, 2 the opposite.
func condition(name, good string) string {
	bad := map[string]string{"True": "False", "False": "True"}[good]
	of := func(status string) string {
		return inFleet.of("rowlock_task_queue_condition", fmt.Sprintf("type=%q", name), fmt.Sprintf("status=%q", status))
	}
	return fmt.Sprintf("max by (namespace, task_queue) (0 * %s or %s or 2 * %s)", of(good), of("Unknown"), of(bad))
}

func fleetOperator() []dashboard.Panel {
	worst := top(rowsMax, condition(conditions[0].name, conditions[0].good))
	var queries []query
	var columns []dashboard.DashboardFieldConfigSourceOverrides
	for i, one := range conditions {
		expression := worst
		if i > 0 {
			expression = fmt.Sprintf("%s and %s", condition(one.name, one.good), worst)
		}
		queries = append(queries, query{expression, one.name})
		bad := map[string]string{"True": "False", "False": "True"}[one.good]
		shown := texts(map[string]dashboard.ValueMappingResult{
			"0": says(one.good, "green"), "1": says("Unknown", "orange"), "2": says(bad, "red"),
		})
		columns = append(columns, column(one.name, append(colored(), shown)...))
	}
	replicas := `max by (job, instance, namespace, pod) (%s and on (job, instance) rowlock_build_info{component="operator"})`
	return []dashboard.Panel{
		rows(panel{
			title: "TaskQueues and their conditions, those that are not Ready first", unit: unitNumber,
			alerts:  append(conditionAlerts, "RowlockOperatorForbidden"),
			about:   fmt.Sprintf("At most %d TaskQueues. Red: the condition is not as it should be; `kubectl describe taskqueue` shows its reason, and its message says what to do.", rowsMax),
			queries: queries,
			empty:   "no operator",
		}, columns...),
		lines(panel{
			title: "How far is the release?", width: 8, unit: unitNumber,
			alerts:  []string{"RowlockRolloutStuck"},
			about:   "Queues whose pods a new release replaces now, and those that wait for a rollout slot. 0 except after an update of the operator.",
			queries: []query{{"sum by (state) (rowlock_operator_rollouts)", "{{state}}"}},
			empty:   "no operator",
		}),
		lines(panel{
			title: "How often do pods end early?", width: 8, unit: unitNumber,
			alerts: []string{"RowlockPodsEndEarly"},
			about:  "Pods that ended before their worker had left (evicted, out of memory, lost nodes), and the tasks taken back from them, within an hour.",
			queries: []query{
				{"sum(increase(rowlock_operator_rescued_pods_total[1h]))", "pods"},
				{"sum(increase(rowlock_operator_rescued_tasks_total[1h]))", "tasks"},
			},
			empty: "no operator",
		}),
		lines(panel{
			title: "Can each replica read TaskQueues?", width: 8, unit: unitNumber, max: cog.ToPtr(1.0),
			alerts:  []string{"RowlockTaskQueuesUnreadable"},
			about:   "1 for each replica of the operator that can; 0, for example, while the CRD is missing. `/readyz` of the replica says why.",
			queries: []query{{"min by (namespace, pod, instance) (rowlock_operator_task_queues_readable)", "{{namespace}} {{pod}} {{instance}}"}},
			empty:   "no operator",
		}),
		lines(panel{
			title: "Which versions run?", width: 8, unit: unitNumber, stacked: true,
			about:   "Processes by component and version. During a release two versions run side by side.",
			queries: []query{{"count by (component, version) (rowlock_build_info)", "{{component}} {{version}}"}},
		}),
		lines(panel{
			title: "Does an operator need more memory?", width: 8, unit: unitBytes,
			about:   "Resident memory of the replicas. Compare it with resources.limits.memory of the chart (256 MiB by default).",
			queries: []query{{top(linesMax, fmt.Sprintf(replicas, "process_resident_memory_bytes")), "{{namespace}} {{pod}} {{instance}}"}},
			empty:   "no operator",
		}),
		lines(panel{
			title: "Does an operator need more CPU?", width: 8, unit: unitNumber,
			about:   "CPUs that each replica uses. One that uses a whole CPU for minutes observes more TaskQueues than it can.",
			queries: []query{{top(linesMax, fmt.Sprintf(replicas, "rate(process_cpu_seconds_total[$__rate_interval])")), "{{namespace}} {{pod}} {{instance}}"}},
			empty:   "no operator",
		}),
	}
}
