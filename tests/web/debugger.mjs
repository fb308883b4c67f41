// The payment debugger of `weir-hub dev` in a real Chromium: what its reader and its agent buy, and what a person buys.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { SHOTS, visit } from './people.mjs';
import { BIN, Running, run, until } from './world.mjs';

/** The steps of an exchange that was paid for, in order. */
const STEPS = ['ask', 'challenge', 'payment', 'receipt', 'credential', 'check', 'ask', 'answer', 'answer', 'draw'];

export function debuggerPage({ browser }) {
  describe('the payment debugger in Chromium', { concurrency: false }, () => {
    let dir;
    let hub;
    before(async () => {
      dir = await mkdtemp(path.join(tmpdir(), 'weir-web-demo-'));
      hub = await Running.start('weir-hub', ['dev', '--data', path.join(dir, 'dev'), '--json']);
    });
    after(async () => {
      await hub?.stop();
      await rm(dir, { recursive: true, force: true });
    });
    const shot = (page, name) => SHOTS && page.screenshot({ path: path.join(SHOTS, `${name}.png`), fullPage: true });
    const weir = async (...args) => {
      const done = await run(path.join(BIN, 'weir'), ['--home', path.join(dir, 'dev/homes/ada'), ...args]);
      assert.equal(done.code, 0, done.stderr);
      return done;
    };
    /** Reads the page until it shows exchanges, and holds it still there. */
    const held = async (page, selector) => {
      await until(selector, async () => {
        await page.goto(`${hub.ready.debugger_url}?hold`);
        return (await page.locator(selector).count()) > 0;
      });
      return page.locator(selector);
    };
    const stepsOf = (exchange) =>
      exchange.locator('svg g').evaluateAll((groups) => groups.map((group) => group.getAttribute('class')));

    test('shows a purchase of the reader and of the agent with every step, and asks nobody else', async () => {
      const { page, requests, complaints } = await visit(browser);
      const paid = (site) => `article[data-site="${site}"]:has(.payment):has(.draw)`;
      for (const [site, name] of [['news site', 'news'], ['API', 'api']]) {
        const exchange = (await held(page, paid(site))).first();
        assert.deepEqual(await stepsOf(exchange), STEPS, name);
        assert.ok(await exchange.locator('svg').isVisible());
        await exchange.getByText('Decoded headers').click();
        await exchange.getByRole('heading', { name: 'Challenge (WWW-Authenticate)' }).waitFor();
        await exchange.getByRole('heading', { name: 'Receipt of the hub, inside' }).waitFor();
        await exchange.getByRole('heading', { name: 'Balance at the gate' }).waitFor();
      }
      await shot(page, 'debugger');
      // By itself the page is loaded again.
      await page.goto(hub.ready.debugger_url);
      const loads = requests.length;
      await until('the page renews itself', () => requests.length > loads);
      assert.deepEqual([...new Set(requests.map((url) => new URL(url).host))], [new URL(hub.ready.debugger_url).host]);
      assert.deepEqual(complaints, []);
    });

    test('shows what a person buys by hand, and not what could be shown again', async () => {
      const { page, complaints } = await visit(browser);
      const { stdout } = await weir('fetch', `${hub.ready.article_url}?note=${encodeURIComponent('<b>private</b>')}`);
      assert.match(stdout, /<h1>/);
      const exchange = (await held(page, 'article:has-text("weir/"):has(.payment)')).first();
      assert.deepEqual(await stepsOf(exchange), STEPS);
      const html = await page.content();
      assert.doesNotMatch(html, /private/);
      // The longest word is an id: no credential (1 KB and more), no receipt.
      const longest = Math.max(...(await page.locator('body').innerText()).split(/\s+/).map((word) => word.length));
      assert.ok(longest < 100, `a word of ${longest} characters`);
      await exchange.locator('h2 a').click();
      await page.getByText('All exchanges').waitFor();
      await page.getByText('Balance at the gate').waitFor();
      assert.deepEqual(complaints, []);
    });

    for (const colorScheme of ['light', 'dark']) {
      test(`is readable on a small telephone, ${colorScheme}`, async () => {
        const { page, complaints } = await visit(browser, { viewport: { width: 360, height: 740 }, colorScheme });
        const exchange = (await held(page, 'article:has(.draw)')).first();
        await shot(page, `debugger-${colorScheme}`);
        const [wide, size] = await page.evaluate(() => {
          const text = document.querySelector('svg g text').getBoundingClientRect();
          return [document.documentElement.scrollWidth, text.height];
        });
        assert.ok(wide <= 360, `${wide} pixels wide`);
        assert.ok(size >= 10, `text of ${size} pixels`);
        const drawing = await exchange.locator('svg').boundingBox();
        for (const text of await exchange.locator('svg text').all()) {
          const { x, width } = await text.boundingBox();
          assert.ok(x >= drawing.x - 2 && x + width <= drawing.x + drawing.width + 2, await text.textContent());
        }
        assert.deepEqual(complaints, []);
      });
    }
  });
}
