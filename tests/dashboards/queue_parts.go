package main

import (
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// The limits of the scaling, in the order of their numbers in panels.
var limits = []string{"Total", "Connections", "NotStarting", "Failing"}

var heldBack = map[string]dashboard.ValueMappingResult{
	"0": says("nothing", "green"), "1": says("Total", "orange"), "2": says("Connections", "red"),
	"3": says("NotStarting", "red"), "4": says("Failing", "red"),
}

// The limit that holds a queue back, as its number; 0 if there is none.
func limitsAsNumber(in scope) string {
	var each []string
	for i, reason := range limits {
		each = append(each, fmt.Sprintf("%d * %s", i+1, in.of("rowlock_queue_scaling_limited", fmt.Sprintf("reason=%q", reason))))
	}
	return strings.Join(each, " or ")
}

func queueWorkers() []dashboard.Panel {
	slots := func(kind string) string { return theGauge("rowlock_queue_workers", fmt.Sprintf("kind=%q", kind)) }
	return []dashboard.Panel{
		lines(panel{
			title: "Workers", width: 12, unit: unitNumber, limit: "D",
			about: "Worker slots. Desired: what the tasks need within the limits. Allocated: what instances may use. Busy: what runs a task. The dashed line is workers.total.",
			queries: []query{
				{slots("desired"), "desired"}, {slots("allocated"), "allocated"}, {slots("busy"), "busy"},
				{theGauge("rowlock_queue_total_workers"), "total"},
			},
		}),
		lines(panel{
			title: "Pods", width: 12, unit: unitNumber,
			alerts:  []string{"RowlockQueueAsleep"},
			about:   "Starting pods that stay, or ready ones below desired, do not start: see the conditions of the TaskQueue. Draining ones finish their tasks and end.",
			queries: []query{{inQueue.gauge("kind", "rowlock_queue_pods"), "{{kind}}"}},
		}),
		timeline(panel{
			title: "Why this number of workers?", width: 12, unit: unitNumber, steps: []step{{0, "blue"}},
			texts:   map[string]dashboard.ValueMappingResult{"1": says("decides", "blue")},
			about:   "Which reason decided the number when. `rowlock why` shows the figures of each decision.",
			queries: []query{{inQueue.gauge("reason", "rowlock_queue_scaling_reason"), "{{reason}}"}},
		}),
		timeline(panel{
			title: "What holds scaling back?", width: 12, unit: unitNumber, steps: []step{{1, "red"}}, max: cog.ToPtr(1.0),
			texts:   map[string]dashboard.ValueMappingResult{"0": says("no", "transparent"), "1": says("holds back", "red")},
			alerts:  []string{"RowlockQueueHeldBack"},
			about:   "Red while more workers are needed and this limit prevents them. Total: raise workers.total. Connections: free some, or raise max_connections. NotStarting, Failing: repair the handler.",
			queries: []query{{inQueue.gauge("reason", "rowlock_queue_scaling_limited"), "{{reason}}"}},
		}),
		lines(panel{
			title: "Are the slots used?", width: 8, unit: unitShare,
			about: "The share of allocated slots that was busy with calls of the handler. Near 1 while tasks wait: more workers would help. Far below while tasks wait: claims or settlements are slow.",
			queries: []query{{inQueue.orZero(fmt.Sprintf("sum(rate(%s[$__rate_interval])) / (%s > 0)",
				inQueue.of("rowlock_worker_busy_seconds_total"), slots("allocated"))), "busy"}},
		}),
		lines(panel{
			title: "Do idle pods go first?", width: 8, unit: unitNumber,
			about: "Pods that went in scale-ins within the hour before: those that the operator had chosen, because they held the fewest tasks, and others, which something else ended.",
			queries: []query{
				{goneInScaleIns("true"), "chosen"},
				{goneInScaleIns("false"), "others"},
			},
			empty: "no operator",
		}),
		lines(panel{
			title: "Which workers run how many tasks?", width: 8, unit: unitNumber,
			about:   fmt.Sprintf("Running tasks of the %d busiest pods. Very uneven lines: some pods do not get tasks, or do not finish them.", linesMax),
			queries: []query{{inQueue.orNoWorker("pod", top(linesMax, fmt.Sprintf("max by (pod, instance) (%s)", inQueue.of("rowlock_worker_running_tasks")))), "{{pod}} {{instance}}"}},
		}),
	}
}

// Within an hour. Each operator counts what went while it led.
func goneInScaleIns(chosen string) string {
	counter := inQueue.of("rowlock_operator_scale_in_pods_total", fmt.Sprintf("chosen=%q", chosen))
	return fmt.Sprintf("sum(increase(%s[1h]))", counter)
}

func queueDatabase() []dashboard.Panel {
	seconds := func(metric string) string { return inQueue.quantile(0.99, metric) }
	perSettlement := ratio(
		fmt.Sprintf("sum(rate(%s[$__rate_interval]))", inQueue.of("rowlock_worker_settle_batch_size_sum")),
		fmt.Sprintf("(sum(rate(%s[$__rate_interval])) > 0)", inQueue.of("rowlock_worker_settle_batch_size_count")))
	return []dashboard.Panel{
		lines(panel{
			title: "How fast are claims and settlements?", width: 12, unit: unitSeconds,
			about: "Time that the database took for 99 of 100 claims and settlements. Above a second it is overloaded, or a long transaction slows it down.",
			queries: []query{
				{seconds("rowlock_worker_claim_duration_seconds"), "claim, 99 %"},
				{seconds("rowlock_worker_settle_duration_seconds"), "settlement, 99 %"},
			},
			empty: noTaskRan,
		}),
		lines(panel{
			title: "Are outcomes written?", width: 12, unit: unitNumber,
			alerts: []string{"RowlockWorkerCannotSettle"},
			about:  "Outcomes that are not yet in the database: they would run again if their pods died now. And how many outcomes one settlement writes.",
			queries: []query{
				{inQueue.orZero(fmt.Sprintf("sum(%s)", inQueue.of("rowlock_worker_unwritten_outcomes"))), "not written"},
				{inQueue.orZero(perSettlement), "per settlement"},
			},
		}),
		lines(panel{
			title: "When was the last heartbeat answered?", width: 12, unit: unitSeconds, steps: []step{{10, "red"}},
			alerts:  []string{"RowlockWorkerHeartbeatLate"},
			about:   "For how long the database has not answered the heartbeat of some worker: the longest time. Above 10 s that worker is about to lose its lease.",
			queries: []query{{inQueue.orZero(fmt.Sprintf("max(time() - %s)", inQueue.of("rowlock_worker_last_heartbeat_timestamp_seconds"))), "longest"}},
		}),
		lines(panel{
			title: "Which errors do workers meet?", width: 12, unit: unitPerSec, stacked: true,
			about:   "Errors of the database and the handler per second, by kind. The logs of the workers say which.",
			queries: []query{{inQueue.orNoWorker("kind", inQueue.rate("kind", "rowlock_worker_errors_total")), "{{kind}}"}},
		}),
		lines(panel{
			title: "Does maintenance work?", width: 8, unit: unitPerSec,
			about:   "What maintenance did per second in this queue's workers: moved due tasks, moved tasks of late transactions, rescued tasks, dropped partitions. Most of it is 0 most of the time.",
			queries: []query{{inQueue.orNoWorker("operation", inQueue.rate("operation", "rowlock_worker_maintenance_operations_total")), "{{operation}}"}},
		}),
		lines(panel{
			title: "Does somebody block maintenance?", width: 8, unit: unitNumber, steps: []step{{1, "red"}},
			alerts:  []string{"RowlockMaintenanceBlocked"},
			about:   "Locks that another session has held for over 30 s. Above 0 some maintenance is blocked: the log of the operator and of the workers names the session and says how to end it.",
			queries: []query{{inQueue.orZero(fmt.Sprintf("max(%s)", inQueue.of("rowlock_worker_locks_held"))), "locks"}},
		}),
		lines(panel{
			title: "Do traces arrive?", width: 8, unit: unitPerSec,
			about:   "Spans per second that the collector took, those that were lost because it was away or too slow, and those that it rejected. All are 0 while traces are not exported.",
			queries: []query{{inQueue.orNoWorker("result", inQueue.rate("result", "rowlock_worker_spans_total")), "{{result}}"}},
		}),
	}
}
