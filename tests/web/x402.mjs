// The npm packages `@x402/core` and `@x402/fetch` pay at our gate. Their scheme client is the few lines of `WeirScheme`.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { encodePaymentRequiredHeader } from '@x402/core/http';
import { decodePaymentResponseHeader, wrapFetchWithPayment, x402Client, x402HTTPClient } from '@x402/fetch';

/** Scheme `exact` on networks `weir:…`: `weir pay` makes the payload. */
class WeirScheme {
  scheme = 'exact';

  constructor(pay) {
    this.pay = pay;
  }

  async createPaymentPayload(x402Version, requirements) {
    const required = { x402Version, resource: { url: 'unused:' }, accepts: [requirements] };
    const { x402 } = await this.pay(encodePaymentRequiredHeader(required));
    const { payload } = JSON.parse(Buffer.from(x402, 'base64').toString());
    return { x402Version, payload };
  }
}

export function x402(world) {
  describe('x402', { concurrency: false }, () => {
    function client() {
      const paid = [];
      const pay = async (demand) => {
        const done = await world.ask('ben', ['pay', '--challenge', demand, '--max-price', '0.05']);
        paid.push(done);
        return done;
      };
      // Its limits are in dollars and know no euro; `--max-price` is the limit here.
      const core = new x402Client().register('weir:*', new WeirScheme(pay)).setSpendControls(false);
      return { paying: wrapFetchWithPayment(fetch, core), core, paid };
    }

    test('its client buys an article, and reads our answer', async () => {
      const { paying, paid } = client();
      world.reached();
      const { payments } = await world.paying(['0.05'], async () => {
        const response = await paying(`${world.gate}/articles/x402`);
        assert.equal(response.status, 200);
        assert.match(await response.text(), /The text of \/articles\/x402/);
        const told = decodePaymentResponseHeader(response.headers.get('PAYMENT-RESPONSE'));
        assert.deepEqual(told, {
          success: true,
          transaction: paid[0].payment_id,
          network: `weir:${world.hubId}`,
          amount: '50000000',
        });
      });
      assert.equal(payments[0].payment_id, paid[0].payment_id);
      const [{ headers }] = world.reached();
      assert.deepEqual(['payment-signature', 'x-payment'].filter((name) => name in headers), []);
    });

    test('its client sends a body, which is paid for once', async () => {
      const { paying } = client();
      world.reached();
      await world.paying(['0.003'], async () => {
        const response = await paying(`${world.gate}/api/echo`, { method: 'POST', body: 'a body' });
        assert.deepEqual(await response.json(), { echo: 'a body' });
        assert.equal(decodePaymentResponseHeader(response.headers.get('PAYMENT-RESPONSE')).amount, '3000000');
      });
      assert.equal(world.reached().length, 1);
    });

    test('its parts parse our demand, and the payment they made opens the article again', async () => {
      const { core } = client();
      const http = new x402HTTPClient(core);
      const url = `${world.gate}/articles/parts`;
      await world.paying(['0.05'], async () => {
        const demand = await fetch(url);
        assert.equal(demand.status, 402);
        const required = http.getPaymentRequiredResponse((name) => demand.headers.get(name), await demand.json());
        assert.equal(required.x402Version, 2);
        assert.equal(required.resource.url, url);
        assert.equal(required.resource.description, 'An article of the Morning Gazette');
        const [{ scheme, network, amount, asset, payTo, maxTimeoutSeconds }] = required.accepts;
        assert.deepEqual(
          { scheme, network, amount, asset, payTo },
          { scheme: 'exact', network: `weir:${world.hubId}`, amount: '50000000', asset: 'EUR', payTo: world.payee },
        );
        assert.ok(Number.isInteger(maxTimeoutSeconds) && maxTimeoutSeconds > 0);
        const payload = await http.createPaymentPayload(required);
        const headers = http.encodePaymentSignatureHeader(payload);
        for (const drawn of ['50000000', '0']) {
          const response = await fetch(url, { headers });
          assert.equal(response.status, 200);
          const told = http.getPaymentSettleResponse((name) => response.headers.get(name));
          assert.deepEqual([told.success, told.amount], [true, drawn]);
        }
      });
    });

    test('`payment-identifier` names one request: it is served again, and charged once', async () => {
      const { core } = client();
      const http = new x402HTTPClient(core);
      const url = `${world.gate}/api/echo`;
      await world.paying(['0.003'], async () => {
        const demand = await fetch(url, { method: 'POST' });
        const required = http.getPaymentRequiredResponse((name) => demand.headers.get(name), await demand.json());
        const payload = await http.createPaymentPayload(required);
        payload.extensions = { 'payment-identifier': { info: { id: 'request-0000000000000001' } } };
        const headers = http.encodePaymentSignatureHeader(payload);
        for (const drawn of ['3000000', '0']) {
          const response = await fetch(url, { method: 'POST', body: 'once', headers });
          assert.equal(response.status, 200);
          assert.equal(decodePaymentResponseHeader(response.headers.get('PAYMENT-RESPONSE')).amount, drawn);
        }
      });
    });

    test('a payment for another article is refused in its dialect, with a demand', async () => {
      const { core } = client();
      const http = new x402HTTPClient(core);
      await world.paying(['0.05'], async () => {
        const demand = await fetch(`${world.gate}/articles/one`);
        const required = http.getPaymentRequiredResponse((name) => demand.headers.get(name), await demand.json());
        const headers = http.encodePaymentSignatureHeader(await http.createPaymentPayload(required));
        const refused = await fetch(`${world.gate}/articles/two`, { headers });
        assert.equal(refused.status, 402);
        const told = decodePaymentResponseHeader(refused.headers.get('PAYMENT-RESPONSE'));
        assert.deepEqual([told.success, told.errorReason], [false, 'invalid-challenge']);
        assert.equal((await fetch(`${world.gate}/articles/one`, { headers })).status, 200);
      });
    });
  });
}
