/** The objects a cluster has from its first moment. Safe to run at every start, and again after a crash halfway. */
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { apiVersionOf, type KindRef } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import { SERVICE_CIDR, type ServiceCIDR } from '#api/networking/v1/service-cidr.ts';
import { IP_POOL, type IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { ApiError, isAlreadyExists, isNotFound } from '#lib/errors.ts';
import { cidrAddress, familyOf, type Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import type { Store } from '#store/port.ts';
import { usableOrdinals } from './admission/cluster-ips.ts';
import { SYSTEM_NAMESPACES } from './admission/namespace-exists.ts';
import { CONFIGURED_SERVICE_CIDR } from './admission/service-cidrs.ts';
import { familyName } from './admission/service-families.ts';
import type { ClusterConfiguration } from './configuration.ts';
import { SERVER_PRINCIPAL } from './principal.ts';
import type { ResourceRegistry } from './registry/resource-registry.ts';

export const API_SERVICE_NAME = 'kubernetes';
export const DNS_SERVICE_NAME = 'kube-dns';
const HTTPS_PORT = 443;
const DNS_PORT = 53;

/** Set when the pools of the configuration were made: a pool that an operator deletes later must not come back. */
const POOLS_MADE_KEY = '/tulle/bootstrap/ippools';

export interface BootstrapOptions {
  readonly store: Store;
  readonly registryOf: (kind: KindRef) => ResourceRegistry;
  readonly configuration: ClusterConfiguration;
  /** Where pods reach this server; missing: the `kubernetes` service has no endpoint yet. */
  readonly advertised?: { readonly address: Ip; readonly port: number };
  /** The endpoints of the service are several servers': see `api-endpoints.ts`. */
  readonly hasOtherServers?: boolean;
  readonly log: Logger;
}

export async function bootstrap(options: BootstrapOptions): Promise<void> {
  for (const name of SYSTEM_NAMESPACES)
    await ensure(options, NAMESPACE, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  await ensureServiceCidr(options);
  await ensure(options, SERVICE, apiService(options));
  await ensureDnsService(options);
  if (options.advertised !== undefined && options.hasOtherServers !== true)
    await ensureApiEndpoint(options, options.advertised);
  if ((await options.store.get(POOLS_MADE_KEY)) !== undefined) return;
  for (const pool of options.configuration.pools) await ensure(options, IP_POOL, poolOf(pool));
  await options.store.transact(
    [{ key: POOLS_MADE_KEY, modRevision: 0 }],
    [{ type: 'put', key: POOLS_MADE_KEY, value: new Uint8Array() }],
  );
}

/** Makes an object if there is none of its name. @returns what is stored */
async function ensure(
  options: BootstrapOptions,
  kind: KindRef,
  object: KubeObject,
): Promise<KubeObject> {
  const registry = options.registryOf(kind);
  const target = { namespace: object.metadata.namespace ?? '', name: object.metadata.name };
  try {
    return await registry.get(target);
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  try {
    return (await registry.create(target.namespace, object, WRITE_OPTIONS)).object;
  } catch (error) {
    // Another server of the cluster was faster.
    if (!isAlreadyExists(error)) throw error;
    return await registry.get(target);
  }
}

const WRITE_OPTIONS = { principal: SERVER_PRINCIPAL, dryRun: false } as const;

function apiService({ configuration, advertised }: BootstrapOptions): Service {
  const [primary] = configuration.serviceCidrs;
  if (primary === undefined) throw new TypeError('a cluster needs a service range');
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name: API_SERVICE_NAME,
      namespace: 'default',
      labels: { component: 'apiserver', provider: 'kubernetes' },
    },
    spec: {
      type: 'ClusterIP',
      clusterIP: cidrAddress(primary, usableOrdinals(primary).first),
      ipFamilyPolicy: 'SingleStack',
      ports: [
        {
          name: 'https',
          protocol: 'TCP',
          port: HTTPS_PORT,
          targetPort: advertised?.port ?? HTTPS_PORT,
        },
      ],
    },
  };
}

/** Tells agents where cluster IPs come from, as kube-apiserver does: they refuse what no service has. */
async function ensureServiceCidr(options: BootstrapOptions): Promise<void> {
  const { serviceCidrs } = options.configuration;
  const wanted: ServiceCIDR = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name: CONFIGURED_SERVICE_CIDR },
    spec: { cidrs: [...serviceCidrs] },
  };
  const stored = (await ensure(options, SERVICE_CIDR, wanted)) as ServiceCIDR;
  const has = stored.spec.cidrs?.join(',') ?? '';
  if (has === serviceCidrs.join(',')) return;
  // Ranges cannot be changed, so the object is made anew; services that have addresses of the old ranges hold it.
  try {
    const registry = options.registryOf(SERVICE_CIDR);
    await registry.delete({ namespace: '', name: CONFIGURED_SERVICE_CIDR }, WRITE_OPTIONS);
    await registry.create('', wanted, WRITE_OPTIONS);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    options.log.warn(
      { configured: serviceCidrs, stored: has, reason: error.message },
      `the ServiceCIDR "${CONFIGURED_SERVICE_CIDR}" tells other service ranges than are configured now; it is corrected at the next start after the services in them are gone`,
    );
  }
}

/** Agents answer on the address of this service themselves; it has neither selector nor endpoints. */
async function ensureDnsService(options: BootstrapOptions): Promise<void> {
  const { dnsServiceIps } = options.configuration;
  const [first] = dnsServiceIps;
  if (first === undefined) return;
  const service: Service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name: DNS_SERVICE_NAME,
      namespace: 'kube-system',
      labels: { 'k8s-app': DNS_SERVICE_NAME, 'kubernetes.io/cluster-service': 'true' },
    },
    spec: {
      type: 'ClusterIP',
      clusterIP: first,
      clusterIPs: [...dnsServiceIps],
      ipFamilyPolicy: dnsServiceIps.length > 1 ? 'RequireDualStack' : 'SingleStack',
      ports: [
        { name: 'dns', protocol: 'UDP', port: DNS_PORT, targetPort: DNS_PORT },
        { name: 'dns-tcp', protocol: 'TCP', port: DNS_PORT, targetPort: DNS_PORT },
      ],
    },
  };
  const stored = (await ensure(options, SERVICE, service)) as Service;
  const has = stored.spec.clusterIPs?.join(',') ?? '';
  if (has !== dnsServiceIps.join(','))
    options.log.warn(
      { configured: dnsServiceIps, stored: has },
      'the cluster was made with another DNS address than is configured now; delete the service kube-dns in kube-system and start the server again to change it',
    );
}

/** The server's own address, renewed at each start: it may have moved. */
async function ensureApiEndpoint(
  options: BootstrapOptions,
  { address, port }: { address: Ip; port: number },
): Promise<void> {
  const content: Pick<EndpointSlice, 'addressType' | 'endpoints' | 'ports'> = {
    addressType: familyName(familyOf(address)),
    endpoints: [{ addresses: [address], conditions: { ready: true } }],
    ports: [{ name: 'https', protocol: 'TCP', port }],
  };
  const slice: EndpointSlice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: API_SERVICE_NAME,
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': API_SERVICE_NAME },
    },
    ...content,
  };
  const stored = (await ensure(options, ENDPOINT_SLICE, slice)) as EndpointSlice;
  const registry = options.registryOf(ENDPOINT_SLICE);
  const target = { namespace: 'default', name: API_SERVICE_NAME };
  // The family of a slice cannot change: a server that moved to the other one makes it anew.
  if (stored.addressType !== slice.addressType) {
    await registry.delete(target, WRITE_OPTIONS);
    await registry.create(target.namespace, slice, WRITE_OPTIONS);
  } else await registry.update(target, (old) => ({ ...old, ...content }), WRITE_OPTIONS);
}

function poolOf(pool: ClusterConfiguration['pools'][number]): IPPool {
  return {
    apiVersion: apiVersionOf(IP_POOL) as IPPool['apiVersion'],
    kind: 'IPPool',
    metadata: { name: pool.name },
    spec: {
      cidr: pool.cidr,
      ...(pool.blockSize === undefined ? {} : { blockSize: pool.blockSize }),
    },
  };
}
