/**
 * Asks the kernel, by doing it, for what the agent cannot work without. Each question leaves nothing behind.
 * Asked once at start, so that a missing feature is one clear sentence and not a failure deep inside a sync.
 */
import { EEXIST, isErrno, KernelError, UserError } from '#lib/errors.ts';
import { LINK_PREFIX, VXLAN_PORT } from '#lib/kernel-objects.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { masquerade, rejectUnreachable } from '#wire/nftables/expressions.ts';
import { fibType, ip, loadConcat, meta, numgen, th } from '#wire/nftables/match.ts';
import { inTable, PRIORITY } from '#wire/nftables/objects.ts';

const PROBE_LINK = `${LINK_PREFIX}-probe`;
const PROBE_TABLE = `${LINK_PREFIX}-probe`;
/** Not the one in use, so that the probe never clashes with a living device. */
const PROBE_VNI = 0xfffffe;

/** @throws UserError naming the feature and the kernel option that gives it */
export function probeKernel(stack: NetworkStack, nftables: Nftables): void {
  ask('VXLAN devices', 'CONFIG_VXLAN', () => probeVxlan(stack));
  ask(
    'nftables with NAT and concatenated maps',
    'CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_REJECT, CONFIG_NFT_FIB, CONFIG_NFT_NUMGEN',
    () => probeNftables(nftables),
  );
}

function probeVxlan(stack: NetworkStack): void {
  const old = stack.links.get(PROBE_LINK);
  if (old !== undefined) stack.links.delete(old.index);
  const vxlan = {
    vni: PROBE_VNI,
    port: VXLAN_PORT,
    local: undefined,
    device: undefined,
    learning: false,
  };
  const link = stack.links.create({ kind: 'vxlan', name: PROBE_LINK, vxlan });
  stack.links.delete(link.index);
}

/** Made and deleted in one transaction: nobody ever sees it. */
function probeNftables(nftables: Nftables): void {
  const { table, chain, set, rule } = inTable('ip', PROBE_TABLE);
  const { expressions } = loadConcat([ip.daddr, meta.l4proto, th.dport, numgen('random', 2)]);
  const nat = { type: 'nat', hook: 'postrouting', priority: PRIORITY.srcnat } as const;
  const filter = { type: 'filter', hook: 'forward', priority: PRIORITY.filter } as const;
  nftables.commit([
    table.add(),
    set.add('map', {
      key: ['ipv4_addr', 'inet_proto', 'inet_service', 'mark'],
      data: ['ipv4_addr', 'inet_service'],
    }),
    chain.add('nat', { base: nat }),
    chain.add('filter', { base: filter }),
    rule.add('nat', [...expressions, masquerade({ fullyRandom: true })]),
    rule.add('filter', [fibType('daddr').load(0), rejectUnreachable('ip')]),
    table.delete(),
  ]);
}

function ask(feature: string, option: string, probe: () => void): void {
  try {
    probe();
  } catch (cause) {
    // Another agent is starting at this very moment: then the feature is there.
    if (!(cause instanceof KernelError) || isErrno(cause, EEXIST)) throw cause;
    throw new UserError(`This kernel refuses what Tulle needs: ${feature}`, {
      cause,
      hint: `Run a kernel with ${option}, or load the modules, and see 'dmesg'.`,
    });
  }
}
