import { decimals, percent, quantity } from './format.js';
import type { PlanRow, Speed } from './report_data.js';

/** How a plan's time compares: where the middle half of the rounds disagrees about the sign, it is not told apart. */
function speedWords({ low, median, high }: Speed['change']): string {
  const amount = percent(Math.abs(median), Math.abs(median) < 0.02 ? 1 : 0);
  if (high < 0) return `takes ${amount} less time per token than the sequential model`;
  if (low > 0) return `takes ${amount} more time per token than the sequential model`;
  return 'cannot be told from the sequential model by its time per token,';
}

/** What a report comes to, in one sentence: of its first plan, or of the sequential model when there is no other. */
export function headline([sequential, chosen]: readonly PlanRow[]): string {
  if (!chosen)
    return (
      `The sequential model takes ${quantity(sequential!.msPerToken.median)} ms per token, with a perplexity ` +
      `of ${quantity(sequential!.quality.perplexity)}.`
    );
  const speed = speedWords(chosen.change);
  if (!chosen.lossy) return `${chosen.name} ${speed} and computes the same as it does.`;
  const faster = chosen.change.high < 0;
  return `${chosen.name} ${speed} ${faster ? 'and' : 'but'} costs ${quantity(chosen.quality.kl.mean)} nats.`;
}

/** What the headline leaves out: lossy or lossless, in plain words. */
export function explanation([sequential, chosen]: readonly PlanRow[]): string {
  if (!chosen) return 'Sequential is lossless: the model as it was trained, one layer after the other.';
  if (!chosen.lossy)
    return 'It is lossless: no layers share an input, so every number is that of the sequential model.';
  const { kl, perplexity, topAgreement } = chosen.quality;
  const before = sequential!.quality.perplexity;
  return (
    `It is lossy: layers of a group no longer see each other's outputs. Its predictions are ` +
    `${quantity(kl.mean)} nats of KL divergence per token from those of the sequential model ` +
    `(${quantity(kl.p99)} at the 99th percentile); perplexity is ${decimals(perplexity, 2)} instead of ` +
    `${decimals(before, 2)}, and the most likely token is the same for ${percent(topAgreement)} of tokens. ` +
    'Sequential is lossless.'
  );
}
