/** What the API's objects say of the fabric. */
import type { Node } from '#api/core/v1/node.ts';
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { loansOf } from '#api/tulle/v1alpha1/ip-block-loan.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { type Family, familyOf, parseCidr, parseIp, parseMac } from '#lib/ip.ts';
import type { LentAddress } from './lent-addresses.ts';
import type { FabricBlock, FabricNode, FabricPool } from './plan.ts';

/** Annotation of a Node: its tunnel addresses, comma separated. */
export const TUNNEL_ADDRESSES_ANNOTATION = 'tulle.dev/tunnel-addresses';
/** Annotation of a Node: the MAC of its VTEP. */
export const VTEP_MAC_ANNOTATION = 'tulle.dev/vtep-mac';

export interface ObjectReader {
  /**
   * @param family of the underlay: a node may have an address of each
   * @returns an empty list while the node's agent has not published what is needed
   */
  node(node: Node, family: Family): readonly FabricNode[];
  /** @returns an empty list for a claim that is not confirmed, or a block that nobody has */
  block(block: IPBlock): readonly FabricBlock[];
  /** Addresses of the block that are used on another node than its route leads to. */
  lent(block: IPBlock): readonly LentAddress[];
  /** {@link lent} as one string. */
  lentPrint(block: IPBlock | undefined): string;
  /** All that the fabric reads of a Node, as one string. */
  fingerprint(node: Node | undefined): string;
}

/** Remembers what it read of each object while that lives: there are thousands, and a change is of one of them. */
export function createObjectReader(): ObjectReader {
  const nodes = {
    4: new WeakMap<Node, readonly FabricNode[]>(),
    6: new WeakMap<Node, readonly FabricNode[]>(),
  };
  const blocks = new WeakMap<IPBlock, readonly FabricBlock[]>();
  const lent = new WeakMap<IPBlock, readonly LentAddress[]>();
  const reader: ObjectReader = {
    node: (node, family) => remembered(nodes[family], node, () => readNode(node, family)),
    block: (block) => remembered(blocks, block, () => readBlock(block)),
    lent: (block) => remembered(lent, block, () => loansOf(block)),
    lentPrint: (block) =>
      block === undefined
        ? ''
        : reader
            .lent(block)
            .map(({ address, node }) => `${address} ${node}`)
            .join(),
    fingerprint: (node) =>
      node === undefined ? '' : JSON.stringify([reader.node(node, 4), reader.node(node, 6)]),
  };
  return reader;
}

export function fabricPool(pool: IPPool): FabricPool[] {
  const prefix = parseCidr(pool.spec.cidr);
  if (prefix === undefined) return [];
  return [{ cidr: prefix, encapsulation: pool.spec.encapsulation ?? 'Always' }];
}

function readNode(node: Node, family: Family): readonly FabricNode[] {
  const annotations = node.metadata.annotations ?? {};
  const addresses = (node.status?.addresses ?? []).flatMap(({ type, address }) =>
    type === 'InternalIP' ? (parseIp(address) ?? []) : [],
  );
  const underlay = addresses.find((it) => familyOf(it) === family) ?? addresses[0];
  const mac = parseMac(annotations[VTEP_MAC_ANNOTATION] ?? '');
  if (underlay === undefined || mac === undefined) return [];
  const tunnelAddresses = (annotations[TUNNEL_ADDRESSES_ANNOTATION] ?? '')
    .split(',')
    .flatMap((text) => parseIp(text) ?? []);
  return [{ name: node.metadata.name, underlay, vtepMac: mac, tunnelAddresses }];
}

function readBlock(block: IPBlock): readonly FabricBlock[] {
  const prefix = parseCidr(block.spec.cidr);
  // A pending claim is not yet a fact: somebody else may win the block.
  if (prefix === undefined || block.spec.affinity !== 'Confirmed' || block.spec.node === '')
    return [];
  return [{ cidr: prefix, node: block.spec.node }];
}

function remembered<K extends object, V>(memory: WeakMap<K, V>, key: K, read: () => V): V {
  const known = memory.get(key);
  if (known !== undefined) return known;
  const value = read();
  memory.set(key, value);
  return value;
}
