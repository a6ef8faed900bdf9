import { CqilError } from '../../errors.js';

/** How alike the inputs of a model's layers are, and what each layer adds to its own: means over tokens. */
export interface Similarity {
  /** Tokens the means are over. */
  tokens: number;
  /**
   * [nLayers][nLayers], cosine of the inputs of two layers, ⟨x_i, x_j⟩ / (‖x_i‖ ‖x_j‖): symmetric, 1 on the diagonal.
   */
  inputCosine: number[][];
  /** [nLayers], Euclidean norm of the input, ‖x‖. */
  inputNorm: number[];
  /** [nLayers], what the layer adds relative to its input, ‖a + m‖ / ‖x‖. */
  deltaRatio: number[];
  /** [nLayers], what its attention block adds, ‖a‖ / ‖x‖. */
  attentionRatio: number[];
  /** [nLayers], what its MLP block adds, ‖m‖ / ‖x‖. */
  mlpRatio: number[];
  /** [nLayers], how far the layer turns its input, 1 − cos(x, x + a + m). */
  influence: number[];
}

/**
 * Collects the statistics of `Similarity` from traces, in float64. Holds sums only: memory depends on the model, not on
 * how many tokens are added.
 */
export class SimilarityStatistics {
  readonly #nLayers: number;
  readonly #dim: number;
  #tokens = 0;
  /** [nLayers, nLayers], filled where the row is less than the column. */
  readonly #cosine: Float64Array;
  /** [nLayers] each. */
  readonly #norm: Float64Array;
  readonly #delta: Float64Array;
  readonly #attention: Float64Array;
  readonly #mlp: Float64Array;
  readonly #influence: Float64Array;
  /** [nLayers, dim], the inputs of one token as unit vectors, and their norms [nLayers]. */
  readonly #units: Float64Array;
  readonly #norms: Float64Array;

  constructor(nLayers: number, dim: number) {
    this.#nLayers = nLayers;
    this.#dim = dim;
    this.#cosine = new Float64Array(nLayers * nLayers);
    this.#units = new Float64Array(nLayers * dim);
    [this.#norm, this.#delta, this.#attention, this.#mlp, this.#influence, this.#norms] = Array.from(
      { length: 6 },
      () => new Float64Array(nLayers),
    ) as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];
  }

  /**
   * Adds tokens [first, tokens) of a trace [nLayers][3][tokens][dim] as `Session.trace` gives it. A token for which
   * some layer's input is all zeros has no direction there and is left out.
   *
   * @throws CqilError NOT_FINITE when a value is infinite or not a number.
   */
  add(trace: Float32Array, tokens: number, first = 0): void {
    for (let token = first; token < tokens; token++) {
      if (!this.#readInputs(trace, tokens, token)) continue;
      this.#addPairs();
      for (let layer = 0; layer < this.#nLayers; layer++) this.#addLayer(trace, tokens, token, layer);
      this.#tokens++;
    }
  }

  /** @throws CqilError INVALID_ARGUMENT before any token was counted. */
  result(): Similarity {
    const n = this.#tokens;
    if (n === 0)
      throw new CqilError('INVALID_ARGUMENT', 'No token with inputs other than zero was added; expected at least one.');
    const mean = (sums: Float64Array): number[] => Array.from(sums, (sum) => sum / n);
    const pair = (i: number, j: number): number =>
      i === j ? 1 : this.#cosine[Math.min(i, j) * this.#nLayers + Math.max(i, j)]! / n;
    const layers = Array.from({ length: this.#nLayers }, (_, layer) => layer);
    return {
      tokens: n,
      inputCosine: layers.map((i) => layers.map((j) => pair(i, j))),
      inputNorm: mean(this.#norm),
      deltaRatio: mean(this.#delta),
      attentionRatio: mean(this.#attention),
      mlpRatio: mean(this.#mlp),
      influence: mean(this.#influence),
    };
  }

  /** Every layer's input of one token as a unit vector; false when one of them is zero. */
  #readInputs(trace: Float32Array, tokens: number, token: number): boolean {
    const dim = this.#dim;
    for (let layer = 0; layer < this.#nLayers; layer++) {
      const x = (layer * 3 * tokens + token) * dim;
      let square = 0;
      for (let i = 0; i < dim; i++) square += trace[x + i]! * trace[x + i]!;
      const norm = Math.sqrt(square);
      expectFinite(norm, layer);
      if (norm === 0) return false;
      this.#norms[layer] = norm;
      for (let i = 0; i < dim; i++) this.#units[layer * dim + i] = trace[x + i]! / norm;
    }
    return true;
  }

  #addPairs(): void {
    const [dim, units] = [this.#dim, this.#units];
    for (let i = 0; i < this.#nLayers; i++) {
      for (let j = i + 1; j < this.#nLayers; j++) {
        let dot = 0;
        for (let k = 0; k < dim; k++) dot += units[i * dim + k]! * units[j * dim + k]!;
        this.#cosine[i * this.#nLayers + j]! += dot;
      }
    }
  }

  #addLayer(trace: Float32Array, tokens: number, token: number, layer: number): void {
    const dim = this.#dim;
    const [x, a, m] = [0, 1, 2].map((part) => ((layer * 3 + part) * tokens + token) * dim) as [number, number, number];
    let [aa, mm, dd, yy, xy] = [0, 0, 0, 0, 0];
    for (let i = 0; i < dim; i++) {
      const [input, attention, mlp] = [trace[x + i]!, trace[a + i]!, trace[m + i]!];
      const delta = attention + mlp;
      const output = input + delta;
      aa += attention * attention;
      mm += mlp * mlp;
      dd += delta * delta;
      yy += output * output;
      xy += input * output;
    }
    expectFinite(aa + mm, layer);
    const norm = this.#norms[layer]!;
    this.#norm[layer]! += norm;
    this.#delta[layer]! += Math.sqrt(dd) / norm;
    this.#attention[layer]! += Math.sqrt(aa) / norm;
    this.#mlp[layer]! += Math.sqrt(mm) / norm;
    // A layer that cancels its input leaves no direction: it has turned all of it away.
    this.#influence[layer]! += yy > 0 ? 1 - xy / (norm * Math.sqrt(yy)) : 1;
  }
}

function expectFinite(value: number, layer: number): void {
  if (!Number.isFinite(value))
    throw new CqilError(
      'NOT_FINITE',
      `Layer ${layer} computes values that are infinite or not numbers; expected weights that give finite ones.`,
    );
}
