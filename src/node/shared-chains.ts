/**
 * Base chains that several features have rules in. Each base chain at a hook costs every packet that passes there some
 * tens of nanoseconds, whatever stands in it; so what can share one does. Pure.
 */
import { PRIORITY } from '#wire/nftables/objects.ts';
import type { ChainContent } from './ruleset.ts';

type SharedChain = Required<Pick<ChainContent, 'name' | 'base'>>;

/** Before connection tracking. Only the last may accept: another feature's rules may come after it. */
export const RAW_PREROUTING: SharedChain = {
  name: 'raw-prerouting',
  base: { type: 'filter', hook: 'prerouting', priority: PRIORITY.raw },
};
export const RAW_ORDER_LAST = 1;
/** The same for what the machine itself sends. */
export const RAW_OUTPUT: SharedChain = {
  name: 'raw-output',
  base: { type: 'filter', hook: 'output', priority: PRIORITY.raw },
};

/**
 * What is forwarded: connections that policy has let through, then what services refuse, then what policy does to pods of
 * this node that send. It stands before other programs' filters at priority 0, so that what they accept is not spared.
 */
export const FORWARD: SharedChain = {
  name: 'policy-from-pods',
  base: { type: 'filter', hook: 'forward', priority: PRIORITY.filter - 10 },
};
export const FORWARD_ORDER = { established: 0, services: 1, policy: 2 } as const;
