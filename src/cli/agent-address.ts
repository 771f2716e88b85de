/** `--agent ADDRESS:PORT`: where the agent of a node answers questions. */
import { UserError } from '#lib/errors.ts';
import { EXIT_USAGE } from './output.ts';

const ADDRESS = /^(\[[\da-f:.]+\]|[^\s:/[\]]+):\d{1,5}$/i;

/**
 * The URL of something that an agent tells.
 * @param path begins with a slash
 * @throws UserError for what is no address with a port
 */
export function agentUrl(agent: string, path: string): string {
  const url = `http://${agent}${path}`;
  if (ADDRESS.test(agent) && URL.canParse(url)) return url;
  throw new UserError(`--agent "${agent}" is no address with a port`, {
    hint: "Give the agent's --status-address, for example 127.0.0.1:9963.",
    exitCode: EXIT_USAGE,
  });
}
