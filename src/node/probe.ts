/**
 * Asks the kernel, by doing it, for what the agent cannot work without. Each question leaves nothing behind.
 * Asked once at start, so that a missing feature is one clear sentence and not a failure deep inside a sync.
 */
import { EEXIST, EPROTONOSUPPORT, isErrno, KernelError, UserError } from '#lib/errors.ts';
import { LINK_PREFIX, VXLAN_PORT } from '#lib/kernel-objects.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import type { PartHealth } from './health.ts';
import { KERNEL_FEATURES, type KernelFeature } from './kernel-features.ts';

const PROBE_LINK = `${LINK_PREFIX}-probe`;
const PROBE_TABLE = `${LINK_PREFIX}-probe`;
/** Not the one in use, so that the probe never clashes with a living device. */
const PROBE_VNI = 0xfffffe;

/** What is not there and can be done without. */
export interface KernelGap {
  readonly name: string;
  readonly option: string;
  readonly otherwise: string;
}

/**
 * @returns what is missing and has a substitute
 * @throws UserError naming all that is missing and has none, with the kernel options that give it
 */
export function probeKernel(stack: NetworkStack, nftables: Nftables): KernelGap[] {
  const missing: { name: string; option: string; cause: KernelError }[] = [];
  const gaps: KernelGap[] = [];
  const [base, ...others] = KERNEL_FEATURES;
  const refusal = (feature: KernelFeature) =>
    refusalOf(() => nftables.commit(feature.ask(PROBE_TABLE)));
  const vxlan = refusalOf(() => probeVxlan(stack));
  if (vxlan !== undefined)
    missing.push({ name: 'VXLAN devices', option: 'CONFIG_VXLAN', cause: vxlan });
  const noTables = base === undefined ? undefined : refusal(base);
  if (base !== undefined && noTables !== undefined) missing.push({ ...base, cause: noTables });
  for (const feature of noTables === undefined ? others : []) {
    const cause = refusal(feature);
    if (cause === undefined) continue;
    const { name, option, otherwise } = feature;
    if (otherwise === undefined) missing.push({ name, option, cause });
    else gaps.push({ name, option, otherwise });
  }
  if (missing.length === 0) return gaps;
  throw new UserError(
    `This kernel refuses what Tulle needs: ${missing.map(({ name }) => name).join('; ')}`,
    {
      cause: missing[0]?.cause,
      hint: `Run a kernel with ${missing.map(({ option }) => option).join(', ')}, or load the modules, and see 'dmesg'.`,
    },
  );
}

/**
 * Opens nftables.
 * @throws UserError if the kernel has no netfilter over netlink at all
 */
export function openOrRefuse(open: () => Nftables): Nftables {
  try {
    return open();
  } catch (cause) {
    if (!isErrno(cause, EPROTONOSUPPORT)) throw cause;
    throw new UserError('This kernel refuses what Tulle needs: nftables', {
      cause,
      hint: 'Run a kernel with CONFIG_NETFILTER_NETLINK and CONFIG_NF_TABLES, or load the modules.',
    });
  }
}

/** The Node's condition of what {@link probeKernel} found. */
export function kernelHealth(gaps: readonly KernelGap[]): PartHealth {
  const told = gaps.map(
    ({ name, option, otherwise }) => `the kernel has not ${name} (${option}): ${otherwise}`,
  );
  return { ready: true, message: told.join('; ') || 'the kernel has all that is used' };
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

/** @returns undefined if the kernel does it */
function refusalOf(probe: () => void): KernelError | undefined {
  try {
    probe();
    return undefined;
  } catch (cause) {
    if (!(cause instanceof KernelError)) throw cause;
    // Another agent is starting at this very moment: then the feature is there.
    if (isErrno(cause, EEXIST)) throw cause;
    return cause;
  }
}
