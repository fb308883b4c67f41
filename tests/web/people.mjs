// People: the gate's page in a real Chromium, with `weir` paying in another process.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';

import jsQR from 'jsqr';
import { chromium } from 'playwright-core';
import { PNG } from 'pngjs';

import { until } from './world.mjs';

const FLAGS = [
  ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
  ...['--disable-component-update', '--disable-sync'],
];
/** Most bytes of a page. */
const MAX_PAGE_BYTES = 10 * 1024;
/** Screenshots are kept here when it is set, to be looked at. */
export const SHOTS = process.env.WEIR_SHOTS;

/** A browser of its own for the tests, and the page whose offer is to expire meanwhile. */
async function begin(world) {
  if (SHOTS) await mkdir(SHOTS, { recursive: true });
  const profile = await mkdtemp(path.join(tmpdir(), 'weir-web-profile-'));
  const executablePath = process.env.WEIR_CHROMIUM ?? '/usr/bin/chromium';
  const browser = await chromium.launch({ executablePath, args: [...FLAGS] });
  const close = async () => {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  };
  const short = await world.startGate('short', 'challenge_ttl = "30s"');
  const visitor = await visit(browser);
  await visitor.page.goto(`${short}/articles/expired`);
  return { browser, close, visitor };
}

/** A visitor: cookies and pages of their own. Everything that is requested and complained about is noted. */
export async function visit(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 900 }, ...options });
  const noted = { requests: [], complaints: [] };
  // What the page carries in itself is asked of nobody.
  context.on('request', (request) => request.url().startsWith('data:') || noted.requests.push(request.url()));
  context.on('console', (message) => {
    // A 402 is an error to the browser, and the reason for the page.
    const expected = /status of 402/.test(message.text());
    if (['error', 'warning'].includes(message.type()) && !expected) noted.complaints.push(message.text());
  });
  context.on('weberror', (error) => noted.complaints.push(String(error.error())));
  const open = async () => {
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    return page;
  };
  return { context, open, page: await open(), ...noted };
}

/** The address that the page shows, as its command has it. */
async function claimOf(page) {
  const command = await page.locator('#command').textContent();
  const [, claim] = command.match(/^weir pay --challenge '([^']+)'$/);
  return claim;
}

/** What a QR code in a screenshot says. */
async function decode(shot) {
  const { data, width, height } = PNG.sync.read(shot);
  return jsQR(new Uint8ClampedArray(data), width, height)?.data;
}

export function people(world, { browser, close, visitor: waiting }) {
  describe('people in Chromium', { concurrency: false }, () => {
    const shot = (page, name) => SHOTS && page.screenshot({ path: path.join(SHOTS, `${name}.png`), fullPage: true });
    const pay = (claim) => world.ask('ada', ['pay', '--challenge', claim, '--yes']);
    const article = (page, name) => page.getByRole('heading', { name: `The text of /articles/${name}` }).waitFor();
    const visitors = [];
    const visitor = async (options) => {
      const made = await visit(browser, options);
      visitors.push(made);
      return made;
    };
    after(close);

    test('the page says what it costs and how to pay, in one small file', async () => {
      const { page, requests, complaints } = await visitor();
      const url = `${world.gate}/articles/page`;
      const response = await page.goto(url);
      assert.equal(response.status(), 402);
      const body = await response.body();
      assert.ok(body.length <= MAX_PAGE_BYTES, `${body.length} bytes`);
      assert.ok(response.headers()['www-authenticate'].startsWith('Payment '));
      assert.equal(response.headers()['cache-control'], 'no-store');
      assert.equal(await page.title(), 'An article of the Morning Gazette');
      const text = await page.locator('body').innerText();
      for (const said of ['0.05 EUR', 'An article of the Morning Gazette', 'news.example', '24 hours', 'I have paid']) {
        assert.ok(text.includes(said), said);
      }
      const claim = await claimOf(page);
      assert.ok(claim.startsWith(`${world.gate}/.weir/claim/`));
      assert.equal(await decode(await page.locator('img').screenshot()), claim, 'the code on the screen');
      await shot(page, 'light');
      await page.emulateMedia({ colorScheme: 'dark' });
      assert.equal(await decode(await page.locator('img').screenshot()), claim, 'and in the dark');
      await shot(page, 'dark');
      await page.emulateMedia({ colorScheme: 'light' });
      await page.setViewportSize({ width: 360, height: 740 });
      assert.equal(await decode(await page.locator('img').screenshot()), claim, 'and on a small one');
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= 360, `${wide} pixels wide`);
      await shot(page, 'narrow');

      // It asks for nothing but itself and whether it was paid, of its own server alone.
      await until('it asks', () => requests.length > 2);
      assert.deepEqual(requests.filter((asked) => asked !== url && !asked.startsWith(`${claim.split('?')[0]}?`)), []);
      assert.deepEqual(complaints, []);
    });

    test('it opens by itself when it is paid elsewhere, and is never paid again', async () => {
      const { page, open, context, complaints } = await visitor();
      const url = `${world.gate}/articles/opens`;
      await page.goto(url);
      const claim = await claimOf(page);
      await world.paying(['0.05'], async () => {
        const paid = await pay(claim);
        assert.equal(paid.claimed, true);
        await article(page, 'opens');
        assert.equal((await page.reload()).status(), 200);
        await page.goto(`${world.gate}/articles/opens?other=1`);
        assert.ok(await page.locator('#command').count(), 'another address is another article');
        await page.goBack();
        await article(page, 'opens');
        await page.goForward();
        await page.goBack();
        await article(page, 'opens');
        const second = await open();
        assert.equal((await second.goto(url)).status(), 200);
        const head = await page.evaluate(async (url) => (await fetch(url, { method: 'HEAD' })).status, url);
        assert.equal(head, 200);
        const response = await page.goto(url);
        assert.equal(response.headers()['cache-control'], 'private');
        // Pressed twice by impatience, `weir` says that it is paid, and pays nothing.
        assert.equal((await pay(claim)).payment_id, paid.payment_id);
      });
      const [cookie] = (await context.cookies(url)).filter(({ name }) => name === 'weir');
      assert.ok(cookie.value.length <= 256);
      assert.deepEqual([cookie.httpOnly, cookie.secure, cookie.sameSite], [true, true, 'Lax']);
      assert.equal(cookie.path, '/articles/opens', 'it goes to what it opens, and nowhere else');
      assert.deepEqual(complaints, []);

      const stranger = await visitor();
      assert.equal((await stranger.page.goto(url)).status(), 402, 'who has no cookie gets the page');
      assert.notEqual(await claimOf(stranger.page), claim);
    });

    test('tabs that wait for the same article open for one payment', async () => {
      const { page, open } = await visitor();
      const url = `${world.gate}/articles/tabs`;
      await page.goto(url);
      const other = await open();
      await other.goto(url);
      assert.equal(await claimOf(other), await claimOf(page));
      await world.paying(['0.05'], async () => {
        await pay(await claimOf(page));
        await Promise.all([article(page, 'tabs'), article(other, 'tabs')]);
      });
    });

    test('two articles that wait at once open for their own payments only', async () => {
      const { page, open } = await visitor();
      await page.goto(`${world.gate}/articles/first`);
      const other = await open();
      await other.goto(`${world.gate}/articles/second`);
      await world.paying(['0.05', '0.05'], async () => {
        await pay(await claimOf(other));
        await article(other, 'second');
        assert.equal((await page.reload()).status(), 402);
        await pay(await claimOf(page));
        await article(page, 'first');
        assert.equal((await other.reload()).status(), 200);
      });
    });

    test('a page that was loaded again meanwhile opens for what the first one asked', async () => {
      const { page } = await visitor();
      const url = `${world.gate}/articles/reloaded`;
      await page.goto(url);
      const claim = await claimOf(page);
      await world.paying(['0.05'], async () => {
        await page.reload();
        await pay(claim);
        await article(page, 'reloaded');
      });
    });

    test('a page that was closed opens when it is visited after the payment', async () => {
      const { page, open } = await visitor();
      const url = `${world.gate}/articles/closed`;
      await page.goto(url);
      const claim = await claimOf(page);
      await page.close();
      await world.paying(['0.05'], async () => {
        await pay(claim);
        const later = await open();
        assert.equal((await later.goto(url)).status(), 200);
        assert.equal(later.url(), url);
      });
    });

    test('an address that can be spelled in several ways opens as it was typed', async () => {
      const { page } = await visitor();
      const names = ['%7Eada', 'Stra%C3%9Fe%20x', 'a%3Fb', '100%25', "it's", 'q?b=2&a=%20x'];
      await world.paying(names.map(() => '0.05'), async () => {
        for (const name of names) {
          await page.goto(`${world.gate}/articles/${name}`);
          await pay(await claimOf(page));
          await page.getByRole('heading', { name: 'The text of /articles/' }).waitFor();
          const again = await page.goto(`${world.gate}/articles/${name}`);
          assert.equal(again.status(), 200, name);
        }
      });
    });

    test('an article without a window is served again for a while, and then asks anew', async () => {
      const { page, context } = await visitor();
      const url = `${world.gate}/once/page`;
      await page.goto(url);
      await world.paying(['0.000000007'], async () => {
        await pay(await claimOf(page));
        await page.getByRole('heading', { name: 'The text of /once/page' }).waitFor();
        assert.equal((await page.reload()).status(), 200);
        // Without the cookie the browser is known by its other one.
        await context.clearCookies({ name: 'weir' });
        assert.equal((await page.goto(url)).status(), 200);
      });
    });

    test('what the server cannot answer is not charged, and the payment stays', async () => {
      const { page } = await visitor();
      await page.goto(`${world.gate}/broken/page`);
      await world.paying(['0.01'], async () => {
        await pay(await claimOf(page));
        await page.getByText('broken', { exact: true }).waitFor();
        assert.equal((await page.reload()).status(), 500);
      });
    });

    test('without JavaScript the button says that it is not paid yet, and then opens the article', async () => {
      const { page, complaints } = await visitor({ javaScriptEnabled: false });
      const url = `${world.gate}/articles/scriptless`;
      await page.goto(url);
      assert.equal(await page.locator('#copy').isVisible(), false);
      const claim = await claimOf(page);
      await shot(page, 'scriptless');
      await page.getByRole('button', { name: 'I have paid' }).click();
      await page.getByRole('heading', { name: 'Not paid yet' }).waitFor();
      await shot(page, 'not-yet');
      await page.getByRole('button', { name: 'Look again' }).click();
      await page.getByRole('heading', { name: 'Not paid yet' }).waitFor();
      await page.getByRole('link', { name: 'Back to the page' }).click();
      assert.equal(await claimOf(page), claim);
      await world.paying(['0.05'], async () => {
        await pay(claim);
        await page.getByRole('button', { name: 'I have paid' }).click();
        await article(page, 'scriptless');
        assert.equal(page.url(), url);
        assert.equal((await page.reload()).status(), 200);
      });
      assert.deepEqual(complaints, []);
    });

    test('the code opened by a camera shows the command, and opens nothing', async () => {
      const { page } = await visitor();
      await page.goto(`${world.gate}/articles/camera`);
      const claim = await claimOf(page);
      const camera = await visitor();
      assert.equal((await camera.page.goto(claim)).status(), 200);
      assert.equal(await camera.page.locator('pre').textContent(), `weir pay --challenge '${claim}'`);
      await shot(camera.page, 'camera');
      assert.deepEqual((await camera.context.cookies()).map(({ name }) => name), []);
      assert.deepEqual(camera.complaints, []);
    });

    test('the page of one browser does not open in another', async () => {
      const { page } = await visitor();
      await page.goto(`${world.gate}/articles/mine`);
      const claim = await claimOf(page);
      const polled = await page.locator('#weir').getAttribute('data-claim');
      await world.paying(['0.05'], async () => {
        await pay(claim);
        await article(page, 'mine');
        const thief = await visitor();
        const refused = await thief.page.goto(`${world.gate}${polled}`);
        assert.equal(refused.status(), 403);
        await thief.page.goto(`${world.gate}/articles/mine`);
        assert.equal((await thief.page.goto(`${world.gate}${polled}`)).status(), 403, 'nor with a cookie of its own');
        assert.deepEqual((await thief.context.cookies()).filter(({ name }) => name === 'weir'), []);
      });
    });

    test('a changed cookie and a changed claim open nothing', async () => {
      const { page, context } = await visitor();
      const url = `${world.gate}/articles/changed`;
      await page.goto(url);
      const claim = await claimOf(page);
      for (const wrong of [claim.replace(/c=(.)/, (_, c) => `c=${c === 'A' ? 'B' : 'A'}`), claim.replace('/claim/', '/claim/A')]) {
        const { code, stderr } = await world.weir('ada', ['pay', '--challenge', wrong, '--yes', '--json']);
        assert.equal(code, 1, stderr);
        assert.match(stderr, /nothing was paid/);
      }
      await world.paying(['0.05'], async () => {
        await pay(claim);
        await article(page, 'changed');
      });
      const [cookie] = (await context.cookies(url)).filter(({ name }) => name === 'weir');
      const value = cookie.value.replace(/^./, (c) => (c === 'A' ? 'B' : 'A'));
      const stranger = await visitor();
      await stranger.context.addCookies([{ ...cookie, value }]);
      assert.equal((await stranger.page.goto(url)).status(), 402);
    });

    test('without cookies the page says that they are needed', async () => {
      const { page, context } = await visitor();
      await page.goto(`${world.gate}/articles/cookieless`);
      await context.clearCookies();
      await page.getByText('without cookies').waitFor();
      await shot(page, 'cookieless');
      assert.ok(await page.getByRole('button', { name: 'Try again' }).isVisible());
    });

    test('an offer that is over says so, cannot be paid, and a new one opens', async () => {
      const { page } = waiting;
      const claim = await claimOf(page);
      await page.getByText('This offer is over').waitFor({ timeout: 40_000 });
      assert.equal(await page.locator('#command').isVisible(), false);
      await shot(page, 'over');
      await world.paying([], async () => {
        const { code, stderr } = await world.weir('ada', ['pay', '--challenge', claim, '--yes', '--json']);
        assert.equal(code, 1, stderr);
        assert.match(stderr, /nothing was paid/);
      });
      await page.getByRole('button', { name: 'Show a new one' }).click();
      await until('a new offer', async () => (await page.locator('#command').isVisible()) && (await claimOf(page)) !== claim);
      await world.paying(['0.05'], async () => {
        await pay(await claimOf(page));
        await article(page, 'expired');
      });
    });

    test('nothing but the sites themselves was ever asked for', () => {
      const hosts = visitors.flatMap(({ requests }) => requests.map((url) => new URL(url).host));
      assert.deepEqual([...new Set(hosts)], [new URL(world.gate).host]);
    });
  });
}
people.begin = begin;
