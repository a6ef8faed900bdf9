/** How many ids all lists begin with. */
export function commonPrefix(lists: ReadonlyArray<ArrayLike<number>>): number {
  const [first = [], ...others] = lists;
  let same = 0;
  while (same < first.length && others.every((other) => other[same] === first[same])) same++;
  return same;
}
