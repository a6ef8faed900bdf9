import { loadModel } from '../../dist/index.js';

const PLANS = ['sequential', 'P2-S4-E12'];
const CONTEXT = 64;
const TOKENS = 64;

/** One token of the model that ships: the forward pass alone, and all that `generate` does around it. */
export async function decodeTasks() {
  const model = await loadModel();
  const prompt = Array.from({ length: CONTEXT }, (_, i) => 10 + i);
  const tasks = [];
  for (const plan of PLANS) {
    const session = model.createSession({ plan, contextLength: CONTEXT + 1 });
    await session.prefill(prompt);
    const step = async () => {
      await session.decode(7);
      session.truncate(CONTEXT);
    };
    // Nothing ends the text early: every generation has all its tokens.
    const logitBias = Object.fromEntries(model.tokenizer.eosTokenIds.map((id) => [id, -Infinity]));
    const generate = () => model.generate(prompt, { plan, maxTokens: TOKENS, seed: 1, logitBias });
    tasks.push(
      { name: `decode, ${plan}`, per: 'token', run: step },
      { name: `generate ${TOKENS} after ${CONTEXT}, ${plan}`, per: 'token', count: TOKENS, run: generate },
    );
  }
  return { tasks, close: () => model.dispose() };
}
