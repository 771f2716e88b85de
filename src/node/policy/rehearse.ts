/**
 * The agent plans and encodes the policies that there are once before anybody waits for it, and throws it away: most of
 * what the first pod of many policies waits for is code that has not run yet, which the engine only interprets.
 */
import { ip } from '#lib/ip.ts';
import { NFT_TABLE } from '#lib/kernel-objects.ts';
import type { CompiledPolicy, PodChoice, PolicyPod } from '#policy/model.ts';
import { inTable, type Operation } from '#wire/nftables/objects.ts';
import { encodeTransaction } from '#wire/nftables/transaction-encoder.ts';
import { PolicyPlanner } from './planner.ts';

/** More of the same would not be quicker the next time, and the start would take longer. */
export const MAX_REHEARSED_POLICIES = 1_000;
const NAMESPACE = 'rehearsal';
const EVERYBODY: PodChoice = { namespace: undefined, namespaces: [], pods: [] };
/** Of documentation (RFC 5737, RFC 3849). */
const POD: PolicyPod = {
  ...{ key: `${NAMESPACE}/pod`, namespace: NAMESPACE, name: 'pod', labels: {} },
  ...{ ips: [ip('192.0.2.1'), ip('2001:db8::1')], node: undefined },
  ...{ hostNetwork: false, ports: [] },
};

/**
 * Plans a made-up pod that all these policies are about, and encodes it. Pure.
 * @returns the bytes that the kernel would get, of chains and rules
 */
export function rehearse(policies: Iterable<CompiledPolicy>): Buffer {
  const planner = new PolicyPlanner();
  for (const policy of Iterator.from(policies).take(MAX_REHEARSED_POLICIES)) {
    const namespace = policy.namespace === undefined ? undefined : NAMESPACE;
    planner.setPolicy(policy.id, { ...policy, namespace, subject: EVERYBODY });
  }
  planner.setLocal(POD.key, POD);
  const operations = planner.take().flatMap(({ family, part }): Operation[] => {
    const { chain, rule } = inTable(family, NFT_TABLE);
    return (part?.chains ?? []).flatMap(({ name, rules }) => [
      chain.add(name),
      ...rules.map(({ expressions, comment }) =>
        rule.add(name, expressions, comment === undefined ? {} : { comment }),
      ),
    ]);
  });
  return encodeTransaction(operations).bytes;
}
