/** What a person types for an end of a flow → the ends that are meant. */
import { matchLabels, parseLabelSelector } from '#api/machinery/label-selector.ts';
import { UserError } from '#lib/errors.ts';
import { parseIp, splitCidr } from '#lib/ip.ts';
import type { End } from './match.ts';
import { MAX_PORT, type PolicyPod, PROTOCOL_NUMBERS, type World } from './model.ts';

export const END_SYNTAX =
  'a pod (NAME or NAMESPACE/NAME), ns:NAMESPACE, node:NAME, an address, a domain name, or labels (app=web, NAMESPACE/app=web)';

/**
 * @returns the ends; several for a namespace or labels
 * @throws UserError if there is no such thing
 */
export function parseEnds(text: string, world: World): End[] {
  if (parseIp(text) !== undefined) return [endAt(world, text)];
  if (splitCidr(text) !== undefined)
    throw new UserError(`"${text}" is a prefix`, { hint: 'Give one address of it.' });
  if (LIKE_ADDRESS.test(text))
    throw new UserError(`"${text}" is no IP address`, { hint: `Give ${END_SYNTAX}.` });
  if (text.startsWith('node:')) {
    const node = world.nodes.get(text.slice('node:'.length));
    if (node === undefined) throw unknown(text, 'node', [...world.nodes.keys()]);
    return [{ pod: undefined, node, ip: node.ips[0] }];
  }
  if (text.startsWith('ns:')) {
    const name = text.slice('ns:'.length);
    if (!world.namespaces.has(name)) throw unknown(text, 'namespace', [...world.namespaces.keys()]);
    return several(text, world, (pod) => pod.namespace === name);
  }
  const slash = text.indexOf('/');
  const equals = text.search(/[=!]|\sin\s/);
  if (equals >= 0) {
    // A slash before the first operator may belong to a label's key: `app.kubernetes.io/name=web`.
    const namespace = slash >= 0 && slash < equals ? text.slice(0, slash) : undefined;
    const isNamespace = namespace !== undefined && world.namespaces.has(namespace);
    const parsed = parseLabelSelector(isNamespace ? text.slice(slash + 1) : text);
    if (!parsed.ok)
      throw new UserError(`Cannot read the labels "${text}": ${parsed.message}`, {
        hint: 'Write them as for kubectl: app=web,tier!=db, or "app in (web,db)".',
      });
    return several(
      text,
      world,
      (pod) =>
        (!isNamespace || pod.namespace === namespace) && matchLabels(parsed.selector, pod.labels),
    );
  }
  const key = slash < 0 ? `default/${text}` : text.replace(/^pod\//, 'default/');
  const pod = world.pods.get(key);
  if (pod === undefined && DOMAIN_NAME.test(text))
    return [
      {
        ...{ pod: undefined, node: undefined, ip: undefined },
        domain: text.toLowerCase().replace(/\.$/, ''),
      },
    ];
  if (pod === undefined) throw unknown(text, 'pod', [...world.pods.keys()]);
  return [endOfPod(pod, world)];
}

/** Nothing but what addresses are made of: somebody meant one. */
const LIKE_ADDRESS = /^(\d+(\.\d+)+|[\da-f.]*:[\da-f:.]*)$/i;
/** Two labels or more; a single one is a pod that does not exist. */
const DOMAIN_NAME = /^[a-z0-9]([-a-z0-9_]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9_]*[a-z0-9])?)+\.?$/i;

export function endOfPod(pod: PolicyPod, world: World): End {
  return pod.hostNetwork
    ? { pod: undefined, node: world.nodes.get(pod.node ?? ''), ip: pod.ips[0] }
    : { pod, node: undefined, ip: pod.ips[0] };
}

/** Whose address it is. */
function endAt(world: World, text: string): End {
  const ip = parseIp(text);
  for (const pod of world.pods.values())
    if (ip !== undefined && !pod.hostNetwork && pod.ips.includes(ip))
      return { pod, node: undefined, ip };
  for (const node of world.nodes.values())
    if (ip !== undefined && node.ips.includes(ip)) return { pod: undefined, node, ip };
  return { pod: undefined, node: undefined, ip };
}

function several(text: string, world: World, isMeant: (pod: PolicyPod) => boolean): End[] {
  const pods = [...world.pods.values()].filter((pod) => !pod.hostNetwork && isMeant(pod));
  if (pods.length === 0)
    throw new UserError(`No pod is meant by "${text}"`, {
      hint: `Pods on their host's network are their node, and not counted. Give ${END_SYNTAX}.`,
    });
  return pods.map((pod) => endOfPod(pod, world));
}

const MAX_NAMES_SHOWN = 8;

function unknown(text: string, what: string, names: readonly string[]): UserError {
  // Those first that hold the name as it was given: most have only forgotten the namespace.
  const [name = text] = text.split(/[:/]/).slice(-1);
  const isLikely = (candidate: string) => name !== '' && candidate.includes(name);
  const likely = names.filter(isLikely);
  const some = [...likely, ...names.filter((it) => !isLikely(it))].slice(0, MAX_NAMES_SHOWN);
  return new UserError(`There is no ${what} "${text}"`, {
    hint:
      names.length === 0
        ? `There are no ${what}s.`
        : `There are ${some.join(', ')}${names.length > MAX_NAMES_SHOWN ? ', …' : ''}. Give ${END_SYNTAX}.`,
  });
}

/** Protocols that have no ports. */
const PORTLESS: Readonly<Record<string, number>> = { icmp: 1, icmpv6: 58 };
const MAX_PROTOCOL = 255;

/**
 * `80/tcp`, `53/UDP`, `80` (TCP), `web` (a port's name at the destination), `sctp` (all its ports), `icmp`, `protocol/47`.
 * @throws UserError
 */
export function parsePort(
  text: string,
  to: End,
): { readonly protocol: number; readonly port: number | undefined } {
  const [first = '', second, ...rest] = text.split('/');
  const isNumber = /^\d+$/.test(first);
  const isOutside = isNumber && (Number(first) < 1 || Number(first) > MAX_PORT);
  // The name of a port has a letter.
  const isNoName = !isNumber && !/[a-z]/i.test(first);
  if (isOutside || isNoName || rest.length > 0) throw wrongPort(text);
  const portless =
    first === 'protocol' && /^\d+$/.test(second ?? '')
      ? Number(second)
      : PORTLESS[text.toLowerCase()];
  if (portless !== undefined) {
    if (portless > MAX_PROTOCOL) throw wrongPort(text);
    return { protocol: portless, port: undefined };
  }
  const isProtocol = (word: string): word is keyof typeof PROTOCOL_NUMBERS =>
    word in PROTOCOL_NUMBERS;
  const protocol = (second ?? (isProtocol(first.toUpperCase()) ? first : 'tcp')).toUpperCase();
  if (!isProtocol(protocol)) throw wrongPort(text);
  if (second === undefined && isProtocol(first.toUpperCase()))
    return { protocol: PROTOCOL_NUMBERS[protocol], port: undefined };
  if (isNumber) return { protocol: PROTOCOL_NUMBERS[protocol], port: Number(first) };
  const named = to.pod?.ports.find(
    ({ name, protocol: number }) =>
      name === first && (second === undefined || number === PROTOCOL_NUMBERS[protocol]),
  );
  if (named === undefined)
    throw new UserError(`The destination has no port named "${first}"`, {
      hint: `Its ports are ${(to.pod?.ports ?? []).map(({ name }) => name).join(', ') || '(none has a name)'}.`,
    });
  return { protocol: named.protocol, port: named.port };
}

function wrongPort(text: string): UserError {
  return new UserError(`"${text}" is no port`, {
    hint: 'Give 80/tcp, 53/udp, 9003/sctp, a number for TCP, the name of a port of the destination, icmp, or protocol/NUMBER.',
    exitCode: 2,
  });
}
