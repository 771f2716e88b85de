/**
 * Connections that policy allows no more. Pure.
 *
 * Established packets leave the policy's chains at their first rules, so a connection that a new policy forbids would
 * live on. After each change the connections are held against the policies, and those that are not allowed get a mark
 * in their entry, which the very first rule drops. The entry is marked, not deleted: without its entry the next packet
 * would begin a new connection, possibly in the direction that is still allowed. If policy changes back within the
 * entry's life, the mark goes and the connection continues.
 */
import type { Ip } from '#lib/ip.ts';
import { CT_MARK_CUT } from '#lib/kernel-objects.ts';
import { decide, type Flow } from '#policy/evaluate.ts';
import type { End } from '#policy/match.ts';
import type { CompiledPolicy, Direction, PolicyPod, World } from '#policy/model.ts';
import type { ConntrackEntry } from '#wire/conntrack/codec.ts';
import type { Directory } from './directory.ts';

export interface CutContext {
  readonly directory: Directory;
  /** Pods of this node by address. */
  readonly localAt: (address: Ip) => PolicyPod | undefined;
  readonly policiesFor: (pod: PolicyPod) => Iterable<CompiledPolicy>;
  /** Of the node itself: what it begins is never asked about. */
  readonly ownAddresses: ReadonlySet<Ip>;
  readonly resolved: (pattern: string) => readonly Ip[];
}

export interface CutPlan {
  readonly cut: readonly ConntrackEntry[];
  readonly restore: readonly ConntrackEntry[];
}

export function planCuts(entries: Iterable<ConntrackEntry>, context: CutContext): CutPlan {
  const cut: ConntrackEntry[] = [];
  const restore: ConntrackEntry[] = [];
  for (const entry of entries) {
    const isCut = (entry.mark & CT_MARK_CUT) !== 0;
    const mustBeCut = !isAllowed(entry, context);
    if (mustBeCut && !isCut) cut.push(entry);
    if (!mustBeCut && isCut) restore.push(entry);
  }
  return { cut, restore };
}

/** What this node decides of the connection: about its own pods at either end. */
function isAllowed(entry: ConntrackEntry, context: CutContext): boolean {
  // Policy sees the packet after the destination was translated, and before the source is.
  const source = entry.original.source;
  const destination = entry.reply.source;
  const from = context.localAt(source);
  const to = context.localAt(destination);
  if ((from === undefined && to === undefined) || source === destination) return true;
  if (context.ownAddresses.has(source)) return true;
  const flow: Flow = {
    from: endOf(source, from, context),
    to: endOf(destination, to, context),
    protocol: entry.original.protocol,
    port: entry.reply.sourcePort,
  };
  return (
    (from === undefined || agrees('egress', from, flow, context)) &&
    (to === undefined || agrees('ingress', to, flow, context))
  );
}

function endOf(address: Ip, local: PolicyPod | undefined, { directory }: CutContext): End {
  const pod = local ?? directory.podAt(address);
  const isPod = pod !== undefined && !pod.hostNetwork;
  return {
    pod: isPod ? pod : undefined,
    node: isPod ? undefined : directory.nodeAt(address),
    ip: address,
  };
}

function agrees(
  direction: Direction,
  pod: PolicyPod,
  flow: Flow,
  { directory, policiesFor, resolved }: CutContext,
): boolean {
  const { pods, namespaces, nodes } = directory;
  const world: World = { pods, namespaces, nodes, policies: [...policiesFor(pod)], resolved };
  return decide(world, direction, flow).allowed;
}
