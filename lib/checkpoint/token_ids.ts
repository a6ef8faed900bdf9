/** The token ids in a field that holds one or a list of them; what is no id of the vocabulary is left out. */
export function idsWithin(vocabSize: number, field: unknown): number[] {
  return [field].flat().filter((id): id is number => Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabSize);
}
