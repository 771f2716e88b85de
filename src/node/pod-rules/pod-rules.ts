/**
 * Keeps the rules of this node's pods in the kernel: sources, host ports, masquerade of bridge networks.
 *
 * `commit` has done its work when it returns, so a pod's rules are there before its link is; `remove` comes after the
 * link is gone. A host port belongs to the pod that asked last; when that one goes, it falls back to the one before.
 */
import { explainError } from '#lib/errors.ts';
import type { Ip } from '#lib/ip.ts';
import { NFT_TABLE } from '#lib/kernel-objects.ts';
import type { Logger } from '#lib/log.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { IPPROTO } from '#wire/nftables/match.ts';
import type { Attachment, PodRules as PodRulesPort } from '../attachment.ts';
import { Ruleset, type RulesetFamily } from '../ruleset.ts';
import { hostPortsOf, type PlacedElement, podElements, podRulesPart } from './plan.ts';

/** Name of this feature's part of the rulesets. */
export const POD_RULES_PART = 'pod-rules';
const FAMILIES = ['ip', 'ip6'] as const;

export interface PodRulesComponents {
  /** One of each family, shared with other features; this one must be among their awaited parts. */
  readonly rulesets: readonly Ruleset[];
  readonly nftables: Nftables;
  readonly conntrack: Conntrack;
  readonly log: Logger;
}

export class PodRules implements PodRulesPort, AsyncDisposable {
  readonly #components: PodRulesComponents;
  readonly #rulesets: Map<RulesetFamily, Ruleset<RulesetFamily>>;
  readonly #layers = new Map<RulesetFamily, LayeredElements>();
  #bridge: Ruleset<'bridge'> | undefined;
  #lastError: string | undefined;
  /** The transaction that will take away what is being removed. */
  #removal: Promise<void> | undefined;

  constructor(components: PodRulesComponents) {
    this.#components = components;
    this.#rulesets = new Map(
      components.rulesets.map((it) => [it.family, it as unknown as Ruleset<RulesetFamily>]),
    );
  }

  /** Why rules of a new pod could not be written, or undefined. */
  get problem(): string | undefined {
    return this.#lastError;
  }

  /** Puts in place what the attachments of an earlier agent need. */
  start(attachments: readonly Attachment[]): void {
    for (const [family, ruleset] of this.#rulesets) {
      ruleset.define(POD_RULES_PART, podRulesPart(family));
      const layers = this.#layersOf(family);
      for (const attachment of attachments)
        layers.put(attachment.handle, podElements(attachment, family));
      for (const [set, elements] of layers.all()) ruleset.stageAll(set, elements);
    }
    this.#commit();
    for (const attachment of attachments)
      if (needsBridge(attachment)) this.#put('bridge', attachment);
    this.#commit();
  }

  stage(attachment: Attachment): void {
    for (const family of FAMILIES) this.#put(family, attachment);
    if (needsBridge(attachment)) this.#put('bridge', attachment);
  }

  /** @throws if the kernel refuses; then the attachment must be removed */
  commit(attachment: Attachment): void {
    this.#commit();
    // A client that spoke to this port before has an entry that leads elsewhere, for as long as it keeps sending.
    this.#forget(attachment, 'came');
  }

  /** Removing what is gone succeeds. */
  async remove(attachment: Attachment): Promise<void> {
    for (const [family, ruleset] of this.#rulesets) {
      const change = this.#layersOf(family).remove(attachment.handle);
      for (const [set, { add, remove }] of change) ruleset.stage(set, { add, remove });
    }
    // What goes in the same turn goes in one transaction.
    this.#removal ??= Promise.resolve().then(() => this.#commitRemoval());
    await this.#removal;
    this.#forget(attachment, 'went');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#bridge?.[Symbol.asyncDispose]();
  }

  #commitRemoval(): void {
    this.#removal = undefined;
    try {
      this.#commit();
    } catch (error) {
      // It stays staged and goes out with the next transaction; the addresses may not wait for that.
      this.#components.log.error(
        { reason: explainError(error) },
        'could not remove the rules of pods now',
      );
    }
  }

  #put(family: RulesetFamily, attachment: Attachment): void {
    const ruleset = family === 'bridge' ? this.#bridgeRuleset() : this.#rulesets.get(family);
    if (ruleset === undefined) return;
    const change = this.#layersOf(family).put(attachment.handle, podElements(attachment, family));
    for (const [set, { add, remove }] of change) ruleset.stage(set, { add, remove });
  }

  #commit(): void {
    const refusal = Ruleset.tryCommit([...this.#rulesets.values()]);
    this.#lastError = refusal && `cannot write the rules of pods: ${explainError(refusal.error)}`;
    if (refusal !== undefined) throw refusal.error;
  }

  /** Most nodes have no bridge of ours, and need no table of that family. */
  #bridgeRuleset(): Ruleset<RulesetFamily> {
    const known = this.#rulesets.get('bridge');
    if (known !== undefined) return known;
    const { nftables, log } = this.#components;
    this.#bridge = new Ruleset(
      { nftables, log },
      { family: 'bridge', table: NFT_TABLE, parts: [POD_RULES_PART] },
    );
    this.#bridge.define(POD_RULES_PART, podRulesPart('bridge'));
    const ruleset = this.#bridge as unknown as Ruleset<RulesetFamily>;
    this.#rulesets.set('bridge', ruleset);
    return ruleset;
  }

  #layersOf(family: RulesetFamily): LayeredElements {
    const known = this.#layers.get(family) ?? new LayeredElements();
    this.#layers.set(family, known);
    return known;
  }

  /** UDP has no end that conntrack could see: entries of a host port that changes hands must go by hand. */
  #forget(attachment: Attachment, why: 'came' | 'went'): void {
    const { conntrack, log } = this.#components;
    for (const family of FAMILIES) {
      const ports = hostPortsOf(attachment, family).filter((it) => it.protocol === 'udp');
      if (ports.length === 0) continue;
      try {
        const entries = conntrack.list({ family: family === 'ip' ? 4 : 6, protocol: IPPROTO.udp });
        const stale = entries.filter(({ original, reply }) =>
          ports.some((port) => {
            const asked =
              original.destinationPort === port.hostPort &&
              (port.hostIp === undefined || original.destination === port.hostIp);
            const leadsHere = leadsTo(reply, port);
            return asked && (why === 'came' ? !leadsHere : leadsHere);
          }),
        );
        conntrack.delete(stale);
      } catch (error) {
        log.warn(
          { handle: attachment.handle, reason: explainError(error) },
          'could not remove old UDP connections of a host port; they end when their clients pause',
        );
      }
    }
  }
}

function leadsTo(
  reply: { source: Ip; sourcePort?: number | undefined },
  port: { address: Ip; containerPort: number },
): boolean {
  return reply.source === port.address && reply.sourcePort === port.containerPort;
}

function needsBridge({ bridge, onBridge }: Attachment): boolean {
  return bridge !== undefined || onBridge === true;
}

type Element = PlacedElement['element'];
type Change = Map<string, { add: Element[]; remove: Element[] }>;

/** Elements by owner. Of several owners of one key the newest has it. */
class LayeredElements {
  readonly #owned = new Map<string, readonly PlacedElement[]>();
  /** `set key` → owners, the newest last. */
  readonly #stacks = new Map<string, { owner: string; placed: PlacedElement }[]>();

  /** Replaces everything of the owner. @returns what has to change */
  put(owner: string, elements: readonly PlacedElement[]): Change {
    const change = this.remove(owner);
    if (elements.length > 0) this.#owned.set(owner, elements);
    for (const placed of elements) {
      const key = stackKey(placed);
      const stack = this.#stacks.get(key) ?? [];
      this.#stacks.set(key, stack);
      stack.push({ owner, placed });
      const { add, remove } = changeOf(change, placed.set);
      // What the removal above took out is replaced by what comes now.
      const gone = remove.findIndex((it) => sameKey(it, placed.element));
      if (gone >= 0) remove.splice(gone, 1);
      add.push(placed.element);
    }
    return change;
  }

  remove(owner: string): Change {
    const change: Change = new Map();
    for (const placed of this.#owned.get(owner) ?? []) {
      const key = stackKey(placed);
      const stack = this.#stacks.get(key) ?? [];
      const wasTop = stack.at(-1)?.owner === owner;
      const rest = stack.filter((it) => it.owner !== owner);
      if (rest.length === 0) this.#stacks.delete(key);
      else this.#stacks.set(key, rest);
      if (!wasTop) continue;
      const next = rest.at(-1);
      const { add, remove } = changeOf(change, placed.set);
      if (next === undefined) remove.push(placed.element);
      else add.push(next.placed.element);
    }
    this.#owned.delete(owner);
    return change;
  }

  /** The elements in force, by set. */
  all(): Map<string, Element[]> {
    const sets = new Map<string, Element[]>();
    for (const stack of this.#stacks.values()) {
      const placed = stack.at(-1)?.placed;
      if (placed === undefined) continue;
      const elements = sets.get(placed.set) ?? [];
      elements.push(placed.element);
      sets.set(placed.set, elements);
    }
    return sets;
  }
}

function changeOf(change: Change, set: string): { add: Element[]; remove: Element[] } {
  const known = change.get(set) ?? { add: [], remove: [] };
  change.set(set, known);
  return known;
}

function stackKey({ set, element }: PlacedElement): string {
  return `${set} ${Buffer.from(element.key).toString('latin1')}`;
}

function sameKey(a: Element, b: Element): boolean {
  return Buffer.compare(a.key, b.key) === 0;
}
