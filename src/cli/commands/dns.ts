/** `tulle dns log` */
import { connect } from 'node:net';
import { UserError } from '#lib/errors.ts';
import { DNS_LOG_SOCKET } from '#lib/kernel-objects.ts';
import type { CommandContext } from '../program.ts';

/** A line that the agent sends; see `src/node/dns/log-server.ts`. */
interface LoggedQuery {
  readonly atMs: number;
  readonly transport: string;
  readonly name: string;
  readonly type: string;
  readonly rcode: string;
  readonly bytes: number;
  readonly durationMs: number;
  readonly from: string;
  readonly error?: string;
}

/** Prints the DNS queries of a pod of this node until it is interrupted. @throws UserError */
export async function dnsLog(
  pod: string,
  flags: { socket?: string },
  { print, signal }: CommandContext,
): Promise<void> {
  const path = flags.socket ?? DNS_LOG_SOCKET;
  const key = pod.includes('/') ? pod : `default/${pod}`;
  const socket = connect(path);
  const stop = () => socket.destroy();
  signal.addEventListener('abort', stop, { once: true });
  socket.write(`${JSON.stringify({ pod: key })}\n`);
  socket.setEncoding('utf8');
  let rest = '';
  try {
    for await (const chunk of socket) {
      const lines = (rest + String(chunk)).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) print(formatQuery(JSON.parse(line) as LoggedQuery));
    }
  } catch (cause) {
    if (signal.aborted) return;
    if (cause instanceof UserError) throw cause;
    throw new UserError(`Cannot follow the queries of ${key} on ${path}`, {
      cause,
      hint: 'The log is of the pods of one node: run this as root on that node, where its agent runs.',
    });
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** @throws UserError if the agent has refused */
export function formatQuery(query: LoggedQuery): string {
  if (query.error !== undefined) throw new UserError(`The agent says: ${query.error}`);
  return [
    new Date(query.atMs).toISOString(),
    query.name,
    query.type,
    query.rcode,
    `${query.bytes} bytes`,
    query.transport,
    query.from === 'cluster' ? 'answered here' : `forwarded or cached, ${query.durationMs} ms`,
  ].join('  ');
}
