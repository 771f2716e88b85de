import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { apiVersionOf, type KindDefinition, type Schema } from '#api/kind.ts';
import { isObject } from '#api/machinery/json.ts';
import type { KubeObject } from '#api/meta.ts';
import { KINDS } from '#api/registry.ts';
import { ApiError } from '#lib/errors.ts';
import { checkFields } from '../fields.ts';
import { AS_ADMIN, openFixture } from './test-registries.ts';

/** Values that fit a schema's types and little else: what gets past the field check and meets defaults and plugins. */
function anyValue(schema: Schema, depth = 0): fc.Arbitrary<unknown> {
  switch (schema.type) {
    case 'object':
      return fc.record(
        Object.fromEntries(
          Object.entries(schema.fields).map(([name, field]) => [name, anyValue(field, depth + 1)]),
        ),
        { requiredKeys: [] },
      );
    case 'map':
      return fc.dictionary(fc.constantFrom('a', 'app', '__proto__', ''), anyValue(schema.values), {
        maxKeys: 2,
      });
    case 'array':
      return fc.array(anyValue(schema.items, depth + 1), { maxLength: depth > 3 ? 1 : 2 });
    case 'integer':
    case 'number':
      return fc.constantFrom(0, 1, 80, 26, -1, 70000);
    case 'boolean':
      return fc.boolean();
    case 'int-or-string':
      return fc.constantFrom<unknown>(80, 'http', '');
    case 'any':
      return fc.jsonValue({ maxDepth: 1 });
    case 'string': {
      const words = ['', 'a', 'None', 'IPv4', 'IPv6', '10.96.0.7', 'fd00::1', '10.244.0.0/16'];
      const values = [...words, 'ExternalName', 'PreferDualStack', ...(schema.enum ?? [])];
      return schema.format === 'date-time'
        ? fc.constant('2026-01-01T00:00:00Z')
        : fc.constantFrom(...values);
    }
  }
}

/** An object of the kind whose metadata is good, so that the rest is looked at. */
function objectOf(kind: KindDefinition): fc.Arbitrary<Record<string, unknown>> {
  return anyValue(kind.schema).map((value) => ({
    ...(isObject(value) ? value : {}),
    apiVersion: apiVersionOf(kind),
    kind: kind.kind,
    metadata: { name: 'a' },
  }));
}

const namespaceOf = (kind: KindDefinition) => (kind.namespaced ? 'default' : '');

for (const kind of KINDS)
  test(`a ${kind.kind} of any content is taken or refused, and never breaks the server`, async () => {
    await fc.assert(
      fc.asyncProperty(objectOf(kind), objectOf(kind), async (first, second) => {
        await using fixture = await openFixture();
        const registry = fixture.of(kind);
        const target = { namespace: namespaceOf(kind), name: 'a' };
        const decode = (sent: Record<string, unknown>) => checkFields(kind, sent, 'Warn').object;
        for (const write of [
          () => registry.create(target.namespace, decode(first), AS_ADMIN),
          () => registry.update(target, () => decode(second), AS_ADMIN),
          () =>
            registry.update(
              target,
              (old) => ({ ...old, ...decode(second), metadata: old.metadata }) as KubeObject,
              AS_ADMIN,
            ),
          () => registry.delete(target, AS_ADMIN),
        ])
          try {
            await write();
          } catch (error) {
            assert.ok(error instanceof ApiError && error.status < 500, String(error));
          }
      }),
      { numRuns: 60 },
    );
  });
