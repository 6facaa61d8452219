package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

const (
	// The most lines of a panel and rows of a table. With thousands of queues, the worst are what matters.
	linesMax = 10
	rowsMax  = 100
)

const inFleet = fleetScope

// All queues: which of them need somebody, and why.
func fleet() (string, *dashboard.DashboardBuilder) {
	variables := []cog.Builder[dashboard.VariableModel]{
		datasourceVariable(),
		labelVariable("namespace", "Namespace", "label_values(rowlock_queue_total_workers, namespace)").
			Multi(true).IncludeAll(true).AllValue(".*").Current(all()).
			Description("Namespaces of TaskQueues. With rowlock dev there is none: leave it at All."),
	}
	about := "All queues of Rowlock: which of them need somebody, which limits bind, and how databases and the " +
		"operator are. Each panel's description says how to read it."
	return "fleet.json", layout(fleetUid, "Rowlock / Fleet", about, variables, []row{
		{"Does anything need somebody?", fleetNow()},
		{"Which queues?", fleetQueues()},
		{"Are there enough workers?", fleetWorkers()},
		{"Are the databases well?", fleetDatabases()},
		{"Is the operator well?", fleetOperator()},
	})
}

func all() dashboard.VariableOption {
	return dashboard.VariableOption{
		Text:  dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
		Value: dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
	}
}

const perQueue = "namespace, queue"

func oldest() string { return inFleet.gauge(perQueue, "rowlock_queue_oldest_available_seconds") }
func target() string { return inFleet.gauge(perQueue, "rowlock_queue_wait_target_seconds") }
func paused() string { return inFleet.gauge(perQueue, "rowlock_queue_paused") }

// How late the oldest task of each queue is: 1 is just in time.
func lateness() string { return ratio(oldest(), target()) }

// Tasks of each queue in a state.
func tasksIn(state string) string {
	return inFleet.gauge(perQueue, "rowlock_queue_tasks", fmt.Sprintf("state=%q", state))
}

func workers(kind string) string {
	return inFleet.gauge(perQueue, "rowlock_queue_workers", fmt.Sprintf("kind=%q", kind))
}

func fleetNow() []dashboard.Panel {
	ready := func(more ...string) string {
		return inFleet.gauge("namespace, task_queue", "rowlock_task_queue_condition", append([]string{`type="Ready"`}, more...)...)
	}
	return []dashboard.Panel{
		number(panel{
			title: "TaskQueues not Ready", width: 3, unit: unitNumber, steps: []step{{1, "red"}},
			alerts:  []string{"RowlockQueueNotReady"},
			about:   "TaskQueues whose condition Ready is False or Unknown. Their row in the last table names the condition; `kubectl describe taskqueue` says what to do.",
			queries: []query{{fmt.Sprintf("sum(%s) or 0 * count(%s)", ready(`status!="True"`), ready()), "not Ready"}},
			empty:   "no operator",
		}),
		number(panel{
			title: "Queues that are late", width: 3, unit: unitNumber, steps: []step{{1, "orange"}},
			alerts:  []string{"RowlockQueueLate", "RowlockQueueStuck"},
			about:   "Queues whose oldest task has waited for longer than the wait target. Paused queues do not count. A short time is normal after a burst.",
			queries: []query{{fmt.Sprintf("sum((%s > bool %s) * (1 - %s))", oldest(), target(), paused()), "late"}},
		}),
		number(panel{
			title: "Paused queues", width: 3, unit: unitNumber, steps: []step{{1, "blue"}},
			alerts:  []string{"RowlockQueuePausedForLong"},
			about:   "Queues with spec.paused: none of their tasks starts.",
			queries: []query{{fmt.Sprintf("sum(%s)", paused()), "paused"}},
		}),
		number(panel{
			title: "Available tasks", width: 3, unit: unitNumber,
			about:   "Tasks that could start now: the backlog of all queues. Above 50,000 per queue it is an estimate.",
			queries: []query{{fmt.Sprintf("sum(%s)", tasksIn("available")), "available"}},
		}),
		number(panel{
			title: "Dead tasks", width: 3, unit: unitNumber, steps: []step{{1, "orange"}},
			about:   "Tasks that are given up and kept for cleanup.dead. `rowlock tasks --state dead` lists them, and `rowlock retry` runs them again.",
			queries: []query{{fmt.Sprintf("sum(%s)", tasksIn("dead")), "dead"}},
		}),
		number(panel{
			title: "Died in the last hour", width: 3, unit: unitNumber, steps: []step{{1, "red"}},
			alerts:  []string{"RowlockTasksDying"},
			about:   "Tasks that became dead within an hour. The dashboard of the queue shows their types and the reasons.",
			queries: []query{{inFleet.orZero(fmt.Sprintf("sum(increase(%s[1h]))", inFleet.of("rowlock_worker_tasks_settled_total", `outcome="dead"`))), "died"}},
		}),
		number(panel{
			title: "Age of the numbers", width: 3, unit: unitSeconds, steps: []step{{60, "orange"}, {300, "red"}},
			alerts:  []string{"RowlockDatabaseNotPolled"},
			about:   "How long ago the database that answered least recently was read. Above a minute, what this page says of its queues is old: the database does not answer, or no operator leads.",
			queries: []query{{fmt.Sprintf("max(%s)", snapshotAge()), "age"}},
		}),
		number(panel{
			title: "Leaders", width: 3, unit: unitNumber, steps: []step{{0, "red"}, {1, "green"}},
			alerts:  []string{"RowlockNoLeader"},
			about:   "Operators that lead: one for each release of the chart. With 0, tasks still run, but nothing is scaled. With rowlock dev it is always 0.",
			queries: []query{{"sum(rowlock_operator_leader) or vector(0)", "leaders"}},
		}),
	}
}

func snapshotAge() string {
	return "time() - " + inFleet.gauge("namespace, secret", "rowlock_database_last_snapshot_timestamp_seconds")
}

func fleetQueues() []dashboard.Panel {
	worst := top(rowsMax, lateness())
	// The rows are those of the first column.
	ofWorst := func(expression string) string { return fmt.Sprintf("%s and %s", expression, worst) }
	failing := ratio(
		fmt.Sprintf("sum by (%s) (rate(%s[15m]))", perQueue, inFleet.of("rowlock_worker_attempt_errors_total")),
		fmt.Sprintf("(sum by (%s) (rate(%s[15m])) > 0)", perQueue, inFleet.of("rowlock_worker_tasks_started_total")))
	backlog := fmt.Sprintf("sum by (%s) (%s)", perQueue,
		inFleet.gauge("namespace, queue, state", "rowlock_queue_tasks", `state=~"available|scheduled|retryable"`))
	open := dashboard.DynamicConfigValue{Id: "links", Value: []map[string]any{{
		"title": "Open this queue",
		"url":   "/d/" + queueUid + "?var-datasource=${datasource}&var-namespace=${__data.fields.namespace}&var-queue=${__data.fields.queue}&${__url_time_range}",
	}}}
	return []dashboard.Panel{
		rows(panel{
			title: "Queues, the latest first", unit: unitNumber,
			about: fmt.Sprintf("The %d queues whose oldest task waits longest, measured by their wait target: above 1 is late. Held back: more workers are needed, and this limit prevents them. Failing: the share of attempts that failed in 15 minutes; empty if none ran. A click on a queue opens its dashboard.", rowsMax),
			queries: []query{
				{worst, "Oldest ÷ target"},
				{ofWorst(oldest()), "Oldest"},
				{ofWorst(tasksIn("available")), "Available"},
				{ofWorst(tasksIn("running")), "Running"},
				{ofWorst(tasksIn("retryable")), "Retryable"},
				{ofWorst(tasksIn("dead")), "Dead"},
				{ofWorst(workers("desired")), "Workers desired"},
				{ofWorst(workers("busy")), "Workers busy"},
				{ofWorst(fmt.Sprintf("max by (%s) (%s)", perQueue, limitsAsNumber(inFleet))), "Held back"},
				{ofWorst(failing), "Failing"},
				{ofWorst(paused()), "Paused"},
			},
			empty: "no queue",
		},
			column("queue", open),
			column("Oldest ÷ target", append(colored(step{1, "orange"}, step{10, "red"}), dashboard.DynamicConfigValue{Id: "decimals", Value: 1})...),
			column("Oldest", unit(unitSeconds)),
			column("Dead", colored(step{1, "orange"})...),
			column("Held back", texts(heldBack)),
			column("Failing", append(colored(step{0.05, "orange"}, step{0.25, "red"}), unit(unitShare))...),
			column("Paused", texts(yesNo)),
		),
		lines(panel{
			title: "Which queues are late?", width: 12, unit: unitNumber, steps: []step{{1, "red"}},
			alerts:  []string{"RowlockQueueLate", "RowlockQueueStuck"},
			about:   fmt.Sprintf("How long the oldest task has waited, divided by the wait target, for the %d latest queues. Above the line at 1 users wait for longer than they should.", linesMax),
			queries: []query{{top(linesMax, lateness()), "{{namespace}} {{queue}}"}},
		}),
		lines(panel{
			title: "How large is the backlog?", width: 12, unit: unitNumber, stacked: true,
			about:   "Tasks of all queues by state. Available tasks could start now, scheduled and retryable ones later.",
			queries: []query{{fmt.Sprintf("sum by (state) (%s)", inFleet.gauge("namespace, queue, state", "rowlock_queue_tasks", `state!="dead"`)), "{{state}}"}},
		}),
		lines(panel{
			title: "Which queues complete the most tasks?", width: 8, unit: unitPerSec,
			about:   fmt.Sprintf("Completed tasks per second, of the %d busiest queues. A queue at zero shows 0.", linesMax),
			queries: []query{{top(linesMax, inFleet.orZeroPerQueue(inFleet.rate(perQueue, "rowlock_worker_tasks_settled_total", `outcome="complete"`))), "{{namespace}} {{queue}}"}},
		}),
		lines(panel{
			title: "Which queues get the most tasks?", width: 8, unit: unitPerSec,
			about:   fmt.Sprintf("Enqueued tasks per second, also those with a delay, of the %d queues with the most. Compare it with the panel beside it: a backlog grows where more come than are completed.", linesMax),
			queries: []query{{top(linesMax, inFleet.rate(perQueue, "rowlock_queue_enqueued_tasks_total")), "{{namespace}} {{queue}}"}},
		}),
		lines(panel{
			title: "Which queues start tasks late?", width: 8, unit: unitShare, max: cog.ToPtr(1.0), steps: []step{{0.25, "red"}},
			alerts:  []string{"RowlockQueueStartsLate"},
			about:   fmt.Sprintf("The share of tasks that started after a longer wait than the wait target, for the %d queues with the highest share. A queue in which no task starts shows 0: then look at the oldest task.", linesMax),
			queries: []query{{top(linesMax, inFleet.orZeroPerQueue(lateStarts(inFleet, perQueue))), "{{namespace}} {{queue}}"}},
		}),
		lines(panel{
			title: "Which queues are nearly full?", width: 12, unit: unitShare, steps: []step{{0.8, "orange"}, {1, "red"}},
			alerts:  []string{"RowlockQueueFull"},
			about:   fmt.Sprintf("Unfinished tasks as a share of limits.backlog, for the %d fullest queues. At 1, enqueue fails. Tasks that are due in more than a day have a limit of their own, so it may be higher.", linesMax),
			queries: []query{{top(linesMax, ratio(backlog, inFleet.gauge(perQueue, "rowlock_queue_backlog_limit_tasks"))), "{{namespace}} {{queue}}"}},
		}),
		lines(panel{
			title: "In which queues do attempts fail?", width: 12, unit: unitShare, max: cog.ToPtr(1.0), steps: []step{{0.25, "red"}},
			alerts: []string{"RowlockHandlerFailing"},
			about:  fmt.Sprintf("Failed attempts as a share of all, for the %d queues with the highest share. The dashboard of the queue shows the reasons.", linesMax),
			queries: []query{{top(linesMax, inFleet.orZeroPerQueue(ratio(
				inFleet.rate(perQueue, "rowlock_worker_attempt_errors_total"),
				"("+inFleet.rate(perQueue, "rowlock_worker_tasks_started_total")+" > 0)"))), "{{namespace}} {{queue}}"}},
		}),
	}
}

var yesNo = map[string]dashboard.ValueMappingResult{"0": says("no", "green"), "1": says("yes", "blue")}

func fleetWorkers() []dashboard.Panel {
	byKind := func(metric string) query {
		return query{fmt.Sprintf("sum by (kind) (%s)", inFleet.gauge("namespace, queue, kind", metric)), "{{kind}}"}
	}
	return []dashboard.Panel{
		lines(panel{
			title: "Workers", width: 8, unit: unitNumber,
			about:   "Worker slots of all queues. Desired: what the tasks need within the limits. Allocated: what instances may use. Busy: what runs a task. Desired above allocated for minutes: pods do not start.",
			queries: []query{byKind("rowlock_queue_workers")},
		}),
		lines(panel{
			title: "Pods", width: 8, unit: unitNumber,
			alerts:  []string{"RowlockQueueAsleep"},
			about:   "Pods of all queues. Starting ones that stay, or ready ones below desired, do not start: see the conditions of the TaskQueue.",
			queries: []query{byKind("rowlock_queue_pods")},
		}),
		lines(panel{
			title: "Which limits hold queues back?", width: 8, unit: unitNumber,
			alerts:  []string{"RowlockQueueHeldBack"},
			about:   "Queues that need more workers and do not get them, by the limit. Total: workers.total. Connections: the database has none left. NotStarting and Failing: pods do not start, or nearly all attempts fail.",
			queries: []query{{fmt.Sprintf("sum by (reason) (%s)", inFleet.gauge("namespace, queue, reason", "rowlock_queue_scaling_limited")), "{{reason}}"}},
		}),
	}
}
