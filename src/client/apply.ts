/** The client's side of `kubectl apply -f`: makes live objects what manifests say, and leaves what others have set. */
import type { KindRef, ObjectSchema } from '#api/kind.ts';
import type { ManifestObject } from '#api/machinery/manifest.ts';
import {
  createApplyPatch,
  lastAppliedOf,
  withLastApplied,
} from '#api/machinery/three-way-merge.ts';
import { type KubeObject, objectKey, type Status } from '#api/meta.ts';
import { kindByApiVersion } from '#api/registry.ts';
import {
  ApiError,
  explainError,
  isAlreadyExists,
  isConflict,
  isNotFound,
  UserError,
} from '#lib/errors.ts';
import type { ApiClient } from './port.ts';

/** An object to apply; what comes out of `parseManifest()` also tells where it stands, which makes better messages. */
export type ApplySource = Pick<ManifestObject, 'object'> & Partial<ManifestObject>;

export interface Applied {
  readonly kind: KindRef;
  /** As the server has it now. */
  readonly object: KubeObject;
  readonly outcome: 'created' | 'configured' | 'unchanged';
}

export interface ApplyOptions {
  /** For objects that name none. */
  readonly namespace?: string;
  readonly signal?: AbortSignal;
  /** Called after each object, also of those before one that fails. */
  readonly onApplied?: (applied: Applied) => void;
}

/** Somebody else writes the same object in between each time: more often than this is no accident. */
const MAX_ATTEMPTS = 5;

/**
 * Applies the objects in their order. All kinds are looked up before the first is written. An object that the server
 * refuses does not keep the others from being applied, as with kubectl.
 * @returns one entry per object
 * @throws UserError if a kind is unknown (nothing is written then), or objects were refused: all of them, with their lines
 */
export async function applyManifest(
  client: ApiClient,
  sources: readonly ApplySource[],
  options: ApplyOptions = {},
): Promise<Applied[]> {
  const discovered = new Map<string, Promise<readonly KindRef[]>>();
  const known: { source: ApplySource; kind: KindRef; object: KubeObject }[] = [];
  for (const source of sources) {
    const kind = await kindOf(client, source, discovered);
    known.push({ source, kind, object: prepare(source, kind, options.namespace ?? 'default') });
  }
  const results: Applied[] = [];
  const refusals: string[] = [];
  for (const { source, kind, object } of known) {
    try {
      const applied = await applyOne(client, kind, object, options.signal);
      options.onApplied?.(applied);
      results.push(applied);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      refusals.push(...describeRefusal(source, object, error));
    }
  }
  if (refusals.length > 0) throw new UserError(refusals.join('\n'));
  return results;
}

async function applyOne(
  client: ApiClient,
  kind: KindRef,
  object: KubeObject,
  signal: AbortSignal | undefined,
): Promise<Applied> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await tryOnce(client, kind, object, signal);
    } catch (error) {
      // Created, changed or deleted by somebody else between our look and our write.
      const isRace = isConflict(error) || isAlreadyExists(error) || isNotFound(error);
      // A missing namespace is answered with 404, too; then it stays missing.
      if (!isRace || attempt >= MAX_ATTEMPTS) throw error;
    }
  }
}

async function tryOnce(
  client: ApiClient,
  kind: KindRef,
  object: KubeObject,
  signal: AbortSignal | undefined,
): Promise<Applied> {
  const call = { ...(signal === undefined ? {} : { signal }) };
  const write = { ...call, fieldValidation: 'Strict' } as const;
  const { name, namespace } = object.metadata;
  const desired = withLastApplied(object);
  const live = await orMissing(client.get(kind, name, namespace, call));
  if (live === undefined)
    return { kind, object: await client.create(kind, desired, write), outcome: 'created' };
  const { schema } = kind as { schema?: ObjectSchema };
  const body = createApplyPatch({
    lastApplied: lastAppliedOf(live),
    live: { ...live },
    desired: { ...desired },
    ...(schema === undefined ? {} : { schema }),
  });
  if (Object.keys(body).length === 0) return { kind, object: live, outcome: 'unchanged' };
  // Lists in the patch are made from the live ones: it must not meet others.
  const { resourceVersion } = live.metadata;
  const metadata = { ...(body.metadata as object | undefined), resourceVersion };
  const patched = await client.patch(
    kind,
    { name, ...(namespace === undefined ? {} : { namespace }) },
    { type: 'application/merge-patch+json', body: { ...body, metadata } },
    write,
  );
  return { kind, object: patched, outcome: 'configured' };
}

async function orMissing<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** The object with its namespace; without what a manifest copied from a live object has from the server. */
function prepare(source: ApplySource, kind: KindRef, namespace: string): KubeObject {
  const { object } = source;
  const { name = '', generateName } = object.metadata;
  if (name === '')
    throw new UserError(
      `${whereOf(source)}: cannot apply a ${object.kind} ${generateName === undefined ? 'without a name' : 'with generateName'}`,
      { hint: 'Give it a metadata.name: apply has to find it again the next time.' },
    );
  const { resourceVersion: _version, uid: _uid, ...metadata } = object.metadata;
  if (!kind.namespaced) return { ...object, metadata };
  return { ...object, metadata: { ...metadata, namespace: metadata.namespace ?? namespace } };
}

/** Kinds that Tulle does not know itself are asked of the server. */
async function kindOf(
  client: ApiClient,
  source: ApplySource,
  discovered: Map<string, Promise<readonly KindRef[]>>,
): Promise<KindRef> {
  const { apiVersion, kind } = source.object;
  const known = kindByApiVersion(apiVersion, kind);
  if (known !== undefined) return known;
  let kinds = discovered.get(apiVersion);
  if (kinds === undefined) {
    kinds = discover(client, apiVersion);
    discovered.set(apiVersion, kinds);
  }
  const found = (await kinds).find((candidate) => candidate.kind === kind);
  if (found !== undefined) return found;
  throw new UserError(
    `${whereOf(source)}: the server knows no kind "${kind}" in version "${apiVersion}"`,
    { hint: 'Check the spelling of apiVersion and kind; nothing has been applied.' },
  );
}

/** The kinds of a group and version; none if there is no such group. */
async function discover(client: ApiClient, apiVersion: string): Promise<readonly KindRef[]> {
  const [group = '', version = ''] = apiVersion.includes('/')
    ? apiVersion.split('/')
    : ['', apiVersion];
  const path = group === '' ? `/api/${version}` : `/apis/${group}/${version}`;
  const { status, body } = await client.raw('GET', path);
  if (status === 404) return [];
  if (status !== 200) throw new ApiError(status, 'Unknown', `Cannot ask for the kinds of ${path}`);
  const list = JSON.parse(body) as {
    resources?: { name: string; kind: string; namespaced: boolean }[];
  };
  return (list.resources ?? [])
    .filter(({ name }) => !name.includes('/'))
    .map(({ name, kind, namespaced }) => ({ group, version, kind, resource: name, namespaced }));
}

/** A line per mistake, with the line it is in where that is known. */
function describeRefusal(source: ApplySource, object: KubeObject, error: ApiError): string[] {
  const what = `${object.kind} "${objectKey(object)}"`;
  const causes = ((error.details as Status['details'] | undefined)?.causes ?? []).filter(
    ({ field, message }) => field !== undefined && message !== undefined,
  );
  if (error.reason !== 'Invalid' || causes.length === 0)
    return [`${whereOf(source)}: ${what}: ${explainError(error)}`];
  return causes.map(
    ({ field = '', message }) => `${whereOf(source, field)}: ${what}: ${field}: ${message}`,
  );
}

function whereOf(source: ApplySource, field?: string): string {
  const { file = 'manifest', line, lineOf } = source;
  const at = field === undefined ? line : (lineOf?.(field) ?? line);
  return at === undefined ? file : `${file}:${at}`;
}
