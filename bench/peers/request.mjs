/** The whole of standard input as JSON. */
export async function readRequest() {
  let text = '';
  process.stdin.setEncoding('utf8'); // a chunk may end in the middle of a character
  for await (const chunk of process.stdin) text += chunk;
  return JSON.parse(text);
}
