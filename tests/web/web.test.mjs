// Weir with software that others wrote. `.ci/web` runs it; `WEIR_BIN_DIR` says where `weir` and `weir-hub` are.

import { after } from 'node:test';

import { byHand } from './hand.mjs';
import { crawlers } from './crawlers.mjs';
import { debuggerPage } from './debugger.mjs';
import { mppx } from './mppx.mjs';
import { people } from './people.mjs';
import { World } from './world.mjs';
import { x402 } from './x402.mjs';

const world = await World.start();
after(() => world.stop());

// The part with a browser takes part of its time waiting for an offer to expire: it comes last, and opens it first.
const waiting = await people.begin(world);
mppx(world);
x402(world);
byHand(world);
crawlers(world);
debuggerPage(waiting);
people(world, waiting);
