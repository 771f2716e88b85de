import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { createPodmanRuntime, parsePodmanInspect } from './podman.ts';

/** What podman 4.3 prints, cut down to what is read. */
const inspect = (state: object) =>
  JSON.stringify([
    {
      Id: '2e3ba061',
      State: {
        Status: 'running',
        Pid: 4711,
        ExitCode: 0,
        StartedAt: '2026-11-20T10:12:38.681+01:00',
        FinishedAt: '0001-01-01T00:00:00Z',
        ...state,
      },
      Image: 'sha256:abc',
      ImageName: 'docker.io/library/nginx:1',
      Config: { Labels: { app: 'x', odd: 1 }, Annotations: { note: 'y' } },
    },
  ]);

describe('parsePodmanInspect()', () => {
  test('reads a running container', () => {
    assert.deepEqual(parsePodmanInspect(inspect({})), {
      image: 'docker.io/library/nginx:1',
      imageId: 'sha256:abc',
      labels: { app: 'x' },
      annotations: { note: 'y' },
      state: 'running',
      pid: 4711,
      exitCode: undefined,
      startedAt: '2026-11-20T09:12:38.681Z',
      finishedAt: undefined,
    });
  });

  for (const [status, state] of [
    ['created', 'starting'],
    ['initialized', 'starting'],
    ['running', 'running'],
    ['paused', 'running'],
    ['stopping', 'running'],
    ['exited', 'ended'],
    ['stopped', 'ended'],
  ] as const)
    test(`takes "${status}" for ${state}`, () => {
      const info = parsePodmanInspect(inspect({ Status: status, ExitCode: 3 }));
      assert.deepEqual([info?.state, info?.exitCode], [state, state === 'ended' ? 3 : undefined]);
      assert.equal(info?.pid, state === 'running' ? 4711 : undefined);
    });

  test('throws nothing but DecodeError for any output', () => {
    assert.equal(parsePodmanInspect('[]'), undefined);
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (output) => {
        try {
          parsePodmanInspect(output);
        } catch (error) {
          assert.ok(error instanceof DecodeError, String(error));
        }
      }),
    );
  });
});

describe('createPodmanRuntime()', () => {
  const fake = (script: string) => createPodmanRuntime(['/bin/sh', '-c', script, 'podman']);
  test('asks podman for the container', async () => {
    const info = await fake(
      `[ "$*" = "container inspect -- c1" ] && echo '${inspect({})}'`,
    ).inspect('c1');
    assert.equal(info?.pid, 4711);
  });
  test('does not know a container that podman does not know', async () => {
    const runtime = fake('echo "Error: inspecting object: no such container c1" >&2; exit 125');
    assert.equal(await runtime.inspect('c1'), undefined);
  });
  test('fails with what podman says', async () => {
    await assert.rejects(fake('echo "database is locked" >&2; exit 125').inspect('c1'), /locked/);
    await assert.rejects(
      createPodmanRuntime(['/no/such/podman']).inspect('c1'),
      /no\/such\/podman/,
    );
  });
});
