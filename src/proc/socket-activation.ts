/**
 * Listening sockets that whoever started us has opened for us: systemd's protocol, sd_listen_fds(3).
 * A socket that is kept open outside of the server loses no connection while the server restarts.
 */

/** `SD_LISTEN_FDS_START` */
const FIRST_DESCRIPTOR = 3;
const MAX_INHERITED = 16;

/** @returns descriptors of listening sockets; empty if there are none. They are not handed on to children. */
export function inheritedSockets(env: NodeJS.ProcessEnv = process.env): number[] {
  const count = Number(env.LISTEN_FDS ?? 0);
  const pid = env.LISTEN_PID;
  // With a PID the variables are meant for that process only, not for its children.
  const forUs = pid === undefined || Number(pid) === process.pid;
  for (const name of ['LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES']) delete env[name];
  if (!forUs || !Number.isInteger(count) || count < 1 || count > MAX_INHERITED) return [];
  return Array.from({ length: count }, (_, i) => FIRST_DESCRIPTOR + i);
}
