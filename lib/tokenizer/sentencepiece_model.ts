import { invalidTokenizer, quote } from './invalid.js';
import { PIECES_AT_ONCE } from './parts.js';
import type { Pace } from '../util/pace.js';
import { MAX_VOCAB_SIZE } from './tokenizer_json.js';

/** The fields of a SentencePiece tokenizer.model, the protocol buffer ModelProto, that are of use here. */
export interface SentencePieceModel {
  pieces: string[];
  scores: number[];
  /** 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. */
  types: number[];
  /** 1 unigram, 2 byte-pair encoding, 3 words, 4 characters. */
  modelType: number;
  byteFallback: boolean;
  spaceAsSuffix: boolean;
  unknownId: number;
  bosId: number;
  eosId: number;
  padId: number;
  /** Whether text is normalized by a table of the file's own. */
  hasTable: boolean;
  addsSpacePrefix: boolean;
  removesExtraSpaces: boolean;
  escapesSpaces: boolean;
}

/**
 * Bounds on the number of fields in the whole message, and in each message inside it. Real files have one for each
 * piece, and a few dozen.
 */
const MAX_FIELDS = MAX_VOCAB_SIZE + 1024;
const MAX_INNER_FIELDS = 1024;

/** A field of a message: its number, and its value as a number or as bytes. */
type Field = readonly [number: number, value: number | Uint8Array];

/** Reads a tokenizer.model in slices. Throws INVALID_TOKENIZER. */
export async function readSentencePieceModel(bytes: Uint8Array, pace: Pace): Promise<SentencePieceModel> {
  if (/^[A-Za-z0-9+/]+=* \d+\r?\n/.test(Buffer.from(bytes.subarray(0, 256)).toString('latin1'))) {
    throw invalidTokenizer(
      `tokenizer.model is a vocabulary of tiktoken, which does not say how text is cut; ${HOW_TO_CONVERT}`,
    );
  }
  const model: SentencePieceModel = {
    pieces: [],
    scores: [],
    types: [],
    modelType: 1,
    byteFallback: false,
    spaceAsSuffix: false,
    unknownId: 0,
    bosId: 1,
    eosId: 2,
    padId: -1,
    hasTable: false,
    addsSpacePrefix: true,
    removesExtraSpaces: true,
    escapesSpaces: true,
  };
  let count = 0;
  for (const [number, value] of fieldsOf(bytes, MAX_FIELDS)) {
    if (++count % PIECES_AT_ONCE === 0) await pace.pause();
    if (typeof value === 'number') continue;
    if (number === 1) addPiece(model, value);
    else if (number === 2) readTrainer(model, value);
    else if (number === 3) readNormalizer(model, value);
  }
  if (model.pieces.length === 0)
    throw invalidTokenizer('tokenizer.model has no pieces; expected a model of SentencePiece.');
  return model;
}

/** What to do about a vocabulary that does not say all that is needed. */
export const HOW_TO_CONVERT =
  'make a tokenizer.json with transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder).';

function addPiece(model: SentencePieceModel, bytes: Uint8Array): void {
  let [piece, score, type] = ['', 0, 1];
  for (const [number, value] of fieldsOf(bytes, MAX_INNER_FIELDS)) {
    if (number === 1 && typeof value !== 'number') piece = Buffer.from(value).toString('utf8');
    else if (number === 2 && typeof value !== 'number')
      score = new DataView(value.buffer, value.byteOffset).getFloat32(0, true);
    else if (number === 3) type = Number(value);
  }
  if (Number.isNaN(score))
    throw invalidTokenizer(`The piece ${quote(piece)} of tokenizer.model has no number as its score.`);
  if (model.pieces.push(piece) > MAX_VOCAB_SIZE)
    throw invalidTokenizer(`tokenizer.model has more than ${MAX_VOCAB_SIZE} pieces.`);
  model.scores.push(score);
  model.types.push(type);
}

function readTrainer(model: SentencePieceModel, bytes: Uint8Array): void {
  for (const [number, value] of fieldsOf(bytes, MAX_INNER_FIELDS)) {
    if (typeof value !== 'number') continue;
    if (number === 3) model.modelType = value;
    else if (number === 24) model.spaceAsSuffix = value !== 0;
    else if (number === 35) model.byteFallback = value !== 0;
    else if (number === 40) model.unknownId = value;
    else if (number === 41) model.bosId = value;
    else if (number === 42) model.eosId = value;
    else if (number === 43) model.padId = value;
  }
}

function readNormalizer(model: SentencePieceModel, bytes: Uint8Array): void {
  for (const [number, value] of fieldsOf(bytes, MAX_INNER_FIELDS)) {
    if (number === 2 && typeof value !== 'number') model.hasTable = value.length > 0;
    else if (number === 3) model.addsSpacePrefix = value !== 0;
    else if (number === 4) model.removesExtraSpaces = value !== 0;
    else if (number === 5) model.escapesSpaces = value !== 0;
  }
}

/** The fields of a message in the wire format of protocol buffers; the values of fixed width are given as bytes. */
function* fieldsOf(bytes: Uint8Array, most: number): Generator<Field> {
  let at = 0;
  let count = 0;
  const varint = (): number => {
    // Most numbers take one byte.
    if (at < bytes.length && bytes[at]! < 0x80) return bytes[at++]!;
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) break;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return Number(BigInt.asIntN(64, value));
    }
    throw malformed(at);
  };
  const read = (length: number): Uint8Array => {
    if (length < 0 || length > bytes.length - at) throw malformed(at);
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    if (++count > most)
      throw invalidTokenizer(`tokenizer.model holds a message of more than ${most} fields; expected fewer.`);
    const tag = varint();
    const number = Math.floor(tag / 8);
    switch (tag % 8) {
      case 0:
        yield [number, varint()];
        break;
      case 1:
        yield [number, read(8)];
        break;
      case 2:
        yield [number, read(varint())];
        break;
      case 5:
        yield [number, read(4)];
        break;
      default:
        throw malformed(at);
    }
  }
}

function malformed(position: number): Error {
  return invalidTokenizer(
    `tokenizer.model is no model of SentencePiece: its message is malformed at byte ${position}.`,
  );
}
