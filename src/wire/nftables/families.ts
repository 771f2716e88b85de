/** Numbers of families and hooks: `NFPROTO_…` and `NF_…_HOOK` of `include/uapi/linux/netfilter*.h`. */
import type { Hook, NftFamily } from './objects.ts';

export const FAMILY_NUMBERS: Readonly<Record<NftFamily, number>> = {
  inet: 1,
  ip: 2,
  arp: 3,
  netdev: 5,
  bridge: 7,
  ip6: 10,
};

/** @returns undefined for a number that is no family of tables */
export function familyOfNumber(number: number): NftFamily | undefined {
  return (Object.keys(FAMILY_NUMBERS) as NftFamily[]).find((f) => FAMILY_NUMBERS[f] === number);
}

const INET_HOOKS = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;
const HOOKS: Readonly<Record<NftFamily, Readonly<Partial<Record<Hook, number>>>>> = {
  ip: { ...INET_HOOKS, ingress: 5 },
  ip6: { ...INET_HOOKS, ingress: 5 },
  inet: { ...INET_HOOKS, ingress: 5 },
  bridge: INET_HOOKS,
  arp: { input: 0, output: 1, forward: 2 },
  netdev: { ingress: 0, egress: 1 },
};

/** @throws TypeError if the family has no such hook */
export function hookNumber(family: NftFamily, hook: Hook): number {
  const number = HOOKS[family][hook];
  if (number === undefined) throw new TypeError(`family "${family}" has no hook "${hook}"`);
  return number;
}

/** @returns undefined if the family has no hook of this number */
export function hookOfNumber(family: NftFamily, number: number): Hook | undefined {
  const hooks = HOOKS[family];
  return (Object.keys(hooks) as Hook[]).find((hook) => hooks[hook] === number);
}
