/**
 * Sums over tokens of the second moments of inputs z [inputs] and of several targets r [outputs]: all a linear
 * regression of the targets on the inputs needs. Memory depends on the widths, not on how many tokens are added.
 */
export class Moments {
  /** Σ z zᵀ [inputs, inputs]; the lower triangle counts. */
  readonly gram: Float64Array;
  /** Σ z rᵀ [inputs, outputs] of each target. */
  readonly cross: Float64Array[];
  /** Σ ‖r‖² of each target. */
  readonly energy: number[];
  tokens = 0;

  constructor(
    readonly inputs: number,
    readonly outputs: number,
    targets: number,
  ) {
    this.gram = new Float64Array(inputs * inputs);
    this.cross = Array.from({ length: targets }, () => new Float64Array(inputs * outputs));
    this.energy = Array.from({ length: targets }, () => 0);
  }

  /** Adds tokens: z [tokens, inputs], each target [tokens, outputs]. */
  add(tokens: number, z: Float64Array, targets: readonly Float64Array[]): void {
    const { inputs, outputs } = this;
    for (let i = 0; i < inputs; i++) {
      for (let t = 0; t < tokens; t++) {
        const factor = z[t * inputs + i]!;
        for (let j = 0; j <= i; j++) this.gram[i * inputs + j]! += factor * z[t * inputs + j]!;
        for (const [k, r] of targets.entries()) {
          const cross = this.cross[k]!;
          for (let c = 0; c < outputs; c++) cross[i * outputs + c]! += factor * r[t * outputs + c]!;
        }
      }
    }
    for (const [k, r] of targets.entries()) for (let i = 0; i < tokens * outputs; i++) this.energy[k]! += r[i]! * r[i]!;
    this.tokens += tokens;
  }
}
