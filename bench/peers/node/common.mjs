// What the peers share: options, the database of a run, and its report.
import { parseArgs } from "node:util";
import pg from "pg";

// One insert statement carries this many jobs, like that of the River peer.
export const INSERT_BATCH = 1000;

// How often the database is asked whether the last jobs are settled.
export const SETTLED_POLL_MS = 5;

export const url = process.env.DATABASE_URL;

// Numbers by name, such as --jobs 1000. An unknown option is an error.
export function options(defaults) {
  const names = Object.keys(defaults);
  const spec = Object.fromEntries(names.map((name) => [name, { type: "string" }]));
  const { values, positionals } = parseArgs({ options: spec, allowPositionals: true });
  const numbers = names.map((name) => [name, Number(values[name] ?? defaults[name])]);
  for (const [name, number] of numbers) {
    if (!Number.isFinite(number)) throw new Error(`--${name} is not a number: ${values[name]}`);
  }
  return { mode: positionals[0], ...Object.fromEntries(numbers) };
}

export async function withDatabase(work) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

export async function settleDown(client) {
  await client.query("vacuum analyze");
  await client.query("checkpoint");
}

// Waits until the query says that nothing is left.
export async function waitUntilEmpty(client, query) {
  while ((await client.query(query)).rows[0].open) await sleep(SETTLED_POLL_MS);
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export const seconds = (since) => (performance.now() - since) / 1000;

export const report = (fields) => console.log(JSON.stringify(fields));
