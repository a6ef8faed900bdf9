// The CommonJS build itself, so that `import` and `require` in one process share one CqilError and one native addon.
export { CqilError, describePlan, drawPlan, formatPlan, loadModel, resolvePlan } from './index.js';
export type * from './index.js';
