/**
 * A client and an upstream for tests, on a thread of their own: asks in every way there is, and tells by shared memory,
 * which a main thread that does nothing else can wait for, when all is answered.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { answerWith, startFakeUpstream } from '../fake-upstream.ts';
import { describeMessage, queryBytes } from '../testing.ts';
import { askTcp, askUdp } from '../wire-testing.ts';

const ROUNDS = 5;
const WEB = queryBytes('web.default.svc.cluster.local', 'A');
const done = new Int32Array(workerData as SharedArrayBuffer);
const upstream = await startFakeUpstream((query) => [answerWith(query, ['192.0.2.80'])]);
parentPort?.once('message', async ({ udp, tcp }: { udp: number; tcp: number }) => {
  const got: string[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    const outside = (where: string) => queryBytes(`${where}${i}.example`, 'A');
    const answers = [
      await askUdp(udp, WEB),
      await askUdp(udp, outside('udp')),
      await askUdp(udp, outside('udp')),
      ...(await askTcp(tcp, [WEB])),
      ...(await askTcp(tcp, [outside('tcp')])),
    ];
    got.push(answers.map((answer) => describeMessage(answer)[1]?.split(' ').at(-1)).join(' '));
  }
  await upstream[Symbol.asyncDispose]();
  parentPort?.postMessage(got);
  Atomics.store(done, 0, 1);
  Atomics.notify(done, 0);
});
parentPort?.postMessage(upstream.upstream);
