import type { ModelConfig } from '../../checkpoint/types.js';
import type { Plan } from '../../plan/plan.js';

const [X, A, M] = [0, 1, 2];

/**
 * Reads what `Session.trace` gives, [nLayers][3][tokens][dim], from token `first` on; what it gives is [tokens − first,
 * …] in float64.
 */
export class TraceReader {
  readonly #dim: number;
  readonly #normEps: number;

  constructor(
    { dim, normEps }: Pick<ModelConfig, 'dim' | 'normEps'>,
    private readonly tokens: number,
    private readonly first: number,
  ) {
    this.#dim = dim;
    this.#normEps = normEps;
  }

  /** Tokens that are read. */
  get count(): number {
    return this.tokens - this.first;
  }

  /** x + a + m of a layer by itself: [count, dim]. */
  layerOutput(trace: Float32Array, layer: number): Float64Array {
    return this.#sum(trace, [
      [layer, X],
      [layer, A],
      [layer, M],
    ]);
  }

  /** y = x + Σ (a_j + m_j), and + b_j in mode "official": [count, dim]. */
  groupOutput(trace: Float32Array, group: readonly number[], { bypass, bypassMode }: Plan): Float64Array {
    const added = group.flatMap((layer, j): Array<[number, number]> => {
      const bypassed = bypassMode === 'official' ? earlier(layer, Math.min(bypass, j)) : [];
      return [[layer, A], [layer, M], ...bypassed];
    });
    return this.#sum(trace, [[group[0]!, X], ...added]);
  }

  /** What the attention of a layer normalizes and scales: gain · x / rms(x), [count, dim]. */
  attentionInput(trace: Float32Array, layer: number, gain: Float32Array): Float64Array {
    return this.#normalize(this.#sum(trace, [[layer, X]]), gain);
  }

  /**
   * The input of its MLP: gain · h / rms(h), h = x + a + b with the attention outputs of `bypass` layers before it,
   * [count, dim].
   */
  mlpInput(trace: Float32Array, layer: number, bypass: number, gain: Float32Array): Float64Array {
    return this.#normalize(this.#sum(trace, [[layer, X], [layer, A], ...earlier(layer, bypass)]), gain);
  }

  /** The m of layers side by side: [count, layers · dim]. */
  mlpOutputs(trace: Float32Array, layers: readonly number[]): Float64Array {
    const dim = this.#dim;
    const out = new Float64Array(this.count * layers.length * dim);
    for (const [j, layer] of layers.entries()) {
      const m = this.#part(trace, layer, M);
      for (let t = 0; t < this.count; t++) out.set(m.subarray(t * dim, (t + 1) * dim), (t * layers.length + j) * dim);
    }
    return out;
  }

  #part(trace: Float32Array, layer: number, part: number): Float32Array {
    const start = (layer * 3 + part) * this.tokens * this.#dim;
    return trace.subarray(start + this.first * this.#dim, start + this.tokens * this.#dim);
  }

  #sum(trace: Float32Array, parts: ReadonlyArray<readonly [layer: number, part: number]>): Float64Array {
    const out = new Float64Array(this.count * this.#dim);
    for (const [layer, part] of parts) {
      const values = this.#part(trace, layer, part);
      for (let i = 0; i < out.length; i++) out[i]! += values[i]!;
    }
    return out;
  }

  #normalize(rows: Float64Array, gain: Float32Array): Float64Array {
    const dim = this.#dim;
    for (let at = 0; at < rows.length; at += dim) {
      let square = 0;
      for (let i = 0; i < dim; i++) square += rows[at + i]! * rows[at + i]!;
      const scale = 1 / Math.sqrt(square / dim + this.#normEps);
      for (let i = 0; i < dim; i++) rows[at + i]! *= scale * gain[i]!;
    }
    return rows;
  }
}

/** The attention outputs of the `count` layers before one. */
function earlier(layer: number, count: number): Array<[number, number]> {
  return Array.from({ length: count }, (_, k) => [layer - k - 1, A]);
}
