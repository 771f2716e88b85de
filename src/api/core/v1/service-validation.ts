/**
 * What a service may say. Follows `ValidateService` and `ValidateServiceUpdate` of
 * `k8s.io/kubernetes/pkg/apis/core/validation`, with its wording, because people and tools know it.
 */
import { parseIp, splitCidr } from '#lib/ip.ts';
import type { FieldError } from '../../kind.ts';
import { checkUsableEndpointAddress, NOT_A_CIDR } from '../../machinery/addresses.ts';
import {
  duplicate,
  forbidden,
  invalid,
  notSupported,
  required,
} from '../../machinery/field-errors.ts';
import { sameJson } from '../../machinery/json.ts';
import {
  checkDns1035Label,
  checkDns1123Label,
  checkDns1123Subdomain,
  checkPortNumber,
  checkPortNumberOrName,
  checkQualifiedName,
} from '../../machinery/names.ts';
import { validateLabels, validateMeta } from '../../machinery/validate-meta.ts';
import { validateIngressPoint } from '../../networking/v1/ingress-point.ts';
import { PROTOCOLS } from './protocol.ts';
import type { IpFamilyName, Service, ServicePort, ServiceSpec } from './service.ts';

const SERVICE_TYPES = ['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort'];
const AFFINITIES = ['ClientIP', 'None'];
const TRAFFIC_POLICIES = ['Cluster', 'Local'];
const IP_MODES = ['Proxy', 'VIP'];
const FAMILIES: readonly string[] = ['IPv4', 'IPv6'];
const FAMILY_POLICIES = ['SingleStack', 'PreferDualStack', 'RequireDualStack'];
const DISTRIBUTIONS = ['PreferClose', 'PreferSameZone', 'PreferSameNode'];
/** A day: `ClientIP` affinity is meant for sessions. As upstream. */
export const MAX_AFFINITY_SECONDS = 86400;
/** One address of each family. */
const MAX_CLUSTER_IPS = 2;

export function isHeadless(spec: ServiceSpec): boolean {
  return spec.clusterIP === 'None' || spec.clusterIPs?.[0] === 'None';
}

export function validateService(service: Service, old: Service | undefined): FieldError[] {
  const { spec } = service;
  if (spec === undefined) return [required('spec')];
  const errors = [
    ...validateMeta(service.metadata, { namespaced: true, checkName: checkDns1035Label }),
    ...validateType(spec),
    ...validatePorts(spec),
    ...validateLabels(spec.selector, 'spec.selector'),
    ...validateAffinity(spec),
    ...validateClusterIps(spec),
    ...validateExternalAddresses(spec),
    ...validateTrafficPolicies(spec),
    ...validateLoadBalancerFields(spec),
  ];
  if (old !== undefined) errors.push(...validateChange(spec, old.spec));
  if (!sameJson(service.status, old?.status)) errors.push(...validateStatus(service));
  return [...errors, ...validateRangesAnnotation(service)];
}

function validateStatus({ spec, status }: Service): FieldError[] {
  const points = status?.loadBalancer?.ingress ?? [];
  const list = 'status.loadBalancer.ingress';
  if (points.length > 0 && spec.type !== 'LoadBalancer')
    return [forbidden(list, "may only be used when `spec.type` is 'LoadBalancer'")];
  return points.flatMap((point, i) => {
    const { ip, ipMode } = point;
    const field = `${list}[${i}]`;
    const errors = validateIngressPoint(point, field);
    if (ipMode !== undefined && !ip)
      errors.push(forbidden(`${field}.ipMode`, 'may not be specified when `ip` is not set'));
    else if (ipMode !== undefined && !IP_MODES.includes(ipMode))
      errors.push(notSupported(`${field}.ipMode`, ipMode, IP_MODES));
    return errors;
  });
}

/** The older way to say `loadBalancerSourceRanges`; it counts where the field says nothing. */
const RANGES_ANNOTATION = 'service.beta.kubernetes.io/load-balancer-source-ranges';

function validateRangesAnnotation({ metadata, spec }: Service): FieldError[] {
  const text = metadata.annotations?.[RANGES_ANNOTATION];
  if (text === undefined || spec.loadBalancerSourceRanges?.length) return [];
  const field = `metadata.annotations[${RANGES_ANNOTATION}]`;
  const ranges = text.trim() === '' ? [] : text.split(',').map((range) => range.trim());
  return [
    ...(spec.type === 'LoadBalancer'
      ? []
      : [forbidden(field, "may only be used when `type` is 'LoadBalancer'")]),
    ...ranges.flatMap((range) =>
      splitCidr(range) === undefined ? [invalid(field, range, NOT_A_CIDR)] : [],
    ),
  ];
}

function validateType(spec: ServiceSpec): FieldError[] {
  const type = spec.type ?? '';
  if (type === '') return [required('spec.type')];
  if (!SERVICE_TYPES.includes(type)) return [notSupported('spec.type', type, SERVICE_TYPES)];
  if ((type === 'LoadBalancer' || type === 'NodePort') && isHeadless(spec))
    return [invalid('spec.clusterIPs[0]', 'None', `may not be set to 'None' for ${type} services`)];
  if (type !== 'ExternalName') return [];
  const errors: FieldError[] = [];
  if ((spec.clusterIP ?? '') !== '' || (spec.clusterIPs ?? []).length > 0)
    errors.push(forbidden('spec.clusterIPs', 'may not be set for ExternalName services'));
  // A trailing dot is allowed: it is the same name.
  const name = (spec.externalName ?? '').replace(/\.$/, '');
  if (name === '') errors.push(required('spec.externalName'));
  else {
    const wrong = checkDns1123Subdomain(name);
    if (wrong !== undefined) errors.push(invalid('spec.externalName', spec.externalName, wrong));
  }
  return errors;
}

function validatePorts(spec: ServiceSpec): FieldError[] {
  const ports = spec.ports ?? [];
  if (ports.length === 0)
    return isHeadless(spec) || spec.type === 'ExternalName' ? [] : [required('spec.ports')];
  const names = new Set<string>();
  const numbers = new Set<string>();
  const nodePorts = new Set<string>();
  return ports.flatMap((port, i) => {
    const field = `spec.ports[${i}]`;
    const protocol = port.protocol ?? '';
    const errors = [
      ...validatePortName(port, { field, isOnly: ports.length === 1, names }),
      ...validatePort(port, field),
    ];
    const number = `${protocol}/${port.port}`;
    if (numbers.has(number)) errors.push(duplicate(field, { protocol, port: port.port }));
    numbers.add(number);
    return [...errors, ...validateNodePort(port, { field, spec, nodePorts })];
  });
}

function validatePortName(
  port: ServicePort,
  context: { field: string; isOnly: boolean; names: Set<string> },
): FieldError[] {
  const field = `${context.field}.name`;
  const name = port.name ?? '';
  if (name === '') return context.isOnly ? [] : [required(field)];
  const wrong = checkDns1123Label(name);
  if (wrong !== undefined) return [invalid(field, name, wrong)];
  if (context.names.has(name)) return [duplicate(field, name)];
  context.names.add(name);
  return [];
}

function validatePort(port: ServicePort, field: string): FieldError[] {
  const errors: FieldError[] = [];
  const wrongPort = checkPortNumber(port.port);
  if (wrongPort !== undefined) errors.push(invalid(`${field}.port`, port.port, wrongPort));
  if (!port.protocol) errors.push(required(`${field}.protocol`));
  else if (!PROTOCOLS.includes(port.protocol))
    errors.push(notSupported(`${field}.protocol`, port.protocol, PROTOCOLS));
  const target = port.targetPort;
  if (target !== undefined) {
    const wrong = checkPortNumberOrName(target);
    if (wrong !== undefined) errors.push(invalid(`${field}.targetPort`, target, wrong));
  }
  const wrongProtocol = port.appProtocol ? checkQualifiedName(port.appProtocol) : undefined;
  if (wrongProtocol !== undefined)
    errors.push(invalid(`${field}.appProtocol`, port.appProtocol, wrongProtocol));
  return errors;
}

function validateNodePort(
  port: ServicePort,
  context: { field: string; spec: ServiceSpec; nodePorts: Set<string> },
): FieldError[] {
  const field = `${context.field}.nodePort`;
  const nodePort = port.nodePort ?? 0;
  if (nodePort === 0) return [];
  const { type } = context.spec;
  if (type !== 'NodePort' && type !== 'LoadBalancer')
    return [forbidden(field, `may not be used when \`type\` is '${type}'`)];
  const wrong = checkPortNumber(nodePort);
  if (wrong !== undefined) return [invalid(field, nodePort, wrong)];
  const key = `${port.protocol}/${nodePort}`;
  if (context.nodePorts.has(key)) return [duplicate(field, nodePort)];
  context.nodePorts.add(key);
  return [];
}

function validateAffinity(spec: ServiceSpec): FieldError[] {
  const affinity = spec.sessionAffinity ?? '';
  const field = 'spec.sessionAffinityConfig';
  if (affinity === '') return [required('spec.sessionAffinity')];
  if (!AFFINITIES.includes(affinity))
    return [notSupported('spec.sessionAffinity', affinity, AFFINITIES)];
  if (affinity === 'None')
    return spec.sessionAffinityConfig === undefined
      ? []
      : [forbidden(field, "must not be set when session affinity is 'None'")];
  const timeout = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds;
  if (timeout === undefined)
    return [
      required(`${field}.clientIP.timeoutSeconds`, 'must be set when session affinity is ClientIP'),
    ];
  return timeout > 0 && timeout <= MAX_AFFINITY_SECONDS
    ? []
    : [
        invalid(
          `${field}.clientIP.timeoutSeconds`,
          timeout,
          `must be greater than 0 and less than or equal to ${MAX_AFFINITY_SECONDS}`,
        ),
      ];
}

function validateClusterIps(spec: ServiceSpec): FieldError[] {
  const errors = validateFamilies(spec);
  const ips = spec.clusterIPs ?? [];
  const primary = spec.clusterIP ?? '';
  if (ips.length > 0 && primary !== ips[0])
    errors.push(invalid('spec.clusterIPs', ips, 'first value must match `clusterIP`'));
  if (ips.length === 0 && primary !== '' && primary !== 'None' && parseIp(primary) === undefined)
    errors.push(invalid('spec.clusterIP', primary, `must be empty, 'None', or a valid IP address`));
  if (ips.length > MAX_CLUSTER_IPS)
    errors.push(invalid('spec.clusterIPs', ips, 'may only hold up to 2 values'));
  ips.forEach((ip, i) => {
    const field = `spec.clusterIPs[${i}]`;
    if (ip === 'None') {
      if (ips.length > 1)
        errors.push(invalid('spec.clusterIPs', ips, "'None' must be the first and only value"));
    } else if (parseIp(ip) === undefined)
      errors.push(invalid(field, ip, `must be empty, 'None', or a valid IP address`));
    else {
      const family = spec.ipFamilies?.[i];
      if (family !== undefined && family !== familyName(ip))
        errors.push(
          invalid(field, ip, `expected an ${family} value as indicated by \`ipFamilies[${i}]\``),
        );
      if (ips.some((other, j) => j < i && other !== 'None' && familyName(other) === familyName(ip)))
        errors.push(
          invalid('spec.clusterIPs', ips, 'may specify no more than one IP for each IP family'),
        );
    }
  });
  return errors;
}

function validateFamilies(spec: ServiceSpec): FieldError[] {
  if (spec.type === 'ExternalName')
    return [
      ...((spec.ipFamilies ?? []).length > 0
        ? [forbidden('spec.ipFamilies', 'may not be set for ExternalName services')]
        : []),
      ...(spec.ipFamilyPolicy === undefined
        ? []
        : [forbidden('spec.ipFamilyPolicy', 'may not be set for ExternalName services')]),
    ];
  const errors: FieldError[] = [];
  const seen = new Set<string>();
  spec.ipFamilies?.forEach((family, i) => {
    if (!FAMILIES.includes(family))
      errors.push(notSupported(`spec.ipFamilies[${i}]`, family, FAMILIES));
    else if (seen.has(family)) errors.push(duplicate(`spec.ipFamilies[${i}]`, family));
    seen.add(family);
  });
  if (spec.ipFamilyPolicy !== undefined && !FAMILY_POLICIES.includes(spec.ipFamilyPolicy))
    errors.push(notSupported('spec.ipFamilyPolicy', spec.ipFamilyPolicy, FAMILY_POLICIES));
  return errors;
}

function validateExternalAddresses(spec: ServiceSpec): FieldError[] {
  const errors: FieldError[] = [];
  spec.externalIPs?.forEach((ip, i) => {
    const wrong = checkUsableEndpointAddress(ip);
    if (wrong !== undefined) errors.push(invalid(`spec.externalIPs[${i}]`, ip, wrong));
  });
  const ranges = spec.loadBalancerSourceRanges ?? [];
  if (ranges.length > 0 && spec.type !== 'LoadBalancer')
    errors.push(
      forbidden('spec.loadBalancerSourceRanges', "may only be used when `type` is 'LoadBalancer'"),
    );
  ranges.forEach((range, i) => {
    if (splitCidr(range.trim()) === undefined)
      errors.push(invalid(`spec.loadBalancerSourceRanges[${i}]`, range, NOT_A_CIDR));
  });
  return errors;
}

function validateTrafficPolicies(spec: ServiceSpec): FieldError[] {
  const errors: FieldError[] = [];
  const external = spec.externalTrafficPolicy;
  if (external !== undefined) {
    if (!TRAFFIC_POLICIES.includes(external))
      errors.push(notSupported('spec.externalTrafficPolicy', external, TRAFFIC_POLICIES));
    else if (!isReachedFromOutside(spec))
      errors.push(
        invalid(
          'spec.externalTrafficPolicy',
          external,
          'may only be set for externally-accessible services',
        ),
      );
  }
  const internal = spec.internalTrafficPolicy;
  if (internal !== undefined && !TRAFFIC_POLICIES.includes(internal))
    errors.push(notSupported('spec.internalTrafficPolicy', internal, TRAFFIC_POLICIES));
  if (spec.trafficDistribution !== undefined && !DISTRIBUTIONS.includes(spec.trafficDistribution))
    errors.push(notSupported('spec.trafficDistribution', spec.trafficDistribution, DISTRIBUTIONS));
  const healthPort = spec.healthCheckNodePort ?? 0;
  if (healthPort !== 0) {
    const wrong = checkPortNumber(healthPort);
    if (wrong !== undefined) errors.push(invalid('spec.healthCheckNodePort', healthPort, wrong));
    else if (spec.type !== 'LoadBalancer' || external !== 'Local')
      errors.push(
        invalid(
          'spec.healthCheckNodePort',
          healthPort,
          "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
      );
  }
  return errors;
}

function validateLoadBalancerFields(spec: ServiceSpec): FieldError[] {
  const errors: FieldError[] = [];
  const isBalancer = spec.type === 'LoadBalancer';
  const onlyForBalancers = "may only be used when `type` is 'LoadBalancer'";
  if (spec.allocateLoadBalancerNodePorts !== undefined && !isBalancer)
    errors.push(forbidden('spec.allocateLoadBalancerNodePorts', onlyForBalancers));
  if (spec.loadBalancerClass !== undefined) {
    const wrong = checkQualifiedName(spec.loadBalancerClass);
    if (!isBalancer) errors.push(forbidden('spec.loadBalancerClass', onlyForBalancers));
    else if (wrong !== undefined)
      errors.push(invalid('spec.loadBalancerClass', spec.loadBalancerClass, wrong));
  }
  return errors;
}

/** What an update may not change. A service that was or becomes an ExternalName has no addresses to keep. */
function validateChange(spec: ServiceSpec, old: ServiceSpec): FieldError[] {
  const errors: FieldError[] = [];
  const keepsAddresses = spec.type !== 'ExternalName' && old.type !== 'ExternalName';
  const oldIp = old.clusterIPs?.[0] ?? old.clusterIP ?? '';
  const ip = spec.clusterIPs?.[0] ?? spec.clusterIP ?? '';
  if (keepsAddresses && oldIp !== '' && ip !== oldIp)
    errors.push(invalid('spec.clusterIPs[0]', spec.clusterIPs ?? ip, 'may not change once set'));
  // The second one may be given up, and asked for again; not be another one.
  for (const list of ['clusterIPs', 'ipFamilies'] as const) {
    const [was, now] = [old[list]?.[1], spec[list]?.[1]];
    if (keepsAddresses && was !== undefined && now !== undefined && now !== was)
      errors.push(invalid(`spec.${list}[1]`, spec[list], 'may not change once set'));
  }
  const oldFamily = old.ipFamilies?.[0];
  if (keepsAddresses && oldFamily !== undefined && spec.ipFamilies?.[0] !== oldFamily)
    errors.push(invalid('spec.ipFamilies[0]', spec.ipFamilies, 'may not change once set'));
  const stayBalancer = spec.type === 'LoadBalancer' && old.type === 'LoadBalancer';
  if (stayBalancer && spec.loadBalancerClass !== old.loadBalancerClass)
    errors.push(
      invalid('spec.loadBalancerClass', spec.loadBalancerClass, 'may not change once set'),
    );
  const hadHealthPort = stayBalancer && old.externalTrafficPolicy === 'Local';
  if (
    hadHealthPort &&
    spec.externalTrafficPolicy === 'Local' &&
    (old.healthCheckNodePort ?? 0) !== 0 &&
    spec.healthCheckNodePort !== old.healthCheckNodePort
  )
    errors.push(forbidden('spec.healthCheckNodePort', 'field is immutable'));
  return errors;
}

/** Whether packets from outside the cluster can come to the service. */
export function isReachedFromOutside(spec: ServiceSpec): boolean {
  return (
    spec.type === 'NodePort' ||
    spec.type === 'LoadBalancer' ||
    (spec.type === 'ClusterIP' && (spec.externalIPs ?? []).length > 0)
  );
}

function familyName(ip: string): IpFamilyName {
  return ip.includes(':') ? 'IPv6' : 'IPv4';
}
