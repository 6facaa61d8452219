package main

import (
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

const inQueue = queueScope

// Said by panels about attempts, if there were none.
const noTaskRan = "no task ran in this time"

// One queue: what waits, what runs, what fails, and why it has its number of workers.
func queue() (string, *dashboard.DashboardBuilder) {
	variables := []cog.Builder[dashboard.VariableModel]{
		datasourceVariable(),
		labelVariable("namespace", "Namespace", "label_values(rowlock_queue_total_workers, namespace)").
			Description("The namespace of the TaskQueue. With rowlock dev there is none."),
		labelVariable("queue", "Queue", `label_values(rowlock_queue_total_workers{namespace="$namespace"}, queue)`).
			Description("The name of the queue: spec.queueName, or else the name of the TaskQueue."),
	}
	about := "One queue of Rowlock: what waits and for how long, what gets done, what fails and why, and why it has " +
		"its number of workers. Each panel's description says how to read it."
	return "queue.json", layout(queueUid, "Rowlock / Queue", about, variables, []row{
		{"How is it now?", queueNow()},
		{"Do tasks wait too long?", queueWaiting()},
		{"What gets done?", queueDone()},
		{"What fails?", queueFailures()},
		{"Are there enough workers?", queueWorkers()},
		{"Do outcomes reach the database, and traces their collector?", queueDatabase()},
	})
}

// A gauge of the operator without labels.
func theGauge(metric string, more ...string) string {
	return fmt.Sprintf("max(%s)", inQueue.of(metric, more...))
}

func queueNow() []dashboard.Panel {
	tasks := func(title, state, about string, steps ...step) dashboard.Panel {
		var alerts []string
		if state == "dead" {
			alerts = []string{"RowlockTasksDying"}
		}
		return number(panel{
			title: title, width: 3, unit: unitNumber, steps: steps, about: about, alerts: alerts,
			queries: []query{{theGauge("rowlock_queue_tasks", fmt.Sprintf("state=%q", state)), state}},
			empty:   "unknown",
		})
	}
	return []dashboard.Panel{
		number(panel{
			title: "Oldest ÷ target", width: 3, unit: unitNumber, steps: []step{{1, "orange"}, {10, "red"}},
			alerts:  []string{"RowlockQueueLate", "RowlockQueueStuck"},
			about:   "How long the oldest available task has waited, divided by the wait target. Above 1 the queue is late.",
			queries: []query{{ratio(theGauge("rowlock_queue_oldest_available_seconds"), theGauge("rowlock_queue_wait_target_seconds")), "oldest ÷ target"}},
			empty:   "unknown",
		}),
		tasks("Available", "available", "Tasks that could start now: the backlog. Above 50,000 it is an estimate."),
		tasks("Running", "running", "Tasks that a worker has claimed and not yet settled."),
		tasks("Retryable", "retryable", "Tasks that failed and wait for their next attempt.", step{1, "orange"}),
		tasks("Scheduled", "scheduled", "Tasks with a delay that has not passed yet."),
		tasks("Dead", "dead", "Tasks that are given up. `rowlock tasks --state dead` lists them, and `rowlock retry` runs them again.", step{1, "red"}),
		number(panel{
			title: "Held back by", width: 3, unit: unitNumber, texts: heldBack,
			alerts:  []string{"RowlockQueueHeldBack"},
			about:   "The limit that keeps the queue from getting the workers that it needs. Total: workers.total. Connections: the database has none left. NotStarting: pods do not start. Failing: nearly all attempts fail.",
			queries: []query{{fmt.Sprintf("max(%s)", limitsAsNumber(inQueue)), "held back by"}},
		}),
		number(panel{
			title: "Paused", width: 3, unit: unitNumber, texts: yesNo,
			alerts:  []string{"RowlockQueuePausedForLong"},
			about:   "Whether spec.paused is set: then no task starts.",
			queries: []query{{theGauge("rowlock_queue_paused"), "paused"}},
		}),
		timeline(panel{
			title: "What do the conditions of the TaskQueue say?", width: gridWidth, unit: unitNumber, steps: []step{{0, "green"}},
			alerts: conditionAlerts,
			texts: map[string]dashboard.ValueMappingResult{
				"0": says("as it should be", "green"), "1": says("unknown", "orange"), "2": says("not as it should be", "red"),
			},
			about:   "Each condition with its reason: green while it is as it should be, red while it is not. `kubectl describe taskqueue` shows its message, which says what to do.",
			queries: []query{{conditionsWithReason(inQueue), "{{type}}: {{reason}}"}},
			empty:   "no operator",
		}),
	}
}

// All conditions with their reasons, as numbers: 0 is as it should be, 1 unknown, 2 the opposite.
func conditionsWithReason(in scope) string {
	types := map[string][]string{}
	for _, one := range conditions {
		types[one.good] = append(types[one.good], one.name)
	}
	of := func(good, status string) string {
		names := fmt.Sprintf("type=~%q", strings.Join(types[good], "|"))
		return in.of("rowlock_task_queue_condition", names, fmt.Sprintf("status=%q", status))
	}
	unknown := in.of("rowlock_task_queue_condition", `status="Unknown"`)
	return fmt.Sprintf("max by (type, reason) (0 * %s or 0 * %s or 1 * %s or 2 * %s or 2 * %s)",
		of("True", "True"), of("False", "False"), unknown, of("True", "False"), of("False", "True"))
}

func queueWaiting() []dashboard.Panel {
	return []dashboard.Panel{
		lines(panel{
			title: "How long has the oldest task waited?", width: 12, unit: unitSeconds, limit: "B",
			alerts: []string{"RowlockQueueLate", "RowlockQueueStuck"},
			about:  "The age of the oldest available task, and the wait target as a dashed line. Above it for long: too few workers, or none that starts.",
			queries: []query{
				{theGauge("rowlock_queue_oldest_available_seconds"), "oldest task"},
				{theGauge("rowlock_queue_wait_target_seconds"), "target"},
			},
		}),
		quantiles("How long did tasks wait before they started?", "rowlock_worker_task_wait_seconds",
			"From when a task became available until its handler was called, for tasks that started in this time: half of them, 90 and 99 of 100 waited at most this long. It says nothing of tasks that did not start."),
		lines(panel{
			title: "How large is the backlog?", width: 12, unit: unitNumber, stacked: true,
			about:   "Tasks that are not finished, by state. Available ones could start now, scheduled and retryable ones later.",
			queries: []query{{inQueue.gauge("state", "rowlock_queue_tasks", `state!="dead"`), "{{state}}"}},
		}),
		lines(panel{
			title: "Does a low priority starve?", width: 12, unit: unitSeconds,
			about:   "The age of the oldest available task of each priority; 0 is the most urgent. A line that only rises is a priority that does not get its turn.",
			queries: []query{{inQueue.gauge("priority", "rowlock_queue_oldest_by_priority_seconds"), "priority {{priority}}"}},
		}),
	}
}

func quantiles(title, histogram, about string) dashboard.Panel {
	var queries []query
	for _, one := range []struct {
		quantile float64
		name     string
	}{{0.5, "50 %"}, {0.9, "90 %"}, {0.99, "99 %"}} {
		queries = append(queries, query{inQueue.quantile(one.quantile, histogram), one.name})
	}
	return lines(panel{title: title, width: 12, unit: unitSeconds, about: about, queries: queries, empty: noTaskRan})
}

func queueDone() []dashboard.Panel {
	return []dashboard.Panel{
		lines(panel{
			title: "Do as many tasks come in as get done?", width: 12, unit: unitPerSec,
			about: "Tasks per second that were enqueued, also those with a delay, and that were completed. The backlog grows while the first line is above the second.",
			queries: []query{
				{fmt.Sprintf("sum(rate(%s[$__rate_interval]))", inQueue.of("rowlock_queue_enqueued_tasks_total")), "enqueued"},
				{inQueue.orZero(fmt.Sprintf("sum(rate(%s[$__rate_interval]))", inQueue.of("rowlock_worker_tasks_settled_total", `outcome="complete"`))), "completed"},
			},
		}),
		lines(panel{
			title: "How many tasks start late?", width: 12, unit: unitShare, max: cog.ToPtr(1.0), steps: []step{{0.25, "red"}},
			alerts: []string{"RowlockQueueStartsLate"},
			about:  "The share of tasks that started after a longer wait than the wait target. 0 while none starts: then look at the oldest task.",
			queries: []query{{inQueue.orZero(fmt.Sprintf("sum(rate(%s[$__rate_interval])) / (sum(rate(%s[$__rate_interval])) > 0)",
				inQueue.of("rowlock_worker_tasks_started_late_total"), inQueue.of("rowlock_worker_tasks_started_total"))), "late"}},
		}),
		lines(panel{
			title: "Tasks completed per second, by type", width: 12, unit: unitPerSec, stacked: true,
			about:   fmt.Sprintf("The %d most frequent types. A worker tells at most 20 types apart; all others are `other`.", linesMax),
			queries: []query{{inQueue.orNoWorker("type", top(linesMax, inQueue.rate("type", "rowlock_worker_tasks_settled_total", `outcome="complete"`))), "{{type}}"}},
		}),
		lines(panel{
			title: "What becomes of attempts?", width: 12, unit: unitPerSec, stacked: true,
			about:   "Settled tasks per second by outcome. Retry: it runs again after its back-off. Release: returned without using an attempt. Suspect: the handler ended while it ran.",
			queries: []query{{inQueue.orNoWorker("outcome", inQueue.rate("outcome", "rowlock_worker_tasks_settled_total")), "{{outcome}}"}},
		}),
		quantiles("How long do attempts take?", "rowlock_worker_task_duration_seconds",
			"Time that the handler took for one attempt: half of them, 90 and 99 of 100 took at most this long. Compare it with the timeout of the queue."),
		lines(panel{
			title: "Which types take long?", width: 12, unit: unitSeconds,
			about: fmt.Sprintf("Mean time of an attempt, for the %d slowest types.", linesMax),
			queries: []query{{top(linesMax, ratio(inQueue.rate("type", "rowlock_worker_busy_seconds_total"),
				"("+inQueue.rate("type", "rowlock_worker_tasks_started_total")+" > 0)")), "{{type}}"}},
			empty: noTaskRan,
		}),
	}
}

func queueFailures() []dashboard.Panel {
	hourly := func(metric string, more ...string) string {
		return inQueue.orZero(fmt.Sprintf("sum(increase(%s[1h]))", inQueue.of(metric, more...)))
	}
	return []dashboard.Panel{
		lines(panel{
			title: "Why do attempts fail?", width: 12, unit: unitPerSec, stacked: true,
			alerts:  []string{"RowlockHandlerUnreachable"},
			about:   "Failed attempts per second, by reason. http_5xx, http_4xx: what the handler answered. timeout: it took too long. broken: no complete answer. handler_ended: its process ended. unreachable: the task did not reach it, and no attempt was used.",
			queries: []query{{inQueue.orNoWorker("reason", inQueue.rate("reason", "rowlock_worker_attempt_errors_total")), "{{reason}}"}},
		}),
		lines(panel{
			title: "Which types fail?", width: 12, unit: unitShare, max: cog.ToPtr(1.0), steps: []step{{0.25, "red"}},
			alerts: []string{"RowlockHandlerFailing"},
			about:  fmt.Sprintf("Failed attempts as a share of all attempts of a type, for the %d types with the highest share.", linesMax),
			queries: []query{{top(linesMax, ratio(inQueue.rate("type", "rowlock_worker_attempt_errors_total"),
				"("+inQueue.rate("type", "rowlock_worker_tasks_started_total")+" > 0)")), "{{type}}"}},
			empty: noTaskRan,
		}),
		lines(panel{
			title: "Which types die?", width: 12, unit: unitNumber,
			alerts:  []string{"RowlockTasksDying"},
			about:   fmt.Sprintf("Tasks that became dead within the hour before, for the %d types with the most. `rowlock task ID` shows the errors of one.", linesMax),
			queries: []query{{inQueue.orNoWorker("type", top(linesMax, inQueue.hourly("type", "rowlock_worker_tasks_settled_total", `outcome="dead"`))), "{{type}}"}},
		}),
		lines(panel{
			title: "Do handlers listen?", width: 12, unit: unitNumber, steps: []step{{1, "red"}},
			alerts:  []string{"RowlockHandlerClosed", "RowlockHandlerUnhealthy"},
			about:   "Workers that claim nothing, because the port of their handler accepts no connection. A short time is normal while pods start.",
			queries: []query{{inQueue.orZero(fmt.Sprintf("sum(1 - %s)", inQueue.of("rowlock_worker_handler_reachable"))), "closed"}},
		}),
		lines(panel{
			title: "How full is the backlog?", width: 12, unit: unitNumber, limit: "B",
			alerts: []string{"RowlockQueueFull"},
			about:  "Unfinished tasks. At the dashed line, limits.backlog, enqueue fails. Tasks that are due in more than a day have a limit of their own, so it may be higher.",
			queries: []query{
				{fmt.Sprintf("sum(%s)", inQueue.gauge("state", "rowlock_queue_tasks", `state=~"available|scheduled|retryable"`)), "unfinished"},
				{theGauge("rowlock_queue_backlog_limit_tasks"), "limit"},
			},
		}),
		lines(panel{
			title: "Does the handler crash, or do tasks run twice?", width: 12, unit: unitNumber,
			alerts: []string{"RowlockHandlerEnds", "RowlockLeasesLost"},
			about:  "Within the hour before. Handler ended: its process ended while tasks ran. Suspects: the tasks that ran in it, each of which runs alone next; one that ends its handler again is dead. Leases lost: an outcome came too late, so the task may have run twice.",
			queries: []query{
				{hourly("rowlock_worker_handler_ended_total"), "handler ended"},
				{hourly("rowlock_worker_tasks_settled_total", `outcome="suspect"`), "suspects"},
				{hourly("rowlock_worker_lease_lost_total"), "leases lost"},
			},
		}),
	}
}
