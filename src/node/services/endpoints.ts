/** The endpoints of one port of a service, out of its slices. Pure. */
import type { ServicePort } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { type Family, type Ip, parseIp } from '#lib/ip.ts';
import { isReady, type Selectable } from './select.ts';
import { type EndpointTarget, MAX_WEIGHT, targetKey } from './slots.ts';

/** On an EndpointSlice: `10.0.0.5=3,10.0.0.6=0`. Who is not named has weight 1; 0 drains. */
export const WEIGHTS_ANNOTATION = 'tulle.dev/weights';

/** One endpoint with what its choice depends on. */
export interface Candidate extends Selectable {
  readonly target: EndpointTarget;
  readonly weight: number;
}

/** Each endpoint once. */
export function candidatesOf(
  slices: readonly EndpointSlice[],
  port: ServicePort,
  family: Family,
): Candidate[] {
  const addressType = `IPv${family}`;
  const found: Candidate[] = [];
  let isFromMany = false;
  for (const slice of slices) {
    if (slice.addressType !== addressType) continue;
    const number = portNumber(slice, port);
    if (number === undefined) continue;
    const weights = parseWeights(slice.metadata.annotations?.[WEIGHTS_ANNOTATION]);
    isFromMany ||= found.length > 0;
    for (const { addresses, conditions, nodeName, hints } of slice.endpoints ?? []) {
      const address = parseIp(addresses[0] ?? '');
      if (address === undefined) continue;
      const weight = weights?.get(address) ?? 1;
      found.push({ target: { address, port: number }, weight, conditions, nodeName, hints });
    }
  }
  return isFromMany ? withoutDuplicates(found) : found;
}

/** The number that a slice has for a port of the service: it goes by the name and the protocol. */
function portNumber(slice: EndpointSlice, port: ServicePort): number | undefined {
  const name = port.name ?? '';
  const protocol = port.protocol ?? 'TCP';
  return slice.ports?.find((p) => (p.name ?? '') === name && (p.protocol ?? 'TCP') === protocol)
    ?.port;
}

/** An endpoint may stand in two slices while it moves between them; the better news counts. */
function withoutDuplicates(candidates: readonly Candidate[]): Candidate[] {
  const byTarget = new Map<string, Candidate>();
  for (const candidate of candidates) {
    const key = targetKey(candidate.target);
    const other = byTarget.get(key);
    if (other === undefined || rank(candidate) > rank(other)) byTarget.set(key, candidate);
  }
  return [...byTarget.values()];
}

function rank(candidate: Candidate): number {
  if (isReady(candidate)) return 2;
  return isServing(candidate) ? 1 : 0;
}

/** Answers, be it while ending. A missing condition means true, as upstream. */
function isServing({ conditions }: Selectable): boolean {
  return conditions?.serving ?? true;
}

function parseWeights(text: string | undefined): ReadonlyMap<Ip, number> | undefined {
  if (text === undefined) return undefined;
  const weights = new Map<Ip, number>();
  for (const item of text.split(',')) {
    const [address = '', weight = ''] = item.split('=').map((part) => part.trim());
    const parsed = parseIp(address);
    if (parsed !== undefined && /^\d{1,6}$/.test(weight))
      weights.set(parsed, Math.min(Number(weight), MAX_WEIGHT));
  }
  return weights;
}
