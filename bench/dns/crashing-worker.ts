/** The responder's thread, which crashes when a datagram of one octet comes: to measure what clients notice of it. */
import { UdpBatchSocket } from '#linux/udp-batch.ts';

const { receive } = UdpBatchSocket.prototype;
UdpBatchSocket.prototype.receive = function receiveOrCrash(this: UdpBatchSocket): number {
  const count = receive.call(this);
  for (let i = 0; i < count; i++)
    if (this.requestLength(i) === 1) throw new Error('crash on purpose');
  return count;
};
await import('#node/dns/server/worker.ts');
