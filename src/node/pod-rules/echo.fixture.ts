/** For tests: answers TCP and UDP on a port with who asked. Arguments: address and port. */
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';

const [address = '', port = ''] = process.argv.slice(2);
const udp = createSocket(address.includes(':') ? 'udp6' : 'udp4');
udp.on('message', (_, from) => udp.send(`${address} ${from.address}`, from.port, from.address));
udp.bind(Number(port), address, () =>
  createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.end(`${address} ${socket.remoteAddress}`);
  }).listen(Number(port), address, () => process.stdout.write('ready\n')),
);
