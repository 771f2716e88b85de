/** For tests: asks an echo server and prints its answer. Arguments: protocol, address, port, local port and bytes of UDP. */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';

const MAX_WAIT_MS = 1500;
const [protocol, address = '', port = '', localPort = '0', bytes = '1'] = process.argv.slice(2);
setTimeout(() => {
  process.stderr.write('no answer\n');
  process.exit(1);
}, MAX_WAIT_MS);
const print = (answer: Buffer) => {
  process.stdout.write(answer);
  process.exit(0);
};
if (protocol === 'tcp')
  connect(Number(port), address)
    .on('data', print)
    .on('error', () => process.exit(1));
else {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', print).on('error', () => process.exit(1));
  socket.bind(Number(localPort), () =>
    socket.send('?'.repeat(Number(bytes)), Number(port), address),
  );
}
