export { accountant } from "./accountant.js";
export type { EpsilonBounds, PrivacyAccountant, PrivacyRun } from "./accountant.js";
export { connect } from "./client.js";
export type { CallOptions, Client, ConnectOptions, JoinOptions, LocalData, PrivacyBudget } from "./client.js";
export { errorCodes, UnsaidError } from "./errors.js";
export type { ErrorCode, Problem } from "./errors.js";
export { explain } from "./explain.js";
export type * from "./types.js";
