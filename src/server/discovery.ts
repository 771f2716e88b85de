/**
 * What there is: `/api`, `/apis`, `/apis/<group>`, `/apis/<group>/<version>`, in one document for clients that can
 * (`apidiscovery.k8s.io/v2`), and in pieces for the others. Pure: made of the list of kinds.
 */
import { apiVersionOf, type KindDefinition } from '#api/kind.ts';

const OBJECT_VERBS = [
  'create',
  'delete',
  'deletecollection',
  'get',
  'list',
  'patch',
  'update',
  'watch',
] as const;
const STATUS_VERBS = ['get', 'patch', 'update'] as const;

/** What a scale subresource reads and writes, whatever the kind. */
const SCALE = { group: 'autoscaling', version: 'v1', kind: 'Scale' } as const;

export const AGGREGATED_TYPE =
  'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';

/** @param where `core` for `/api`, `groups` for `/apis` */
export function aggregatedDiscovery(
  kinds: readonly KindDefinition[],
  where: 'core' | 'groups',
): object {
  const groups = groupNames(kinds).filter((group) => (group === '') === (where === 'core'));
  return {
    kind: 'APIGroupDiscoveryList',
    apiVersion: 'apidiscovery.k8s.io/v2',
    metadata: {},
    items: groups.map((group) => ({
      metadata: group === '' ? {} : { name: group },
      versions: versionsOf(kinds, group).map((version) => ({
        version,
        freshness: 'Current',
        resources: kindsOf(kinds, group, version).map(describeResource),
      })),
    })),
  };
}

function describeResource(kind: KindDefinition): object {
  const responseKind = { group: kind.group, version: kind.version, kind: kind.kind };
  return {
    resource: kind.resource,
    responseKind,
    scope: kind.namespaced ? 'Namespaced' : 'Cluster',
    singularResource: kind.singular,
    verbs: kind.verbs ?? OBJECT_VERBS,
    ...(kind.shortNames.length === 0 ? {} : { shortNames: kind.shortNames }),
    ...(kind.categories.length === 0 ? {} : { categories: kind.categories }),
    ...(kind.subresources.length + (kind.ownSubresources?.length ?? 0) === 0
      ? {}
      : {
          subresources: [
            ...kind.subresources.map((subresource) => ({
              subresource,
              responseKind: subresource === 'scale' ? SCALE : responseKind,
              verbs: STATUS_VERBS,
            })),
            ...(kind.ownSubresources ?? []).map(({ name, ...rest }) => ({
              subresource: name,
              ...rest,
            })),
          ],
        }),
  };
}

/** `/api` */
export function legacyVersions(serverAddress: string): object {
  return {
    kind: 'APIVersions',
    versions: ['v1'],
    serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress }],
  };
}

/** `/apis` */
export function legacyGroups(kinds: readonly KindDefinition[]): object {
  return {
    kind: 'APIGroupList',
    apiVersion: 'v1',
    groups: groupNames(kinds)
      .filter((group) => group !== '')
      .map((group) => describeGroup(kinds, group)),
  };
}

/** `/apis/<group>` @returns `undefined` if there is no such group */
export function legacyGroup(kinds: readonly KindDefinition[], group: string): object | undefined {
  if (group === '' || !groupNames(kinds).includes(group)) return undefined;
  return { kind: 'APIGroup', apiVersion: 'v1', ...describeGroup(kinds, group) };
}

function describeGroup(kinds: readonly KindDefinition[], group: string) {
  const versions = versionsOf(kinds, group).map((version) => ({
    groupVersion: apiVersionOf({ group, version }),
    version,
  }));
  return { name: group, versions, preferredVersion: versions[0] };
}

/** `/api/v1`, `/apis/<group>/<version>` @returns `undefined` if there is no such version */
export function legacyResources(
  kinds: readonly KindDefinition[],
  group: string,
  version: string,
): object | undefined {
  const here = kindsOf(kinds, group, version);
  if (here.length === 0) return undefined;
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: apiVersionOf({ group, version }),
    resources: here.flatMap((kind) => [
      {
        name: kind.resource,
        singularName: kind.singular,
        namespaced: kind.namespaced,
        kind: kind.kind,
        verbs: kind.verbs ?? OBJECT_VERBS,
        ...(kind.shortNames.length === 0 ? {} : { shortNames: kind.shortNames }),
        ...(kind.categories.length === 0 ? {} : { categories: kind.categories }),
      },
      ...kind.subresources.map((subresource) => ({
        name: `${kind.resource}/${subresource}`,
        singularName: '',
        namespaced: kind.namespaced,
        ...(subresource === 'scale' ? SCALE : { kind: kind.kind }),
        verbs: STATUS_VERBS,
      })),
      ...(kind.ownSubresources ?? []).map(({ name, responseKind, verbs }) => ({
        name: `${kind.resource}/${name}`,
        singularName: '',
        namespaced: kind.namespaced,
        ...responseKind,
        verbs,
      })),
    ]),
  };
}

function groupNames(kinds: readonly KindDefinition[]): string[] {
  return [...new Set(kinds.map((kind) => kind.group))].sort();
}

function versionsOf(kinds: readonly KindDefinition[], group: string): string[] {
  return [...new Set(kinds.filter((kind) => kind.group === group).map((kind) => kind.version))];
}

function kindsOf(
  kinds: readonly KindDefinition[],
  group: string,
  version: string,
): KindDefinition[] {
  return kinds.filter((kind) => kind.group === group && kind.version === version);
}
