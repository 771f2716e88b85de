/** Endpoints: the older form of EndpointSlice, kept for clients that still read it. `k8s.io/api/core/v1`. */
import type { FieldError, KindDefinition } from '../../kind.ts';
import { checkUsableEndpointAddress } from '../../machinery/addresses.ts';
import { AGE_COLUMN, column, joinForCell, NAME_COLUMN } from '../../machinery/columns.ts';
import { invalid, notSupported, required } from '../../machinery/field-errors.ts';
import {
  checkDns1123Label,
  checkDns1123Subdomain,
  checkPortNumber,
  checkQualifiedName,
} from '../../machinery/names.ts';
import {
  int32,
  kindSchema,
  list,
  OBJECT_REFERENCE_SCHEMA,
  object,
  oneOf,
  string,
} from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';
import type { ObjectReference } from './object-reference.ts';
import { PROTOCOLS, type Protocol } from './protocol.ts';

export interface EndpointAddress {
  ip: string;
  hostname?: string;
  nodeName?: string;
  targetRef?: ObjectReference;
}

export interface EndpointSubset {
  addresses?: EndpointAddress[];
  notReadyAddresses?: EndpointAddress[];
  ports?: EndpointsPort[];
}

export interface EndpointsPort {
  name?: string;
  port: number;
  protocol?: Protocol;
  appProtocol?: string;
}

export interface Endpoints extends KubeObject {
  apiVersion: 'v1';
  kind: 'Endpoints';
  subsets?: EndpointSubset[];
}

const ADDRESS_SCHEMA = object(
  'EndpointAddress',
  {
    ip: string('The address.'),
    hostname: string('A name under the service.'),
    nodeName: string('The node of the endpoint.'),
    targetRef: OBJECT_REFERENCE_SCHEMA,
  },
  { required: ['ip'] },
);

const SCHEMA = kindSchema('Endpoints', 'The older form of EndpointSlice.', {
  subsets: list(
    object('EndpointSubset', {
      addresses: list(ADDRESS_SCHEMA, 'Addresses that are ready.'),
      notReadyAddresses: list(ADDRESS_SCHEMA, 'Addresses that are not ready.'),
      ports: list(
        object(
          'EndpointPort',
          {
            name: string('The name of the service port.'),
            port: int32('The port.'),
            protocol: oneOf(PROTOCOLS, 'Default TCP.'),
            appProtocol: string('What is spoken over it.'),
          },
          { required: ['port'] },
        ),
        'Ports of all the addresses.',
      ),
    }),
    'Addresses that have the same ports.',
  ),
});

function setDefaults(object: Endpoints): Endpoints {
  if (object.subsets === undefined) return object;
  const subsets = object.subsets.map((subset) =>
    subset.ports === undefined
      ? subset
      : {
          ...subset,
          ports: subset.ports.map((port) => ({ ...port, protocol: port.protocol ?? 'TCP' })),
        },
  );
  return { ...object, subsets };
}

function validateEndpoints(object: Endpoints): FieldError[] {
  const errors = validateMeta(object.metadata, { namespaced: true });
  object.subsets?.forEach((subset, i) => {
    const field = `subsets[${i}]`;
    if (!subset.addresses?.length && !subset.notReadyAddresses?.length)
      errors.push(required(field, 'must specify `addresses` or `notReadyAddresses`'));
    for (const list of ['addresses', 'notReadyAddresses'] as const)
      subset[list]?.forEach((address, j) => {
        errors.push(...validateAddress(address, `${field}.${list}[${j}]`));
      });
    const ports = subset.ports ?? [];
    ports.forEach((port, j) => {
      errors.push(...validatePort(port, `${field}.ports[${j}]`, ports.length > 1));
    });
  });
  return errors;
}

function validateAddress(address: EndpointAddress, field: string): FieldError[] {
  const errors: FieldError[] = [];
  const wrongIp = checkUsableEndpointAddress(address.ip ?? '');
  if (wrongIp !== undefined) errors.push(invalid(`${field}.ip`, address.ip, wrongIp));
  const wrongName = address.hostname ? checkDns1123Label(address.hostname) : undefined;
  if (wrongName !== undefined)
    errors.push(invalid(`${field}.hostname`, address.hostname, wrongName));
  const wrongNode = address.nodeName ? checkDns1123Subdomain(address.nodeName) : undefined;
  if (wrongNode !== undefined)
    errors.push(invalid(`${field}.nodeName`, address.nodeName, wrongNode));
  return errors;
}

function validatePort(port: EndpointsPort, field: string, needsName: boolean): FieldError[] {
  const errors: FieldError[] = [];
  const { name = '', protocol, appProtocol } = port;
  const wrongName = name === '' ? undefined : checkDns1123Label(name);
  if (name === '' && needsName) errors.push(required(`${field}.name`));
  else if (wrongName !== undefined) errors.push(invalid(`${field}.name`, name, wrongName));
  const wrongPort = checkPortNumber(port.port);
  if (wrongPort !== undefined) errors.push(invalid(`${field}.port`, port.port, wrongPort));
  if (protocol !== undefined && !PROTOCOLS.includes(protocol))
    errors.push(notSupported(`${field}.protocol`, protocol, PROTOCOLS));
  const wrongProtocol = appProtocol ? checkQualifiedName(appProtocol) : undefined;
  if (wrongProtocol !== undefined)
    errors.push(invalid(`${field}.appProtocol`, appProtocol, wrongProtocol));
  return errors;
}

function formatEndpoints(object: Endpoints): string {
  const pairs = (object.subsets ?? []).flatMap((subset) =>
    (subset.addresses ?? []).flatMap(({ ip }) => {
      const host = ip.includes(':') ? `[${ip}]` : ip;
      return subset.ports?.length ? subset.ports.map(({ port }) => `${host}:${port}`) : [ip];
    }),
  );
  return joinForCell(pairs);
}

export const ENDPOINTS: KindDefinition<Endpoints> = {
  group: '',
  version: 'v1',
  kind: 'Endpoints',
  resource: 'endpoints',
  singular: 'endpoints',
  namespaced: true,
  shortNames: ['ep'],
  categories: [],
  subresources: [],
  schema: SCHEMA,
  setDefaults,
  validate: validateEndpoints,
  columns: [
    NAME_COLUMN,
    column('Endpoints', 'Addresses that are ready.', formatEndpoints),
    AGE_COLUMN,
  ],
  selectableFields: {},
};
