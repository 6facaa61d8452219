// The River peer: loads no-op jobs as fast as River's client can, works them off, and prints one line of JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// One insert statement carries this many jobs; larger ones measured no faster.
const insertBatch = 1000

// How often the database is asked whether the last jobs are settled.
const settledPoll = 5 * time.Millisecond

type noop struct{}

func (noop) Kind() string { return "noop" }

type worker struct {
	river.WorkerDefaults[noop]
	worked *atomic.Int64
	all    int64
	last   chan struct{}
}

func (w *worker) Work(context.Context, *river.Job[noop]) error {
	if w.worked.Add(1) == w.all {
		close(w.last)
	}
	return nil
}

type report struct {
	Jobs          int64   `json:"jobs"`
	LoadSeconds   float64 `json:"load_seconds"`
	DrainSeconds  float64 `json:"drain_seconds"`
	JobsPerSecond float64 `json:"jobs_per_second"`
}

func main() {
	url := os.Getenv("DATABASE_URL")
	jobs := flag.Int64("jobs", 300_000, "jobs to load and work")
	maxWorkers := flag.Int("max-workers", 500, "River's MaxWorkers")
	flag.Parse()
	result, err := run(context.Background(), url, *jobs, *maxWorkers)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url string, jobs int64, maxWorkers int) (*report, error) {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	w := &worker{worked: &atomic.Int64{}, all: jobs, last: make(chan struct{})}
	client, err := newClient(driver, w, maxWorkers)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	if err := load(ctx, client, jobs); err != nil {
		return nil, err
	}
	loaded := time.Since(started)
	for _, statement := range []string{"vacuum analyze", "checkpoint"} {
		if _, err := pool.Exec(ctx, statement); err != nil {
			return nil, err
		}
	}
	drained, err := drain(ctx, client, pool, w)
	if err != nil {
		return nil, err
	}
	return &report{jobs, loaded.Seconds(), drained.Seconds(), float64(jobs) / drained.Seconds()}, nil
}

func newClient(driver *riverpgxv5.Driver, w *worker, maxWorkers int) (*river.Client[pgx.Tx], error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, w); err != nil {
		return nil, err
	}
	return river.NewClient(driver, &river.Config{
		FetchCooldown: time.Millisecond,
		Logger:        slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: maxWorkers}},
		Workers:       workers,
	})
}

func load(ctx context.Context, client *river.Client[pgx.Tx], jobs int64) error {
	batch := make([]river.InsertManyParams, insertBatch)
	for i := range batch {
		batch[i].Args = noop{}
	}
	for left := jobs; left > 0; left -= insertBatch {
		if _, err := client.InsertManyFast(ctx, batch[:min(left, insertBatch)]); err != nil {
			return err
		}
	}
	return nil
}

// From the start of the client to the moment no job is left in the database that is not completed.
func drain(ctx context.Context, client *river.Client[pgx.Tx], pool *pgxpool.Pool, w *worker) (time.Duration, error) {
	started := time.Now()
	if err := client.Start(ctx); err != nil {
		return 0, err
	}
	<-w.last
	for open := true; open; time.Sleep(settledPoll) {
		const left = "select exists (select from river_job where state in ('available', 'running'))"
		if err := pool.QueryRow(ctx, left).Scan(&open); err != nil {
			return 0, err
		}
	}
	took := time.Since(started)
	if err := client.Stop(ctx); err != nil {
		return 0, err
	}
	var completed int64
	if err := pool.QueryRow(ctx, "select count(*) from river_job where state = 'completed'").Scan(&completed); err != nil {
		return 0, err
	}
	if completed != w.all {
		return 0, fmt.Errorf("%d of %d jobs completed", completed, w.all)
	}
	return took, nil
}
