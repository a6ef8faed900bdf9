export { CqilError, type ErrorCode } from './errors.js';
