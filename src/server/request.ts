/**
 * What a request asks for, read from its method and URL alone
 * (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go` defines the scheme).
 */
import { badRequest } from '#api/machinery/status.ts';

export type ResourceVerb =
  | 'get'
  | 'list'
  | 'watch'
  | 'create'
  | 'update'
  | 'patch'
  | 'delete'
  | 'deletecollection';

export interface ResourceRequest {
  readonly type: 'resource';
  readonly verb: ResourceVerb;
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  /** Plural, as in the URL. */
  readonly resource: string;
  /** Empty for the object itself. */
  readonly subresource: string;
  /** Empty for cluster-scoped objects and for lists over all namespaces. */
  readonly namespace: string;
  /** Empty for collections. */
  readonly name: string;
  readonly path: string;
  readonly query: URLSearchParams;
}

/** Everything that is no object: discovery, health, metrics, joining. */
export interface PlainRequest {
  readonly type: 'plain';
  /** Lower-case method, as rules about such paths are written. */
  readonly verb: string;
  readonly path: string;
  readonly query: URLSearchParams;
}

export type RequestInfo = ResourceRequest | PlainRequest;

/** Longest request target: a list with long selectors fits, a flood of text does not. */
export const MAX_URL_LENGTH = 16 * 1024;

const COLLECTION_VERBS: Readonly<Record<string, ResourceVerb>> = {
  GET: 'list',
  HEAD: 'list',
  POST: 'create',
  DELETE: 'deletecollection',
};
const OBJECT_VERBS: Readonly<Record<string, ResourceVerb>> = {
  GET: 'get',
  HEAD: 'get',
  POST: 'create',
  PUT: 'update',
  PATCH: 'patch',
  DELETE: 'delete',
};

/**
 * Reads a request's method and target.
 * @param target path and query as on the request line
 * @throws ApiError 400 for a target that is too long or not well encoded, 405 for a method the place does not have
 */
export function parseRequest(method: string, target: string): RequestInfo {
  if (target.length > MAX_URL_LENGTH)
    throw badRequest(
      `the request's URL has ${target.length} characters; at most ${MAX_URL_LENGTH} are read`,
    );
  const at = target.indexOf('?');
  const path = at < 0 ? target : target.slice(0, at);
  const query = new URLSearchParams(at < 0 ? '' : target.slice(at + 1));
  const segments = splitPath(path);
  const place = placeOf(segments);
  const plain = {
    type: 'plain',
    verb: method.toLowerCase(),
    path: withoutSlash(path),
    query,
  } as const;
  if (place === undefined) return plain;
  const verbs = place.name === '' ? COLLECTION_VERBS : OBJECT_VERBS;
  const verb = verbs[method];
  // An unknown method on a resource is answered like any other bad verb: by whoever handles the resource.
  if (verb === undefined) return plain;
  return { type: 'resource', verb: watchVerb(verb, query), ...place, path, query };
}

/** Some clients (Python's) end the paths of discovery and of the version in a slash, as upstream lists them. */
function withoutSlash(path: string): string {
  return path.replace(/(?<=.)\/$/, '');
}

/** `?watch=true` makes a list a watch. One object is watched by a field selector on its name. */
function watchVerb(verb: ResourceVerb, query: URLSearchParams): ResourceVerb {
  return verb === 'list' && isTrue(query.get('watch')) ? 'watch' : verb;
}

/** A boolean query parameter: `true`, `1`, or present without a value. */
export function isTrue(value: string | null): boolean {
  return value === 'true' || value === '1' || value === '';
}

type Place = Pick<
  ResourceRequest,
  'group' | 'version' | 'resource' | 'subresource' | 'namespace' | 'name'
>;

function placeOf(segments: readonly string[]): Place | undefined {
  let group = '';
  let rest: readonly string[];
  if (segments[0] === 'api') rest = segments.slice(1);
  else if (segments[0] === 'apis') {
    group = segments[1] ?? '';
    rest = segments.slice(2);
  } else return undefined;
  const [version = '', ...parts] = rest;
  if (parts.length === 0 || parts.length > 6) return undefined;
  let namespace = '';
  let tail = parts;
  // `namespaces/x` and its own subresources are the namespace; anything longer is inside it.
  if (parts[0] === 'namespaces' && parts.length > 2 && !isNamespaceSubresource(parts)) {
    namespace = parts[1] ?? '';
    tail = parts.slice(2);
  }
  const [resource = '', name = '', ...subresource] = tail;
  return { group, version, resource, subresource: subresource.join('/'), namespace, name };
}

function isNamespaceSubresource(parts: readonly string[]): boolean {
  return parts.length === 3 && (parts[2] === 'status' || parts[2] === 'finalize');
}

/** Nearly all are: nothing to decode, and nothing to refuse. */
const PLAIN_SEGMENT = /^[a-z0-9][a-z0-9.-]*$/;

function splitPath(path: string): string[] {
  return path
    .split('/')
    .filter((segment) => segment !== '')
    .map((segment) => {
      if (PLAIN_SEGMENT.test(segment)) return segment;
      let decoded: string;
      try {
        decoded = decodeURIComponent(segment);
      } catch {
        throw badRequest(`the path segment "${segment}" is not valid percent-encoding`);
      }
      // An encoded slash would let a name reach into another object's key.
      if (decoded.includes('/') || decoded === '.' || decoded === '..' || decoded.includes('\0'))
        throw badRequest(`the path segment "${segment}" is no name`);
      return decoded;
    });
}
