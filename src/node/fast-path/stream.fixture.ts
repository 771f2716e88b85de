/**
 * For tests: one TCP connection that carries much.
 *
 *   server ADDRESS PORT      prints "ready", and of the connection "end BYTES" or "reset BYTES"
 *   client ADDRESS PORT      sends as many bytes as each line of standard input says, and prints "sent";
 *                            at "end" it ends, at "reset" it breaks off
 */
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';

const CHUNK = Buffer.alloc(1024 * 1024);
const [role, address = '', port = ''] = process.argv.slice(2);
const say = (text: string) => void process.stdout.write(`${text}\n`);

if (role === 'server')
  createServer((socket) => {
    let bytes = 0;
    socket.on('data', (data) => {
      bytes += data.length;
    });
    socket.on('end', () => say(`end ${bytes}`));
    socket.on('error', () => say(`reset ${bytes}`));
  }).listen(Number(port), address, () => say('ready'));
else {
  const socket = connect(Number(port), address, () => say('connected'));
  socket.on('error', (error) => say(error.message));
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === 'end') socket.end();
    else if (line === 'reset') socket.resetAndDestroy();
    else {
      for (let left = Number(line); left > 0; left -= CHUNK.length) {
        const isFlushed = socket.write(CHUNK.subarray(0, Math.min(left, CHUNK.length)));
        if (!isFlushed) await new Promise((resolve) => socket.once('drain', resolve));
      }
      say('sent');
    }
  }
}
