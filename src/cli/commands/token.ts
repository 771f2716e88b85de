/** `tulle token …`: through the API, with the administrator's rights. */

import type { ApiClient } from '#client/port.ts';
import { UserError } from '#lib/errors.ts';
import { connect } from '../client.ts';
import { formatColumns } from '../output.ts';
import type { CommandContext } from '../program.ts';

const TOKENS_PATH = '/tulle/v1/tokens';
const MAX_TTL_HOURS = 24 * 365;

interface TokenInfo {
  id: string;
  description: string;
  expires: string;
}

export async function tokenCreate(
  flags: { ttl: string; description: string; kubeconfig?: string },
  { print }: CommandContext,
): Promise<void> {
  const hours = Number(flags.ttl);
  if (!(hours > 0 && hours <= MAX_TTL_HOURS))
    throw new UserError(`--ttl "${flags.ttl}" is wrong: expected 1 to ${MAX_TTL_HOURS} hours`, {
      exitCode: 2,
    });
  await using client = connect(flags.kubeconfig);
  const body = { ttlSeconds: Math.round(hours * 3600), description: flags.description };
  print((await request<{ token: string }>(client, 'POST', TOKENS_PATH, body)).token);
}

export async function tokenList(
  flags: { kubeconfig?: string },
  { print }: CommandContext,
): Promise<void> {
  await using client = connect(flags.kubeconfig);
  const { tokens } = await request<{ tokens: TokenInfo[] }>(client, 'GET', TOKENS_PATH);
  const rows = tokens.map((token) => [token.id, token.expires, token.description]);
  print(formatColumns([['ID', 'EXPIRES', 'DESCRIPTION'], ...rows]));
}

export async function tokenRevoke(
  id: string,
  flags: { kubeconfig?: string },
  { print }: CommandContext,
): Promise<void> {
  await using client = connect(flags.kubeconfig);
  await request(client, 'DELETE', `${TOKENS_PATH}/${encodeURIComponent(id)}`);
  print(`token ${id} revoked; nodes that joined with it stay`);
}

async function request<T>(
  client: ApiClient,
  method: string,
  path: string,
  body?: unknown,
): Promise<T> {
  const answer = await client.raw(method, path, body === undefined ? {} : { body });
  return JSON.parse(answer.body) as T;
}
