// The payment method `weir` for the npm package `mppx`: its client pays with `weir pay`, its server judges with `weir verify`.
// Everything else, from the challenge to the receipt, is that package's own.

import { Errors, Method, z } from 'mppx';

/** What `request` and `payload` of method `weir` look like (specification, HTTP). */
export const charge = Method.from({
  name: 'weir',
  intent: 'charge',
  schema: {
    request: z.object({
      amount: z.string(),
      currency: z.string(),
      description: z.optional(z.string()),
      methodDetails: z.looseObject({ hub: z.string(), scale: z.number() }),
      recipient: z.string(),
    }),
    credential: {
      payload: z.object({ amount: z.string(), certificate: z.string(), receipt: z.string() }),
    },
  },
});

/** A payer: `pay` runs `weir pay --challenge TEXT --json` and gives what it prints. */
export function payer({ Challenge }, pay) {
  return Method.toClient(charge, {
    async createCredential({ challenge }) {
      return (await pay(Challenge.serialize(challenge))).credential;
    },
  });
}

/** A payee: `verify` runs `weir verify CREDENTIAL --json` with more options and gives what it prints. */
export function payee({ Credential }, verify) {
  return Method.toServer(charge, {
    async verify({ credential, request }) {
      const { challenge } = credential;
      const judged = await verify(Credential.serialize(credential), [
        ...['--hub', request.methodDetails.hub, '--payee', request.recipient],
        ...['--currency', request.currency, '--challenge-id', challenge.id],
      ]);
      if (!judged.valid) throw new Errors.VerificationFailedError({ reason: judged.reason });
      return {
        status: 'success',
        method: 'weir',
        reference: judged.payment.payment_id,
        timestamp: new Date(judged.time_ms).toISOString(),
      };
    },
  });
}
