// An upstream name server and a web server for the tests of domain names. Arguments: the address to be and to give, and the port.
// Any name ending in `.test` has the address, for one second or, with the first label `long`, for five minutes. HTTP on port 8000 answers with "hello".
import { createSocket } from 'node:dgram';
import { createServer } from 'node:http';

const [address = '', port = '5300'] = process.argv.slice(2);
const socket = createSocket('udp4');
socket.on('message', (query, from) => {
  let end = 12;
  while (query[end] !== 0) end += query[end] + 1;
  end += 5;
  const name = query
    .subarray(12, end - 4)
    .toString('latin1')
    .toLowerCase();
  const isAddress = query.readUInt16BE(end - 4) === 1 && name.includes('\x04test\x00');
  const header = Buffer.from(query.subarray(0, 12));
  header.writeUInt16BE(0x8180, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(isAddress ? 1 : 0, 6);
  header.writeUInt32BE(0, 8);
  const answer = Buffer.from([
    ...[0xc0, 12, 0, 1, 0, 1, 0, 0, ...(name.startsWith('\x04long') ? [1, 44] : [0, 1]), 0, 4],
    ...address.split('.').map(Number),
  ]);
  socket.send(
    Buffer.concat([header, query.subarray(12, end), ...(isAddress ? [answer] : [])]),
    from.port,
    from.address,
  );
});
socket.bind(Number(port), address);
createServer((_, response) => response.end('hello')).listen(8000, address);
