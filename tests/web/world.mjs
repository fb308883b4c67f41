// A hub, people, a small web server and a gate before it: all real processes, on ports that the system chooses. And the
// hub's own books, which say what was really paid.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

/** Where the binaries are. */
export const BIN = path.resolve(process.env.WEIR_BIN_DIR ?? path.join(import.meta.dirname, '../../target/release'));

/** Longest wait for a process to be ready, and for a command to end. */
const PATIENCE_MS = 60_000;
/** One unit of the currency, in nanos. */
const UNIT = 1_000_000_000n;

/** The environment without what would change what the commands do. */
const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WEIR_')));

/** Units as a decimal string, in nanos. */
export function nanos(units) {
  const [whole, part = ''] = units.split('.');
  return BigInt(whole) * UNIT + BigInt(part.padEnd(9, '0'));
}

/** Waits until something holds. */
export async function until(what, holds, patience = 20_000) {
  const end = Date.now() + patience;
  for (;;) {
    const found = await holds();
    if (found) return found;
    assert.ok(Date.now() < end, `${what}: not within ${patience} ms`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Runs a command; what it prints, and how it ended. Never throws for an exit code. */
export function run(program, args, { input, env = {} } = {}) {
  return new Promise((resolve) => {
    const options = { env: { ...clean, ...env }, timeout: PATIENCE_MS, maxBuffer: 16 * 1024 * 1024 };
    const child = execFile(program, args, options, (error, stdout, stderr) => {
      resolve({ code: error ? (typeof error.code === 'number' ? error.code : -1) : 0, stdout, stderr });
    });
    child.stdin.end(input ?? '');
  });
}

/** A process that says in a line of JSON that it is ready. */
export class Running {
  static async start(program, args) {
    const child = spawn(path.join(BIN, program), args, { env: clean, stdio: ['pipe', 'pipe', 'pipe'] });
    const running = new Running();
    running.child = child;
    running.ended = new Promise((resolve) => child.once('close', resolve));
    running.errors = '';
    child.stderr.on('data', (data) => {
      running.errors = (running.errors + data).slice(-16_384);
    });
    const lines = createInterface({ input: child.stdout });
    running.ready = await new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${program} is not ready: ${running.errors}`)), PATIENCE_MS);
      lines.once('line', (line) => {
        clearTimeout(late);
        resolve(JSON.parse(line));
      });
      child.once('error', reject);
      child.once('close', (code) => reject(new Error(`${program} ended with ${code}: ${running.errors}`)));
    });
    return running;
  }

  async stop() {
    if (this.child.exitCode === null) this.child.kill('SIGTERM');
    const late = setTimeout(() => this.child.kill('SIGKILL'), 10_000);
    await this.ended;
    clearTimeout(late);
  }
}

/** The web server behind the gate. Keeps what it was asked, to see what reached it. */
async function upstream() {
  const seen = [];
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    seen.push({ method: request.method, path: request.url, headers: request.headers, body });
    const { pathname } = new URL(request.url, 'http://upstream');
    if (request.method === 'POST') {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ echo: body }));
    } else if (pathname.startsWith('/broken/')) {
      response.writeHead(500).end('broken');
    } else {
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
      response.end(`<!doctype html><html lang=en><title>Article</title><link rel=icon href=data:,><h1>The text of ${pathname}</h1>`);
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, seen, address: `http://127.0.0.1:${server.address().port}` };
}

export class World {
  static async start() {
    const world = new World();
    world.dir = await mkdtemp(path.join(tmpdir(), 'weir-web-'));
    world.processes = [];
    try {
      world.hub = await world.keep(Running.start('weir-hub', ['dev', '--no-web', '--data', path.join(world.dir, 'dev'), '--json']));
      world.upstream = await upstream();
      world.payee = await world.account('gazette');
      world.gate = await world.startGate('gate', '');
    } catch (error) {
      await world.stop();
      throw error;
    }
    return world;
  }

  async keep(starting) {
    const running = await starting;
    this.processes.push(running);
    return running;
  }

  home(name) {
    return path.join(this.dir, 'dev/homes', name);
  }

  /** The hub's id, as receipts name it. */
  get hubId() {
    return this.hub.ready.hub.match(/weirhub1[a-z0-9]+/)[0];
  }

  /** Runs `weir` with somebody's home. */
  weir(home, args, options) {
    return run(path.join(BIN, 'weir'), ['--home', this.home(home), ...args], options);
  }

  /** The same for a command that must succeed, and what it says as JSON. */
  async ask(home, args, options) {
    const { code, stdout, stderr } = await this.weir(home, [...args, '--json'], options);
    assert.equal(code, 0, `weir ${args.join(' ')}: ${stderr}`);
    return JSON.parse(stdout);
  }

  async account(home) {
    return (await this.ask(home, ['id'])).account;
  }

  /** A gate of its own state, with more settings before its routes. Its address ends without a slash. */
  async startGate(name, settings) {
    const file = path.join(this.dir, `${name}.toml`);
    await writeFile(
      file,
      `listen = "127.0.0.1:0"
upstream = "${this.upstream.address}"
realm = "news.example"
payee = "${this.payee}"
hub = "${this.hub.ready.hub}"
state = "${path.join(this.dir, `${name}-state`)}"
metrics = "127.0.0.1:0"
${settings}

[[route]]
match = "GET /articles/{id}"
price = "0.05"
title = "An article of the Morning Gazette"
access = "24h"
[[route]]
match = "GET /once/{id}"
price = "0.000000007"
title = "Once, for very little"
[[route]]
match = "GET /broken/{id}"
price = "0.01"
title = "What the server cannot answer"
[[route]]
match = "POST /api/echo"
price = "0.003"
title = "An echo"
`,
    );
    const gate = await this.keep(Running.start('weir', ['gate', '--config', file, '--json']));
    return `http://${gate.ready.address}`;
  }

  /** What the hub's journal and the payee say: the audit recomputes the first from signatures. In nanos. */
  async books() {
    const data = path.join(this.dir, 'dev/hub');
    const { code, stdout, stderr } = await run(path.join(BIN, 'weir-hub'), ['audit', '--data', data, '--json']);
    assert.equal(code, 0, `the audit is not clean: ${stdout}${stderr}`);
    const audit = JSON.parse(stdout);
    assert.equal(audit.audit, 'clean');
    const { balances } = await this.ask('gazette', ['balance']);
    const { entries } = await this.ask('gazette', ['history']);
    const earned = entries.filter((entry) => entry.kind === 'earned');
    return {
      payments: audit.payments,
      earnedInAll: nanos(audit.sums.EUR.earned),
      earned: balances.length === 0 ? 0n : nanos(balances[0].earned),
      incoming: earned.map(({ payment_id, amount, reference }) => ({ payment_id, amount, reference })),
    };
  }

  /**
   * Does something, and fails unless the hub's books show exactly these payments to the payee, no more and no less, in any
   * order. Gives what was done and the payments.
   */
  async paying(amounts, act) {
    // What was there after the last time must be there now: payments between two of these are found, too.
    const before = this.known ?? (await this.books());
    const done = await act();
    const after = await this.books();
    this.known = after;
    const sum = amounts.reduce((sum, amount) => sum + nanos(amount), 0n);
    const seen = new Set(before.incoming.map(({ payment_id }) => payment_id));
    const fresh = after.incoming.filter(({ payment_id }) => !seen.has(payment_id));
    assert.deepEqual(fresh.map(({ amount }) => amount).sort(), [...amounts].sort(), 'what the payee was paid');
    assert.equal(after.payments - before.payments, amounts.length, 'payments in the hub’s journal');
    assert.equal(after.earned - before.earned, sum, 'what the payee has earned');
    assert.equal(after.earnedInAll - before.earnedInAll, sum, 'what the hub owes to payees');
    return { done, payments: fresh };
  }

  /** What reached the web server since it was last asked. */
  reached() {
    return this.upstream.seen.splice(0);
  }

  async stop() {
    for (const running of (this.processes ?? []).reverse()) await running.stop();
    this.upstream?.server.closeAllConnections();
    this.upstream?.server.close();
    await rm(this.dir, { recursive: true, force: true });
  }
}

