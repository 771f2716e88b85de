import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NODE } from '#api/core/v1/node.ts';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import { LAST_APPLIED_ANNOTATION } from '#api/machinery/three-way-merge.ts';
import type { KubeObject } from '#api/meta.ts';
import { ApiError, UserError } from '#lib/errors.ts';
import { applyManifest } from './apply.ts';
import { FakeApi } from './fake.ts';

function service(name: string, port: number, more: object = {}): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, ...more },
    spec: { ports: [{ port }] },
  };
}

const outcomes = async (api: FakeApi, ...objects: KubeObject[]) =>
  (
    await applyManifest(
      api,
      objects.map((object) => ({ object })),
    )
  ).map(({ kind, object, outcome }) => `${kind.resource}/${object.metadata.name} ${outcome}`);

describe('applyManifest()', () => {
  test('creates, leaves alone, and changes', async () => {
    const api = new FakeApi();
    assert.deepEqual(await outcomes(api, service('a', 80), service('b', 80)), [
      'services/a created',
      'services/b created',
    ]);
    assert.deepEqual(await outcomes(api, service('a', 80), service('b', 81)), [
      'services/a unchanged',
      'services/b configured',
    ]);
    const [, b] = api.objects(SERVICE);
    assert.equal(b?.metadata.namespace, 'default');
    assert.equal(b?.spec.ports?.[0]?.port, 81);
    assert.match(b?.metadata.annotations?.[LAST_APPLIED_ANNOTATION] ?? '', /"port":81/);
  });

  test('removes what it had set and keeps what others have set', async () => {
    const api = new FakeApi();
    await outcomes(api, service('a', 80, { labels: { mine: 'x', kept: 'y' } }));
    const live = await api.get(SERVICE, 'a', 'default');
    live.metadata.labels = { ...live.metadata.labels, theirs: 'z' };
    live.spec.clusterIP = '10.96.0.1';
    await api.update(SERVICE, live);
    await outcomes(api, service('a', 80, { labels: { kept: 'y' } }));
    const after = await api.get(SERVICE, 'a', 'default');
    assert.deepEqual(after.metadata.labels, { kept: 'y', theirs: 'z' });
    assert.equal(after.spec.clusterIP, '10.96.0.1');
  });

  test('tries again when somebody else was quicker', async () => {
    const api = new FakeApi();
    const target = { verb: 'patch', resource: 'services' } as const;
    api.failNext({ verb: 'create' }, new ApiError(409, 'AlreadyExists', 'there'));
    await outcomes(api, service('a', 80));
    api.failNext(target, new ApiError(409, 'Conflict', 'changed'), { times: 2 });
    assert.deepEqual(await outcomes(api, service('a', 81)), ['services/a configured']);
    api.failNext(target, new ApiError(409, 'Conflict', 'changed'), { times: 100 });
    await assert.rejects(outcomes(api, service('a', 82)), /changed/);
    assert.equal(api.requests.filter((r) => r.verb === 'patch').length, 3 + 5);
  });

  test('writes nothing if a kind is unknown or a name is missing', async () => {
    const api = new FakeApi();
    const unknown = { apiVersion: 'example.com/v1', kind: 'Thing', metadata: { name: 'x' } };
    await assert.rejects(outcomes(api, service('a', 80), unknown), (error: unknown) => {
      assert.ok(error instanceof UserError);
      return /knows no kind "Thing" in version "example.com\/v1"/.test(error.message);
    });
    const nameless = { ...service('', 80), metadata: { name: '', generateName: 'x-' } };
    await assert.rejects(outcomes(api, service('a', 80), nameless), /with generateName/);
    assert.deepEqual(api.writes, []);
  });

  test('asks the server for kinds that it does not know itself, once', async () => {
    const api = new FakeApi();
    const asked: string[] = [];
    api.onRaw = (method, path) => {
      asked.push(`${method} ${path}`);
      const resources = [
        { name: 'things/status', kind: 'Thing', namespaced: false },
        { name: 'things', kind: 'Thing', namespaced: false },
      ];
      return { status: 200, body: JSON.stringify({ resources }) };
    };
    const thing = (name: string) => ({
      apiVersion: 'example.com/v1',
      kind: 'Thing',
      metadata: { name },
    });
    assert.deepEqual(await outcomes(api, thing('x'), thing('y')), [
      'things/x created',
      'things/y created',
    ]);
    assert.deepEqual(asked, ['GET /apis/example.com/v1']);
  });

  test('applies the others when one is refused, and tells all that was wrong, with lines', async () => {
    const api = new FakeApi();
    const causes = [
      { field: 'spec.ports[0].port', message: 'Invalid value: 70000' },
      { field: 'metadata.name', message: 'Invalid value: "B"' },
    ];
    const invalid = new ApiError(422, 'Invalid', 'long text', { details: { causes } });
    api.failNext({ verb: 'create', name: 'B' }, invalid);
    api.failNext({ verb: 'create', name: 'c' }, new ApiError(403, 'Forbidden', 'not allowed'));
    const lineOf = (field: string) => (field === 'metadata.name' ? 3 : 7);
    const file = 'app.yaml';
    const seen: string[] = [];
    const promise = applyManifest(
      api,
      [
        { object: service('B', 70_000), file, line: 1, lineOf },
        { object: service('c', 80), file, line: 12 },
        { object: service('d', 80), file, line: 20 },
      ],
      { onApplied: ({ object }) => seen.push(object.metadata.name) },
    );
    await assert.rejects(promise, (error: unknown) => {
      assert.ok(error instanceof UserError);
      assert.deepEqual(error.message.split('\n'), [
        'app.yaml:7: Service "default/B": spec.ports[0].port: Invalid value: 70000',
        'app.yaml:3: Service "default/B": metadata.name: Invalid value: "B"',
        'app.yaml:12: Service "default/c": not allowed',
      ]);
      return true;
    });
    assert.deepEqual(seen, ['d']);
  });

  test('puts objects into the wanted namespace, but only those that live in one', async () => {
    const api = new FakeApi();
    const node = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'm1' } };
    const objects = [service('a', 80), service('b', 80, { namespace: 'own' }), node];
    await applyManifest(
      api,
      objects.map((object) => ({ object })),
      { namespace: 'ns' },
    );
    assert.deepEqual(
      api.objects(SERVICE).map((s) => s.metadata.namespace),
      ['ns', 'own'],
    );
    assert.equal(api.objects(NODE)[0]?.metadata.namespace, undefined);
  });
});
