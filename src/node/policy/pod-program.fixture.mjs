// Runs in a pod's namespace for the kernel tests. Serves TCP on the ports given (echo) and UDP on the same; takes
// commands as JSON lines and answers each with a line.
import { createSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';

const ports = process.argv.slice(2).map(Number);
const open = new Map();
/** When the last answer came, by name of the stream. */
const answeredAt = new Map();
const STREAM_INTERVAL_MS = 10;
await Promise.all(
  ports.flatMap((port) => [
    new Promise((ready) => {
      createServer((socket) => {
        socket.on('data', (data) => socket.write(data));
        socket.on('error', () => {});
      }).listen({ port, host: '::' }, ready);
    }),
    new Promise((ready) => {
      const socket = createSocket({ type: 'udp6' });
      socket.on('message', (data, from) => socket.send(data, from.port, from.address));
      socket.bind(port, '::', ready);
    }),
  ]),
);
console.log('ready');

const say = (id, result) => console.log(JSON.stringify({ id, result }));
createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, op, host, port, name, from, waitMs = 400 } = JSON.parse(line);
  const once = (() => {
    let done = false;
    return (result) => {
      if (done) return;
      done = true;
      say(id, result);
    };
  })();
  if (op === 'udp') {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    const end = (result) => {
      once(result);
      try {
        socket.close();
      } catch {
        // Closed already.
      }
    };
    socket.on('message', () => end('ok'));
    socket.on('error', (error) => end(error.code));
    if (from === undefined) socket.send('x', port, host);
    else socket.bind(0, from, () => socket.send('x', port, host));
    setTimeout(() => end('timeout'), waitMs);
    return;
  }
  if (op === 'tcp' || op === 'open') {
    const socket = connect({ host, port });
    socket.on('connect', () => socket.write('x'));
    socket.once('data', () => {
      once('ok');
      if (op === 'open') open.set(name, socket);
      else socket.destroy();
    });
    socket.on('error', (error) => once(error.code));
    if (op === 'tcp')
      setTimeout(() => {
        once('timeout');
        socket.destroy();
      }, waitMs);
    return;
  }
  if (op === 'talk') {
    const socket = open.get(name);
    socket.once('data', () => once('ok'));
    socket.write('y');
    setTimeout(() => once('timeout'), waitMs);
  }
  // Sends again and again until the program ends; `answered` tells when the last answer came.
  if (op === 'stream') {
    const isUdp = from === 'udp';
    const socket = isUdp
      ? createSocket(host.includes(':') ? 'udp6' : 'udp4')
      : connect({ host, port });
    const ask = () => (isUdp ? socket.send('z') : socket.write('z'));
    const begin = () => {
      ask();
      setInterval(ask, STREAM_INTERVAL_MS).unref();
    };
    socket.on(isUdp ? 'message' : 'data', () => {
      answeredAt.set(name, Date.now());
      once('ok');
    });
    socket.on('error', (error) => once(error.code));
    if (isUdp) socket.connect(port, host, begin);
    else socket.on('connect', begin);
    setTimeout(() => once('timeout'), waitMs);
  }
  if (op === 'answered') once(String(answeredAt.get(name) ?? 0));
});
