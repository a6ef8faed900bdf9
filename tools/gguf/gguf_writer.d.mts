type GgufNumberType = 'u8' | 'i8' | 'u16' | 'i16' | 'u32' | 'i32' | 'f32' | 'u64' | 'i64' | 'f64';
export type GgufType = GgufNumberType | 'bool' | 'string' | 'array';

/** A metadata value with its type in the file. Elements of an array of arrays are entries themselves. */
export type GgufEntry =
  | { type: GgufNumberType; value: number | bigint }
  | { type: 'bool'; value: boolean }
  | { type: 'string'; value: string }
  | { type: 'array'; of: GgufType; value: readonly unknown[] };

interface Description {
  name: string;
  /** ggml's type code. */
  type: number;
  /** Outermost dimension first. */
  shape: number[];
}

export interface GgufTensorEntry extends Description {
  data: Buffer;
}

interface Content<Tensor> {
  version?: number;
  alignment?: number;
  metadata: Record<string, GgufEntry>;
  tensors: Tensor[];
}

export type GgufContent = Content<GgufTensorEntry>;

export function u32(value: number): GgufEntry;
export function f32(value: number): GgufEntry;
export function bool(value: boolean): GgufEntry;
export function text(value: string): GgufEntry;
export function array(of: GgufType, value: readonly unknown[]): GgufEntry;
export function ggufHeader(content: Content<Description & { byteLength: number }>): Buffer;
export function ggufFile(content: GgufContent): Buffer;
export function pad(bytes: Buffer, alignment?: number): Buffer;
