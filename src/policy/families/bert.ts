import { attentionHook, flag, KEY_VALUE, layerHook, llamaFields, mlpHook, normHook, QUERY } from "./blocks.js";
import { layerNorm, linear } from "./modules.js";
import type { FamilyTable, HookRow, Masks, TensorRow } from "./table.js";

const LAYER = "encoder.layer.{layer}";

const encoder: readonly TensorRow[] = [
  { name: "embeddings.word_embeddings.weight", axes: ["vocab", "hidden"], use: "lookup" },
  { name: "embeddings.position_embeddings.weight", axes: ["position", "hidden"], use: "lookup" },
  { name: "embeddings.token_type_embeddings.weight", axes: ["token_type", "hidden"], use: "lookup" },
  ...layerNorm("embeddings.LayerNorm"),
  ...linear(`${LAYER}.attention.self.query`, QUERY, "hidden"),
  ...linear(`${LAYER}.attention.self.key`, KEY_VALUE, "hidden"),
  ...linear(`${LAYER}.attention.self.value`, KEY_VALUE, "hidden"),
  ...linear(`${LAYER}.attention.output.dense`, "hidden", QUERY),
  ...layerNorm(`${LAYER}.attention.output.LayerNorm`),
  ...linear(`${LAYER}.intermediate.dense`, "ffn", "hidden"),
  ...linear(`${LAYER}.output.dense`, "hidden", "ffn"),
  ...layerNorm(`${LAYER}.output.LayerNorm`),
];

/** Reads the first token of each sequence, for classifiers. */
const pooler = oncePerSequence(linear("pooler.dense", "hidden", "hidden"));

const predictions: readonly TensorRow[] = [
  { name: "cls.predictions.bias", axes: ["vocab"] },
  ...linear("cls.predictions.transform.dense", "hidden", "hidden"),
  ...layerNorm("cls.predictions.transform.LayerNorm"),
  { name: "cls.predictions.decoder.weight", axes: ["vocab", "hidden"], tiedTo: "bert.embeddings.word_embeddings.weight" },
  { name: "cls.predictions.decoder.bias", axes: ["vocab"], tiedTo: "cls.predictions.bias" },
];

const nextSentence = oncePerSequence(linear("cls.seq_relationship", "2", "hidden"));
const classifier = linear("classifier", "label", "hidden");

/** What a class puts on top of the encoder. */
interface Head {
  readonly architectures: readonly string[];
  readonly rows: readonly TensorRow[];
  readonly pools: boolean;
}

const HEADS: readonly Head[] = [
  { architectures: ["BertModel"], rows: [], pools: true },
  { architectures: ["BertForMaskedLM", "BertLMHeadModel"], rows: predictions, pools: false },
  { architectures: ["BertForPreTraining"], rows: [...predictions, ...nextSentence], pools: true },
  { architectures: ["BertForSequenceClassification"], rows: oncePerSequence(classifier), pools: true },
  { architectures: ["BertForTokenClassification"], rows: classifier, pools: false },
  { architectures: ["BertForQuestionAnswering"], rows: linear("qa_outputs", "label", "hidden"), pools: false },
];

/** BERT under each of its heads: learned positions, norms behind what they are for, biases throughout. */
export const bert: readonly FamilyTable[] = HEADS.map(({ architectures, rows, pools }) => {
  const prefix = rows.length > 0 ? "bert." : "";
  const within = (row: TensorRow): TensorRow => ({ ...row, name: prefix + row.name });
  const tensors = [...encoder.map(within), ...(pools ? pooler.map(within) : []), ...rows];
  // Checkpoints keep what pretraining had on top.
  const stray = [...pooler.map(within), ...predictions, ...nextSentence].filter(({ name }) => !tensors.some((row) => row.name === name));
  return {
    family: "bert",
    architectures,
    fields: {
      ...llamaFields,
      num_query_groups: llamaFields.num_attention_heads,
      max_position_embeddings: { key: "max_position_embeddings", absent: 512 },
      type_vocab_size: { key: "type_vocab_size", absent: 2 },
      num_labels: { key: "num_labels", absent: { lengthOf: ["id2label"], otherwise: 2 } },
    },
    flags: { tied: flag("tie_word_embeddings", true) },
    layers: { by: "uniform" },
    layouts: [{ name: "huggingface", tensors: tensors.map(withOldName) }],
    live: "huggingface",
    impliedHeadDim: true,
    hooks: hooksWithin(prefix + LAYER),
    masks: masksWithin(prefix + LAYER),
    perLayerLists: [],
    layerThresholds: [],
    obsolete: [`${prefix}embeddings.position_ids`, ...stray.map(({ name }) => name)],
  };
});

/** Norms come behind what they are for: a layer's channels are those that its two norms give. */
function hooksWithin(layer: string): HookRow[] {
  return [
    mlpHook("output.dense", layer),
    attentionHook("attention.output.dense", layer),
    normHook("post_self_attn_layernorm", "attention.output.LayerNorm", layer),
    normHook("post_mlp_layernorm", "output.LayerNorm", layer),
    { ...layerHook, module: layer },
  ];
}

function masksWithin(layer: string): Masks {
  const ffn = `${layer}.intermediate.dense`;
  const attention = `${layer}.attention.self`;
  return {
    ffn: { name: `${ffn}.out_features`, module: ffn, side: "output", attributes: {} },
    heads: {
      name: `${attention}.num_attention_heads`,
      module: `${layer}.attention.output.dense`,
      side: "input",
      attributes: { [attention]: { num_attention_heads: "group * heads_of_group", all_head_size: QUERY } },
    },
  };
}

function oncePerSequence(rows: readonly TensorRow[]): TensorRow[] {
  return rows.map((row) => ({ ...row, oncePerSequence: true }));
}

/** TensorFlow's names of a norm's weights, which the first checkpoints have. */
function withOldName(row: TensorRow): TensorRow {
  const old = row.name.replace(/LayerNorm\.weight$/, "LayerNorm.gamma").replace(/LayerNorm\.bias$/, "LayerNorm.beta");
  return old === row.name ? row : { ...row, aliases: [old] };
}
