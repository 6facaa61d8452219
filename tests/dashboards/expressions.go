package main

import (
	"fmt"
	"strings"
)

// Which series a dashboard is about: matchers of labels.
type scope string

const (
	// All queues of the selected namespaces. With `rowlock dev` no series has a namespace, and `.*` matches.
	fleetScope scope = `namespace=~"$namespace"`
	// One queue.
	queueScope scope = `namespace="$namespace", queue="$queue"`
)

// Series of a metric in this scope. more: further matchers.
func (s scope) of(metric string, more ...string) string {
	return fmt.Sprintf("%s{%s}", metric, strings.Join(append([]string{string(s)}, more...), ", "))
}

// A gauge of the operator, by these labels. While the leader changes, two replicas may report a queue.
func (s scope) gauge(by, metric string, more ...string) string {
	return fmt.Sprintf("max by (%s) (%s)", by, s.of(metric, more...))
}

// How fast a counter of the workers grows in a second, by these labels.
func (s scope) rate(by, metric string, more ...string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s[$__rate_interval]))", by, s.of(metric, more...))
}

// By how much a counter of the workers grew in an hour, by these labels.
func (s scope) hourly(by, metric string, more ...string) string {
	return fmt.Sprintf("sum by (%s) (increase(%s[1h]))", by, s.of(metric, more...))
}

// A quantile of a histogram of the workers, over all of them. Nothing, instead of NaN, if nothing happened: then
// the panel says so.
func (s scope) quantile(quantile float64, histogram string) string {
	rate := s.rate("le", histogram+"_bucket")
	return fmt.Sprintf("histogram_quantile(%g, %s) >= 0", quantile, rate)
}

// Without workers, a queue that scaled to zero would have no series: then a line at 0 says so. It exists only
// for a queue that an operator reports, so that a missing operator is not shown as 0.
func (s scope) orNoWorker(label, expression string) string {
	zero := fmt.Sprintf(`label_replace(0 * max(%s), "%s", "no worker", "", "")`, s.of("rowlock_queue_total_workers"), label)
	return fmt.Sprintf("%s or on () %s", expression, zero)
}

// The same for an expression without labels.
func (s scope) orZero(expression string) string {
	return fmt.Sprintf("%s or 0 * max(%s)", expression, s.of("rowlock_queue_total_workers"))
}

// The same for each queue.
func (s scope) orZeroPerQueue(expression string) string {
	return fmt.Sprintf("(%s or 0 * %s)", expression, s.gauge("namespace, queue", "rowlock_queue_total_workers"))
}

// The share of the tasks that started late.
func lateStarts(in scope, by string) string {
	return ratio(in.rate(by, "rowlock_worker_tasks_started_late_total"),
		"("+in.rate(by, "rowlock_worker_tasks_started_total")+" > 0)")
}

// The n highest, which bounds the number of lines.
func top(n int, expression string) string {
	return fmt.Sprintf("topk(%d, %s)", n, expression)
}

// How much of one is another. Both have the same labels.
func ratio(above, below string) string {
	return fmt.Sprintf("%s / %s", above, below)
}
