/** EndpointSlice: a part of the endpoints of a service. `k8s.io/api/discovery/v1`. */

import { parseIp } from '#lib/ip.ts';
import type { ObjectReference } from '../../core/v1/object-reference.ts';
import { PROTOCOLS, type Protocol } from '../../core/v1/protocol.ts';
import type { FieldError, KindDefinition } from '../../kind.ts';
import { checkUsableEndpointAddress } from '../../machinery/addresses.ts';
import { AGE_COLUMN, column, NAME_COLUMN } from '../../machinery/columns.ts';
import {
  duplicate,
  immutable,
  invalid,
  notSupported,
  required,
} from '../../machinery/field-errors.ts';
import {
  checkDns1123Label,
  checkDns1123Subdomain,
  checkFullyQualifiedDomainName,
  checkLabelValue,
  checkPortNumber,
  checkQualifiedName,
} from '../../machinery/names.ts';
import {
  boolean,
  int32,
  kindSchema,
  list,
  OBJECT_REFERENCE_SCHEMA,
  object,
  oneOf,
  string,
  stringMap,
  strings,
} from '../../machinery/schema.ts';
import { validateLabels, validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';

/** Names the service a slice belongs to. */
export const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';
/** Names the controller a slice belongs to. */
export const MANAGED_BY_LABEL = 'endpointslice.kubernetes.io/managed-by';

/** A missing condition: ready and serving mean true, terminating means false. */
export interface EndpointConditions {
  ready?: boolean;
  serving?: boolean;
  terminating?: boolean;
}

export interface Endpoint {
  /** At least one; what uses endpoints reads only the first. */
  addresses: string[];
  conditions?: EndpointConditions;
  hostname?: string;
  targetRef?: ObjectReference;
  deprecatedTopology?: Record<string, string>;
  nodeName?: string;
  zone?: string;
  hints?: { forZones?: { name: string }[]; forNodes?: { name: string }[] };
}

export interface EndpointPort {
  /** Empty or missing: the service's only port. */
  name?: string;
  protocol?: Protocol;
  /** Missing: all ports. */
  port?: number;
  appProtocol?: string;
}

export interface EndpointSlice extends KubeObject {
  apiVersion: 'discovery.k8s.io/v1';
  kind: 'EndpointSlice';
  addressType: 'IPv4' | 'IPv6' | 'FQDN';
  /** `null` comes from servers written in Go for a slice without endpoints. */
  endpoints?: Endpoint[] | null;
  /** `null` or empty: the slice has no ports. */
  ports?: EndpointPort[] | null;
}

const ADDRESS_TYPES = ['FQDN', 'IPv4', 'IPv6'];
/** As upstream: a slice is read as a whole by every node. */
export const MAX_ENDPOINTS = 1000;
export const MAX_PORTS = 20000;
const MAX_ADDRESSES_OF_ENDPOINT = 100;
const MAX_TOPOLOGY_LABELS = 16;
const MAX_HINTS = 8;
/** What a cell lists before `+ n more...`. */
const MAX_SHOWN = 3;

const SCHEMA = kindSchema(
  'EndpointSlice',
  'A part of the endpoints of a service, all of one address family and with the same ports.',
  {
    addressType: oneOf(ADDRESS_TYPES, 'What the addresses are. Cannot be changed.'),
    endpoints: list(
      object(
        'Endpoint',
        {
          addresses: strings('Addresses of the endpoint; only the first is used.'),
          conditions: object('EndpointConditions', {
            ready: boolean('May get new connections. Missing means true.'),
            serving: boolean('Answers, be it while ending. Missing means true.'),
            terminating: boolean('Is ending. Missing means false.'),
          }),
          hostname: string('A name under the service.'),
          targetRef: OBJECT_REFERENCE_SCHEMA,
          deprecatedTopology: stringMap('Kept for old objects.'),
          nodeName: string('The node of the endpoint.'),
          zone: string('The zone of the endpoint.'),
          hints: object('EndpointHints', {
            forZones: list(
              object('ForZone', { name: string('A zone.') }, { required: ['name'] }),
              'Zones whose traffic it should take.',
            ),
            forNodes: list(
              object('ForNode', { name: string('A node.') }, { required: ['name'] }),
              'Nodes whose traffic it should take.',
            ),
          }),
        },
        { required: ['addresses'] },
      ),
      'The endpoints, at most 1000.',
    ),
    ports: list(
      object('EndpointPort', {
        name: string('The name of the service port.'),
        protocol: oneOf(PROTOCOLS, 'Default TCP.'),
        port: int32('The port; missing means all.'),
        appProtocol: string('What is spoken over it.'),
      }),
      'Ports of all the endpoints.',
    ),
  },
  ['addressType'],
);

function setDefaults(slice: EndpointSlice): EndpointSlice {
  if (!slice.ports) return slice;
  const ports = slice.ports.map((port) => ({
    ...port,
    name: port.name ?? '',
    protocol: port.protocol ?? 'TCP',
  }));
  return { ...slice, ports };
}

function validateSlice(slice: EndpointSlice, old: EndpointSlice | undefined): FieldError[] {
  const errors = validateMeta(slice.metadata, { namespaced: true });
  if (!slice.addressType) errors.push(required('addressType'));
  else if (!ADDRESS_TYPES.includes(slice.addressType))
    errors.push(notSupported('addressType', slice.addressType, ADDRESS_TYPES));
  else if (old !== undefined && old.addressType !== slice.addressType)
    errors.push(immutable('addressType', slice.addressType));
  const endpoints = slice.endpoints ?? [];
  if (endpoints.length > MAX_ENDPOINTS)
    return [...errors, tooMany('endpoints', endpoints, MAX_ENDPOINTS)];
  endpoints.forEach((endpoint, i) => {
    errors.push(...validateEndpoint(endpoint, `endpoints[${i}]`, slice.addressType));
  });
  return [...errors, ...validatePorts(slice.ports ?? [])];
}

function validateEndpoint(
  endpoint: Endpoint,
  field: string,
  addressType: EndpointSlice['addressType'],
): FieldError[] {
  const errors: FieldError[] = [];
  const addresses = endpoint.addresses ?? [];
  if (addresses.length === 0)
    errors.push(required(`${field}.addresses`, 'must contain at least 1 address'));
  if (addresses.length > MAX_ADDRESSES_OF_ENDPOINT)
    errors.push(tooMany(`${field}.addresses`, addresses, MAX_ADDRESSES_OF_ENDPOINT));
  addresses.forEach((address, i) => {
    const wrong = checkAddress(address, addressType);
    if (wrong !== undefined) errors.push(invalid(`${field}.addresses[${i}]`, address, wrong));
  });
  const wrongName = endpoint.hostname ? checkDns1123Label(endpoint.hostname) : undefined;
  if (wrongName !== undefined)
    errors.push(invalid(`${field}.hostname`, endpoint.hostname, wrongName));
  const wrongNode = endpoint.nodeName ? checkDns1123Subdomain(endpoint.nodeName) : undefined;
  if (wrongNode !== undefined)
    errors.push(invalid(`${field}.nodeName`, endpoint.nodeName, wrongNode));
  const { deprecatedTopology: topology, hints } = endpoint;
  if (topology !== undefined) {
    const at = `${field}.deprecatedTopology`;
    if (Object.keys(topology).length > MAX_TOPOLOGY_LABELS)
      errors.push(tooMany(at, Object.keys(topology), MAX_TOPOLOGY_LABELS));
    errors.push(...validateLabels(topology, at));
  }
  if (hints?.forZones !== undefined)
    errors.push(...validateHints(hints.forZones, `${field}.hints.forZones`, checkLabelValue));
  if (hints?.forNodes !== undefined)
    errors.push(...validateHints(hints.forNodes, `${field}.hints.forNodes`, checkDns1123Subdomain));
  return errors;
}

function validateHints(
  hints: readonly { name: string }[],
  field: string,
  check: (name: string) => string | undefined,
): FieldError[] {
  if (hints.length > MAX_HINTS) return [tooMany(field, hints, MAX_HINTS)];
  return hints.flatMap(({ name = '' }, i) => {
    const at = `${field}[${i}].name`;
    const wrong = check(name);
    if (wrong !== undefined) return [invalid(at, name, wrong)];
    return hints.findIndex((other) => other.name === name) < i ? [duplicate(at, name)] : [];
  });
}

function checkAddress(address: string, type: EndpointSlice['addressType']): string | undefined {
  if (type === 'FQDN') return checkFullyQualifiedDomainName(address);
  const wrong = checkUsableEndpointAddress(address);
  if (wrong !== undefined) return wrong;
  const isIpv6 = address.includes(':');
  if (isIpv6 !== (type === 'IPv6')) return `must be an ${type} address`;
  return isIpv6 && parseIp(address) !== address
    ? `must be in canonical form ("${parseIp(address)}")`
    : undefined;
}

function validatePorts(ports: readonly EndpointPort[]): FieldError[] {
  if (ports.length > MAX_PORTS) return [tooMany('ports', ports, MAX_PORTS)];
  const errors: FieldError[] = [];
  const names = new Set<string>();
  ports.forEach((port, i) => {
    const field = `ports[${i}]`;
    const name = port.name ?? '';
    const wrongName = name === '' ? undefined : checkDns1123Label(name);
    if (wrongName !== undefined) errors.push(invalid(`${field}.name`, name, wrongName));
    if (names.has(name)) errors.push(duplicate(`${field}.name`, name));
    names.add(name);
    if (port.protocol !== undefined && !PROTOCOLS.includes(port.protocol))
      errors.push(notSupported(`${field}.protocol`, port.protocol, PROTOCOLS));
    const wrongPort = port.port === undefined ? undefined : checkPortNumber(port.port);
    if (wrongPort !== undefined) errors.push(invalid(`${field}.port`, port.port, wrongPort));
    const wrongProtocol = port.appProtocol ? checkQualifiedName(port.appProtocol) : undefined;
    if (wrongProtocol !== undefined)
      errors.push(invalid(`${field}.appProtocol`, port.appProtocol, wrongProtocol));
  });
  return errors;
}

function tooMany(field: string, list: readonly unknown[], max: number): FieldError {
  return { type: 'TooMany', field, detail: `${list.length}: must have at most ${max} items` };
}

/** @returns `<unset>` for none */
function formatShown(words: readonly string[]): string {
  const shown = words.slice(0, MAX_SHOWN).join(',');
  if (words.length > MAX_SHOWN) return `${shown} + ${words.length - MAX_SHOWN} more...`;
  return shown || '<unset>';
}

export const ENDPOINT_SLICE: KindDefinition<EndpointSlice> = {
  group: 'discovery.k8s.io',
  version: 'v1',
  kind: 'EndpointSlice',
  resource: 'endpointslices',
  singular: 'endpointslice',
  namespaced: true,
  shortNames: [],
  categories: [],
  subresources: [],
  schema: SCHEMA,
  setDefaults,
  validate: validateSlice,
  columns: [
    NAME_COLUMN,
    column('AddressType', 'What the addresses are.', (slice) => slice.addressType),
    column('Ports', 'Ports of the endpoints.', (slice) =>
      formatShown((slice.ports ?? []).map(({ port, name }) => String(port ?? (name || '*')))),
    ),
    column('Endpoints', 'Addresses of the endpoints.', (slice) =>
      formatShown((slice.endpoints ?? []).flatMap(({ addresses }) => addresses)),
    ),
    AGE_COLUMN,
  ],
  selectableFields: {},
};
