/** The API server: one call starts it, disposing it ends it. */
import { randomUUID } from 'node:crypto';
import { isIPv6 } from 'node:net';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import type { KindDefinition } from '#api/kind.ts';
import { unauthorized } from '#api/machinery/status.ts';
import { CLUSTER_ROLE } from '#api/rbac/v1/role.ts';
import { KINDS } from '#api/registry.ts';
import { REVIEW_KINDS } from '#api/review-kinds.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { type Ip, parseIp } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import type { Store } from '#store/port.ts';
import { createRbacEscalation } from './admission/rbac-escalation.ts';
import { startAllocationRepair } from './allocation-repair.ts';
import { startApiEndpoints } from './api-endpoints.ts';
import { type Authorizer, createAuthorizer } from './authz.ts';
import { backupPage } from './backup-handler.ts';
import { bootstrap } from './bootstrap.ts';
import { type ClusterConfiguration, checkConfiguration } from './configuration.ts';
import { connectionLimits, possibleConnections } from './connection-gate.ts';
import { createConnections } from './connections.ts';
import { startCustomResources } from './custom-resources.ts';
import type { Answer, Exchange } from './exchange.ts';
import { startGarbageCollection } from './garbage-collection.ts';
import { createHealthChecks } from './health.ts';
import { createWatchSlots } from './limits.ts';
import { type Certificate, type Listener, startListener } from './listener.ts';
import { createServerMetrics, type ServerMetrics } from './metrics.ts';
import { startNamespaceDeletion } from './namespace-deletion.ts';
import { createOpenApiDocuments } from './openapi.ts';
import { createPipeline } from './pipeline.ts';
import type { TokenCall } from './pki/tokens.ts';
import { handlePlain, type JoinCall, type PlainHandlerOptions, VERSION } from './plain-handler.ts';
import { startAggregation, syncAggregation } from './rbac/aggregation.ts';
import { bootstrapRbac } from './rbac/bootstrap.ts';
import { followPolicy } from './rbac/policy.ts';
import { createRegistries, type Registries } from './registries.ts';
import { startExpirySweep } from './registry/expiry.ts';
import type { PlainRequest, ResourceRequest } from './request.ts';
import { handleResource } from './resource-handler.ts';
import { handleReview } from './reviews/reviews.ts';
import {
  createServiceAccountTokens,
  jsonWebKeys,
  openIdConfiguration,
  type ServiceAccountTokens,
} from './tokens/service-account-tokens.ts';
import { createSigningKey, type SigningKey } from './tokens/signing-key.ts';
import { publishTokenKey } from './tokens/token-keys.ts';

export type { JoinCall } from './plain-handler.ts';

export interface ApiServerOptions {
  readonly store: Store;
  /** Other servers have the same store: this one is an endpoint of the API beside them. */
  readonly isStoreShared?: boolean;
  readonly pki: {
    readonly serverCertificatePem: string;
    readonly serverKeyPem: string;
    /** Client certificates that these authorities signed themselves are believed. */
    readonly caCertificatesPem: readonly string[];
    /** Those above them: their other branches are not believed. */
    readonly caParentsPem?: readonly string[];
    /** Signs tokens of service accounts; without one they hold as long as this process lives. */
    readonly signingKey?: SigningKey;
  };
  /** Tokens that were signed with other keys than this server's are not accepted any more. */
  readonly forgetTokenKeys?: boolean;
  /** Port 0 takes any free one. */
  readonly listen: { readonly host: string; readonly port: number };
  /** Descriptors of sockets that listen already (socket activation): served too. */
  readonly inherited?: readonly number[];
  /** Where pods and nodes reach this server, if it is not the address it listens on. */
  readonly advertise?: { readonly address: Ip; readonly port: number };
  readonly configuration: ClusterConfiguration;
  /**
   * Answers `POST /tulle/v1/join`: checks the token and signs.
   * @throws ApiError, which becomes the answer
   */
  readonly joinHandler: (call: JoinCall) => Promise<object>;
  /**
   * Answers `/tulle/v1/tokens`, for who may do everything.
   * @throws ApiError, which becomes the answer
   */
  readonly tokenHandler?: (call: TokenCall) => Promise<object>;
  /** Answers `GET /tulle/v1/ca`; by default with the certificates of `pki.caCertificatesPem`, as PEM. */
  readonly caHandler?: () => Promise<string>;
  /** How many connections there can be at once; missing: as many as files may be open, and at most 20,000. */
  readonly maxConnections?: number;
  readonly log: Logger;
  readonly clock?: Clock;
}

export interface ApiServer extends AsyncDisposable {
  /** `https://host:port` */
  readonly url: string;
  readonly address: { readonly host: string; readonly port: number };
  /** Shows another certificate from the next connection on. */
  useCertificate(certificate: Certificate): void;
}

/**
 * Makes sure of the objects every cluster has, and serves.
 * @returns when requests are answered. Disposing ends watches cleanly, lets requests finish, and leaves the store open
 * @throws UserError for a configuration that does not fit together or an address that cannot be listened on
 */
export async function startApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const { store, configuration, log, clock = systemClock } = options;
  checkConfiguration(configuration);
  await using cleanup = new AsyncDisposableStack();
  const policy = cleanup.use(followPolicy({ store, log, clock }));
  const authorizer = createAuthorizer(policy);
  const signingKey = options.pki.signingKey ?? createSigningKey();
  const tokens = createServiceAccountTokens({
    store,
    key: signingKey,
    issuer: `https://kubernetes.default.svc.${configuration.clusterDomain}`,
    clock,
  });
  const registries = createRegistries({
    kinds: KINDS,
    store,
    clock,
    configuration,
    createUid: randomUUID,
    random: Math.random,
    guards: [createRbacEscalation(authorizer)],
  });
  const metrics = createServerMetrics(
    store,
    ({ group, resource }) =>
      registries.kinds.some((kind) => kind.group === group && kind.resource === resource),
    () => connections.counts,
  );
  const connections = createConnections({
    limits: connectionLimits(options.maxConnections ?? possibleConnections()),
    onRefusal: metrics.connectionRefused,
    log,
    clock,
  });
  const stopping = new AbortController();
  // The port is taken before anything is written: a second server on this machine fails here and has changed nothing.
  let address = { host: options.listen.host, port: options.listen.port };
  const handle = createHandler(options, {
    registries,
    metrics,
    clock,
    stopping: stopping.signal,
    serverAddress: () => hostAndPort(address),
    authorizer,
    tokens,
  });
  let ready: () => void = () => {};
  const bootstrapped = new Promise<void>((resolve) => {
    ready = resolve;
  });
  const listener = cleanup.use(
    await startListener({
      ...options.listen,
      ...(options.inherited === undefined ? {} : { inherited: options.inherited }),
      certificatePem: options.pki.serverCertificatePem,
      keyPem: options.pki.serverKeyPem,
      clientCaPem: [...options.pki.caCertificatesPem, ...(options.pki.caParentsPem ?? [])],
      log,
      onConnection: connections.track,
      onRequest: createPipeline({
        handle,
        connections,
        ready: bootstrapped,
        authorizer,
        clientIssuersPem: options.pki.caCertificatesPem,
        checkBearer: async (token) => {
          const verdict = await tokens.check(token);
          if (verdict.kind === 'valid') return verdict.principal;
          throw unauthorized(`Unauthorized: the bearer token is not accepted: ${verdict.why}`);
        },
        metrics,
        log,
        clock,
        stopping: stopping.signal,
      }),
    }),
  );
  address = { host: listener.host, port: listener.port };
  cleanup.defer(() => {
    ready();
    stopping.abort();
  });
  const advertised = options.advertise ?? advertisedBy(listener);
  await bootstrap({
    store,
    registryOf: (kind) => registries.of(kind),
    configuration,
    ...(advertised === undefined ? {} : { advertised }),
    ...(options.isStoreShared ? { hasOtherServers: true } : {}),
    log,
  });
  if (options.isStoreShared)
    cleanup.use(
      await startApiEndpoints({
        store,
        slices: registries.of(ENDPOINT_SLICE),
        own: advertised,
        clock,
        log,
      }),
    );
  // One that ends with the process is nobody else's business.
  if (options.pki.signingKey !== undefined)
    await publishTokenKey(signingKey, {
      store,
      clock,
      forgetOthers: options.forgetTokenKeys ?? false,
    });
  cleanup.use(await startCustomResources({ store, registries, log, clock }));
  const clusterRoles = registries.of(CLUSTER_ROLE);
  await bootstrapRbac({ registryOf: (kind) => registries.of(kind) });
  await syncAggregation({ store, clusterRoles });
  await policy.reload();
  ready();
  cleanup.use(startAggregation({ store, clusterRoles, log, clock }));
  cleanup.use(startNamespaceDeletion({ store, registries, log, clock }));
  cleanup.use(startAllocationRepair({ store, log, clock }));
  cleanup.use(startExpirySweep({ store, kinds: KINDS, log, clock }));
  cleanup.use(startGarbageCollection({ store, registries, log, clock }));
  const owned = cleanup.move();
  const url = `https://${hostAndPort(address)}`;
  log.info({ url }, 'api server: ready');
  return {
    url,
    address,
    useCertificate: listener.useCertificate,
    async [Symbol.asyncDispose]() {
      await owned.disposeAsync();
      log.info({ url }, 'api server: stopped');
    },
  };
}

interface Parts {
  readonly registries: Registries;
  readonly metrics: ServerMetrics;
  readonly clock: Clock;
  readonly stopping: AbortSignal;
  readonly serverAddress: () => string;
  readonly authorizer: Authorizer;
  readonly tokens: ServiceAccountTokens;
}

function createHandler(
  options: ApiServerOptions,
  parts: Parts,
): (exchange: Exchange) => Promise<Answer> {
  const { store, pki, log } = options;
  const { registries, metrics, clock, stopping } = parts;
  const resources = {
    store,
    registryOf: registries.find,
    clock,
    metrics,
    authorizer: parts.authorizer,
    watchSlots: createWatchSlots(),
    random: Math.random,
  };
  const { tokens } = parts;
  const reviews = { authorizer: parts.authorizer, tokens, clock };
  const withReviews = rememberOne((kinds: readonly KindDefinition[]) => [
    ...kinds,
    ...REVIEW_KINDS,
  ]);
  const openApi = rememberOne((kinds: readonly KindDefinition[]) =>
    createOpenApiDocuments(kinds, VERSION.gitVersion),
  );
  const plain: PlainHandlerOptions = {
    get kinds() {
      return withReviews(registries.kinds);
    },
    get openApi() {
      return openApi(withReviews(registries.kinds));
    },
    checks: createHealthChecks({ store, isStopping: () => stopping.aborted }),
    onFailedCheck: (check, why) => log.warn({ check, why }, 'api server: a health check failed'),
    metrics,
    serverAddress: parts.serverAddress,
    joinHandler: options.joinHandler,
    ...(options.tokenHandler === undefined ? {} : { tokenHandler: options.tokenHandler }),
    backupHandler: ({ principal, info }) => backupPage(store, principal, info.query),
    caHandler: options.caHandler ?? (async () => pki.caCertificatesPem.join('\n')),
    tokenKeys: {
      configuration: () => openIdConfiguration(tokens.issuer, `https://${parts.serverAddress()}`),
      keys: async () => jsonWebKeys(await tokens.keys.list()),
    },
  };
  return async (exchange) => {
    if (exchange.info.type === 'plain')
      return await handlePlain(exchange as Exchange<PlainRequest>, plain);
    const about = exchange as Exchange<ResourceRequest>;
    return await (handleReview(about, reviews) ?? handleResource(about, resources));
  };
}

/** Calls again only for another argument than the last. */
function rememberOne<A extends object, R>(make: (argument: A) => R): (argument: A) => R {
  let last: { argument: A; result: R } | undefined;
  return (argument) => {
    if (last?.argument !== argument) last = { argument, result: make(argument) };
    return last.result;
  };
}

/** A server that listens on one address of the machine is reached there; a wildcard or loopback says nothing. */
function advertisedBy({ host, port }: Listener): { address: Ip; port: number } | undefined {
  const address = parseIp(host);
  if (address === undefined || /^(127\.|0\.0\.0\.0$|::1?$|fe80:)/.test(address)) return undefined;
  return { address, port };
}

function hostAndPort({ host, port }: { host: string; port: number }): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}
