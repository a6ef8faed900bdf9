/**
 * The token ids in a field that holds one id or a list of ids. Anything that is not an id of the vocabulary is left
 * out.
 */
export function idsWithin(vocabSize: number, field: unknown): number[] {
  return [field]
    .flat()
    .filter((id): id is number => Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabSize);
}
