import { spawnSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildPackage } from './support/built_package.js';

const root = path.join(__dirname, '..');
const addon = path.join(root, 'build/Release/cqil.node');
const library = path.join(root, 'build-cuda/libcqil_cuda.so');

/** Why CUDA is not used is answered once per process, so each case runs the program anew. */
describe('the CUDA library as the command line sees it', () => {
  let folder: string;
  beforeAll(() => {
    folder = buildPackage();
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  function cqil(cudaLibrary: string, ...args: string[]) {
    const env = { ...process.env, CQIL_CUDA_LIBRARY: cudaLibrary };
    const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(folder, 'dist/cli/main.js'), ...args], {
      encoding: 'utf8',
      env,
    });
    return { code: status, stdout, stderr };
  }
  const cudaOf = (cudaLibrary: string) =>
    (JSON.parse(cqil(cudaLibrary, 'doctor', '--json').stdout) as { cuda: { reason: string } }).cuda;

  it('doctor says that it is missing, and where it looked', () => {
    const reason =
      'its library is missing (looked for /nowhere/libcqil_cuda.so; in a checkout, npm run build:cuda makes it)';
    expect(cudaOf('/nowhere/libcqil_cuda.so')).toEqual({ available: false, reason, library: '', devices: [] });
    expect(cqil('/nowhere/libcqil_cuda.so', 'doctor').stdout).toContain(`cuda              not used: ${reason}\n`);
  });

  it('doctor says that a file is no library, or no backend', () => {
    expect(cudaOf(path.join(root, 'package.json')).reason).toMatch(/^its library cannot be loaded: /);
    expect(cudaOf(addon).reason).toBe(`${addon} is no cqil backend: it exports no cqil_backend_entry`);
  });

  it('looks beside the archive that an application is packed in', () => {
    expect(cudaOf('/opt/it/app.asar/build-cuda/lib.so').reason).toContain(
      'looked for /opt/it/app.asar.unpacked/build-cuda/lib.so',
    );
  });

  it('--backend cuda fails with the reason, --backend auto computes on the CPU', () => {
    const request = ['generate', '--token-ids', '1,2', '-n', '1', '--json', '--backend'];
    const refused = cqil('/nowhere', ...request, 'cuda');
    expect(refused.code).toBe(1);
    expect(JSON.parse(refused.stdout)).toMatchObject({ error: { code: 'BACKEND_UNAVAILABLE' } });
    expect(refused.stderr).toContain(
      'cqil: The cuda backend cannot be used: its library is missing (looked for /nowhere; ',
    );
    expect(cqil('/nowhere', ...request, 'auto').code).toBe(0);
  });

  it('--execution persistent is for CUDA', () => {
    const { code, stderr } = cqil('/nowhere', 'generate', '--token-ids', '1,2', '-n', '1', '--execution', 'persistent');
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(
        'The cpu backend has no persistent execution of this model; expected auto, wide or lanes.',
      ) as unknown,
    });
  });

  it('a library that is built loads, and says why no GPU is used or which are', ({ skip }) => {
    if (!existsSync(library)) skip('the CUDA library is not built');
    const cuda = cudaOf(library) as { available: boolean; reason: string; library: string; devices: object[] };
    expect(cuda.library).toBe(library);
    if (cuda.available) expect(cuda.devices.length).toBeGreaterThan(0);
    else
      expect(cuda.reason).toMatch(
        /^(no NVIDIA driver is installed|the NVIDIA driver |libcuda is the toolkit's, which is for linking only|.* has compute capability )/,
      );
  });
});
