/**
 * The two programs of the packet tests, as source text for `node -e` in a namespace. They speak TCP and UDP.
 *
 * The server answers each connection or datagram with its own address and the client's. The client reads flows as JSON
 * from standard input and prints as JSON what each try heard: the answer, an error's name, or `timeout`.
 */

export interface Ask {
  readonly protocol: 'TCP' | 'UDP';
  readonly host: string;
  readonly port: number;
  readonly tries: number;
  /** The client's own address; by default what the kernel chooses. */
  readonly from?: string;
}

/** Long enough that a slow machine is not taken for a dropped packet, short enough for some hundred drops. */
const TIMEOUT_MS = 1000;
const MAX_AT_A_TIME = 50;
const STEADY_INTERVAL_MS = 50;
const MANY_INTERVAL_MS = 200;

export const SERVER = `
const [port, ...hosts] = process.argv.slice(1);
(async () => {
  for (const host of hosts) {
    const tcp = require('node:net').createServer((s) => {
      s.on('error', () => {});
      s.end(s.localAddress + ' ' + s.remoteAddress);
    });
    await new Promise((done) => tcp.listen(Number(port), host, 4096, done));
    const udp = require('node:dgram').createSocket(host.includes(':') ? 'udp6' : 'udp4');
    udp.on('message', (m, from) => udp.send(host + ' ' + from.address, from.port, from.address));
    udp.on('error', () => {});
    await new Promise((done) => udp.bind(Number(port), host, done));
  }
  console.log('ready');
})();`;

export const CLIENT = `
const net = require('node:net');
const dgram = require('node:dgram');
const ask = ({ protocol, host, port, from }) => new Promise((done) => {
  if (protocol === 'TCP') {
    let said = '';
    const s = net.connect({ port, host, localAddress: from });
    s.on('data', (d) => (said += d));
    s.on('error', (e) => (said = e.code));
    s.on('close', () => done(said));
    s.setTimeout(${TIMEOUT_MS}, () => { said = 'timeout'; s.destroy(); });
    return;
  }
  const s = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4');
  const end = (said) => { clearTimeout(timer); s.close(); done(said); };
  const timer = setTimeout(() => end('timeout'), ${TIMEOUT_MS});
  s.once('error', (e) => end(e.code));
  s.once('message', (m) => end(String(m)));
  s.bind(0, from, () => s.connect(port, host, (e) => e ? end(e.code) : s.send('hello')));
});
(async () => {
  let text = '';
  for await (const chunk of process.stdin) text += chunk;
  const flows = JSON.parse(text);
  const heard = flows.map(() => []);
  let next = 0;
  const work = async () => {
    while (next < flows.length) {
      const i = next++;
      for (let n = 0; n < flows[i].tries; n++) heard[i].push(await ask(flows[i]));
    }
  };
  await Promise.all(Array.from({ length: ${MAX_AT_A_TIME} }, work));
  console.log(JSON.stringify(heard));
})();`;

/** Sends again and again over one connection, or from one port, and prints a line for each thing that it hears. */
export const STEADY_CLIENT = `
const [protocol, host, port, localPort] = process.argv.slice(1);
const say = (text) => process.stdout.write(String(text).trim() + '\\n');
const again = (send) => setInterval(send, ${STEADY_INTERVAL_MS});
if (protocol === 'TCP') {
  const s = require('node:net').connect({ port, host, localPort: Number(localPort) });
  s.on('data', say);
  s.on('error', (e) => say(e.code));
  s.on('close', () => process.exit());
  again(() => s.write('x'));
} else {
  const s = require('node:dgram').createSocket('udp4');
  s.on('message', say);
  s.on('error', (e) => say(e.code));
  s.bind(0, () => again(() => s.send('hello', Number(port), host)));
}`;

/** Many connections that go on, given as JSON `[host, port][]`; prints a line for each thing heard: which one, and what. */
export const STEADY_CLIENTS = `
JSON.parse(process.argv[1]).forEach(([host, port], i) => {
  const say = (text) => process.stdout.write(i + ' ' + String(text).trim() + '\\n');
  const s = require('node:net').connect(port, host);
  const sending = setInterval(() => s.write('x'), ${MANY_INTERVAL_MS});
  s.on('data', say);
  s.on('error', (e) => say(e.code));
  s.on('close', () => clearInterval(sending));
});`;
