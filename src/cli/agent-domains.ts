/** Asks this machine's agent which addresses its pods were told for the domain names of policies. */
import type { Ip } from '#lib/ip.ts';
import { parseIp } from '#lib/ip.ts';
import type { CompiledPolicy, World } from '#policy/model.ts';
import { DIRECTIONS } from '#policy/model.ts';
import { agentUrl } from './agent-address.ts';

/** The agent is on this machine; one that does not answer at once is not there. */
const TIMEOUT_MS = 2000;

/**
 * The world with what the agent knows, if any policy names a domain.
 * @returns the world as it was if there is no agent to ask: what is said of domain names then is said of names only
 */
export async function withDomains(world: World, agent: string): Promise<World> {
  if (!world.policies.some(namesDomains)) return world;
  const states = await ask(agentUrl(agent, '/policy/domains'));
  if (states === undefined) return world;
  const byPattern = new Map<string, Ip[]>();
  for (const { patterns, address, active } of states)
    for (const pattern of active ? patterns : [])
      byPattern.set(pattern, [...(byPattern.get(pattern) ?? []), address]);
  return { ...world, resolved: (pattern) => byPattern.get(pattern) ?? [] };
}

function namesDomains(policy: CompiledPolicy): boolean {
  return DIRECTIONS.some((direction) =>
    policy[direction]?.some((rule) => rule.peers?.some(({ kind }) => kind === 'domain')),
  );
}

interface DomainState {
  readonly patterns: readonly string[];
  readonly address: Ip;
  readonly active: boolean;
}

async function ask(url: string): Promise<DomainState[] | undefined> {
  let body: unknown;
  try {
    const response = await fetch(url, {
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    body = response.ok ? await response.json() : undefined;
  } catch {
    // No agent here: the answer says what it does not know.
    return undefined;
  }
  if (!Array.isArray(body)) return undefined;
  return body.flatMap((entry: Record<string, unknown>) => {
    const address = parseIp(String(entry.address));
    return address === undefined || !Array.isArray(entry.patterns)
      ? []
      : [{ patterns: entry.patterns.map(String), address, active: entry.active === true }];
  });
}
