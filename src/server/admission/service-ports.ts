/**
 * Gives services the ports they keep on every node, in the transaction that writes the service, and takes them back
 * with it: node ports, and the port on which nodes say whether they have endpoints.
 */
import type { Protocol } from '#api/core/v1/protocol.ts';
import {
  needsHealthCheckNodePort,
  needsNodePorts,
  SERVICE,
  type Service,
  type ServicePort,
  type ServiceSpec,
} from '#api/core/v1/service.ts';
import type { FieldError } from '#api/kind.ts';
import { invalid } from '#api/machinery/field-errors.ts';
import { sameJson } from '#api/machinery/json.ts';
import { internalError } from '#api/machinery/status.ts';
import type { StoreReader, WriteOp } from '#store/port.ts';
import type { AdmissionEffects, AdmissionPlugin, AdmissionReview } from './admission.ts';
import {
  chooseNodePort,
  formatPortRange,
  isInRange,
  nodePortKey,
  type PortRange,
} from './node-ports.ts';

/** The service, its addresses and each of its ports are compared and written in one transaction, which etcd limits to 128. */
export const MAX_NODE_PORTS_OF_SERVICE = 100;
const MAX_PORT = 65535;

export interface ServicePortsOptions {
  readonly nodePortRange: PortRange;
  /** A number in [0, 1). */
  readonly random: () => number;
}

export function createServicePorts(options: ServicePortsOptions): AdmissionPlugin {
  return {
    name: 'ServicePorts',
    async review(review) {
      if (review.kind.group !== SERVICE.group || review.kind.resource !== SERVICE.resource)
        return undefined;
      if (review.subresource !== '' || review.operation === 'DELETE') return undefined;
      if (review.operation === 'REMOVE')
        return { operations: release(nodePortKeysOf(review.old as Service)) };
      return await assign(review, options);
    },
  };
}

/** The keys of the records that a service has, by what the service says. */
export function nodePortKeysOf(service: Service): string[] {
  const { ports = [], healthCheckNodePort } = service.spec ?? {};
  const keys = ports.flatMap(({ protocol = 'TCP', nodePort }) =>
    nodePort ? [nodePortKey(protocol, nodePort)] : [],
  );
  if (healthCheckNodePort) keys.push(nodePortKey('TCP', healthCheckNodePort));
  return [...new Set(keys)];
}

async function assign(
  review: AdmissionReview & { operation: 'CREATE' | 'UPDATE' },
  options: ServicePortsOptions,
): Promise<AdmissionEffects> {
  const service = review.object as Service;
  const had = new Set(review.old === undefined ? [] : nodePortKeysOf(review.old as Service));
  const claims = new Claims({ store: review.store, had, ...options });
  const spec = await fillPorts(service.spec, claims);
  if (claims.errors.length > 0) return { errors: claims.errors };
  const owner = { namespace: review.namespace, name: review.name };
  const value = Buffer.from(JSON.stringify(owner), 'utf8');
  const added = [...claims.keys].filter((key) => !had.has(key));
  return {
    ...(sameJson(spec, service.spec) ? {} : { object: { ...service, spec } as Service }),
    compares: added.map((key) => ({ key, modRevision: 0 })),
    operations: [
      ...added.map((key): WriteOp => ({ type: 'put', key, value })),
      ...release([...had].filter((key) => !claims.keys.has(key))),
    ],
  };
}

/** What a person asked for goes first, so that a choice of ours is never in its way. */
async function fillPorts(spec: ServiceSpec, claims: Claims): Promise<ServiceSpec> {
  const ports = spec.ports ?? [];
  const usesNodePorts = spec.type === 'NodePort' || spec.type === 'LoadBalancer';
  if (usesNodePorts && ports.length > MAX_NODE_PORTS_OF_SERVICE) {
    claims.errors.push({
      type: 'TooMany',
      field: 'spec.ports',
      detail: `${ports.length}: a service with node ports must have at most ${MAX_NODE_PORTS_OF_SERVICE} ports`,
    });
    return spec;
  }
  if (usesNodePorts)
    for (const [i, { protocol = 'TCP', nodePort }] of ports.entries())
      if (nodePort) await claims.request(`spec.ports[${i}].nodePort`, protocol, nodePort);
  const needsHealthPort = needsHealthCheckNodePort(spec);
  const healthPort = spec.healthCheckNodePort;
  if (needsHealthPort && healthPort)
    await claims.request('spec.healthCheckNodePort', 'TCP', healthPort);
  if (claims.errors.length > 0) return spec;
  const filled = { ...spec };
  if (needsNodePorts(spec)) filled.ports = await choosePorts(ports, claims);
  if (needsHealthPort && !healthPort)
    filled.healthCheckNodePort = await claims.choose(['TCP'], 'health check node port');
  return filled;
}

/** One port under several protocols gets one number for all of them, as people expect of DNS. */
async function choosePorts(ports: readonly ServicePort[], claims: Claims): Promise<ServicePort[]> {
  const filled = ports.map((port) => ({ ...port }));
  for (const port of filled) {
    if (port.nodePort) continue;
    const siblings = filled.filter((other) => other.port === port.port);
    const open = siblings.filter((other) => !other.nodePort);
    const protocols = open.map(({ protocol = 'TCP' }) => protocol);
    const sibling = siblings.find((other) => other.nodePort)?.nodePort;
    const nodePort =
      sibling !== undefined && (await claims.take(protocols, sibling))
        ? sibling
        : await claims.choose(protocols, 'nodePort');
    for (const other of open) other.nodePort = nodePort;
  }
  return filled;
}

/** The ports that a service will have. */
class Claims {
  readonly keys = new Set<string>();
  readonly errors: FieldError[] = [];
  readonly #options: ServicePortsOptions & { store: StoreReader; had: ReadonlySet<string> };

  constructor(options: ServicePortsOptions & { store: StoreReader; had: ReadonlySet<string> }) {
    this.#options = options;
  }

  /** Takes a port that was asked for, or notes why it cannot be had. */
  async request(field: string, protocol: Protocol, port: number): Promise<void> {
    const { nodePortRange: range, had } = this.#options;
    // What is no port number, or named twice, is for the kind's validation to say.
    if (!Number.isInteger(port) || port < 1 || port > MAX_PORT) return;
    const key = nodePortKey(protocol, port);
    const isHeld = had.has(key);
    if (!isHeld && !isInRange(range, port))
      this.errors.push(
        invalid(
          field,
          port,
          `provided port is not in the valid range. The range of valid ports is ${formatPortRange(range)}`,
        ),
      );
    else if (field === 'spec.healthCheckNodePort' && this.keys.has(key))
      this.errors.push(invalid(field, port, 'is also a TCP node port of this service'));
    else if (!(await this.#isFree(key)))
      this.errors.push(invalid(field, port, 'provided port is already allocated'));
    else this.keys.add(key);
  }

  /** @returns whether the number was free in all the protocols; then it is taken */
  async take(protocols: readonly Protocol[], port: number): Promise<boolean> {
    const keys = protocols.map((protocol) => nodePortKey(protocol, port));
    for (const key of keys) if (this.keys.has(key) || !(await this.#isFree(key))) return false;
    for (const key of keys) this.keys.add(key);
    return true;
  }

  /** @throws ApiError if the range is full */
  async choose(protocols: readonly Protocol[], what: string): Promise<number> {
    const { store, nodePortRange: range, random } = this.#options;
    const isTaken = (protocol: Protocol, port: number) =>
      this.keys.has(nodePortKey(protocol, port));
    const choice = await chooseNodePort(store, range, { protocols, isTaken }, random);
    if (choice.kind === 'exhausted')
      throw internalError(
        `failed to allocate a ${what}: the range ${formatPortRange(range)} is full. Delete services that are not needed, or start the server with a larger --service-node-port-range`,
      );
    for (const protocol of protocols) this.keys.add(nodePortKey(protocol, choice.port));
    return choice.port;
  }

  async #isFree(key: string): Promise<boolean> {
    const { store, had } = this.#options;
    return had.has(key) || (await store.get(key)) === undefined;
  }
}

function release(keys: readonly string[]): WriteOp[] {
  return keys.map((key) => ({ type: 'delete', key }));
}
