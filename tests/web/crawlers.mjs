// Crawlers: the price out, what they would pay in, what they were charged out. They pay in one of the dialects.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

export function crawlers(world) {
  describe('crawlers', { concurrency: false }, () => {
    const url = () => `${world.gate}/articles/crawled`;

    test('the demand says the price', async () => {
      const demand = await fetch(url(), { headers: { 'user-agent': 'GPTBot/1.2', accept: 'text/html' } });
      assert.equal(demand.status, 402);
      assert.equal(demand.headers.get('crawler-price'), 'EUR 0.05');
      assert.equal(demand.headers.get('crawler-error'), null);
      assert.match(demand.headers.get('content-type'), /^application\/problem\+json/, 'a crawler gets no page');
    });

    test('a price above what it would pay is an error that says so, also with a credential', async () => {
      await world.paying(['0.05'], async () => {
        const low = { 'crawler-max-price': 'EUR 0.049999999' };
        const demand = await fetch(url(), { headers: low });
        assert.equal(demand.status, 402);
        assert.equal(demand.headers.get('crawler-price'), 'EUR 0.05');
        assert.ok(demand.headers.get('crawler-error'));
        const challenge = demand.headers.get('www-authenticate');
        const { credential } = await world.ask('dan', ['pay', '--challenge', challenge, '--yes']);
        const refused = await fetch(url(), { headers: { ...low, authorization: credential } });
        assert.equal(refused.status, 402);
        assert.ok(refused.headers.get('crawler-error'));
        assert.equal(refused.headers.get('crawler-charged'), null);

        // What it paid is not lost by that.
        const exact = { 'crawler-exact-price': 'EUR 0.05', authorization: credential };
        const served = await fetch(url(), { headers: exact });
        assert.equal(served.status, 200);
        assert.equal(served.headers.get('crawler-charged'), 'EUR 0.05');
        assert.equal(served.headers.get('crawler-error'), null);
        const again = await fetch(url(), { headers: exact });
        assert.equal(again.headers.get('crawler-charged'), 'EUR 0');
      });
    });

    test('another currency and what is no price are refused', async () => {
      for (const price of ['USD 1.00', 'free', 'EUR -1']) {
        const demand = await fetch(url(), { headers: { 'crawler-max-price': price } });
        assert.equal(demand.status, 402);
        assert.ok(demand.headers.get('crawler-error'), price);
      }
    });

    test('a price that is enough, alone, is no payment', async () => {
      await world.paying([], async () => {
        const demand = await fetch(url(), { headers: { 'crawler-max-price': 'EUR 1' } });
        assert.equal(demand.status, 402);
        assert.equal(demand.headers.get('crawler-error'), null);
      });
    });
  });
}
