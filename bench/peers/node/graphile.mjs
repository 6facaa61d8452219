// The Graphile Worker peer, with batched claims and batched completion. It prints one line of JSON.
//
// drain: loads no-op jobs, and works them off with several processes.
// instance: one process works jobs that wait 1 ms, and another one keeps adding more. It measures a rate, then
// how long jobs wait at half of that rate.
import { fork } from "node:child_process";
import { run, runMigrations } from "graphile-worker";
import * as common from "./common.mjs";

// The best settings found in the project's performance tests: 4 processes of 24, claims of 500.
const DRAIN = { processes: 4, concurrency: 24, claim: 500 };

// The producer adds batches of this size, and keeps about this many jobs waiting.
const BATCH = 128;
const BACKLOG = 20_000;

const LEFT = "select exists (select from graphile_worker.jobs) as open";
const ADD = `select graphile_worker.add_jobs(array_agg(row('noop', $2::json, null, null, null, null, null, null)::graphile_worker.job_spec))
  from generate_series(1, $1)`;

async function work({ concurrency, claim, waitMs }) {
  // The start of Node is not part of the measurement.
  const go = new Promise((go) => process.once("message", go));
  process.send("loaded");
  await go;
  let done = 0;
  const waits = [];
  const runner = await run({
    connectionString: common.url,
    noHandleSignals: true,
    taskList: {
      noop: async (payload) => {
        if (payload.at) waits.push(performance.timeOrigin + performance.now() - payload.at);
        if (waitMs) await common.sleep(waitMs);
        done += 1;
      },
    },
    preset: {
      worker: {
        concurrentJobs: concurrency,
        maxPoolSize: 10,
        pollInterval: 2000,
        localQueue: { size: claim },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
        logger: quiet(),
      },
    },
  });
  process.on("message", async (message) => {
    if (message === "stop") {
      await runner.stop();
      process.disconnect();
    } else {
      process.send({ done, waits: message === "waits" ? waits.splice(0) : [] });
    }
  });
  process.send("working");
}

function quiet() {
  const log = (level, message) => level === "error" && console.error(message);
  return { log: () => log, scope: () => quiet(), error: console.error, warn() {}, info() {}, debug() {} };
}

function start(settings) {
  const child = fork(import.meta.filename, ["work"], { env: { ...process.env, SETTINGS: JSON.stringify(settings) } });
  const gone = new Promise((gone) => child.once("exit", gone));
  const ended = gone.then((code) => Promise.reject(new Error(`a worker ended (${code})`)));
  ended.catch(() => {});
  const next = () => Promise.race([new Promise((answer) => child.once("message", answer)), ended]);
  const ask = (question) => {
    const answer = next();
    child.send(question);
    return answer;
  };
  return { child, gone, loaded: next(), ask };
}

async function stop({ child, gone }) {
  child.send("stop");
  await gone;
}

async function drain(jobs) {
  return common.withDatabase(async (client) => {
    for (let left = jobs; left > 0; left -= common.INSERT_BATCH) {
      await client.query(ADD, [Math.min(left, common.INSERT_BATCH), "{}"]);
    }
    await common.settleDown(client);
    const workers = Array.from({ length: DRAIN.processes }, () => start(DRAIN));
    await Promise.all(workers.map((worker) => worker.loaded));
    const since = performance.now();
    await Promise.all(workers.map((worker) => worker.ask("go")));
    await common.waitUntilEmpty(client, LEFT);
    const took = common.seconds(since);
    await Promise.all(workers.map(stop));
    common.report({ jobs_per_second: jobs / took });
  });
}

async function instance({ concurrency, seconds }) {
  return common.withDatabase(async (client) => {
    const worker = start({ concurrency, claim: DRAIN.claim, waitMs: 1 });
    await worker.loaded;
    await worker.ask("go");
    let added = 0;
    let producing = true;
    let done = 0;
    const producer = (async () => {
      while (producing) {
        if (added - done > BACKLOG) await common.sleep(1);
        else added += await add(client, BATCH, "{}");
      }
    })();
    const measure = async (seconds) => {
      const [since, before] = [performance.now(), (await worker.ask("count")).done];
      while (common.seconds(since) < seconds) {
        await common.sleep(20);
        ({ done } = await worker.ask("count"));
      }
      return (done - before) / common.seconds(since);
    };
    await measure(2);
    const rate = await measure(seconds);
    producing = false;
    await producer;
    await common.waitUntilEmpty(client, LEFT);
    const waits = await paced(client, worker, rate / 2, seconds);
    await stop(worker);
    common.report({ jobs_per_second: rate, p99_ms: percentile(waits, 0.99) });
  });
}

// Adds jobs at a steady rate, and returns how long each waited to start, in milliseconds.
async function paced(client, worker, rate, seconds) {
  const since = performance.now();
  let added = 0;
  while (common.seconds(since) < seconds) {
    const due = Math.floor(rate * common.seconds(since)) - added;
    if (due < 1) await common.sleep(1);
    else added += await add(client, due, JSON.stringify({ at: performance.timeOrigin + performance.now() }));
  }
  await common.waitUntilEmpty(client, LEFT);
  return (await worker.ask("waits")).waits;
}

async function add(client, jobs, payload) {
  await client.query(ADD, [jobs, payload]);
  return jobs;
}

function percentile(samples, share) {
  samples.sort((a, b) => a - b);
  return samples[Math.min(samples.length - 1, Math.floor(samples.length * share))];
}

const given = common.options({ jobs: 300_000, concurrency: 64, seconds: 6 });
if (given.mode === "work") {
  await work(JSON.parse(process.env.SETTINGS));
} else {
  await runMigrations({ connectionString: common.url });
  if (given.mode === "drain") await drain(given.jobs);
  else if (given.mode === "instance") await instance(given);
  else throw new Error("usage: graphile.mjs drain|instance");
}
