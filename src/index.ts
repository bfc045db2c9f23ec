export { parseJsonObject, readJsonObject } from "./checkpoint/json.js";
export type { Manifest } from "./checkpoint/manifest.js";
export type { PlanFile } from "./checkpoint/planFile.js";
export { readPlanFile, writePlanFile } from "./checkpoint/planFile.js";
export { readScoreFile, type ScoreFile, writeScoreFile } from "./checkpoint/scoreFile.js";
export type { HistoryEntry } from "./checkpoint/searchState.js";
export type { NetworkHistoryEntry } from "./checkpoint/sensitivityState.js";
export { checkTarget, checkWritable } from "./checkpoint/staging.js";
export { FORMATS, type Format } from "./childLayout.js";
export type { DummyInput, ForwardArgs, NamedArgs } from "./data/args.js";
export type { ArgValue, NestedNumbers, TypedArray } from "./data/argTensors.js";
export { BATCH_DEFAULTS, batchesOf, type CalibrationData, readCalibrationData, textBatches } from "./data/batches.js";
export { type BatchShape, packTokens, tokenBatch } from "./data/pack.js";
export { readTensors } from "./data/tensorFile.js";
export type { CollectFunc, DataSource } from "./data/toBatches.js";
export { readTokenFile } from "./data/tokenFile.js";
export { type ErrorCode, PruneError } from "./errors.js";
export { type Inspection, inspect, type Network, type Parent, readParent, readRunnableParent, readWeightedParent } from "./inspect.js";
export { type CrossEntropyOptions, crossEntropy, type LossAndGradient, type LossFunc, type Outputs } from "./losses.js";
export type { AttachedModel, AttachedModelOptions } from "./model/attachedModel.js";
export { Bridge } from "./model/bridges.js";
export type { LaunchOptions, Parallelism } from "./model/launch.js";
export type { BridgeListener, ListenOptions } from "./model/listener.js";
export type { BuiltOptions, FolderOptions, LoadOptions } from "./model/loadOptions.js";
export type { Model, SaveOptions } from "./model/model.js";
export type { NetworkModel, PrunedNetwork } from "./model/networkModel.js";
export type { NetworkView } from "./model/networkView.js";
export type { OpenedModel, OpenOptions } from "./model/openedModel.js";
export type { LaunchedBridge, SpawnedBridge } from "./model/ownBridge.js";
export type { CollectSource, ForwardLoop, LogitsOptions, LoopModel, LoopOptions, RunnableModel, ScoreFunc } from "./model/runnable.js";
export type { LoopNetwork, NetworkLoop, NetworkScoreFunc, NormsSource, RunnableNetwork } from "./model/runnableNetwork.js";
export type { NetworkSaveOptions } from "./model/saveNetworkChild.js";
export type { ModelView } from "./model/view.js";
export { outline, plan, type RankBy, readPlanFor } from "./plan.js";
export { LAYOUT_NAMES, type LayoutName } from "./policy/families/table.js";
export type { Hyperparameters, LayerSizes } from "./policy/hyperparameters.js";
export type { ScoredCandidate } from "./policy/modes/minitron.js";
export { parseModes } from "./policy/modes/modes.js";
export type { PlanOutline } from "./policy/plan.js";
export type { Candidate, SearchOutline, SearchResult } from "./policy/search/search.js";
export type { Progress, RunOptions } from "./progress.js";
export { type Mode, prune } from "./prune.js";
export type { PruneConfig } from "./pruning/config.js";
export type { FastnasResult, FastnasState } from "./pruning/fastnas.js";
export type { FastnasConfig } from "./pruning/fastnasConfig.js";
export type { GradnasResult, GradnasState } from "./pruning/gradnas.js";
export type { GradnasConfig } from "./pruning/gradnasConfig.js";
export type { PruneResult, StateDict } from "./pruning/minitron.js";
export { type IdentifiedScoreFunc, negativeLoss } from "./pruning/negativeLoss.js";
export { type PythonRef, python } from "./pythonRef.js";
export { score } from "./score.js";
export { outlineSearch, type SearchOptions, search } from "./search.js";
export type { AttachOptions, TlsOptions } from "./shim/endpoint.js";
export {
  BUILT_IN_LOSSES,
  type BuiltInLossName,
  type CollectedGradients,
  type GradientLoss,
  type GradientMask,
  type GradientRequest,
} from "./shim/gradientWork.js";
export type { Timeouts } from "./shim/options.js";
export type { SpawnOptions } from "./shim/process.js";
export type { PythonSource } from "./shim/runWork.js";
export { findChild, type SliceOptions, slice } from "./slice.js";
export { formatCandidates, formatOutline, formatSpace, formatTable } from "./tables.js";
export {
  asBigInt64,
  asFloat32,
  type Batch,
  type Batches,
  type Drawn,
  type DrawnBatches,
  type Dtype,
  type Returns,
  type Tensor,
  tensor,
} from "./tensor.js";
export { type Verification, type VerifyOptions, verify } from "./verify.js";
export type { ComparedValues, ValueOptions } from "./verifyValues.js";
export { VERSION } from "./version.js";
