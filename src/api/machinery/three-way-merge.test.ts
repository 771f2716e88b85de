import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SERVICE, type Service } from '../core/v1/service.ts';
import type { JsonObject } from './json.ts';
import { applyMergePatch } from './merge-patch.ts';
import {
  createApplyPatch,
  LAST_APPLIED_ANNOTATION,
  lastAppliedOf,
  withLastApplied,
} from './three-way-merge.ts';

const { schema } = SERVICE;
const spec = (value: JsonObject): JsonObject => ({ spec: value });

test('createApplyPatch() finds nothing to do where the server only filled in defaults', () => {
  const manifest = spec({ selector: { app: 'a' }, ports: [{ port: 80, targetPort: 8080 }] });
  const live = spec({
    selector: { app: 'a' },
    clusterIP: '10.96.0.7',
    type: 'ClusterIP',
    ports: [{ port: 80, protocol: 'TCP', targetPort: 8080, nodePort: 30000 }],
  });
  assert.deepEqual(
    createApplyPatch({ lastApplied: manifest, live, desired: manifest, schema }),
    {},
  );
});

test('createApplyPatch() sets, removes what it had set, and leaves what others set', () => {
  const patch = createApplyPatch({
    lastApplied: spec({ selector: { app: 'a', old: 'x' }, sessionAffinity: 'ClientIP' }),
    live: spec({
      selector: { app: 'a', old: 'x', other: 'y' },
      sessionAffinity: 'ClientIP',
      type: 'ClusterIP',
    }),
    desired: spec({ selector: { app: 'b' } }),
    schema,
  });
  assert.deepEqual(patch, spec({ selector: { app: 'b', old: null }, sessionAffinity: null }));
});

test('createApplyPatch() removes a port that left the manifest and keeps one that somebody added', () => {
  const patch = createApplyPatch({
    lastApplied: spec({ ports: [{ port: 80 }, { port: 81 }] }),
    live: spec({ ports: [{ port: 80, nodePort: 30000 }, { port: 81 }, { port: 99 }] }),
    desired: spec({ ports: [{ port: 82 }, { port: 80, name: 'web' }] }),
    schema,
  });
  assert.deepEqual(
    patch,
    spec({ ports: [{ port: 82 }, { port: 80, nodePort: 30000, name: 'web' }, { port: 99 }] }),
  );
});

test('createApplyPatch() tells ports of one number apart by protocol', () => {
  const dns = [
    { name: 'dns', port: 53, protocol: 'UDP' },
    { name: 'dns-tcp', port: 53, protocol: 'TCP' },
  ];
  const live = dns.map((port) => ({ ...port, targetPort: 53 }));
  const options = { lastApplied: spec({ ports: dns }), live: spec({ ports: live }), schema };
  assert.deepEqual(createApplyPatch({ ...options, desired: spec({ ports: dns }) }), {});
  assert.deepEqual(
    createApplyPatch({ ...options, desired: spec({ ports: [dns[0]] }) }),
    spec({ ports: [live[0]] }),
  );
});

test('createApplyPatch() replaces a list whose elements cannot be told apart', () => {
  const patch = createApplyPatch({
    lastApplied: undefined,
    live: spec({ ports: [{ port: 1 }, { port: 1 }] }),
    desired: spec({ ports: [{ port: 1 }] }),
    schema,
  });
  assert.deepEqual(patch, spec({ ports: [{ port: 1 }] }));
});

test('createApplyPatch() unites sets', () => {
  const meta = (finalizers: string[]) => ({ metadata: { finalizers } });
  const patch = createApplyPatch({
    lastApplied: meta(['x.io/mine', 'x.io/old']),
    live: meta(['x.io/other', 'x.io/old', 'x.io/mine']),
    desired: meta(['x.io/mine', 'x.io/new']),
    schema,
  });
  assert.deepEqual(patch, meta(['x.io/other', 'x.io/mine', 'x.io/new']));
});

test('createApplyPatch() without a last manifest removes nothing', () => {
  const patch = createApplyPatch({
    lastApplied: undefined,
    live: spec({ selector: { app: 'a', other: 'x' } }),
    desired: spec({ selector: { app: 'b' } }),
    schema,
  });
  assert.deepEqual(patch, spec({ selector: { app: 'b' } }));
});

const SERVICE_MANIFEST: Service = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'a', namespace: 'default', annotations: { note: 'a < b' } },
  spec: { ports: [{ port: 80 }] },
};

test('withLastApplied() writes the annotation that kubectl writes, and lastAppliedOf() reads it', () => {
  const once = withLastApplied(SERVICE_MANIFEST);
  assert.equal(
    once.metadata.annotations?.[LAST_APPLIED_ANNOTATION],
    '{"apiVersion":"v1","kind":"Service","metadata":{"annotations":{"note":"a \\u003c b"},"name":"a","namespace":"default"},"spec":{"ports":[{"port":80}]}}\n',
  );
  assert.deepEqual(lastAppliedOf(once), SERVICE_MANIFEST);
  assert.deepEqual(withLastApplied(once), once, 'the annotation is never put into itself');
});

test('lastAppliedOf() gives nothing for an annotation that somebody broke', () => {
  for (const text of ['{', '[]', 'null', ''])
    assert.equal(
      lastAppliedOf({
        ...SERVICE_MANIFEST,
        metadata: { name: 'a', annotations: { [LAST_APPLIED_ANNOTATION]: text } },
      }),
      undefined,
    );
});

test('createApplyPatch() leads to the manifest, and then there is nothing to do', () => {
  const key = fc.constantFrom('a', 'b', 'c');
  const text = fc.constantFrom('x', 'y');
  const port = fc.record(
    { port: fc.integer({ min: 1, max: 4 }), name: text },
    { requiredKeys: ['port'] },
  );
  const object = fc.record(
    {
      type: text,
      selector: fc.dictionary(key, text, { noNullPrototype: true }),
      ports: fc.uniqueArray(port, { maxLength: 4, selector: (item) => item.port }),
      externalIPs: fc.array(text, { maxLength: 3 }),
    },
    { requiredKeys: [], noNullPrototype: true },
  );
  fc.assert(
    fc.property(fc.option(object, { nil: undefined }), object, object, (last, live, desired) => {
      const lastApplied = last === undefined ? undefined : spec(last);
      const options = { lastApplied, desired: spec(desired), schema };
      const after = applyMergePatch(spec(live), createApplyPatch({ ...options, live: spec(live) }));
      const again = createApplyPatch({
        lastApplied: spec(desired),
        desired: spec(desired),
        schema,
        live: after as JsonObject,
      });
      assert.deepEqual(again, {});
    }),
  );
});
