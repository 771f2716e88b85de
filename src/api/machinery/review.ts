/** Kinds that are questions: created, answered, and not kept. */
import type { KindDefinition, ObjectSchema } from '../kind.ts';
import type { KubeObject } from '../meta.ts';

export function reviewKind<T extends KubeObject>(
  group: string,
  kind: string,
  schema: ObjectSchema,
  { namespaced = false }: { readonly namespaced?: boolean } = {},
): KindDefinition<T> {
  return {
    group,
    version: 'v1',
    kind,
    resource: `${kind.toLowerCase()}s`,
    singular: kind.toLowerCase(),
    namespaced,
    shortNames: [],
    categories: [],
    subresources: [],
    verbs: ['create'],
    schema,
    setDefaults: (object) => object,
    validate: () => [],
    columns: [],
    selectableFields: {},
  };
}
