// What a model is asked for when gradients are collected of it.
export { BUILT_IN_LOSSES, type GradientLoss, type GradientRequest } from "../shim/gradientWork.js";
