/** A service as the end of a flow: policy never sees it, only the pod behind it and that pod's own port. */
import type { Service } from '#api/core/v1/service.ts';
import { matchLabels, selectorOfLabels } from '#api/machinery/label-selector.ts';
import { UserError } from '#lib/errors.ts';
import { endOfPod, parsePort } from '#policy/ends.ts';
import type { End } from '#policy/match.ts';
import type { World } from '#policy/model.ts';

export interface ServiceFlow {
  readonly to: End;
  /** As the pod behind the service has it; undefined: all ports. */
  readonly port: string | undefined;
}

/** `svc/web` is what people type who come from kubectl. */
const PREFIX = /^(svc|service)[:/]/;

/** Whether somebody means a service by it. A namespace may be called "svc"; a pod that is there is meant. */
export function isServiceName(text: string, world: World): boolean {
  return PREFIX.test(text) && !world.pods.has(text);
}

/**
 * @param text `svc:NAME`, `svc:NAMESPACE/NAME`, or an address
 * @returns the pods behind the service, or undefined if the text means none
 * @throws UserError for a service that does not exist or has no pods, or no such port
 */
export function throughService(
  text: string,
  port: string | undefined,
  { world, services }: { readonly world: World; readonly services: readonly Service[] },
): { readonly service: string; readonly flows: readonly ServiceFlow[] } | undefined {
  const service = isServiceName(text, world)
    ? named(text.replace(PREFIX, ''), services)
    : services.find(({ spec }) => spec.clusterIPs?.includes(text) || spec.clusterIP === text);
  if (service === undefined) return undefined;
  const { namespace = 'default', name } = service.metadata;
  const key = `${namespace}/${name}`;
  const { selector } = service.spec;
  const pods = [...world.pods.values()].filter(
    (pod) =>
      pod.namespace === namespace &&
      selector !== undefined &&
      Object.keys(selector).length > 0 &&
      matchLabels(selectorOfLabels(selector), pod.labels),
  );
  if (pods.length === 0)
    throw new UserError(`Service ${key} has no pods`, {
      hint:
        selector === undefined
          ? 'It has no selector: ask for one of its endpoints, a pod or an address.'
          : 'No pod has the labels of its selector.',
    });
  return {
    service: key,
    flows: pods.map((pod) => {
      const to = endOfPod(pod, world);
      return { to, port: port === undefined ? undefined : targetOf(service, port, to) };
    }),
  };
}

function named(text: string, services: readonly Service[]): Service {
  const [namespace, name] = text.includes('/') ? text.split('/') : ['default', text];
  const found = services.find(
    ({ metadata }) => (metadata.namespace ?? 'default') === namespace && metadata.name === name,
  );
  if (found !== undefined) return found;
  throw new UserError(`There is no service "${namespace}/${name}"`, {
    hint: 'Give svc:NAME or svc:NAMESPACE/NAME.',
  });
}

/** The port of the pod to which a port of the service leads, `8080/tcp`. */
function targetOf(service: Service, text: string, to: End): string {
  const ports = service.spec.ports ?? [];
  const [first = '', second = 'tcp'] = text.split('/');
  const found = ports.find(
    ({ name, port, protocol = 'TCP' }) =>
      (String(port) === first || name === first) &&
      (name === first || protocol === second.toUpperCase()),
  );
  if (found === undefined)
    throw new UserError(`Service ${service.metadata.name} has no port ${text}`, {
      hint: `It has ${ports.map(({ port, protocol = 'TCP' }) => `${port}/${protocol.toLowerCase()}`).join(', ') || 'none'}.`,
    });
  const { targetPort = found.port, protocol = 'TCP' } = found;
  const wanted = `${targetPort}/${protocol.toLowerCase()}`;
  if (typeof targetPort === 'number') return wanted;
  return `${parsePort(wanted, to).port}/${protocol.toLowerCase()}`;
}
