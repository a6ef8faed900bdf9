/** Texts that begin alike share nodes; a node's children are found by the next UTF-16 code unit. */
export interface TrieNode<T> {
  next: Map<number, TrieNode<T>>;
  /** What the text that ends here stands for; undefined where none ends. */
  value?: T;
}

/** Adds a text to the trie below `root`; one that is there already gets the new value. */
export function insertText<T>(root: TrieNode<T>, text: string, value: T): void {
  let node = root;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    let child = node.next.get(unit);
    if (!child) node.next.set(unit, (child = { next: new Map() }));
    node = child;
  }
  node.value = value;
}
