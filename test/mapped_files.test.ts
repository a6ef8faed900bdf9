import { copyFileSync, readFileSync, renameSync, rmSync, truncateSync, utimesSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import type { LoadOptions } from '../lib/engine/load_options.js';
import type { Model } from '../lib/model/model.js';
import { runScript } from './lifetimes/run_script.js';
import { buildPackage } from './support/built_package.js';
import { cqil } from './support/cli.js';
import { expectRejection } from './support/expect_code.js';

import { tempFolder } from './support/temp_folder.js';
import { describeUnless } from './support/unless.js';

const folder = tempFolder();
let copies = 0;

function copyOfModel(): string {
  const file = path.join(folder, `model-${copies++}.gguf`);
  copyFileSync(shippedModelPath(), file);
  return file;
}

async function withModel<T>(file: string, options: LoadOptions, use: (model: Model) => Promise<T>): Promise<T> {
  const model = await loadModel(file, { threads: 2, ...options });
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}

const tell = async (model: Model) => (await model.generate('Once upon a time', { temperature: 0, maxTokens: 12 })).text;

/** Ways to change a file in place; on Windows a mapped file refuses them. */
const CHANGES: Array<[string, (file: string) => void]> = [
  ['shortened', (file) => truncateSync(file, 100_000)],
  ['emptied', (file) => truncateSync(file, 0)],
  ['written over', (file) => copyFileSync(path.join(__dirname, '..', 'package.json'), file)],
  ['given another time', (file) => utimesSync(file, 1e9, 1e9)],
];

describeUnless(
  process.platform === 'win32' ? 'a mapped file cannot be changed on Windows' : undefined,
  'a model file that changes',
  () => {
    it.each(
      CHANGES.flatMap(([what, change]) =>
        (['float32', 'int8'] as const).map((activations) => [what, activations, change] as const),
      ),
    )('%s, with %s: FILE_CHANGED from then on', async (_, activations, change) => {
      const file = copyOfModel();
      await withModel(file, { activations }, async (model) => {
        const session = model.createSession();
        await session.prefill([1, 2, 3]);
        change(file);
        await expectRejection(
          'FILE_CHANGED',
          model.generate('Once upon a time'),
          /has changed since it was opened: it .* mmap: false\.$/,
        );
        for (const call of [
          session.decode(1),
          session.score([1, 2]),
          session.shortlist([1], 3, { ahead: true }),
          session.logits([1]),
        ])
          await expectRejection('FILE_CHANGED', call);
      });
    });

    it.each(CHANGES)('%s, without mapping: as if nothing had happened', async (_, change) => {
      for (const activations of ['float32', 'int8'] as const) {
        const file = copyOfModel();
        const expected = await withModel(file, { activations }, tell);
        await withModel(file, { activations, mmap: false }, async (model) => {
          expect(await tell(model)).toBe(expected);
          change(file);
          expect(await tell(model)).toBe(expected);
        });
      }
    });

    it('another that takes its name is no matter', async () => {
      const [file, other] = [copyOfModel(), copyOfModel()];
      await withModel(file, {}, async (model) => {
        const expected = await tell(model);
        truncateSync(other, 1000);
        renameSync(other, file);
        expect(await tell(model)).toBe(expected);
      });
    });

    it('shortened at any moment of a generation: a coded error, and the process lives', async () => {
      const built = buildPackage();
      const outcome = JSON.parse(await runScript('cut_while_in_use.cjs', [built, shippedModelPath(), folder])) as {
        codes: string[];
      };
      rmSync(built, { recursive: true });
      expect(outcome.codes).toEqual(outcome.codes.map(() => 'FILE_CHANGED'));
    });

    it('the command line can read it instead', async () => {
      const args = [
        'generate',
        copyOfModel(),
        '-p',
        'Once upon a time',
        '-n',
        '5',
        '--temperature',
        '0',
        '--threads',
        '1',
      ];
      const [mapped, read] = [await cqil(args), await cqil([...args, '--no-mmap'])];
      expect(read).toMatchObject({ code: 0, stdout: mapped.stdout });
    });
  },
);

describeUnless(
  process.platform === 'linux' ? undefined : 'only Linux lists what a process has mapped',
  'a disposed model',
  () => {
    it.each([{ temperature: 0 }, { temperature: 0.8, topK: 20 }])(
      'has no file mapped, wherever a generation with %o was left',
      async (options) => {
        const file = copyOfModel();
        const mapped: boolean[] = [];
        for (let tokens = 1; tokens <= 8; tokens++) {
          await withModel(file, {}, async (model) => {
            let left = tokens;
            for await (const _ of model.generate('Once upon a time', { ...options, seed: 1 })) if (--left === 0) break;
          });
          mapped.push(readFileSync('/proc/self/maps', 'utf8').includes(file));
        }
        expect(mapped).toEqual(mapped.map(() => false));
      },
    );
  },
);
