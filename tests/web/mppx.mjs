// The npm package `mppx`: its client pays at our gate, and our payer at its server.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { describe, test } from 'node:test';

import { Challenge, Credential, Receipt } from 'mppx';
import { Mppx as Client } from 'mppx/client';
import { Mppx as Server, Request as ServerRequest } from 'mppx/server';

import { payee, payer } from './weir-method.mjs';

export function mppx(world) {
  describe('mppx', { concurrency: false }, () => {
    /** A client of its own for each test: it counts what it paid for. */
    function client() {
      const paid = [];
      const credentials = [];
      const pay = async (challenge) => {
        const done = await world.ask('ada', ['pay', '--challenge', challenge, '--max-price', '0.05']);
        paid.push(done);
        return done;
      };
      const made = Client.create({ methods: [payer({ Challenge }, pay)], polyfill: false });
      made.onCredentialCreated(({ credential }) => credentials.push(credential));
      return { fetch: made.fetch, paid, credentials };
    }

    test('its client buys an article from our gate, and what it bought opens again without a payment', async () => {
      const { fetch: paying, paid, credentials } = client();
      const url = `${world.gate}/articles/mppx?page=2`;
      world.reached();
      const { payments } = await world.paying(['0.05'], async () => {
        const response = await paying(url);
        assert.equal(response.status, 200);
        assert.match(await response.text(), /The text of \/articles\/mppx/);
        const receipt = Receipt.fromResponse(response);
        assert.deepEqual([receipt.status, receipt.method, receipt.amount, receipt.drawn, receipt.left], [
          'success', 'weir', '50000000', '50000000', '0',
        ]);
        assert.equal(receipt.reference, paid[0].payment_id);
        assert.equal(receipt.challengeId, Credential.deserialize(credentials[0]).challenge.id);
        assert.equal(response.headers.get('cache-control'), 'private');

        const again = await fetch(url, { headers: { authorization: credentials[0] } });
        assert.equal(again.status, 200);
        assert.equal(Receipt.fromResponse(again).drawn, '0');
      });
      assert.equal(paid.length, 1);
      assert.equal(payments[0].reference, paid[0].reference);
      const reached = world.reached();
      assert.equal(reached.length, 2, 'the unpaid request did not reach the web server, both paid ones did');
      for (const { headers } of reached) {
        const leaked = ['authorization', 'payment-authorization', 'accept-payment', 'payment-signature'];
        assert.deepEqual(leaked.filter((name) => name in headers), []);
      }
    });

    test('its client sends a body, which is paid for once and arrives once', async () => {
      const { fetch: paying, paid } = client();
      world.reached();
      await world.paying(['0.003'], async () => {
        const body = JSON.stringify({ text: 'für Übungen' });
        const headers = { 'content-type': 'application/json' };
        const response = await paying(`${world.gate}/api/echo`, { method: 'POST', body, headers });
        assert.equal(response.status, 200);
        assert.deepEqual(await response.json(), { echo: body });
        assert.equal(Receipt.fromResponse(response).reference, paid[0].payment_id);
      });
      assert.equal(world.reached().length, 1);
    });

    test('its client is not charged for an answer that fails, and the payment serves the next try', async () => {
      const { fetch: paying, credentials } = client();
      await world.paying(['0.01'], async () => {
        const url = `${world.gate}/broken/1`;
        const response = await paying(url);
        assert.equal(response.status, 500);
        assert.equal(response.headers.get('payment-receipt'), null);
        // Still not drawn from: the same credential is taken again.
        const again = await fetch(url, { headers: { authorization: credentials[0] } });
        assert.equal(again.status, 500);
      });
    });

    test('its client refuses to pay more than `weir` may, and nothing is paid', async () => {
      const pay = (challenge) => world.ask('ada', ['pay', '--challenge', challenge, '--max-price', '0.049999999']);
      const made = Client.create({ methods: [payer({ Challenge }, pay)], polyfill: false });
      await world.paying([], async () => {
        await assert.rejects(made.fetch(`${world.gate}/articles/dear`), /above `--max-price`/);
      });
    });

    test('it parses the demand as we mean it', async () => {
      const response = await fetch(`${world.gate}/articles/demand`);
      const [challenge, ...others] = Challenge.fromResponseList(response);
      assert.equal(others.length, 0);
      assert.deepEqual([challenge.method, challenge.intent, challenge.realm], ['weir', 'charge', 'news.example']);
      assert.equal(challenge.request.amount, '50000000');
      assert.equal(challenge.request.recipient, world.payee);
      assert.equal(challenge.request.methodDetails.hub, world.hubId);
      // What it would write is what we wrote, to the byte: the id is a MAC over it.
      assert.equal(Challenge.serialize(challenge), response.headers.get('www-authenticate'));
      assert.ok(response.headers.get('www-authenticate').length < 2048);
    });

    describe('its server', () => {
      /** A server of mppx with a price, which sells each payment once. */
      async function shop() {
        const used = new Set();
        const judged = [];
        const verify = async (credential, args) => {
          const { stdout } = await world.weir('gazette', ['verify', credential, ...args, '--json']);
          const told = JSON.parse(stdout);
          judged.push(told);
          const id = told.payment?.payment_id;
          if (!told.valid || !used.has(id)) {
            if (told.valid) used.add(id);
            return told;
          }
          return { valid: false, reason: 'it was used already' };
        };
        const payments = Server.create({
          methods: [payee({ Credential }, verify)],
          realm: 'shop.example',
          secretKey: 'a secret of this test, longer than thirty-two bytes',
        });
        const charge = payments.charge({
          amount: '20000000',
          currency: 'EUR',
          recipient: world.payee,
          description: 'A page of the shop',
          methodDetails: { hub: world.hubId, scale: 9 },
        });
        const handler = async (request) => {
          const answer = await charge(request);
          if (answer.status === 402) return answer.challenge;
          return answer.withReceipt(Response.json({ served: new URL(request.url).pathname, got: await request.text() }));
        };
        const server = createServer(ServerRequest.toNodeListener(handler));
        await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
        const close = () => server.close(server.closeAllConnections());
        return { url: `http://127.0.0.1:${server.address().port}`, judged, close };
      }

      test('is paid by `weir fetch`, which reads its receipt', async () => {
        const { url, judged, close } = await shop();
        try {
          const { payments } = await world.paying(['0.02'], async () => {
            const { code, stdout, stderr } = await world.weir('ada', ['fetch', `${url}/page`, '--max-price', '0.02']);
            assert.equal(code, 0, stderr);
            assert.deepEqual(JSON.parse(stdout), { served: '/page', got: '' });
            assert.match(stderr, /paid 0\.02 EUR/);
          });
          assert.equal(judged.length, 1);
          assert.deepEqual([judged[0].valid, judged[0].kind, judged[0].payment.amount], [true, 'credential', '0.02']);
          assert.equal(judged[0].payment.payment_id, payments[0].payment_id);
          assert.equal(judged[0].challenge.realm, 'shop.example');
        } finally {
          close();
        }
      });

      test('is paid by `weir fetch` for a request with a body', async () => {
        const { url, close } = await shop();
        try {
          await world.paying(['0.02'], async () => {
            const args = ['fetch', '-X', 'POST', '-d', 'a body', `${url}/post`, '--max-price', '0.02'];
            const { code, stdout, stderr } = await world.weir('ada', args);
            assert.equal(code, 0, stderr);
            assert.deepEqual(JSON.parse(stdout), { served: '/post', got: 'a body' });
          });
        } finally {
          close();
        }
      });

      test('takes what `weir pay --challenge` prints, and not a second time', async () => {
        const { url, close } = await shop();
        try {
          await world.paying(['0.02'], async () => {
            const demand = await fetch(`${url}/hand`);
            assert.equal(demand.status, 402);
            const challenge = demand.headers.get('www-authenticate');
            const { credential } = await world.ask('ada', ['pay', '--challenge', challenge, '--yes']);
            const headers = { authorization: credential };
            const response = await fetch(`${url}/hand`, { headers });
            assert.equal(response.status, 200);
            assert.equal(Receipt.fromResponse(response).method, 'weir');
            assert.equal((await fetch(`${url}/hand`, { headers })).status, 402);
            // A challenge that was paid is paid: the same command gives the same credential.
            const again = await world.ask('ada', ['pay', '--challenge', challenge, '--yes']);
            assert.equal(again.credential, credential);
          });
        } finally {
          close();
        }
      });

      test('refuses a credential of our gate', async () => {
        const { url, judged, close } = await shop();
        try {
          await world.paying(['0.05'], async () => {
            const demand = await fetch(`${world.gate}/articles/elsewhere`);
            const challenge = demand.headers.get('www-authenticate');
            const { credential } = await world.ask('ada', ['pay', '--challenge', challenge, '--yes']);
            // It reads `opaque` as JSON of its own and answers 500 for ours, which is random bytes: refused is refused.
            const refused = await fetch(`${url}/page`, { headers: { authorization: credential } });
            assert.ok([402, 500].includes(refused.status));
            assert.equal(refused.headers.get('payment-receipt'), null);
          });
          assert.equal(judged.length, 0, 'it is refused before anything is judged');
        } finally {
          close();
        }
      });
    });
  });
}
