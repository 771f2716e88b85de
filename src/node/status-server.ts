/** The agent's own HTTP: `/healthz` for probes, `/metrics` for Prometheus. Listens on the loopback unless told otherwise. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import { UserError } from '#lib/errors.ts';
import type { ComponentHealth } from './registration/plan.ts';

export interface StatusServerOptions {
  readonly listen: { readonly host: string; readonly port: number };
  readonly registry: Registry;
  readonly health: () => readonly ComponentHealth[];
  /** What features answer themselves, by path; filled as they start. */
  readonly routes?: ReadonlyMap<
    string,
    (request: IncomingMessage, response: ServerResponse) => void
  >;
}

/** @throws UserError if the address cannot be listened on */
export async function startStatusServer(options: StatusServerOptions): Promise<AsyncDisposable> {
  const { host, port } = options.listen;
  const server = createServer((request, response) => {
    const answer = (status: number, type: string, body: string) => {
      response.writeHead(status, { 'content-type': type });
      response.end(request.method === 'HEAD' ? undefined : body);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return answer(405, 'text/plain', 'method not allowed\n');
    const route = options.routes?.get((request.url ?? '').split('?')[0] ?? '');
    if (route !== undefined) return route(request, response);
    switch (request.url) {
      case '/healthz': {
        const failing = options.health().filter((part) => !part.ready);
        const lines = failing.map((part) => `${part.type}: ${part.message}\n`).join('');
        return answer(failing.length === 0 ? 200 : 503, 'text/plain', lines || 'ok\n');
      }
      case '/metrics':
        options.registry.metrics().then(
          (text) => answer(200, options.registry.contentType, text),
          (error: unknown) => answer(500, 'text/plain', `${String(error)}\n`),
        );
        return;
      default:
        return answer(404, 'text/plain', 'there are /healthz and /metrics\n');
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new UserError(`Cannot listen on ${host}:${port} for health and metrics`, {
          cause,
          hint: 'Does another agent run on this machine? Else choose another --status-address.',
        }),
      ),
    );
    server.listen(port, host, resolve);
  });
  return {
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
