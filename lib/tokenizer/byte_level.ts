/**
 * GPT-2's alphabet for bytes: printable Latin-1 characters stand for themselves, every other byte for the next
 * unused character from U+0100 on.
 */
const BYTE_TO_CHARACTER: string[] = [];
const CHARACTER_TO_BYTE = new Map<string, number>();

for (let byte = 0, next = 0x100; byte < 256; byte++) {
  const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  const character = String.fromCharCode(printable ? byte : next++);
  BYTE_TO_CHARACTER.push(character);
  CHARACTER_TO_BYTE.set(character, byte);
}

// Texts longer than this are converted in a buffer: a long string that is concatenated character by character takes
// thirty times its length in memory until the engine flattens it.
const LONG_TEXT = 64;

/** Text as one character per UTF-8 byte. */
export function toByteLevel(text: string): string {
  const bytes = Buffer.from(text, 'utf8');
  if (text.length > LONG_TEXT) {
    const characters = Buffer.allocUnsafe(2 * bytes.length);
    for (let i = 0; i < bytes.length; i++) characters.writeUInt16LE(BYTE_TO_CHARACTER[bytes[i]!]!.charCodeAt(0), 2 * i);
    return characters.toString('utf16le');
  }
  let characters = '';
  for (const byte of bytes) characters += BYTE_TO_CHARACTER[byte];
  return characters;
}

/** The bytes a byte-level piece stands for; a piece with a character outside the alphabet stands for its own UTF-8. */
export function fromByteLevel(piece: string): Uint8Array {
  const bytes = new Uint8Array(piece.length);
  for (let i = 0; i < piece.length; i++) {
    const byte = CHARACTER_TO_BYTE.get(piece[i]!);
    if (byte === undefined) return Buffer.from(piece, 'utf8');
    bytes[i] = byte;
  }
  return bytes;
}
