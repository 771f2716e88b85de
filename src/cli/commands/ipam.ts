/** `tulle ipam …`: who holds which address, whether all fits together, and giving one back by hand. */
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { releaseOrdinals } from '#api/tulle/v1alpha1/ip-block-release.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { ApiClient } from '#client/port.ts';
import { UserError } from '#lib/errors.ts';
import { type Ip, parseIp } from '#lib/ip.ts';
import { connect } from '../client.ts';
import {
  explainAddress,
  explainLoans,
  findAddressProblems,
  findAllocation,
  formatPools,
  type IpamInput,
  whyNotRelease,
} from '../ipam-report.ts';
import { EXIT_USAGE } from '../output.ts';
import type { CommandContext } from '../program.ts';

type Flags = { kubeconfig?: string };

export async function ipamShow(
  address: string | undefined,
  flags: Flags,
  { print }: CommandContext,
): Promise<void> {
  const parsed = address === undefined ? undefined : requireIp(address);
  await using client = connect(flags.kubeconfig);
  const input = await read(client);
  print(parsed === undefined ? formatPools(input) : explainAddress(input, parsed));
}

/** Exit status 1 if something is wrong, so that scripts can ask. */
export async function ipamCheck(flags: Flags, { print }: CommandContext): Promise<void> {
  await using client = connect(flags.kubeconfig);
  const input = await read(client);
  const problems = findAddressProblems(input);
  const loans = explainLoans(input);
  for (const loan of loans) print(`note: ${loan}`);
  for (const problem of problems) print(problem);
  const used = input.blocks.reduce((sum, it) => sum + Object.keys(it.spec.allocations).length, 0);
  print(
    `${used} addresses in ${input.blocks.length} blocks, ${loans.length} lent, ${problems.length} problems`,
  );
  if (problems.length > 0) process.exitCode = 1;
}

/** Gives an address back whose owner is gone without a trace that the garbage collection could see. */
export async function ipamRelease(
  address: string,
  flags: Flags & { force: boolean },
  { print }: CommandContext,
): Promise<void> {
  const parsed = requireIp(address);
  await using client = connect(flags.kubeconfig);
  const input = await read(client);
  const found = findAllocation(input.blocks, parsed);
  if (found?.allocation === undefined) throw new UserError(`${parsed} is not in use`);
  const refusal = flags.force ? undefined : whyNotRelease(input, parsed, found.allocation);
  if (refusal !== undefined)
    throw new UserError(`Cannot release ${parsed}: ${refusal.reason}`, { hint: refusal.hint });
  // It fails with a conflict if the block has changed since it was read.
  await client.update(IP_BLOCK, releaseOrdinals(found.block, [found.ordinal], Date.now()));
  print(
    `${parsed} released; it was in use since ${found.allocation.since} by "${found.allocation.handle}"`,
  );
}

async function read(client: ApiClient): Promise<IpamInput> {
  const [pools, blocks, nodes, pods] = await Promise.all([
    client.list(IP_POOL),
    client.list(IP_BLOCK),
    client.list(NODE),
    client.list(POD),
  ]);
  return { pools: pools.items, blocks: blocks.items, nodes: nodes.items, pods: pods.items };
}

function requireIp(text: string): Ip {
  const address = parseIp(text);
  if (address !== undefined) return address;
  throw new UserError(`"${text}" is no IP address`, {
    hint: "Give one address, as 10.244.0.7. Pools and blocks are listed by 'tulle ipam show' alone.",
    exitCode: EXIT_USAGE,
  });
}
