// The libraries that the declarations need: a program that uses them may be compiled with others, and without
// @types/node.
/// <reference lib="es2020" preserve="true" />
/// <reference lib="esnext.disposable" preserve="true" />
export { CqilError, type ErrorCode } from './errors.js';
export { loadModel } from './model/load.js';
export type { Model } from './model/model.js';
export type { LoadOptions, LoadProgress, SessionOptions } from './engine/load_options.js';
export { describePlan, drawPlan } from './plan/plan_diagram.js';
export { formatPlan, resolvePlan, type Plan, type PlanInput } from './plan/plan.js';
export type { PublishedPlan } from './model/published_plan.js';
export type { Location, UrlLike } from './util/location.js';
export type { Architecture, ModelConfig } from './checkpoint/types.js';
export type {
  GenerateOptions,
  Generation,
  GenerationChunk,
  GenerationResult,
  GenerationTimings,
} from './generate/generate.js';
export type { Activations, ActivationsChoice } from './engine/activations.js';
export type { KvCache, KvCacheChoice } from './engine/kv_cache.js';
export type { Execution, Phase, PhaseKind, Program, Split } from './engine/native.js';
export type { TokenLogprob } from './generate/sampler.js';
export type { SamplingOptions } from './generate/sampling_options.js';
export type { CallOptions, ShortlistOptions } from './session/arguments.js';
export type { Session } from './session/session.js';
export type { Shortlist } from './engine/shortlist.js';
export type { ScheduleStep, StepKind } from './engine/schedule.js';
export type { Timeline, TimelineSpan } from './engine/timeline.js';
export type {
  ChatMessage,
  ChatOptions,
  ChatPart,
  DecodeOptions,
  Detokenizer,
  DetokenizerOptions,
  EncodeChatOptions,
  EncodeOptions,
  EncodeSlicedOptions,
  Tokenizer,
} from './tokenizer/index.js';

declare global {
  /** Declared for programs that have neither the DOM's nor Node's types; otherwise merged with theirs. */
  interface AbortSignal {}
}
