/** A TCP relay for tests, that can be closed, cut, or made to hold everything back. */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

export interface Gate extends AsyncDisposable {
  readonly url: string;
  /** Cuts all connections and takes no more. */
  close(): Promise<void>;
  open(): Promise<void>;
  /** Cuts all connections; new ones are taken. */
  cut(): void;
  /** Keeps connections and lets nothing through in either direction, as a network that drops packets. */
  hold(): void;
  release(): void;
}

/** Opens a gate before a port of this machine. */
export async function gate(targetPort: number, scheme = 'http'): Promise<Gate> {
  const sockets = new Set<Socket>();
  let isHeld = false;
  const relay = (socket: Socket) => {
    const target = connect(targetPort, '127.0.0.1');
    for (const [from, to] of [
      [socket, target],
      [target, socket],
    ] as const) {
      sockets.add(from);
      from.pipe(to);
      if (isHeld) from.unpipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
      from.on('release', () => from.pipe(to));
      from.on('hold', () => from.unpipe(to).pause());
    }
  };
  let server: Server = createServer(relay).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('a port has a number');
  const { port } = address;
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  const close = async () => {
    const closed = server.listening ? once(server, 'close') : undefined;
    server.close();
    cut();
    await closed;
  };
  return {
    url: `${scheme}://127.0.0.1:${port}`,
    cut,
    close,
    async open() {
      server = createServer(relay).listen(port, '127.0.0.1');
      await once(server, 'listening');
    },
    hold() {
      isHeld = true;
      for (const socket of sockets) socket.emit('hold');
    },
    release() {
      isHeld = false;
      for (const socket of sockets) socket.emit('release');
    },
    [Symbol.asyncDispose]: close,
  };
}
