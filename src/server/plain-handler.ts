/** Requests that are about no object: discovery, schemas, health, figures, version, joining. */
import type { KindDefinition } from '#api/kind.ts';
import { pathNotFound, unauthorized } from '#api/machinery/status.ts';
import { ApiError } from '#lib/errors.ts';
import { JOIN_PATH } from './authn.ts';
import { BACKUP_PATH } from './backup-handler.ts';
import { parseJson } from './body.ts';
import {
  AGGREGATED_TYPE,
  aggregatedDiscovery,
  legacyGroup,
  legacyGroups,
  legacyResources,
  legacyVersions,
} from './discovery.ts';
import { type Answer, type Exchange, headerOf, json } from './exchange.ts';
import { answerHealth, type HealthCheck, isHealthPath } from './health.ts';
import { MAX_JOIN_BODY_BYTES } from './limits.ts';
import type { ServerMetrics } from './metrics.ts';
import { JSON_TYPE, wantsAggregatedDiscovery } from './negotiation.ts';
import { emptyOpenApiV2, OPENAPI_V2_TYPE, type OpenApiDocuments } from './openapi.ts';
import type { TokenCall } from './pki/tokens.ts';
import { nodeNameOf } from './principal.ts';
import type { PlainRequest } from './request.ts';

export const CA_PATH = '/tulle/v1/ca';
/** kubectl asks for version 2, in protobuf, when a file holds a `List`, and fails without it. */
const OPENAPI_V2_PATH = '/openapi/v2';
const TOKENS_PATH = '/tulle/v1/tokens';

/** What a node sends to join, with the bearer token it showed, or to renew its certificate, with the name in that. */
export type JoinCall =
  | { readonly token: string; readonly body: unknown }
  | { readonly node: string; readonly body: unknown };

export interface PlainHandlerOptions {
  readonly kinds: readonly KindDefinition[];
  readonly openApi: OpenApiDocuments;
  readonly checks: {
    readonly live: readonly HealthCheck[];
    readonly ready: readonly HealthCheck[];
  };
  readonly onFailedCheck: (name: string, why: string) => void;
  readonly metrics: ServerMetrics;
  readonly serverAddress: () => string;
  readonly joinHandler: (call: JoinCall) => Promise<object>;
  readonly tokenHandler?: (call: TokenCall) => Promise<object>;
  readonly caHandler: () => Promise<string>;
  /** How others check tokens of service accounts. */
  readonly tokenKeys: { configuration(): object; keys(): Promise<object> };
  /** A page of the store, see `backup-handler.ts`. */
  readonly backupHandler: (exchange: Exchange<PlainRequest>) => Promise<object>;
}

/** The version of Kubernetes whose protocol this server speaks, in the form that clients parse. */
export const VERSION = {
  major: '1',
  minor: '33',
  gitVersion: 'v1.33.0+tulle',
  gitCommit: '',
  gitTreeState: 'clean',
  buildDate: '1970-01-01T00:00:00Z',
  goVersion: '',
  compiler: '',
  platform: `${process.platform}/${process.arch === 'x64' ? 'amd64' : process.arch}`,
} as const;

/** @throws ApiError for everything that is to be refused */
export async function handlePlain(
  exchange: Exchange<PlainRequest>,
  options: PlainHandlerOptions,
): Promise<Answer> {
  const { info, method } = exchange;
  if (info.path === JOIN_PATH) return await join(exchange, options);
  if (info.path === TOKENS_PATH || info.path.startsWith(`${TOKENS_PATH}/`))
    return await tokens(exchange, options);
  if (method !== 'GET' && method !== 'HEAD') throw notThere(method, info.path);
  if (info.path === CA_PATH)
    return {
      type: 'text',
      status: 200,
      contentType: 'application/x-pem-file',
      text: await options.caHandler(),
    };
  if (info.path === BACKUP_PATH) return json(200, await options.backupHandler(exchange));
  if (isHealthPath(info.path)) {
    const checks = info.path === '/readyz' ? options.checks.ready : options.checks.live;
    return await answerHealth(info, checks, options.onFailedCheck);
  }
  if (info.path === '/version') return json(200, VERSION);
  if (info.path === '/.well-known/openid-configuration')
    return json(200, options.tokenKeys.configuration());
  if (info.path === '/openid/v1/jwks')
    return {
      ...json(200, await options.tokenKeys.keys()),
      contentType: 'application/jwk-set+json',
    };
  if (info.path === '/metrics') return await figures(options);
  return openApi(info, options) ?? discovery(exchange, options);
}

function notThere(method: string, path: string): ApiError {
  return new ApiError(405, 'MethodNotAllowed', `the server does not allow ${method} on ${path}`);
}

async function join(
  exchange: Exchange<PlainRequest>,
  { joinHandler }: PlainHandlerOptions,
): Promise<Answer> {
  if (exchange.method !== 'POST') throw notThere(exchange.method, JOIN_PATH);
  const { joinToken: token, principal } = exchange;
  // A certificate lasts longer than the right to act as somebody: it is for who shows one.
  const isActing = headerOf(exchange.headers, 'impersonate-user') !== undefined;
  const node = isActing ? undefined : nodeNameOf(principal);
  if (token === undefined && node === undefined)
    throw unauthorized('Unauthorized: joining needs a join token ("Authorization: Bearer …")');
  const body = parseJson(await exchange.body(MAX_JOIN_BODY_BYTES));
  // A node that has joined renews its certificate, and shows the one it has.
  return json(
    200,
    await joinHandler(token === undefined ? { node: node ?? '', body } : { token, body }),
  );
}

/** Only who may do everything gets as far as this; see `authz.ts`. */
async function tokens(
  exchange: Exchange<PlainRequest>,
  { tokenHandler }: PlainHandlerOptions,
): Promise<Answer> {
  if (tokenHandler === undefined) throw pathNotFound();
  const { method, info } = exchange;
  const id = info.path.slice(TOKENS_PATH.length + 1) || undefined;
  const body = method === 'POST' ? parseJson(await exchange.body()) : undefined;
  return json(200, await tokenHandler({ method, id, body }));
}

async function figures({ metrics }: PlainHandlerOptions): Promise<Answer> {
  const { registry } = metrics;
  return {
    type: 'text',
    status: 200,
    contentType: registry.contentType,
    text: await registry.metrics(),
  };
}

function openApi(info: PlainRequest, { openApi }: PlainHandlerOptions): Answer | undefined {
  if (info.path === '/openapi/v3') return json(200, openApi.index);
  if (info.path === OPENAPI_V2_PATH)
    return {
      type: 'text',
      status: 200,
      contentType: OPENAPI_V2_TYPE,
      text: emptyOpenApiV2(VERSION.gitVersion),
    };
  if (!info.path.startsWith('/openapi/v3/')) return undefined;
  const document = openApi.documents.get(info.path.slice('/openapi/v3/'.length));
  if (document === undefined) throw pathNotFound();
  return {
    type: 'text',
    status: 200,
    contentType: JSON_TYPE,
    text: document.text,
    etag: `"${document.hash}"`,
  };
}

function discovery(exchange: Exchange<PlainRequest>, options: PlainHandlerOptions): Answer {
  const { kinds, serverAddress } = options;
  const [root, ...rest] = exchange.info.path.split('/').filter((part) => part !== '');
  const isAggregated = wantsAggregatedDiscovery(headerOf(exchange.headers, 'accept'));
  if ((root === 'api' || root === 'apis') && rest.length === 0) {
    if (isAggregated)
      return {
        type: 'json',
        status: 200,
        contentType: AGGREGATED_TYPE,
        body: aggregatedDiscovery(kinds, root === 'api' ? 'core' : 'groups'),
      };
    return json(200, root === 'api' ? legacyVersions(serverAddress()) : legacyGroups(kinds));
  }
  const found = legacyPlace(kinds, root, rest);
  if (found === undefined) throw pathNotFound();
  return json(200, found);
}

function legacyPlace(
  kinds: readonly KindDefinition[],
  root: string | undefined,
  rest: readonly string[],
): object | undefined {
  const [first = '', second] = rest;
  if (root === 'api' && rest.length === 1) return legacyResources(kinds, '', first);
  if (root === 'apis' && rest.length === 1) return legacyGroup(kinds, first);
  if (root === 'apis' && second !== undefined && rest.length === 2)
    return legacyResources(kinds, first, second);
  return undefined;
}
