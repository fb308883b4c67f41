// curl, and a Python script with nothing but the standard library, follow the documented steps.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';

import { BIN } from './world.mjs';

const run = promisify(execFile);

export function byHand(world) {
  const script = (name) => path.join(import.meta.dirname, name);
  const weir = path.join(BIN, 'weir');

  describe('by hand', { concurrency: false }, () => {
    test('Python reads the demand, pays, shows the credential and reads the receipt', async () => {
      const url = `${world.gate}/articles/python`;
      const { done, payments } = await world.paying(['0.05'], async () => {
        const { stdout } = await run('python3', [script('hand.py'), weir, world.home('chloe'), url]);
        return JSON.parse(stdout);
      });
      const { problem, asked, paid, answers } = done;
      assert.deepEqual([problem.type, problem.status, problem.price, problem.currency], [
        'https://paymentauth.org/problems/payment-required', 402, '0.05', 'EUR',
      ]);
      assert.deepEqual([asked.amount, asked.currency, asked.recipient], ['50000000', 'EUR', world.payee]);
      assert.deepEqual(answers.map(({ status }) => status), [200, 200]);
      assert.deepEqual(answers.map(({ receipt }) => receipt.drawn), ['50000000', '0']);
      assert.match(answers[1].text, /The text of \/articles\/python/);
      assert.equal(paid.payment_id, payments[0].payment_id);
      assert.equal(answers[0].receipt.reference, payments[0].payment_id);
    });

    test('curl does the same', async () => {
      const url = `${world.gate}/articles/curl`;
      const { done, payments } = await world.paying(['0.05'], async () => {
        return (await run(script('hand.sh'), [weir, world.home('chloe'), url], { cwd: world.dir })).stdout;
      });
      assert.match(done, /The text of \/articles\/curl/);
      const receipt = JSON.parse(done.trim().split('\n').at(-1));
      assert.deepEqual([receipt.status, receipt.drawn, receipt.reference], ['success', '50000000', payments[0].payment_id]);
    });

    test('an amount of a few nanos is paid and drawn to the nano', async () => {
      const url = `${world.gate}/once/nanos`;
      await world.paying(['0.000000007'], async () => {
        const { stdout } = await run('python3', [script('hand.py'), weir, world.home('chloe'), url]);
        const { answers } = JSON.parse(stdout);
        // The second is the same request within the grace: served, not drawn.
        assert.deepEqual(answers.map(({ receipt }) => receipt.drawn), ['7', '0']);
      });
    });
  });
}
