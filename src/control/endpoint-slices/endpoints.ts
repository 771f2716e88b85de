/** Pure: what a pod contributes to a service's slices. `k8s.io/endpointslice/utils.go` upstream decides the same. */
import type { Pod } from '#api/core/v1/pod.ts';
import type { IpFamilyName, Service, ServicePort } from '#api/core/v1/service.ts';
import type { Endpoint, EndpointPort } from '#api/discovery/v1/endpoint-slice.ts';
import { familyOf, parseIp } from '#lib/ip.ts';

/** Whether the service selects the pod by its labels. An empty selector selects nothing. */
export function selectsPod(service: Service, pod: Pod): boolean {
  const wanted = Object.entries(service.spec.selector ?? {});
  const labels = pod.metadata.labels ?? {};
  return (
    wanted.length > 0 &&
    pod.metadata.namespace === service.metadata.namespace &&
    wanted.every(([key, value]) => labels[key] === value)
  );
}

/** Whether slices are ours to write: the service has a selector, and addresses at all. */
export function hasManagedSlices(service: Service): boolean {
  const { selector, type } = service.spec;
  return type !== 'ExternalName' && Object.keys(selector ?? {}).length > 0;
}

/** A slice holds addresses of one family; a service of two has slices for each. */
export function addressTypesOf(service: Service): readonly IpFamilyName[] {
  const { ipFamilies = [], clusterIP, clusterIPs = [] } = service.spec;
  if (ipFamilies.length > 0) return ipFamilies;
  // Written before families existed: they follow from the addresses.
  const addresses = clusterIPs.length > 0 ? clusterIPs : clusterIP ? [clusterIP] : [];
  const families = addresses.flatMap((text) => {
    const address = parseIp(text);
    return address === undefined ? [] : [familyNameOf(address)];
  });
  return families.length > 0 ? [...new Set(families)] : ['IPv4'];
}

function familyNameOf(address: NonNullable<ReturnType<typeof parseIp>>): IpFamilyName {
  return familyOf(address) === 4 ? 'IPv4' : 'IPv6';
}

/**
 * The pod as an endpoint.
 * @returns `undefined` if it has no address of the family, or has ended for good
 */
export function endpointOf(
  pod: Pod,
  service: Service,
  addressType: IpFamilyName,
  zone: string | undefined,
): Endpoint | undefined {
  const { phase } = pod.status ?? {};
  if (phase === 'Succeeded' || phase === 'Failed') return undefined;
  const addresses = addressesOf(pod, addressType);
  if (addresses.length === 0) return undefined;
  const serving = isReady(pod);
  const terminating = pod.metadata.deletionTimestamp !== undefined;
  // Who publishes what is not ready wants to see it until it is gone.
  const ready = service.spec.publishNotReadyAddresses === true || (serving && !terminating);
  const { name, namespace, uid } = pod.metadata;
  const { nodeName, hostname, subdomain } = pod.spec;
  const hasHostname = hostname !== undefined && hostname !== '';
  return {
    addresses,
    conditions: { ready, serving, terminating },
    ...(hasHostname && subdomain === service.metadata.name ? { hostname } : {}),
    targetRef: {
      kind: 'Pod',
      ...(namespace === undefined ? {} : { namespace }),
      name,
      ...(uid === undefined ? {} : { uid }),
    },
    ...(nodeName === undefined || nodeName === '' ? {} : { nodeName }),
    ...(zone === undefined || zone === '' ? {} : { zone }),
    ...hintsOf(service, { ready, nodeName, zone }),
  };
}

/**
 * Whose traffic the endpoint should take: that of its own zone or node. Nodes keep to the hints only while every ready
 * endpoint has them and one is for them, so nothing has to be balanced here. Upstream: KEP-3015, KEP-4444.
 */
function hintsOf(
  service: Service,
  at: { ready: boolean; nodeName: string | undefined; zone: string | undefined },
): Pick<Endpoint, 'hints'> {
  const wish = service.spec.trafficDistribution;
  if (wish === undefined || !at.ready) return {};
  const forZones = at.zone ? { forZones: [{ name: at.zone }] } : {};
  const forNodes =
    wish === 'PreferSameNode' && at.nodeName ? { forNodes: [{ name: at.nodeName }] } : {};
  const hints = { ...forZones, ...forNodes };
  return Object.keys(hints).length === 0 ? {} : { hints };
}

function isReady(pod: Pod): boolean {
  return pod.status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True';
}

function addressesOf(pod: Pod, addressType: IpFamilyName): string[] {
  const { podIP, podIPs = [] } = pod.status ?? {};
  const texts = podIPs.length > 0 ? podIPs.map(({ ip }) => ip) : podIP ? [podIP] : [];
  return texts.flatMap((text) => {
    const address = parseIp(text);
    return address !== undefined && familyNameOf(address) === addressType ? [address] : [];
  });
}

/**
 * The service's ports as this pod has them: a port that names a container's port has another number in another pod.
 * A port whose name the pod does not know is left out.
 */
export function portsOf(service: Service, pod: Pod): EndpointPort[] {
  const ports: EndpointPort[] = [];
  for (const port of service.spec.ports ?? []) {
    const number = targetPortOf(port, pod);
    if (number === undefined) continue;
    ports.push({
      // Servers keep an empty name; it is the one port of a service that has only one.
      name: port.name ?? '',
      protocol: port.protocol ?? 'TCP',
      port: number,
      ...(port.appProtocol === undefined ? {} : { appProtocol: port.appProtocol }),
    });
  }
  return ports;
}

function targetPortOf(port: ServicePort, pod: Pod): number | undefined {
  const { targetPort = port.port, protocol = 'TCP' } = port;
  if (typeof targetPort === 'number') return targetPort === 0 ? port.port : targetPort;
  if (/^\d+$/.test(targetPort)) return Number(targetPort);
  // An init container that restarts always is a sidecar: it runs beside the others.
  const sidecars = (pod.spec.initContainers ?? []).filter((c) => c.restartPolicy === 'Always');
  for (const container of [...pod.spec.containers, ...sidecars]) {
    const found = container.ports?.find(
      (p) => p.name === targetPort && (p.protocol ?? 'TCP') === protocol,
    );
    if (found !== undefined) return found.containerPort;
  }
  return undefined;
}

/** Equal for equal sets of ports, whatever their order: endpoints with the same key share slices. */
export function portsKey(ports: readonly EndpointPort[]): string {
  return ports
    .map(({ name = '', protocol = 'TCP', port, appProtocol }) =>
      JSON.stringify([name, protocol, port, appProtocol]),
    )
    .sort()
    .join();
}
