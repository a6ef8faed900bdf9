// What the command line measures of models and plans, for programs. The runtime, `cqil`, imports none of it.
/// <reference lib="es2020" preserve="true" />
/// <reference lib="esnext.disposable" preserve="true" />
export { openCheckpoint } from '../checkpoint/open.js';
export { writeLora, type LoraUpdate } from '../checkpoint/write_lora.js';
export type { Checkpoint } from '../checkpoint/types.js';

export { measureSimilarity, type SimilarityOptions } from './similarity/measure_similarity.js';
export type { Similarity } from './similarity/similarity.js';

export {
  defaultWindow,
  measurePerplexity,
  modelWindows,
  type MeasureOptions,
  type Perplexity,
} from './eval/perplexity.js';
export { comparePlans, type CompareOptions, type TextQuality } from './eval/compare_plans.js';
export { runTasks, type TaskOptions, type TaskQuality, type TaskResult } from './eval/run_tasks.js';
export { parseTask, type Task, type TaskForm, type TaskItem } from './eval/task_file.js';
export type { Estimate } from './eval/statistics.js';
export type { Protocol, Window } from './eval/windows.js';

export { calibration, findCalibration, typicalPosition, type Calibration } from './latency/calibration.js';
export type { LatencyModel, Prediction } from './latency/latency_model.js';
export { timeContenders, timeWatched, type Contender, type Timing, type Workload } from './latency/timing.js';

export { findPlans, type FindOptions, type FoundPlans } from './search/find_plans.js';
export type { MeasuredPlan, SearchPoint } from './search/front.js';
export { bestFor, describeGoal, type Goal, type GoalPoint } from './search/goal.js';

export { recoverPlan, type RecoverOptions } from './recovery/recover_plan.js';
export type { RecoveredPlan, SiteOutcome } from './recovery/outcome.js';

export { chromeTrace } from './report/chrome_trace.js';
export { reportPage } from './report/page.js';
export type { Provenance, ReportData } from './report/report_data.js';
export { measureReport, type MeasuredReport, type MeasureReportOptions } from './report/report_measure.js';
