// The pg-boss peer: loads jobs, fetches and completes them in batches, and prints one line of JSON.
// Its `work` asks for jobs at most twice a second, so this uses `fetch` and `complete`, which are faster.
import { PgBoss } from "pg-boss";
import * as common from "./common.mjs";

const QUEUE = "noop";
const FETCH_BATCH = 1000;
const LOOPS = 4;
const LEFT = "select exists (select from pgboss.job where state < 'completed') as open";

const { jobs } = common.options({ jobs: 300_000 });
const boss = new PgBoss({ connectionString: common.url, max: LOOPS + 2, supervise: false, schedule: false });
boss.on("error", (error) => console.error(error));
await boss.start();
await boss.createQueue(QUEUE);
await common.withDatabase(async (client) => {
  const batch = Array.from({ length: common.INSERT_BATCH }, () => ({ data: {} }));
  for (let left = jobs; left > 0; left -= common.INSERT_BATCH) {
    await boss.insert(QUEUE, batch.slice(0, Math.min(left, common.INSERT_BATCH)));
  }
  await common.settleDown(client);
  const since = performance.now();
  await Promise.all(Array.from({ length: LOOPS }, drain));
  await common.waitUntilEmpty(client, LEFT);
  common.report({ jobs_per_second: jobs / common.seconds(since) });
});
await boss.stop({ graceful: false });

async function drain() {
  for (;;) {
    const fetched = await boss.fetch(QUEUE, { batchSize: FETCH_BATCH });
    if (fetched.length === 0) return;
    await boss.complete(QUEUE, fetched.map((job) => job.id));
  }
}
