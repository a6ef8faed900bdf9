/** What a plan costs on a text. */
export interface Quality {
  /** Tokens scored. */
  tokens: number;
  /** Mean KL(sequential ‖ plan) per scored token, nats, and its standard error. */
  kl: number;
  klStandardError: number;
  perplexity: number;
  /** Share of tokens at which sequential and plan have the same most likely token. */
  topAgreement: number;
}
